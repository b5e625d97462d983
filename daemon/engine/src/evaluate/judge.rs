//! One end's policies asked about one connection, rule by rule, as the API reads.
//!
//! Tiers: the rules of the admin tier in order, the first that matches decides (`Pass`
//! leaves the tier); then NetworkPolicy, final where one selects the Pod; then the baseline
//! tier like the first; then allowed.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use ipnet::IpNet;
use netpol_abi::Reason;

use super::endpoint_spec::End;
use crate::labels::Requirement;
use crate::policy::{
    Action, Direction, IpBlock, Namespaces, Peer, Policy, Port, Ports, Protocol, Rule, Tier,
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
    /// The reason of the verdict.
    pub reason: Reason,
    /// The rules that decided: policy, rule, peer.
    pub by: Vec<(&'p Policy, usize, Option<usize>)>,
}

/// A condition of a rule that a connection does not fulfil. A verdict asks whether there is
/// one, an explanation for all of them.
pub(crate) enum Unmet<'r> {
    /// The entry selects Pods, and the other end is none.
    Pod,
    /// The entry has no `namespaceSelector`: Pods of this Namespace alone.
    Namespace(&'r str),
    /// The labels of the other end's Namespace.
    NamespaceLabel(&'r Requirement),
    /// The other end's labels.
    PodLabel(&'r Requirement),
    /// The other end's address is not in this block, or not known.
    Block(&'r IpNet),
    /// It is, and in this part that is taken out of it.
    Except(&'r IpNet),
    /// Another protocol than this one.
    Protocol(Protocol),
    /// A port outside this range, whatever the protocol.
    Range(u16, u16),
    /// Another port than the one of this name and protocol at the destination.
    Name(&'r str, Protocol),
}

/// The policies that select a Pod in a direction, in the order in which they are asked, those
/// that are only audited among them.
pub(crate) fn selecting<'w>(world: &'w World, end: &End, direction: Direction) -> Vec<&'w Policy> {
    let Some((name, pod)) = end.pod.filter(|(_, pod)| pod.is_enforced()) else {
        return Vec::new();
    };
    let mut policies: Vec<&Policy> = world
        .policies
        .values()
        .map(Arc::as_ref)
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
            let peer = self.matched(rule)?;
            Some((policy, index, rule, peer))
        })
    }

    /// Does a rule match, and by which of its peers? `Some(None)`: it is for any.
    fn matched(&self, rule: &Rule) -> Option<Option<usize>> {
        let peer = if rule.peers.is_empty() {
            None
        } else {
            Some(rule.peers.iter().position(|peer| self.is_peer(peer))?)
        };
        self.has_port(rule).then_some(peer)
    }

    /// Does a rule match?
    pub(crate) fn matches(&self, rule: &Rule) -> bool {
        self.matched(rule).is_some()
    }

    /// Is the other end this peer?
    pub(crate) fn is_peer(&self, peer: &Peer) -> bool {
        self.ask_peer(peer, |_| ControlFlow::Break(()))
            .is_continue()
    }

    fn has_port(&self, rule: &Rule) -> bool {
        let is_port = |port| {
            self.ask_port(port, |_| ControlFlow::Break(()))
                .is_continue()
        };
        rule.ports.is_empty() || rule.ports.iter().any(is_port)
    }

    /// The conditions of a peer that the other end does not fulfil: none, and it is that peer.
    pub(crate) fn unmet<'r>(&self, peer: &'r Peer) -> Vec<Unmet<'r>> {
        let mut all = Vec::new();
        let _ = self.ask_peer(peer, |unmet| {
            all.push(unmet);
            ControlFlow::Continue(())
        });
        all
    }

    /// The conditions of a port that the connection does not fulfil.
    pub(crate) fn unmet_port<'r>(&self, port: &'r Port) -> Vec<Unmet<'r>> {
        let mut all = Vec::new();
        let _ = self.ask_port(port, |unmet| {
            all.push(unmet);
            ControlFlow::Continue(())
        });
        all
    }

    /// Asks a peer condition by condition; `each` is told those that do not hold, until it has
    /// heard enough. For one that stops at once this costs what a plain test would.
    fn ask_peer<'r>(
        &self,
        peer: &'r Peer,
        mut each: impl FnMut(Unmet<'r>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match peer {
            Peer::Pods(wanted) => {
                let Some((name, pod)) = self.peer.pod else {
                    return each(Unmet::Pod);
                };
                match &wanted.namespaces {
                    Namespaces::Own(own) if *own == name.namespace => {}
                    Namespaces::Own(own) => each(Unmet::Namespace(own))?,
                    Namespaces::Matching(selector) => {
                        for requirement in selector.unmet(&self.peer.namespace_labels) {
                            each(Unmet::NamespaceLabel(requirement))?;
                        }
                    }
                }
                for requirement in wanted.pods.unmet(&pod.labels) {
                    each(Unmet::PodLabel(requirement))?;
                }
            }
            Peer::Block(IpBlock { cidr, except }) => {
                let inside = self.peer_address.filter(|address| cidr.contains(address));
                let Some(address) = inside else {
                    return each(Unmet::Block(cidr));
                };
                for net in except.iter().filter(|net| net.contains(&address)) {
                    each(Unmet::Except(net))?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// As [`Self::ask_peer`], for a port.
    fn ask_port<'r>(
        &self,
        port: &'r Port,
        mut each: impl FnMut(Unmet<'r>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if port.protocol != self.protocol {
            each(Unmet::Protocol(port.protocol))?;
        }
        match &port.ports {
            Ports::All => {}
            Ports::Range(first, last) => {
                if !(*first..=*last).contains(&self.port) {
                    each(Unmet::Range(*first, *last))?;
                }
            }
            Ports::Named(name) => {
                let pod = self.destination;
                let there = pod.and_then(|pod| pod.named_port(name, port.protocol));
                if there != Some(self.port) {
                    each(Unmet::Name(name, port.protocol))?;
                }
            }
        }
        ControlFlow::Continue(())
    }
}
