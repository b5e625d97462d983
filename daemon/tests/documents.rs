//! Keeps the documents true: the tables and settings of `docs/` against the code, the example configuration against
//! the defaults, commands against the command line, links against their targets, and each source's `//!`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};
use netpol_abi::Reason;
use netpol_abi::limits;
use netpol_engine::lint;
use netpol_engine::{leave, manifest};
use netpold::api::wire::Status;
use netpold::cli::Cli;
use netpold::config::{self, Config};
use netpold::health;
use netpold::runtime::identity;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The part of a page between a marker and the end of the page.
fn after<'a>(page: &'a str, marker: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("<!-- {marker}:")).unwrap();
    rest.split_once("-->\n").unwrap().1
}

/// The rows of the table that follows a marker, without its header.
fn rows<'a>(page: &'a str, marker: &str) -> Vec<&'a str> {
    after(page, marker)
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect()
}

/// The first cell of each row, without the backticks.
fn first_cells(page: &str, marker: &str) -> BTreeSet<String> {
    rows(page, marker)
        .into_iter()
        .map(|row| {
            let cell = row.trim_start_matches('|').split('|').next().unwrap();
            cell.trim().trim_matches('`').to_owned()
        })
        .collect()
}

/// What stands in a source between `before` and the next `end`, at each place.
fn quoted(source: &str, before: &str, end: char) -> BTreeSet<String> {
    source
        .split(before)
        .skip(1)
        .map(|rest| rest.split_once(end).unwrap().0.to_owned())
        .collect()
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
fn every_lint_has_its_line_in_the_reference_and_its_page() {
    let page = text("docs/reference.md");
    let expected: Vec<String> = lint::rules::ALL
        .iter()
        .map(|rule| {
            let (code, summary) = (rule.code, rule.summary);
            let page = format!("daemon/engine/src/lint/rules/{code}.md");
            assert!(root().join(&page).is_file(), "{page}");
            format!("| [`{code}`](../{page}) | {summary} |")
        })
        .collect();
    assert_eq!(rows(&page, "lints"), expected);
}

#[test]
fn every_reason_has_its_line_in_the_reference() {
    let page = text("docs/reference.md");
    let expected: Vec<String> = Reason::ALL
        .iter()
        .map(|reason| {
            let (number, label, text) = (*reason as u8, reason.label(), reason.text());
            format!("| {number} | `{label}` | {text} |")
        })
        .collect();
    assert_eq!(rows(&page, "reasons"), expected);
}

#[test]
fn every_verb_and_exit_code_has_its_line_in_the_reference() {
    let page = text("docs/reference.md");
    let command = Cli::command();
    let expected: Vec<String> = command
        .get_subcommands()
        .map(|verb| {
            format!(
                "| `netpol {}` | {} |",
                verb.get_name(),
                verb.get_about().unwrap()
            )
        })
        .collect();
    assert!(expected.len() > 10, "{expected:?}");
    assert_eq!(rows(&page, "verbs"), expected);
    let help = command.get_after_help().unwrap().to_string();
    let (_, exits) = help.split_once("Exit codes:\n").unwrap();
    let expected: Vec<String> = exits
        .lines()
        .take_while(|line| !line.is_empty())
        .map(|line| {
            let (code, meaning) = line.trim().split_once(' ').unwrap();
            format!("| {code} | {} |", meaning.trim())
        })
        .collect();
    assert!(expected.len() > 1, "{help}");
    assert_eq!(rows(&page, "exits"), expected);
}

#[test]
fn every_path_and_field_of_the_status_has_its_line() {
    let reference = text("docs/reference.md");
    let routes = quoted(&text("daemon/src/api/server.rs"), ".route(\"", '"');
    assert!(routes.len() > 5, "{routes:?}");
    assert_eq!(first_cells(&reference, "api"), routes);

    let operations = text("docs/operations.md");
    let status = serde_json::to_value(Status::default()).unwrap();
    let fields: BTreeSet<String> = status.as_object().unwrap().keys().cloned().collect();
    assert_eq!(first_cells(&operations, "status"), fields);
}

#[test]
fn every_check_of_the_doctor_has_its_line() {
    let checks = netpold::cli::CHECKS.iter();
    let expected: Vec<String> = checks
        .map(|check| format!("| `{}` | {} |", check.code, check.what))
        .collect();
    assert_eq!(rows(&text("docs/operations.md"), "checks"), expected);
}

#[test]
fn every_code_of_a_problem_has_its_line() {
    let expected: Vec<String> = health::CODES
        .iter()
        .map(|code| {
            let severity = code.severity.name();
            format!("| `{}` | {severity} | {} |", code.code, code.meaning)
        })
        .collect();
    assert_eq!(rows(&text("docs/operations.md"), "problems"), expected);
}

#[test]
fn every_key_that_netpold_reads_from_labels_and_annotations_has_its_line() {
    let page = text("docs/reference.md");
    let named: BTreeSet<String> = rows(&page, "annotations")
        .into_iter()
        .flat_map(|row| row.split('`').skip(1).step_by(2))
        .filter(|word| word.starts_with("netpold.io/"))
        .map(|word| word.split(':').next().unwrap().to_owned())
        .collect();
    let mut read: BTreeSet<String> = [
        leave::ADDRESSES,
        lint::ANNOTATION,
        manifest::ANNOTATION_CONTAINER,
        manifest::ANNOTATION_EXTERNAL,
        manifest::ANNOTATION_MODE,
        manifest::ANNOTATION_NETNS,
        identity::PORTS_LABEL,
    ]
    .map(str::to_owned)
    .into();
    let labels = Config::default().namespaces.from;
    read.extend(
        labels
            .into_iter()
            .filter(|key| key.starts_with("netpold.io/")),
    );
    assert_eq!(named, read);
}

#[test]
fn the_settings_in_the_reference_are_the_defaults_and_all_keys() {
    let page = text("docs/reference.md");
    let block = after(&page, "settings").strip_prefix("```toml\n").unwrap();
    let block = block.split_once("\n```").unwrap().0;
    let parsed = config::parse(Path::new("docs/reference.md"), block.as_bytes()).unwrap();
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
fn the_sizes_in_the_limits_are_the_programs() {
    let page = text("docs/limits.md");
    let sizes: Vec<u32> = rows(&page, "sizes")
        .into_iter()
        .map(|row| {
            let cell = row.trim_end_matches('|').rsplit('|').next().unwrap();
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
            manifest::parse(&path.to_string_lossy(), &text)
        })
        .collect();
    for file in &files {
        assert!(file.diagnostics.is_empty(), "{:?}", file.diagnostics);
    }
    let assembled = manifest::assemble(&files);
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

/// Every page in the repository, by its path from the root.
fn pages() -> Vec<String> {
    let mut pages = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    folders.push(path);
                }
            } else if name.ends_with(".md") {
                let path = path.strip_prefix(root()).unwrap();
                pages.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    pages.sort();
    assert!(pages.len() > 30, "only {} pages found", pages.len());
    pages
}

/// The lines of a page outside and inside of blocks of code; of the latter with the block's language.
fn lines(page: &str) -> Vec<(Option<&str>, &str)> {
    let mut block = None;
    let mut lines = Vec::new();
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), block) {
            (Some(_), Some(_)) => block = None,
            (Some(language), None) => block = Some(language),
            (None, _) => lines.push((block, line)),
        }
    }
    lines
}

