//! A policy's answer to a connection, rule by rule, peer by peer and port by port.

use serde::Serialize;

use super::Missed;
use crate::evaluate::Question;
use crate::labels::{Operator, Requirement, Selector};
use crate::policy::{
    Direction, IpBlock, Namespaces, ObjectName, Peer, PodPeer, Policy, Port, Ports, Rule,
};
use crate::world::{METADATA_NAME, World};

/// What a policy that isolates says, or one that would.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyAnswer {
    /// The policy.
    pub policy: ObjectName,
    /// It is only audited: what it denies passes, and is reported.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub audited: bool,
    /// Its `podSelector`, as `kubectl -l` writes it; `None`: every Pod of its Namespace.
    pub selects: Option<String>,
    /// How its rules answer. None where it is decided before they are asked: an end and
    /// itself, and the host where it always passes.
    pub rules: Vec<RuleAnswer>,
}

/// What a rule says. It matches where some peer and some port do; none of either is any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleAnswer {
    /// Its place in the direction's list.
    pub rule: usize,
    /// All of it holds.
    pub matched: bool,
    /// Its entries of `from` or `to`.
    pub peers: Vec<PeerAnswer>,
    /// Its `ports`.
    pub ports: Vec<PortAnswer>,
    /// How its peers are read, where the other reading would change the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
}

/// What an entry of `from` or `to` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PeerAnswer {
    /// Its place in the list.
    pub peer: usize,
    /// The ends that the entry is for, in words.
    pub wants: String,
    /// All of it holds.
    pub matched: bool,
    /// What does not hold.
    pub missed: Vec<Missed>,
}

/// What an entry of `ports` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortAnswer {
    /// Its place in the list.
    pub port: usize,
    /// What it is for: `5432/TCP`, `8000-8080/TCP`, `http/TCP`, `any port/TCP`.
    pub wants: String,
    /// All of it holds.
    pub matched: bool,
    /// What does not hold.
    pub missed: Vec<Missed>,
}

/// The two readings of a `podSelector` and a `namespaceSelector`, which one dash tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Reading {
    /// They stand in two entries: either is enough.
    Either {
        /// The entry with the `podSelector`.
        pods: usize,
        /// The entry with the `namespaceSelector`.
        namespaces: usize,
    },
    /// They stand in one entry: both must hold.
    Both {
        /// The entry.
        peer: usize,
    },
}

impl PolicyAnswer {
    pub(super) fn evaluate(
        world: &World,
        question: &Question,
        policy: &Policy,
        asked: bool,
    ) -> Self {
        let rules = policy.rules(question.direction).filter(|_| asked);
        Self {
            policy: policy.name.clone(),
            audited: !world.enforces(policy),
            selects: (!policy.subject.is_everything()).then(|| policy.subject.to_string()),
            rules: rules
                .unwrap_or_default()
                .iter()
                .enumerate()
                .map(|(index, rule)| RuleAnswer::evaluate(world, question, index, rule))
                .collect(),
        }
    }
}

impl RuleAnswer {
    pub(super) fn evaluate(world: &World, question: &Question, index: usize, rule: &Rule) -> Self {
        let peers: Vec<PeerAnswer> = rule
            .peers
            .iter()
            .enumerate()
            .map(|(peer, wanted)| {
                let missed: Vec<Missed> = question
                    .unmet(wanted)
                    .iter()
                    .map(|unmet| Missed::describe(world, question, unmet))
                    .collect();
                PeerAnswer {
                    peer,
                    wants: words(wanted),
                    matched: missed.is_empty(),
                    missed,
                }
            })
            .collect();
        let ports = rule
            .ports
            .iter()
            .enumerate()
            .map(|(port, wanted)| {
                let missed: Vec<Missed> = question
                    .unmet_port(wanted)
                    .iter()
                    .map(|unmet| Missed::describe(world, question, unmet))
                    .collect();
                PortAnswer {
                    port,
                    wants: number(wanted),
                    matched: missed.is_empty(),
                    missed,
                }
            })
            .collect();
        Self {
            rule: index,
            matched: question.matches(rule),
            reading: Reading::if_ambiguous(rule, &peers),
            peers,
            ports,
        }
    }
}

