//! The verdict straight from the rules, without tables: for `netpol verdict` and `explain`, and
//! the tables' counterpart in the property tests.
//!
//! Two Pods are asked about the addresses of the first family that both have, IPv4
//! before IPv6: labels mean the same for each, an ipBlock need not. What is on the host's
//! network is the host, and no policy of ours holds for the host's own side, for an
//! external Pod or for a stranger: such a side allows. Where an engine publishes a Pod's port at an address of the host,
//! the other side is that Pod.
//!
//! A verdict says what is in force. A policy that is only audited, by its own mode or its
//! Namespace's, is not: what it would deny is said beside the verdict.
//! Ports are host order. Called by the command line, the API and the tests.

mod behind;
mod endpoint_spec;
mod judge;

#[cfg(test)]
mod tests;

use netpol_abi::Reason;
use serde::{Serialize, Serializer};

pub(crate) use self::behind::behind;
pub(crate) use self::endpoint_spec::{End, addresses, is_link_local, meet};
pub use self::endpoint_spec::{EndpointSpec, EndpointSpecError, EvaluateError, Family};
pub(crate) use self::judge::{Question, Unmet, selecting};
use crate::policy::{Direction, Mode, ObjectName, Policy, Protocol};
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
    /// The reason of the verdict on this side.
    #[serde(serialize_with = "label")]
    pub reason: Reason,
    /// The rules that allow it; where denied, the policies that isolate (a rule only if it denies).
    pub by: Vec<By>,
    /// The policies that isolate this end, whether they allow it or not.
    pub isolated_by: Vec<ObjectName>,
    /// Allowed, and reported: these would deny it if they were not only audited. As `by` would have
    /// them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audited: Vec<By>,
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
/// # Examples
/// In a Namespace `shop`, a policy lets `web` open connections to port 5432 of `db`:
///
/// ```
/// # use netpol_engine::manifest::{assemble, parse};
/// # let file = parse("shop.yaml", "
/// # {apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, status: {podIP: 10.0.0.1}}
/// # ---
/// # {apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}}, status: {podIP: 10.0.0.2}}
/// # ---
/// # apiVersion: networking.k8s.io/v1
/// # kind: NetworkPolicy
/// # metadata: {name: db, namespace: shop}
/// # spec:
/// #   podSelector: {matchLabels: {app: db}}
/// #   ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
/// # ");
/// # let world = assemble([&file]).world();
/// use netpol_engine::evaluate::evaluate;
/// use netpol_engine::policy::Protocol;
///
/// let [web, db] = ["shop/web".parse()?, "shop/db".parse()?];
/// assert!(evaluate(&world, &web, &db, Protocol::Tcp, 5432)?.allowed);
/// let denied = evaluate(&world, &"ip:192.0.2.1".parse()?, &db, Protocol::Tcp, 5432)?;
/// assert!(denied.egress.allowed && !denied.ingress.allowed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A Pod is not known.
pub fn evaluate(
    world: &World,
    from: &EndpointSpec,
    to: &EndpointSpec,
    protocol: Protocol,
    port: u16,
) -> Result<Verdict, EvaluateError> {
    let (from, to) = (End::resolve(world, from)?, End::resolve(world, to)?);
    let behind = behind(world, &from, &to, protocol, port);
    let egress = Policed::new(world, from, Direction::Egress);
    let ingress = Policed::new(world, to, Direction::Ingress);
    let connection = Connection {
        settings: world.settings,
        from: &egress,
        to: &ingress,
        protocol,
        port,
    };
    let verdict = connection.verdict();
    let Some((end, port)) = behind else {
        return Ok(verdict);
    };
    let ingress = Policed::new(world, end, Direction::Ingress);
    let to_pod = Connection {
        to: &ingress,
        port,
        ..connection
    };
    Ok(verdict.with_ingress(to_pod.verdict().ingress))
}

impl Verdict {
    /// With what the Pod says that is behind a published port.
    pub(crate) fn with_ingress(self, ingress: Side) -> Self {
        Self {
            allowed: self.egress.allowed && ingress.allowed,
            ingress,
            ..self
        }
    }
}

/// An end with the policies that select it in one direction.
pub(crate) struct Policed<'w> {
    pub end: End<'w>,
    /// Those in force.
    pub policies: Vec<&'w Policy>,
    /// All that select it, the audited ones too.
    pub selecting: Vec<&'w Policy>,
    /// Those that are in force unless the Namespace is audited.
    enforced: Vec<&'w Policy>,
}

