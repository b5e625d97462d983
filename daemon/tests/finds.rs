//! Containers' labels that any user may have written: random heaps of the fuzzer's words, and
//! what fuzzing has found with them (`make fuzz`, `tests/fuzz/finds/labels`). Streams of events are
//! replayed beside what they drive.
#![allow(clippy::unwrap_used)]

#[path = "../../tests/fuzz/src/labels.rs"]
mod labels;

use std::path::Path;

fn fuzz() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz")
}

#[test]
fn the_fuzzers_finds_hold() {
    // Without a find there is no folder.
    for entry in std::fs::read_dir(fuzz().join("finds/labels"))
        .into_iter()
        .flatten()
    {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        labels::hold(&std::fs::read(&path).unwrap());
    }
}

#[test]
fn random_heaps_of_words_hold() {
    let words = std::fs::read_to_string(fuzz().join("labels.dict")).unwrap();
    let words: Vec<String> = words
        .lines()
        .map(|line| line.trim_matches('"').replace("\\x0a", "\n"))
        .chain(
            [
                "a",
                "A",
                "-",
                "é",
                "\u{1b}[31m",
                "\u{202e}",
                "=",
                " ",
                "0",
                "/",
            ]
            .map(str::to_owned),
        )
        .collect();
    assert!(words.len() > 20);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as usize % n
    };
    for _ in 0..20_000 {
        let heap: String = (0..below(40))
            .map(|_| words[below(words.len())].as_str())
            .collect();
        labels::hold(heap.as_bytes());
    }
}
