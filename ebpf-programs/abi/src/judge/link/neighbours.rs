//! Neighbour discovery (RFC 4861). From the endpoint: solicitations under its own address, or, under
//! none, for its own (duplicate address detection, RFC 4862, 5.4.2), and advertisements of its
//! own addresses, each with its own link-layer address; never what routers say.
//!
//! Hop limit 255 proves that a message was not passed on, but not that it will not be. What goes
//! to a unicast address that is neither link-local, nor an endpoint's, nor the host's is for
//! policy, unless the address was heard on the link: a stranger there may be answered, and asked
//! whether it is still there, or it could not speak IPv6 with an endpoint that policy lets it speak
//! to.

use super::{
    ParsedFrame, PolicyContext, Sent, Subprograms, addresses, arp::is_individual, has_no_address6,
};
use crate::{
    link::{Class, neighbour_index},
    packet::{self, Frame, Packet, icmp},
    reason::Reason,
};

/// Bytes of a neighbour message before its options: type to flags, then the target.
const NEIGHBOUR: usize = 24;
/// Bytes of a router solicitation before its options.
const ROUTER: usize = 8;
/// Bytes of each option that there may be.
const OPTION: usize = 8;

/// Options (RFC 4861, 4.6; RFC 7527, 4.1).
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;
const NONCE: u8 = 14;

/// The flags of an advertisement. A container that routes for others says so: routers are found by
/// their own advertisements alone, so it gains nothing.
const FLAGS: u32 = SOLICITED | 1 << 31 | 1 << 29;
const SOLICITED: u32 = 1 << 30;

const ALL_NODES: u128 = 0xff02 << 112 | 1;
const ALL_ROUTERS: u128 = 0xff02 << 112 | 2;
/// `ff02::1:ff00:0/104` (RFC 4291, 2.7.1).
const SOLICITED_NODE: u128 = 0xff02 << 112 | 0x1_ff00_0000;

/// What of a message differs from kind to kind.
#[derive(Clone, Copy)]
struct Shape {
    /// Bytes before the option.
    fixed: usize,
    /// The option that it may have, once.
    option: u8,
    /// The group that it may go to.
    group: u128,
    /// Is it the endpoint's to say?
    is_own: bool,
}

#[inline(always)]
pub fn sent<T: Subprograms, F: Frame>(
    context: &PolicyContext<'_, T>,
    frame: &F,
    parsed: &ParsedFrame,
) -> Sent {
    const LIE: Sent = Sent::Lie(Reason::ForgedNd);
    let packet = &parsed.packet;
    let at = packet.transport as usize;
    let kind = packet.source_port;
    if packet.destination_port != 0 || !packet::has_neighbour_header(frame, packet) {
        return LIE;
    }
    let Some([_, _, _, _, a, b, c, d]) = frame.read::<[u8; 8]>(at) else {
        return LIE;
    };
    let flags = u32::from_be_bytes([a, b, c, d]);
    let target = if kind == icmp::ROUTER_SOLICITATION {
        0
    } else {
        match frame.read::<[u8; 16]>(at + 8) {
            Some(target) => u128::from_be_bytes(target),
            None => return LIE,
        }
    };
    let from_none = has_no_address6(packet);
    let from_own = !from_none && addresses::may_claim(context, 6, &packet.source);
    let is_target_own = || addresses::may_claim(context, 6, &target.to_be_bytes());
    let shape = match kind {
        icmp::ROUTER_SOLICITATION => Shape {
            fixed: ROUTER,
            option: if from_own { SOURCE_LINK_LAYER } else { 0 },
            group: ALL_ROUTERS,
            is_own: (from_own || from_none) && flags == 0,
        },
        icmp::NEIGHBOUR_SOLICITATION => Shape {
            fixed: NEIGHBOUR,
            option: if from_own { SOURCE_LINK_LAYER } else { NONCE },
            group: SOLICITED_NODE | target & 0xff_ffff,
            is_own: (from_own || (from_none && is_target_own())) && flags == 0,
        },
        icmp::NEIGHBOUR_ADVERTISEMENT => Shape {
            fixed: NEIGHBOUR,
            option: TARGET_LINK_LAYER,
            group: ALL_NODES,
            is_own: from_own && is_target_own() && flags & !FLAGS == 0,
        },
        _ => return LIE,
    };
    if !shape.is_own || !has_own_option(context, frame, at + shape.fixed, packet, shape.option) {
        return LIE;
    }
    let destination = u128::from_be_bytes(packet.destination);
    let mac = parsed.ethernet.destination;
    let is_true = if packet.to_group() {
        // What goes to all nodes was not solicited (RFC 4861, 4.4).
        destination == shape.group
            && packet::is_group_mac(mac, 6, &packet.destination)
            && !(kind == icmp::NEIGHBOUR_ADVERTISEMENT && flags & SOLICITED != 0)
    } else if kind == icmp::ROUTER_SOLICITATION || from_none {
        // These have a group to go to.
        return if from_none { LIE } else { Sent::Elsewhere };
    } else {
        let is_question = kind == icmp::NEIGHBOUR_SOLICITATION;
        if !is_individual(mac) || (is_question && destination != target) {
            return LIE;
        }
        let is_solicited = flags & SOLICITED != 0;
        if !is_on_link(context, packet) && !may_tell(context, packet, is_question, is_solicited) {
            return Sent::Elsewhere;
        }
        true
    };
    if is_true {
        Sent::True(Class::NeighbourDiscovery, 1)
    } else {
        LIE
    }
}

