#!/usr/bin/env bash
# Inside a root: runs suites one after another, in the words that tests/kernels/verdict.awk reads. Called by run.sh,
# through enter.sh.
#
# usage: suites.sh SECONDS LIST [ARGUMENT…]     (LIST: a line for each suite, its name and its program)
set -uo pipefail

seconds=$1
list=$2
shift 2
# The first process of its namespace has no signal's usual end; with it, all in there end.
trap 'exit 130' INT TERM
up() { cut -d ' ' -f 1 /proc/uptime; }
echo "init: Linux $(uname -r), up at $(up) s"
while read -r suite program; do
  echo "suite: $suite begins at $(up) s"
  timeout --kill-after=30 "$seconds" "$program" --color never "$@" < /dev/null
  echo "suite: $suite ends with $? at $(up) s"
done < "$list"
echo "init: done at $(up) s"
