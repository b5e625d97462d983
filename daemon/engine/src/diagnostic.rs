//! A finding about a manifest, as a plain value, and its text form.
//!
//! Owns [`Diagnostic`] (what `netpol check -o json` prints, field by field), the
//! table of the manifest [`rule`]s, and two other forms: [`render`] for people, [`sarif`]
//! for code review tools. Must never decide anything: the finder of a problem says what is
//! right, this file only shows it. Lines and columns count from 1, columns and lengths in characters. Made by [`crate::manifest`] and
//! by lints; read by `netpol check`, the daemon's log and `netpol status`.
//!
//! Text in a diagnostic comes from hostile files: control characters are made
//! visible on the way out, never passed to a terminal.

use std::fmt;

use annotate_snippets::{
    Annotation, AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str,
};
use serde::Serialize;

use crate::object::{Kind, ObjectId};
use crate::policy::ObjectName;

pub mod rule;
pub mod sarif;

pub use rule::{Rule, Severity};

/// A place of a file and what stands there, counted as in [`Diagnostic`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
    /// Characters from there on the same line.
    pub length: usize,
    /// A word or two: `first here`.
    pub label: String,
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
    /// Another place of the same file that it is about.
    #[serde(skip)]
    pub also: Option<Mark>,
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
    /// What would be right, in one line or more.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A finding about a place of a file, and nothing more known yet.
    #[must_use]
    pub fn new(
        path: &str,
        (line, column): (usize, usize),
        severity: Severity,
        rule: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            line,
            column,
            length: 0,
            also: None,
            severity,
            rule,
            kind: None,
            namespace: None,
            name: None,
            field: None,
            message: message.into(),
            help: None,
        }
    }

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

    /// The object, where all of its name is known.
    #[must_use]
    pub fn object_id(&self) -> Option<ObjectId> {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| Some(kind.name()) == self.kind.as_deref())?;
        let namespace = self.namespace.as_deref().unwrap_or_default();
        Some(ObjectId {
            kind,
            name: ObjectName::new(namespace, self.name.as_deref()?),
        })
    }

    /// The field and what is said of it, as the API server prints it.
    #[must_use]
    pub fn title(&self) -> String {
        match &self.field {
            // The decoder's words name the field themselves.
            Some(_) if [rule::UNKNOWN_FIELD, rule::DUPLICATE_KEY].contains(&self.rule) => {
                self.message.clone()
            }
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
/// `source` is the text of the file that it was found in; one about no file has no path.
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
            let annotation =
                AnnotationKind::Primary.span(marked(line, diagnostic.column, diagnostic.length));
            let annotation = match diagnostic.object() {
                Some(object) => annotation.label(visible(&object)),
                None => annotation,
            };
            let snippet = snippet(line, diagnostic.line, &path).annotation(annotation);
            match &diagnostic.also {
                Some(also) if also.line == diagnostic.line => {
                    title.element(snippet.annotation(second(line, also)))
                }
                Some(also) => {
                    let other = line_of(source, also.line).unwrap_or_default();
                    let other_snippet = self::snippet(other, also.line, &path);
                    title
                        .element(snippet)
                        .element(other_snippet.annotation(second(other, also)))
                }
                None => title.element(snippet),
            }
        }
        None if path.is_empty() => Group::with_title(title),
        None => {
            let origin = annotate_snippets::Origin::path(path)
                .line(diagnostic.line)
                .char_column(diagnostic.column);
            Group::with_title(title).element(origin)
        }
    };
    if let Some(help) = &diagnostic.help {
        let lines: Vec<String> = help.lines().map(visible).collect();
        group = group.element(Level::HELP.message(lines.join("\n")));
    }
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    without_c1(&renderer.render(&[group]))
}

fn snippet<'s>(line: &'s str, number: usize, path: &str) -> Snippet<'s, Annotation<'s>> {
    Snippet::source(line)
        .line_start(number)
        .path(path.to_owned())
}

/// The mark of another place.
fn second<'s>(line: &str, also: &Mark) -> Annotation<'s> {
    AnnotationKind::Context
        .span(marked(line, also.column, also.length))
        .label(visible(&also.label))
}

/// Control characters as symbols, line breaks as spaces.
fn visible(text: &str) -> String {
    without_c1(&normalize_untrusted_str(text).replace('\n', " "))
}

/// The 8-bit controls have no symbols, and some terminals obey them: U+009B begins an escape
/// sequence as ESC [ does.
fn without_c1(text: &str) -> String {
    text.replace(|letter| matches!(letter, '\u{80}'..='\u{9f}'), "\u{fffd}")
}

/// A line by its number, counting line breaks as YAML does (LF, CR LF, CR).
pub(crate) fn line_of(source: &str, number: usize) -> Option<&str> {
    let mut rest = source.strip_prefix('\u{feff}').unwrap_or(source);
    for _ in 1..number {
        let at = rest.find(['\n', '\r'])?;
        let width = if rest[at..].starts_with("\r\n") { 2 } else { 1 };
        rest = &rest[at + width..];
    }
    rest.split(['\n', '\r']).next()
}

/// The bytes of a line that so many characters from a column on are.
fn marked(line: &str, column: usize, length: usize) -> std::ops::Range<usize> {
    let byte = |character: usize| {
        line.char_indices()
            .nth(character)
            .map_or(line.len(), |(at, _)| at)
    };
    let first = column.saturating_sub(1);
    byte(first)..byte(first.saturating_add(length))
}

#[cfg(test)]
mod tests;
