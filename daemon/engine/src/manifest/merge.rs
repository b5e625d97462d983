//! Merge keys: what `<<` puts into a mapping.
//!
//! As go-yaml v2 has it, and so kubectl: keys are set one after the other. What stands later
//! wins, a `<<` over the keys before it too; in a list of mappings the earlier one does.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::node::{Entry, Flaw, Node, Span, Value};

/// The entries of a mapping and what is merged into it, each with the number of entries that
/// stand before it.
pub(super) fn merge<'a>(
    entries: Vec<Entry<'a>>,
    merged: Vec<(usize, Node<'a>)>,
    mut report: impl FnMut(Span, Flaw),
) -> Vec<Entry<'a>> {
    let mut slots = Slots::default();
    let mut merged = merged.into_iter().peekable();
    for (index, entry) in entries.into_iter().enumerate() {
        while let Some((_, node)) = merged.next_if(|(before, _)| *before <= index) {
            slots.merge(node, &mut report);
        }
        slots.own(entry);
    }
    for (_, node) in merged {
        slots.merge(node, &mut report);
    }
    slots.slots.into_iter().flatten().collect()
}

/// The entries of a mapping while keys are merged into it.
#[derive(Default)]
struct Slots<'a> {
    /// `None`: another one has won.
    slots: Vec<Option<Entry<'a>>>,
    /// The last slot of each key, and whether it is the mapping's own.
    last: HashMap<Cow<'a, str>, (usize, bool)>,
}

impl<'a> Slots<'a> {
    /// A key of the mapping itself: one that stands twice is kept twice, to be told.
    fn own(&mut self, entry: Entry<'a>) {
        if let Some((slot, false)) = self.last.get(&entry.key) {
            self.slots[*slot] = None;
        }
        self.put(entry, true);
    }

    fn merge(&mut self, node: Node<'a>, report: &mut impl FnMut(Span, Flaw)) {
        let sources = match node.value {
            Value::List(nodes) => nodes,
            _ => vec![node],
        };
        let mut taken = HashSet::new();
        for node in sources {
            match node.value {
                Value::Mapping(entries) => {
                    for entry in entries {
                        if !taken.insert(entry.key.clone()) {
                            continue;
                        }
                        if let Some((slot, _)) = self.last.get(&entry.key) {
                            self.slots[*slot] = None;
                        }
                        self.put(entry, false);
                    }
                }
                Value::List(_) => report(node.span, Flaw::Merge("a list in a list")),
                Value::Scalar(_, scalar) => report(node.span, Flaw::Merge(scalar.describe())),
            }
        }
    }

    fn put(&mut self, entry: Entry<'a>, own: bool) {
        self.last.insert(entry.key.clone(), (self.slots.len(), own));
        self.slots.push(Some(entry));
    }
}
