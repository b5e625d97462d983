//! Bytes as a frame: see `src/packet.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netpold_fuzz::packet::hold(bytes));
