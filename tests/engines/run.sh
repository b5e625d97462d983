#!/usr/bin/env bash
# The suites that start container engines, and those of first packets, with the engines of Debian's newer suites. Called
# by `make test-engines`.
#
# usage: run.sh [ROOT|all [SUITE [ARGUMENT…]]]
#        run.sh trixie                  every suite with one Debian's engines
#        run.sh all docker              one suite with each Debian's
#        run.sh forky docker renamed    one test of it
#
# A root is a Debian's file system, made by root.sh with debootstrap(8) and kept below target/engines. enter.sh goes into
# it; the kernel stays this machine's, and so do the programs that are tested, which are built here against an older libc.
# What a suite prints decides, by tests/kernels/verdict.awk. A root that can't be made is NOT RUN, which is a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

roots=(trixie forky)
suites=(docker resolvers compose containerd podman published masqueraded macvlan swarm host strict first_packet first_instruction neighbours first_connection builds engines connected announced exits)
# For one suite. Longer than the longest run, shorter than a reader's patience.
seconds=${ENGINES_SECONDS:-900}

[ "${1:-all}" = all ] || roots=("$1")
[ $# -lt 2 ] || suites=("$2")
arguments=("${@:3}")
as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo)
cache=$PWD/target/engines
mkdir -p "$cache"

refusal() {
  "${as_root[@]}" true 2>/dev/null || { echo "entering a root needs root"; return; }
  "${as_root[@]}" unshare --mount --pid --fork true 2>/dev/null || { echo "namespaces can't be made here"; return; }
}
why=$(refusal)
if [ -n "$why" ]; then
  printf 'engines: NOT RUN: %s\n' "$why"
  printf '  %s\n' "${roots[@]}"
  printf '\n0 passed, 0 failed\n'
  exit 1
fi

# The suites run the programs that stand beside them. Linked here, they stay what they are when something is built meanwhile.
cargo build --quiet --bins
rm -rf "$cache/programs"
mkdir "$cache/programs"
ln target/debug/netpol{,d} target/debug/netpold-{oci,cni} "$cache/programs/"
: > "$cache/suites"
for suite in "${suites[@]}"; do
  program=$(cargo test --quiet --no-run --message-format=json -p netpold-tests --test "$suite" |
    sed -n "s/.*\"kind\":\[\"test\"\].*\"name\":\"$suite\".*\"executable\":\"\([^\"]*\)\".*/\1/p" | tail -1)
  [ -n "$program" ] || { echo "engines: the suite $suite did not build" >&2; exit 1; }
  ln "$program" "$cache/programs/$suite"
  echo "$suite $cache/programs/$suite" >> "$cache/suites"
done

status=0
verdicts=()
absent=()
for root in "${roots[@]}"; do
  there=$cache/$root
  if ! "${as_root[@]}" env DEBIAN_MIRROR="${DEBIAN_MIRROR:-}" tests/engines/root.sh "$root"; then
    absent+=("$root: its root can't be made")
    status=1
    continue
  fi
  printf '\n== Debian %s: %s\n' "$root" "$(sed 's/ \([^-+~]*\).*/ \1/' "$there/versions" | paste -s -d , | sed 's/,/, /g')"
  "${as_root[@]}" tests/engines/enter.sh "$there/root" \
    tests/engines/suites.sh "$seconds" "$cache/suites" "${arguments[@]}" | tee "$cache/$root.said" ||
    echo "engines: the root of Debian $root could not be entered, or was left early"
  verdicts+=("$cache/$root.verdict")
  awk -v kernel="Debian $root" -v suites="${suites[*]}" -f tests/kernels/verdict.awk \
    "$cache/$root.said" > "$cache/$root.verdict" || status=1
done

printf '\n'
[ ${#verdicts[@]} = 0 ] || cat "${verdicts[@]}"
[ ${#absent[@]} = 0 ] || printf 'NOT RUN: %s\n' "${absent[@]}"
cat /dev/null "${verdicts[@]}" |
  awk '/^[^ ].* passed, / { sub(/^.*: /, ""); passed += $1; failed += $3 } END { printf "\n%d passed, %d failed\n", passed, failed }'
exit "$status"
