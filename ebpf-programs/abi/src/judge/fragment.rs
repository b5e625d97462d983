//! Fragments: the later ones of a datagram follow the verdict on its first.
//!
//! Only a first fragment has ports. What was ruled on it is remembered, in a set of places for its
//! sender: one that sends many at once pushes out datagrams of its own, and no other sender's. A fragment
//! that overtook its first passes where policy allows its sender some port of its protocol: it
//! carries nothing then that could not be sent anyway, and without a first that passes no receiver
//! puts it together. A reply's has no such excuse, and is lost.

use core::cell::Cell;

use super::{
    ParsedFrame, PolicyContext, Subprograms,
    addresses::{self, local},
    track::{not_for_endpoint, owner},
};
use crate::{
    bytes::spread,
    connection::age,
    limits::{ENDPOINTS, FRAGMENT_STRANGERS, FRAGMENTS_EACH},
    packet::{Direction, Packet, header_bytes},
    reason::Reason,
    tables::{Fragment, FragmentCursor, FragmentKey, FragmentSet, FragmentSlot},
};

/// The time that Linux keeps fragments for reassembly (`net.ipv4.ipfrag_time`,
/// `net.ipv6.ip6frag_time`: 30 s and 60 s), in ticks: the longer one.
const REASSEMBLY: u32 = 56;

/// Remembers what was ruled on a first fragment.
#[inline(always)]
pub fn first<T: Subprograms>(tables: &T, parsed: &ParsedFrame, allowed: bool) {
    let packet = &parsed.packet;
    let Some(context) = PolicyContext::find(tables, &parsed.endpoint) else {
        return;
    };
    if !context.isolated() {
        return;
    }
    let set = set(&context, packet);
    let (Some(places), Some(cursor)) = (tables.fragments(set), tables.fragment_cursor(set)) else {
        return;
    };
    let headers = packet.transport.wrapping_sub(packet.cut_from) as u16;
    let value = Fragment {
        seen: tables.tick(),
        judged: headers.wrapping_add(header_bytes(packet.protocol)),
        allowed: allowed.into(),
        reserved: 0,
    };
    enter(places, cursor, &key(&context, packet), value);
}

/// What is ruled on a later fragment, as a number: the reason's, and in bit 8 whether the endpoint uses its address
/// by leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later(pub u32);

impl Later {
    const BY_LEAVE: u32 = 1 << 8;

    const fn new(reason: Reason, by_leave: bool) -> Self {
        Self(reason as u32 | if by_leave { Self::BY_LEAVE } else { 0 })
    }
    /// Whatever is no reason's number is nothing to let pass.
    pub(super) const fn reason(self) -> Reason {
        match Reason::from_number(self.0 as u8) {
            Some(reason) => reason,
            None => Reason::FragmentWithoutFirst,
        }
    }
    pub(super) const fn is_by_leave(self) -> bool {
        self.0 & Self::BY_LEAVE != 0
    }
}

/// Rules on a fragment without ports. An early one has yet to be asked about: may its sender use any?
#[inline(always)]
pub fn later<T: Subprograms>(tables: &T, parsed: &ParsedFrame) -> Later {
    let packet = &parsed.packet;
    let Some(context) = &PolicyContext::find(tables, &parsed.endpoint) else {
        return Later::new(Reason::Unidentified, false);
    };
    let whose = addresses::whose(
        context,
        packet.version,
        local(packet, context.at.direction()),
    );
    Later::new(
        follows(context, parsed, whose.is_usable()),
        whose.is_by_leave(),
    )
}

#[inline(always)]
fn follows<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    parsed: &ParsedFrame,
    is_own: bool,
) -> Reason {
    let (tables, packet) = (context.tables, &parsed.packet);
    if context.at.direction() == Direction::Egress && !is_own {
        return Reason::SpoofedAddress;
    }
    if !context.isolated() {
        return if is_own || packet.to_group() {
            Reason::NotIsolated
        } else {
            not_for_endpoint(context, parsed).reason
        };
    }
    let known = tables
        .fragments(set(context, packet))
        .and_then(|set| find(set, &key(context, packet)))
        .filter(|first| age(tables.tick(), first.seen) <= REASSEMBLY);
    match known {
        Some(first) if first.allowed == 0 => Reason::FragmentWithoutFirst,
        Some(first) if packet.fragment_offset < first.judged => Reason::FragmentOverlap,
        Some(_) => Reason::Established,
        None if !is_own && !packet.to_group() => Reason::NotForEndpoint,
        None => Reason::FragmentEarly,
    }
}

#[inline(always)]
fn key<T>(context: &PolicyContext<'_, T>, packet: &Packet) -> FragmentKey {
    FragmentKey {
        owner: owner(context.at.id, packet.cut_protocol),
        id: packet.fragment_id,
        source: packet.source,
        destination: packet.destination,
        version: packet.version,
        direction: context.at.direction() as u8,
        reserved: 0,
    }
}

/// The set of the packet's sender. An endpoint can't send under another's address, so its slot
/// tells it; a stranger may, but has no other endpoint's set to fill.
#[inline(always)]
fn set<T: Subprograms>(context: &PolicyContext<'_, T>, packet: &Packet) -> u32 {
    if context.at.direction() == Direction::Egress {
        return context.at.slot;
    }
    match addresses::slot_of(context, packet.version, &packet.source) {
        0 => ENDPOINTS + (spread(&packet.source) >> 16) % FRAGMENT_STRANGERS,
        slot => slot,
    }
}

/// Compared word by word: a call that compares memory would want both keys on the stack.
#[inline(always)]
const fn is_same(one: &FragmentKey, other: &FragmentKey) -> bool {
    one.id == other.id
        && one.owner == other.owner
        && one.version == other.version
        && one.direction == other.direction
        && u128::from_ne_bytes(one.source) == u128::from_ne_bytes(other.source)
        && u128::from_ne_bytes(one.destination) == u128::from_ne_bytes(other.destination)
}

/// What is remembered of a datagram.
#[inline(always)]
fn find(set: &Cell<FragmentSet>, key: &FragmentKey) -> Option<Fragment> {
    let places: &[Cell<FragmentSlot>] = set.as_array_of_cells();
    let mut index = 0;
    while index < FRAGMENTS_EACH {
        let place = places.get(index)?.get();
        if is_same(&place.key, key) {
            return Some(place.value);
        }
        index += 1;
    }
    None
}

/// Enters a datagram where it stands already, or in the place of the oldest.
#[inline(always)]
fn enter(
    set: &Cell<FragmentSet>,
    cursor: &Cell<FragmentCursor>,
    key: &FragmentKey,
    value: Fragment,
) {
    let places: &[Cell<FragmentSlot>] = set.as_array_of_cells();
    let mut index = 0;
    while index < FRAGMENTS_EACH {
        let Some(cell) = places.get(index) else {
            return;
        };
        if is_same(&cell.get().key, key) {
            cell.set(FragmentSlot { key: *key, value });
            return;
        }
        index += 1;
    }
    let entered = cursor.get();
    cursor.set(entered.wrapping_add(1));
    if let Some(cell) = places.get(entered as usize % FRAGMENTS_EACH) {
        cell.set(FragmentSlot { key: *key, value });
    }
}
