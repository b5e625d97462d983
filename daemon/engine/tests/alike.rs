//! Every document that the engine accepts, k8s-openapi reads too, and the same: random ones and
//! all that are in the repository.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use netpol_engine::manifest::parse;
use proptest::prelude::*;

use support::{alike, manifests};

/// How many objects the text has, which both have to read alike.
fn objects(name: &str, text: &str) -> usize {
    let file = parse(name, text);
    assert!(file.is_accepted(), "{name}: {:#?}", file.diagnostics);
    alike::compare(&file, text).unwrap_or_else(|error| panic!("{name}: {error}\nof\n{text}"))
}

proptest! {
    #[test]
    fn random_manifests_are_read_alike(manifests in manifests::manifests()) {
        for text in &manifests.files {
            objects("random.yaml", text);
        }
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn the_manifests_in_the_repository_are_read_alike() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (folder, least) in [
        ("tests/conformance/cases", 500),
        ("config/examples/payments/manifests", 4),
    ] {
        let mut found = Vec::new();
        files(&root.join(folder), &mut found);
        found.retain(|path| {
            path.extension().is_some_and(|end| end == "yaml") && !path.ends_with("expect.yaml")
        });
        let read = found.iter().map(|path| {
            objects(
                &path.display().to_string(),
                &std::fs::read_to_string(path).unwrap(),
            )
        });
        assert!(read.sum::<usize>() >= least, "{folder}");
    }
}

/// The blocks of YAML in the specification, the READMEs and the documents that are manifests.
#[test]
fn the_manifests_in_the_documents_are_read_alike() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md")];
    files(&root.join("docs"), &mut pages);
    files(&root.join("tests/specification"), &mut pages);
    files(&root.join("config/examples"), &mut pages);
    pages.retain(|path| path.extension().is_some_and(|end| end == "md"));
    let mut read = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in text.split("\n```yaml\n").skip(1) {
            let block = &block[..block.find("\n```").unwrap()];
            if block.contains("apiVersion:") {
                read += objects(&page.display().to_string(), block);
            }
        }
    }
    assert!(read > 80, "{read}");
}
