//! Where a field of an accepted object stands: policies hold what they say, not where. The text
//! is read once more for code that reports about them.

use std::collections::HashMap;

use super::decode::{below, get, present};
use super::document::Position;
use super::input;
use super::node::{Entry, Node, Span, Value};
use super::object::{MAX_LISTS, start};
use super::tree;

/// A place to mark in a file: line and column from 1, column and length in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
    /// Characters from there.
    pub length: usize,
}

impl Mark {
    /// A place between two characters.
    #[must_use]
    pub const fn at(position: Position) -> Self {
        Self {
            line: position.line,
            column: position.column,
            length: 0,
        }
    }
}

/// The places of fields, each of the object that begins at a position, named as the API
/// server does. A field that is not there has the place of the innermost one around it that is.
/// A key below `matchLabels` is also found in `matchExpressions`.
#[must_use]
pub fn locate(text: &str, wanted: &[(Position, &str)]) -> Vec<Mark> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut marks: Vec<Mark> = wanted
        .iter()
        .map(|(position, _)| Mark::at(*position))
        .collect();
    let mut by_object: HashMap<Position, Vec<usize>> = HashMap::new();
    for (index, (position, _)) in wanted.iter().enumerate() {
        by_object.entry(*position).or_default().push(index);
    }
    for (begin, part) in input::streams(text) {
        tree::documents(part, begin, |document| {
            let Ok(document) = document else { return };
            objects(&document.root, 0, &mut |node, entries| {
                for index in by_object.get(&start(node, entries)).into_iter().flatten() {
                    if let Some(span) = walk(node, wanted[*index].1) {
                        marks[*index] = Mark {
                            line: span.line as usize,
                            column: span.column as usize,
                            length: span.length as usize,
                        };
                    }
                }
            });
        });
    }
    marks
}

/// Every mapping that may be an object: the document, and the items of Lists.
fn objects<'n, 'a>(
    node: &'n Node<'a>,
    depth: usize,
    each: &mut impl FnMut(&'n Node<'a>, &'n [Entry<'a>]),
) {
    let Value::Mapping(entries) = &node.value else {
        return;
    };
    each(node, entries);
    if let Some(entry) = present(entries, "items")
        && let Value::List(items) = &entry.value.value
        && depth < MAX_LISTS
    {
        for item in items {
            objects(item, depth + 1, each);
        }
    }
}

/// As far as the path leads; `None`: nowhere.
fn walk(object: &Node<'_>, path: &str) -> Option<Span> {
    let mut found = None;
    let (mut node, mut rest) = (object, path);
    while let Some((step, further)) = next(rest) {
        let (span, below) = match (step, &node.value) {
            (Step::Field("matchLabels"), Value::Mapping(selector)) => {
                let Some((Step::Inside(key), _)) = next(further) else {
                    break;
                };
                return requirement(selector, key).or(found);
            }
            (Step::Field(name) | Step::Inside(name), Value::Mapping(entries)) => {
                let Some(entry) = get(entries, name) else {
                    break;
                };
                (place(entry), &entry.value)
            }
            (Step::Inside(index), Value::List(items)) => {
                let index = index.parse().ok();
                let Some(item) = index.and_then(|index: usize| items.get(index)) else {
                    break;
                };
                (beginning(item), item)
            }
            _ => break,
        };
        found = Some(span);
        (node, rest) = (below, further);
    }
    found
}

/// A block's own place is its first key: too far from what is meant.
fn place(entry: &Entry<'_>) -> Span {
    match entry.value.value {
        Value::Scalar(..) if entry.value.span.length > 0 => entry.value.span,
        _ => entry.span,
    }
}

/// An item that is a block begins at its first key: its dash is no place to mark.
fn beginning(item: &Node<'_>) -> Span {
    match &item.value {
        Value::Mapping(entries) if item.span.length == 0 => {
            entries.first().map_or(item.span, |entry| entry.span)
        }
        _ => item.span,
    }
}

/// The key of a label in a selector, in either of its lists.
fn requirement(selector: &[Entry<'_>], key: &str) -> Option<Span> {
    let labels = present(selector, "matchLabels").map_or(&[][..], below);
    if let Some(entry) = get(labels, key) {
        return Some(entry.span);
    }
    let Value::List(items) = &present(selector, "matchExpressions")?.value.value else {
        return None;
    };
    items.iter().find_map(|item| {
        let Value::Mapping(fields) = &item.value else {
            return None;
        };
        let entry = get(fields, "key")?;
        matches!(&entry.value.value, Value::Scalar(text, _) if text == key)
            .then_some(entry.value.span)
    })
}

/// One step of a path.
enum Step<'p> {
    /// `.name`
    Field(&'p str),
    /// `[0]`, `[example.com/key]`
    Inside(&'p str),
}

/// The first step and the rest.
fn next(path: &str) -> Option<(Step<'_>, &str)> {
    let path = path.strip_prefix('.').unwrap_or(path);
    if let Some(inside) = path.strip_prefix('[') {
        let (inside, rest) = inside.split_once(']')?;
        return Some((Step::Inside(inside), rest));
    }
    let (name, rest) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
    (!name.is_empty()).then_some((Step::Field(name), rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::parse;
    use super::*;

    const TEXT: &str = "\
# A list, and an object after it.
apiVersion: v1
kind: List
items:
  - kind: NetworkPolicy
    apiVersion: networking.k8s.io/v1
    metadata: {name: one}
    spec:
      podSelector:
        matchLabels: {app: web}
        matchExpressions:
          - {key: example.com/tier, operator: Exists}
      ingress:
        - from:
            - podSelector: {}
          ports: [{port: 80}]
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: two}
spec: {podSelector: {}}
";

    /// What is marked, by line and text.
    fn marked(object: usize, path: &str) -> (usize, String) {
        let position = parse("file", TEXT).documents[object].position;
        let mark = locate(TEXT, &[(position, path)])[0];
        let line = TEXT.lines().nth(mark.line - 1).unwrap();
        let text = line.chars().skip(mark.column - 1).take(mark.length);
        (mark.line, text.collect())
    }

    #[test]
    fn every_kind_of_step_leads_to_its_place() {
        for (object, path, line, text) in [
            (0, "spec", 8, "spec"),
            (0, "spec.ingress", 13, "ingress"),
            (0, "spec.ingress[0].ports[0].port", 16, "80"),
            (0, "spec.podSelector.matchLabels[app]", 10, "app"),
            (
                0,
                "spec.podSelector.matchLabels[example.com/tier]",
                12,
                "example.com/tier",
            ),
            (1, "metadata.name", 20, "two"),
        ] {
            assert_eq!(marked(object, path), (line, text.to_owned()), "{path}");
        }
    }

    #[test]
    fn what_is_not_there_is_the_innermost_that_is() {
        for (object, path, line, text) in [
            (0, "spec.policyTypes", 8, "spec"),
            (0, "spec.ingress[7].from", 13, "ingress"),
            (0, "spec.podSelector.matchLabels[gone]", 9, "podSelector"),
            (1, "spec.podSelector.matchLabels[gone]", 21, "podSelector"),
        ] {
            assert_eq!(marked(object, path), (line, text.to_owned()), "{path}");
        }
        let position = parse("file", TEXT).documents[1].position;
        let mark = locate(TEXT, &[(position, "nowhere")])[0];
        assert_eq!((mark.line, mark.column, mark.length), (18, 1, 0));
    }
}
