//! The rules of docs/style.md that a machine can check: words that stand for nothing in particular, and functions whose
//! name says nothing.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// Pronouns for people, which here would stand for an interface, a container, a packet or a program; and `anew`, which a
/// reader has to look up.
const WORDS: [&str; 9] = [
    "whoever",
    "whomever",
    "nobody",
    "somebody",
    "anybody",
    "everybody",
    "anew",
    "he",
    "his",
];

/// Files whose words are not ours, or are quoted: Kubernetes cases and packet scripts that others share, and the page
/// that shows how not to write, and tables that users see.
const QUOTED: [&str; 5] = [
    "docs/style.md",
    "tests/conformance/",
    "tests/packets/",
    "daemon/tests/language.rs",
    "daemon/src/cli/matrix/tests.rs",
];

/// Folders that hold no sources of ours.
const SKIPPED: [&str; 3] = ["target", ".git", "corpus"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                files(&path, found);
            }
            continue;
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let is_text = matches!(&*extension, "rs" | "md" | "toml" | "sh" | "service" | "yml");
        if is_text || name == "Makefile" {
            found.push(path);
        }
    }
}

/// A line of Rust without its texts: messages are for users, and have examples and tests of their own. A line of another
/// file without what is quoted as code.
fn prose(line: &str, is_rust: bool) -> String {
    let quote = if is_rust { '"' } else { '`' };
    let line = line.replace("\\\"", "");
    let parts = line.split(quote).step_by(2);
    parts.collect::<Vec<_>>().join(" ")
}

/// Names with hyphens are files', and lints': `selects-nobody` is one word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|one: char| !one.is_alphanumeric() && one != '-')
        .filter(|word| !word.is_empty())
}

/// The words of a line that style forbids.
fn forbidden(line: &str, is_rust: bool) -> Vec<String> {
    let prose = prose(line, is_rust).to_lowercase();
    let found = words(&prose).filter(|word| WORDS.contains(word));
    found.map(str::to_owned).collect()
}

#[test]
fn comments_names_and_documents_name_their_subjects() {
    let root = root();
    let mut all = Vec::new();
    files(&root, &mut all);
    assert!(all.len() > 400, "the files are not where this test looks");
    let mut wrong = Vec::new();
    for file in all {
        let path = file.strip_prefix(&root).unwrap().to_string_lossy();
        if QUOTED.iter().any(|quoted| path.starts_with(quoted)) {
            continue;
        }
        let is_rust = path.ends_with(".rs");
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in text.lines().enumerate() {
            for word in forbidden(line, is_rust) {
                wrong.push(format!("{path}:{}: `{word}`", number + 1));
            }
            if is_rust && line.contains("fn of(") {
                wrong.push(format!("{path}:{}: `fn of`", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "see docs/style.md:\n{}", wrong.join("\n"));
}

#[test]
fn forbidden_words_are_found_in_comments_and_names_and_not_in_texts() {
    let found = |line: &str| forbidden(line, true).join(" ");
    assert_eq!(
        found("// Nobody asks, and somebody answers."),
        "nobody somebody"
    );
    assert_eq!(found("fn a_flood_harms_nobody() {"), "nobody");
    assert_eq!(found("let text = \"this selects nobody\"; // anew"), "anew");
    assert_eq!(found("let there = the_other;"), "");
    assert_eq!(forbidden("whoever reads `nobody`", false), ["whoever"]);
}