impl Reading {
    /// The reading, where the other one would say something else of this peer: of two entries
    /// just one holds, or of one entry just one half.
    fn if_ambiguous(rule: &Rule, answers: &[PeerAnswer]) -> Option<Self> {
        let halves = |peer: &Peer| match peer {
            Peer::Pods(PodPeer {
                namespaces: Namespaces::Matching(namespaces),
                pods,
            }) => Some((!namespaces.is_everything(), !pods.is_everything())),
            Peer::Pods(PodPeer { pods, .. }) => Some((false, !pods.is_everything())),
            Peer::Block(_) => None,
        };
        let alone = |wanted| {
            rule.peers
                .iter()
                .position(|peer| halves(peer) == Some(wanted))
        };
        if let (Some(pods), Some(namespaces)) = (alone((false, true)), alone((true, false)))
            && !(answers[pods].matched && answers[namespaces].matched)
        {
            return Some(Self::Either { pods, namespaces });
        }
        if answers.iter().any(|answer| answer.matched) {
            return None;
        }
        let peer = rule.peers.iter().zip(answers).position(|(peer, answer)| {
            let namespace = |missed: &&Missed| matches!(missed, Missed::NamespaceLabel { .. });
            let off = answer.missed.iter().filter(namespace).count();
            let pod = |missed: &&Missed| matches!(missed, Missed::PodLabel { .. });
            let one_half = (off == 0) != (answer.missed.iter().filter(pod).count() == 0);
            halves(peer) == Some((true, true)) && one_half
        })?;
        Some(Self::Both { peer })
    }
}

/// The ends that an entry is for.
fn words(peer: &Peer) -> String {
    let pods = match peer {
        Peer::Block(IpBlock { cidr, except }) => {
            if except.is_empty() {
                return cidr.to_string();
            }
            let except: Vec<String> = except.iter().map(ToString::to_string).collect();
            return format!("{cidr} except {}", except.join(", "));
        }
        Peer::Pods(pods) => pods,
    };
    let who = if pods.pods.is_everything() {
        "any Pod".to_owned()
    } else {
        format!("Pods with {}", pods.pods)
    };
    match &pods.namespaces {
        Namespaces::Own(own) => format!("{who} in `{own}`"),
        Namespaces::Matching(selector) => match by_name(selector) {
            Some(name) => format!("{who} in `{name}`"),
            None if selector.is_everything() => format!("{who} in any Namespace"),
            None => format!("{who} in Namespaces with {selector}"),
        },
    }
}

/// The one Namespace that a selector names by the label that each has.
fn by_name(selector: &Selector) -> Option<&String> {
    let mut requirements = selector.requirements();
    match (requirements.next(), requirements.next()) {
        (
            Some(Requirement {
                key,
                operator: Operator::In(values),
            }),
            None,
        ) if key == METADATA_NAME && values.len() == 1 => values.first(),
        _ => None,
    }
}

/// What an entry of `ports` is for.
fn number(port: &Port) -> String {
    let protocol = port.protocol;
    match &port.ports {
        Ports::All => format!("any port/{protocol}"),
        Ports::Range(first, last) if first == last => format!("{first}/{protocol}"),
        Ports::Range(first, last) => format!("{first}-{last}/{protocol}"),
        Ports::Named(name) => format!("{name}/{protocol}"),
    }
}

/// `spec.ingress[0]`.
pub(super) fn field(direction: Direction, rule: usize) -> String {
    match direction {
        Direction::Ingress => format!("spec.ingress[{rule}]"),
        Direction::Egress => format!("spec.egress[{rule}]"),
    }
}
