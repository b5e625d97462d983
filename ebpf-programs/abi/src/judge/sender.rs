//! The sender of a packet that arrives at an endpoint. The source address alone does not tell: network address
//! translation on this host replaces it, and any host that can route to an endpoint can write any address into a packet.
//!
//! ```text
//!  endpoint A ─▶ [egress: writes the stamp of A] ─▶ bridge, routes, NAT, tunnels ─▶ [ingress: reads it] ─▶ endpoint B
//! ```
//!
//! What is known at the receiving hook, in the order in which it is asked:
//!
//! 1. The host sent the packet itself: no interface received it (`skb->skb_iif` is 0, which
//!    `__netif_receive_skb_core` sets for every received packet).
//! 2. The stamp in `skb->tc_index` names the endpoint. The egress hook of every endpoint writes it; forwarding,
//!    bridging, NAT, fragmentation and decapsulation keep it.
//! 3. Without a stamp (another TC program that returns `TC_ACT_OK` clears it): the port or bridge by which the
//!    host received the packet is one of the endpoint's own.
//!
//! Only for connections that the peer opens: what an endpoint opens is judged by where it is sent.

use super::{ParsedFrame, PolicyContext, Subprograms, addresses};
use crate::{
    packet::{Arrival, Direction, Piece},
    tables::{
        BRIDGES, CLASS_ANY, CLASS_UNLISTED, Control, Flow, OWNER_HOST, endpoint_flags, flow_flags,
        sender_key, stamp, stamped_slot,
    },
};

/// What a peer was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SenderKind {
    /// The one that has the source address, or a stranger without any proof to ask for.
    Address = 0,
    /// An endpoint of this host, the one in the stamp, under another address.
    Translated = 1,
    /// The source address is the host's, and the host did not send the packet: it counts as an address
    /// (`ipBlock`), and opens nothing that is for the host.
    NotHost = 2,
    /// The source address is an endpoint's, and that endpoint did not send the packet.
    Forged = 3,
}

impl SenderKind {
    const fn of_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Address,
            1 => Self::Translated,
            2 => Self::NotHost,
            _ => Self::Forged,
        }
    }
}

/// A peer that opens a connection, as a number: its [`SenderKind`] in bits 0 and 1, and from bit 16 on its stamp,
/// where it is an endpoint of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sender(pub u32);

impl Sender {
    /// Nothing is known, or asked, beside the address.
    pub const UNASKED: Self = Self(0);

    const fn new(kind: SenderKind, stamp: u32) -> Self {
        Self(kind as u32 | stamp << 16)
    }

    /// What it was found to be.
    #[must_use]
    #[inline(always)]
    pub const fn kind(self) -> SenderKind {
        SenderKind::of_bits(self.0)
    }

    /// [`stamp()`]; 0: it is no endpoint of this host.
    #[must_use]
    #[inline(always)]
    pub const fn stamp(self) -> u32 {
        self.0 >> 16
    }

    /// As it was remembered with a connection that the peer opened.
    #[inline(always)]
    pub(super) const fn of_flow(flags: u8, payer: u16) -> Self {
        let kind = (flags & flow_flags::SENDER) >> flow_flags::SENDER_SHIFT;
        Self(kind as u32 | (payer as u32) << 16)
    }

    /// The bits of a connection's flags that remember it.
    #[inline(always)]
    pub(super) const fn flow_flags(self) -> u8 {
        (self.kind() as u8) << flow_flags::SENDER_SHIFT
    }
}

/// The end behind an address, as policy sees it.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    pub class: u64,
    /// Number of the endpoint, or [`OWNER_HOST`]; 0: neither.
    pub owner: u32,
}

/// A class without rules of its own: those for any peer decide.
const UNKNOWN: Peer = Peer {
    class: CLASS_UNLISTED,
    owner: 0,
};

/// The sender of a packet towards the endpoint that opens a connection.
#[inline(always)]
pub(super) fn find<T: Subprograms>(context: &PolicyContext<'_, T>, parsed: &ParsedFrame) -> Sender {
    let (packet, arrival) = (&parsed.packet, &parsed.arrival);
    let Some(entry) = addresses::listed(context, packet.version, &packet.source) else {
        // A stranger's address: an endpoint's packet has it by translation alone.
        let stamp = stamped(context, arrival);
        let is_translated = stamp != 0 && !is_from_host(packet.piece, arrival, stamp);
        return if is_translated {
            Sender::new(SenderKind::Translated, stamp)
        } else {
            Sender::UNASKED
        };
    };
    let (owner, slot) = (entry.owner, entry.slot);
    let own_stamp = if slot == 0 {
        0
    } else {
        stamp(slot, &packet.source)
    };
    let stamp = stamped(context, arrival);
    if is_from_host(packet.piece, arrival, stamp) {
        return Sender::new(SenderKind::Address, own_stamp);
    }
    if stamp != 0 {
        return if slot != 0 && stamped_slot(stamp) == slot {
            Sender::new(SenderKind::Address, stamp)
        } else {
            Sender::new(SenderKind::Translated, stamp)
        };
    }
    if owner == OWNER_HOST {
        return Sender::new(SenderKind::NotHost, 0);
    }
    if slot == 0 || came_from(context, slot, arrival.ifindex) {
        return Sender::new(SenderKind::Address, own_stamp);
    }
    Sender::new(SenderKind::Forged, 0)
}

