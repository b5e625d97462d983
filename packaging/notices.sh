#!/usr/bin/env bash
# Prints the licences of what is linked into the programs: each crate with its terms, then every text
# once. They ask for it, wherever the programs are given on. Called by deb/build.sh.
#
# usage: notices.sh
#
# Reads the sources that cargo built from, and has it fetch those that only other systems build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# NAME VERSION, the daemon's and the kernel programs', without this workspace's own.
linked=$(cargo tree -q --locked -p netpold -p netpol-ebpf -e normal --prefix none -f '{p}' |
  sed -n '/ (\//!s/^\([^ ]*\) v\([^ ]*\).*/\1 \2/p' | LC_ALL=C sort -u)
# NAME VERSION \t TERMS \t FOLDER
crates=$(cargo metadata -q --locked --format-version 1 |
  jq -r '.packages[] | [.name + " " + .version, .license // "see its text", (.manifest_path | rtrimstr("/Cargo.toml"))] | @tsv' |
  LC_ALL=C sort | LC_ALL=C join -t "$(printf '\t')" - <(printf '%s\n' "$linked"))
[ "$(wc -l <<< "$crates")" = "$(wc -l <<< "$linked")" ] || { echo "notices: cargo does not know some of what it links" >&2; exit 1; }

printf 'These are linked into the programs of netpold. Where terms can be chosen, any of them may be.\n\n'
cut -f 1,2 <<< "$crates" | while IFS=$'\t' read -r crate terms; do printf '  %-36s %s\n' "$crate" "$terms"; done

# The same text, with other white space, is one text: the crates that came with it stand above it.
declare -A whose file
while IFS=$'\t' read -r crate _ folder; do
  while IFS= read -r found; do
    text=$(tr -s ' \t\r\n' ' ' < "$found" | sha256sum)
    whose[$text]+="${whose[$text]:+, }$crate"
    file[$text]=$found
  done < <(find "$folder" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'copyright*' -o -iname 'notice*' -o -iname 'unlicen[cs]e*' \) | LC_ALL=C sort)
done <<< "$crates"
for text in "${!whose[@]}"; do printf '%s\t%s\n' "${whose[$text]}" "${file[$text]}"; done | LC_ALL=C sort |
  while IFS=$'\t' read -r crates found; do
    printf '\n%s\n' "$(printf '=%.0s' {1..80})"
    fold -s -w 80 <<< "$crates"
    printf '%s\n\n' "$(printf -- '-%.0s' {1..80})"
    tr -d '\r' < "$found"
  done
