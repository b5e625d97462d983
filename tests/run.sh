#!/usr/bin/env bash
# Every test, and one line at the end that sums them up. Called by `make test`.
#
# Formatting and lints, then the plain tests (unit, property, offline conformance), then the suites that need root and BPF
# (live traffic, kernel test runs, engines). cargo-nextest runs them, as .config/nextest.toml says: each test in a process of
# its own, with a time-out; slow tests and tests that pass only at the second attempt are listed. Without root the suites
# are named as NOT RUN; with CI=true that is a failure. A test that needs what this kernel was built without, or an
# engine does not bring, is named, too: tests/kernels/run.sh has kernels that it runs on, tests/engines/run.sh has engines.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
step() {
  printf '\n== %s\n' "$*"
  "$@" 2>&1 | tee -a "$log" || status=1
}
nextest() { step cargo nextest run --cargo-quiet --profile ci "$@"; }

step cargo fmt --all --check
# The eBPF programs are for another target; building the daemon compiles them.
step cargo clippy --quiet --workspace --exclude netpol-ebpf --all-targets -- -D warnings
nextest --workspace --exclude netpol-ebpf --exclude netpold-tests
# cargo-nextest runs no examples of documents.
step cargo test --quiet --doc -p netpol-engine

refusal() {
  [ "$(id -u)" = 0 ] || { echo "they need root"; return; }
  mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf 2>/dev/null || { echo "there is no BPF file system"; return; }
}
why=$(refusal)
if [ -z "$why" ]; then
  # The suites run the programs that stand beside them.
  step cargo build --quiet --bins
  # They wait more than they work.
  nextest -p netpold-tests --test-threads "$((2 * $(nproc)))"
  lacking=$(cargo nextest list --cargo-quiet -p netpold-tests --run-ignored only --message-format oneline 2>/dev/null)
else
  lacking=
  printf '\nNOT RUN: %s\n' "$why"
  printf '  %s\n' tests/tests/*.rs
  [ "${CI:-}" != true ] || status=1
fi

# `Summary [  48.030s] 734 tests run: 733 passed (1 slow, 2 flaky), 1 failed, 5 skipped`, with other words for those that fail.
read -r passed failed < <(awk '
  / Summary \[/ {
    sub(/^.* run: /, "")
    gsub(/\([^)]*\)/, "")
    count = split($0, parts, ",")
    for (i = 1; i <= count; i++) {
      split(parts[i], words, " ")
      if (words[2] == "passed") passed += words[1]
      else if (words[2] != "skipped") failed += words[1]
    }
  }
  END { print passed + 0, failed + 0 }' "$log")
if grep -q '\[needs ' <<< "$lacking"; then
  printf '\nNOT RUN, as this machine lacks what they need (`make test-kernels` or `make test-engines` runs them):\n'
  grep '\[needs ' <<< "$lacking" | sed 's/^/  /'
fi
if ignored=$(grep -v '\[needs ' <<< "$lacking" | grep .); then
  printf '\nIgnored:\n%s\n' "$ignored"
  [ "${CI:-}" != true ] || status=1
fi
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
  printf '\nNot every step above succeeded.\n'
fi
printf '\n%s passed, %s failed\n' "$passed" "$failed"
exit "$status"
