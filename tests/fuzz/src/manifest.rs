//! Bytes as a manifest. Whatever they are: no panic, findings that are bounded, lie inside the text
//! and can be shown; and what is accepted, k8s-openapi reads the same.
//!
//! Time is the fuzzer's to bound (`-timeout`).

use netpol_engine::compile::compile;
use netpol_engine::diagnostic::render;
use netpol_engine::manifest::{assemble, parse_bytes};

use crate::support::alike;

pub fn hold(bytes: &[u8]) {
    let file = parse_bytes("a.yaml", bytes);
    let text = String::from_utf8_lossy(bytes);
    assert!(file.diagnostics.len() <= 1000);
    // The last one may stand behind the last line.
    let lines: Vec<usize> = lines(text.strip_prefix('\u{feff}').unwrap_or(&text));
    for found in &file.diagnostics {
        let Some(length) = found.line.checked_sub(1).map(|line| lines.get(line)) else {
            panic!("no line: {found:?}");
        };
        let length = length.copied().unwrap_or_default();
        assert!(
            found.line <= lines.len() + 1,
            "{found:?} of {} lines",
            lines.len()
        );
        assert!(
            (1..=length + 1).contains(&found.column),
            "{found:?} in a line of {length}"
        );
        assert!(!found.message.is_empty());
    }
    for found in file.diagnostics.iter().take(10) {
        let shown = render(found, &text, false);
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!shown.contains(control), "{shown:?}");
    }
    let world = assemble([&file]).world();
    if bytes.len() < 4096 {
        let _ = compile(&world);
    }
    if file.is_accepted() && !is_read_otherwise(&text) {
        // What only the engine's reader can read is not compared.
        match alike::compare(&file, &text) {
            Err(error) if error.starts_with("the engine reads") => panic!("{error}"),
            _ => {}
        }
    }
}

/// The characters of each line, line breaks as YAML counts them.
fn lines(text: &str) -> Vec<usize> {
    let text = text.replace("\r\n", "\n");
    text.split(['\n', '\r'])
        .map(|line| line.chars().count())
        .collect()
}

/// Tags, merge keys and YAML's directives mean something else to serde-saphyr than to go-yaml,
/// which is what the engine follows.
fn is_read_otherwise(text: &str) -> bool {
    ["!", "<<", "%"].iter().any(|sign| text.contains(sign))
}
