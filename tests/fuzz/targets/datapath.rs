//! Bytes as what happens on an interface: see `src/datapath.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netpold_fuzz::datapath::hold(bytes));
