//! Bytes as a manifest: see `src/manifest.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netpold_fuzz::manifest::hold(bytes));
