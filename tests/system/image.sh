#!/usr/bin/env bash
# Makes the disk of a Debian machine with systemd and Docker. Called by run.sh, as root.
#
# usage: image.sh RELEASE       (bookworm, trixie, …)
#
# Leaves in target/system/RELEASE: `disk`, an ext4 file system of everything but what is tested,
# `vmlinuz` and `initrd`. What is there is kept; remove the folder to get what Debian has by now.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

release=${1:?usage: image.sh RELEASE}
there=$PWD/target/system/$release
[ ! -e "$there/disk" ] || exit 0

mirror=${DEBIAN_MIRROR:-http://deb.debian.org}/debian
# firewalld's polkitd wants a logind, which debootstrap does not find by itself.
packages=(systemd-sysv udev dbus kmod linux-image-cloud-amd64 initramfs-tools
  docker.io apparmor iptables nftables firewalld libpam-systemd busybox-static iproute2 systemd-resolved dnsmasq-base)
rm -rf "$there"
mkdir -p "$there"
echo "system: making a machine of Debian $release"
debootstrap --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
  "$release" "$there/root" "$mirror" > "$there/log" 2>&1 || {
  tail -n 20 "$there/log" >&2
  exit 1
}
cd "$there/root"
# Debian 13 has the engine's client in a package of its own, which the engine only recommends.
[ -e usr/bin/docker ] || chroot . sh -c 'apt-get -qq install docker-cli' >> "$there/log"
# Begins with the second boot.
chroot . systemctl -q disable firewalld.service
# Begins with its own tests. Its package leads resolv.conf to it.
chroot . systemctl -q disable systemd-resolved.service
rm -f etc/resolv.conf
echo 'nameserver 192.0.2.53' > etc/resolv.conf
rm -rf var/cache/apt/archives/*.deb var/lib/apt/lists/*
printf '%s\n' '/dev/vda / ext4 noatime 0 1' '/dev/vdb /payload ext4 ro 0 0' > etc/fstab
mkdir payload
echo netpold-system > etc/hostname
# An empty one is filled at the first boot, which then is none of a new machine.
: > etc/machine-id
mkdir -p var/log/journal
cat > etc/systemd/system/payload.service <<'END'
[Unit]
Description=What is tested
After=docker.service
RequiresMountsFor=/payload

[Service]
Type=exec
ExecStart=/bin/bash /payload/guest.sh

[Install]
WantedBy=multi-user.target
END
ln -s ../payload.service etc/systemd/system/multi-user.target.wants/
cp -L boot/vmlinuz-* "$there/vmlinuz"
cp -L boot/initrd.img-* "$there/initrd"
cd "$there"
mke2fs -q -t ext4 -d root disk.new 4G > /dev/null
rm -rf root
mv disk.new disk
