//! The smallest policy that would allow a connection on one side: for this Pod, this peer,
//! this port, and as few others as labels can tell apart.
//!
//! It only ever adds. A policy isolates what it selects, so it must select no Pod that is not
//! isolated yet: its `podSelector` holds what one of the policies that isolate this Pod asks
//! for, and more. That is true of Pods that come later, too.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Case, yaml};
use crate::evaluate::{self, Connection, End, Policed, Question};
use crate::labels::{Labels, Operator, Requirement, Selector};
use crate::names;
use crate::policy::{
    Action, Direction, IpBlock, Mode, Namespaces, ObjectName, Peer, PodPeer, Policy, Port, Ports,
    Rule, Tier,
};
use crate::world::{METADATA_NAME, Place, World};

/// A policy to add.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// Its name, which is free.
    pub name: ObjectName,
    /// The manifest, valid as it stands.
    pub yaml: String,
    /// The Pod has no label to select it by: the policy selects all that another one does.
    pub unlabelled: bool,
    /// The peer has no label to select it by: the whole Namespace is let through.
    pub unlabelled_peer: bool,
    /// Other Pods that it lets such a connection through for.
    pub also_selects: BTreeSet<ObjectName>,
    /// Other peers that it lets through.
    pub also_peers: BTreeSet<ObjectName>,
}

impl Suggestion {
    /// `None` where no policy helps: a rule denies it before NetworkPolicy is asked, or there
    /// is no way to name the peer or the port.
    pub(super) fn find(
        case: &Case,
        direction: Direction,
        verdict: &evaluate::Side,
    ) -> Option<Self> {
        let Case { world, connection } = case;
        let policed = connection.policed(direction);
        let question = connection.question(direction);
        // Port 0 is no port that a rule can name.
        if is_denied_by_a_rule(verdict) || connection.port == 0 {
            return None;
        }
        let (own, pod) = policed.end.pod?;
        let neighbours: Vec<&Labels> = in_namespace(world, &own.namespace)
            .filter(|(name, pod)| *name != own && pod.is_enforced())
            .map(|(_, pod)| &pod.labels)
            .collect();
        let labels = distinguishing(&pod.labels, &neighbours);
        let subject = isolated_already(&policed.policies, &labels)?;
        let (peer, unlabelled_peer) = peer(world, own, &question)?;
        let also = Also::opened_by(case, direction, &subject, std::slice::from_ref(&peer));
        let port = Port {
            protocol: connection.protocol,
            ports: Ports::Range(connection.port, connection.port),
        };
        let rules = Some(vec![Rule {
            action: Action::Allow,
            peers: vec![peer],
            ports: vec![port],
        }]);
        let (ingress, egress) = match direction {
            Direction::Ingress => (rules, None),
            Direction::Egress => (None, rules),
        };
        let policy = Policy {
            name: free_name(world, own, &question),
            tier: Tier::NetworkPolicy,
            mode: Mode::Enforce,
            subject,
            ingress,
            egress,
        };
        Some(Self {
            yaml: yaml::document(&policy),
            unlabelled: labels.is_empty(),
            unlabelled_peer,
            also_selects: also.selects,
            also_peers: also.peers,
            name: policy.name.clone(),
        })
    }
}

/// Does a rule deny it before NetworkPolicy is asked? Then no change of a NetworkPolicy helps.
pub(super) fn is_denied_by_a_rule(verdict: &evaluate::Side) -> bool {
    verdict.by.iter().any(|by| by.rule.is_some())
}

/// The Pods of one namespace that labels can select.
fn in_namespace<'w>(
    world: &'w World,
    namespace: &str,
) -> impl Iterator<Item = (&'w ObjectName, &'w crate::world::Pod)> {
    world
        .pods
        .iter()
        .filter(move |(name, pod)| name.namespace == namespace && pod.place != Place::HostNetwork)
}

/// Keys that say what a Pod is, those that people select by first.
const IDENTITY: [&str; 10] = [
    "app",
    "app.kubernetes.io/name",
    "k8s-app",
    "app.kubernetes.io/component",
    "component",
    "tier",
    "role",
    "com.docker.compose.service",
    "name",
    "app.kubernetes.io/instance",
];

