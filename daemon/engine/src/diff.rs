//! What opens and what closes between two worlds.
//!
//! Pairs of Pods that both worlds know are compared by name, and each Pod with the host and
//! with strangers; what is there on one side only is named, not compared. The work is by
//! groups that act alike on both sides ([`crate::reach`]), never by pairs of Pods. Two Pods with
//! IPv4 and IPv6 are compared over each; a world in which they don't share both is taken to say
//! of each what it says. For `netpol diff`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::evaluate::Family;
use crate::policy::{IpBlock, ObjectName};
use crate::reach::cover::{Rectangle, cover};
use crate::reach::{Members, NeverInForce, PortSet, Profile, Reach};
use crate::world::World;

#[cfg(test)]
mod tests;

/// The difference of two worlds.
#[derive(Clone, Debug)]
pub struct Diff<'w> {
    /// Policies.
    pub policies: Objects<ObjectName>,
    /// Pods; changed is one with other labels, ports, addresses or another place.
    pub pods: Objects<ObjectName>,
    /// Namespaces; changed is one with other labels or another mode.
    pub namespaces: Objects<String>,
    ends: Vec<Members<'w>>,
    sets: Vec<PortSet>,
    changes: Vec<Change>,
}

/// Objects of one kind that are not the same on both sides, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Objects<N> {
    /// Only in the new world.
    pub added: Vec<N>,
    /// Only in the old one.
    pub removed: Vec<N>,
    /// In both, and not the same.
    pub changed: Vec<N>,
}

/// What becomes of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Turn {
    /// They did not pass, and will.
    Opened,
    /// They passed, and will not.
    Closed,
}

/// Between any two of these ends, these ports open or close.
#[derive(Clone, Debug)]
pub struct Row<'d, 'w> {
    /// Open or close?
    pub turn: Turn,
    /// The senders.
    pub from: Vec<&'d Members<'w>>,
    /// The receivers.
    pub to: Vec<&'d Members<'w>>,
    /// Which ports.
    pub ports: Turned<'d>,
}

/// The ports that open or close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turned<'d> {
    /// The set of ports.
    pub ports: &'d PortSet,
    /// The family over which they do, where the other one gets another answer.
    pub family: Option<Family>,
}

/// One end of a change: `namespace/name`, `host`, or a block of addresses with what is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End<'a> {
    /// A Pod.
    Pod(&'a ObjectName),
    /// The host; with an address, where policy tells its addresses apart.
    Host(Option<IpAddr>),
    /// Strangers.
    Block(&'a IpBlock),
}

/// Between two groups.
#[derive(Clone, Copy, Debug)]
struct Change {
    turn: Turn,
    from: usize,
    to: usize,
    /// Index of the ports, by family; at least one.
    ports: [Option<usize>; 2],
}

/// A group with what policy sees of it in the old and in the new world.
type Both<'w> = (Members<'w>, [Profile; 2]);

impl<'w> Diff<'w> {
    /// Compares two worlds.
    ///
    /// # Examples
    /// Without its only policy, every port of `db` opens for everything:
    ///
    /// ```
    /// # use netpol_engine::manifest::{assemble, parse};
    /// # let file = parse("shop.yaml", "
    /// # {apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, status: {podIP: 10.0.0.1}}
    /// # ---
    /// # {apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}}, status: {podIP: 10.0.0.2}}
    /// # ---
    /// # apiVersion: networking.k8s.io/v1
    /// # kind: NetworkPolicy
    /// # metadata: {name: db, namespace: shop}
    /// # spec:
    /// #   podSelector: {matchLabels: {app: db}}
    /// #   ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
    /// # ");
    /// # let world = assemble([&file]).world();
    /// use netpol_engine::diff::{Diff, Turn};
    ///
    /// let mut after = world.clone();
    /// after.policies.clear();
    /// let diff = Diff::between(&world, &after)?;
    /// assert!(diff.count(Turn::Opened) > 0);
    /// assert_eq!(diff.count(Turn::Closed), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// One of them makes more verdicts than any kernel table holds, or can't be numbered.
    pub fn between(old: &'w World, new: &'w World) -> Result<Self, NeverInForce> {
        let mut diff = Self {
            policies: Objects::between(&old.policies, &new.policies),
            pods: Objects::between(&old.pods, &new.pods),
            namespaces: namespaces(old, new),
            ends: Vec::new(),
            sets: Vec::new(),
            changes: Vec::new(),
        };
        let worlds = [Reach::compute(old)?, Reach::compute(new)?];
        let both = groups(&worlds, old);
        diff.changes = changes(&worlds, &both, &mut diff.sets);
        diff.ends = both.into_iter().map(|(members, _)| members).collect();
        Ok(diff)
    }

    /// Does nothing open, and nothing close?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many Pods are compared: those that both worlds know.
    #[must_use]
    pub fn compared_pods(&self) -> usize {
        let pods = self.ends.iter().filter_map(|members| match members {
            Members::Pods(pods) => Some(pods.len()),
            Members::Host(_) | Members::Strangers(_) => None,
        });
        pods.sum()
    }

