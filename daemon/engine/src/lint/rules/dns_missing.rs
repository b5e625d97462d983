//! `dns-missing`: Pods whose egress is isolated and which no rule lets ask a resolver. Names
//! then do not resolve, which looks like a server that does not answer.
//!
//! Reported at the policy that isolates most: one more policy beside that one mends all.

use super::Found;
use crate::labels::Labels;
use crate::lint::ground::{Ground, Neighbours, holds_beside};
use crate::lint::words;
use crate::policy::{Direction, Namespaces, Peer, Policy, Ports, Protocol, Rule};
use crate::resolver;

/// The port of DNS (RFC 1035, section 4.2: UDP, and TCP for what is too long for it).
const DNS: u16 = 53;

/// Over what DNS may go.
#[derive(Clone, Copy, Default)]
struct Allowed {
    udp: bool,
    tcp: bool,
}

impl Allowed {
    fn and(self, other: Self) -> Self {
        Self {
            udp: self.udp || other.udp,
            tcp: self.tcp || other.tcp,
        }
    }

    fn is_all(self) -> bool {
        self.udp && self.tcp
    }
}

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let resolver = Resolver::new(ground);
    let mut found = Vec::new();
    for neighbours in ground.namespaces() {
        let allowed: Vec<Allowed> = neighbours
            .policies
            .iter()
            .map(|policy| resolver.allowed(policy))
            .collect();
        for (index, policy) in neighbours.policies.iter().enumerate() {
            if !isolates(policy) {
                continue;
            }
            let around = neighbours.around(index);
            let sum = around
                .iter()
                .fold(allowed[index], |sum, other| sum.and(allowed[*other]));
            if !sum.is_all()
                && !is_reported_elsewhere(neighbours, index, &around)
                && !all_have_it(ground, neighbours, &allowed, policy)
            {
                found.push(report(policy, sum));
            }
        }
    }
    found
}

fn isolates(policy: &Policy) -> bool {
    policy.rules(Direction::Egress).is_some()
}

/// Does a policy that isolates more lack it too? Of equals the first says it.
fn is_reported_elsewhere(neighbours: &Neighbours, index: usize, around: &[usize]) -> bool {
    around.iter().any(|wider| {
        isolates(neighbours.policies[*wider])
            && (*wider < index || neighbours.around(*wider).binary_search(&index).is_err())
    })
}

/// Do other policies give DNS to each Pod that this one selects now?
fn all_have_it(
    ground: &Ground,
    neighbours: &Neighbours,
    allowed: &[Allowed],
    policy: &Policy,
) -> bool {
    let selected = ground.selected(policy);
    let gives = |group: &usize| {
        let others = neighbours.policies.iter().zip(allowed);
        others
            .filter(|(_, allowed)| allowed.udp || allowed.tcp)
            .filter(|(other, _)| holds_beside(other, policy))
            .filter(|(other, _)| other.subject.matches(ground.group(*group).labels))
            .fold(Allowed::default(), |sum, (_, allowed)| sum.and(*allowed))
            .is_all()
    };
    !selected.is_empty() && selected.iter().all(gives)
}

/// The peer that may answer: the cluster's resolver as manifests everywhere name it.
struct Resolver<'g, 'w> {
    ground: &'g Ground<'w>,
    namespace: Labels,
    pod: Labels,
}

impl<'g, 'w> Resolver<'g, 'w> {
    fn new(ground: &'g Ground<'w>) -> Self {
        Self {
            ground,
            namespace: ground.world.namespace_labels(resolver::NAMESPACE),
            pod: resolver::labels(),
        }
    }

    /// What a policy's egress rules allow of DNS.
    fn allowed(&self, policy: &Policy) -> Allowed {
        let rules = policy.rules(Direction::Egress).unwrap_or_default();
        rules.iter().fold(Allowed::default(), |sum, rule| {
            let usual = rule.peers.is_empty() || rule.peers.iter().any(|peer| self.is(peer));
            let allows = |protocol| match ports(rule, protocol) {
                Extent::Dns => usual || rule.peers.iter().any(|peer| self.is_named(peer)),
                Extent::Wide => usual,
                Extent::Other => false,
            };
            sum.and(Allowed {
                udp: allows(Protocol::Udp),
                tcp: allows(Protocol::Tcp),
            })
        })
    }

    /// May the usual resolver be one of a peer's Pods? A block may hold any.
    fn is(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Block(_) => true,
            Peer::Pods(pods) => {
                pods.pods.matches(&self.pod)
                    && match &pods.namespaces {
                        Namespaces::Own(own) => own == resolver::NAMESPACE,
                        Namespaces::Matching(selector) => selector.matches(&self.namespace),
                    }
            }
        }
    }

    /// Is there a Pod that a peer names by a label? A rule for the port of DNS alone says that it is
    /// a resolver.
    fn is_named(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Block(_) => true,
            Peer::Pods(pods) => !pods.pods.is_everything() && !self.ground.peers(peer).is_empty(),
        }
    }
}

/// How much of a protocol a rule's ports are, as far as DNS is concerned.
enum Extent {
    /// The port is named, by its number or by the name that it usually has.
    Dns,
    /// It is among many.
    Wide,
    /// It is not among them.
    Other,
}

/// Ports of a range up to which it is about those.
const FEW: u16 = 100;

fn ports(rule: &Rule, protocol: Protocol) -> Extent {
    let mut extent = if rule.ports.is_empty() {
        Extent::Wide
    } else {
        Extent::Other
    };
    for port in rule.ports.iter().filter(|port| port.protocol == protocol) {
        match &port.ports {
            Ports::Range(first, last) if (*first..=*last).contains(&DNS) => {
                if last - first < FEW {
                    return Extent::Dns;
                }
                extent = Extent::Wide;
            }
            Ports::Named(name) if name.starts_with("dns") => return Extent::Dns,
            Ports::All => extent = Extent::Wide,
            Ports::Range(..) | Ports::Named(_) => {}
        }
    }
    extent
}

fn report<'w>(policy: &'w Policy, allowed: Allowed) -> Found<'w> {
    let who = words::subject(policy);
    let (missing, looks) = match (allowed.udp, allowed.tcp) {
        (true, _) => (
            "53/TCP",
            "an answer that is too long for UDP is asked for again over TCP, and times out",
        ),
        (false, true) => (
            "53/UDP",
            "names do not resolve, which looks like a time-out",
        ),
        (false, false) => (
            "53/UDP and 53/TCP",
            "names do not resolve, which looks like a time-out",
        ),
    };
    Found {
        policy,
        field: if policy.rules(Direction::Egress).is_some_and(<[_]>::is_empty) {
            "spec.policyTypes".to_owned()
        } else {
            "spec.egress".to_owned()
        },
        message: format!(
            "this isolates the egress of {who}, and no rule lets them ask DNS ({missing}): {looks}"
        ),
        help: format!(
            "let them, with an egress rule for the same Pods:\n{RULE}\nor silence this where they need no names"
        ),
    }
}

/// As it is written everywhere.
const RULE: &str = "  - to:
      - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
        podSelector: {matchLabels: {k8s-app: kube-dns}}
    ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]";