/// Keys whose values change with a version, a rollout or a replica: a policy by them would
/// not outlive the next one.
const FLEETING: [&str; 11] = [
    "pod-template-hash",
    "pod-template-generation",
    "controller-revision-hash",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    "job-name",
    "batch.kubernetes.io/job-name",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "version",
    "app.kubernetes.io/version",
];

/// Prefixes of keys that image builders and Compose write for themselves.
const FLEETING_PREFIXES: [&str; 3] = ["org.opencontainers.", "org.label-schema.", "helm.sh/"];

fn rank(key: &str) -> usize {
    let known = IDENTITY.iter().position(|known| *known == key);
    let is_fleeting = FLEETING.contains(&key)
        || FLEETING_PREFIXES
            .iter()
            .any(|prefix| key.starts_with(prefix))
        || (key.starts_with("com.docker.compose.")
            && key != "com.docker.compose.project"
            && known.is_none());
    match known {
        Some(rank) => rank,
        None if is_fleeting => 1000,
        None if key.contains('/') => 101,
        None => 100,
    }
}

/// As few labels as tell a Pod from its neighbours, as far as any do: the one that people
/// would select it by, then those that leave the fewest others.
fn distinguishing(labels: &Labels, neighbours: &[&Labels]) -> Vec<Requirement> {
    let mut ranked: Vec<(usize, &String, &String)> = labels
        .iter()
        .filter(|(key, value)| names::is_pair(key, value))
        .map(|(key, value)| (rank(key), key, value))
        .collect();
    ranked.sort();
    let stable = ranked.iter().take_while(|(rank, ..)| *rank < 1000).count();
    // Better a label that will change than none.
    ranked.truncate(stable.max(1));
    let mut left: Vec<&Labels> = neighbours.to_vec();
    let mut chosen = Vec::new();
    while !ranked.is_empty() && (chosen.is_empty() || !left.is_empty()) {
        let caught = |(_, key, value): &(usize, &String, &String)| {
            let has = left
                .iter()
                .filter(|labels| labels.get(*key) == Some(*value));
            has.count()
        };
        let best = if chosen.is_empty() {
            0
        } else {
            let counts: Vec<usize> = ranked.iter().map(caught).collect();
            let fewest = counts.iter().copied().min().unwrap_or(0);
            if fewest == left.len() {
                break;
            }
            counts
                .iter()
                .position(|count| *count == fewest)
                .unwrap_or(0)
        };
        let (_, key, value) = ranked.remove(best);
        left.retain(|labels| labels.get(key) == Some(value));
        chosen.push(Requirement::equals(key, value));
    }
    chosen
}

/// Those labels, and what they leave open of the policy that isolates with the fewest words:
/// every Pod that matches is isolated by that policy already.
fn isolated_already(policies: &[&Policy], labels: &[Requirement]) -> Option<Selector> {
    let missing = |policy: &Policy| -> Vec<Requirement> {
        let open = policy.subject.requirements();
        open.filter(|requirement| !labels.iter().any(|label| implies(label, requirement)))
            .cloned()
            .collect()
    };
    let missing = policies
        .iter()
        .filter(|policy| policy.tier == Tier::NetworkPolicy)
        .map(|policy| missing(policy))
        .min_by_key(Vec::len)?;
    Some(Selector::new(labels.iter().cloned().chain(missing)))
}

/// Does a label with this one value fulfil a requirement?
fn implies(label: &Requirement, requirement: &Requirement) -> bool {
    let Operator::In(values) = &label.operator else {
        return false;
    };
    label.key == requirement.key
        && values
            .iter()
            .all(|value| requirement.matches(&[(label.key.clone(), value.clone())].into()))
}

/// The other end as a peer, and whether it has no label to name it by.
fn peer(world: &World, own: &ObjectName, question: &Question) -> Option<(Peer, bool)> {
    let Some((name, pod)) = question.peer.pod else {
        let cidr = question.peer_address?.into();
        let except = Vec::new();
        return Some((Peer::Block(IpBlock { cidr, except }), false));
    };
    let neighbours: Vec<&Labels> = in_namespace(world, &name.namespace)
        .filter(|(other, _)| *other != name)
        .map(|(_, pod)| &pod.labels)
        .collect();
    let labels = distinguishing(&pod.labels, &neighbours);
    let is_unlabelled = labels.is_empty();
    let namespaces = if name.namespace == own.namespace {
        Namespaces::Own(own.namespace.clone())
    } else {
        let here = Requirement::equals(METADATA_NAME, &name.namespace);
        Namespaces::Matching(Selector::new([here]))
    };
    let pods = Selector::new(labels);
    Some((Peer::Pods(PodPeer { namespaces, pods }), is_unlabelled))
}

