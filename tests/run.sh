#!/usr/bin/env bash
# Every test, and one line at the end that sums them up. Called by `make test`.
#
# Formatting and lints, then the plain suites (unit, property, offline conformance), then
# those that need root and BPF (live traffic, kernel test runs, Docker). Those are named
# as NOT RUN where they can't be; with CI=true that is a failure. A test that needs what this kernel was
# built without, or an engine does not bring, is named, too: tests/kernels/run.sh has kernels that it runs on,
# tests/engines/run.sh has engines.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
step() {
  printf '\n== %s\n' "$*"
  "$@" 2>&1 | tee -a "$log" || status=1
}

step cargo fmt --all --check
# The eBPF programs are for another target; building the daemon compiles them.
step cargo clippy --quiet --workspace --exclude netpol-ebpf --all-targets -- -D warnings
step cargo test --quiet --no-fail-fast

refusal() {
  [ "$(id -u)" = 0 ] || { echo "they need root"; return; }
  mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf 2>/dev/null || { echo "there is no BPF file system"; return; }
}
# The programs of tests of a package, a line each: its name and its path. Builds them.
programs() {
  cargo test --quiet --no-run --message-format=json "$@" |
    sed -n 's/.*"target":{[^}]*"name":"\([^"]*\)".*"profile":{[^}]*"test":true}.*"executable":"\([^"]*\)".*/\1 \2/p'
}
# Runs one of them where cargo does. Its output goes to PARTS/NAME, and whether it failed to PARTS/NAME.failed.
one() {
  local name=$1 program=$2
  (cd tests && "$program" --color never) > "$parts/$name" 2>&1 || touch "$parts/$name.failed"
  # A suite at a time, so that two of them do not mix.
  flock "$parts/lock" sh -c "printf '\n== %s\n' '$name' && cat '$parts/$name'"
}
# Runs the suites that need root, two at a time, as they mostly wait; and what failed once more, alone.
flaky=()
suites() {
  local name program again failed=()
  parts=$(mktemp -d)
  export parts
  export -f one
  programs -p netpold-tests --lib --bins --tests | sort > "$parts/programs" || { status=1; return; }
  [ -s "$parts/programs" ] || { echo 'no suite was built'; status=1; return; }
  # shellcheck disable=SC2016 # the words are the inner shell's.
  xargs -P 2 -L 1 bash -c 'one "$0" "$1"' < "$parts/programs" | tee -a "$log"
  while read -r name program; do
    [ -e "$parts/$name.failed" ] || continue
    mapfile -t failed < <(sed -n 's/^test *\(\[[^]]*\] *\)\{0,1\}\([^ ]*\) *\.\.\. FAILED$/\2/p' "$parts/$name")
    # A suite that died has no failed tests.
    [ ${#failed[@]} != 0 ] || status=1
    for again in "${failed[@]}"; do
      printf '\n== once more, alone: %s %s\n' "$name" "$again"
      if (cd tests && "$program" --color never --exact "$again") 2>&1 |
        tee >(cat >&2) | grep '^test result: ok\. 1 passed' > /dev/null; then
        flaky+=("$name: $again")
      else
        status=1
      fi
    done
  done < "$parts/programs"
  rm -rf "$parts"
}

privileged=(tests/tests/*.rs)
why=$(refusal)
if [ -z "$why" ]; then
  # The suites run the programs that stand beside them.
  step cargo build --quiet --bins
  suites
else
  printf '\nNOT RUN: %s\n' "$why"
  printf '  %s\n' "${privileged[@]}"
  [ "${CI:-}" != true ] || status=1
fi

read -r passed failed ignored < <(awk '
  /^test result: / {
    for (i = 1; i < NF; i++) {
      if ($(i + 1) == "passed;") passed += $i
      if ($(i + 1) == "failed;") failed += $i
      if ($(i + 1) == "ignored;") ignored += $i
    }
  }
  END { print passed + 0, failed + 0, ignored + 0 }' "$log")
lacking=$(sed -n 's/^test \(\[needs [^]]*\]\) *\([^ ]*\) *\.\.\. ignored$/  \1 \2/p' "$log")
if [ -n "$lacking" ]; then
  printf '\nNOT RUN, as this machine lacks what they need (`make test-kernels` or `make test-engines` runs them):\n%s\n' "$lacking"
  ignored=$((ignored - $(wc -l <<< "$lacking")))
fi
if [ "$ignored" != 0 ]; then
  printf '\n%s tests were ignored\n' "$ignored"
  [ "${CI:-}" != true ] || status=1
fi
if [ ${#flaky[@]} != 0 ]; then
  printf '\nFLAKY, failed beside others and passed alone:\n'
  printf '  %s\n' "${flaky[@]}"
  passed=$((passed + ${#flaky[@]}))
  failed=$((failed - ${#flaky[@]}))
fi
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
  printf '\nNot every step above succeeded.\n'
fi
printf '\n%s passed, %s failed\n' "$passed" "$failed"
exit "$status"
