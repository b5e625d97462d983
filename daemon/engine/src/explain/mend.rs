//! The change of a word that would mend the rule that came closest, where there is one.
//!
//! Of a rule and a label that differ by a slip, the one that is alone is taken for wrong: a
//! selector that others match is not the slip, the label is. A change must not take anything
//! from others: a port is added, never replaced.

use serde::Serialize;

use super::answer::field;
use super::{LabelMissed, Missed, Nearest};
use crate::evaluate::{End, Question};
use crate::labels::Operator;
use crate::policy::{Direction, Namespaces, ObjectName, Peer, Policy, Rule};
use crate::spelling;
use crate::world::{METADATA_NAME, World};

/// A small change to an object that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mend {
    /// `NetworkPolicy shop/db`, `Pod web/frontend`, `Namespace web`.
    pub object: String,
    /// The field.
    pub field: String,
    /// What to do there.
    pub change: Change,
    /// What to write, as YAML.
    pub write: String,
    /// What it replaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead_of: Option<String>,
}

/// How a field changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// One text for another.
    Replace,
    /// What is there stays.
    Add,
}

impl Mend {
    /// The change that would make the nearest rule match, if one is enough.
    pub(super) fn of(
        world: &World,
        question: &Question,
        end: &End,
        policy: &Policy,
        rule: &Rule,
        nearest: &Nearest,
    ) -> Option<Self> {
        let object = format!("NetworkPolicy {}", policy.name);
        if let Some(label) = &nearest.not_selected {
            let (name, _) = end.pod?;
            let namespace = |other: &ObjectName| other.namespace == policy.name.namespace;
            let meant = world.pods.iter().any(|(other, pod)| {
                namespace(other) && pod.is_enforced() && policy.subject.matches(&pod.labels)
            });
            return Self::label(
                label,
                meant,
                (object, "spec.podSelector".to_owned()),
                format!("Pod {name}"),
            );
        }
        let [missed] = nearest.missed.as_slice() else {
            return None;
        };
        let rule_field = field(question.direction, nearest.rule);
        let peer = || {
            let index = nearest.peer?;
            let list = match question.direction {
                Direction::Ingress => "from",
                Direction::Egress => "to",
            };
            Some((
                format!("{rule_field}.{list}[{index}]"),
                rule.peers.get(index)?,
            ))
        };
        match missed {
            Missed::PodLabel { label } => {
                let (field, wanted) = peer()?;
                let (name, _) = question.peer.pod?;
                let meant = is_anybody(world, question, wanted);
                let place = (object, format!("{field}.podSelector"));
                Self::label(label, meant, place, format!("Pod {name}"))
            }
            Missed::NamespaceLabel {
                namespace, label, ..
            } => {
                let (field, wanted) = peer()?;
                let meant = label.wants.key != METADATA_NAME && is_anybody(world, question, wanted);
                let place = (object, format!("{field}.namespaceSelector"));
                Self::label(label, meant, place, format!("Namespace {namespace}"))
            }
            Missed::OtherNamespace { is, .. } => {
                let (field, wanted) = peer()?;
                // With a namespaceSelector the entry is no longer for those that it is for now.
                (!is_anybody(world, question, wanted)).then(|| Self {
                    object,
                    field,
                    change: Change::Add,
                    write: format!(
                        "namespaceSelector: {{matchLabels: {{{METADATA_NAME}: {}}}}}",
                        super::yaml::scalar(is)
                    ),
                    instead_of: None,
                })
            }
            Missed::PortName {
                wants,
                protocol,
                is,
                known,
                ..
            } if known.iter().any(|port| {
                (port.port, port.protocol) == (*is, *protocol)
                    && spelling::resembles(&port.name, wants)
            }) =>
            {
                let meant = known.iter().find(|port| {
                    (port.port, port.protocol) == (*is, *protocol)
                        && spelling::resembles(&port.name, wants)
                })?;
                Some(Self {
                    object,
                    field: format!("{rule_field}.ports[{}].port", nearest.port?),
                    change: Change::Replace,
                    write: meant.name.clone(),
                    instead_of: Some(wants.clone()),
                })
            }
            Missed::Protocol { .. } | Missed::Port { .. } | Missed::PortName { .. } => {
                (question.port != 0).then(|| Self {
                    object,
                    field: format!("{rule_field}.ports"),
                    change: Change::Add,
                    write: format!(
                        "{{protocol: {}, port: {}}}",
                        question.protocol, question.port
                    ),
                    instead_of: None,
                })
            }
            Missed::NotAPod { .. } | Missed::OutsideBlock { .. } | Missed::InExcept { .. } => None,
        }
    }

    /// A slip in a selector, or in the label where the selector is `meant`.
    fn label(
        label: &LabelMissed,
        meant: bool,
        (selecting, field): (String, String),
        labelled: String,
    ) -> Option<Self> {
        let key = &label.wants.key;
        let values: Vec<&String> = match &label.wants.operator {
            Operator::In(values) => values.iter().collect(),
            _ => return None,
        };
        let wanted = |value: &str| format!("{key}: {}", super::yaml::scalar(value));
        match (&label.has, &label.like) {
            (Some(has), _) if label.slip => {
                let value = values
                    .iter()
                    .find(|value| spelling::resembles(value, has))?;
                let (is, should_be) = (wanted(has), wanted(value));
                if meant {
                    return Some(Self {
                        object: labelled,
                        field: "metadata.labels".to_owned(),
                        change: Change::Replace,
                        write: should_be,
                        instead_of: Some(is),
                    });
                }
                // A list of values has other entries that must stay.
                (values.len() == 1).then_some(Self {
                    object: selecting,
                    field,
                    change: Change::Replace,
                    write: is,
                    instead_of: Some(should_be),
                })
            }
            (None, Some(like)) => {
                let [value] = values.as_slice() else {
                    return None;
                };
                if meant {
                    return Some(Self {
                        object: labelled,
                        field: "metadata.labels".to_owned(),
                        change: Change::Add,
                        write: wanted(value),
                        instead_of: None,
                    });
                }
                Some(Self {
                    object: selecting,
                    field,
                    change: Change::Replace,
                    write: format!("{}: {}", like.key, super::yaml::scalar(&like.value)),
                    instead_of: Some(wanted(value)),
                })
            }
            _ => None,
        }
    }
}

/// Is some Pod of this world the peer that an entry is for?
fn is_anybody(world: &World, question: &Question, wanted: &Peer) -> bool {
    let Peer::Pods(pods) = wanted else {
        return false;
    };
    world
        .pods
        .iter()
        .filter(|(name, _)| match &pods.namespaces {
            Namespaces::Own(own) => name.namespace == *own,
            Namespaces::Matching(_) => true,
        })
        .any(|(name, pod)| {
            let end = End::of_pod(world, name, pod);
            let asked = Question {
                peer: &end,
                ..*question
            };
            asked.is_peer(wanted)
        })
}