/// `allow-db-from-web`, or with a number after it where that is taken.
fn free_name(world: &World, own: &ObjectName, question: &Question) -> ObjectName {
    const LONGEST: usize = 100;
    let other = match (question.peer.pod, question.peer_address) {
        (Some((name, _)), _) => name.name.clone(),
        (None, _) if question.peer.host => "host".to_owned(),
        (None, Some(address)) => address.to_string(),
        (None, None) => "peer".to_owned(),
    };
    let word = match question.direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let part = |text: &str| {
        let mut part = String::new();
        for letter in text.chars().take(LONGEST) {
            let letter = letter.to_ascii_lowercase();
            if letter.is_ascii_lowercase() || letter.is_ascii_digit() {
                part.push(letter);
            } else if !part.ends_with('-') {
                part.push('-');
            }
        }
        part.trim_matches('-').to_owned()
    };
    let name = format!("allow-{}-{word}-{}", part(&own.name), part(&other));
    let name = name.trim_end_matches('-');
    let numbered = (2..).map(|number: u32| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned())
        .chain(numbered)
        .map(|name| ObjectName::new(&own.namespace, name));
    names
        .find(|name| !world.policies.contains_key(name))
        .unwrap_or_default()
}

/// Who else may then open the same connection, where what is between them is denied now.
#[derive(Default)]
pub(super) struct Also {
    /// Other Pods that the policy selects.
    pub selects: BTreeSet<ObjectName>,
    /// Other peers that it lets through.
    pub peers: BTreeSet<ObjectName>,
}

impl Also {
    /// Of a policy beside this end that lets `wanted` through for the Pods that `subject` selects.
    /// Blocks are of one address.
    pub(super) fn opened_by(
        case: &Case,
        direction: Direction,
        subject: &Selector,
        wanted: &[Peer],
    ) -> Self {
        let world = case.world;
        let question = case.connection.question(direction);
        let Some((this, _)) = case.connection.policed(direction).end.pod else {
            return Self::default();
        };
        let named: Vec<(&ObjectName, Policed)> = world
            .pods
            .iter()
            .map(|(name, pod)| (name, pod, End::of_pod(world, name, pod)))
            .filter(|(_, pod, end)| {
                let asked = Question {
                    peer: end,
                    ..question
                };
                let is_meant = |peer: &Peer| match peer {
                    Peer::Pods(_) => asked.is_peer(peer),
                    Peer::Block(IpBlock { cidr, .. }) => {
                        pod.addresses.iter().any(|address| cidr.contains(address))
                    }
                };
                question.peer.pod.is_some() && wanted.iter().any(is_meant)
            })
            .map(|(name, _, end)| (name, Policed::unasked(end)))
            .collect();
        // A peer without a name is an address of its own.
        let stranger = Policed::unasked(question.peer.clone());
        let peers: Vec<(Option<&ObjectName>, &Policed)> = if named.is_empty() {
            vec![(None, &stranger)]
        } else {
            named
                .iter()
                .map(|(name, peer)| (Some(*name), peer))
                .collect()
        };
        let selected = in_namespace(world, &this.namespace)
            .filter(|(_, pod)| pod.is_enforced() && subject.matches(&pod.labels));
        let mut also = Self::default();
        for (name, pod) in selected {
            let own = Policed::new(world, End::of_pod(world, name, pod), direction);
            let is_denied = |peer: &Policed| {
                let (from, to) = match direction {
                    Direction::Ingress => (peer, &own),
                    Direction::Egress => (&own, peer),
                };
                let asked = Connection {
                    from,
                    to,
                    ..case.connection
                };
                !asked.allows(direction)
            };
            for (peer_name, peer) in &peers {
                // What it may by one of its addresses, an ipBlock may deny it by another.
                if is_denied(peer) || peer.at_each_address().any(|peer| is_denied(&peer)) {
                    also.selects.insert(name.clone());
                    also.peers.extend(peer_name.cloned());
                }
            }
        }
        also.selects.remove(this);
        if let Some((name, _)) = question.peer.pod {
            also.peers.remove(name);
        }
        also
    }
}
