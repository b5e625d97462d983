//! YAML and JSON text as trees that know where everything stood.
//!
//! The one file that names the YAML parser. It reads events, not serde values: all
//! mistakes of a document are wanted at once, each with its place, and serde stops
//! at the first. Owns aliases, merge keys (`<<`), tags, and the limits that keep a
//! hostile file from growing: depth, nodes, and what aliases multiply. Knows
//! nothing of Kubernetes. Called by [`super::object`].

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::document::Position;
use super::merge;
use super::node::{
    Document, Entry, Flaw, MAX_ALIASED, MAX_DEPTH, MAX_NODES, Node, Problem, Span, Value,
};
use super::scalar::Scalar;

/// Reads a stream that begins at this place of its file, document by document. A document
/// that can't be read is a problem, and the next one is read all the same.
pub(super) fn documents<'a>(
    text: &'a str,
    begin: Position,
    mut each: impl FnMut(Result<Document<'a>, Problem>),
) {
    let mut options = granit_parser::options! {
        // JSON has no limit on the length of a key.
        simple_key_max_lookahead: 1 << 16,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let problem = match event {
            Ok((Event::DocumentStart(..), _)) => {
                builder = Builder::default();
                continue;
            }
            Ok((Event::DocumentEnd, _)) => {
                let Builder { root, problems, .. } = std::mem::take(&mut builder);
                if let Some(root) = root {
                    each(Ok(Document { root, problems }));
                }
                continue;
            }
            Ok((event, span)) => {
                let span = span_of(&span.start, &span.end).after(begin);
                match builder.event(event, span) {
                    Ok(()) => continue,
                    Err(problem) => problem,
                }
            }
            Err(error) => {
                let Problem { span, what } = syntax(&error);
                let span = span.after(begin);
                Problem { span, what }
            }
        };
        each(Err(problem));
        builder = Builder::default();
        // A source held in memory cannot fail to be read, so an error here is the end.
        if !parser.proceed_next_document().unwrap_or(false) {
            break;
        }
    }
}

fn syntax(error: &ScanError) -> Problem {
    let mark = error.marker();
    Problem {
        span: span_of(mark, mark),
        what: match error.kind() {
            ErrorKind::RecursionLimitExceeded => Flaw::Depth,
            kind => Flaw::Syntax {
                words: error.info(),
                advice: advice(kind),
            },
        },
    }
}

/// For the person who wrote it: the parser says what it had expected.
fn advice(kind: &ErrorKind) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => "YAML is indented with spaces, never with tabs",
        ErrorKind::SimpleKeyExpected => "a key is followed by `:`, which is missing here",
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::InvalidIndentation => {
            "check the indentation: this stands below none of the lines above"
        }
        ErrorKind::MappingValueNotAllowed => {
            "check the indentation; a text with `: ` in it needs quotes"
        }
        ErrorKind::BlockSequenceEntryNotAllowed => {
            "begin the list on a line of its own, below its key"
        }
        ErrorKind::MissingAnchorOrAliasName | ErrorKind::UnknownAnchor => {
            "`*` and `&` begin aliases and anchors: a text that begins with them needs quotes"
        }
        ErrorKind::UnexpectedCharacter { .. } | ErrorKind::BlockEntryInFlowCollection => {
            "a text that begins with such a character needs quotes"
        }
        ErrorKind::UnclosedQuotedScalar => "close the quote, or remove it",
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::MismatchedFlowCollectionEnd { .. } => "close each bracket with its own kind",
        ErrorKind::MisplacedFlowCollectionEnd => "remove the bracket, or open it before",
        ErrorKind::InvalidTrailingSingleQuotedScalar
        | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            "nothing may follow the closing quote: put all of the text in quotes"
        }
        ErrorKind::UnknownQuotedScalarEscape => {
            "in double quotes `\\` begins an escape: write `\\\\`, or use single quotes"
        }
        ErrorKind::InvalidBlockEntryWhitespace => "write a space behind the `-`",
        ErrorKind::InvalidMappingValueWhitespace => "write a space behind the `:`",
        _ => return None,
    })
}

