//! The parser and the verdict on plain slices, without root and without the kernel: the packet
//! corpus through the model alone, the corpus and random sequences through what the fuzz targets
//! hold, and what fuzzing has found with them (`make fuzz`, `tests/fuzz/finds`).

#[path = "../fuzz/src/datapath.rs"]
mod datapath;
#[path = "../fuzz/src/packet.rs"]
mod packet;

use std::path::Path;

use netpold_tests::packets::run::{compare, run};
use netpold_tests::packets::script::{Action, Script, files};
use proptest::prelude::*;

/// What a target found. Without a find there is no folder.
fn finds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/finds");
    let entries = std::fs::read_dir(folder.join(target)).into_iter().flatten();
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        println!("{}", path.display());
        std::fs::read(path).expect("a find")
    };
    entries.map(read).collect()
}

fn scripts() -> Vec<Script> {
    let files = files().expect("the corpus").into_iter();
    files
        .map(|path| Script::read(&path).expect("a packet file"))
        .collect()
}

#[test]
fn the_fuzzers_finds_hold() {
    finds("packet").iter().for_each(|bytes| packet::hold(bytes));
    finds("datapath")
        .iter()
        .for_each(|bytes| datapath::hold(bytes));
}

/// With the kernel beside it: `packets.rs`.
#[test]
fn every_file_says_what_the_model_does() {
    for script in scripts() {
        let shown = run(&script, None).and_then(|shown| compare(&script, &shown));
        if let Err(error) = shown {
            panic!("{error:#}");
        }
    }
}

#[test]
fn every_packet_of_the_corpus_is_read_as_others_read_it() {
    for script in scripts() {
        for step in &script.steps {
            if let Action::Frames { frames, .. } = &step.action {
                frames.iter().for_each(|frame| packet::hold(&frame.bytes));
            }
        }
    }
}

#[test]
fn every_file_of_the_corpus_holds_as_a_sequence() {
    for script in scripts() {
        println!("{}", script.path.display());
        datapath::hold(&datapath::encode(&script));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_sequences_hold(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        datapath::hold(&bytes);
    }
}