/// Did the host send it? A packet that it forwards keeps the interface by which it came in, but for one that is
/// cut into fragments once more (`ip6_fragment` copies everything but that). Those have no socket, which all that
/// the host's own sockets send has.
#[inline(always)]
fn is_from_host(piece: Piece, arrival: &Arrival, stamp: u32) -> bool {
    arrival.ifindex == 0
        && (arrival.has_socket != 0 || (stamp == 0 && piece as u8 == Piece::Whole as u8))
}

/// The stamp of an endpoint that there is; 0: none.
#[inline(always)]
fn stamped<T: Subprograms>(context: &PolicyContext<'_, T>, arrival: &Arrival) -> u32 {
    if arrival.tc_index == 0 {
        return 0;
    }
    let stamp = context.control.stamp_of_wire(arrival.tc_index.into());
    match context.tables.endpoint(stamped_slot(stamp)) {
        Some(endpoint) if endpoint.id != 0 => stamp,
        _ => 0,
    }
}

/// May a packet without a stamp that the host received by this interface be of the endpoint in this slot?
#[inline(always)]
fn came_from<T: Subprograms>(context: &PolicyContext<'_, T>, slot: u32, ifindex: u32) -> bool {
    let Some(endpoint) = context.tables.endpoint(slot) else {
        return false;
    };
    if endpoint.banks[context.bank()].flags & endpoint_flags::ON_WIRE != 0 {
        return true;
    }
    if ifindex == 0 || ifindex == Arrival::UNKNOWN {
        return false;
    }
    let mut index = 0;
    while index < BRIDGES {
        if endpoint.bridges[index] == ifindex {
            return true;
        }
        index += 1;
    }
    match context.tables.interface(ifindex) {
        Some(interface) => interface.endpoint == slot,
        None => false,
    }
}

/// Has a packet towards the endpoint the stamp of another sender than the peer that opened its connection? One without a
/// stamp is no proof of anything.
#[inline(always)]
pub(super) fn is_another(
    control: &Control,
    tc_index: u16,
    direction: Direction,
    flow: &Flow,
) -> bool {
    direction as u8 == Direction::Ingress as u8
        && tc_index != 0
        && flow.flags & flow_flags::OPENED_BY_ENDPOINT == 0
        && u32::from(tc_index) != control.stamp_on_wire(flow.payer.into())
}

/// The slot of the endpoint that sent a packet towards this one; 0: no endpoint is known to have. By the stamp, or by
/// the port that the packet came in by.
#[inline(always)]
pub(super) fn slot<T: Subprograms>(context: &PolicyContext<'_, T>, arrival: &Arrival) -> u32 {
    let stamp = stamped(context, arrival);
    if stamp != 0 || arrival.ifindex == 0 || arrival.ifindex == Arrival::UNKNOWN {
        return stamped_slot(stamp);
    }
    match context.tables.interface(arrival.ifindex) {
        Some(interface) => interface.endpoint,
        None => 0,
    }
}

/// The peer of a packet as policy sees it. `sender` counts for a peer that opened the connection.
#[inline(always)]
pub(super) fn peer<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
    sender: Sender,
) -> Peer {
    if sender.kind() as u8 == SenderKind::Translated as u8 {
        let key = sender_key(sender.stamp(), version);
        let own = context.tables.sender(key);
        return match own.and_then(|own| addresses::listed(context, version, own)) {
            // Not what an endpoint had that was in the slot before.
            Some(entry) if entry.slot == stamped_slot(sender.stamp()) => Peer {
                class: entry.class,
                owner: entry.owner,
            },
            _ => UNKNOWN,
        };
    }
    let peer = classify(context, version, address);
    if sender.kind() as u8 == SenderKind::Address as u8 {
        return peer;
    }
    Peer { owner: 0, ..peer }
}

/// Exact addresses first; strangers by their longest prefix.
#[inline(always)]
pub(super) fn classify<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> Peer {
    if let Some(entry) = addresses::listed(context, version, address) {
        return Peer {
            class: entry.class,
            owner: entry.owner,
        };
    }
    let covering = if version == 4 {
        context.tables.prefix4(&addresses::v4(address))
    } else {
        context.tables.prefix6(address)
    };
    let class = match covering {
        Some(prefix) => prefix.class[context.bank()],
        None => CLASS_ANY,
    };
    Peer { class, owner: 0 }
}
