//! From a policy set, a peer's class and a port to the rule that allows it.

use super::Subprograms;
use crate::{
    limits::{BLOCK_RANGES, INLINE_RANGES, MAX_BLOCKS},
    packet::protocol,
    tables::{CLASS_ANY, PortRange, VerdictKey},
};

/// Stands for a port in [`find_rule`]: is there any that some rule allows?
pub const SOME_PORT: u32 = 1 << 16;

/// The rule of `policy_set` that allows a peer of `class` this protocol and port, or [`SOME_PORT`]; 0:
/// none.
#[inline(always)]
pub fn find_rule<T: Subprograms>(
    tables: &T,
    policy_set: u64,
    class: u64,
    protocol: u8,
    port: u32,
) -> u32 {
    let entry = match tables.verdict(&VerdictKey { policy_set, class }) {
        Some(entry) => entry,
        // No rule names this class: those for any peer are left.
        None => match tables.verdict(&VerdictKey {
            policy_set,
            class: CLASS_ANY,
        }) {
            Some(entry) => entry,
            None => return 0,
        },
    };
    let mut index = 0;
    while index < INLINE_RANGES {
        if index >= entry.len as usize {
            break;
        }
        let range = &entry.ranges[index];
        if holds(range, protocol, port) {
            return decided(range);
        }
        index += 1;
    }
    if entry.spill == 0 {
        return entry.other;
    }
    match tables.search_blocks(entry.spill, protocol, port) {
        NOT_LISTED => entry.other,
        rule => rule,
    }
}

/// [`search_blocks`] found no range that holds the port.
pub const NOT_LISTED: u32 = u32::MAX - 1;

/// Looks through spilled blocks: the rule that allows, 0 where a rule denies or the chain is
/// broken (what it would have said is unknown), or [`NOT_LISTED`].
///
/// One range after the other: a search by halves is a tree of paths to the kernel's
/// verifier, and long lists are rare. Plain numbers in and out: the programs make it a
/// global function, which is verified once and not again on each path that leads to it.
#[inline(always)]
pub fn search_blocks<T: Subprograms>(tables: &T, spill: u64, protocol: u8, port: u32) -> u32 {
    let mut next = spill;
    let mut walked = 0;
    while walked < MAX_BLOCKS {
        let Some(block) = tables.port_block(next) else {
            return 0;
        };
        let mut index = 0;
        while index < BLOCK_RANGES {
            if index >= block.len as usize {
                break;
            }
            let range = &block.ranges[index];
            if holds(range, protocol, port) {
                return decided(range);
            }
            index += 1;
        }
        next = block.next;
        if next == 0 {
            return NOT_LISTED;
        }
        walked += 1;
    }
    0
}

#[inline(always)]
const fn holds(range: &PortRange, protocol: u8, port: u32) -> bool {
    range.protocol == protocol
        && if port == SOME_PORT {
            range.deny == 0
        } else {
            range.first as u32 <= port && port <= range.last as u32
        }
}

#[inline(always)]
const fn decided(range: &PortRange) -> u32 {
    if range.deny != 0 { 0 } else { range.rule }
}

/// Has this protocol ports that rules can name?
#[inline(always)]
pub(super) const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
}
