//! What came closest: rules ordered by how much of them does not hold.
//!
//! The cost of a condition says how likely it is the mistake: a slip costs least, a peer of
//! another kind most. Only its order matters, and nothing but the order of what is said
//! follows from it.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use super::fix::Miss;
use super::suggest::is_denied_by_a_rule;
use super::{
    AlmostSelects, Case, Fix, LabelMissed, Missed, NotSelected, PolicyAnswer, RuleAnswer,
    Suggestion,
};
use crate::evaluate::{self, Question};
use crate::policy::{Action, Direction, ObjectName, Policy, Rule, Tier};

/// The rule that came closest, by the peer and the port of it that did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// The policy.
    pub policy: ObjectName,
    /// The rule.
    pub rule: usize,
    /// The entry of its `from` or `to`; `None`: it is for any peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<usize>,
    /// The entry of its `ports`; `None`: it is for any port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<usize>,
    /// Why the policy does not select this end; `None`: it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_selected: Option<NotSelected>,
    /// What does not hold of that peer and port.
    pub missed: Vec<Missed>,
    /// A change of a word that would mend it.
    #[serde(rename = "mend", skip_serializing_if = "Option::is_none")]
    pub fix: Option<Fix>,
}

impl Nearest {
    /// The closest rule of the policies in force that select an end, or all but do.
    pub(super) fn find(
        case: &Case,
        direction: Direction,
        policies: &[PolicyAnswer],
        almost: &[AlmostSelects],
        verdict: &evaluate::Side,
        suggestion: Option<&Suggestion>,
    ) -> Option<Self> {
        let question = case.connection.question(direction);
        let of_world = |name: &ObjectName| {
            let policy = case.world.policies.get(name).map(Arc::as_ref);
            policy
                .filter(|policy| policy.tier == Tier::NetworkPolicy && case.world.enforces(policy))
        };
        let (_, policy, rule, nearest) = selecting(&question, policies, &of_world)
            .chain(not_selecting(&question, almost, &of_world))
            .min_by_key(|(cost, ..)| *cost)?;
        let miss = Miss {
            case,
            question,
            policy,
            rule,
            nearest: &nearest,
            suggestion,
        };
        let may_help = !is_denied_by_a_rule(verdict);
        let fix = may_help.then(|| miss.fix()).flatten();
        Some(Self { fix, ..nearest })
    }
}

type Candidate<'w> = (u32, &'w Policy, &'w Rule, Nearest);

fn selecting<'w>(
    question: &Question,
    policies: &[PolicyAnswer],
    of_world: &impl Fn(&ObjectName) -> Option<&'w Policy>,
) -> impl Iterator<Item = Candidate<'w>> {
    let direction = question.direction;
    policies.iter().flat_map(move |answer| {
        let policy = of_world(&answer.policy);
        answer.rules.iter().filter_map(move |rule| {
            let policy = policy?;
            let written = policy.rules(direction)?.get(rule.rule)?;
            if written.action != Action::Allow {
                return None;
            }
            let (peer, of_peer) = rule.closest_peer();
            let (port, of_port) = rule.closest_port();
            let nearest = Nearest {
                policy: answer.policy.clone(),
                rule: rule.rule,
                peer,
                port,
                not_selected: None,
                missed: of_peer.iter().chain(of_port).cloned().collect(),
                fix: None,
            };
            Some((rule.cost(), policy, written, nearest))
        })
    })
}

/// Policies that would allow it, did they select the end.
fn not_selecting<'w>(
    question: &Question,
    almost: &[AlmostSelects],
    of_world: &impl Fn(&ObjectName) -> Option<&'w Policy>,
) -> impl Iterator<Item = Candidate<'w>> {
    let direction = question.direction;
    almost.iter().filter_map(move |almost| {
        let policy = of_world(&almost.policy)?;
        let rule = almost.rule?;
        let written = policy.rules(direction)?.get(rule)?;
        let nearest = Nearest {
            policy: almost.policy.clone(),
            rule,
            peer: None,
            port: None,
            not_selected: Some(almost.missed.clone()),
            missed: Vec::new(),
            fix: None,
        };
        Some((almost.missed.cost(), policy, written, nearest))
    })
}

impl RuleAnswer {
    /// How far it is from matching; only its order means something.
    #[must_use]
    pub fn cost(&self) -> u32 {
        sum(self.closest_peer().1) + sum(self.closest_port().1)
    }

    /// The peer that came closest, and what does not hold of it.
    fn closest_peer(&self) -> (Option<usize>, &[Missed]) {
        let closest = self.peers.iter().min_by_key(|peer| sum(&peer.missed));
        closest.map_or((None, &[]), |peer| (Some(peer.peer), &peer.missed))
    }

    /// The port that came closest, and what does not hold of it.
    fn closest_port(&self) -> (Option<usize>, &[Missed]) {
        let closest = self.ports.iter().min_by_key(|port| sum(&port.missed));
        closest.map_or((None, &[]), |port| (Some(port.port), &port.missed))
    }
}

/// What a list of conditions costs together.
fn sum(missed: &[Missed]) -> u32 {
    missed.iter().map(Missed::cost).sum()
}

impl Missed {
    /// How far this condition is from holding; only its order means something.
    #[must_use]
    pub fn cost(&self) -> u32 {
        match self {
            // The two mistakes that are made most: a selector left out, a protocol left out.
            Self::OtherNamespace { .. } | Self::Protocol { .. } => 2,
            Self::PortName { .. } | Self::Port { .. } => 3,
            Self::NamespaceLabel { label, .. } | Self::PodLabel { label } => label.cost(),
            Self::InExcept { .. } => 4,
            Self::OutsideBlock { cidr, address } if is_neighbour(cidr, *address) => 5,
            Self::OutsideBlock { .. } => 8,
            Self::NotAPod { .. } => 10,
        }
    }
}

/// Is an address in a block's neighbourhood, so that the prefix may be the mistake? 8 bits
/// are what people write prefixes in.
fn is_neighbour(cidr: &IpNet, address: Option<IpAddr>) -> bool {
    let wider = cidr.prefix_len().saturating_sub(8);
    let around = IpNet::new(cidr.addr(), wider);
    wider > 0 && address.is_some_and(|address| around.is_ok_and(|net| net.contains(&address)))
}

impl NotSelected {
    fn cost(&self) -> u32 {
        match self {
            Self::Label(label) => label.cost(),
            // As likely as a slip.
            Self::Namespace { .. } => 1,
        }
    }
}

impl LabelMissed {
    fn cost(&self) -> u32 {
        if self.is_slip() { 1 } else { 4 }
    }
}
