//! Bytes as what happens in a container engine: see `daemon/src/runtime/docker/follow/stream.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| netpold::runtime::docker::hold(bytes));
