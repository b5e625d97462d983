//! Bytes as a container's labels: see `src/labels.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netpold_fuzz::labels::hold(bytes));
