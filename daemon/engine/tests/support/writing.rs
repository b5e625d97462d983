//! Objects as text, in the many ways in which people and programs write them: block and flow
//! YAML, JSON, quoted or plain, keys in any order, null in three spellings.
//!
//! Choices follow from a number; 0 is plain block YAML, so that what fails shrinks to text that
//! reads well.

use serde_json::{Map, Value};

/// Where the choices come from (xorshift); 0 stays 0.
pub struct Choices(u64);

impl Choices {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `n`; mostly 0 where the seed is 0.
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }
}

/// A file of these documents.
pub fn file(documents: &[Value], seed: u64) -> String {
    let mut choices = Choices::new(seed);
    let mut text = String::new();
    if let [document] = documents
        && choices.one_in(4)
    {
        return json(document, choices.one_in(2));
    }
    if choices.one_in(8) {
        text.push('\u{feff}');
    }
    for (index, document) in documents.iter().enumerate() {
        if index > 0 || choices.one_in(3) {
            text += if choices.one_in(4) {
                "--- # next\n"
            } else {
                "---\n"
            };
        }
        match choices.below(8) {
            5 => text += &flow(document, &mut choices),
            6 => text += &json(document, false),
            7 => text += &json(document, true),
            _ => block(&mut text, document, 0, &mut choices),
        }
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if choices.one_in(8) {
            // An empty document is none.
            text += "---\n# nothing\n";
        }
    }
    if choices.one_in(8) {
        text = text.replace('\n', "\r\n");
    }
    text
}

fn json(value: &Value, pretty: bool) -> String {
    let text = if pretty {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    text.expect("plain values are JSON")
}

fn entries<'v>(map: &'v Map<String, Value>, choices: &mut Choices) -> Vec<(&'v String, &'v Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    for index in (1..entries.len()).rev() {
        if choices.one_in(3) {
            entries.swap(index, choices.below(index));
        }
    }
    entries
}

/// A value on lines of its own, each indented.
fn block(text: &mut String, value: &Value, indent: usize, choices: &mut Choices) {
    match value {
        Value::Object(map) => {
            for (key, value) in entries(map, choices) {
                if choices.one_in(24) {
                    *text += &format!("{:indent$}# as said before\n", "");
                }
                *text += &format!(
                    "{:indent$}{}:",
                    "",
                    scalar(&key.as_str().into(), false, choices)
                );
                below(text, value, indent, choices);
            }
        }
        Value::Array(items) => {
            for item in items {
                *text += &format!("{:indent$}-", "");
                let inside = matches!(item, Value::Object(map) if !map.is_empty());
                if inside && !choices.one_in(6) {
                    // The first key stands beside the dash.
                    let mut lines = String::new();
                    block(&mut lines, item, indent + 2, choices);
                    if lines.trim_start().starts_with('#') {
                        text.push('\n');
                        *text += &lines;
                    } else {
                        *text += &format!(" {}", lines.trim_start());
                    }
                } else {
                    below(text, item, indent, choices);
                }
            }
        }
        other => *text += &format!("{:indent$}{}\n", "", scalar(other, false, choices)),
    }
}

/// What stands behind a key or a dash.
fn below(text: &mut String, value: &Value, indent: usize, choices: &mut Choices) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested && !choices.one_in(5) {
        text.push('\n');
        // A list may stand at its key's own indentation.
        let deeper = if value.is_array() && choices.one_in(2) && text.trim_end().ends_with(':') {
            indent
        } else {
            indent + 2
        };
        return block(text, value, deeper, choices);
    }
    let inline = match value {
        Value::Null => ["null", "", "~"][choices.below(3)].to_owned(),
        Value::Object(_) | Value::Array(_) => flow(value, choices),
        other => scalar(other, false, choices),
    };
    let space = if inline.is_empty() { "" } else { " " };
    *text += &format!("{space}{inline}\n");
}

fn flow(value: &Value, choices: &mut Choices) -> String {
    match value {
        Value::Object(map) => {
            let inside: Vec<String> = entries(map, choices)
                .into_iter()
                .map(|(key, value)| {
                    let key = scalar(&key.as_str().into(), true, choices);
                    format!("{key}: {}", flow(value, choices))
                })
                .collect();
            format!("{{{}}}", inside.join(", "))
        }
        Value::Array(items) => {
            let inside: Vec<String> = items.iter().map(|item| flow(item, choices)).collect();
            format!(
                "[{}]",
                inside.join(if choices.one_in(4) { " , " } else { ", " })
            )
        }
        other => scalar(other, true, choices),
    }
}

fn scalar(value: &Value, in_flow: bool, choices: &mut Choices) -> String {
    let Value::String(text) = value else {
        return value.to_string();
    };
    let quoted = choices.below(4);
    match quoted {
        2 if !text.contains('\'') => format!("'{text}'"),
        0 | 1 if is_plain(text) && !(in_flow && text.contains(':')) => text.clone(),
        _ => Value::from(text.as_str()).to_string(),
    }
}

/// Does it mean the same without quotes, to readers of YAML 1.1 and 1.2?
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 10] = [
        "y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan",
    ];
    let letters = text.starts_with(|first: char| first.is_ascii_alphabetic());
    // Dots and slashes make addresses and blocks of what begins with a digit.
    let address = text.matches('.').count() == 3 && !text.ends_with('.');
    (letters || address)
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
        && !text.ends_with(':')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte))
}
