//! Policies that select an endpoint of this host, in parts: one for each direction, each a
//! function of its policy alone. Policies that select nobody here have none, and cost no more
//! than that question.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::digest::part;
use super::flatten::Range;
use super::interned::Interned;
use super::peers::Atoms;
use crate::kinds::Kinds;
use crate::policy::{Action, Direction, ObjectName, Policy, Ports, Protocol, Tier};
use crate::world::{Pod, World};

/// A port's name, as a rule gives it.
pub(super) type PortName = (Protocol, Arc<str>);

/// What names stand for at one Pod; those that it does not have are not in it.
pub(super) type Resolved = BTreeMap<PortName, u16>;

/// Both directions, in the order of all pairs here.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// One policy in one direction.
#[derive(Debug)]
pub(super) struct Part {
    pub policy: ObjectName,
    pub tier: Tier,
    pub direction: Direction,
    pub rules: Vec<PartRule>,
}

/// One rule of it.
#[derive(Debug)]
pub(super) struct PartRule {
    pub action: Action,
    /// No peers: it is for any.
    pub any_peer: bool,
    /// No ports: it is for all, of every protocol.
    pub any_port: bool,
    /// Its peers, any of which may match.
    pub atoms: Vec<usize>,
    pub ranges: Vec<Range>,
    pub names: Vec<PortName>,
}

/// All parts, and where they come from.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub all: Interned<Part>,
    /// In the order of the policies in the world that they were last looked at in.
    policies: Vec<Selecting>,
    /// The kinds of that world, and whether any of them is an endpoint.
    kinds: Vec<(u128, bool)>,
}

/// What is known of one policy.
#[derive(Debug, Default)]
struct Selecting {
    /// Kinds of endpoints, ascending.
    kinds: Vec<usize>,
    /// Ingress and egress; `None`: it selects nobody.
    parts: Option<[Option<usize>; 2]>,
}

impl Parts {
    /// Brings the parts up to date: those of `before` are known.
    pub(super) fn update(
        &mut self,
        before: &World,
        world: &World,
        kinds: &Kinds,
        known_as: &[(u128, bool)],
        atoms: &mut Atoms,
    ) {
        let same_kinds = self.kinds == known_as;
        if !same_kinds {
            self.kinds = known_as.to_vec();
        }
        let known = std::mem::take(&mut self.policies);
        let mut known = before.policies.iter().zip(known).peekable();
        self.policies.reserve(world.policies.len());
        for (name, policy) in &world.policies {
            while known.next_if(|((other, _), _)| *other < name).is_some() {}
            let same = known
                .next_if(|((other, _), _)| *other == name)
                .filter(|((_, was), _)| *was == policy);
            let fresh = same.is_none() || !same_kinds;
            let mut selecting = same.map(|(_, selecting)| selecting).unwrap_or_default();
            if fresh {
                selecting.kinds = kinds.select_in(&policy.name.namespace, &policy.subject);
                selecting.kinds.retain(|kind| known_as[*kind].1);
            }
            if selecting.kinds.is_empty() {
                selecting.parts = None;
            } else if selecting.parts.is_none() {
                selecting.parts = Some(DIRECTIONS.map(|direction| {
                    let rules = policy.rules(direction)?;
                    let digest = part("policy", (&policy.name, policy.tier, direction, rules));
                    Some(self.all.find(digest).unwrap_or_else(|| {
                        let part = Part::of(policy, direction, atoms);
                        self.all.add(digest, part)
                    }))
                }));
            }
            self.policies.push(selecting);
        }
        let mut in_use = vec![false; self.all.bound()];
        for part in self.policies.iter().flat_map(Selecting::parts) {
            in_use[part] = true;
        }
        self.all.retain(|part| in_use[part]);
    }

    /// The parts that select each kind, ingress and egress, in the order in which they are asked.
    pub(super) fn selecting(&self) -> Vec<[Vec<usize>; 2]> {
        let mut selecting = vec![[Vec::new(), Vec::new()]; self.kinds.len()];
        // Within a tier by name, as the world has them.
        for tier in [Tier::Admin, Tier::NetworkPolicy, Tier::Baseline] {
            for policy in &self.policies {
                for (index, part) in policy.parts.into_iter().flatten().enumerate() {
                    let Some(part) = part.filter(|part| self.all[*part].tier == tier) else {
                        continue;
                    };
                    for kind in &policy.kinds {
                        selecting[*kind][index].push(part);
                    }
                }
            }
        }
        selecting
    }

    /// The names of ports that egress rules give.
    pub(super) fn egress_names(&self) -> BTreeSet<&PortName> {
        self.all
            .iter()
            .filter(|(_, part)| part.direction == Direction::Egress)
            .flat_map(|(_, part)| &part.rules)
            .flat_map(|rule| &rule.names)
            .collect()
    }
}

impl Selecting {
    fn parts(&self) -> impl Iterator<Item = usize> {
        self.parts.into_iter().flatten().flatten()
    }
}

impl Part {
    fn of(policy: &Policy, direction: Direction, atoms: &mut Atoms) -> Self {
        let rules = policy.rules(direction).unwrap_or_default();
        let rules = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| {
                let mut ranges = Vec::new();
                let mut names = Vec::new();
                for port in &rule.ports {
                    match &port.ports {
                        Ports::All => ranges.push((port.protocol, 0, u16::MAX)),
                        Ports::Range(first, last) => ranges.push((port.protocol, *first, *last)),
                        Ports::Named(name) => names.push((port.protocol, name.as_str().into())),
                    }
                }
                PartRule {
                    action: rule.action,
                    any_peer: rule.peers.is_empty(),
                    any_port: rule.ports.is_empty(),
                    atoms: atoms.of_rule(policy, (direction, index), &rule.peers),
                    ranges,
                    names,
                }
            })
            .collect();
        Self {
            policy: policy.name.clone(),
            tier: policy.tier,
            direction,
            rules,
        }
    }
}

/// What these names stand for at a Pod.
pub(super) fn resolve<'n>(names: impl Iterator<Item = &'n PortName>, pod: &Pod) -> Resolved {
    if pod.ports.is_empty() {
        return Resolved::new();
    }
    names
        .filter_map(|name| Some((name.clone(), pod.named_port(&name.1, name.0)?)))
        .collect()
}
