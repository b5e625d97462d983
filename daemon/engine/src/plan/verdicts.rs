//! The verdicts of two states side by side: what is to be written before the flip and deleted
//! after it, and what both take. Rows that the states share are counted, and not compared.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use netpol_abi::limits::INLINE_RANGES;
use netpol_abi::tables::{PortBlock, Verdict, VerdictKey};

use super::merge;
use super::spread::{MAX_RANGES, Spread, spread_or_deny};
use super::step::Step;
use crate::tables::verdicts::Row;
use crate::tables::{VerdictEntry, Verdicts};

/// What is to be done, and what it takes.
#[derive(Default)]
pub(super) struct Staged {
    /// Blocks, then the verdicts that chain them.
    pub put: Vec<Step>,
    /// Verdicts, then blocks that none chains any more.
    pub delete: Vec<Step>,
    /// Verdicts that either state has.
    pub verdicts: usize,
    /// Blocks that either state's verdicts chain.
    pub port_blocks: usize,
    /// Those of the desired state that no chain can hold.
    pub too_many_ranges: Vec<VerdictKey>,
}

pub(super) fn stage(installed: &Verdicts, desired: &Verdicts) -> Staged {
    let mut staged = Staged::default();
    let mut blocks = Blocks::default();
    let mut new_verdicts = Vec::new();
    for (subject, before, after) in merge(installed.rows(), desired.rows()) {
        let key = |class| VerdictKey {
            subject: *subject,
            class,
        };
        if let (Some(before), Some(after)) = (before, after)
            && Arc::ptr_eq(before, after)
        {
            staged.verdicts += after.len();
            for (class, entry) in &**after {
                blocks.keep(entry);
                if entry.ranges.len() > MAX_RANGES {
                    staged.too_many_ranges.push(key(*class));
                }
            }
            continue;
        }
        for (class, before, after) in merge(entries(before), entries(after)) {
            let key = key(*class);
            staged.verdicts += 1;
            if after.is_some_and(|after| after.ranges.len() > MAX_RANGES) {
                staged.too_many_ranges.push(key);
            }
            match (before, after) {
                (Some(before), Some(after)) if before == after => blocks.keep(after),
                (before, Some(after)) => {
                    if let Some(before) = before {
                        blocks.drop(before);
                    }
                    let value = blocks.add(after);
                    new_verdicts.push(Step::PutVerdict { key, value });
                }
                (Some(before), None) => {
                    blocks.drop(before);
                    staged.delete.push(Step::DeleteVerdict { key });
                }
                (None, None) => {}
            }
        }
    }
    let Blocks {
        installed,
        desired,
        mut new,
        ..
    } = blocks;
    new.retain(|(key, _)| !installed.contains(key));
    let put = |(key, value)| Step::PutPortBlock {
        key,
        value: Box::new(value),
    };
    staged.put = new.into_iter().map(put).collect();
    staged.put.append(&mut new_verdicts);
    let delete = |key: &u64| Step::DeletePortBlock { key: *key };
    staged
        .delete
        .extend(installed.difference(&desired).map(delete));
    staged.port_blocks = installed.union(&desired).count();
    staged
}

fn entries(row: Option<&Arc<Row>>) -> impl Iterator<Item = (&u64, &Arc<VerdictEntry>)> {
    row.into_iter()
        .flat_map(|row| row.iter().map(|(class, entry)| (class, entry)))
}

/// Port blocks that verdicts chain.
#[derive(Default)]
struct Blocks {
    installed: BTreeSet<u64>,
    desired: BTreeSet<u64>,
    /// Those of verdicts to be written, each once.
    new: Vec<(u64, PortBlock)>,
    /// Entries that [`Blocks::keep`] knows: one may stand for many classes.
    kept: HashSet<*const VerdictEntry>,
}

impl Blocks {
    /// Both states have it.
    fn keep(&mut self, entry: &Arc<VerdictEntry>) {
        if entry.ranges.len() <= INLINE_RANGES || !self.kept.insert(Arc::as_ptr(entry)) {
            return;
        }
        for (key, _) in spread_or_deny(entry).blocks {
            self.installed.insert(key);
            self.desired.insert(key);
        }
    }

    /// The installed state has it.
    fn drop(&mut self, entry: &VerdictEntry) {
        let chained = spread_or_deny(entry).blocks;
        self.installed.extend(chained.iter().map(|(key, _)| *key));
    }

    /// The desired state has it.
    fn add(&mut self, entry: &VerdictEntry) -> Verdict {
        let Spread { verdict, blocks } = spread_or_deny(entry);
        for (key, value) in blocks {
            if self.desired.insert(key) {
                self.new.push((key, value));
            }
        }
        verdict
    }
}
