//! What the author of a selector that matches nothing may have meant: the Pod or
//! Namespace that misses by a slip of the pen.

use super::ground::Ground;
use crate::labels::{Labels, Operator, Requirement, Selector};
use crate::policy::{Namespaces, PodPeer};
use crate::spelling;
use crate::world::METADATA_NAME;

/// The number of groups of Pods that are searched for a similar one.
const MAX_GROUPS: usize = 2_000;

/// What to write instead, for Pods of one Namespace.
pub(super) fn pods_in(ground: &Ground, namespace: &str, selector: &Selector) -> Option<String> {
    let every_pod = Selector::everything();
    let groups = ground.groups.select_in(namespace, &every_pod);
    let slip = slip(ground, &groups, selector);
    slip.or_else(|| elsewhere(ground, namespace, selector))
}

/// What to write instead, for a peer's Pods.
pub(super) fn peer(ground: &Ground, peer: &PodPeer) -> Option<String> {
    if let Namespaces::Own(own) = &peer.namespaces {
        let groups = ground.groups.select_in(own, &Selector::everything());
        return slip(ground, &groups, &peer.pods).or_else(|| {
            let places = namespaces_with(ground, own, &peer.pods)?;
            Some(format!(
                "without a namespaceSelector a peer is in the policy's own Namespace; Pods like that \
                 are in {places}: add namespaceSelector with {METADATA_NAME}"
            ))
        });
    }
    let there = PodPeer {
        namespaces: peer.namespaces.clone(),
        pods: Selector::everything(),
    };
    let groups = ground.groups.select(&there);
    slip(ground, &groups, &peer.pods).or_else(|| {
        let first = ground.group(*groups.first()?).namespace;
        let places = namespaces_with(ground, first, &peer.pods)?;
        Some(format!("Pods like that are in {places}"))
    })
}

/// What to write instead, for Namespaces.
pub(super) fn namespaces(ground: &Ground, selector: &Selector) -> Option<String> {
    let known: Vec<&str> = ground.namespaces_known().keys().copied().collect();
    for requirement in selector.requirements() {
        let Operator::In(values) = &requirement.operator else {
            continue;
        };
        for value in values {
            if requirement.key != METADATA_NAME
                && requirement.key.ends_with("name")
                && known.contains(&value.as_str())
            {
                return Some(format!(
                    "a Namespace's name is its label {METADATA_NAME}: write `{METADATA_NAME}: {value}`"
                ));
            }
            if requirement.key == METADATA_NAME
                && let Some(meant) = spelling::nearest(value, &known)
                && meant != value
            {
                return Some(format!("there is a Namespace `{meant}`: is that meant?"));
            }
        }
    }
    ground
        .namespaces_known()
        .iter()
        .find_map(|(namespace, labels)| {
            let has = missing(selector, labels)?;
            Some(format!("Namespace `{namespace}` has {has}: is that meant?"))
        })
}

fn slip(ground: &Ground, groups: &[usize], selector: &Selector) -> Option<String> {
    groups.iter().take(MAX_GROUPS).find_map(|group| {
        let group = ground.group(*group);
        let has = missing(selector, group.labels)?;
        let (name, _) = group.pods.first()?;
        Some(format!("Pod `{name}` has {has}: is that meant?"))
    })
}

/// Pods that would be selected, were they not in another Namespace.
fn elsewhere(ground: &Ground, namespace: &str, selector: &Selector) -> Option<String> {
    let places = namespaces_with(ground, namespace, selector)?;
    Some(format!(
        "a policy selects Pods of its own Namespace, and Pods like that are in {places}: is that the \
         Namespace that `metadata.namespace` should name?"
    ))
}

/// The other Namespaces that have such Pods.
fn namespaces_with(ground: &Ground, own: &str, selector: &Selector) -> Option<String> {
    if selector.is_everything() {
        return None;
    }
    let anywhere = PodPeer {
        namespaces: Namespaces::Matching(Selector::everything()),
        pods: selector.clone(),
    };
    let mut places: Vec<&str> = ground
        .groups
        .select(&anywhere)
        .into_iter()
        .map(|group| ground.group(group).namespace)
        .filter(|namespace| *namespace != own)
        .collect();
    places.sort_unstable();
    places.dedup();
    let shown = places.iter().map(|place| format!("`{place}`"));
    (!places.is_empty()).then(|| super::words::list(shown))
}

/// The label that stands where one requirement wants another, all others being met.
fn missing(selector: &Selector, labels: &Labels) -> Option<String> {
    let mut failing = selector
        .requirements()
        .filter(|requirement| !requirement.matches(labels));
    let Requirement {
        key,
        operator: Operator::In(wanted),
    } = failing.next()?
    else {
        return None;
    };
    if failing.next().is_some() {
        return None;
    }
    let (key, value) = match labels.get(key) {
        Some(value) => {
            let alike = |wanted: &String| spelling::resembles(wanted, value);
            wanted.iter().any(alike).then_some((key, value))?
        }
        None => labels.iter().find(|(known, value)| {
            wanted.contains(*value) && spelling::same_but_for_spelling(key, known)
        })?,
    };
    Some(format!("{key}={value}"))
}
