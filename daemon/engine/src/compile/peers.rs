//! Peers of rules as numbered *atoms*, and which of them every kind of Pod matches.
//!
//! An atom is a Pod selector with its namespaces, or all the ipBlocks of one rule together: of
//! a hundred thousand blocks in a rule only their union decides, so they make one
//! atom and not as many classes.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::digest::{SetDigest, part};
use super::interned::Interned;
use super::seen::Seen;
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
    /// By number: how many rules have it.
    uses: Vec<usize>,
    /// Those that were not there before.
    fresh: Vec<usize>,
    /// Those that may have no rule any more.
    released: Vec<usize>,
    /// By kind: what matches it.
    pub matching: Vec<AtomSet>,
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
        for atom in &atoms {
            self.uses[*atom] += 1;
        }
        atoms
    }

    /// A rule that had these atoms is gone.
    pub(super) fn release(&mut self, atoms: &[usize]) {
        for atom in atoms {
            self.uses[*atom] -= 1;
        }
        self.released.extend(atoms);
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
        self.uses.resize(self.all.bound(), 0);
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

    /// Drops the atoms that no rule has any more, and brings up to date which match each kind:
    /// what was known of it, less those, and whatever is new on either side.
    pub(super) fn update(&mut self, seen: &Seen) {
        self.matching = seen.carry(std::mem::take(&mut self.matching));
        let mut gone = vec![None; self.all.bound()];
        let mut any_gone = false;
        for atom in std::mem::take(&mut self.released) {
            if self.uses[atom] == 0 && gone[atom].is_none() {
                let (digest, what) = self.all.remove(atom);
                self.blocks_changed |= matches!(what, Atom::Blocks(_));
                gone[atom] = Some(digest);
                any_gone = true;
            }
        }
        if any_gone {
            for AtomSet { digest, atoms } in &mut self.matching {
                atoms.retain(|atom| gone[*atom].map(|part| digest.remove(part)).is_none());
            }
        }
        let mut add = |atom: usize, digest: u128, kind: usize| {
            self.matching[kind].digest.add(digest);
            self.matching[kind].atoms.push(atom);
        };
        let mut is_fresh = vec![false; self.all.bound()];
        for atom in std::mem::take(&mut self.fresh) {
            is_fresh[atom] = true;
            if let Atom::Pods(peer) = &self.all[atom] {
                let digest = self.all.digest(atom);
                let kinds = seen.kinds.select(peer).into_iter();
                kinds.for_each(|kind| add(atom, digest, kind));
            }
        }
        if seen.fresh.is_empty() {
            return;
        }
        for (atom, what) in self.all.iter() {
            if let Atom::Pods(peer) = what
                && !is_fresh[atom]
            {
                let digest = self.all.digest(atom);
                let kinds = seen.select_fresh(peer);
                kinds.for_each(|kind| add(atom, digest, kind));
            }
        }
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
