//! From addresses and ports to a verdict: who is the peer, what does the subject say.

use super::{Ruling, Scene, Tables};
use crate::{
    limits::{BLOCK_RANGES, INLINE_RANGES, MAX_BLOCKS},
    packet::{Direction, Packet, protocol},
    reason::Reason,
    tables::{
        Address, CLASS_ANY, CLASS_UNLISTED, OWNER_HOST, PortRange, SUBJECT_NOT_ISOLATED,
        VerdictKey, control_flags,
    },
};

/// The first four octets: where an IPv4 address stands.
#[inline(always)]
pub(super) const fn v4(address: &[u8; 16]) -> [u8; 4] {
    let [a, b, c, d, ..] = *address;
    u32::from_ne_bytes([a, b, c, d]).to_ne_bytes()
}

#[inline(always)]
pub(super) fn owner4<T: Tables>(scene: &Scene<'_, T>, address: &[u8; 4]) -> u32 {
    owner(scene, scene.tables.address4(address))
}

#[inline(always)]
pub(super) fn owner6<T: Tables>(scene: &Scene<'_, T>, address: &[u8; 16]) -> u32 {
    owner(scene, scene.tables.address6(address))
}

/// Number of the endpoint that owns the address in this lane; 0: none.
#[inline(always)]
fn owner<T>(scene: &Scene<'_, T>, entry: Option<&Address>) -> u32 {
    match entry {
        Some(entry) if entry.class[scene.lane()] != CLASS_UNLISTED => entry.owner[scene.lane()],
        _ => 0,
    }
}

/// Does the address belong to the endpoint itself?
#[inline(always)]
pub(super) fn is_own<T: Tables>(scene: &Scene<'_, T>, version: u8, address: &[u8; 16]) -> bool {
    let owner = if version == 4 {
        owner4(scene, &v4(address))
    } else {
        owner6(scene, address)
    };
    owner == scene.id
}

/// Who is behind an address.
#[derive(Clone, Copy)]
struct Peer {
    class: u64,
    owner: u32,
}

/// Exact addresses first; strangers by their longest prefix.
#[inline(always)]
fn classify<T: Tables>(scene: &Scene<'_, T>, version: u8, address: &[u8; 16]) -> Peer {
    let short = v4(address);
    let exact = if version == 4 {
        scene.tables.address4(&short)
    } else {
        scene.tables.address6(address)
    };
    if let Some(entry) = exact {
        let class = entry.class[scene.lane()];
        if class != CLASS_UNLISTED {
            return Peer {
                class,
                owner: entry.owner[scene.lane()],
            };
        }
    }
    let covering = if version == 4 {
        scene.tables.prefix4(&short)
    } else {
        scene.tables.prefix6(address)
    };
    let class = match covering {
        Some(prefix) => prefix.class[scene.lane()],
        None => CLASS_ANY,
    };
    Peer { class, owner: 0 }
}

/// What policy says of a connection that is opened in `opening` (which differs from the
/// packet's own direction when a known connection is judged again by one of its replies).
#[inline(always)]
pub(super) fn policy<T: Tables>(
    scene: &Scene<'_, T>,
    opening: Direction,
    packet: &Packet,
    peer: &[u8; 16],
    port: u16,
) -> Ruling {
    let subject = scene.subject(opening);
    if subject == SUBJECT_NOT_ISOLATED {
        return Ruling::of(Reason::NotIsolated);
    }
    let peer = classify(scene, packet.version, peer);
    if peer.owner == scene.id {
        return Ruling::of(Reason::Itself);
    }
    let host_passes = match opening {
        Direction::Ingress => control_flags::HOST_INGRESS,
        Direction::Egress => control_flags::HOST_EGRESS,
    };
    if peer.owner == OWNER_HOST && scene.flags & host_passes != 0 {
        return Ruling::of(Reason::Host);
    }
    let rule = find_rule(scene.tables, subject, peer.class, packet.protocol, port);
    let reason = if rule == 0 {
        Reason::PolicyDenied
    } else {
        Reason::RuleAllowed
    };
    Ruling {
        rule,
        subject,
        ..Ruling::of(reason)
    }
}

/// The rule of `subject` that allows a peer of `class` this protocol and port; 0: none.
#[inline(always)]
pub fn find_rule<T: Tables>(tables: &T, subject: u64, class: u64, protocol: u8, port: u16) -> u32 {
    let entry = match tables.verdict(&VerdictKey { subject, class }) {
        Some(entry) => entry,
        // No rule names this class: those for any peer are left.
        None => match tables.verdict(&VerdictKey {
            subject,
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
/// global function, which is verified once and not anew on each path that leads to it.
#[inline(always)]
pub fn search_blocks<T: Tables>(tables: &T, spill: u64, protocol: u8, port: u16) -> u32 {
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
const fn holds(range: &PortRange, protocol: u8, port: u16) -> bool {
    range.protocol == protocol && range.first <= port && port <= range.last
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