/// A line without the code in backticks.
fn prose(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The anchors that hosts of repositories give the headings of a page: lower case, hyphens for spaces, no punctuation.
fn anchors(page: &str) -> BTreeSet<String> {
    lines(page)
        .into_iter()
        .filter(|(block, line)| block.is_none() && line.starts_with('#'))
        .map(|(_, line)| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|character| character.is_alphanumeric() || " -_".contains(*character))
                .map(|character| if character == ' ' { '-' } else { character })
                .collect()
        })
        .collect()
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let mut seen = 0;
    let mut broken = Vec::new();
    for path in pages() {
        let page = text(&path);
        let folder = root().join(&path).parent().unwrap().to_owned();
        let prose: Vec<String> = lines(&page)
            .into_iter()
            .filter(|(block, _)| block.is_none())
            .map(|(_, line)| prose(line))
            .collect();
        let prose = prose.join("\n");
        for link in prose.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            seen += 1;
            let (file, anchor) = match link.split_once('#') {
                Some((file, anchor)) => (file, Some(anchor)),
                None => (link, None),
            };
            let target = match file {
                "" => root().join(&path),
                file => folder.join(file),
            };
            let leads = match anchor {
                None => target.exists(),
                Some(anchor) => {
                    target.is_file()
                        && anchors(&fs::read_to_string(&target).unwrap()).contains(anchor)
                }
            };
            if !leads {
                broken.push(format!("{path}: {link}"));
            }
        }
    }
    assert!(seen > 100, "only {seen} links found");
    assert!(broken.is_empty(), "{broken:#?}");
}

/// Each `netpol` in a block of shell commands or of a console is a command line that `netpol` takes.
#[test]
fn every_command_in_the_documents_is_one() {
    let mut seen = 0;
    for path in pages() {
        for (block, line) in lines(&text(&path)) {
            let line = match block {
                Some("sh") => line,
                Some("console") => match line.strip_prefix("$ ") {
                    Some(line) => line,
                    None => continue,
                },
                _ => continue,
            };
            let line = line.split_once(" #").map_or(line, |(command, _)| command);
            for command in line.split(['|', ';', '&', '>']) {
                let mut words = command.split_whitespace().peekable();
                words.next_if_eq(&"sudo");
                if words.peek() != Some(&"netpol") {
                    continue;
                }
                seen += 1;
                if let Err(error) = Cli::try_parse_from(words) {
                    panic!("{path}: {command}\n{error}");
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} commands found");
}

/// The README is what people read first, and the rest has its own page.
#[test]
fn the_readme_is_short() {
    let lines = text("README.md").lines().count();
    assert!(lines <= 160, "{lines} lines");
}
