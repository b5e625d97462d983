//! Peers of rules as numbered *atoms*, and which of them every Pod matches.
//!
//! An atom is a Pod selector with its namespaces, or all the ipBlocks of one rule together: of
//! a hundred thousand blocks in a rule only their union decides, so they make one
//! atom and not as many classes.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::digest::{SetDigest, part};
use crate::kinds::Kinds;
use crate::policy::{Direction, IpBlock, Peer, PodPeer, Policy};

/// Blocks of one rule up to which the atom is known by what it says, so that rules that say
/// the same share it. A longer list is known by its place: when one block is added to
/// thousands, the addresses in the others keep their class.
const SAID: usize = 32;

/// All atoms of the rules at hand.
#[derive(Default)]
pub(super) struct Atoms<'w> {
    digests: Vec<u128>,
    known: HashMap<u128, usize>,
    pods: Vec<(usize, &'w PodPeer)>,
    blocks: BTreeSet<(&'w IpBlock, usize)>,
}

/// A set of atoms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AtomSet {
    pub digest: SetDigest,
    /// Ascending.
    pub atoms: Vec<usize>,
}

impl<'w> Atoms<'w> {
    /// The atoms of a rule's peers.
    pub(super) fn of_rule(
        &mut self,
        policy: &'w Policy,
        place: (Direction, usize),
        peers: &'w [Peer],
    ) -> Vec<usize> {
        let mut atoms = Vec::new();
        let mut blocks: Vec<&IpBlock> = Vec::new();
        for peer in peers {
            match peer {
                Peer::Pods(pods) => {
                    let (atom, new) = self.intern(part("pods", pods));
                    if new {
                        self.pods.push((atom, pods));
                    }
                    atoms.push(atom);
                }
                Peer::Block(block) => blocks.push(block),
            }
        }
        if !blocks.is_empty() {
            blocks.sort_unstable();
            blocks.dedup();
            let digest = if blocks.len() <= SAID {
                part("blocks", &blocks)
            } else {
                part("blocks of", (&policy.name, place))
            };
            let (atom, new) = self.intern(digest);
            if new {
                self.blocks
                    .extend(blocks.into_iter().map(|block| (block, atom)));
            }
            atoms.push(atom);
        }
        atoms.sort_unstable();
        atoms.dedup();
        atoms
    }

    fn intern(&mut self, digest: u128) -> (usize, bool) {
        let next = self.digests.len();
        let atom = *self.known.entry(digest).or_insert(next);
        if atom == next {
            self.digests.push(digest);
        }
        (atom, atom == next)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.digests.len()
    }

    /// Blocks with the atoms that they are of, equal blocks side by side.
    pub(super) fn blocks(&self) -> impl Iterator<Item = (&'w IpBlock, usize)> {
        self.blocks.iter().copied()
    }

    pub(super) fn digest(&self, atom: usize) -> u128 {
        self.digests[atom]
    }

    /// By kind of Pod: the selectors that match it.
    pub(super) fn matching(&self, kinds: &Kinds) -> Vec<AtomSet> {
        let mut sets = vec![AtomSet::default(); kinds.all.len()];
        for (atom, peer) in &self.pods {
            for kind in kinds.select(peer) {
                sets[kind].digest.add(self.digests[*atom]);
                sets[kind].atoms.push(*atom);
            }
        }
        sets
    }
}

/// A block as a set of addresses: what it adds and what it takes away again. Nothing, where
/// an `except` covers all of it.
pub(super) fn extent(block: &IpBlock) -> Option<(IpNet, BTreeSet<IpNet>)> {
    let cidr = block.cidr.trunc();
    let holes: BTreeSet<IpNet> = block.except.iter().map(IpNet::trunc).collect();
    if holes.iter().any(|hole| hole.contains(&cidr)) {
        return None;
    }
    Some((
        cidr,
        holes
            .into_iter()
            .filter(|hole| cidr.contains(hole))
            .collect(),
    ))
}
