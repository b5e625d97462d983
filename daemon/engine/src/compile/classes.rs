//! Peer classes: what rules can see of an address, numbered.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netpol_abi::tables::{CLASS_ANY, OWNER_HOST};

use super::blocks::{Covered, cover};
use super::numbers::{Collision, list, ports as named};
use super::parts::{Parts, resolve};
use super::peers::{AtomSet, Atoms};
use super::ports::Resolved;
use crate::pod_groups::PodGroups;
use crate::resolver;
use crate::tables::AddressEntry;
use crate::world::{NamedPort, Place, World};

/// The class of every address and prefix.
#[derive(Debug, Default)]
pub(super) struct Classes {
    pub addresses: BTreeMap<IpAddr, AddressEntry>,
    pub prefixes: Arc<BTreeMap<IpNet, u64>>,
    /// By number, those in use.
    pub all: BTreeMap<u64, Class>,
    /// The numbers of those that were not there before.
    pub fresh: Vec<u64>,
    /// The numbers of those that were there before, and are not any more.
    pub gone: Vec<u64>,
    /// The peer `kube-dns`, for what it is and not for where; `None`: there is none, or no container's engine asks for it.
    pub kube_dns: Option<AddressEntry>,
    /// By address, of the resolvers that engines ask: the peer that policy takes it for.
    pub resolvers: BTreeMap<IpAddr, AddressEntry>,
    /// What the blocks cover, for as long as they are the same, and the classes of its sets.
    covered: Covered,
    of_sets: Vec<Option<u64>>,
}

/// What a class stands for.
#[derive(Debug)]
pub(super) struct Class {
    /// The atoms that match: those of Pods, then blocks, each in the order of their set. An atom's
    /// number stands for its content.
    pub atoms: Vec<usize>,
    /// What the names of ports in egress rules stand for.
    pub ports: Resolved,
}

/// The owner of an address.
struct Holder {
    owner: u32,
    slot: u32,
    /// Index of its group; none for the host.
    group: Option<usize>,
    /// Index of what the names of ports stand for there.
    ports: usize,
}

impl Classes {
    /// Brings the classes up to date.
    ///
    /// # Errors
    /// Two classes have one number.
    pub(super) fn update(
        &mut self,
        world: &World,
        groups: &PodGroups,
        parts: &Parts,
        atoms: &mut Atoms,
    ) -> Result<(), Collision> {
        let mut before = std::mem::take(&mut self.all);
        self.fresh.clear();
        let no_atoms = AtomSet::default();
        self.cover(atoms, &mut before)?;

        let (holders, ports) = holders(world, groups, parts);
        let mut known: HashMap<(Option<usize>, usize, usize), u64> = HashMap::new();
        let covered = std::mem::take(&mut self.covered);
        self.addresses.clear();
        for ((address, holder), set) in holders.iter().zip(covered.sets_of(holders.keys().copied()))
        {
            let class = match known.entry((holder.group, set, holder.ports)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(place) => {
                    let pods = holder
                        .group
                        .map_or(&no_atoms, |group| &atoms.matching[group]);
                    let ports = &ports[holder.ports];
                    *place.insert(self.intern(
                        &mut before,
                        atoms,
                        pods,
                        &covered.sets[set],
                        ports,
                    )?)
                }
            };
            let entry = AddressEntry {
                class,
                owner: holder.owner,
                slot: holder.slot,
            };
            self.addresses.insert(*address, entry);
        }
        self.covered = covered;
        self.ask(world, groups, parts, atoms, &mut before)?;
        self.gone = before.into_keys().collect();
        Ok(())
    }

    /// The classes of those that engines ask for their containers.
    fn ask(
        &mut self,
        world: &World,
        groups: &PodGroups,
        parts: &Parts,
        atoms: &Atoms,
        before: &mut BTreeMap<u64, Class>,
    ) -> Result<(), Collision> {
        let asks = world.pods.values().filter_map(|pod| match &pod.place {
            Place::Attached(attached) => attached.asks.as_ref(),
            _ => None,
        });
        let asks: Vec<&BTreeSet<IpAddr>> = asks.collect();
        self.kube_dns = None;
        self.resolvers.clear();
        let name = resolver::name();
        if let Some(pod) = world.pods.get(&name).filter(|_| !asks.is_empty()) {
            let mut all = groups.all.iter();
            let group = all.position(|group| group.pods.iter().any(|(other, _)| **other == name));
            let (none, mut ports) = (AtomSet::default(), Resolved::new());
            let mut pods = &none;
            // What is on a host's network has no group, and no ports that a rule could name.
            if let Some(group) = group {
                pods = &atoms.matching[group];
                ports = resolve(parts.egress_names.iter(), pod);
            }
            let (owner, slot) = match &pod.place {
                Place::Attached(attached) => (attached.id, attached.slot),
                Place::HostNetwork if !pod.is_on_another_host(&world.host) => (OWNER_HOST, 0),
                _ => (0, 0),
            };
            self.kube_dns = Some(AddressEntry {
                class: self.intern(before, atoms, pods, &none, &ports)?,
                owner,
                slot,
            });
        }
        let addresses: BTreeSet<IpAddr> = asks.into_iter().flatten().copied().collect();
        for (address, set) in addresses
            .iter()
            .zip(self.covered.sets_of(addresses.iter().copied()))
        {
            let stranger = || AddressEntry {
                class: self
                    .of_sets
                    .get(set)
                    .copied()
                    .flatten()
                    .unwrap_or(CLASS_ANY),
                ..AddressEntry::default()
            };
            let entry = self.addresses.get(address).copied();
            self.resolvers
                .insert(*address, entry.unwrap_or_else(stranger));
        }
        Ok(())
    }

