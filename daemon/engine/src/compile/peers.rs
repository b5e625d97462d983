//! Peers of rules as numbered *atoms*, and which of them every kind of Pod matches.
//!
//! An atom is a Pod selector with its namespaces, or all the ipBlocks of one rule together: of
//! a hundred thousand blocks in a rule only their union decides, so they make one
//! atom and not as many classes.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::digest::{SetDigest, part};
use super::interned::Interned;
use super::parts::Parts;
use crate::kinds::Kinds;
use crate::policy::{Direction, IpBlock, Peer, PodPeer, Policy};

/// Blocks of one rule up to which the atom is known by what it says, so that rules that say
/// the same share it. A longer list is known by its place: when one block is added to
/// thousands, the addresses in the others keep their class.
const SAID: usize = 32;

/// What an atom stands for.
#[derive(Debug)]
enum Atom {
    Pods(PodPeer),
    /// Sorted.
    Blocks(Vec<IpBlock>),
}

/// All atoms of the rules at hand.
#[derive(Debug, Default)]
pub(super) struct Atoms {
    all: Interned<Atom>,
    /// Those that were not there before.
    fresh: Vec<usize>,
    /// By the digest of a kind: what matched it, when it was last looked at.
    matching: HashMap<u128, AtomSet>,
    /// The blocks are others than before.
    blocks_changed: bool,
}

/// A set of atoms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AtomSet {
    pub digest: SetDigest,
    /// Each once.
    pub atoms: Vec<usize>,
}

impl Atoms {
    /// The atoms of a rule's peers.
    pub(super) fn of_rule(
        &mut self,
        policy: &Policy,
        place: (Direction, usize),
        peers: &[Peer],
    ) -> Vec<usize> {
        let mut atoms = Vec::new();
        let mut blocks: Vec<&IpBlock> = Vec::new();
        for peer in peers {
            match peer {
                Peer::Pods(pods) => {
                    let digest = part("pods", pods);
                    let known = self.all.find(digest);
                    atoms.push(known.unwrap_or_else(|| self.add(digest, Atom::Pods(pods.clone()))));
                }
                Peer::Block(block) => blocks.push(block),
            }
        }
        if !blocks.is_empty() {
            blocks.sort_unstable();
            blocks.dedup();
            atoms.push(self.of_blocks(policy, place, &blocks));
        }
        atoms.sort_unstable();
        atoms.dedup();
        atoms
    }

    fn of_blocks(
        &mut self,
        policy: &Policy,
        place: (Direction, usize),
        blocks: &[&IpBlock],
    ) -> usize {
        let said = blocks.len() <= SAID;
        let digest = if said {
            part("blocks", blocks)
        } else {
            part("blocks of", (&policy.name, place))
        };
        let known = self.all.find(digest);
        if said && let Some(atom) = known {
            return atom;
        }
        self.blocks_changed = true;
        let content = Atom::Blocks(blocks.iter().map(|block| (*block).clone()).collect());
        match known {
            // The place is the same, the list is another one.
            Some(atom) => {
                *self.all.value_mut(atom) = content;
                atom
            }
            None => self.add(digest, content),
        }
    }

    fn add(&mut self, digest: u128, atom: Atom) -> usize {
        let atom = self.all.add(digest, atom);
        self.fresh.push(atom);
        atom
    }

    /// One past the highest number.
    pub(super) fn bound(&self) -> usize {
        self.all.bound()
    }

    pub(super) fn digest(&self, atom: usize) -> u128 {
        self.all.digest(atom)
    }

    /// Blocks with the atoms that they are of, equal blocks side by side.
    pub(super) fn blocks(&self) -> Vec<(&IpBlock, usize)> {
        let mut blocks: Vec<(&IpBlock, usize)> = self
            .all
            .iter()
            .filter_map(|(number, atom)| match atom {
                Atom::Blocks(blocks) => Some((number, blocks)),
                Atom::Pods(_) => None,
            })
            .flat_map(|(number, blocks)| blocks.iter().map(move |block| (block, number)))
            .collect();
        blocks.sort_unstable();
        blocks
    }

    /// Have the blocks changed since this was last asked?
    pub(super) fn take_blocks_changed(&mut self) -> bool {
        std::mem::take(&mut self.blocks_changed)
    }

    /// Drops the atoms that no part has, and says by kind which match it: what was known of
    /// a kind, less those, and whatever is new on either side.
    pub(super) fn update(
        &mut self,
        parts: &Parts,
        kinds: &Kinds,
        known_as: &[(u128, bool)],
    ) -> Vec<AtomSet> {
        let mut in_use = vec![false; self.all.bound()];
        for (_, part) in parts.all.iter() {
            for atom in part.rules.iter().flat_map(|rule| &rule.atoms) {
                in_use[*atom] = true;
            }
        }
        let mut gone = vec![None; self.all.bound()];
        for (number, digest) in self.all.digests() {
            if !in_use[number] {
                gone[number] = Some(digest);
            }
        }
        let dropped = self.all.retain(|atom| in_use[atom]);
        self.blocks_changed |= dropped
            .iter()
            .any(|(_, atom)| matches!(atom, Atom::Blocks(_)));

        let mut known = std::mem::take(&mut self.matching);
        let mut fresh_kinds = Vec::new();
        let mut sets: Vec<AtomSet> = Vec::with_capacity(known_as.len());
        for (kind, (digest, _)) in known_as.iter().enumerate() {
            let mut set = known.remove(digest).unwrap_or_else(|| {
                fresh_kinds.push(kind);
                AtomSet::default()
            });
            if !dropped.is_empty() {
                let digest = &mut set.digest;
                set.atoms.retain(|atom| match gone[*atom] {
                    Some(part) => {
                        digest.remove(part);
                        false
                    }
                    None => true,
                });
            }
            sets.push(set);
        }
        let fresh = std::mem::take(&mut self.fresh);
        let mut is_fresh = vec![false; self.all.bound()];
        for atom in fresh {
            is_fresh[atom] = true;
        }
        let few = (!fresh_kinds.is_empty()).then(|| kinds.only(&fresh_kinds));
        for (number, atom) in self.all.iter() {
            let Atom::Pods(peer) = atom else { continue };
            let digest = self.all.digest(number);
            let mut add = |kind: usize| {
                sets[kind].digest.add(digest);
                sets[kind].atoms.push(number);
            };
            if is_fresh[number] {
                kinds.select(peer).into_iter().for_each(&mut add);
            } else if let Some(few) = &few {
                let found = few.select(peer).into_iter();
                found.map(|kind| fresh_kinds[kind]).for_each(&mut add);
            }
        }
        let digests = known_as.iter().map(|(digest, _)| *digest);
        self.matching = digests.zip(sets.iter().cloned()).collect();
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
