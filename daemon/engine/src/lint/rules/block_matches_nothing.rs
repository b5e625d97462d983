//! `block-matches-nothing`: an ipBlock that holds no address that a packet has: its excepts cover it, or it is in 0.0.0.0/8.

use ipnet::IpNet;

use super::Found;
use crate::lint::ground::Ground;
use crate::policy::IpBlock;

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let mut found = Vec::new();
    for at in ground.rules() {
        for (number, block) in at.blocks() {
            let (message, help) = if is_covered(block) {
                (
                    format!(
                        "the excepts take all of {} out again: the block holds no address",
                        block.cidr
                    ),
                    "leave out an except, or the block".to_owned(),
                )
            } else if is_nowhere(&block.cidr) {
                (
                    format!(
                        "no packet has an address in {}: it is \"this network\" (RFC 1122, section 3.2.1.3)",
                        block.cidr
                    ),
                    "for every IPv4 address write `0.0.0.0/0`".to_owned(),
                )
            } else {
                continue;
            };
            found.push(Found {
                policy: at.policy,
                field: format!("{}.ipBlock", at.peer(number)),
                message,
                help,
            });
        }
    }
    found
}

fn is_covered(block: &IpBlock) -> bool {
    let excepts = IpNet::aggregate(&block.except);
    excepts.iter().any(|except| except.contains(&block.cidr))
}

fn is_nowhere(cidr: &IpNet) -> bool {
    matches!(cidr, IpNet::V4(net) if net.prefix_len() >= 8 && net.network().octets()[0] == 0)
}
