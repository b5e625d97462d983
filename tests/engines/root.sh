#!/usr/bin/env bash
# Makes the root file system of a Debian suite that has container engines. Called by run.sh, as root.
#
# usage: root.sh SUITE          (trixie, forky, …)
#
# Leaves in target/engines/SUITE: `root`, the tree, and `versions`, the engines in it, a line each. A tree that is
# complete is kept; remove the folder to get what Debian has by now. Packages come from where apt(8) has its own from
# on this machine, or from DEBIAN_MIRROR, which names an archive of Debian's with the folder `debian` in it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

suite=${1:?usage: root.sh SUITE}
there=$PWD/target/engines/$suite
keys=/usr/share/keyrings/debian-archive-keyring.gpg
# Engines, what they call, and what the suites call beside them.
packages=(docker.io docker-cli docker-buildx docker-compose containerd runc podman netavark aardvark-dns crun
  containernetworking-plugins iptables nftables iproute2 ethtool bpftool util-linux busybox-static ca-certificates)
shown='docker.io|docker-buildx|docker-compose|containerd|runc|podman|netavark|aardvark-dns|crun|iptables|nftables'

# A tree that was made of other packages is made again.
[ "$(cat "$there/packages" 2>/dev/null)" != "${packages[*]}" ] || exit 0

if [ -n "${DEBIAN_MIRROR:-}" ]; then
  mirror=$DEBIAN_MIRROR/debian
else
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 'Created-By: Packages' |
    awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }')
  [ -n "$mirror" ] || {
    echo "engines: apt knows no archive of Debian's: run \`apt-get update\`, or set DEBIAN_MIRROR" >&2
    exit 1
  }
fi
# A suite that is younger than debootstrap(8) is made like the newest that debootstrap knows.
script=$suite
[ -e "/usr/share/debootstrap/scripts/$suite" ] || script=sid

rm -rf "$there"
mkdir -p "$there"
echo "engines: making a root of Debian $suite"
fail() {
  tail -n 20 "$there/log" >&2
  exit 1
}
debootstrap --variant=minbase --keyring="$keys" "$suite" "$there/root" "$mirror" \
  "/usr/share/debootstrap/scripts/$script" > "$there/log" 2>&1 || fail
# Packages start no services in there.
printf '#!/bin/sh\nexit 101\n' > "$there/root/usr/sbin/policy-rc.d"
chmod 755 "$there/root/usr/sbin/policy-rc.d"
inside() { chroot "$there/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
inside apt-get install -qq --no-install-recommends "${packages[@]}" >> "$there/log" 2>&1 || fail
rm -rf "$there"/root/var/cache/apt/archives/*.deb "$there"/root/var/lib/apt/lists/*
inside dpkg-query -W -f '${Package} ${Version}\n' | grep -E "^($shown) " > "$there/versions"
echo "${packages[*]}" > "$there/packages"
