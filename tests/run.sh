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
# Runs the suites that need root, and what failed once more.
flaky=()
suites() {
  local part target name failed=()
  part=$(mktemp)
  printf '\n== %s\n' 'cargo test --quiet --no-fail-fast -p netpold-tests'
  if cargo test --quiet --no-fail-fast -p netpold-tests 2>&1 | tee -a "$log" "$part"; then
    rm -f "$part"
    return
  fi
  # A suite's tests come before the line that names the suite.
  mapfile -t failed < <(sed -n -e 's/^\(test \)\{0,1\}\([^ ]*\) *\(---\|\.\.\.\) FAILED$/\2/p' \
    -e 's/^error: test failed, to rerun pass `-p netpold-tests --test \(.*\)`$/= \1/p' "$part")
  local names=() again=0 count
  count=$(sed -n 's/^test result: FAILED\..* \([0-9]*\) failed;.*/\1/p' "$part" | awk '{ sum += $1 } END { print sum + 0 }')
  rm -f "$part"
  for name in "${failed[@]}"; do
    if [ "${name#= }" = "$name" ]; then
      names+=("$name")
      continue
    fi
    target=${name#= }
    # A suite that died has no failed tests.
    [ ${#names[@]} != 0 ] || again=1
    for name in "${names[@]}"; do
      printf '\n== once more, alone: %s %s\n' "$target" "$name"
      if cargo test --quiet -p netpold-tests --test "$target" -- --exact "$name" 2>&1 \
        | tee /dev/stderr | grep '^test result: ok\. 1 passed' >/dev/null; then
        flaky+=("$target: $name")
      else
        again=1
      fi
    done
    names=()
  done
  # Nothing to run again is a failure of another kind: a suite that did not compile.
  [ "$again" = 0 ] && [ "$count" != 0 ] && [ ${#flaky[@]} = "$count" ] || status=1
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
