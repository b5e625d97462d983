//! One end's policies asked about one connection, rule by rule, as the API reads.
//!
//! Tiers: the rules of the admin tier in order, the first that matches decides (`Pass`
//! leaves the tier); then NetworkPolicy, final where one selects the Pod; then the baseline
//! tier like the first; then allowed.

use std::net::IpAddr;

use netpol_abi::Reason;

use super::party::End;
use crate::policy::{
    Action, Direction, IpBlock, Namespaces, Peer, Policy, Ports, Protocol, Rule, Tier,
};
use crate::world::{Pod, World};

/// What is asked of one end.
pub(crate) struct Question<'a> {
    /// Which of the end's rules are asked.
    pub direction: Direction,
    /// The other end.
    pub peer: &'a End<'a>,
    /// The other end's address.
    pub peer_address: Option<IpAddr>,
    /// The destination, where it is a Pod: names of ports are looked up there.
    pub destination: Option<&'a Pod>,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Destination port.
    pub port: u16,
}

/// One end's answer.
pub(crate) struct Answer<'p> {
    /// Why.
    pub reason: Reason,
    /// The rules that decided: policy, rule, peer.
    pub by: Vec<(&'p Policy, usize, Option<usize>)>,
}

/// The policies that select a Pod in a direction, in the order in which they are asked.
pub(crate) fn selecting<'w>(world: &'w World, end: &End, direction: Direction) -> Vec<&'w Policy> {
    let Some((name, pod)) = end.pod.filter(|(_, pod)| pod.is_enforced()) else {
        return Vec::new();
    };
    let mut policies: Vec<&Policy> = world
        .policies
        .values()
        .filter(|policy| {
            policy.name.namespace == name.namespace
                && policy.rules(direction).is_some()
                && policy.subject.matches(&pod.labels)
        })
        .collect();
    policies.sort_by_key(|policy| (policy.tier, &policy.name));
    policies
}

impl Question<'_> {
    /// Asks the policies that select the end.
    pub(crate) fn ask<'p>(&self, policies: &[&'p Policy]) -> Answer<'p> {
        if policies.is_empty() {
            return Answer {
                reason: Reason::NotIsolated,
                by: Vec::new(),
            };
        }
        if let Some(answer) = self.first_match(policies, Tier::Admin) {
            return answer;
        }
        let of_tier = |policy: &&&Policy| policy.tier == Tier::NetworkPolicy;
        if policies.iter().any(|policy| of_tier(&policy)) {
            let by: Vec<_> = policies
                .iter()
                .filter(of_tier)
                .flat_map(|policy| self.matching(policy))
                .map(|(policy, index, _, peer)| (policy, index, peer))
                .collect();
            let reason = if by.is_empty() {
                Reason::PolicyDenied
            } else {
                Reason::RuleAllowed
            };
            return Answer { reason, by };
        }
        self.first_match(policies, Tier::Baseline)
            .unwrap_or(Answer {
                reason: Reason::RuleAllowed,
                by: Vec::new(),
            })
    }

    fn first_match<'p>(&self, policies: &[&'p Policy], tier: Tier) -> Option<Answer<'p>> {
        let (policy, index, rule, peer) = policies
            .iter()
            .filter(|policy| policy.tier == tier)
            .flat_map(|policy| self.matching(policy))
            .next()?;
        let reason = match rule.action {
            Action::Allow => Reason::RuleAllowed,
            Action::Deny => Reason::PolicyDenied,
            Action::Pass => return None,
        };
        Some(Answer {
            reason,
            by: vec![(policy, index, peer)],
        })
    }

    /// A policy's rules that match: index, rule, and the first peer that does.
    fn matching<'p>(
        &self,
        policy: &'p Policy,
    ) -> impl Iterator<Item = (&'p Policy, usize, &'p Rule, Option<usize>)> {
        let rules = policy.rules(self.direction).unwrap_or_default();
        rules.iter().enumerate().filter_map(move |(index, rule)| {
            let peer = if rule.peers.is_empty() {
                None
            } else {
                Some(rule.peers.iter().position(|peer| self.is_peer(peer))?)
            };
            self.has_port(rule).then_some((policy, index, rule, peer))
        })
    }

    fn is_peer(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Pods(pods) => self.peer.pod.is_some_and(|(name, pod)| {
                let here = match &pods.namespaces {
                    Namespaces::Own(own) => *own == name.namespace,
                    Namespaces::Matching(selector) => selector.matches(&self.peer.namespace_labels),
                };
                here && pods.pods.matches(&pod.labels)
            }),
            Peer::Block(IpBlock { cidr, except }) => self.peer_address.is_some_and(|address| {
                cidr.contains(&address) && !except.iter().any(|net| net.contains(&address))
            }),
        }
    }

    fn has_port(&self, rule: &Rule) -> bool {
        rule.ports.is_empty()
            || rule.ports.iter().any(|port| {
                port.protocol == self.protocol
                    && match &port.ports {
                        Ports::All => true,
                        Ports::Range(first, last) => (*first..=*last).contains(&self.port),
                        Ports::Named(name) => self.destination.is_some_and(|pod| {
                            pod.named_port(name, self.protocol) == Some(self.port)
                        }),
                    }
            })
    }
}
