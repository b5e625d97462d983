//! `selects-nobody`, `peer-matches-nobody`, `namespace-matches-nobody`: selectors that match
//! nothing that there is. The Pod may come yet; more often its label was renamed. Where others
//! than the known ones may exist, only a selector that misses one by a slip is found.

use super::Found;
use crate::lint::ground::Ground;
use crate::lint::{Census, near, words};
use crate::policy::{Namespaces, PodPeer};
use crate::world::Place;

/// Policies for no Pod of this host.
pub(super) fn subjects<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let mut found = Vec::new();
    for policy in ground.policies() {
        if !ground.selected(policy).is_empty() {
            continue;
        }
        let namespace = &policy.name.namespace;
        let unprotected = ground.world.pods.iter().find(|(name, pod)| {
            !pod.is_enforced()
                && name.namespace == *namespace
                && policy.subject.matches(&pod.labels)
        });
        let (message, help) = match unprotected {
            Some((name, pod)) if pod.place == Place::HostNetwork => (
                format!("no policy holds for what this selects: `{name}` is on the host's network"),
                "give it a network of its own, or protect the host".to_owned(),
            ),
            Some((name, _)) => (
                format!("no policy holds here for what this selects: `{name}` is elsewhere"),
                "enforce it on the host that the Pod is on".to_owned(),
            ),
            None => (
                format!("this selects nobody: {}", words::no_pod_of(policy)),
                near::pods_in(ground, namespace, &policy.subject).unwrap_or_default(),
            ),
        };
        found.push(Found {
            policy,
            field: "spec.podSelector".to_owned(),
            message,
            help,
        });
    }
    certain(ground, found)
}

/// Peers that are no Pod.
pub(super) fn peers<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    each(ground, |peer| {
        if !ground.groups.select(peer).is_empty()
            || ground.matches_no_namespace(&peer.namespaces).is_some()
        {
            return None;
        }
        let on_host = ground.world.pods.iter().find(|(name, pod)| {
            pod.place == Place::HostNetwork
                && peer.pods.matches(&pod.labels)
                && match &peer.namespaces {
                    Namespaces::Own(own) => *own == name.namespace,
                    Namespaces::Matching(selector) => {
                        selector.matches(&ground.world.namespace_labels(&name.namespace))
                    }
                }
        });
        if let Some((name, _)) = on_host {
            return Some((
                "",
                format!(
                    "this peer is nobody: `{name}` is on the host's network, and has no address of its own"
                ),
                "the host is a peer by its addresses, in an ipBlock".to_owned(),
            ));
        }
        let help = near::peer(ground, peer).unwrap_or_default();
        Some((
            "",
            format!("this peer is nobody: {}", words::no_pod_at(peer)),
            help,
        ))
    })
}

/// Namespaces that there are not.
pub(super) fn namespaces<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    each(ground, |peer| {
        let selector = ground.matches_no_namespace(&peer.namespaces)?;
        let help = near::namespaces(ground, selector).unwrap_or_default();
        Some((
            ".namespaceSelector",
            format!("no Namespace matches: there is none with {selector}"),
            help,
        ))
    })
}

fn each<'w>(
    ground: &Ground<'w>,
    find: impl Fn(&PodPeer) -> Option<(&'static str, String, String)>,
) -> Vec<Found<'w>> {
    let mut found = Vec::new();
    for at in ground.rules() {
        for (number, pods) in at.pods() {
            if let Some((below, message, help)) = find(pods) {
                found.push(Found {
                    policy: at.policy,
                    field: format!("{}{below}", at.peer(number)),
                    message,
                    help,
                });
            }
        }
    }
    certain(ground, found)
}

/// Without a hint what is missing may just not be known.
fn certain<'w>(ground: &Ground<'w>, mut found: Vec<Found<'w>>) -> Vec<Found<'w>> {
    if ground.census == Census::Partial {
        found.retain(|found| !found.help.is_empty());
    }
    found
}
