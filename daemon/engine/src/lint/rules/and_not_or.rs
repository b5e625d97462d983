//! `and-not-or`: one item with both a namespaceSelector and a podSelector that no Pod meets,
//! where each selector by itself is met: a dash was probably forgotten.

use super::Found;
use crate::labels::Selector;
use crate::lint::ground::Ground;
use crate::lint::words;
use crate::policy::{Namespaces, PodPeer};

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let mut found = Vec::new();
    for at in ground.rules() {
        for (number, pods) in at.pods() {
            let Some([there, here]) = apart(pods, &at.policy.name.namespace) else {
                continue;
            };
            if !ground.groups.select(pods).is_empty() {
                continue;
            }
            let [of_there, of_here] = [&there, &here].map(|one| ground.groups.select(one));
            if of_there.is_empty() || of_here.is_empty() {
                continue;
            }
            let mut both = [of_there, of_here].concat();
            both.sort_unstable();
            both.dedup();
            found.push(Found {
                policy: at.policy,
                field: at.peer(number),
                message: format!(
                    "both selectors of this item must match one Pod: {}",
                    words::no_pod_at(pods)
                ),
                help: format!(
                    "where either is enough, make it two items: begin the second with `- `\n\
                     as written: nothing\nas two items: {}",
                    ground.pairs(at.side, at.policy, &both)
                ),
            });
        }
    }
    found
}

/// The two peers that this one would be with another dash.
fn apart(peer: &PodPeer, own: &str) -> Option<[PodPeer; 2]> {
    let Namespaces::Matching(_) = peer.namespaces else {
        return None;
    };
    (!peer.pods.is_everything()).then(|| {
        [
            PodPeer {
                namespaces: peer.namespaces.clone(),
                pods: Selector::everything(),
            },
            PodPeer {
                namespaces: Namespaces::Own(own.to_owned()),
                pods: peer.pods.clone(),
            },
        ]
    })
}
