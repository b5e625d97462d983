//! What a file must be before it is YAML: UTF-8 text of a bearable size, without
//! control characters. Says where it is not.

use serde::de::IgnoredAny;

use super::document::{File, Position};
use super::finding::clip;
use crate::diagnostic::{Diagnostic, Severity, rule};

/// Bytes of a file. `kubectl get -A -o yaml` of a large cluster fits.
const MAX_BYTES: usize = 64 << 20;

/// The text of a file, or why it has none.
pub(super) fn text<'b>(path: &str, bytes: &'b [u8]) -> Result<&'b str, Box<Diagnostic>> {
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
        let help = match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it looks like UTF-16: save it as UTF-8",
            _ => "save it as UTF-8",
        };
        let message = "the file is not UTF-8 text";
        Box::new(finding(path, end_of(valid), rule::SYNTAX, message, help))
    })
}

/// What is wrong with its size, if anything: the reader may have stopped there.
pub(super) fn too_large(path: &str, bytes: &[u8]) -> Option<Diagnostic> {
    if bytes.len() <= MAX_BYTES {
        return None;
    }
    let message = format!("the file has more than {MAX_BYTES} bytes");
    let help = "split it into several files";
    Some(finding(path, end_of(""), rule::LIMIT, &message, help))
}

/// The first control character: YAML allows none but tab and line breaks, and a parser that
/// stops at NUL would hide what follows it.
pub(super) fn control_character(path: &str, text: &str) -> Option<Diagnostic> {
    let is_control = |byte: &u8| matches!(byte, 0..=8 | 0xb | 0xc | 0xe..=0x1f | 0x7f);
    let at = text.as_bytes().iter().position(is_control)?;
    let message = format!("control character {:#04x} in the text", text.as_bytes()[at]);
    let help = "remove it; in a text in double quotes it is written \\x…";
    Some(finding(
        path,
        end_of(&text[..at]),
        rule::SYNTAX,
        &message,
        help,
    ))
}

/// The YAML streams of a text, each with its place: one, but for JSON objects one after the
/// other with nothing between them (`jq -c '.items[]'`), which kubectl reads too.
pub(super) fn streams(text: &str) -> impl Iterator<Item = (Position, &str)> {
    let objects = || serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    // After one object a stream may still be YAML, whose documents `---` parts.
    let is_json =
        text.trim_start().starts_with('{') && objects().take(2).filter(Result::is_ok).count() == 2;
    let mut objects = is_json.then(objects);
    let mut next = Some((end_of(""), 0));
    std::iter::from_fn(move || {
        let (begin, start) = next?;
        let end = match objects
            .as_mut()
            .map(|objects| (objects.next(), objects.byte_offset()))
        {
            Some((Some(Ok(_)), end)) => end,
            // What is left: white space, or something else.
            _ => text.len(),
        };
        let part = &text[start..end];
        next = (end < text.len()).then(|| (begin.behind(part), end));
        Some((begin, part))
    })
}

/// Text behind a `---`. kubectl splits a stream at every line that begins with it, before any
/// of it is YAML, and bears nothing but a comment there.
pub(super) fn separators<'t>(
    path: &'t str,
    text: &'t str,
) -> impl Iterator<Item = Diagnostic> + 't {
    let mut next = 1;
    text.split('\n').filter_map(move |line| {
        let number = next;
        // A CR in it breaks a line for YAML, and so for every tool that counts lines.
        let before_crlf = line.strip_suffix('\r').unwrap_or(line);
        next += 1 + before_crlf.matches('\r').count();
        let behind = line.strip_prefix("---")?;
        let rest = behind.trim();
        if rest.is_empty() || rest.starts_with('#') {
            return None;
        }
        let message = format!("invalid Yaml document separator: {}", clip(rest));
        let help = "a document begins on the line below its `---`";
        let indent = behind
            .chars()
            .take_while(|letter| letter.is_whitespace())
            .count();
        let position = Position {
            line: number,
            column: 4 + indent,
        };
        Some(Diagnostic {
            length: rest.chars().count(),
            ..finding(path, position, rule::SYNTAX, &message, help)
        })
    })
}

impl Position {
    /// The place behind a text that begins here.
    fn behind(self, text: &str) -> Self {
        let passed = end_of(text);
        Self {
            line: self.line + passed.line - 1,
            column: match passed.line {
                1 => self.column + passed.column - 1,
                _ => passed.column,
            },
        }
    }
}

/// The place behind a text, line breaks as YAML counts them.
fn end_of(text: &str) -> Position {
    let breaks = text.matches(['\n', '\r']).count() - text.matches("\r\n").count();
    let last = text.rsplit(['\n', '\r']).next().unwrap_or_default();
    Position {
        line: 1 + breaks,
        column: 1 + last.chars().count(),
    }
}

fn finding(
    path: &str,
    position: Position,
    rule: &'static str,
    message: &str,
    help: &str,
) -> Diagnostic {
    let place = (position.line, position.column);
    Diagnostic {
        help: Some(help.to_owned()),
        ..Diagnostic::new(path, place, Severity::Error, rule, message)
    }
}

/// A file that is nothing but this finding.
pub(super) fn refused(path: &str, diagnostic: Diagnostic) -> File {
    File {
        path: path.to_owned(),
        diagnostics: vec![diagnostic],
        ..File::default()
    }
}
