//! `port-left-out`: an entry of `ports` without a port beside one that has one, where one dash was probably too many. The entry
//! opens every port of its protocol, so that the other one closes nothing.

use super::Found;
use crate::lint::ground::Ground;
use crate::policy::{Port, Ports};

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let mut found = Vec::new();
    for at in ground.rules() {
        let has_port = |port: &Port| port.ports != Ports::All;
        if !at.rule.ports.iter().any(has_port) {
            continue;
        }
        for (number, port) in at.rule.ports.iter().enumerate() {
            if has_port(port) {
                continue;
            }
            let protocol = port.protocol;
            found.push(Found {
                policy: at.policy,
                field: format!("{}.ports[{number}]", at.field()),
                message: format!("this item opens every port of {protocol}, whatever the other items name"),
                help: format!(
                    "each item that begins with a dash is one by itself; where `protocol: {protocol}` belongs to the item beside \
                     it, write it without its dash"
                ),
            });
        }
    }
    found
}
