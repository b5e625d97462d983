//! `or-not-and`: two items of a list, one with a namespaceSelector alone and one with a
//! podSelector alone, where one dash was probably too many. Each item is a peer by itself: read
//! as one, the two would allow far less.

use super::Found;
use crate::lint::ground::{Ground, RuleAt};
use crate::lint::words;
use crate::policy::{Namespaces, PodPeer};

/// Items of a list that are looked at: a longer list is not the work of a forgotten dash.
const MAX_ITEMS: usize = 50;

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let mut found = Vec::new();
    for at in ground.rules() {
        // A podSelector's item with the namespaceSelector's that is next to it, others aside.
        let mut before: Option<(usize, &PodPeer)> = None;
        for (number, pods) in at.pods().take(MAX_ITEMS) {
            if let Some((first, one)) = before
                && let Some(joined) = joined(one, pods).or_else(|| joined(pods, one))
            {
                let two = [(first, one), (number, pods)];
                found.extend(report(ground, at, two, &joined));
                before = None;
            } else {
                before = Some((number, pods));
            }
        }
    }
    found
}

/// The one peer that these two would be: a Namespace's labels, and a Pod's.
fn joined(there: &PodPeer, pods: &PodPeer) -> Option<PodPeer> {
    match (&there.namespaces, &pods.namespaces) {
        (Namespaces::Matching(_), Namespaces::Own(_))
            if there.pods.is_everything() && !pods.pods.is_everything() =>
        {
            Some(PodPeer {
                namespaces: there.namespaces.clone(),
                pods: pods.pods.clone(),
            })
        }
        _ => None,
    }
}

fn report<'w>(
    ground: &Ground<'w>,
    at: RuleAt<'w>,
    [(first, one), (second, other)]: [(usize, &PodPeer); 2],
    joined: &PodPeer,
) -> Option<Found<'w>> {
    let meant = ground.groups.select(joined);
    // With Pods to look at, a reading that is for none of them was not meant.
    if ground.has_pods() && meant.is_empty() {
        return None;
    }
    let mut help = format!(
        "where {} are meant, make it one item: write the second without its dash",
        words::peer(joined)
    );
    if ground.has_pods() {
        let mut written = [one, other].map(|peer| ground.groups.select(peer)).concat();
        written.sort_unstable();
        written.dedup();
        let pairs = |groups: &[usize]| ground.pairs(at.side, at.policy, groups);
        help.push_str(&format!(
            "\nas written: {}\nas one item: {}",
            pairs(&written),
            pairs(&meant)
        ));
    }
    let peers = at.side.peers;
    Some(Found {
        policy: at.policy,
        field: at.peer(second),
        message: format!(
            "`{peers}[{first}]` and `{peers}[{second}]` are two peers, either of which is enough: {}, or {}",
            words::peer(one),
            words::peer(other)
        ),
        help,
    })
}
