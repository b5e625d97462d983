//! A finding about a manifest, as a plain value, and its text form.
//!
//! Owns [`Diagnostic`] (what `netpol check -o json` prints, field by field), the
//! codes of the manifest rules, and [`render`]. Must never decide anything: whoever
//! finds a problem says what is right, this file only shows it. Lines and columns
//! count from 1, columns and lengths in characters. Made by [`crate::manifest`] and
//! by lints; read by `netpol check`, the daemon's log and `netpol status`.
//!
//! Text in a diagnostic comes from hostile files: control characters are made
//! visible on the way out, never passed to a terminal.

use std::fmt;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str};
use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file it stands in is not accepted.
    Error,
    /// It is accepted, and may not mean what its author thinks.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Codes of the rules that a manifest can break. Stable: scripts filter by them.
pub mod rule {
    /// Not YAML or JSON.
    pub const SYNTAX: &str = "syntax";
    /// Too large, too deep, or aliases that multiply.
    pub const LIMIT: &str = "limit";
    /// A key stands twice in one mapping.
    pub const DUPLICATE_KEY: &str = "duplicate-key";
    /// A field that the API does not have.
    pub const UNKNOWN_FIELD: &str = "unknown-field";
    /// A text where a list should be, a number where a text should be.
    pub const WRONG_TYPE: &str = "wrong-type";
    /// The API server's `Required value`.
    pub const REQUIRED: &str = "required";
    /// The API server's `Invalid value`.
    pub const INVALID: &str = "invalid";
    /// The API server's `Unsupported value`.
    pub const UNSUPPORTED: &str = "unsupported";
    /// The API server's `Forbidden`.
    pub const FORBIDDEN: &str = "forbidden";
    /// The API server's `Duplicate value`, inside one object.
    pub const DUPLICATE_VALUE: &str = "duplicate-value";
    /// Two objects of one kind, namespace and name.
    pub const DUPLICATE_OBJECT: &str = "duplicate-object";
    /// A kind that is ours in an API version that is not.
    pub const UNKNOWN_VERSION: &str = "unknown-version";
    /// Warning: a kind that means nothing here.
    pub const IGNORED_KIND: &str = "ignored-kind";
    /// Warning: `null` where leaving out and `{}` differ.
    pub const NULL_FIELD: &str = "null-field";
    /// Warning: bits set beyond the prefix length.
    pub const HOST_BITS: &str = "host-bits";
    /// Warning: YAML reads the text as something else than it looks like.
    pub const YAML_READING: &str = "yaml-reading";
    /// Warning: a field that has no effect where it stands.
    pub const IGNORED_FIELD: &str = "ignored-field";
    /// Warning: two Pods state one address.
    pub const ADDRESS_CONFLICT: &str = "address-conflict";
}

/// One finding. Its JSON form is the contract of `netpol check -o json`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// The file, as it was named to the parser.
    #[serde(rename = "file")]
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Characters marked from there on the same line; 0: a place between two.
    #[serde(skip)]
    pub length: usize,
    /// How bad it is.
    pub severity: Severity,
    /// Its code, see [`rule`].
    pub rule: &'static str,
    /// The object's kind, where it is known.
    pub kind: Option<String>,
    /// The object's namespace; none for cluster-scoped ones.
    pub namespace: Option<String>,
    /// The object's name, where it is known.
    pub name: Option<String>,
    /// The field, as the API server names it: `spec.ingress[0].from[1]`.
    pub field: Option<String>,
    /// What is wrong: a lowercase fragment, or the API server's own words.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl Diagnostic {
    /// Is it an error?
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// `NetworkPolicy ns/name`, as far as it is known.
    #[must_use]
    pub fn object(&self) -> Option<String> {
        let name = match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
            (_, name) => name.clone(),
        };
        match (&self.kind, name) {
            (Some(kind), Some(name)) => Some(format!("{kind} {name}")),
            (Some(kind), None) => Some(kind.clone()),
            (None, name) => name,
        }
    }

    fn title(&self) -> String {
        match &self.field {
            Some(field) => format!("{field}: {}", self.message),
            None => self.message.clone(),
        }
    }
}

/// One line, for logs: `file:line:column: error[rule]: object: field: message; help`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = format!(
            "{}:{}:{}: {}[{}]: ",
            self.path, self.line, self.column, self.severity, self.rule
        );
        if let Some(object) = self.object() {
            text.push_str(&object);
            text.push_str(": ");
        }
        text.push_str(&self.title());
        if let Some(help) = &self.help {
            text.push_str("; ");
            text.push_str(help);
        }
        f.write_str(&visible(&text))
    }
}

/// The finding with its source line, marked, and the help below. Ends without a line feed.
/// `source` is the text of the file that it was found in.
#[must_use]
pub fn render(diagnostic: &Diagnostic, source: &str, color: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.title()).id(diagnostic.rule);
    let path = visible(&diagnostic.path);
    let line = line_of(source, diagnostic.line).filter(|line| !line.is_empty());
    let mut group = match line {
        Some(line) => {
            let annotation = AnnotationKind::Primary.span(marked(line, diagnostic));
            let annotation = match diagnostic.object() {
                Some(object) => annotation.label(visible(&object)),
                None => annotation,
            };
            title.element(
                Snippet::source(line)
                    .line_start(diagnostic.line)
                    .path(path)
                    .annotation(annotation),
            )
        }
        None => {
            let origin = annotate_snippets::Origin::path(path)
                .line(diagnostic.line)
                .char_column(diagnostic.column);
            Group::with_title(title).element(origin)
        }
    };
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(visible(help)));
    }
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    renderer.render(&[group])
}

/// Control characters as symbols, line breaks as spaces.
fn visible(text: &str) -> String {
    normalize_untrusted_str(text).replace('\n', " ")
}

/// A line by its number, counting line breaks as YAML does (LF, CR LF, CR).
fn line_of(source: &str, number: usize) -> Option<&str> {
    let mut rest = source.strip_prefix('\u{feff}').unwrap_or(source);
    for _ in 1..number {
        let at = rest.find(['\n', '\r'])?;
        let width = if rest[at..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[at + width..];
    }
    rest.split(['\n', '\r']).next()
}

/// The bytes of a line that a diagnostic marks.
fn marked(line: &str, diagnostic: &Diagnostic) -> std::ops::Range<usize> {
    let byte = |character: usize| {
        line.char_indices()
            .nth(character)
            .map_or(line.len(), |(at, _)| at)
    };
    let first = diagnostic.column.saturating_sub(1);
    byte(first)..byte(first.saturating_add(diagnostic.length))
}

#[cfg(test)]
mod tests;
