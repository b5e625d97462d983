//! What findings call things: Pods, selectors, lists that do not end.

use std::fmt::Display;

use crate::labels::Selector;
use crate::policy::{Namespaces, ObjectName, PodPeer, Policy};

/// Names that a list shows before it only counts.
const SHOWN: usize = 4;

/// `a, b, c and 7 more`
pub(super) fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let mut items = items.into_iter();
    let shown: Vec<String> = items
        .by_ref()
        .take(SHOWN)
        .map(|item| item.to_string())
        .collect();
    match items.count() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// `1 Pod`, `3 Pods`
pub(super) fn count(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `every Pod in Namespace shop`, `Pods with app=web in Namespace shop`
pub(super) fn subject(policy: &Policy) -> String {
    pods(
        &policy.subject,
        &format!("Namespace `{}`", policy.name.namespace),
    )
}

/// The Pods that a peer means.
pub(super) fn peer(peer: &PodPeer) -> String {
    pods(&peer.pods, &place(&peer.namespaces))
}

/// Why no Pod is there: `no Pod in Namespace shop matches app=web`
pub(super) fn no_pod_of(policy: &Policy) -> String {
    no_pod(
        &policy.subject,
        &format!("Namespace `{}`", policy.name.namespace),
    )
}

/// The same, of a peer.
pub(super) fn no_pod_at(peer: &PodPeer) -> String {
    no_pod(&peer.pods, &place(&peer.namespaces))
}

fn no_pod(selector: &Selector, there: &str) -> String {
    if selector.is_everything() {
        format!("there is no Pod in {there}")
    } else {
        format!("no Pod in {there} matches {selector}")
    }
}

fn place(namespaces: &Namespaces) -> String {
    match namespaces {
        Namespaces::Own(own) => format!("Namespace `{own}`"),
        Namespaces::Matching(selector) if selector.is_everything() => "any Namespace".to_owned(),
        Namespaces::Matching(selector) => format!("Namespaces with {selector}"),
    }
}

fn pods(selector: &Selector, there: &str) -> String {
    if selector.is_everything() {
        format!("every Pod in {there}")
    } else {
        format!("Pods with {selector} in {there}")
    }
}

/// `a -> b, a -> c and 2 more`; in the order of traffic, a Pod with itself left out.
pub(super) fn pairs(from: &[&ObjectName], to: &[&ObjectName]) -> String {
    let shown: Vec<String> = from
        .iter()
        .flat_map(|from| to.iter().map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
        .take(SHOWN)
        .map(|(from, to)| format!("{from} -> {to}"))
        .collect();
    let itself = from.iter().filter(|name| to.binary_search(name).is_ok());
    match from.len() * to.len() - itself.count() - shown.len() {
        0 if shown.is_empty() => "nothing".to_owned(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
