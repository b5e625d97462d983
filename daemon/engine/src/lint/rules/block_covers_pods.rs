//! `block-covers-pods`: an ipBlock with addresses of Pods in it. A block is for whoever has the
//! address, a container as well as a stranger, whatever its labels.

use super::Found;
use crate::lint::ground::{Ground, SIDES};
use crate::lint::words;
use crate::policy::{Direction, Peer};

/// Pods that are counted.
const MOST: usize = 1_000;

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let mut found = Vec::new();
    for policy in ground.policies() {
        for side in SIDES {
            for (index, rule) in side.of(policy) {
                for (number, peer) in rule.peers.iter().enumerate() {
                    let Peer::Block(block) = peer else { continue };
                    let covered = ground.covered(block, MOST);
                    let Some(first) = covered.first() else {
                        continue;
                    };
                    let cidr = &block.cidr;
                    let single = cidr.prefix_len() == cidr.max_prefix_len();
                    let names = words::list(covered.iter().map(|name| format!("`{name}`")));
                    let message = if single {
                        format!(
                            "{} is the address of Pod `{first}`, and of another one once that is gone",
                            cidr.addr()
                        )
                    } else {
                        let access = match side.direction {
                            Direction::Ingress => "may come in by this",
                            Direction::Egress => "are reached by this",
                        };
                        format!(
                            "{cidr} covers addresses of {}, which {access} whatever their labels: {names}",
                            words::count(covered.len(), "Pod")
                        )
                    };
                    let help = if single {
                        "select a Pod by its labels, with a podSelector".to_owned()
                    } else {
                        "list the containers' networks below `except` where only others are meant"
                            .to_owned()
                    };
                    found.push(Found {
                        policy,
                        field: format!("{}.ipBlock.cidr", side.peer(index, number)),
                        message,
                        help,
                    });
                }
            }
        }
    }
    found
}
