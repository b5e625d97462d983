#!/usr/bin/env bash
# Makes what a release consists of, in target/dist. Called by `make dist`.
#
# usage: dist.sh
#
# For each processor: an archive of the programs without shared libraries, with units, configuration, manual pages,
# completions and licences, and a Debian package of the same. Beside them: the parts list (CycloneDX 1.5, JSON), and
# SHA256SUMS of all of it. The same sources give the same files: what has a date has the newest commit's.
#
# The programs of the other processor are linked by Rust's own linker and need no C compiler for it. The programs of this
# processor are held to their promises by packaging/static.sh; those of the other one are built, and not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022

processors=(x86_64 aarch64)
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH

out=$PWD/target/dist
rm -rf "$out"
mkdir -p "$out"

# Manual pages and completions come out of the program itself, so one must run here.
here=$PWD/target/$(uname -m)-unknown-linux-musl/release
for processor in "${processors[@]}"; do
  target=$processor-unknown-linux-musl
  variable=CARGO_TARGET_$(tr a-z- A-Z_ <<< "$target")
  env "${variable}_LINKER=rust-lld" "${variable}_RUSTFLAGS=-C link-self-contained=yes" \
    cargo build --locked --release --bins -p netpold --target "$target"
done
packaging/static.sh "target/$(uname -m)-unknown-linux-musl/release"

packaging/notices.sh > "$out/third-party-licenses.txt"
for processor in "${processors[@]}"; do
  name=netpold-$version-linux-$processor
  stage=$out/$name
  make -s install DESTDIR="$stage" PREFIX=/usr/local BUILT="target/$processor-unknown-linux-musl/release" \
    NETPOL="$here/netpol" > /dev/null
  install -m 644 -t "$stage" README.md CHANGELOG.md SECURITY.md LICENSE-MIT LICENSE-APACHE "$out/third-party-licenses.txt"
  tar -C "$out" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -cf - "$name" |
    gzip -9n > "$stage.tar.gz"
  rm -r "$stage"
  case $processor in x86_64) architecture=amd64 ;; aarch64) architecture=arm64 ;; esac
  BUILT=target/$processor-unknown-linux-musl/release NETPOL=$here/netpol ARCHITECTURE=$architecture packaging/deb/build.sh
  mv "target/debian/netpold_${version}_$architecture.deb" "$out/"
done
rm "$out/third-party-licenses.txt"

cargo cyclonedx --manifest-path daemon/Cargo.toml --format json --spec-version 1.5 --all --override-filename netpold
mv daemon/netpold.json "$out/netpold-$version.cdx.json"
find . -path ./target -prune -o -name netpold.json -exec rm {} +

(cd "$out" && LC_ALL=C sha256sum -- * > SHA256SUMS && cat SHA256SUMS)
