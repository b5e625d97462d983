//! Verdicts by policy set and class, a row for each policy set.
//!
//! Rows are shared: a copy of the tables costs what it has of policy sets, and two states that
//! have a row in common are seen to have it without a look inside. Equality is of
//! content, whatever they share.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use netpol_abi::tables::VerdictKey;

use super::VerdictEntry;

/// The verdicts of one policy set, ascending by class.
pub type Row = Vec<(u64, Arc<VerdictEntry>)>;

/// All verdicts, ordered by policy set and class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// None of them empty.
    rows: BTreeMap<u64, Arc<Row>>,
    len: usize,
}

impl Verdicts {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Are there none?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The verdict of this pair, if it has one of its own.
    #[must_use]
    pub fn get(&self, key: &VerdictKey) -> Option<&VerdictEntry> {
        find(self.rows.get(&key.policy_set)?, key.class)
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (VerdictKey, &VerdictEntry)> {
        self.rows.iter().flat_map(|(policy_set, row)| {
            let policy_set = *policy_set;
            row.iter().map(move |(class, entry)| {
                (
                    VerdictKey {
                        policy_set,
                        class: *class,
                    },
                    &**entry,
                )
            })
        })
    }

    /// By policy set.
    pub(crate) const fn rows(&self) -> &BTreeMap<u64, Arc<Row>> {
        &self.rows
    }

    /// Sets one.
    pub fn insert(&mut self, key: VerdictKey, entry: impl Into<Arc<VerdictEntry>>) {
        let row = Arc::make_mut(self.rows.entry(key.policy_set).or_default());
        match row.binary_search_by_key(&key.class, |(class, _)| *class) {
            Ok(found) => row[found].1 = entry.into(),
            Err(place) => {
                row.insert(place, (key.class, entry.into()));
                self.len += 1;
            }
        }
    }

    /// Takes one away.
    pub fn remove(&mut self, key: &VerdictKey) {
        let Some(row) = self.rows.get_mut(&key.policy_set) else {
            return;
        };
        if let Ok(found) = row.binary_search_by_key(&key.class, |(class, _)| *class) {
            Arc::make_mut(row).remove(found);
            self.len -= 1;
            if row.is_empty() {
                self.rows.remove(&key.policy_set);
            }
        }
    }

    /// Takes whole rows away.
    pub(crate) fn retain_policy_sets(&mut self, keep: impl Fn(u64) -> bool) {
        let len = &mut self.len;
        self.rows.retain(|policy_set, row| {
            let keep = keep(*policy_set);
            if !keep {
                *len -= row.len();
            }
            keep
        });
    }

    /// Takes classes away, from every row that has them.
    pub(crate) fn remove_classes(&mut self, gone: &[u64]) {
        if gone.is_empty() {
            return;
        }
        let gone: HashSet<u64> = gone.iter().copied().collect();
        let len = &mut self.len;
        self.rows.retain(|_, row| {
            let has = |class: &u64| row.binary_search_by_key(class, |(class, _)| *class).is_ok();
            if gone.iter().any(has) {
                let row = Arc::make_mut(row);
                let before = row.len();
                row.retain(|(class, _)| !gone.contains(class));
                *len -= before - row.len();
            }
            !row.is_empty()
        });
    }
}

/// The verdict of a class in a row.
pub(crate) fn find(row: &[(u64, Arc<VerdictEntry>)], class: u64) -> Option<&VerdictEntry> {
    let found = row.binary_search_by_key(&class, |(class, _)| *class).ok()?;
    Some(&row[found].1)
}

impl FromIterator<(VerdictKey, VerdictEntry)> for Verdicts {
    fn from_iter<I: IntoIterator<Item = (VerdictKey, VerdictEntry)>>(entries: I) -> Self {
        let mut verdicts = Self::default();
        for (key, entry) in entries {
            verdicts.insert(key, entry);
        }
        verdicts
    }
}

/// Panics where there is none.
impl std::ops::Index<&VerdictKey> for Verdicts {
    type Output = VerdictEntry;

    fn index(&self, key: &VerdictKey) -> &VerdictEntry {
        self.get(key).expect("there is a verdict of this pair")
    }
}
