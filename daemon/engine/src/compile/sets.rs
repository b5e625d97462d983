//! A set of small numbers that changes one member at a time, and has one id for each content that
//! it ever has. The ids are exact, and not digests: a binary tree stands over all numbers,
//! and each pair of ids of two halves has one id, so that equal ids are equal sets.
//! A change costs the height of the tree.

use std::collections::HashMap;

/// The set, and the ids of all that it has been.
#[derive(Debug)]
pub(super) struct Tracked {
    /// By node, from the root at 1: the id of what is below. The last half are the numbers
    /// themselves: 1 for a member.
    nodes: Vec<usize>,
    /// By the ids of both halves.
    ids: HashMap<(usize, usize), usize>,
}

/// The id of the empty set.
pub(super) const EMPTY: usize = 0;

impl Tracked {
    /// No number below `bound` is in the set.
    pub(super) fn below(bound: usize) -> Self {
        Self {
            nodes: vec![EMPTY; 2 * bound.next_power_of_two()],
            ids: HashMap::from([((EMPTY, EMPTY), EMPTY)]),
        }
    }

    /// Is the number a member from now on?
    pub(super) fn set(&mut self, number: usize, member: bool) {
        let mut node = self.nodes.len() / 2 + number;
        let mut id = usize::from(member);
        while self.nodes[node] != id {
            self.nodes[node] = id;
            node /= 2;
            if node == 0 {
                return;
            }
            let halves = (self.nodes[2 * node], self.nodes[2 * node + 1]);
            // 1 is a member; a node of that id would be taken for one.
            let next = self.ids.len() + 1;
            id = *self.ids.entry(halves).or_insert(next);
        }
    }

    /// The id of the set as it is.
    pub(super) fn id(&self) -> usize {
        self.nodes[1]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// One id for a set, whatever the way to it; another for any other set.
    #[test]
    fn ids_are_of_content() {
        for bound in [1, 2, 3, 5, 8] {
            let mut tracked = Tracked::below(bound);
            let mut members = BTreeSet::new();
            let mut known: BTreeMap<BTreeSet<usize>, usize> = BTreeMap::new();
            let mut state = 1_usize;
            for _ in 0..20_000 {
                // A linear congruential generator; its high bits are good enough.
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let (number, member) = ((state >> 33) % bound, state >> 60 & 1 == 1);
                tracked.set(number, member);
                if member {
                    members.insert(number);
                } else {
                    members.remove(&number);
                }
                let id = *known.entry(members.clone()).or_insert(tracked.id());
                assert_eq!(id, tracked.id(), "{members:?}");
                assert_eq!(tracked.id() == EMPTY, members.is_empty());
            }
            let ids: BTreeSet<&usize> = known.values().collect();
            assert_eq!(ids.len(), known.len(), "another id for each set");
            assert_eq!(known.len(), 1 << bound, "all sets below {bound} were met");
        }
    }
}
