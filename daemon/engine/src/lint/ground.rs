//! What the rules look at: the policies by Namespace, and the Pods by group, each
//! worked out once.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Census, within, words};
use crate::evaluate::is_link_local;
use crate::labels::{Labels, Operator, Selector};
use crate::pod_groups::{PodGroup, PodGroups};
use crate::policy::{
    Direction, IpBlock, Mode, Namespaces, ObjectName, Peer, PodPeer, Policy, Rule, Tier,
};
use crate::reach::Reach;
use crate::world::{Pod, World};

/// The world as rules ask for it.
pub(super) struct Ground<'w> {
    pub world: &'w World,
    pub census: Census,
    pub groups: PodGroups<'w>,
    /// Of the NetworkPolicy tier, by Namespace.
    policies: BTreeMap<&'w str, Neighbours<'w>>,
    addresses: OnceCell<Vec<(IpAddr, &'w ObjectName)>>,
    reach: OnceCell<Option<Reach<'w>>>,
    namespaces: OnceCell<BTreeMap<&'w str, Labels>>,
}

/// The policies of one Namespace.
pub(super) struct Neighbours<'w> {
    pub policies: Vec<&'w Policy>,
    /// By a requirement that their subject has: what a subject within it must have too. The
    /// key's value, or none for other operators and more values.
    by_requirement: HashMap<(&'w str, Option<&'w str>), Vec<usize>>,
    /// Those that select every Pod.
    of_all: Vec<usize>,
}

/// One of a policy's two lists of rules.
#[derive(Clone, Copy)]
pub(super) struct Side {
    pub direction: Direction,
    /// The list's field.
    pub rules: &'static str,
    /// A rule's field of peers.
    pub peers: &'static str,
}

/// Both.
pub(super) const SIDES: [Side; 2] = [
    Side {
        direction: Direction::Ingress,
        rules: "ingress",
        peers: "from",
    },
    Side {
        direction: Direction::Egress,
        rules: "egress",
        peers: "to",
    },
];

impl Side {
    /// `spec.egress[0]`
    pub(super) fn rule(self, rule: usize) -> String {
        format!("spec.{}[{rule}]", self.rules)
    }

    /// `spec.egress[0].to[1]`
    pub(super) fn peer(self, rule: usize, peer: usize) -> String {
        format!("spec.{}[{rule}].{}[{peer}]", self.rules, self.peers)
    }

    /// A policy's rules, numbered.
    pub(super) fn numbered_rules(self, policy: &Policy) -> impl Iterator<Item = (usize, &Rule)> {
        let rules = policy.rules(self.direction).unwrap_or_default();
        rules.iter().enumerate()
    }
}

/// One rule of one policy, and where it stands.
#[derive(Clone, Copy)]
pub(super) struct RuleAt<'w> {
    pub policy: &'w Policy,
    pub side: Side,
    pub index: usize,
    pub rule: &'w Rule,
}

impl<'w> RuleAt<'w> {
    /// Its field.
    pub(super) fn field(self) -> String {
        self.side.rule(self.index)
    }

    /// The field of one of its peers.
    pub(super) fn peer(self, number: usize) -> String {
        self.side.peer(self.index, number)
    }

    /// Its peers that are Pods by label, numbered among all.
    pub(super) fn pods(self) -> impl Iterator<Item = (usize, &'w PodPeer)> {
        let peers = self.rule.peers.iter().enumerate();
        peers.filter_map(|(number, peer)| match peer {
            Peer::Pods(pods) => Some((number, pods)),
            Peer::Block(_) => None,
        })
    }

    /// Its peers that are blocks, numbered among all.
    pub(super) fn blocks(self) -> impl Iterator<Item = (usize, &'w IpBlock)> {
        let peers = self.rule.peers.iter().enumerate();
        peers.filter_map(|(number, peer)| match peer {
            Peer::Block(block) => Some((number, block)),
            Peer::Pods(_) => None,
        })
    }
}

