//! Policies that select an endpoint of this host, in parts: one for each direction, each a
//! function of its policy alone. Policies that select no Pod here have none, and cost no more
//! than that question.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::flatten::Range;
use super::group_delta::GroupDelta;
use super::interned::Interned;
use super::numbers::NumberKey;
use super::peers::Atoms;
use super::ports::{PortName, Resolved};
use crate::policy::{Action, Direction, Mode, Policy, Ports, Tier};
use crate::world::{Pod, World};

/// A part that selects a group. The mode is its policy's, and no part of what it says.
pub(super) type Asked = (usize, Mode);

/// Both directions, in the order of all pairs here.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Ingress, Direction::Egress];

/// One policy in one direction.
#[derive(Debug)]
pub(super) struct Part {
    /// The policy, or one that says the same under the same name.
    pub policy: Arc<Policy>,
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
    pub key: NumberKey,
    pub all: Interned<Part>,
    /// The names of ports that egress rules give.
    pub egress_names: BTreeSet<PortName>,
    /// In the order of the policies in the world that they were last looked at in.
    policies: Vec<Selecting>,
}

/// What is known of one policy.
#[derive(Debug)]
struct Selecting {
    tier: Tier,
    mode: Mode,
    /// The groups of endpoints that the policy selects, ascending.
    groups: Vec<usize>,
    /// Ingress and egress; `None`: it selects no Pod.
    parts: Option<[Option<usize>; 2]>,
}

impl Parts {
    /// Brings the parts up to date: those of `before` are known.
    pub(super) fn update(
        &mut self,
        before: &World,
        world: &World,
        delta: &GroupDelta,
        atoms: &mut Atoms,
    ) {
        let known = std::mem::take(&mut self.policies);
        let mut known = before.policies.iter().zip(known).peekable();
        let mut policies = Vec::with_capacity(world.policies.len());
        // A part that one version of a policy leaves may be the next version's too.
        let (mut left, mut made) = (BTreeSet::new(), Vec::new());
        for (name, policy) in &world.policies {
            let mut same = None;
            while let Some(((other, was), selecting)) =
                known.next_if(|((other, _), _)| *other <= name)
            {
                if other == name && was == policy {
                    same = Some(selecting);
                } else {
                    left.extend(selecting.parts());
                }
            }
            let (namespace, policy_set) = (&policy.name.namespace, &policy.subject);
            let mut selecting = match same {
                Some(mut selecting) => {
                    delta.select_again(&mut selecting.groups, namespace, policy_set);
                    selecting
                }
                None => Selecting {
                    tier: policy.tier,
                    mode: policy.mode,
                    groups: delta.select(namespace, policy_set),
                    parts: None,
                },
            };
            if selecting.groups.is_empty() {
                left.extend(selecting.parts());
                selecting.parts = None;
            } else if selecting.parts.is_none() {
                let parts = DIRECTIONS.map(|direction| self.part(policy, direction, atoms));
                selecting.parts = Some(parts);
                made.extend(selecting.parts());
            }
            policies.push(selecting);
        }
        left.extend(known.flat_map(|(_, selecting)| selecting.parts()));
        self.policies = policies;

        let mut names_differ = false;
        for part in made {
            left.remove(&part);
            names_differ |= self.all[part].has_egress_names();
        }
        for part in left {
            let part = self.all.remove(part);
            names_differ |= part.has_egress_names();
            part.rules
                .iter()
                .for_each(|rule| atoms.release(&rule.atoms));
        }
        if names_differ {
            let parts = self.all.iter().map(|(_, part)| part);
            self.egress_names = parts
                .filter(|part| part.direction == Direction::Egress)
                .flat_map(|part| &part.rules)
                .flat_map(|rule| rule.names.iter().cloned())
                .collect();
        }
    }

    fn part(
        &mut self,
        policy: &Arc<Policy>,
        direction: Direction,
        atoms: &mut Atoms,
    ) -> Option<usize> {
        let rules = policy.rules(direction)?;
        let content = (&policy.name, policy.tier, direction, rules);
        let digest = self.key.digest("policy", content);
        let same = |part: &Part| {
            let Part { policy, tier, .. } = part;
            let rules = policy.rules(part.direction);
            rules.is_some_and(|rules| (&policy.name, *tier, part.direction, rules) == content)
        };
        Some(self.all.find(digest, same).unwrap_or_else(|| {
            let part = Part::from_policy(policy, direction, atoms);
            self.all.add(digest, part)
        }))
    }

    /// The parts that select each of this many groups, ingress and egress, in the order in which
    /// they are asked.
    pub(super) fn selecting(&self, groups: usize) -> Vec<[Vec<Asked>; 2]> {
        let mut selecting = vec![[Vec::new(), Vec::new()]; groups];
        // Within a tier by name, as the world has them.
        for tier in [Tier::Admin, Tier::NetworkPolicy, Tier::Baseline] {
            for policy in self.policies.iter().filter(|policy| policy.tier == tier) {
                for (index, part) in policy.parts.into_iter().flatten().enumerate() {
                    let Some(part) = part else { continue };
                    for group in &policy.groups {
                        selecting[*group][index].push((part, policy.mode));
                    }
                }
            }
        }
        selecting
    }
}

impl Selecting {
    fn parts(&self) -> impl Iterator<Item = usize> + use<> {
        self.parts.into_iter().flatten().flatten()
    }
}

impl Part {
    fn has_egress_names(&self) -> bool {
        let mut names = self.rules.iter().flat_map(|rule| &rule.names);
        self.direction == Direction::Egress && names.next().is_some()
    }

    fn from_policy(policy: &Arc<Policy>, direction: Direction, atoms: &mut Atoms) -> Self {
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
            policy: Arc::clone(policy),
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
