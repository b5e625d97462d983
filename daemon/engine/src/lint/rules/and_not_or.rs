//! `and-not-or`: one item with both a namespaceSelector and a podSelector that no Pod meets,
//! where each selector by itself is met: a dash was probably forgotten.

use super::Found;
use crate::labels::Selector;
use crate::lint::ground::{Ground, SIDES};
use crate::lint::words;
use crate::policy::{Namespaces, Peer, PodPeer};

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let mut found = Vec::new();
    for policy in ground.policies() {
        for side in SIDES {
            for (index, rule) in side.of(policy) {
                for (number, peer) in rule.peers.iter().enumerate() {
                    let Peer::Pods(pods) = peer else { continue };
                    let Some([there, here]) = apart(pods, &policy.name.namespace) else {
                        continue;
                    };
                    if !ground.peers(peer).is_empty() {
                        continue;
                    }
                    let [of_there, of_here] = [&there, &here].map(|one| ground.kinds.select(one));
                    if of_there.is_empty() || of_here.is_empty() {
                        continue;
                    }
                    let mut both = [of_there, of_here].concat();
                    both.sort_unstable();
                    both.dedup();
                    found.push(Found {
                        policy,
                        field: side.peer(index, number),
                        message: format!(
                            "both selectors of this item must match one Pod: {}",
                            words::nobody_at(pods)
                        ),
                        help: format!(
                            "where either is enough, make it two items: begin the second with `- `\nas \
                             written: nothing\nas two items: {}",
                            ground.pairs(side, policy, &both)
                        ),
                    });
                }
            }
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
