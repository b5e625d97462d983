//! One condition that does not hold, with what stands in its place and what was perhaps
//! meant.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use super::as_text;
use crate::evaluate::{Question, Unmet};
use crate::labels::{Labels, Operator, Requirement};
use crate::policy::Protocol;
use crate::spelling;
use crate::world::{NamedPort, World};

/// A condition of a rule that the connection does not fulfil.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "condition", rename_all = "kebab-case")]
pub enum Missed {
    /// The entry selects Pods by label, and the other end is none.
    NotAPod {
        /// What the other end is instead.
        is: NotAPod,
    },
    /// The entry has no `namespaceSelector`, and the other end is in another Namespace.
    OtherNamespace {
        /// The policy's own Namespace.
        wants: String,
        /// The other end's.
        is: String,
    },
    /// The other end's Namespace has other labels.
    NamespaceLabel {
        /// The Namespace.
        namespace: String,
        /// Does a manifest give it labels?
        declared: bool,
        /// What does not hold.
        label: LabelMissed,
    },
    /// The other end has other labels.
    PodLabel {
        /// What does not hold.
        label: LabelMissed,
    },
    /// The address is outside the block.
    OutsideBlock {
        /// The block.
        #[serde(serialize_with = "as_text")]
        cidr: IpNet,
        /// The address; `None`: not known.
        address: Option<IpAddr>,
    },
    /// The address is in the block, and in what is taken out of it.
    InExcept {
        /// What is taken out.
        #[serde(serialize_with = "as_text")]
        except: IpNet,
        /// The address.
        address: Option<IpAddr>,
    },
    /// It is for another protocol.
    Protocol {
        /// The protocol of the entry.
        wants: Protocol,
        /// What was asked for.
        is: Protocol,
    },
    /// It is for other ports.
    Port {
        /// From.
        first: u16,
        /// To, inclusive.
        last: u16,
        /// What was asked for.
        is: u16,
    },
    /// The port's name stands for another number at the destination, or for none.
    PortName {
        /// The name.
        wants: String,
        /// Its protocol.
        protocol: Protocol,
        /// What it stands for there.
        number: Option<u16>,
        /// What was asked for.
        is: u16,
        /// Is the destination a Pod? Only Pods have names for ports.
        pod: bool,
        /// All names that the destination has.
        known: Vec<NamedPort>,
    },
}

/// What has no labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotAPod {
    /// The host, or a Pod on its network.
    Host,
    /// An address that no Pod here has.
    Stranger,
}

/// A requirement that labels do not fulfil.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LabelMissed {
    /// The requirement, as `kubectl -l` writes it.
    #[serde(serialize_with = "as_text")]
    pub wants: Requirement,
    /// The value that the key has; `None`: the key is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has: Option<String>,
    /// The value is probably a slip: a letter or two, or case.
    pub slip: bool,
    /// The key is not there: a label that was perhaps meant, as its key differs by spelling
    /// alone, or it has the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub like: Option<Label>,
}

/// A label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Label {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl Missed {
    pub(super) fn describe(world: &World, question: &Question, unmet: &Unmet) -> Self {
        let address = question.peer_address;
        match *unmet {
            Unmet::Pod => Self::NotAPod {
                is: if question.peer.host {
                    NotAPod::Host
                } else {
                    NotAPod::Stranger
                },
            },
            Unmet::Namespace(own) => Self::OtherNamespace {
                wants: own.to_owned(),
                is: namespace(question),
            },
            Unmet::NamespaceLabel(requirement) => {
                let namespace = namespace(question);
                Self::NamespaceLabel {
                    declared: world.namespaces.contains_key(&namespace),
                    label: LabelMissed::compare(requirement, &question.peer.namespace_labels),
                    namespace,
                }
            }
            Unmet::PodLabel(requirement) => {
                let none = Labels::new();
                let labels = question.peer.pod.map_or(&none, |(_, pod)| &pod.labels);
                Self::PodLabel {
                    label: LabelMissed::compare(requirement, labels),
                }
            }
            Unmet::Block(cidr) => Self::OutsideBlock {
                cidr: *cidr,
                address,
            },
            Unmet::Except(except) => Self::InExcept {
                except: *except,
                address,
            },
            Unmet::Protocol(wants) => Self::Protocol {
                wants,
                is: question.protocol,
            },
            Unmet::Range(first, last) => Self::Port {
                first,
                last,
                is: question.port,
            },
            Unmet::Name(name, protocol) => {
                let pod = question.destination;
                Self::PortName {
                    wants: name.to_owned(),
                    protocol,
                    number: pod.and_then(|pod| pod.named_port(name, protocol)),
                    is: question.port,
                    pod: pod.is_some(),
                    known: pod.map(|pod| pod.ports.clone()).unwrap_or_default(),
                }
            }
        }
    }
}

fn namespace(question: &Question) -> String {
    let pod = question.peer.pod;
    pod.map(|(name, _)| name.namespace.clone())
        .unwrap_or_default()
}

impl LabelMissed {
    /// What is there in place of what a requirement asks for.
    pub(super) fn compare(requirement: &Requirement, labels: &Labels) -> Self {
        let has = labels.get(&requirement.key);
        let slip = match (&requirement.operator, has) {
            (Operator::In(values), Some(has)) => {
                values.iter().any(|value| spelling::resembles(value, has))
            }
            _ => false,
        };
        let like = match (&requirement.operator, has) {
            (Operator::In(_) | Operator::Exists, None) => like(requirement, labels),
            _ => None,
        };
        Self {
            wants: requirement.clone(),
            has: has.cloned(),
            slip,
            like: like.map(|(key, value)| Label {
                key: key.clone(),
                value: value.clone(),
            }),
        }
    }

    /// Was something else meant, probably?
    pub(super) fn is_slip(&self) -> bool {
        self.slip || self.like.is_some()
    }
}

/// The label that was meant, where its key is not there.
fn like<'l>(requirement: &Requirement, labels: &'l Labels) -> Option<(&'l String, &'l String)> {
    let spelled = |(key, _): &(&String, &String)| {
        spelling::same_but_for_spelling(&requirement.key, key.as_str())
    };
    let valued = |(key, value): &(&String, &String)| match &requirement.operator {
        Operator::In(values) => {
            let names = |key: &str| NAMES_AN_APP.contains(&key);
            let is_own = tells_something(value) || names(key) && names(&requirement.key);
            is_own && values.contains(*value)
        }
        _ => false,
    };
    let both = |label: &(&String, &String)| spelled(label) && valued(label);
    let mut of_labels = labels.iter();
    of_labels
        .find(both)
        .or_else(|| labels.iter().find(spelled))
        .or_else(|| labels.iter().find(valued))
}

/// Keys that different people give an application's name by.
const NAMES_AN_APP: [&str; 5] = [
    "app",
    "app.kubernetes.io/name",
    "k8s-app",
    "name",
    "com.docker.compose.service",
];

/// Is a value one's own? Many labels have `true` or `1`.
fn tells_something(value: &str) -> bool {
    value.len() > 2 && !matches!(value, "true" | "false") && value.contains(char::is_alphabetic)
}