impl<'w> Ground<'w> {
    pub(super) fn new(world: &'w World, census: Census) -> Self {
        let mut policies: BTreeMap<&str, Vec<&Policy>> = BTreeMap::new();
        for policy in world.policies.values() {
            if policy.tier == Tier::NetworkPolicy {
                let namespace = policy.name.namespace.as_str();
                policies.entry(namespace).or_default().push(policy);
            }
        }
        Self {
            world,
            census,
            groups: PodGroups::group(world),
            policies: policies
                .into_iter()
                .map(|(namespace, policies)| (namespace, Neighbours::new(policies)))
                .collect(),
            addresses: OnceCell::new(),
            reach: OnceCell::new(),
            namespaces: OnceCell::new(),
        }
    }

    /// Are there Pods to hold policies against? External ones alone are none: the host's
    /// resolvers are always there.
    pub(super) fn has_pods(&self) -> bool {
        self.world.pods.values().any(Pod::is_enforced)
    }

    /// All policies.
    pub(super) fn policies(&self) -> impl Iterator<Item = &'w Policy> {
        self.policies
            .values()
            .flat_map(|neighbours| neighbours.policies.iter().copied())
    }

    /// All their rules.
    pub(super) fn rules(&self) -> impl Iterator<Item = RuleAt<'w>> {
        self.policies().flat_map(Self::rules_of)
    }

    /// The rules of one.
    pub(super) fn rules_of(policy: &'w Policy) -> impl Iterator<Item = RuleAt<'w>> {
        SIDES.into_iter().flat_map(move |side| {
            side.numbered_rules(policy)
                .map(move |(index, rule)| RuleAt {
                    policy,
                    side,
                    index,
                    rule,
                })
        })
    }

    /// Those of a Namespace, by name.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Neighbours<'w>> {
        self.policies.values()
    }

    /// The groups of Pods here that a policy selects.
    pub(super) fn selected(&self, policy: &Policy) -> Vec<usize> {
        let mut selected = self
            .groups
            .select_in(&policy.name.namespace, &policy.subject);
        selected.retain(|group| self.is_enforced(*group));
        selected
    }

    /// Is some Pod of this group on this host?
    pub(super) fn is_enforced(&self, group: usize) -> bool {
        self.group(group)
            .pods
            .iter()
            .any(|(_, pod)| pod.is_enforced())
    }

    pub(super) fn group(&self, group: usize) -> &PodGroup<'w> {
        &self.groups.all[group]
    }

    /// Names of Pods of these groups, sorted.
    pub(super) fn names(&self, groups: &[usize]) -> Vec<&'w ObjectName> {
        let mut names: Vec<&ObjectName> = groups
            .iter()
            .flat_map(|group| self.group(*group).pods.iter().map(|(name, _)| *name))
            .collect();
        names.sort_unstable();
        names
    }

    /// The pairs of Pods between which a rule with these peers stands, in the order of traffic.
    pub(super) fn pairs(&self, side: Side, policy: &Policy, peers: &[usize]) -> String {
        let (own, peers) = (self.names(&self.selected(policy)), self.names(peers));
        match side.direction {
            Direction::Ingress => words::pairs(&peers, &own),
            Direction::Egress => words::pairs(&own, &peers),
        }
    }

    /// What each end reaches; `None` where the policies make more verdicts than could ever be in force.
    pub(super) fn reach(&self) -> Option<&Reach<'w>> {
        self.reach
            .get_or_init(|| Reach::compute(self.world).ok())
            .as_ref()
    }

    /// The policies that isolate a Pod in one direction.
    pub(super) fn isolating(&self, name: &ObjectName, direction: Direction) -> Vec<&'w ObjectName> {
        let neighbours = self.policies.get(name.namespace.as_str());
        let policies = neighbours.into_iter().flat_map(|all| &all.policies);
        let labels = &self.world.pods[name].labels;
        policies
            .filter(|policy| {
                self.world.enforces(policy)
                    && policy.rules(direction).is_some()
                    && policy.subject.matches(labels)
            })
            .map(|policy| &policy.name)
            .collect()
    }

    /// The groups that one peer matches by labels; none for a block.
    pub(super) fn peers(&self, peer: &Peer) -> Vec<usize> {
        match peer {
            Peer::Pods(pods) => self.groups.select(pods),
            Peer::Block(_) => Vec::new(),
        }
    }

    /// The Pods on this host whose addresses are in a block, at most `most` of them.
    pub(super) fn covered(&self, block: &IpBlock, most: usize) -> BTreeSet<&'w ObjectName> {
        let addresses = self.addresses.get_or_init(|| {
            let pods = self.world.pods.iter().filter(|(_, pod)| pod.is_enforced());
            let mut all: Vec<_> = pods
                .flat_map(|(name, pod)| pod.addresses.iter().map(move |address| (*address, name)))
                .filter(|(address, _)| !is_link_local(address))
                .collect();
            all.sort_unstable();
            all
        });
        let first = addresses.partition_point(|(address, _)| *address < block.cidr.network());
        let mut found = BTreeSet::new();
        for (address, name) in &addresses[first..] {
            if !block.cidr.contains(address) || found.len() >= most {
                break;
            }
            if !block.except.iter().any(|net: &IpNet| net.contains(address)) {
                found.insert(*name);
            }
        }
        found
    }

    /// Every Namespace that is known, with its labels: it has a manifest, a Pod or a policy.
    pub(super) fn namespaces_known(&self) -> &BTreeMap<&'w str, Labels> {
        self.namespaces.get_or_init(|| {
            let world = self.world;
            let pods = world.pods.keys().map(|name| name.namespace.as_str());
            let policies = self.policies.keys().copied();
            pods.chain(world.namespaces.keys().map(String::as_str))
                .chain(policies)
                .map(|name| (name, world.namespace_labels(name)))
                .collect()
        })
    }

    /// The Namespaces of a peer, where they are told by their labels and none has them.
    pub(super) fn matches_no_namespace<'p>(
        &self,
        namespaces: &'p Namespaces,
    ) -> Option<&'p Selector> {
        let Namespaces::Matching(selector) = namespaces else {
            return None;
        };
        let mut labels = self.namespaces_known().values();
        (!labels.any(|labels| selector.matches(labels))).then_some(selector)
    }
}

