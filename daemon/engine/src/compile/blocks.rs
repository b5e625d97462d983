//! Which ipBlocks cover what: one sweep over all prefixes in address order, with the prefixes
//! around the current one on a stack. It costs what there is to sort, whatever the
//! nesting.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::peers::{AtomSet, Atoms, extent};
use super::sets::{EMPTY, Tracked};

/// What the sweep finds.
#[derive(Debug)]
pub(super) struct Covered {
    /// Every block and `except`, each once, an outer one before those inside it, with the
    /// set of what covers it.
    pub nodes: Vec<(IpNet, usize)>,
    /// Sets of atoms by their index there. The first is the empty one.
    pub sets: Vec<AtomSet>,
}

/// What happens at a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// This block begins.
    Begins(usize),
    /// This block has a hole here.
    Hole(usize),
}

/// No blocks, and nothing that they cover.
impl Default for Covered {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            sets: vec![AtomSet::default()],
        }
    }
}

impl Covered {
    /// The sets that cover these addresses, which ascend.
    pub(super) fn sets_of<'s>(
        &'s self,
        addresses: impl Iterator<Item = IpAddr> + 's,
    ) -> impl Iterator<Item = usize> + 's {
        let mut nodes = self.nodes.iter().peekable();
        let mut around: Vec<(IpNet, usize)> = Vec::new();
        addresses.map(move |address| {
            let address = IpNet::from(address);
            while let Some(node) = nodes.next_if(|(net, _)| *net <= address) {
                while around
                    .pop_if(|(outer, _)| !outer.contains(&node.0))
                    .is_some()
                {}
                around.push(*node);
            }
            while around
                .pop_if(|(outer, _)| !outer.contains(&address))
                .is_some()
            {}
            around.last().map_or(0, |(_, set)| *set)
        })
    }
}

/// Finds which atoms cover each prefix.
pub(super) fn cover(atoms: &Atoms) -> Covered {
    let mut blocks: Vec<Vec<usize>> = Vec::new();
    let mut events: Vec<(IpNet, Event)> = Vec::new();
    let mut last = None;
    for (block, atom) in atoms.blocks() {
        if last == Some(block) {
            if let Some(same) = blocks.last_mut() {
                same.push(atom);
            }
            continue;
        }
        last = Some(block);
        let index = blocks.len();
        blocks.push(vec![atom]);
        if let Some((cidr, holes)) = extent(block) {
            events.push((cidr, Event::Begins(index)));
            events.extend(holes.into_iter().map(|hole| (hole, Event::Hole(index))));
        }
    }
    // By address, then length, then kind: a prefix comes before all that it covers.
    events.sort_unstable();

    let mut sweep = Sweep {
        atoms,
        holes: vec![0; blocks.len()],
        blocks,
        counts: vec![0; atoms.bound()],
        touched: Vec::new(),
        active: BTreeSet::new(),
        tracked: Tracked::below(atoms.bound()),
        sets: vec![AtomSet::default()],
        known: HashMap::from([(EMPTY, 0)]),
    };
    let mut covered = Covered::default();
    let mut around: Vec<(IpNet, Event)> = Vec::new();
    let mut events = events.into_iter().peekable();
    while let Some((net, event)) = events.next() {
        while let Some((_, entered)) = around.pop_if(|(outer, _)| !outer.contains(&net)) {
            sweep.leave(entered);
        }
        sweep.enter(event);
        around.push((net, event));
        if events.peek().is_none_or(|(next, _)| *next != net) {
            covered.nodes.push((net, sweep.set()));
        }
    }
    covered.sets = sweep.sets;
    covered
}

/// What covers the place that the sweep has reached.
struct Sweep<'a> {
    atoms: &'a Atoms,
    /// By block: the atoms that it is of.
    blocks: Vec<Vec<usize>>,
    /// By block: its holes around this place; only one without any counts.
    holes: Vec<u32>,
    /// By atom: its blocks that cover this place.
    counts: Vec<u32>,
    /// Atoms whose counts have changed since a set was asked for: where one block ends and another
    /// one of its rule begins, most are as they were.
    touched: Vec<usize>,
    /// The atoms that covered the place at which a set was asked for last.
    active: BTreeSet<usize>,
    /// The same atoms, with an id for every set that they have been.
    tracked: Tracked,
    sets: Vec<AtomSet>,
    /// By what `tracked` was.
    known: HashMap<usize, usize>,
}

impl Sweep<'_> {
    fn enter(&mut self, event: Event) {
        match event {
            Event::Begins(block) => self.cover(block),
            Event::Hole(block) => {
                self.holes[block] += 1;
                if self.holes[block] == 1 {
                    self.uncover(block);
                }
            }
        }
    }

    fn leave(&mut self, event: Event) {
        match event {
            Event::Begins(block) => self.uncover(block),
            Event::Hole(block) => {
                self.holes[block] -= 1;
                if self.holes[block] == 0 {
                    self.cover(block);
                }
            }
        }
    }

    fn cover(&mut self, block: usize) {
        for atom in &self.blocks[block] {
            self.counts[*atom] += 1;
            if self.counts[*atom] == 1 {
                self.touched.push(*atom);
            }
        }
    }

    fn uncover(&mut self, block: usize) {
        for atom in &self.blocks[block] {
            self.counts[*atom] -= 1;
            if self.counts[*atom] == 0 {
                self.touched.push(*atom);
            }
        }
    }

    /// The set that covers this place, written out where it is met for the first time.
    fn set(&mut self) -> usize {
        for atom in self.touched.drain(..) {
            let covers = self.counts[atom] > 0;
            let differs = if covers {
                self.active.insert(atom)
            } else {
                self.active.remove(&atom)
            };
            if differs {
                self.tracked.set(atom, covers);
            }
        }
        *self.known.entry(self.tracked.id()).or_insert_with(|| {
            let active = self.active.iter().copied().collect();
            self.sets.push(self.atoms.set(active));
            self.sets.len() - 1
        })
    }
}
