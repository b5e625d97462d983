//! What keeps a link working: ARP, neighbour discovery, group membership, leases. It passes
//! when it tells the truth, whatever policy says; a lie is dropped, whether or not
//! a policy isolates the endpoint: one forged answer diverts a neighbour's traffic.
//!
//! As it passes whatever policy says, an endpoint could speak by it to another that policy keeps it
//! from. So a message has every field as stacks send it, ends where it says, carries
//! nothing that it does not need, and each endpoint has a budget of each class ([`crate::link`]).
//! That is held to where a message is sent. Towards an endpoint it was checked where it came
//! from, or comes from beyond this host.

mod arp;
mod groups;
mod neighbours;

use super::{ParsedFrame, PolicyContext, Subprograms, addresses};
use crate::{
    link::{Class, rate_index},
    packet::{self, Direction, Frame, Membership, Packet, Piece, ethertype},
    reason::Reason,
};

/// What is found of a message from the endpoint.
enum Sent {
    /// It is true, and costs so much of its class.
    True(Class, u32),
    /// It is none, or more than the message.
    Lie(Reason),
    /// It is not the link's, but policy's.
    Elsewhere,
}

/// What keeps a link working, and what may only come from a router or a server of it; `None`: the
/// packet is neither.
#[inline(always)]
pub fn control<T: Subprograms, F: Frame>(
    tables: &T,
    frame: &F,
    parsed: &ParsedFrame,
) -> Option<Reason> {
    let Some(context) = &PolicyContext::find(tables, &parsed.endpoint) else {
        return Some(Reason::Unidentified);
    };
    let packet = &parsed.packet;
    let is_whole = packet.piece == Piece::Whole;
    if packet.is_neighbour_discovery() && (!is_whole || packet.hops != 255) {
        // Not to be taken to pieces (RFC 6980, 5), as its options could not be read; and what was
        // passed on did not come from the link (RFC 4861, 3.1).
        return Some(Reason::ForgedNd);
    }
    let membership = if is_whole && packet.is_any_membership() {
        packet::membership(frame, packet, || tables.records(frame, parsed))
    } else {
        None
    };
    match context.at.direction() {
        Direction::Ingress => received(context, frame, parsed, is_whole, membership),
        Direction::Egress => match sent(context, frame, parsed, is_whole, membership) {
            Sent::True(class, cost) => Some(within_budget(context, class, cost)),
            Sent::Lie(reason) => Some(reason),
            Sent::Elsewhere => None,
        },
    }
}

#[inline(always)]
fn sent<T: Subprograms, F: Frame>(
    context: &PolicyContext<'_, T>,
    frame: &F,
    parsed: &ParsedFrame,
    is_whole: bool,
    membership: Option<Membership>,
) -> Sent {
    let packet = &parsed.packet;
    if parsed.ethernet.ethertype == ethertype::ARP {
        return arp::sent(context, frame, parsed);
    }
    if packet.is_neighbour_discovery() {
        return neighbours::sent(context, frame, parsed);
    }
    if is_whole && packet.is_any_membership() {
        return groups::sent(context, frame, parsed, membership);
    }
    // As a server, or with nothing but a client's port in common with its question.
    if packet.is_to_lease_client() {
        return Sent::Lie(Reason::ForgedDhcp);
    }
    if is_whole && packet.is_dhcp_question() {
        return lease_sent(context, packet);
    }
    Sent::Elsewhere
}

#[inline(always)]
fn received<T: Subprograms, F: Frame>(
    context: &PolicyContext<'_, T>,
    frame: &F,
    parsed: &ParsedFrame,
    is_whole: bool,
    membership: Option<Membership>,
) -> Option<Reason> {
    let packet = &parsed.packet;
    if parsed.ethernet.ethertype == ethertype::ARP {
        return Some(arp::received(context, frame));
    }
    if packet.is_neighbour_discovery() {
        neighbours::hear(context, frame, packet);
        return Some(Reason::NeighbourDiscovery);
    }
    // From beyond this host come routers' queries, and others' reports: they go no further than the
    // link, and are as long as they say. What is not is for policy.
    if membership.is_some() && packet.hops == 1 && packet.to_group() {
        return Some(Reason::GroupMembership);
    }
    (is_whole && packet.is_dhcp_answer()).then_some(Reason::LinkControl)
}

/// Takes the message's cost out of the endpoint's budget, where there is that much.
#[inline(always)]
fn within_budget<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    class: Class,
    cost: u32,
) -> Reason {
    let Some(cell) = context.tables.link_rate(rate_index(context.at.slot, class)) else {
        return Reason::LinkRate;
    };
    let mut rate = cell.get();
    if !rate.spend(class, cost, context.isolated(), context.tables.tick()) {
        return Reason::LinkRate;
    }
    cell.set(rate);
    match class {
        Class::Arp => Reason::Arp,
        Class::NeighbourDiscovery => Reason::NeighbourDiscovery,
        Class::ListenerDiscovery | Class::GroupMembership => Reason::GroupMembership,
        Class::Lease => Reason::LinkControl,
    }
}

/// DHCP and DHCPv6: a client asks every host on the link, and only a host that is no container answers. What a
/// client asks one server, to keep its lease, is for policy; where it denies that, the client
/// asks every host again.
#[inline(always)]
fn lease_sent<T: Subprograms>(context: &PolicyContext<'_, T>, packet: &Packet) -> Sent {
    let is_own = if packet.version == 4 {
        has_no_address4(packet) || addresses::is_own(context, 4, &packet.source)
    } else {
        addresses::is_own(context, 6, &packet.source)
    };
    if is_own {
        Sent::True(Class::Lease, 1)
    } else {
        Sent::Lie(Reason::SpoofedAddress)
    }
}

#[inline(always)]
fn has_no_address4(packet: &Packet) -> bool {
    u32::from_ne_bytes(addresses::v4(&packet.source)) == 0
}

#[inline(always)]
fn has_no_address6(packet: &Packet) -> bool {
    u128::from_ne_bytes(packet.source) == 0
}
