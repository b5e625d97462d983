#!/usr/bin/env bash
# Each fuzz target for so many seconds, the corpora of before kept. Called by `make fuzz`.
#
# usage: run.sh SECONDS [TARGET…]
#
# What breaks is kept in finds/TARGET, and is a test from then on: give it a name that says what
# it was, mend what it shows, and commit both.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

seconds=${1:?usage: run.sh SECONDS [TARGET…]}
shift
[ $# != 0 ] || set -- manifest labels files docker packet datapath

version=0.13.2
if [ "$(cargo fuzz --version 2>/dev/null)" != "cargo-fuzz $version" ]; then
  cargo install cargo-fuzz --version "$version" --locked --force
fi

seeds=target/fuzz/seeds
for target; do
  case $target in
    packet | datapath)
      cargo run --quiet -p netpold-tests --example seeds -- "$seeds"
      break
      ;;
  esac
done

status=0
for target; do
  printf '\n== %s\n' "$target"
  fuzz=tests/fuzz
  corpus=target/fuzz/corpus/$target
  begin=("$fuzz/finds/$target")
  mkdir -p "$corpus" "${begin[0]}"
  options=(-max_total_time="$seconds" -timeout=10 -max_len=4096 -print_final_stats=1
    -artifact_prefix="$fuzz/finds/$target/")
  [ ! -e "$seeds/$target" ] || begin+=("$seeds/$target")
  [ "$target" != manifest ] || begin+=(tests/conformance config/examples)
  [ ! -e "$fuzz/$target.dict" ] || options+=(-dict="$fuzz/$target.dict")
  # The pinned stable compiler: coverage is all that is asked of it, no sanitizer.
  RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none --fuzz-dir "$fuzz" --target-dir target/fuzz/build \
    "$target" "$corpus" "${begin[@]}" -- "${options[@]}" || status=1
done
exit "$status"
