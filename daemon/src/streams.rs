//! Streams of bytes for the tests that read them as streams of events: random ones, and those
//! that a fuzzer once found something with (`tests/fuzz/finds`).

use std::path::Path;

/// Tries a test on this many random streams, the same on every run.
pub fn random(count: u64, hold: impl Fn(&[u8])) {
    for seed in 1..=count {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        };
        let length = usize::from(next()) * 2;
        let stream: Vec<u8> = (0..length).map(|_| next()).collect();
        hold(&stream);
    }
}

/// Tries it on the finds of this target.
pub fn finds(target: &str, hold: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/finds");
    let entries = match std::fs::read_dir(folder.join(target)) {
        Ok(entries) => entries,
        Err(error) => panic!("{target}: {error}"),
    };
    for entry in entries.flatten() {
        match std::fs::read(entry.path()) {
            Ok(stream) => hold(&stream),
            Err(error) => panic!("{}: {error}", entry.path().display()),
        }
    }
}