fn span_of(start: &Marker, end: &Marker) -> Span {
    let clip = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Span {
        line: clip(start.line()),
        column: clip(start.col() + 1),
        length: if end.line() == start.line() {
            clip(end.col().saturating_sub(start.col()))
        } else {
            1
        },
    }
}

/// A collection that is not closed yet.
struct Open<'a> {
    span: Span,
    anchor: usize,
    items: Items<'a>,
}

enum Items<'a> {
    List(Vec<Node<'a>>),
    Mapping {
        entries: Vec<Entry<'a>>,
        /// The key whose value is awaited; `None` inside: a key that can't be.
        key: Option<Option<Key<'a>>>,
        /// Values of `<<`, each with the number of entries that stand before it.
        merged: Vec<(usize, Node<'a>)>,
    },
}

enum Key<'a> {
    Merge,
    Text {
        key: Cow<'a, str>,
        written: Option<Cow<'a, str>>,
        span: Span,
    },
}

/// A value that aliases may repeat.
struct Anchored<'a> {
    node: Node<'a>,
    size: Size,
}

/// How large a tree is.
#[derive(Clone, Copy)]
struct Size {
    nodes: usize,
    depth: usize,
}

/// Makes one document's tree from events, without recursion.
#[derive(Default)]
struct Builder<'a> {
    open: Vec<Open<'a>>,
    root: Option<Node<'a>>,
    anchors: HashMap<usize, Anchored<'a>>,
    problems: Vec<Problem>,
    nodes: usize,
    aliased: usize,
}

impl<'a> Builder<'a> {
    fn event(&mut self, event: Event<'a>, span: Span) -> Result<(), Problem> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                let scalar = self.scalar(&text, plain, tag.as_deref(), span);
                let merge = plain && tag.is_none() && text == "<<";
                let value = Value::Scalar(text, scalar);
                self.value(Node { span, value }, anchor, merge)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "seq", span);
                self.start(Items::List(Vec::new()), anchor, span)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.collection_tag(tag.as_deref(), "map", span);
                let items = Items::Mapping {
                    entries: Vec::new(),
                    key: None,
                    merged: Vec::new(),
                };
                self.start(items, anchor, span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => self.alias(anchor, span),
            _ => Ok(()),
        }
    }

    fn scalar(&mut self, text: &str, plain: bool, tag: Option<&Tag>, span: Span) -> Scalar {
        let Some(tag) = tag else {
            return if plain {
                Scalar::plain(text)
            } else {
                Scalar::Text
            };
        };
        let scalar = Scalar::plain(text);
        match (tag.core_suffix(), scalar) {
            (Some("str"), _) => Scalar::Text,
            (Some("null"), Scalar::Null)
            | (Some("bool"), Scalar::Bool(_))
            | (Some("int"), Scalar::Int(_))
            | (Some("float"), Scalar::Int(_) | Scalar::Float(_)) => scalar,
            _ => {
                self.problem(span, Flaw::Tag(tag.original()));
                Scalar::Text
            }
        }
    }

    fn collection_tag(&mut self, tag: Option<&Tag>, suffix: &str, span: Span) {
        if let Some(tag) = tag
            && tag.core_suffix() != Some(suffix)
        {
            self.problem(span, Flaw::Tag(tag.original()));
        }
    }

    fn problem(&mut self, span: Span, what: Flaw) {
        // The report is cut far below this; a file of nothing but flaws must not grow in memory.
        if self.problems.len() < 1000 {
            self.problems.push(Problem { span, what });
        }
    }

    fn start(&mut self, items: Items<'a>, anchor: usize, span: Span) -> Result<(), Problem> {
        let what = Flaw::Depth;
        if self.open.len() >= MAX_DEPTH {
            return Err(Problem { span, what });
        }
        self.open.push(Open {
            span,
            anchor,
            items,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Problem> {
        let Some(Open {
            span,
            anchor,
            items,
        }) = self.open.pop()
        else {
            return Ok(());
        };
        let value = match items {
            Items::List(nodes) => Value::List(nodes),
            Items::Mapping {
                entries, merged, ..
            } if merged.is_empty() => Value::Mapping(entries),
            Items::Mapping {
                entries, merged, ..
            } => {
                let report = |span, what| self.problem(span, what);
                Value::Mapping(merge::merge(entries, merged, report))
            }
        };
        self.value(Node { span, value }, anchor, false)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Problem> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            let what = Flaw::Cycle;
            return Err(Problem { span, what });
        };
        let size = anchored.size;
        if self.open.len() + size.depth > MAX_DEPTH {
            let what = Flaw::Depth;
            return Err(Problem { span, what });
        }
        let mut node = anchored.node.clone();
        self.charge(size.nodes, span)?;
        self.nodes += size.nodes;
        // What is wrong is wrong where the alias stands; its content keeps its own place.
        if matches!(node.value, Value::Scalar(..)) {
            node.span = span;
        }
        self.value(node, 0, false)
    }

    /// Counts what anchors and aliases copy.
    fn charge(&mut self, nodes: usize, span: Span) -> Result<(), Problem> {
        self.aliased += nodes;
        let what = Flaw::Aliases;
        if self.aliased > MAX_ALIASED {
            return Err(Problem { span, what });
        }
        Ok(())
    }

    /// A complete value: into the collection that is open, or the root.
    fn value(&mut self, node: Node<'a>, anchor: usize, merge: bool) -> Result<(), Problem> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let what = Flaw::Nodes;
            return Err(Problem {
                span: node.span,
                what,
            });
        }
        if anchor != 0 {
            let size = size_of(&node);
            self.charge(size.nodes, node.span)?;
            let copy = node.clone();
            self.anchors.insert(anchor, Anchored { node: copy, size });
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::List(nodes)) => nodes.push(node),
            Some(Items::Mapping {
                entries,
                key,
                merged,
            }) => match key.take() {
                None => match key_of(node, merge) {
                    Ok(found) => *key = Some(Some(found)),
                    Err(problem) => {
                        *key = Some(None);
                        self.problem(problem.span, problem.what);
                    }
                },
                Some(None) => {}
                Some(Some(Key::Merge)) => merged.push((entries.len(), node)),
                Some(Some(Key::Text { key, written, span })) => entries.push(Entry {
                    key,
                    written,
                    span,
                    value: node,
                }),
            },
        }
        Ok(())
    }
}

