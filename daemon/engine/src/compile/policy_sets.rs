//! PolicySets: which policies select each endpoint in a direction, and what their rules say
//! to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use netpol_abi::tables::{BRIDGES, NOT_ISOLATED, endpoint_flags};

use super::group_delta::GroupDelta;
use super::numbers::{Collision, list, ports as named};
use super::parts::{Asked, DIRECTIONS, Parts, resolve};
use super::ports::Resolved;
use super::{PolicySetNames, RuleName};
use crate::policy::{Direction, Mode, Tier};
use crate::tables::{EndpointEntry, VerdictEntry};
use crate::world::{Attached, NamedPort, Place, Pod, World};

/// A set of policies in one direction, and what names of ports stand for at the endpoint.
#[derive(Debug)]
pub(super) struct PolicySet {
    pub direction: Direction,
    /// Some NetworkPolicy selects it.
    pub isolating: bool,
    /// Each with the number of its rules' predecessors.
    pub parts: Vec<(usize, u32)>,
    /// For ingress; the names of egress rules are looked up at the peer.
    pub ports: Resolved,
    /// The rules for any peer whose ports are the same for all peers.
    pub any_peer: Vec<u32>,
    /// What they say.
    pub any: Arc<VerdictEntry>,
    /// What its number and its rules' stand for.
    pub names: Arc<PolicySetNames>,
}

/// All that select some endpoint here.
#[derive(Debug, Default)]
pub(super) struct PolicySets {
    /// By number.
    pub all: BTreeMap<u64, PolicySet>,
    /// The numbers of those that were not there before.
    pub fresh: Vec<u64>,
    /// By slot.
    pub endpoints: BTreeMap<u32, EndpointEntry>,
    /// By group: what was found for its endpoints.
    known: Vec<Known>,
}

/// What is known of a group.
#[derive(Debug, Default)]
struct Known {
    /// The parts that select it.
    selecting: [Vec<Asked>; 2],
    /// PolicySets of its endpoints, by their ports.
    numbers: BTreeMap<Vec<NamedPort>, [Numbers; 2]>,
}

/// The policy sets of an endpoint in one direction.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    /// Of the policies that are enforced.
    enforced: u64,
    /// Of those and the ones that are audited.
    audited: u64,
}

impl PolicySets {
    /// Brings the policy sets up to date with the parts that select each group.
    ///
    /// # Errors
    /// Two policy sets have one number.
    pub(super) fn update(
        &mut self,
        world: &World,
        parts: &Parts,
        delta: &GroupDelta,
    ) -> Result<(), Collision> {
        let before = std::mem::take(self);
        let mut policy_sets = before.all;
        let groups = &delta.groups.all;
        let selecting = parts.selecting(groups.len()).into_iter();
        for ((group, selecting), known) in
            groups.iter().zip(selecting).zip(delta.carry(before.known))
        {
            let known = Some(known).filter(|known| known.selecting == selecting);
            let mut numbers = BTreeMap::new();
            let audit = if world.audited.contains(group.namespace) {
                endpoint_flags::AUDIT
            } else {
                0
            };
            for (_, pod) in &group.pods {
                let Place::Attached(attached) = &pod.place else {
                    continue;
                };
                let pair = match numbers.get(&pod.ports) {
                    Some(pair) => *pair,
                    None => {
                        let known = known.as_ref();
                        let known = known.and_then(|known| known.numbers.get(&pod.ports).copied());
                        let pair = match known {
                            Some(pair) => pair.map(|numbers| {
                                self.keep(numbers.enforced, &mut policy_sets);
                                self.keep(numbers.audited, &mut policy_sets);
                                numbers
                            }),
                            None => {
                                self.policy_set_numbers(parts, &selecting, pod, &mut policy_sets)?
                            }
                        };
                        numbers.insert(pod.ports.clone(), pair);
                        pair
                    }
                };
                let [ingress, egress] = pair;
                let endpoint = EndpointEntry {
                    id: attached.id,
                    ingress: ingress.enforced,
                    egress: egress.enforced,
                    audited_ingress: ingress.audited,
                    audited_egress: egress.audited,
                    flags: audit | on_wire(attached),
                    bridges: bridges(attached),
                    // Once there are verdicts.
                    asks: [0; 4],
                    revision: 0,
                };
                self.endpoints.insert(attached.slot, endpoint);
            }
            self.known.push(Known { selecting, numbers });
        }
        Ok(())
    }

    /// Keeps the policy set of a number for the next state. `before` has the policy sets that no endpoint has had there so far.
    fn keep(&mut self, number: u64, before: &mut BTreeMap<u64, PolicySet>) {
        if let Some(policy_set) = before.remove(&number) {
            self.all.insert(number, policy_set);
        }
    }

