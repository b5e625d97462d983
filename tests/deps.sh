#!/usr/bin/env bash
# Installs what is missing on Debian, and says nothing where nothing is.
#
# usage: deps.sh build|demo|test|kernels|engines|deb|static|dist|system
#
# Packages need root, through sudo where that asks for nothing; without, it says what
# to run. The Rust side goes to the user who runs this.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(gcc libc6-dev)
case ${1:?usage: deps.sh build|demo|test|kernels|engines|deb|static|dist|system} in
  build) ;;
  demo) packages+=(iproute2 util-linux busybox-static) ;;
  test) packages+=(iproute2 util-linux busybox-static docker.io containerd ethtool iptables nftables bpftool containernetworking-plugins podman systemd) ;;
  kernels) packages+=(iproute2 nftables busybox-static qemu-system-x86 kmod xz-utils debian-archive-keyring) ;;
  engines) packages+=(iproute2 util-linux debootstrap debian-archive-keyring) ;;
  deb) packages+=(dpkg-dev jq) ;;
  static) ;;
  dist) packages+=(dpkg-dev jq iproute2 util-linux busybox-static) ;;
  system) packages+=(dpkg-dev jq debootstrap debian-archive-keyring e2fsprogs qemu-system-x86) ;;
  *) echo "usage: deps.sh build|demo|test|kernels|engines|deb|static|dist|system" >&2; exit 2 ;;
esac

installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }
install() {
  local root=()
  if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
      echo "deps: packages are missing; run: sudo apt-get install $*" >&2
      exit 1
    fi
    root=(sudo)
  fi
  echo "deps: installing $*"
  "${root[@]}" apt-get update -qq
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}
if command -v dpkg-query >/dev/null; then
  missing=()
  for package in "${packages[@]}"; do installed "$package" || missing+=("$package"); done
  [ ${#missing[@]} = 0 ] || install "${missing[@]}"
  # Debian 13 has the engine's client in a package of its own.
  [ "$1" != test ] || command -v docker >/dev/null || install docker-cli
else
  echo "deps: no Debian: these are needed by their names there: ${packages[*]}" >&2
fi

command -v cargo >/dev/null || {
  echo "deps: there is no cargo: install rustup (rustup.rs) first" >&2
  exit 1
}
# rust-toolchain.toml names toolchain and components. A rustup with RUSTUP_AUTO_INSTALL=0 brings neither by itself.
rustc --version >/dev/null 2>&1 || rustup toolchain install --no-self-update
sources=$(rustc --print sysroot)/lib/rustlib/src/rust/library
if [ ! -d "$sources" ] || ! cargo clippy --version >/dev/null 2>&1 || ! cargo fmt --version >/dev/null 2>&1; then
  rustup component add rust-src clippy rustfmt
fi
# The linker reads the bitcode that the pinned compiler writes, so it is built on that compiler's own LLVM, which rustup
# brings: a plain `cargo install bpf-linker` looks for another one in the system, of the same major version.
linker=0.13.0
if [ "$(bpf-linker --version 2>/dev/null)" != "bpf-linker $linker" ]; then
  lib=$(rustc --print sysroot)/lib
  llvm=$(basename "$lib"/libLLVM-23-rust-*.so .so)
  flags=(-L "native=$lib" -l "dylib=${llvm#lib}" -C "link-arg=-Wl,-rpath,$lib")
  CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f'; printf %s "${flags[*]}") cargo install bpf-linker --version "$linker" \
    --locked --force --no-default-features --features llvm-23,no-llvm-linking
fi
# The tests' runner. Built without optimisation: building it takes longer than what it has to do.
if [ "$1" = test ] && ! cargo nextest --version >/dev/null 2>&1; then
  cargo install cargo-nextest --version 0.9.151 --locked --profile dev --no-default-features --features default-no-update
fi
# Rust brings the targets' libc along.
case $1 in
  static) rustup target add "$(uname -m)-unknown-linux-musl" ;;
  dist)
    # Lists what a release is made of.
    cyclonedx=0.5.9
    rustup target add x86_64-unknown-linux-musl aarch64-unknown-linux-musl
    [ "$(cargo cyclonedx --version 2>/dev/null | cut -d ' ' -f 2)" = "$cyclonedx" ] ||
      cargo install cargo-cyclonedx --version "$cyclonedx" --locked
    ;;
esac