    /// All that is compared: Pods that both worlds know, the host, strangers.
    #[must_use]
    pub fn ends(&self) -> &[Members<'w>] {
        &self.ends
    }

    /// All changes in few rows, what opens first.
    #[must_use]
    pub fn rows(&self) -> Vec<Row<'_, 'w>> {
        let mut by_ports: BTreeMap<(Turn, Turned), Vec<(usize, usize)>> = BTreeMap::new();
        for change in &self.changes {
            for ports in self.turned(change) {
                by_ports
                    .entry((change.turn, ports))
                    .or_default()
                    .push((change.from, change.to));
            }
        }
        let mut rows: Vec<(Turn, Rectangle, Turned)> = Vec::new();
        for ((turn, ports), pairs) in by_ports {
            let found = cover(
                &pairs,
                |group| matches!(&self.ends[group], Members::Pods(pods) if pods.len() == 1),
            );
            rows.extend(found.into_iter().map(|lines| (turn, lines, ports)));
        }
        rows.sort_unstable();
        rows.into_iter()
            .map(|(turn, Rectangle { from, to }, ports)| Row {
                turn,
                from: from.into_iter().map(|group| &self.ends[group]).collect(),
                to: to.into_iter().map(|group| &self.ends[group]).collect(),
                ports,
            })
            .collect()
    }

    /// How many pairs of ends open or close.
    #[must_use]
    pub fn count(&self, turn: Turn) -> usize {
        let pairs = |change: &Change| {
            let to = self.ends[change.to].len() - usize::from(change.from == change.to);
            self.ends[change.from].len() * to
        };
        let of_turn = self.changes.iter().filter(|change| change.turn == turn);
        of_turn.map(pairs).sum()
    }

    /// Every pair that opens or closes, with its ports: sorted by sender's group, and no two alike
    /// but where the families differ.
    pub fn pairs(&self, turn: Turn) -> impl Iterator<Item = (End<'_>, End<'_>, Turned<'_>)> {
        let of_turn = self
            .changes
            .iter()
            .filter(move |change| change.turn == turn);
        of_turn.flat_map(move |change| {
            self.each(change.from).flat_map(move |from| {
                self.each(change.to)
                    .filter(move |to| *to != from)
                    .flat_map(move |to| self.turned(change).map(move |ports| (from, to, ports)))
            })
        })
    }

    /// Once where both families say the same, else for each that says something.
    fn turned(&self, change: &Change) -> impl Iterator<Item = Turned<'_>> {
        let alike = change.ports[0] == change.ports[1];
        let each = Family::BOTH.into_iter().zip(change.ports);
        each.take(if alike { 1 } else { 2 })
            .filter_map(move |(family, ports)| {
                Some(Turned {
                    ports: &self.sets[ports?],
                    family: (!alike).then_some(family),
                })
            })
    }

    fn each(&self, group: usize) -> Box<dyn Iterator<Item = End<'_>> + '_> {
        match &self.ends[group] {
            Members::Pods(pods) => Box::new(pods.iter().map(|name| End::Pod(name))),
            Members::Strangers(region) => Box::new(region.0.iter().map(End::Block)),
            Members::Host(addresses) => {
                let one = addresses.is_empty().then_some(End::Host(None));
                let each = addresses.iter().map(|address| End::Host(Some(*address)));
                Box::new(one.into_iter().chain(each))
            }
        }
    }
}

/// Everything that acts alike in the old world, and alike in the new one.
fn groups<'w>(worlds: &[Reach<'w>; 2], old: &'w World) -> Vec<Both<'w>> {
    let mut both: Vec<Both> = Vec::new();
    let mut known: HashMap<[Profile; 2], usize> = HashMap::new();
    for name in old.pods.keys() {
        let [Some(before), Some(after)] = [worlds[0].pod(name), worlds[1].pod(name)] else {
            continue;
        };
        let profiles = [before, after];
        let next = both.len();
        let group = *known.entry(profiles).or_insert(next);
        if group == next {
            both.push((Members::Pods(Vec::new()), profiles));
        }
        if let Members::Pods(pods) = &mut both[group].0 {
            pods.push(name);
        }
    }
    let [before, after] = worlds;
    let mut hosts = before.host_of_both(after);
    if let [(Members::Host(addresses), _)] = &mut hosts[..] {
        // One and the same wherever it is met: its addresses say nothing.
        addresses.clear();
    }
    both.extend(hosts);
    both.extend(before.strangers_of_both(after));
    both
}