/// Is there nothing behind `at`, or this one option: with the endpoint's own link-layer address, or a nonce?
/// Others are for routers, or would carry what only an accomplice reads; and of two with an
/// address Linux takes the last.
#[inline(always)]
fn has_own_option<T: Subprograms, F: Frame>(
    context: &PolicyContext<'_, T>,
    frame: &F,
    at: usize,
    packet: &Packet,
    option: u8,
) -> bool {
    let end = packet.end as usize;
    if at == end {
        return true;
    }
    if at + OPTION != end || option == 0 {
        return false;
    }
    match frame.read::<[u8; OPTION]>(at) {
        Some([kind, 1, mac @ ..]) => kind == option && (kind == NONCE || mac == context.at.mac),
        _ => false,
    }
}

/// Is the unicast destination link-local, or an endpoint's or the host's?
#[inline(always)]
fn is_on_link<T: Subprograms>(context: &PolicyContext<'_, T>, packet: &Packet) -> bool {
    is_link_local(&packet.destination) || addresses::owner(context, 6, &packet.destination) != 0
}

#[inline(always)]
const fn is_link_local(address: &[u8; 16]) -> bool {
    address[0] == 0xfe && address[1] & 0xc0 == 0x80
}

/// May the endpoint ask this stranger whether it is still there, or answer it?
#[inline(always)]
fn may_tell<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    packet: &Packet,
    is_question: bool,
    is_solicited: bool,
) -> bool {
    let stranger = &packet.destination;
    let index = neighbour_index(context.at.slot, stranger);
    let Some(cell) = context.tables.neighbour(index) else {
        return false;
    };
    let tick = context.tables.tick();
    let mut neighbour = cell.get();
    if is_question {
        return neighbour.may_be_asked(stranger, tick);
    }
    let may = is_solicited && neighbour.answer(stranger, tick);
    if may {
        cell.set(neighbour);
    }
    may
}

/// Remembers a stranger that solicits one of the endpoint's addresses, or advertises its own: it is on
/// the endpoint's link. Neither is needed of link-local addresses, which are nowhere else.
#[inline(always)]
pub fn hear<T: Subprograms, F: Frame>(context: &PolicyContext<'_, T>, frame: &F, packet: &Packet) {
    let at = packet.transport as usize;
    let asks = match packet.source_port {
        icmp::NEIGHBOUR_SOLICITATION => true,
        icmp::NEIGHBOUR_ADVERTISEMENT => false,
        _ => return,
    };
    let Some(target) = frame.read::<[u8; 16]>(at + 8) else {
        return;
    };
    if packet.destination_port != 0 || at + NEIGHBOUR > packet.end as usize {
        return;
    }
    let heard = if asks { &packet.source } else { &target };
    let is_stranger = heard[0] != 0xff
        && u128::from_ne_bytes(*heard) != 0
        && !is_link_local(heard)
        && addresses::owner(context, 6, heard) == 0;
    if !is_stranger || (asks && !addresses::may_claim(context, 6, &target)) {
        return;
    }
    if let Some(cell) = context
        .tables
        .neighbour(neighbour_index(context.at.slot, heard))
    {
        let mut neighbour = cell.get();
        neighbour.hear(heard, asks, context.tables.tick());
        cell.set(neighbour);
    }
}
