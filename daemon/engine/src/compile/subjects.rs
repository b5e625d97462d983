//! Subjects: which policies select each endpoint in a direction, and what their rules say
//! to it. Policies that select no endpoint of this host cost nothing after this.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use netpol_abi::tables::SUBJECT_NOT_ISOLATED;

use super::digest::{number, part};
use super::flatten::Range;
use super::peers::Atoms;
use super::{Names, RuleName, SubjectNames};
use crate::kinds::Kinds;
use crate::policy::{Action, Direction, Policy, Ports, Protocol, Tier};
use crate::tables::EndpointEntry;
use crate::world::{Place, Pod, World};

/// A port's name, as a rule gives it.
pub(super) type PortName<'w> = (Protocol, &'w str);

/// What names stand for at one Pod; those that it does not have are not in it.
pub(super) type Resolved<'w> = BTreeMap<PortName<'w>, u16>;

/// One policy in one direction.
pub(super) struct Part<'w> {
    pub policy: &'w Policy,
    pub direction: Direction,
    pub rules: Vec<PartRule<'w>>,
    digest: u128,
}

/// One rule of it.
pub(super) struct PartRule<'w> {
    pub action: Action,
    /// No peers: it is for any.
    pub any_peer: bool,
    /// No ports: it is for all, of every protocol.
    pub any_port: bool,
    /// Its peers, any of which may match.
    pub atoms: Vec<usize>,
    pub ranges: Vec<Range>,
    pub names: Vec<PortName<'w>>,
}

/// A set of policies in one direction, and what names of ports stand for at the endpoint.
pub(super) struct Subject<'w> {
    pub number: u64,
    pub direction: Direction,
    /// Some NetworkPolicy selects it.
    pub isolating: bool,
    /// Each with the number of its rules' predecessors.
    pub parts: Vec<(usize, u32)>,
    /// For ingress; the names of egress rules are looked up at the peer.
    pub ports: Resolved<'w>,
}

/// All that select some endpoint here.
pub(super) struct Subjects<'w> {
    pub parts: Vec<Part<'w>>,
    pub atoms: Atoms<'w>,
    pub all: Vec<Subject<'w>>,
    /// By slot.
    pub endpoints: BTreeMap<u32, EndpointEntry>,
}

impl<'w> Subjects<'w> {
    pub(super) fn of(world: &'w World, kinds: &Kinds<'w>) -> Self {
        let mut subjects = Self {
            parts: Vec::new(),
            atoms: Atoms::default(),
            all: Vec::new(),
            endpoints: BTreeMap::new(),
        };
        let selecting = subjects.select(world, kinds);
        let mut known = HashSet::new();
        for (kind, [ingress, egress]) in kinds.all.iter().zip(&selecting) {
            for (_, pod) in &kind.pods {
                let Place::Attached(attached) = &pod.place else {
                    continue;
                };
                let ports = subjects.resolve(ingress, pod);
                let (into, from) = (Direction::Ingress, Direction::Egress);
                let endpoint = EndpointEntry {
                    id: attached.id,
                    ingress: subjects.intern(&mut known, into, ingress, ports),
                    egress: subjects.intern(&mut known, from, egress, Resolved::new()),
                    revision: 0,
                };
                subjects.endpoints.insert(attached.slot, endpoint);
            }
        }
        subjects
    }

    /// The parts that select each kind, ingress and egress, in the order in which they are asked.
    fn select(&mut self, world: &'w World, kinds: &Kinds<'w>) -> Vec<[Vec<usize>; 2]> {
        let attached: Vec<bool> = kinds
            .all
            .iter()
            .map(|kind| {
                let mut places = kind.pods.iter().map(|(_, pod)| &pod.place);
                places.any(|place| matches!(place, Place::Attached(_)))
            })
            .collect();
        let mut selecting = vec![[Vec::new(), Vec::new()]; kinds.all.len()];
        let mut policies: Vec<&Policy> = world.policies.values().collect();
        policies.sort_by_key(|policy| (policy.tier, &policy.name));
        for policy in policies {
            let mut selected = kinds.select_in(&policy.name.namespace, &policy.subject);
            selected.retain(|kind| attached[*kind]);
            if selected.is_empty() {
                continue;
            }
            for (index, direction) in [Direction::Ingress, Direction::Egress]
                .into_iter()
                .enumerate()
            {
                let Some(part) = self.part(policy, direction) else {
                    continue;
                };
                self.parts.push(part);
                for kind in &selected {
                    selecting[*kind][index].push(self.parts.len() - 1);
                }
            }
        }
        selecting
    }

