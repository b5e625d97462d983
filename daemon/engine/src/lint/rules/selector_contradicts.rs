//! `selector-contradicts`: a selector that no labels can meet, as it asks two different things of one key.

use super::Found;
use crate::lint::ground::Ground;
use crate::policy::Namespaces;

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let mut found = Vec::new();
    for policy in ground.policies() {
        if let Some(key) = policy.subject.contradiction() {
            found.push(Found {
                policy,
                field: "spec.podSelector".to_owned(),
                message: format!(
                    "no Pod can match this: it contradicts itself about the label `{key}`"
                ),
                help: HELP.to_owned(),
            });
        }
    }
    for at in ground.rules() {
        for (number, peer) in at.pods() {
            let of_namespaces = match &peer.namespaces {
                Namespaces::Matching(selector) => selector.contradiction(),
                Namespaces::Own(_) => None,
            };
            let both = [
                ("podSelector", "Pod", peer.pods.contradiction()),
                ("namespaceSelector", "Namespace", of_namespaces),
            ];
            for (field, kind, key) in both {
                if let Some(key) = key {
                    found.push(Found {
                        policy: at.policy,
                        field: format!("{}.{field}", at.peer(number)),
                        message: format!(
                            "no {kind} can match this: it contradicts itself about the label `{key}`"
                        ),
                        help: HELP.to_owned(),
                    });
                }
            }
        }
    }
    found
}

const HELP: &str = "all conditions of a selector must hold at once; for one value or another, write `operator: In` with both";
