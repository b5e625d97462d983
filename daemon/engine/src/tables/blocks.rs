//! Ids of port blocks, by their content.
//!
//! An id is given out, and is no hash: a content has the id that it was found under, or one that
//! no block has.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use netpol_abi::tables::PortBlock;

/// The blocks that are installed, or are going to be.
#[derive(Clone, Debug, Default)]
pub struct PortBlocks {
    by_content: Arc<HashMap<PortBlock, u64>>,
    /// All ids in use. Maps that another program wrote may have one content twice, under two ids.
    taken: Arc<BTreeSet<u64>>,
}

impl PortBlocks {
    /// Those of a map.
    #[must_use]
    pub fn from_map(map: &BTreeMap<u64, PortBlock>) -> Self {
        Self {
            by_content: Arc::new(map.iter().map(|(id, block)| (*block, *id)).collect()),
            taken: Arc::new(map.keys().copied().collect()),
        }
    }

    /// The id of a content, where it has one.
    pub(crate) fn get(&self, block: &PortBlock) -> Option<u64> {
        self.by_content.get(block).copied()
    }

    /// The id of a content, and whether it was given out just now.
    pub(crate) fn id(&mut self, block: &PortBlock) -> (u64, bool) {
        if let Some(id) = self.get(block) {
            return (id, false);
        }
        let id = self.free();
        Arc::make_mut(&mut self.by_content).insert(*block, id);
        Arc::make_mut(&mut self.taken).insert(id);
        (id, true)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.taken.len()
    }

    /// The ids of all contents.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> {
        self.by_content.values().copied()
    }

    /// Gives ids back.
    pub(crate) fn remove(&mut self, gone: &BTreeSet<u64>) {
        if !gone.is_empty() {
            Arc::make_mut(&mut self.by_content).retain(|_, id| !gone.contains(id));
            Arc::make_mut(&mut self.taken).retain(|id| !gone.contains(id));
        }
    }

    /// An id that no block has. 0 ends a chain.
    fn free(&self) -> u64 {
        match self.taken.last() {
            None => 1,
            Some(last) if *last < u64::MAX => last + 1,
            // Ids that an earlier version hashed may be anywhere.
            Some(_) => (1..u64::MAX)
                .zip(self.taken.iter())
                .find(|(free, taken)| free != *taken)
                .map_or(1, |(free, _)| free),
        }
    }
}

/// Which ids blocks have makes no difference to a packet, as [`super::Tables`] are compared.
impl PartialEq for PortBlocks {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for PortBlocks {}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(next: u64) -> PortBlock {
        PortBlock {
            next,
            ..PortBlock::default()
        }
    }

    #[test]
    fn a_content_keeps_its_id_and_no_two_share_one() {
        for there in [vec![], vec![1, 2], vec![u64::MAX], vec![1, 2, u64::MAX]] {
            let map = there.iter().map(|id| (*id, block(100 + id % 97)));
            let map: BTreeMap<u64, PortBlock> = map.collect();
            let mut blocks = PortBlocks::from_map(&map);
            for (id, block) in &map {
                assert_eq!(blocks.id(block), (*id, false));
            }
            let mut ids: BTreeSet<u64> = map.keys().copied().collect();
            for next in 0..5 {
                let (id, fresh) = blocks.id(&block(next));
                assert!(fresh && id != 0 && ids.insert(id), "{id} beside {there:?}");
                assert_eq!(blocks.id(&block(next)), (id, false));
            }
            blocks.remove(&ids);
            assert_eq!(blocks.id(&block(7)), (1, true));
        }
    }
}