/// Is a policy in force whenever another one of its Namespace is? One that is only audited does
/// nothing for one that is enforced.
pub(super) fn holds_beside(policy: &Policy, other: &Policy) -> bool {
    policy.mode == Mode::Enforce || other.mode == Mode::Audit
}

impl<'w> Neighbours<'w> {
    fn new(policies: Vec<&'w Policy>) -> Self {
        let mut by_requirement: HashMap<_, Vec<usize>> = HashMap::new();
        let mut of_all = Vec::new();
        for (index, policy) in policies.iter().enumerate() {
            match policy.subject.requirements().next() {
                None => of_all.push(index),
                Some(requirement) => {
                    let value = match &requirement.operator {
                        Operator::In(values) if values.len() == 1 => values.first(),
                        _ => None,
                    };
                    let key = (requirement.key.as_str(), value.map(String::as_str));
                    by_requirement.entry(key).or_default().push(index);
                }
            }
        }
        Self {
            policies,
            by_requirement,
            of_all,
        }
    }

    /// The others, by index, that select whatever this one selects, and hold where it does;
    /// ascending.
    pub(super) fn around(&self, index: usize) -> Vec<usize> {
        let policy = self.policies[index];
        let mut candidates: Vec<usize> = self.of_all.clone();
        for requirement in policy.subject.requirements() {
            let key = requirement.key.as_str();
            let mut add = |value| {
                candidates.extend(self.by_requirement.get(&(key, value)).into_iter().flatten());
            };
            add(None);
            if let Operator::In(values) = &requirement.operator
                && values.len() == 1
            {
                add(values.first().map(String::as_str));
            }
        }
        candidates.sort_unstable();
        candidates.retain(|other| {
            let other_policy = self.policies[*other];
            *other != index
                && holds_beside(other_policy, policy)
                && within::selector(&policy.subject, &other_policy.subject)
        });
        candidates
    }
}
