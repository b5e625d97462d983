//! How a verdict's ranges are spread over its map entry and a chain of port blocks, and
//! gathered again. Equal tails are stored once, and a block never changes while a verdict may chain it:
//! which id a block has, its content decides (see [`crate::tables::PortBlocks`]).

use netpol_abi::limits::{BLOCK_RANGES, INLINE_RANGES, MAX_BLOCKS};
use netpol_abi::tables::{PortBlock, Verdict};

use crate::tables::VerdictEntry;

/// Ranges that one verdict can hold.
pub const MAX_RANGES: usize = INLINE_RANGES + MAX_BLOCKS * BLOCK_RANGES;

/// A verdict as the maps hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Value of `VERDICTS`.
    pub verdict: Verdict,
    /// Entries of `PORT_BLOCKS`, the chain's end first.
    pub blocks: Vec<(u64, PortBlock)>,
}

/// More port ranges than a verdict's chain can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a verdict has {ranges} port ranges; the kernel's tables hold {MAX_RANGES} for one pair of policy set and peer class"
)]
pub struct TooManyRanges {
    /// How many there are.
    pub ranges: usize,
}

/// Spreads a verdict, over blocks with the ids that `id` gives their contents: not 0, and not the same
/// for two contents.
///
/// # Errors
/// It has more than [`MAX_RANGES`] ranges.
pub fn spread(
    entry: &VerdictEntry,
    mut id: impl FnMut(&PortBlock) -> u64,
) -> Result<Spread, TooManyRanges> {
    if entry.ranges.len() > MAX_RANGES {
        return Err(TooManyRanges {
            ranges: entry.ranges.len(),
        });
    }
    let inline = &entry.ranges[..entry.ranges.len().min(INLINE_RANGES)];
    let mut verdict = Verdict {
        other: entry.other,
        len: inline.len() as u16,
        ..Verdict::default()
    };
    verdict.ranges[..inline.len()].copy_from_slice(inline);
    let mut blocks = Vec::new();
    for ranges in entry.ranges[inline.len()..].chunks(BLOCK_RANGES).rev() {
        let mut block = PortBlock {
            next: verdict.spill,
            len: ranges.len() as u32,
            ..PortBlock::default()
        };
        block.ranges[..ranges.len()].copy_from_slice(ranges);
        verdict.spill = id(&block);
        verdict.blocks += 1;
        blocks.push((verdict.spill, block));
    }
    Ok(Spread { verdict, blocks })
}

/// As [`spread`], with nothing allowed in place of what does not fit. A plan that says so is not
/// carried out; if it were, this would not open anything.
pub(crate) fn spread_or_deny(entry: &VerdictEntry, id: impl FnMut(&PortBlock) -> u64) -> Spread {
    spread(entry, id).unwrap_or_default()
}

/// Gathers a verdict again; `None` where its chain is broken.
pub fn gather<'a>(
    verdict: &Verdict,
    block: impl Fn(u64) -> Option<&'a PortBlock>,
) -> Option<VerdictEntry> {
    let mut ranges = verdict.ranges.get(..usize::from(verdict.len))?.to_vec();
    let mut next = verdict.spill;
    for _ in 0..verdict.blocks {
        let found = block(next)?;
        ranges.extend_from_slice(found.ranges.get(..found.len as usize)?);
        next = found.next;
    }
    (next == 0).then_some(VerdictEntry {
        other: verdict.other,
        ranges,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use netpol_abi::tables::PortRange;

    use super::*;
    use crate::tables::PortBlocks;

    fn entry(ranges: usize) -> VerdictEntry {
        VerdictEntry {
            other: 3,
            ranges: (0..ranges)
                .map(|n| PortRange {
                    first: n as u16 * 2,
                    last: n as u16 * 2,
                    protocol: 6,
                    rule: n as u32 + 1,
                    ..PortRange::default()
                })
                .collect(),
        }
    }

    fn ids() -> impl FnMut(&PortBlock) -> u64 {
        let mut given = PortBlocks::default();
        move |block| given.id(block).0
    }

    #[test]
    fn gathers_what_it_spread() {
        for ranges in [0, 1, 4, 5, 24, 25, 44, MAX_RANGES] {
            let entry = entry(ranges);
            let Spread { verdict, blocks } = spread(&entry, ids()).unwrap();
            let blocks: BTreeMap<_, _> = blocks.into_iter().collect();
            assert_eq!(usize::from(verdict.blocks), blocks.len(), "{ranges} ranges");
            assert_eq!(gather(&verdict, |key| blocks.get(&key)), Some(entry));
        }
    }

    #[test]
    fn refuses_what_the_chain_cannot_hold() {
        let ranges = MAX_RANGES + 1;
        assert_eq!(spread(&entry(ranges), ids()), Err(TooManyRanges { ranges }));
    }

    #[test]
    fn a_broken_chain_is_no_verdict() {
        let Spread { verdict, blocks } = spread(&entry(30), ids()).unwrap();
        let last: BTreeMap<_, _> = blocks[..1].iter().copied().collect();
        assert_eq!(gather(&verdict, |key| last.get(&key)), None);
    }
}
