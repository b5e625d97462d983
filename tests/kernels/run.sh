#!/usr/bin/env bash
# The datapath's suites on Debian's kernels, each in an emulated machine. Called by `make test-kernels`.
#
# usage: run.sh [KERNEL|all [SUITE [ARGUMENT…]]]
#        run.sh 5.10                        every suite on one kernel
#        run.sh all packets                 one suite on every kernel
#        run.sh 5.10 packets random-bends   one test of it
#
# Kernels: 5.10, 6.1, 6.12, and `newest`, the newest that Debian has. QEMU translates every
# instruction (no KVM: this runs where virtual machines can't), so everything takes twenty times
# as long. The machine has no disk and no network: all that it needs is in its initial RAM disk.
#
# What a suite prints decides, by tests/kernels/verdict.awk. A kernel that panics, a machine that
# hangs, a suite that does not come to its end and one that runs no test are failures.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

[ "$(uname -m)" = x86_64 ] || {
  echo "kernels: NOT RUN: the kernels are for x86-64, and so the suites must be; this is $(uname -m)" >&2
  exit 1
}

kernels=(5.10 6.1 6.12 newest)
suites=(requirements packets judged datapath tables links attack modes senders leave channels first_packet subinterfaces)
# For one kernel. Longer than the longest run, shorter than a reader's patience.
seconds=${KERNEL_SECONDS:-1800}

[ "${1:-all}" = all ] || kernels=("$1")
[ $# -lt 2 ] || suites=("$2")
arguments=("${@:3}")

cache=$PWD/target/kernels
guest=$cache/guest

# Builds the suites, and lays the machine's root: they, what they run, and the libraries of both.
lay_guest() {
  cargo build --quiet --profile emulated --bins
  rm -rf "$guest"
  mkdir -p "$guest"/{bin,sbin,usr,etc,suites.d}
  ln -s ../bin "$guest/usr/bin"
  ln -s ../sbin "$guest/usr/sbin"
  local suite program tool library extensions
  for suite in "${suites[@]}"; do
    program=$(cargo test --quiet --profile emulated --no-run --message-format=json -p netpold-tests --test "$suite" |
      sed -n "s/.*\"kind\":\[\"test\"\].*\"name\":\"$suite\".*\"executable\":\"\([^\"]*\)\".*/\1/p" | tail -1)
    [ -n "$program" ] || { echo "kernels: the suite $suite did not build" >&2; return 1; }
    cp "$program" "$guest/suites.d/$suite"
  done
  # Beside the suites, where those look for them.
  for program in netpold netpol; do cp "target/emulated/$program" "$guest/"; done
  for tool in ip tc nft busybox; do cp "$(command -v "$tool")" "$guest/bin/"; done
  # iptables has its extensions as files of their own. The variant of nftables, which iptables is with today's engines.
  extensions=$(dirname "$(find /usr/lib -path '*/xtables/libxt_MASQUERADE.so' | head -1)")
  mkdir -p "$guest$extensions"
  cp "$extensions"/lib{xt,ipt,ip6t}_*.so "$guest$extensions/"
  cp "$(command -v xtables-nft-multi)" "$guest/bin/"
  for tool in iptables ip6tables iptables-save ip6tables-save; do ln -s xtables-nft-multi "$guest/bin/$tool"; done
  "$guest/bin/busybox" --list | while read -r tool; do
    [ -e "$guest/bin/$tool" ] || ln -s busybox "$guest/bin/$tool"
  done
  for program in "$guest"/bin/{ip,tc,nft,xtables-nft-multi} "$guest"/netpol* "$guest"/suites.d/*; do
    ldd "$program" | grep -o '/[^ ]*'
  done | sort -u | while read -r library; do
    install -D "$library" "$guest$library"
  done
  # Suites read their cases where they were built.
  mkdir -p "$guest$PWD/tests"
  cp -r tests/conformance tests/packets "$guest$PWD/tests/"
  install -m 755 tests/kernels/init "$guest/init"
  printf '%s\n' "${suites[@]/%/ ${arguments[*]}}" > "$guest/suites"
  pack "$guest" > "$cache/guest.cpio"
}

pack() { (cd "$1" && find . | busybox cpio -o -H newc 2>/dev/null); }

# Runs the suites on a kernel, and shows what they print. `console` keeps what the kernel says.
boot() {
  local there=$cache/linux-$1 run=$cache/run-$1
  rm -rf "$run"
  mkdir -p "$run/root"
  cp -r "$there/modules" "$run/root/"
  # The kernel takes archives one behind the other.
  { cat "$cache/guest.cpio" && pack "$run/root"; } > "$run/initrd"
  # A processor without SMAP: each crossing of it would cost the translation its caches. Zeroed
  # allocations and mitigations cost time, and change nothing that is tested. Both processors share one thread of the
  # host: with a thread each, a processor can run a stale translation of code that the kernel has just changed (static
  # keys, when the first hook comes and the last one goes), and the kernel stops with `Oops: int3`.
  timeout --foreground "$seconds" qemu-system-x86_64 \
    -machine q35 -accel tcg,thread=single -cpu Nehalem -smp 2 -m 3G \
    -nodefaults -no-user-config -display none -nic none -no-reboot \
    -serial "file:$run/console" -serial stdio \
    -kernel "$there/vmlinuz" -initrd "$run/initrd" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off init_on_alloc=0" \
    < /dev/null | tee "$run/said"
}

for kernel in "${kernels[@]}"; do tests/kernels/kernel.sh "$kernel"; done
lay_guest

status=0
for kernel in "${kernels[@]}"; do
  printf '\n== Linux %s\n' "$(cat "$cache/linux-$kernel/version")"
  boot "$kernel" || echo "kernels: the machine was stopped after $seconds s, or did not start"
  run=$cache/run-$kernel
  if ! awk -v kernel="$(cat "$cache/linux-$kernel/version")" -v suites="${suites[*]}" \
    -f tests/kernels/verdict.awk "$run/said" > "$run/verdict"; then
    status=1
    printf '\nThe end of what the kernel said (%s):\n' "$run/console"
    tail -n 30 "$run/console"
  fi
done

printf '\n'
verdicts=("${kernels[@]/#/$cache/run-}")
cat "${verdicts[@]/%//verdict}"
awk '/^[^ ]/ { passed += $2; failed += $4 } END { printf "\n%d passed, %d failed\n", passed, failed }' "${verdicts[@]/%//verdict}"
exit "$status"