fn size_of(node: &Node<'_>) -> Size {
    let (children, depth) = match &node.value {
        Value::Scalar(..) => return Size { nodes: 1, depth: 0 },
        Value::List(nodes) => total(nodes.iter()),
        Value::Mapping(entries) => total(entries.iter().map(|entry| &entry.value)),
    };
    Size {
        nodes: 1 + children,
        depth: 1 + depth,
    }
}

fn total<'n, 'a: 'n>(nodes: impl Iterator<Item = &'n Node<'a>>) -> (usize, usize) {
    nodes.fold((0, 0), |(count, depth), node| {
        let size = size_of(node);
        (count + size.nodes, depth.max(size.depth))
    })
}

/// A key as sigs.k8s.io/yaml makes JSON's strings of it.
fn key_of<'a>(node: Node<'a>, merge: bool) -> Result<Key<'a>, Problem> {
    if merge {
        return Ok(Key::Merge);
    }
    let span = node.span;
    let (text, scalar) = match node.value {
        Value::Scalar(text, scalar) => (text, scalar),
        Value::List(_) => {
            let what = Flaw::Key("a list");
            return Err(Problem { span, what });
        }
        Value::Mapping(_) => {
            let what = Flaw::Key("a mapping");
            return Err(Problem { span, what });
        }
    };
    let key = match scalar {
        Scalar::Text => {
            return Ok(Key::Text {
                key: text,
                written: None,
                span,
            });
        }
        Scalar::Null => {
            let what = Flaw::Key("null");
            return Err(Problem { span, what });
        }
        Scalar::Bool(value) => value.to_string(),
        Scalar::Int(value) => value.to_string(),
        Scalar::Float(value) => value.to_string(),
    };
    let written = (key != text).then(|| text.clone());
    Ok(Key::Text {
        key: Cow::Owned(key),
        written,
        span,
    })
}
