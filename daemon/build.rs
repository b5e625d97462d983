//! Builds the eBPF programs from source with the pinned stable compiler and hands
//! them to `datapath::programs` as bytes.
#![allow(unsafe_code)]

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain};

fn main() -> Result<()> {
    // The kernel's target has no precompiled `core`. `-Z build-std` makes it from
    // rust-src, and needs RUSTC_BOOTSTRAP on a stable compiler: one toolchain, not two.
    // SAFETY: this build script has one thread, and no other thread reads the environment meanwhile.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    let toolchain = std::env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "1.99.1".to_owned());
    aya_build::build_ebpf(
        [Package {
            name: "netpol-ebpf",
            root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../ebpf-programs"),
            ..Default::default()
        }],
        Toolchain::Custom(&toolchain),
    )
    .context("the eBPF programs could not be built: they need `rust-src` and `bpf-linker` (see README.md, Build and install)")
}
