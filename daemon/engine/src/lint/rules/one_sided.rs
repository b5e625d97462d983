//! `one-sided`: traffic that the rules of one side name and the policies of the other side deny.
//!
//! A peer with labels names those that it is for: each of them that can't be reached is found.
//! One without is wide on purpose, and found only where it opens nothing at all.

use std::collections::BTreeSet;

use super::Found;
use crate::lint::ground::{Ground, SIDES, Side};
use crate::lint::words;
use crate::policy::{Direction, ObjectName, Policy, Port, Ports, Rule};
use crate::reach::{PortSet, Profile, Reach};
use crate::world::Pod;

/// Pairs of groups of Pods that are tried for one peer.
const MAX_PAIRS: usize = 2_000;

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let Some(reach) = ground.reach() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for policy in ground.policies() {
        let selected = ends(ground, reach, ground.selected(policy));
        if selected.is_empty() {
            continue;
        }
        for at in Ground::rules_of(policy) {
            for (number, pods) in at.pods() {
                let pairs = Pairs {
                    side: at.side,
                    rule: at.rule,
                    selected: &selected,
                    peers: &ends(ground, reach, ground.groups.select(pods)),
                };
                let denied = if pods.pods.is_everything() {
                    pairs.all_denied(reach)
                } else {
                    pairs.denied(reach)
                };
                if !denied.is_empty() {
                    found.push(report(ground, policy, at.side, at.peer(number), &denied));
                }
            }
        }
    }
    found
}

/// One Pod, in place of all that have the same profile and named ports.
struct End<'w> {
    name: &'w ObjectName,
    pod: &'w Pod,
    profile: Profile,
}

/// One Pod for each profile and each list of named ports in these groups.
fn ends<'w>(ground: &Ground<'w>, reach: &Reach<'w>, groups: Vec<usize>) -> Vec<End<'w>> {
    let mut known = BTreeSet::new();
    groups
        .into_iter()
        .flat_map(|group| ground.group(group).pods.iter())
        .filter_map(|(name, pod)| {
            let profile = reach.pod(name)?;
            known
                .insert((profile, &pod.ports))
                .then_some(End { name, pod, profile })
        })
        .collect()
}

/// What a peer of a rule is about.
struct Pairs<'a, 'w> {
    side: Side,
    rule: &'a Rule,
    selected: &'a [End<'w>],
    peers: &'a [End<'w>],
}

/// Traffic that the other side denies.
struct Denied<'w> {
    from: &'w ObjectName,
    to: &'w ObjectName,
    ports: PortSet,
}

impl<'w> Pairs<'_, 'w> {
    fn each(&self) -> impl Iterator<Item = (&End<'w>, &End<'w>)> {
        self.selected
            .iter()
            .flat_map(|own| self.peers.iter().map(move |peer| (own, peer)))
            .filter(|(own, peer)| own.name != peer.name)
            .map(|(own, peer)| match self.side.direction {
                Direction::Egress => (own, peer),
                Direction::Ingress => (peer, own),
            })
    }

    /// Pairs with entries of the rule's ports of which the other side allows nothing.
    fn denied(&self, reach: &Reach) -> Vec<Denied<'w>> {
        let pairs = self.each().take(MAX_PAIRS);
        pairs
            .filter_map(|(from, to)| {
                let other = self.other(reach, from, to);
                if other.is_all() {
                    return None;
                }
                let denied = self
                    .entries(to.pod)
                    .filter(|entry| !entry.is_empty() && entry.is_disjoint(other))
                    .reduce(|sum, entry| sum.union(&entry))?;
                Some(Denied {
                    from: from.name,
                    to: to.name,
                    ports: denied,
                })
            })
            .collect()
    }

    /// The same, where there is no pair of which anything is allowed.
    fn all_denied(&self, reach: &Reach) -> Vec<Denied<'w>> {
        let opens = |(from, to): (&End, &End)| {
            let other = self.other(reach, from, to);
            let mut entries = self.entries(to.pod);
            entries.any(|entry| !entry.is_disjoint(other))
        };
        if self.each().take(MAX_PAIRS).any(opens) {
            return Vec::new();
        }
        self.denied(reach)
    }

    fn other<'r>(&self, reach: &'r Reach, from: &End, to: &End) -> &'r PortSet {
        let ports = reach.ports(from.profile, to.profile);
        match self.side.direction {
            Direction::Egress => ports.ingress,
            Direction::Ingress => ports.egress,
        }
    }

    /// What each entry of the rule's ports is at this destination.
    fn entries(&self, destination: &Pod) -> impl Iterator<Item = PortSet> {
        let everything = self.rule.ports.is_empty().then(PortSet::all);
        let stated = self.rule.ports.iter().map(|port| at(port, destination));
        everything.into_iter().chain(stated)
    }
}

fn at(port: &Port, destination: &Pod) -> PortSet {
    let range = |first, last| PortSet::range(port.protocol, first, last);
    match &port.ports {
        Ports::All => range(0, u16::MAX),
        Ports::Range(first, last) => range(*first, *last),
        Ports::Named(name) => destination
            .named_port(name, port.protocol)
            .map_or_else(PortSet::nothing, |number| range(number, number)),
    }
}

fn report<'w>(
    ground: &Ground<'w>,
    policy: &'w Policy,
    side: Side,
    field: String,
    denied: &[Denied<'w>],
) -> Found<'w> {
    let pairs = words::list(
        denied
            .iter()
            .map(|Denied { from, to, ports }| format!("{from} -> {to} {ports}")),
    );
    let (others, whose, direction) = match side.direction {
        Direction::Egress => (denied[0].to, "receiver", Direction::Ingress),
        Direction::Ingress => (denied[0].from, "sender", Direction::Egress),
    };
    let isolating = ground.isolating(others, direction);
    let [ingress, egress] = SIDES;
    let name = match direction {
        Direction::Ingress => ingress.rules,
        Direction::Egress => egress.rules,
    };
    Found {
        policy,
        field,
        message: format!("the {whose}'s {name} denies what this allows: {pairs}"),
        help: format!(
            "a connection needs both ends: allow it in the {name} of `{others}` too, isolated by {}",
            words::list(isolating.iter().map(|policy| format!("`{}`", policy.name)))
        ),
    }
}
