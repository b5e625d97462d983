//! What a finding says: the API server's reason words (k8s.io/apimachinery
//! `pkg/util/validation/field/errors.go`), and values as Go prints them in those.
//!
//! Text out of a manifest is cut where it is too long for a message, and quoted so that
//! nothing in it is taken for the message's own.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use super::node::Span;
use crate::diagnostic::rule;
use crate::spelling::nearest;

/// What a finding says, beside its place.
#[derive(Clone)]
pub(super) struct Finding {
    pub(super) rule: &'static str,
    pub(super) message: String,
    pub(super) help: Option<String>,
    /// Another place that it is about, and what stands there.
    pub(super) also: Option<(Span, String)>,
}

impl Finding {
    pub(super) fn new(rule: &'static str, message: impl Into<String>) -> Self {
        Self {
            rule,
            message: message.into(),
            help: None,
            also: None,
        }
    }

    /// `Required value: …`
    pub(super) fn required(detail: &str) -> Self {
        let colon = if detail.is_empty() { "" } else { ": " };
        Self::new(rule::REQUIRED, format!("Required value{colon}{detail}"))
    }

    /// `Invalid value: "…": …`
    pub(super) fn invalid(value: impl fmt::Display, detail: impl fmt::Display) -> Self {
        Self::new(rule::INVALID, format!("Invalid value: {value}: {detail}"))
    }

    /// `Forbidden: …`
    pub(super) fn forbidden(detail: impl fmt::Display) -> Self {
        Self::new(rule::FORBIDDEN, format!("Forbidden: {detail}"))
    }

    /// `Unsupported value: "…": supported values: …`, with what was probably meant as help.
    pub(super) fn unsupported(value: &str, supported: &[&str]) -> Self {
        let list: Vec<_> = supported.iter().map(|value| format!("{value:?}")).collect();
        let message = format!(
            "Unsupported value: {}: supported values: {}",
            json(value),
            list.join(", ")
        );
        let finding = Self::new(rule::UNSUPPORTED, message);
        match nearest(value, supported) {
            Some(meant) => finding.help(format!("did you mean `{meant}`?")),
            None => finding,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Marks another place too.
    pub(super) fn also(mut self, span: Span, label: impl Into<String>) -> Self {
        self.also = Some((span, label.into()));
        self
    }
}

/// As Go's `%q` (`strconv.Quote`), cut where it is too long for a message.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in clip(text).chars() {
        let _ = match letter {
            '"' | '\\' => write!(quoted, "\\{letter}"),
            '\u{7}' => write!(quoted, "\\a"),
            '\u{8}' => write!(quoted, "\\b"),
            '\u{c}' => write!(quoted, "\\f"),
            '\n' => write!(quoted, "\\n"),
            '\r' => write!(quoted, "\\r"),
            '\t' => write!(quoted, "\\t"),
            '\u{b}' => write!(quoted, "\\v"),
            _ if letter.escape_debug().len() == 1 || letter == '\'' => write!(quoted, "{letter}"),
            '\0'..='\x7f' => write!(quoted, "\\x{:02x}", u32::from(letter)),
            '\u{80}'..='\u{ffff}' => write!(quoted, "\\u{:04x}", u32::from(letter)),
            _ => write!(quoted, "\\U{:08x}", u32::from(letter)),
        };
    }
    quoted.push('"');
    quoted
}

/// As Go's JSON, which the API server prints values of named types in, cut likewise.
pub(super) fn json(text: &str) -> String {
    let plain = serde_json::Value::from(clip(text)).to_string();
    plain
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// The text, cut where it is too long for a message.
pub(super) fn clip(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 120;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_as_go_does() {
        for (text, go, marshalled) in [
            ("tcp", "\"tcp\"", "\"tcp\""),
            ("it's é", "\"it's é\"", "\"it's é\""),
            ("a\"b\\", r#""a\"b\\""#, r#""a\"b\\""#),
            (
                "a\n\u{1}\u{7f}",
                r#""a\n\x01\x7f""#,
                "\"a\\n\\u0001\u{7f}\"",
            ),
            (
                "\u{202e}\u{feff}",
                r#""\u202e\ufeff""#,
                "\"\u{202e}\u{feff}\"",
            ),
            ("\u{e0001}", r#""\U000e0001""#, "\"\u{e0001}\""),
            ("<a&b>", "\"<a&b>\"", r#""\u003ca\u0026b\u003e""#),
        ] {
            assert_eq!(quoted(text), go);
            assert_eq!(json(text), marshalled);
        }
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(quoted(&"é".repeat(5000)).chars().count(), 123);
    }
}
