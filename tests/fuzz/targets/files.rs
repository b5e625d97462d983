//! Bytes as what is seen of the manifests directory: see `daemon/src/store/acceptance/stream.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netpold::store::hold(bytes));