    /// The prefixes at which the class changes.
    fn cover(
        &mut self,
        atoms: &mut Atoms,
        before: &mut BTreeMap<u64, Class>,
    ) -> Result<(), Collision> {
        if !atoms.take_blocks_changed() {
            for class in self.of_sets.iter().flatten() {
                if let Some(kept) = before.remove(class) {
                    self.all.insert(*class, kept);
                }
            }
            return Ok(());
        }
        let covered = cover(atoms);
        let (no_atoms, none) = (AtomSet::default(), Resolved::new());
        let mut of_sets: Vec<Option<u64>> = vec![None; covered.sets.len()];
        let mut prefixes = BTreeMap::new();
        let mut around: Vec<(IpNet, u64)> = Vec::new();
        for (net, set) in &covered.nodes {
            while around.pop_if(|(outer, _)| !outer.contains(net)).is_some() {}
            let parent = around.last().map_or(CLASS_ANY, |(_, class)| *class);
            let class = match of_sets[*set] {
                Some(class) => class,
                None => self.intern(before, atoms, &no_atoms, &covered.sets[*set], &none)?,
            };
            of_sets[*set] = Some(class);
            if class != parent {
                prefixes.insert(*net, class);
                around.push((*net, class));
            }
        }
        self.prefixes = Arc::new(prefixes);
        self.of_sets = of_sets;
        self.covered = covered;
        Ok(())
    }

    /// The number of a class; `before` has those that were not asked for yet.
    fn intern(
        &mut self,
        before: &mut BTreeMap<u64, Class>,
        atoms: &Atoms,
        pods: &AtomSet,
        blocks: &AtomSet,
        ports: &Resolved,
    ) -> Result<u64, Collision> {
        if pods.atoms.is_empty() && blocks.atoms.is_empty() && ports.is_empty() {
            return Ok(CLASS_ANY);
        }
        let content = (pods.digest, blocks.digest, ports);
        let number = atoms.key.number("class", content);
        let fresh = || Class {
            atoms: [&pods.atoms[..], &blocks.atoms[..]].concat(),
            ports: ports.clone(),
        };
        match self.all.get(&number).or_else(|| before.get(&number)) {
            Some(known) if known.is(pods, blocks, ports) => {
                if let Some(known) = before.remove(&number) {
                    self.all.insert(number, known);
                }
            }
            Some(known) => {
                return Err(Collision {
                    sort: "class",
                    number,
                    things: [known.describe(atoms), fresh().describe(atoms)],
                });
            }
            None => {
                self.all.insert(number, fresh());
                self.fresh.push(number);
            }
        }
        Ok(number)
    }
}

impl Class {
    fn is(&self, pods: &AtomSet, blocks: &AtomSet, ports: &Resolved) -> bool {
        let of_blocks = self.atoms.strip_prefix(&pods.atoms[..]);
        of_blocks == Some(&blocks.atoms[..]) && self.ports == *ports
    }

    fn describe(&self, atoms: &Atoms) -> String {
        let matching = match &self.atoms[..] {
            [] => "no peer that a rule names".to_owned(),
            some => list(atoms.describe(some)),
        };
        format!("what matches {matching}{}", named(&self.ports))
    }
}

/// The owner of each address: the host before Pods, and of Pods the first by name. Then what names
/// of ports stand for there, the first of these being nothing.
fn holders(
    world: &World,
    groups: &PodGroups,
    parts: &Parts,
) -> (BTreeMap<IpAddr, Holder>, Vec<Resolved>) {
    let mut ports = vec![Resolved::new()];
    let mut known: HashMap<&[NamedPort], usize> = HashMap::from([(&[][..], 0)]);
    let mut distinct: HashMap<Resolved, usize> = HashMap::from([(Resolved::new(), 0)]);
    let mut pods: Vec<_> = groups
        .all
        .iter()
        .enumerate()
        .flat_map(|(group, found)| {
            found
                .pods
                .iter()
                .map(move |(name, pod)| (*name, *pod, group))
        })
        .collect();
    pods.sort_unstable_by_key(|(name, ..)| *name);

    let mut holders: BTreeMap<IpAddr, Holder> = BTreeMap::new();
    // What a manifest states of a Pod on the host's network makes no address the host's.
    for address in &world.host {
        holders.entry(*address).or_insert(Holder {
            owner: OWNER_HOST,
            slot: 0,
            group: None,
            ports: 0,
        });
    }
    for (_, pod, group) in pods {
        let of_pod = *known.entry(&pod.ports).or_insert_with(|| {
            let resolved = resolve(parts.egress_names.iter(), pod);
            *distinct.entry(resolved).or_insert_with_key(|resolved| {
                ports.push(resolved.clone());
                ports.len() - 1
            })
        });
        for address in &pod.addresses {
            let (owner, slot) = match &pod.place {
                Place::Attached(attached) => (attached.id, attached.slot),
                _ => (0, 0),
            };
            holders.entry(*address).or_insert_with(|| Holder {
                owner,
                slot,
                group: Some(group),
                ports: of_pod,
            });
        }
    }
    (holders, ports)
}
