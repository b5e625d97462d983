//! Peer classes: what rules can see of an address, numbered.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use netpol_abi::tables::{CLASS_ANY, OWNER_HOST};

use super::blocks::{Covered, cover};
use super::digest::number;
use super::peers::AtomSet;
use super::subjects::{Resolved, Subjects, resolve};
use crate::kinds::Kinds;
use crate::tables::AddressEntry;
use crate::world::{Place, World};

/// The class of every address and prefix.
#[derive(Default)]
pub(super) struct Classes<'w> {
    pub addresses: BTreeMap<IpAddr, AddressEntry>,
    pub prefixes: BTreeMap<IpNet, u64>,
    /// By number, those in use.
    pub all: BTreeMap<u64, Class<'w>>,
}

/// What a class stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Class<'w> {
    /// The atoms that match, ascending.
    pub atoms: Vec<usize>,
    /// What the names of ports in egress rules stand for.
    pub ports: Resolved<'w>,
}

/// Who has an address.
struct Holder<'w> {
    owner: u32,
    /// Index of its kind; none for the host.
    kind: Option<usize>,
    ports: Resolved<'w>,
}

impl<'w> Classes<'w> {
    pub(super) fn of(world: &'w World, kinds: &Kinds<'w>, subjects: &Subjects<'w>) -> Self {
        let holders = holders(world, kinds, subjects);
        let matching = subjects.atoms.matching(kinds);
        let covered = cover(&subjects.atoms, holders.keys().copied());
        let mut classes = Self::default();

        let nobody = AtomSet::default();
        let none = Resolved::new();
        let mut known: HashMap<(Option<usize>, &Resolved, usize), u64> = HashMap::new();
        for (address, holder) in &holders {
            let blocks = covered.addresses.get(address).copied().unwrap_or_default();
            let class = *known
                .entry((holder.kind, &holder.ports, blocks))
                .or_insert_with(|| {
                    let pods = holder.kind.map_or(&nobody, |kind| &matching[kind]);
                    classes.intern(pods, &covered.sets[blocks], &holder.ports)
                });
            let entry = AddressEntry {
                class,
                owner: holder.owner,
            };
            classes.addresses.insert(*address, entry);
        }
        classes.add_prefixes(&covered, |classes, set| classes.intern(&nobody, set, &none));
        classes
    }

    /// The prefixes at which the class changes.
    fn add_prefixes(
        &mut self,
        covered: &Covered,
        mut intern: impl FnMut(&mut Self, &AtomSet) -> u64,
    ) {
        let mut numbers: Vec<Option<u64>> = vec![None; covered.sets.len()];
        let mut around: Vec<(IpNet, u64)> = Vec::new();
        for (net, set) in &covered.nodes {
            while around.pop_if(|(outer, _)| !outer.contains(net)).is_some() {}
            let parent = around.last().map_or(CLASS_ANY, |(_, class)| *class);
            let class = match numbers[*set] {
                Some(class) => class,
                None => *numbers[*set].insert(intern(self, &covered.sets[*set])),
            };
            if class != parent {
                self.prefixes.insert(*net, class);
                around.push((*net, class));
            }
        }
    }

    fn intern(&mut self, pods: &AtomSet, blocks: &AtomSet, ports: &Resolved<'w>) -> u64 {
        if pods.atoms.is_empty() && blocks.atoms.is_empty() && ports.is_empty() {
            return CLASS_ANY;
        }
        let number = number("class", (pods.digest.union(blocks.digest), ports));
        self.all.entry(number).or_insert_with(|| {
            let mut atoms = [&pods.atoms[..], &blocks.atoms[..]].concat();
            atoms.sort_unstable();
            Class {
                atoms,
                ports: ports.clone(),
            }
        });
        number
    }
}

/// Who has which address: the host before Pods, and of Pods the first by name.
fn holders<'w>(
    world: &'w World,
    kinds: &Kinds<'w>,
    subjects: &Subjects<'w>,
) -> BTreeMap<IpAddr, Holder<'w>> {
    let names = subjects.egress_names();
    let mut pods: Vec<_> = kinds
        .all
        .iter()
        .enumerate()
        .flat_map(|(kind, found)| {
            found
                .pods
                .iter()
                .map(move |(name, pod)| (*name, *pod, kind))
        })
        .collect();
    pods.sort_unstable_by_key(|(name, ..)| *name);

    let mut holders: BTreeMap<IpAddr, Holder> = BTreeMap::new();
    let on_host = world
        .pods
        .values()
        .filter(|pod| pod.place == Place::HostNetwork)
        .flat_map(|pod| &pod.addresses);
    for address in world.host.iter().chain(on_host) {
        holders.entry(*address).or_insert_with(|| Holder {
            owner: OWNER_HOST,
            kind: None,
            ports: Resolved::new(),
        });
    }
    for (_, pod, kind) in pods {
        let ports = resolve(names.iter().copied(), pod);
        for address in &pod.addresses {
            holders.entry(*address).or_insert_with(|| Holder {
                owner: match &pod.place {
                    Place::Attached(attached) => attached.id,
                    _ => 0,
                },
                kind: Some(kind),
                ports: ports.clone(),
            });
        }
    }
    holders
}