    fn part(&mut self, policy: &'w Policy, direction: Direction) -> Option<Part<'w>> {
        let rules = policy.rules(direction)?;
        let digest = part("policy", (&policy.name, policy.tier, direction, rules));
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
                        Ports::Named(name) => names.push((port.protocol, name.as_str())),
                    }
                }
                PartRule {
                    action: rule.action,
                    any_peer: rule.peers.is_empty(),
                    any_port: rule.ports.is_empty(),
                    atoms: self.atoms.of_rule(policy, (direction, index), &rule.peers),
                    ranges,
                    names,
                }
            })
            .collect();
        Some(Part {
            policy,
            direction,
            rules,
            digest,
        })
    }

    fn resolve(&self, parts: &[usize], pod: &Pod) -> Resolved<'w> {
        let named = parts
            .iter()
            .flat_map(|part| &self.parts[*part].rules)
            .flat_map(|rule| rule.names.iter().copied());
        resolve(named, pod)
    }

    fn intern(
        &mut self,
        known: &mut HashSet<u64>,
        direction: Direction,
        parts: &[usize],
        ports: Resolved<'w>,
    ) -> u64 {
        if parts.is_empty() {
            return SUBJECT_NOT_ISOLATED;
        }
        let digests: Vec<u128> = parts.iter().map(|part| self.parts[*part].digest).collect();
        let number = number("subject", (direction, digests, &ports));
        if !known.insert(number) {
            return number;
        }
        let mut before = 0;
        let mut isolating = false;
        let numbered = parts
            .iter()
            .map(|index| {
                let part = &self.parts[*index];
                isolating |= part.policy.tier == Tier::NetworkPolicy;
                let offset = before;
                before += part.rules.len() as u32;
                (*index, offset)
            })
            .collect();
        self.all.push(Subject {
            number,
            direction,
            isolating,
            parts: numbered,
            ports,
        });
        number
    }

    /// The names of ports that egress rules give.
    pub(super) fn egress_names(&self) -> BTreeSet<PortName<'w>> {
        self.parts
            .iter()
            .filter(|part| part.direction == Direction::Egress)
            .flat_map(|part| &part.rules)
            .flat_map(|rule| rule.names.iter().copied())
            .collect()
    }

    /// What the numbers of subjects and rules stand for.
    pub(super) fn names(&self) -> Names {
        let names = |subject: &Subject| {
            let mut policies = Vec::with_capacity(subject.parts.len());
            let mut rules = Vec::new();
            for (part, _) in &subject.parts {
                let Part {
                    policy, direction, ..
                } = self.parts[*part];
                policies.push(policy.name.clone());
                rules.extend((0..self.parts[*part].rules.len()).map(|rule| RuleName {
                    policy: policy.name.clone(),
                    direction,
                    rule,
                }));
            }
            let direction = subject.direction;
            let names = SubjectNames {
                direction,
                policies,
                rules,
            };
            (subject.number, names)
        };
        Names {
            subjects: self.all.iter().map(names).collect(),
        }
    }
}

/// What these names stand for at a Pod.
pub(super) fn resolve<'w>(names: impl Iterator<Item = PortName<'w>>, pod: &Pod) -> Resolved<'w> {
    if pod.ports.is_empty() {
        return Resolved::new();
    }
    names
        .filter_map(|(protocol, name)| Some(((protocol, name), pod.named_port(name, protocol)?)))
        .collect()
}