/// What differs between each two of them.
fn changes(worlds: &[Reach; 2], groups: &[Both], sets: &mut Vec<PortSet>) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut memo: HashMap<[[usize; 2]; 2], [Option<usize>; 2]> = HashMap::new();
    let mut numbers: HashMap<PortSet, usize> = HashMap::new();
    let mut number = |set: PortSet| {
        (!set.is_empty()).then(|| {
            *numbers.entry(set).or_insert_with_key(|set| {
                sets.push(set.clone());
                sets.len() - 1
            })
        })
    };
    let is_pod = |members: &Members| matches!(members, Members::Pods(_));
    for (from, (senders, of_sender)) in groups.iter().enumerate() {
        for (to, (receivers, of_receiver)) in groups.iter().enumerate() {
            // No policy decides between the host and strangers.
            if (!is_pod(senders) && !is_pod(receivers)) || (from == to && senders.len() == 1) {
                continue;
            }
            let [old, new] =
                [0, 1].map(|side| worlds[side].by_family(of_sender[side], of_receiver[side]));
            let found = [0, 1].map(|family| {
                let (old, new) = (old[family], new[family]);
                *memo.entry([old.key(), new.key()]).or_insert_with(|| {
                    let (old, new) = (old.reachable(), new.reachable());
                    [new.difference(&old), old.difference(&new)].map(&mut number)
                })
            });
            for (index, turn) in [Turn::Opened, Turn::Closed].into_iter().enumerate() {
                let ports = found.map(|turns| turns[index]);
                if ports != [None; 2] {
                    changes.push(Change {
                        turn,
                        from,
                        to,
                        ports,
                    });
                }
            }
        }
    }
    changes
}

impl<N: Ord + Clone> Objects<N> {
    fn between<T: PartialEq>(old: &BTreeMap<N, T>, new: &BTreeMap<N, T>) -> Self {
        let only = |one: &BTreeMap<N, T>, other: &BTreeMap<N, T>| -> Vec<N> {
            one.keys()
                .filter(|name| !other.contains_key(name))
                .cloned()
                .collect()
        };
        let differ =
            |(name, object): &(&N, &T)| new.get(name).is_some_and(|other| other != *object);
        Self {
            added: only(new, old),
            removed: only(old, new),
            changed: old
                .iter()
                .filter(differ)
                .map(|(name, _)| name.clone())
                .collect(),
        }
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

/// Every namespace exists: one that has a manifest on one side only has changed, if its labels or
/// its mode have.
fn namespaces(old: &World, new: &World) -> Objects<String> {
    let names: BTreeSet<&String> = old.namespaces.keys().chain(new.namespaces.keys()).collect();
    let mut objects = Objects {
        added: Vec::new(),
        removed: Vec::new(),
        changed: Vec::new(),
    };
    for name in names {
        let seen = |world: &World| (world.namespace_labels(name), world.audited.contains(name));
        if seen(old) == seen(new) {
            continue;
        }
        let list = match (
            old.namespaces.contains_key(name),
            new.namespaces.contains_key(name),
        ) {
            (false, true) => &mut objects.added,
            (true, false) => &mut objects.removed,
            _ => &mut objects.changed,
        };
        list.push(name.clone());
    }
    objects
}

/// `namespace/name`, `host`, `host 172.17.0.1`, `10.0.0.0/8 except 10.1.0.0/16`.
impl fmt::Display for End<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => name.fmt(f),
            Self::Host(None) => f.write_str("host"),
            Self::Host(Some(address)) => write!(f, "host {address}"),
            Self::Block(block) => block.fmt(f),
        }
    }
}

/// `5432/TCP`, `IPv6: 5432/TCP, 53/UDP`.
impl fmt::Display for Turned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(family) = self.family {
            write!(f, "{family}: ")?;
        }
        self.ports.fmt(f)
    }
}

/// `{opened: [{from, to, ports}], closed: […], policies: {added, removed, changed}, pods, namespaces}`,
/// pair by pair; with `family` where the other one gets another answer.
impl Serialize for Diff<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("opened", &Pairs(self, Turn::Opened))?;
        map.serialize_entry("closed", &Pairs(self, Turn::Closed))?;
        map.serialize_entry("policies", &self.policies)?;
        map.serialize_entry("pods", &self.pods)?;
        map.serialize_entry("namespaces", &self.namespaces)?;
        map.serialize_entry("compared_pods", &self.compared_pods())?;
        map.end()
    }
}

/// Written one by one: there may be a million.
struct Pairs<'d, 'w>(&'d Diff<'w>, Turn);

impl Serialize for Pairs<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Pair<'a> {
            from: Shown<'a>,
            to: Shown<'a>,
            ports: &'a PortSet,
            #[serde(skip_serializing_if = "Option::is_none")]
            family: Option<Family>,
        }
        struct Shown<'a>(End<'a>);
        impl Serialize for Shown<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(&self.0)
            }
        }
        let pairs = self.0.pairs(self.1);
        serializer.collect_seq(pairs.map(|(from, to, ports)| Pair {
            from: Shown(from),
            to: Shown(to),
            ports: ports.ports,
            family: ports.family,
        }))
    }
}
