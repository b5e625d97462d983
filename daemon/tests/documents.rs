//! Keeps what is written true: README's tables and settings against the code, the example
//! configuration against the defaults, and that every source says what it owns.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use netpol_abi::Reason;
use netpol_abi::limits;
use netpol_engine::lint;
use netpold::config::{self, Config};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The part of the README between a marker and the end of the table or block after it.
fn after<'a>(readme: &'a str, marker: &str) -> &'a str {
    let (_, rest) = readme.split_once(&format!("<!-- {marker}:")).unwrap();
    rest.split_once("-->\n").unwrap().1
}

/// Every key of a configuration with its value, as `table.key`.
fn keys(text: &str) -> Vec<String> {
    let table: toml::Table = text.parse().unwrap();
    let mut keys: Vec<String> = table
        .into_iter()
        .flat_map(|(name, value)| {
            let toml::Value::Table(settings) = value else {
                panic!("`{name}` is no table");
            };
            settings
                .into_iter()
                .map(move |(key, value)| format!("{name}.{key} = {value}"))
        })
        .collect();
    keys.sort();
    keys
}

#[test]
fn every_lint_has_its_line_in_the_readme_and_its_page() {
    let readme = text("README.md");
    let rows: Vec<&str> = after(&readme, "lints")
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let expected: Vec<String> = lint::rules::ALL
        .iter()
        .map(|rule| {
            let (code, summary) = (rule.code, rule.summary);
            let page = format!("daemon/engine/src/lint/rules/{code}.md");
            assert!(root().join(&page).is_file(), "{page}");
            format!("| [`{code}`]({page}) | {summary} |")
        })
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn every_reason_has_its_line_in_the_readme() {
    let readme = text("README.md");
    let rows: Vec<&str> = after(&readme, "reasons")
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let expected: Vec<String> = Reason::ALL
        .iter()
        .map(|reason| {
            let (number, label, text) = (*reason as u8, reason.label(), reason.text());
            format!("| {number} | `{label}` | {text} |")
        })
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_settings_in_the_readme_are_the_defaults_and_all_keys() {
    let readme = text("README.md");
    let block = after(&readme, "settings")
        .strip_prefix("```toml\n")
        .unwrap();
    let block = block.split_once("\n```").unwrap().0;
    let parsed = config::parse(Path::new("README.md"), block.as_bytes()).unwrap();
    assert_eq!(parsed, Config::default());
    // The example has them as comments: `#key = value`, where a sentence is `# Words`.
    let example: Vec<String> = text("config/netpold.toml")
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => setting.to_owned(),
            Some(_) => String::new(),
            None => line.to_owned(),
        })
        .collect();
    assert_eq!(keys(block), keys(&example.join("\n")));
}

#[test]
fn the_sizes_in_the_readme_are_the_programs() {
    let readme = text("README.md");
    let (_, sizes) = readme.split_once("### Sizes").unwrap();
    let sizes: Vec<u32> = sizes
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cell = line.trim_end_matches('|').rsplit('|').next().unwrap();
            cell.trim().replace(',', "").parse().unwrap()
        })
        .collect();
    let expected = [
        limits::ENDPOINTS,
        limits::ADDRESSES,
        limits::PREFIXES,
        limits::LEAVES_EACH as u32,
        limits::LEAVES,
        limits::PUBLISHED,
        limits::VERDICTS,
        limits::FLOWS4,
        limits::FLOWS6,
        limits::FRAGMENTS_EACH as u32,
    ];
    assert_eq!(sizes, expected);
}

#[test]
fn every_source_says_what_it_owns() {
    let mut silent = Vec::new();
    let mut seen = 0;
    let mut folders: Vec<PathBuf> = ["daemon", "ebpf-programs", "tests"]
        .map(|folder| root().join(folder))
        .into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                seen += 1;
                if !fs::read_to_string(&path).unwrap().starts_with("//!") {
                    silent.push(path);
                }
            }
        }
    }
    assert!(seen > 100, "only {seen} sources found");
    assert!(silent.is_empty(), "no `//!` at the top: {silent:?}");
}

/// The examples are what people copy: each is valid, and so are all of them together.
#[test]
fn the_examples_are_valid() {
    let folder = root().join("config/examples/payments/manifests");
    let files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            netpol_engine::manifest::parse(&path.to_string_lossy(), &text)
        })
        .collect();
    for file in &files {
        assert!(file.diagnostics.is_empty(), "{:?}", file.diagnostics);
    }
    let assembled = netpol_engine::manifest::assemble(&files);
    assert!(assembled.diagnostics.is_empty());
    assert_eq!(assembled.world().policies.len(), 4);
}

/// Every line of a table that has a column of tests names one that exists: a file of tests, and where a name
/// follows the link, that function in it.
#[test]
fn every_line_of_the_threat_model_names_its_test() {
    let page = text("docs/threat-model.md");
    let mut has_tests = false;
    let mut lines = 0;
    for line in page.lines() {
        if !line.starts_with('|') {
            has_tests = false;
            continue;
        }
        let cell = line.trim_end_matches('|').rsplit('|').next().unwrap();
        if !has_tests || cell.starts_with("---") {
            has_tests |= cell.trim() == "test";
            continue;
        }
        lines += 1;
        let links: Vec<&str> = cell.split("](../").skip(1).collect();
        assert!(!links.is_empty(), "no test: {line}");
        for link in links {
            let (path, rest) = link.split_once(')').unwrap();
            let source = text(path);
            // Sources register tests by an attribute, or with libtest-mimic where the machine may lack what they need.
            let is_test = path.ends_with(".pkt")
                || source.contains("test]")
                || source.contains("libtest_mimic");
            assert!(is_test, "{path} has no test");
            if let Some(name) = rest.strip_prefix(" `") {
                let name = name.split_once('`').unwrap().0;
                assert!(source.contains(&format!("fn {name}(")), "{name} in {path}");
            }
        }
    }
    assert!(lines > 30, "only {lines} lines found");
}

/// Under systemd the daemon has no right but those.
#[test]
fn the_unit_grants_what_the_daemon_says_it_needs() {
    let asked = netpold::datapath::LoadError::NoRight.to_string();
    let unit = text("systemd/netpold.service");
    let granted: Vec<&str> = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .unwrap()
        .split(' ')
        .collect();
    let asked: Vec<&str> = asked
        .split([' ', ','])
        .filter(|word| word.starts_with("CAP_"))
        .collect();
    assert_eq!(asked.len(), 4);
    for right in asked {
        assert!(granted.contains(&right), "{right} is not in {granted:?}");
    }
}
