//! A tree of a document's values, each with its place in the file, and why a text is no tree.

use std::borrow::Cow;

use super::document::Position;
use super::scalar::Scalar;

/// Nodes of one document, aliases followed: some 100 bytes each.
pub(super) const MAX_NODES: usize = 4_000_000;
/// Nodes that the aliases of one document may add, however they multiply.
pub(super) const MAX_ALIASED: usize = 200_000;
/// Depth of a document: trees are walked and dropped by recursion.
pub(super) const MAX_DEPTH: usize = 300;

/// Where something stands: line and column from 1, column and length in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) length: u32,
}

impl Span {
    /// Where it begins.
    pub(super) fn place(self) -> (u32, u32) {
        (self.line, self.column)
    }

    /// In the file, where it is counted from a place in it.
    pub(super) fn after(self, begin: Position) -> Self {
        let clip = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let column = if self.line == 1 { begin.column } else { 1 };
        Self {
            line: self.line.saturating_add(clip(begin.line) - 1),
            column: self.column.saturating_add(clip(column) - 1),
            length: self.length,
        }
    }
}

/// One value and its place.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub(super) span: Span,
    pub(super) value: Value<'a>,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    /// The text, and what it means.
    Scalar(Cow<'a, str>, Scalar),
    /// A list.
    List(Vec<Node<'a>>),
    /// A mapping, in order, repeated keys included; merged keys stand where `<<` stood.
    Mapping(Vec<Entry<'a>>),
}

/// One entry of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    /// The key as Kubernetes sees it: YAML's `on` is `true`.
    pub(super) key: Cow<'a, str>,
    /// The key as it is written, where that differs.
    pub(super) written: Option<Cow<'a, str>>,
    pub(super) span: Span,
    pub(super) value: Node<'a>,
}

impl Node<'_> {
    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Scalar(_, Scalar::Null))
    }
}

/// Why a text, or a part of it, is no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) span: Span,
    pub(super) what: Flaw,
}

/// The flaw of a [`Problem`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    /// The parser's own words, and what is to be done.
    #[error("not valid YAML: {words}")]
    Syntax {
        words: String,
        advice: Option<&'static str>,
    },
    #[error("a mapping's key must be a string, not {0}")]
    Key(&'static str),
    #[error("the tag `{0}` means nothing in a manifest")]
    Tag(String),
    #[error("`<<` merges a mapping or a list of mappings, not {0}")]
    Merge(&'static str),
    #[error("an alias stands inside the value that it repeats")]
    Cycle,
    #[error("aliases add more than {MAX_ALIASED} values to this document")]
    Aliases,
    #[error("the document has more than {MAX_NODES} values")]
    Nodes,
    #[error("the document is nested more than {MAX_DEPTH} deep")]
    Depth,
}

impl Flaw {
    /// Is a limit exceeded, rather than a rule of YAML broken?
    pub(super) fn is_limit(&self) -> bool {
        matches!(self, Self::Aliases | Self::Nodes | Self::Depth)
    }
}

/// One document of a stream.
#[derive(Debug)]
pub(super) struct Document<'a> {
    pub(super) root: Node<'a>,
    /// Parts that were left out of the tree.
    pub(super) problems: Vec<Problem>,
}
