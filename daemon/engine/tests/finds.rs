//! What fuzzing has found in the reading of manifests, once more (`make fuzz`,
//! `tests/fuzz/finds/manifest`); the other targets' finds are replayed in the daemon.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/fuzz/src/manifest.rs"]
mod manifest;
mod support;

use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn the_fuzzers_finds_hold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests");
    // Without a find there is no folder.
    let finds = std::fs::read_dir(root.join("fuzz/finds/manifest"));
    for entry in finds.into_iter().flatten() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        let before = Instant::now();
        manifest::hold(&std::fs::read(&path).unwrap());
        let took = before.elapsed();
        assert!(
            took < Duration::from_secs(10),
            "{}: {took:?}",
            path.display()
        );
    }
}

/// The corpus, whole and cut off anywhere: where a writer was interrupted.
#[test]
fn the_corpus_holds_however_it_is_cut() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance");
    for kind in ["cases", "invalid"] {
        for (index, entry) in std::fs::read_dir(root.join(kind)).unwrap().enumerate() {
            let bytes = std::fs::read(entry.unwrap().path().join("manifests.yaml")).unwrap();
            manifest::hold(&bytes);
            manifest::hold(&bytes[..bytes.len() * (index % 10) / 10]);
        }
    }
}