    fn policy_set_numbers(
        &mut self,
        parts: &Parts,
        selecting: &[Vec<Asked>; 2],
        pod: &Pod,
        before: &mut BTreeMap<u64, PolicySet>,
    ) -> Result<[Numbers; 2], Collision> {
        let mut numbers = |index: usize| {
            let asked = &selecting[index];
            let enforced = asked.iter().filter(|(_, mode)| *mode == Mode::Enforce);
            let enforced: Vec<usize> = enforced.map(|(part, _)| *part).collect();
            let all: Vec<usize> = asked.iter().map(|(part, _)| *part).collect();
            let mut number =
                |selecting: &[usize]| self.number(parts, DIRECTIONS[index], selecting, pod, before);
            let audited = number(&all)?;
            Ok(Numbers {
                enforced: if enforced.len() == all.len() {
                    audited
                } else {
                    number(&enforced)?
                },
                audited,
            })
        };
        Ok([numbers(0)?, numbers(1)?])
    }

    /// The number of the policy set of these parts at a Pod.
    fn number(
        &mut self,
        parts: &Parts,
        direction: Direction,
        selecting: &[usize],
        pod: &Pod,
        before: &mut BTreeMap<u64, PolicySet>,
    ) -> Result<u64, Collision> {
        if selecting.is_empty() {
            return Ok(NOT_ISOLATED);
        }
        let ports = match direction {
            Direction::Ingress => {
                let rules = selecting.iter().flat_map(|part| &parts.all[*part].rules);
                resolve(rules.flat_map(|rule| &rule.names), pod)
            }
            Direction::Egress => Resolved::new(),
        };
        let digest = |part: &usize| parts.all.digest(*part);
        let digests: Vec<u128> = selecting.iter().map(digest).collect();
        // The word is part of what is hashed: another one would change every number, and so the revision of every
        // endpoint, at an upgrade.
        let number = parts.key.number("subject", (direction, digests, &ports));
        match self.all.get(&number).or_else(|| before.get(&number)) {
            Some(known) if known.is(direction, selecting, &ports) => {
                self.keep(number, before);
            }
            Some(known) => {
                let fresh = PolicySet::new(parts, direction, selecting, ports);
                return Err(Collision {
                    sort: "policy set",
                    number,
                    things: [known.describe(), fresh.describe()],
                });
            }
            None => {
                let policy_set = PolicySet::new(parts, direction, selecting, ports);
                self.all.insert(number, policy_set);
                self.fresh.push(number);
            }
        }
        Ok(number)
    }
}

fn on_wire(attached: &Attached) -> u32 {
    if attached.on_wire {
        endpoint_flags::ON_WIRE
    } else {
        0
    }
}

/// Of more than there is room for the first.
fn bridges(attached: &Attached) -> [u32; BRIDGES] {
    let mut bridges = [0; BRIDGES];
    for (place, bridge) in bridges.iter_mut().zip(&attached.bridges) {
        *place = *bridge;
    }
    bridges
}

impl PolicySet {
    /// Does it stand for these parts and ports? A part's number stands for its content.
    fn is(&self, direction: Direction, selecting: &[usize], ports: &Resolved) -> bool {
        let parts = self.parts.iter().map(|(part, _)| part);
        self.direction == direction && self.ports == *ports && parts.eq(selecting)
    }

    fn describe(&self) -> String {
        let policies = self.names.policies.iter().map(ToString::to_string);
        format!(
            "{} by the policies {}{}",
            self.direction,
            list(policies),
            named(&self.ports)
        )
    }

    fn new(parts: &Parts, direction: Direction, selecting: &[usize], ports: Resolved) -> Self {
        let mut names = PolicySetNames {
            direction,
            policies: Vec::with_capacity(selecting.len()),
            rules: Vec::new(),
        };
        let mut isolating = false;
        let mut numbered = Vec::with_capacity(selecting.len());
        let mut any_peer = Vec::new();
        for number in selecting {
            let part = &parts.all[*number];
            isolating |= part.tier == Tier::NetworkPolicy;
            numbered.push((*number, names.rules.len() as u32));
            names.policies.push(part.policy.name.clone());
            for (rule, what) in part.rules.iter().enumerate() {
                names.rules.push(RuleName {
                    policy: part.policy.name.clone(),
                    direction,
                    rule,
                });
                if what.any_peer {
                    any_peer.push(names.rules.len() as u32);
                }
            }
        }
        let mut policy_set = Self {
            direction,
            isolating,
            parts: numbered,
            ports,
            any_peer,
            any: Arc::default(),
            names: Arc::new(names),
        };
        policy_set.any = Arc::new(policy_set.entry(parts, &[], &Resolved::new()));
        policy_set
    }
}