impl<'w> Policed<'w> {
    pub(crate) fn new(world: &'w World, end: End<'w>, direction: Direction) -> Self {
        let selecting = selecting(world, &end, direction);
        let those = |holds: &dyn Fn(&Policy) -> bool| {
            let all = selecting.iter().copied();
            all.filter(|policy| holds(policy)).collect()
        };
        Self {
            end,
            policies: those(&|policy| world.enforces(policy)),
            enforced: those(&|policy| policy.mode == Mode::Enforce),
            selecting,
        }
    }

    /// The same over one family.
    pub(crate) fn over(&self, family: Family) -> Self {
        Self {
            end: self.end.clone().over(family),
            policies: self.policies.clone(),
            selecting: self.selecting.clone(),
            enforced: self.enforced.clone(),
        }
    }

    /// The same at each address of its own by which it is known beyond its link.
    pub(crate) fn at_each_address(&self) -> impl Iterator<Item = Self> {
        let addresses = self.end.global_addresses();
        addresses.map(|address| Self {
            end: self.end.clone().at(address),
            policies: self.policies.clone(),
            selecting: self.selecting.clone(),
            enforced: self.enforced.clone(),
        })
    }

    /// An end whose own side is not asked.
    pub(crate) fn unasked(end: End<'w>) -> Self {
        Self {
            end,
            policies: Vec::new(),
            selecting: Vec::new(),
            enforced: Vec::new(),
        }
    }

    /// The sets of policies whose denials are reported, were they not in force: what would be
    /// without the Namespace's mode, and what would be without that of each policy.
    fn audited(&self) -> impl Iterator<Item = &[&'w Policy]> {
        let sets = [&self.enforced, &self.selecting].into_iter();
        let in_force = self.policies.len();
        sets.filter(move |set| set.len() > in_force)
            .map(Vec::as_slice)
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
        let policed = self.policed(direction);
        self.ask(direction, &policed.policies).reason.allows()
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

    /// Why the connection passes whatever policies say, where it does.
    pub(crate) fn passes_unasked(&self, direction: Direction) -> Option<Reason> {
        let (host, peer) = match direction {
            Direction::Egress => (self.settings.host_egress, &self.to.end),
            Direction::Ingress => (self.settings.host_ingress, &self.from.end),
        };
        if self.from.end.is(&self.to.end) {
            return Some(Reason::Itself);
        }
        (peer.host && host).then_some(Reason::Host)
    }

    /// What these policies of a side say.
    fn ask(&self, direction: Direction, policies: &[&'a Policy]) -> judge::Answer<'a> {
        match self.passes_unasked(direction) {
            // An end that is not isolated is not isolated from any peer.
            Some(reason) if reason == Reason::Itself || !policies.is_empty() => judge::Answer {
                reason,
                by: Vec::new(),
            },
            _ => self.question(direction).ask(policies),
        }
    }

    fn side(&self, direction: Direction) -> Side {
        let policed = self.policed(direction);
        let answer = self.ask(direction, &policed.policies);
        let allowed = answer.reason.allows();
        let audited = policed.audited().find_map(|policies| {
            let answer = self.ask(direction, policies);
            (allowed && !answer.reason.allows()).then(|| by(&answer, policies))
        });
        Side {
            allowed,
            isolated: !policed.policies.is_empty(),
            reason: answer.reason,
            by: by(&answer, &policed.policies),
            isolated_by: names(&policed.policies),
            audited: audited.unwrap_or_default(),
        }
    }
}

/// The rules that decided; where none did and it is denied, all of these policies.
fn by(answer: &judge::Answer, policies: &[&Policy]) -> Vec<By> {
    if !answer.reason.allows() && answer.by.is_empty() {
        let whole = |policy| By {
            policy,
            rule: None,
            peer: None,
        };
        return names(policies).into_iter().map(whole).collect();
    }
    let rules = answer.by.iter();
    rules
        .map(|(policy, rule, peer)| By {
            policy: policy.name.clone(),
            rule: Some(*rule),
            peer: *peer,
        })
        .collect()
}

fn names(policies: &[&Policy]) -> Vec<ObjectName> {
    policies.iter().map(|policy| policy.name.clone()).collect()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn label<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.label())
}
