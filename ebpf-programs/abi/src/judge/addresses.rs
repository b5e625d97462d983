//! The owner of an address: this host's endpoints, the host, or neither; and what an endpoint may use by leave.

use super::{PolicyContext, Subprograms};
use crate::{
    packet::{Direction, Packet},
    tables::{AddressBank, CLASS_UNLISTED, LEAVE_CLAIMS, leave_holder},
};

/// The endpoint's address in a packet that goes in this direction.
#[inline(always)]
pub(super) const fn local(packet: &Packet, direction: Direction) -> &[u8; 16] {
    match direction {
        Direction::Egress => &packet.source,
        Direction::Ingress => &packet.destination,
    }
}

/// The first four octets: where an IPv4 address stands.
#[inline(always)]
pub(super) const fn v4(address: &[u8; 16]) -> [u8; 4] {
    let [a, b, c, d, ..] = *address;
    u32::from_ne_bytes([a, b, c, d]).to_ne_bytes()
}

/// Number of the endpoint that owns the address in this bank; 0: none.
#[inline(always)]
pub(super) fn owner<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> u32 {
    listed_owner(context, version, address).unwrap_or_default()
}

/// Does the address belong to the endpoint itself?
#[inline(always)]
pub(super) fn is_own<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> bool {
    owner(context, version, address) == context.at.id
}

/// Whose an address is, as an endpoint sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Whose {
    /// The endpoint's own.
    Own = 0,
    /// No owner on this host, and the endpoint may use it by leave.
    ByLeave = 1,
    /// Another owner's.
    Others = 2,
}

impl Whose {
    /// May the endpoint use it?
    #[inline(always)]
    pub const fn is_usable(self) -> bool {
        self as u8 != Self::Others as u8
    }
    #[inline(always)]
    pub const fn is_by_leave(self) -> bool {
        self as u8 == Self::ByLeave as u8
    }
}

/// Whose the address is. A leave gives nothing that has an owner: it is looked up for strangers' addresses alone.
#[inline(always)]
pub(super) fn whose<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> Whose {
    let holder = match listed_owner(context, version, address) {
        Some(owner) if owner == context.at.id => return Whose::Own,
        Some(_) => 0,
        None => leave_holder(leave_word(context, version, address)),
    };
    if holder == context.at.id {
        Whose::ByLeave
    } else {
        Whose::Others
    }
}

/// May the endpoint say in ARP and neighbour discovery that it has the address?
#[inline(always)]
pub(super) fn may_claim<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> bool {
    match listed_owner(context, version, address) {
        Some(owner) => owner == context.at.id,
        None => leave_word(context, version, address) == context.at.id | LEAVE_CLAIMS,
    }
}

/// The entry of an address in the table of exact addresses, if it counts in this bank.
#[inline(always)]
pub(super) fn listed<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> Option<AddressBank> {
    let entry = if version == 4 {
        context.tables.address4(&v4(address), context.bank())
    } else {
        context.tables.address6(address, context.bank())
    }?;
    (entry.class != CLASS_UNLISTED).then_some(entry)
}

/// The owner that stands in the table of exact addresses in this bank; `None`: the address is not there.
#[inline(always)]
fn listed_owner<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> Option<u32> {
    if version == 4 {
        context.tables.owner4(&v4(address), context.bank())
    } else {
        context.tables.owner6(address, context.bank())
    }
}

/// What the endpoint's leave for an address says in this bank; 0: there is none.
#[inline(always)]
fn leave_word<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> u32 {
    let [high, low] = halves(address);
    let words = context.tables.leave(context.at.slot, version, high, low);
    (if context.bank() == 0 {
        words
    } else {
        words >> 32
    }) as u32
}

/// The address as two numbers.
#[inline(always)]
const fn halves(address: &[u8; 16]) -> [u64; 2] {
    let whole = u128::from_be_bytes(*address);
    [(whole >> 64) as u64, whole as u64]
}

/// The words of the longest prefix with the address that the endpoint in this slot has leave for, bank 0 in the
/// lower half; 0: none. The address comes as two numbers, IPv4 in the upper half of the first, as the programs make this
/// a global function.
///
/// Addresses that are no single host's beyond the link (this network, loopback, link-local, multicast, reserved) are
/// given by none, however short its prefix.
#[inline(always)]
pub fn leave<T: Subprograms>(tables: &T, slot: u32, version: u32, high: u64, low: u64) -> u64 {
    let found = if version == 4 {
        let first = high >> 56;
        if matches!(first, 0 | 127 | 224..) || high >> 48 == 0xa9fe {
            return 0;
        }
        tables.leave4(slot, (high >> 32) as u32)
    } else {
        let is_none_or_loopback = high == 0 && low <= 1;
        if is_none_or_loopback || high >> 56 == 0xff || high >> 54 == 0xfe80 >> 6 {
            return 0;
        }
        tables.leave6(slot, high, low)
    };
    match found {
        Some(leave) => u64::from(leave.words[0]) | u64::from(leave.words[1]) << 32,
        None => 0,
    }
}

/// Slot of the endpoint of this host that has the address; 0: none has.
#[inline(always)]
pub(super) fn slot_of<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> u32 {
    match listed(context, version, address) {
        Some(entry) => entry.slot,
        None => 0,
    }
}
