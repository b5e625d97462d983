//! Peers of rules as numbered *atoms*, and which of them every group of Pod matches.
//!
//! An atom is a Pod selector with its namespaces, or all the ipBlocks of one rule together: of
//! a hundred thousand blocks in a rule only their union decides, so they make one
//! atom and not as many classes.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::group_delta::GroupDelta;
use super::interned::Interned;
use super::numbers::{NumberKey, list};
use crate::policy::{Direction, IpBlock, Namespaces, ObjectName, Peer, PodPeer, Policy};

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
    /// Those of the rule at this place, whatever they are.
    BlocksOf(ObjectName, Place, Vec<IpBlock>),
}

/// A rule's direction, and its index there.
type Place = (Direction, usize);

impl Atom {
    fn blocks(&self) -> Option<&Vec<IpBlock>> {
        match self {
            Self::Pods(_) => None,
            Self::Blocks(blocks) | Self::BlocksOf(_, _, blocks) => Some(blocks),
        }
    }
}

/// All atoms of the rules at hand.
#[derive(Debug, Default)]
pub(super) struct Atoms {
    pub key: NumberKey,
    all: Interned<Atom>,
    /// By number: how many rules have it.
    uses: Vec<usize>,
    /// Those that were not there before.
    fresh: Vec<usize>,
    /// Those that may have no rule any more.
    released: Vec<usize>,
    /// By group: what matches it.
    pub matching: Vec<AtomSet>,
    /// The blocks are others than before.
    blocks_changed: bool,
}

/// A set of atoms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AtomSet {
    /// Of its atoms' digests, in order: the same in every world. 0, where it is empty.
    pub digest: u128,
    /// Each once, by digest and number.
    pub atoms: Vec<usize>,
}

impl Atoms {
    /// The atoms of a rule's peers.
    pub(super) fn of_rule(&mut self, policy: &Policy, place: Place, peers: &[Peer]) -> Vec<usize> {
        let mut atoms = Vec::new();
        let mut blocks: Vec<&IpBlock> = Vec::new();
        for peer in peers {
            match peer {
                Peer::Pods(pods) => {
                    let digest = self.key.digest("pods", pods);
                    let same = |atom: &Atom| matches!(atom, Atom::Pods(known) if known == pods);
                    let known = self.all.find(digest, same);
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

    fn of_blocks(&mut self, policy: &Policy, place: Place, blocks: &[&IpBlock]) -> usize {
        let owned = || blocks.iter().map(|block| (*block).clone()).collect();
        if blocks.len() <= SAID {
            let digest = self.key.digest("blocks", blocks);
            let same = |atom: &Atom| matches!(atom, Atom::Blocks(known) if known.iter().eq(blocks.iter().copied()));
            return self.all.find(digest, same).unwrap_or_else(|| {
                self.blocks_changed = true;
                self.add(digest, Atom::Blocks(owned()))
            });
        }
        self.blocks_changed = true;
        let digest = self.key.digest("blocks of", (&policy.name, place));
        let same = |atom: &Atom| matches!(atom, Atom::BlocksOf(name, known, _) if (name, known) == (&policy.name, &place));
        let content = Atom::BlocksOf(policy.name.clone(), place, owned());
        match self.all.find(digest, same) {
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

    /// A set of these.
    pub(super) fn set(&self, atoms: Vec<usize>) -> AtomSet {
        let mut set = AtomSet { digest: 0, atoms };
        set.sort(&self.key, &self.all);
        set
    }

    /// What atoms stand for, as a sentence names it.
    pub(super) fn describe(&self, atoms: &[usize]) -> Vec<String> {
        let describe = |atom: &usize| match self.all.get(*atom) {
            None => "a peer that no rule has any more".to_owned(),
            Some(Atom::Pods(PodPeer { namespaces, pods })) => {
                let namespaces = match namespaces {
                    Namespaces::Own(name) => format!("in the Namespace {name}"),
                    Namespaces::Matching(selector) => format!("in Namespaces with {selector}"),
                };
                format!("Pods with {pods} {namespaces}")
            }
            Some(Atom::Blocks(blocks)) => list(blocks.iter().map(ToString::to_string)),
            Some(Atom::BlocksOf(policy, (direction, rule), _)) => {
                format!("the blocks of {policy}'s {direction} rule {rule}")
            }
        };
        atoms.iter().map(describe).collect()
    }

    /// Blocks with the atoms that they are of, equal blocks side by side.
    pub(super) fn blocks(&self) -> Vec<(&IpBlock, usize)> {
        let mut blocks: Vec<(&IpBlock, usize)> = self
            .all
            .iter()
            .filter_map(|(number, atom)| Some((number, atom.blocks()?)))
            .flat_map(|(number, blocks)| blocks.iter().map(move |block| (block, number)))
            .collect();
        blocks.sort_unstable();
        blocks
    }

    /// Have the blocks changed since this was last asked?
    pub(super) fn take_blocks_changed(&mut self) -> bool {
        std::mem::take(&mut self.blocks_changed)
    }

    /// Drops the atoms that no rule has any more, and brings up to date which match each group:
    /// what was known of it, less those, and whatever is new on either side.
    pub(super) fn update(&mut self, delta: &GroupDelta) {
        self.matching = delta.carry(std::mem::take(&mut self.matching));
        let mut gone = vec![false; self.all.bound()];
        let mut any_gone = false;
        for atom in std::mem::take(&mut self.released) {
            if self.uses[atom] == 0 && !gone[atom] {
                let what = self.all.remove(atom);
                self.blocks_changed |= what.blocks().is_some();
                gone[atom] = true;
                any_gone = true;
            }
        }
        let mut changed = vec![false; self.matching.len()];
        if any_gone {
            for (set, changed) in self.matching.iter_mut().zip(&mut changed) {
                let before = set.atoms.len();
                set.atoms.retain(|atom| !gone[*atom]);
                *changed = set.atoms.len() != before;
            }
        }
        let mut add = |atom: usize, group: usize| {
            self.matching[group].atoms.push(atom);
            changed[group] = true;
        };
        let mut is_fresh = vec![false; self.all.bound()];
        for atom in std::mem::take(&mut self.fresh) {
            is_fresh[atom] = true;
            if let Atom::Pods(peer) = &self.all[atom] {
                let groups = delta.groups.select(peer).into_iter();
                groups.for_each(|group| add(atom, group));
            }
        }
        if !delta.fresh.is_empty() {
            for (atom, what) in self.all.iter() {
                if let Atom::Pods(peer) = what
                    && !is_fresh[atom]
                {
                    let groups = delta.select_fresh(peer);
                    groups.for_each(|group| add(atom, group));
                }
            }
        }
        for (set, changed) in self.matching.iter_mut().zip(changed) {
            if changed {
                set.sort(&self.key, &self.all);
            }
        }
    }
}

impl AtomSet {
    /// Its order, and its digest, after a change.
    fn sort(&mut self, key: &NumberKey, all: &Interned<Atom>) {
        let digest = |atom: &usize| (all.digest(*atom), *atom);
        self.atoms.sort_unstable_by_key(digest);
        self.digest = if self.atoms.is_empty() {
            0
        } else {
            let digests: Vec<u128> = self.atoms.iter().map(|atom| all.digest(*atom)).collect();
            key.digest("atoms", digests)
        };
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
