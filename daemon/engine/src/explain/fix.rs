//! The change of a word that would mend the rule that came closest, where there is one.
//!
//! Of a rule and a label that differ by a slip, the one that is alone is taken for wrong: a
//! selector that others match is not the slip, the label is. A change must not take anything
//! from others: a port is added, never replaced. Nor may it open what no slip explains: a port
//! is added where the rule is for this pair, and what a change opens besides is said.

use std::collections::BTreeSet;

use serde::Serialize;

use super::answer::field;
use super::suggest::{Also, Suggestion};
use super::{Case, LabelMissed, Missed, Nearest, NotSelected};
use crate::evaluate::{End, Question};
use crate::labels::{Operator, Requirement, Selector};
use crate::policy::{Direction, Namespaces, ObjectName, Peer, PodPeer, Policy, Rule};
use crate::spelling;
use crate::world::{METADATA_NAME, World};

/// A small change to an object that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
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
    /// Where a policy changes: other Pods that it then lets such a connection through for.
    pub also_selects: BTreeSet<ObjectName>,
    /// Where a policy changes: other peers that it then lets through.
    pub also_peers: BTreeSet<ObjectName>,
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

/// A rule that came closest, and what stands around it.
pub(super) struct Miss<'a> {
    /// The connection.
    pub case: &'a Case<'a>,
    /// What this side is asked.
    pub question: Question<'a>,
    /// The policy.
    pub policy: &'a Policy,
    /// Its rule.
    pub rule: &'a Rule,
    /// How it misses.
    pub nearest: &'a Nearest,
    /// The policy that would do instead.
    pub suggestion: Option<&'a Suggestion>,
}

impl Miss<'_> {
    /// The change that would make the nearest rule match, if one is enough.
    pub(super) fn fix(&self) -> Option<Fix> {
        let Self {
            question,
            policy,
            rule,
            nearest,
            ..
        } = self;
        let world = self.case.world;
        match &nearest.not_selected {
            Some(NotSelected::Label(label)) => return self.subject(label),
            // Where it was meant to be is a guess: the author of the policy is asked.
            Some(NotSelected::Namespace { .. }) => return None,
            None => {}
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
            let Peer::Pods(pods) = rule.peers.get(index)? else {
                return None;
            };
            Some((format!("{rule_field}.{list}[{index}]"), pods))
        };
        match missed {
            Missed::PodLabel { label } => {
                let (field, wanted) = peer()?;
                let (name, _) = question.peer.pod?;
                let meant = matches_any_end(world, question, wanted);
                let place = (self.object(), format!("{field}.podSelector"));
                let (fix, corrected) = Fix::label(label, meant, place, format!("Pod {name}"))?;
                Some(match corrected {
                    None => fix,
                    Some(corrected) => self.with_peer(
                        fix,
                        PodPeer {
                            pods: replaced(&wanted.pods, &label.wants, corrected),
                            ..wanted.clone()
                        },
                    ),
                })
            }
            Missed::NamespaceLabel {
                namespace, label, ..
            } => {
                let (field, wanted) = peer()?;
                let Namespaces::Matching(namespaces) = &wanted.namespaces else {
                    return None;
                };
                let meant =
                    label.wants.key != METADATA_NAME && matches_any_end(world, question, wanted);
                let place = (self.object(), format!("{field}.namespaceSelector"));
                let (fix, corrected) =
                    Fix::label(label, meant, place, format!("Namespace {namespace}"))?;
                Some(match corrected {
                    None => fix,
                    Some(corrected) => {
                        let namespaces = replaced(namespaces, &label.wants, corrected);
                        self.with_peer(
                            fix,
                            PodPeer {
                                namespaces: Namespaces::Matching(namespaces),
                                ..wanted.clone()
                            },
                        )
                    }
                })
            }
            Missed::OtherNamespace { is, .. } => {
                let (field, wanted) = peer()?;
                // With a namespaceSelector the entry is no longer for those that it is for now.
                if matches_any_end(world, question, wanted) {
                    return None;
                }
                let here = format!(
                    "namespaceSelector: {{matchLabels: {{{METADATA_NAME}: {}}}}}",
                    super::yaml::scalar(is)
                );
                let here_alone = Selector::new([Requirement::equals(METADATA_NAME, is)]);
                Some(self.with_peer(
                    Fix::add(self.object(), field, here),
                    PodPeer {
                        namespaces: Namespaces::Matching(here_alone),
                        ..wanted.clone()
                    },
                ))
            }
            Missed::PortName {
                wants,
                protocol,
                is,
                known,
                ..
            } => {
                let meant = known.iter().find(|port| {
                    (port.port, port.protocol) == (*is, *protocol)
                        && spelling::resembles(&port.name, wants)
                });
                let Some(meant) = meant else {
                    return self.port(&rule_field, false);
                };
                let field = format!("{rule_field}.ports[{}].port", nearest.port?);
                let fix = Fix::replace(self.object(), field, meant.name.clone(), wants.clone());
                is_for_named(rule).then(|| self.and_also(fix, &policy.subject, &rule.peers))
            }
            Missed::Protocol { .. } => self.port(&rule_field, true),
            Missed::Port { .. } => self.port(&rule_field, false),
            Missed::NotAPod { .. } | Missed::OutsideBlock { .. } | Missed::InExcept { .. } => None,
        }
    }

    fn object(&self) -> String {
        format!("NetworkPolicy {}", self.policy.name)
    }

    /// A slip in the policy's own selector, or in the label of the Pod that it is for.
    fn subject(&self, label: &LabelMissed) -> Option<Fix> {
        let Case { world, connection } = self.case;
        let policy = self.policy;
        if !is_for_named(self.rule) {
            return None;
        }
        let (name, _) = connection.policed(self.question.direction).end.pod?;
        let meant = world.pods.iter().any(|(other, pod)| {
            other.namespace == policy.name.namespace
                && pod.is_enforced()
                && policy.subject.matches(&pod.labels)
        });
        let place = (self.object(), "spec.podSelector".to_owned());
        let (fix, corrected) = Fix::label(label, meant, place, format!("Pod {name}"))?;
        Some(match corrected {
            None => fix,
            Some(corrected) => {
                let subject = replaced(&policy.subject, &label.wants, corrected);
                self.and_also(fix, &subject, &self.rule.peers)
            }
        })
    }

    /// One more port. A protocol that was left out is a slip; another number is none, and may
    /// be added only where that opens no more than the policy that is suggested.
    fn port(&self, rule_field: &str, is_slip: bool) -> Option<Fix> {
        let Self { question, rule, .. } = self;
        // Port 0 is no port that a rule can name.
        if question.port == 0 || !is_for_named(rule) {
            return None;
        }
        let port = format!(
            "{{protocol: {}, port: {}}}",
            question.protocol, question.port
        );
        let fix = Fix::add(self.object(), format!("{rule_field}.ports"), port);
        let fix = self.and_also(fix, &self.policy.subject, &rule.peers);
        let is_for_this_pair = || {
            let labelled = |peer: &Peer| match peer {
                Peer::Pods(peer) => !peer.pods.is_everything(),
                Peer::Block(_) => true,
            };
            !self.policy.subject.is_everything()
                && rule.peers.iter().all(labelled)
                && self.suggestion.is_some_and(|suggestion| {
                    fix.also_selects.is_subset(&suggestion.also_selects)
                        && fix.also_peers.is_subset(&suggestion.also_peers)
                })
        };
        (is_slip || is_for_this_pair()).then_some(fix)
    }

    /// With what else is open where the rule is for this peer.
    fn with_peer(&self, fix: Fix, peer: PodPeer) -> Fix {
        self.and_also(fix, &self.policy.subject, &[Peer::Pods(peer)])
    }

    /// With what else is open where the Pods that `subject` selects may talk to `peers`.
    fn and_also(&self, fix: Fix, subject: &Selector, peers: &[Peer]) -> Fix {
        let also = Also::opened_by(self.case, self.question.direction, subject, peers);
        Fix {
            also_selects: also.selects,
            also_peers: also.peers,
            ..fix
        }
    }
}

