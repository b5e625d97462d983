//! `block-covers-pods`: an ipBlock with addresses of Pods in it. A block is for every sender that has the
//! address, a container as well as a stranger, whatever its labels.

use std::collections::BTreeSet;

use super::Found;
use crate::lint::ground::Ground;
use crate::lint::words;
use crate::policy::{Direction, IpBlock, ObjectName};

/// Pods that are counted.
const MOST: usize = 1_000;

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let mut found = Vec::new();
    for at in ground.rules() {
        for (number, block) in at.blocks() {
            let covered = ground.covered(block, MOST);
            if let Some((message, help)) = report(at.side.direction, block, &covered) {
                found.push(Found {
                    policy: at.policy,
                    field: format!("{}.ipBlock.cidr", at.peer(number)),
                    message,
                    help: help.to_owned(),
                });
            }
        }
    }
    found
}

/// What is to be said of a block that covers these Pods, and what would be right.
fn report(
    direction: Direction,
    block: &IpBlock,
    covered: &BTreeSet<&ObjectName>,
) -> Option<(String, &'static str)> {
    let first = covered.first()?;
    let cidr = &block.cidr;
    if cidr.prefix_len() == cidr.max_prefix_len() {
        return Some((
            format!(
                "{} is the address of Pod `{first}`, and of another one once that is gone",
                cidr.addr()
            ),
            "select a Pod by its labels, with a podSelector",
        ));
    }
    let access = match direction {
        Direction::Ingress => "may come in by this",
        Direction::Egress => "are reached by this",
    };
    let names = words::list(covered.iter().map(|name| format!("`{name}`")));
    Some((
        format!(
            "{cidr} covers addresses of {}, which {access} whatever their labels: {names}",
            words::count(covered.len(), "Pod")
        ),
        "list the containers' networks below `except` where only others are meant",
    ))
}
