#!/usr/bin/env bash
# The package on a real system: Debian with systemd and Docker, in an emulated machine that is
# rebooted on the way. Called by `make test-system`, which makes the package first.
#
# usage: run.sh [RELEASE]       (Debian's; default: the one this runs on, as the package is for it)
#
# QEMU translates every instruction (no KVM: this runs where virtual machines can't), so it takes
# minutes. Making the machine needs root, for debootstrap, and the network; the machine has none.
# What is changed on its disk is forgotten when it ends.
#
# What tests/system/guest.sh prints in there decides, by tests/kernels/verdict.awk.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[ "$(uname -m)" = x86_64 ] || {
  echo "system: NOT RUN: the machine is for x86-64, and so the package must be; this is $(uname -m)" >&2
  exit 1
}
release=${1:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
# Longer than the longest run, shorter than a reader's patience.
seconds=${SYSTEM_SECONDS:-1800}
there=$PWD/target/system/$release
run=$there/run

[ -e "$there/disk" ] || $(if [ "$(id -u)" != 0 ]; then echo sudo; fi) tests/system/image.sh "$release"

# What the machine finds below /payload: two versions of the package, the demo's policies, and
# what to do.
rm -rf "$run"
mkdir -p "$run/payload"
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
mv "$(packaging/deb/build.sh "$version+next")" "$run/payload/newer.deb"
cp "$(packaging/deb/build.sh)" "$run/payload/netpold.deb"
cp -r config/examples/payments/manifests tests/system/guest.sh "$run/payload/"
mke2fs -q -t ext4 -d "$run/payload" "$run/payload.disk" 128M > /dev/null

# A processor without SMAP: each crossing of it would cost the translation its caches.
timeout --foreground "$seconds" qemu-system-x86_64 \
  -machine q35 -accel tcg,thread=multi -cpu Nehalem -smp 2 -m 2G \
  -nodefaults -no-user-config -display none -nic none -device virtio-rng-pci \
  -drive "file=$there/disk,format=raw,if=virtio,snapshot=on" \
  -drive "file=$run/payload.disk,format=raw,if=virtio,read-only=on" \
  -serial "file:$run/console" -serial stdio \
  -kernel "$there/vmlinuz" -initrd "$there/initrd" \
  -append "root=/dev/vda console=ttyS0 panic=-1 mitigations=off init_on_alloc=0 systemd.show_status=1" \
  < /dev/null | tee "$run/said" || echo "system: the machine was stopped after $seconds s, or did not start"

printf '\n'
awk -v kernel="Debian $release" -v suites="install reboot names package" -f tests/kernels/verdict.awk "$run/said" || {
  printf '\nThe end of what the console showed (%s):\n' "$run/console"
  tail -n 30 "$run/console"
  exit 1
}
