//! Keeps the modules that face the world apart: `store`, `runtime`, `links`, `gate`, `datapath`
//! and `api` never import one another. Only `reconcile` and the binaries join them. And keeps one layout of modules: `name.rs`,
//! with the modules below it in `name/`.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

const APART: [&str; 6] = ["store", "runtime", "links", "gate", "datapath", "api"];

fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            sources(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

/// The modules of the crate that a source names in a path, as `crate::NAME` or in
/// `use crate::{NAME, …}`.
fn named(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in source.split("crate::").skip(1) {
        let list = match rest.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default(),
            None => rest,
        };
        let words = |text: &str| -> String {
            text.trim()
                .chars()
                .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                .collect()
        };
        if rest.starts_with('{') {
            names.extend(list.split(',').map(words));
        } else {
            names.push(words(list));
        }
    }
    names
}

#[test]
fn modules_that_face_the_world_never_import_one_another() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut looked_at = 0;
    for module in APART {
        let mut files = Vec::new();
        for path in [root.join(module), root.join(format!("{module}.rs"))] {
            if path.exists() {
                sources(&path, &mut files);
            }
        }
        for file in files {
            looked_at += 1;
            for name in named(&fs::read_to_string(&file).unwrap()) {
                assert!(
                    name == module || !APART.contains(&name.as_str()),
                    "{} imports `{name}`",
                    file.display()
                );
            }
        }
    }
    assert!(looked_at > 10, "the sources are not where this test looks");
}

/// The desired state is assembled without the types of the API, the loop's decisions take no system's word but what was
/// observed, and the kernel's side does not use what `netpol test` does.
#[test]
fn arrows_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (module, other) in [
        ("reconcile/assemble", "api"),
        ("reconcile/control", "netlink"),
        ("reconcile/control", "netns"),
        ("reconcile/control", "runtime"),
        ("reconcile/control", "store"),
        ("reconcile/control", "telemetry"),
        ("datapath", "probe"),
        ("netns", "links"),
    ] {
        let mut files = vec![root.join(format!("{module}.rs"))];
        let folder = root.join(module);
        if folder.exists() {
            sources(&folder, &mut files);
        }
        for file in files {
            let names = named(&fs::read_to_string(&file).unwrap());
            assert!(
                !names.contains(&other.to_owned()),
                "{} imports `{other}`",
                file.display()
            );
        }
    }
}

/// `tests` folders may have `mod.rs`: there, a file at the top is a suite of its own.
#[test]
fn each_module_is_named_by_its_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for package in [
        "daemon",
        "daemon/engine",
        "ebpf-programs",
        "ebpf-programs/abi",
        "tests",
    ] {
        let mut files = Vec::new();
        sources(&root.join(package).join("src"), &mut files);
        assert!(
            !files.is_empty(),
            "the sources of {package} are not where this test looks"
        );
        for file in files {
            assert!(!file.ends_with("mod.rs"), "{}", file.display());
        }
    }
}

#[test]
fn imports_are_seen_in_each_form() {
    let source = "use crate::links::Links;\nuse crate::{api, store::Store};\ncrate::runtime::go()";
    assert_eq!(named(source), ["links", "api", "store", "runtime"]);
}
