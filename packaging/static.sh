#!/usr/bin/env bash
# Holds binaries to what `make static` promises: no shared library, and they work. Called by it.
#
# usage: static.sh DIRECTORY
#
# Works means, with root: the demo, with real packets, comes out as predicted.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

directory=$PWD/${1:?usage: static.sh DIRECTORY}
for program in daemon/src/bin/*.rs; do
  program=$directory/$(basename "$program" .rs)
  # Of a static one, ldd says that it is, and names no library.
  if ldd "$program" 2>&1 | grep '=>'; then
    echo "static: \`$program\` needs these" >&2
    exit 1
  fi
done
# The other two have no version of their own: one is another runtime's, the other a plugin's.
"$directory/netpol" --version
"$directory/netpold" --version
"$directory/netpold-oci" --netpold-help > /dev/null
CNI_COMMAND=VERSION "$directory/netpold-cni" <<< '{"cniVersion": "1.0.0"}' > /dev/null
if [ "$(id -u)" != 0 ]; then
  echo "static: NOT RUN: the demo needs root"
  exit 0
fi
said=$(NETPOLD_BIN=$directory config/examples/payments/demo.sh namespaces 2>&1) || {
  printf '%s\n' "$said" >&2
  echo "static: the demo fails with these binaries" >&2
  exit 1
}
printf '%s\n' "$said" | grep '^All .* as predicted' | tail -1
