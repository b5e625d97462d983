//! The verdicts of two states side by side: what is to be written before the commit and deleted
//! after it, and what both take. Rows that the states share are counted, and not compared.
//!
//! Verdicts are written while the old state is in force, so a pair of policy set and class that both
//! states ask for must say the same in both. Where it does not, one of the two numbers
//! stands for two things: that is a clash, and the plan must not be carried out.

use std::cell::LazyCell;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use netpol_abi::limits::INLINE_RANGES;
use netpol_abi::tables::{CLASS_ANY, PortBlock, Verdict, VerdictKey};

use super::merge;
use super::spread::{MAX_RANGES, Spread, spread_or_deny};
use super::step::Step;
use crate::tables::verdicts::Row;
use crate::tables::{PortBlocks, Tables, VerdictEntry};

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
    /// Pairs that both states ask for, and that say something else in each.
    pub clashes: Vec<VerdictKey>,
    /// The ids of blocks afterwards.
    pub blocks: PortBlocks,
}

pub(super) fn stage(installed: &Tables, desired: &Tables) -> Staged {
    let mut staged = Staged::default();
    let mut blocks = Blocks::new(&installed.port_blocks);
    let mut new_verdicts = Vec::new();
    // Most rows are shared, and those that are not are mostly of a policy set that one state has.
    let asked = LazyCell::new(|| [policy_sets(installed), policy_sets(desired)]);
    for (policy_set, before, after) in merge(installed.verdicts.rows(), desired.verdicts.rows()) {
        let key = |class| VerdictKey {
            policy_set: *policy_set,
            class,
        };
        if let (Some(before), Some(after)) = (before, after)
            && Arc::ptr_eq(before, after)
        {
            staged.verdicts += after.len();
            for (class, entry) in &**after {
                if entry.ranges.len() > MAX_RANGES {
                    staged.too_many_ranges.push(key(*class));
                }
                if !blocks.keep(entry) {
                    let (key, value) = (key(*class), blocks.add(entry));
                    new_verdicts.push(Step::PutVerdict { key, value });
                }
            }
            continue;
        }
        let of_both = asked
            .iter()
            .all(|asked| asked.binary_search(policy_set).is_ok());
        for (class, before, after) in merge(entries(before), entries(after)) {
            let key = key(*class);
            staged.verdicts += 1;
            if after.is_some_and(|after| after.ranges.len() > MAX_RANGES) {
                staged.too_many_ranges.push(key);
            }
            let is_kept = before == after;
            if !is_kept && of_both {
                staged.clashes.push(key);
            }
            match after {
                Some(after) if is_kept && blocks.keep(after) => {}
                Some(after) => {
                    let value = blocks.add(after);
                    new_verdicts.push(Step::PutVerdict { key, value });
                }
                None => staged.delete.push(Step::DeleteVerdict { key }),
            }
        }
    }
    if !staged.clashes.is_empty() {
        let asked = staged.clashes.iter().map(|key| key.class).collect();
        let (of_installed, of_desired) = (classes(installed, &asked), classes(desired, &asked));
        let both =
            |key: &VerdictKey| [&of_installed, &of_desired].map(|of| of.contains(&key.class));
        staged.clashes.retain(|key| both(key) == [true; 2]);
    }
    let Blocks {
        mut ids, used, new, ..
    } = blocks;
    staged.port_blocks = ids.len();
    let unused: BTreeSet<u64> = ids.ids().filter(|id| !used.contains(id)).collect();
    let put = |(key, value)| Step::PutPortBlock {
        key,
        value: Box::new(value),
    };
    staged.put = new.into_iter().map(put).collect();
    staged.put.append(&mut new_verdicts);
    let delete = |key: &u64| Step::DeletePortBlock { key: *key };
    staged.delete.extend(unused.iter().map(delete));
    ids.remove(&unused);
    staged.blocks = ids;
    staged
}

/// The policy sets that endpoints ask, ascending.
fn policy_sets(tables: &Tables) -> Vec<u64> {
    let endpoints = tables.endpoints.values();
    let mut policy_sets: Vec<u64> = endpoints
        .flat_map(|entry| {
            [
                entry.ingress,
                entry.egress,
                entry.audited_ingress,
                entry.audited_egress,
            ]
        })
        .collect();
    policy_sets.sort_unstable();
    policy_sets.dedup();
    policy_sets
}

/// Those of some classes that addresses have.
fn classes(tables: &Tables, some: &HashSet<u64>) -> HashSet<u64> {
    let of_addresses = tables.addresses.values().map(|entry| entry.class);
    let of_prefixes = tables.prefixes.values().copied();
    of_addresses
        .chain(of_prefixes)
        .chain([CLASS_ANY])
        .filter(|class| some.contains(class))
        .collect()
}

fn entries(row: Option<&Arc<Row>>) -> impl Iterator<Item = (&u64, &Arc<VerdictEntry>)> {
    row.into_iter()
        .flat_map(|row| row.iter().map(|(class, entry)| (class, entry)))
}

/// Port blocks that verdicts chain.
struct Blocks {
    /// Those of either state.
    ids: PortBlocks,
    /// Those of the desired state.
    used: BTreeSet<u64>,
    /// Those that are not there.
    new: Vec<(u64, PortBlock)>,
    /// Entries that [`Blocks::keep`] knows: one may stand for many classes.
    kept: HashSet<*const VerdictEntry>,
}

impl Blocks {
    fn new(installed: &PortBlocks) -> Self {
        Self {
            ids: installed.clone(),
            used: BTreeSet::new(),
            new: Vec::new(),
            kept: HashSet::new(),
        }
    }

    /// Both states have it. `false`: not all of its blocks are as the installed state's should be, so
    /// that it has to be written once more.
    fn keep(&mut self, entry: &Arc<VerdictEntry>) -> bool {
        if entry.ranges.len() <= INLINE_RANGES || self.kept.contains(&Arc::as_ptr(entry)) {
            return true;
        }
        let mut whole = true;
        let known = |block: &PortBlock| {
            self.ids.get(block).unwrap_or_else(|| {
                whole = false;
                0
            })
        };
        let Spread { blocks, .. } = spread_or_deny(entry, known);
        if whole {
            self.used.extend(blocks.iter().map(|(id, _)| *id));
            self.kept.insert(Arc::as_ptr(entry));
        }
        whole
    }

    /// The desired state has it.
    fn add(&mut self, entry: &VerdictEntry) -> Verdict {
        let Self { ids, used, new, .. } = self;
        let id = |block: &PortBlock| {
            let (id, fresh) = ids.id(block);
            used.insert(id);
            if fresh {
                new.push((id, *block));
            }
            id
        };
        spread_or_deny(entry, id).verdict
    }
}
