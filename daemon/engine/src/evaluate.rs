//! The verdict straight from the rules, without tables: for `netpol verdict` and `explain`, and
//! the tables' counterpart in the property tests.
//!
//! Two Pods are asked about the addresses of the first family that both have, IPv4
//! before IPv6: labels mean the same for each, an ipBlock need not. What is on the host's
//! network is the host, and no policy of ours holds for the host's own side, for an
//! external Pod or for a stranger: such a side allows.
//! Ports are host order. Called by the command line, the API and the tests.

mod judge;
mod party;

#[cfg(test)]
mod tests;

use netpol_abi::Reason;
use serde::{Serialize, Serializer};

pub(crate) use self::judge::{Question, Unmet, selecting};
pub(crate) use self::party::{End, addresses, is_link_local, meet};
pub use self::party::{EvaluateError, Family, Party, PartyError};
use crate::policy::{Direction, ObjectName, Policy, Protocol};
use crate::world::{Settings, World};

/// May the connection be opened? Both ends' policies have to allow it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Both sides allow it.
    pub allowed: bool,
    /// What the source's policies say.
    pub egress: Side,
    /// What the destination's policies say.
    pub ingress: Side,
}

/// What one end's policies say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// This end allows it.
    pub allowed: bool,
    /// Some policy selects this end for the direction.
    pub isolated: bool,
    /// Why.
    #[serde(serialize_with = "label")]
    pub reason: Reason,
    /// The rules that allow it; where denied, the policies that isolate (a rule only if it denies).
    pub by: Vec<By>,
    /// The policies that isolate this end, whether they allow it or not.
    pub isolated_by: Vec<ObjectName>,
}

/// A policy that has a part in a verdict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct By {
    /// The policy.
    pub policy: ObjectName,
    /// Index of the rule in the direction's list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// Index of the peer in the rule's list; none where the rule is for any peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<usize>,
}

/// May `from` open a connection to `port` of `to`?
///
/// # Errors
/// A Pod is not known.
pub fn evaluate(
    world: &World,
    from: &Party,
    to: &Party,
    protocol: Protocol,
    port: u16,
) -> Result<Verdict, EvaluateError> {
    let (from, to) = (End::of(world, from)?, End::of(world, to)?);
    let egress = Policed::of(world, from, Direction::Egress);
    let ingress = Policed::of(world, to, Direction::Ingress);
    let connection = Connection {
        settings: world.settings,
        from: &egress,
        to: &ingress,
        protocol,
        port,
    };
    Ok(connection.verdict())
}

/// An end with the policies that select it in one direction.
pub(crate) struct Policed<'w> {
    pub end: End<'w>,
    pub policies: Vec<&'w Policy>,
}

impl<'w> Policed<'w> {
    pub(crate) fn of(world: &'w World, end: End<'w>, direction: Direction) -> Self {
        let policies = selecting(world, &end, direction);
        Self { end, policies }
    }

    /// The same over one family.
    pub(crate) fn over(&self, family: Family) -> Self {
        Self {
            end: self.end.clone().over(family),
            policies: self.policies.clone(),
        }
    }

    /// An end whose own side is not asked.
    pub(crate) fn unasked(end: End<'w>) -> Self {
        Self {
            end,
            policies: Vec::new(),
        }
    }
}

/// A connection between two ends.
pub(crate) struct Connection<'a> {
    pub settings: Settings,
    pub from: &'a Policed<'a>,
    pub to: &'a Policed<'a>,
    pub protocol: Protocol,
    pub port: u16,
}

impl<'a> Connection<'a> {
    /// Does one side allow it?
    pub(crate) fn allows(&self, direction: Direction) -> bool {
        self.ask(direction).reason.allows()
    }

    /// What both sides say over IPv6, where they are spoken to over both families:
    /// [`Self::verdict`] is about IPv4 there.
    pub(crate) fn verdict_over_ipv6(&self) -> Option<Verdict> {
        (self.from.end.is_dual() && self.to.end.is_dual()).then(|| {
            let (from, to) = (self.from.over(Family::V6), self.to.over(Family::V6));
            let connection = Connection {
                from: &from,
                to: &to,
                ..*self
            };
            connection.verdict()
        })
    }

    /// What both sides say.
    pub(crate) fn verdict(&self) -> Verdict {
        let (egress, ingress) = (self.side(Direction::Egress), self.side(Direction::Ingress));
        Verdict {
            allowed: egress.allowed && ingress.allowed,
            egress,
            ingress,
        }
    }

    /// The end whose policies are asked.
    pub(crate) fn policed(&self, direction: Direction) -> &'a Policed<'a> {
        match direction {
            Direction::Egress => self.from,
            Direction::Ingress => self.to,
        }
    }

    /// What that end's rules are asked.
    pub(crate) fn question(&self, direction: Direction) -> Question<'a> {
        let (from, to) = addresses(&self.from.end, &self.to.end);
        let (peer, peer_address) = match direction {
            Direction::Egress => (&self.to.end, to),
            Direction::Ingress => (&self.from.end, from),
        };
        Question {
            direction,
            peer,
            peer_address,
            destination: self.to.end.pod.map(|(_, pod)| pod),
            protocol: self.protocol,
            port: self.port,
        }
    }

    fn ask(&self, direction: Direction) -> judge::Answer<'a> {
        let host = match direction {
            Direction::Egress => self.settings.host_egress,
            Direction::Ingress => self.settings.host_ingress,
        };
        let question = self.question(direction);
        let policies = &self.policed(direction).policies;
        let without_rule = |reason| judge::Answer {
            reason,
            by: Vec::new(),
        };
        if self.from.end.is(&self.to.end) {
            return without_rule(Reason::Itself);
        }
        if !policies.is_empty() && question.peer.host && host {
            return without_rule(Reason::Host);
        }
        question.ask(policies)
    }

    fn side(&self, direction: Direction) -> Side {
        let answer = self.ask(direction);
        let isolated_by: Vec<ObjectName> = self
            .policed(direction)
            .policies
            .iter()
            .map(|policy| policy.name.clone())
            .collect();
        let allowed = answer.reason.allows();
        let mut by: Vec<By> = answer
            .by
            .into_iter()
            .map(|(policy, rule, peer)| By {
                policy: policy.name.clone(),
                rule: Some(rule),
                peer,
            })
            .collect();
        if !allowed && by.is_empty() {
            by.extend(isolated_by.iter().map(|policy| By {
                policy: policy.clone(),
                rule: None,
                peer: None,
            }));
        }
        Side {
            allowed,
            isolated: !isolated_by.is_empty(),
            reason: answer.reason,
            by,
            isolated_by,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn label<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.label())
}
