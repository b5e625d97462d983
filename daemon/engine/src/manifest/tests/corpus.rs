//! The conformance corpus: every case reads clean, every invalid one names its object. That
//! k8s-openapi reads the accepted ones alike is `tests/alike.rs`' business.

use std::path::{Path, PathBuf};

use super::*;

fn manifests(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance");
    let mut cases: Vec<_> = std::fs::read_dir(root.join(folder))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path().join("manifests.yaml");
            let text = std::fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "{folder}");
    cases
}

#[test]
fn every_case_is_accepted() {
    for (path, text) in manifests("cases") {
        let file = parse(path.to_str().unwrap(), &text);
        let errors: Vec<_> = file.diagnostics.iter().filter(|d| d.is_error()).collect();
        assert!(errors.is_empty(), "{errors:?}");
        assert!(
            assemble([&file]).diagnostics.is_empty(),
            "{}",
            path.display()
        );
    }
}

#[test]
fn every_invalid_case_names_its_object_and_keeps_the_others() {
    for (path, text) in manifests("invalid") {
        let file = parse(path.to_str().unwrap(), &text);
        assert!(!file.is_accepted(), "{}", path.display());
        for error in &file.diagnostics {
            assert_eq!(error.kind.as_deref(), Some("NetworkPolicy"), "{error}");
            assert_eq!(error.namespace.as_deref(), Some("ns1"), "{error}");
            assert_eq!(error.name.as_deref(), Some("bad"), "{error}");
        }
        let names: Vec<_> = file.documents.iter().map(|o| o.id().to_string()).collect();
        assert_eq!(
            names,
            [
                "Namespace ns1",
                "Pod ns1/a",
                "Pod ns1/b",
                "NetworkPolicy ns1/good"
            ]
        );
    }
}