impl Fix {
    fn add(object: String, field: String, write: String) -> Self {
        Self {
            object,
            field,
            change: Change::Add,
            write,
            instead_of: None,
            also_selects: BTreeSet::new(),
            also_peers: BTreeSet::new(),
        }
    }

    fn replace(object: String, field: String, write: String, old: String) -> Self {
        Self {
            change: Change::Replace,
            instead_of: Some(old),
            ..Self::add(object, field, write)
        }
    }

    /// A slip in a selector, with what it should ask for, or in the label where the selector
    /// is `meant`.
    fn label(
        label: &LabelMissed,
        meant: bool,
        (selecting, field): (String, String),
        labelled: String,
    ) -> Option<(Self, Option<Requirement>)> {
        let key = &label.wants.key;
        let values: Vec<&String> = match &label.wants.operator {
            Operator::In(values) => values.iter().collect(),
            _ => return None,
        };
        let wanted = |value: &str| format!("{key}: {}", super::yaml::scalar(value));
        let of_labels = "metadata.labels".to_owned();
        match (&label.has, &label.like) {
            (Some(has), _) if label.slip => {
                let value = values
                    .iter()
                    .find(|value| spelling::resembles(value, has))?;
                let (is, should_be) = (wanted(has), wanted(value));
                if meant {
                    return Some((Self::replace(labelled, of_labels, should_be, is), None));
                }
                // A list of values has other entries that must stay.
                (values.len() == 1).then(|| {
                    let fix = Self::replace(selecting, field, is, should_be);
                    (fix, Some(Requirement::equals(key, has)))
                })
            }
            (None, Some(like)) => {
                let [value] = values.as_slice() else {
                    return None;
                };
                if meant {
                    return Some((Self::add(labelled, of_labels, wanted(value)), None));
                }
                let found = format!("{}: {}", like.key, super::yaml::scalar(&like.value));
                let fix = Self::replace(selecting, field, found, wanted(value));
                Some((fix, Some(Requirement::equals(&like.key, &like.value))))
            }
            _ => None,
        }
    }
}

/// A selector with one requirement in another's place.
fn replaced(selector: &Selector, old: &Requirement, new: Requirement) -> Selector {
    let others = selector.requirements().filter(|wanted| *wanted != old);
    Selector::new(others.cloned().chain([new]))
}

/// Is a rule for peers that can be told one by one: Pods, or a single address? One that is
/// for any peer, or for a net, opens more than can be said, whatever the slip.
fn is_for_named(rule: &Rule) -> bool {
    match rule.peers.as_slice() {
        [] => false,
        [Peer::Block(block)] => block.cidr.prefix_len() == block.cidr.max_prefix_len(),
        peers => peers.iter().all(|peer| matches!(peer, Peer::Pods(_))),
    }
}

/// Is some Pod of this world the peer that an entry is for?
fn matches_any_end(world: &World, question: &Question, wanted: &PodPeer) -> bool {
    let peer = Peer::Pods(wanted.clone());
    world
        .pods
        .iter()
        .filter(|(name, _)| match &wanted.namespaces {
            Namespaces::Own(own) => name.namespace == *own,
            Namespaces::Matching(_) => true,
        })
        .any(|(name, pod)| {
            let end = End::of_pod(world, name, pod);
            let asked = Question {
                peer: &end,
                ..*question
            };
            asked.is_peer(&peer)
        })
}
