//! ARP (RFC 826, 5227): questions and answers, whole, with nothing behind them.

use super::{ParsedFrame, PolicyContext, Sent, Subprograms, addresses};
use crate::{
    link::Class,
    packet::{self, Arp, ETHERNET, Frame, SHORTEST_FRAME},
    reason::Reason,
};

/// ARP from the endpoint names its own MAC and one of its own addresses, or one that it has by leave. A probe (RFC 5227)
/// names no sender; it asks for one of its own, as one for another's would tell
/// that one, which may be probing too, that the address is taken.
#[inline(always)]
pub fn sent<T: Subprograms, F: Frame>(
    context: &PolicyContext<'_, T>,
    frame: &F,
    parsed: &ParsedFrame,
) -> Sent {
    let message = match packet::arp(frame) {
        Ok(message) => message,
        Err(reason) if context.isolated() => return Sent::Lie(reason),
        Err(_) => return Sent::Lie(Reason::ForgedArp),
    };
    let destination = parsed.ethernet.destination;
    // Numbers, not references: of a choice between two of those the compiler makes arithmetic with pointers.
    let (sender, target) = (
        u32::from_ne_bytes(message.sender),
        u32::from_ne_bytes(message.target),
    );
    let is_probe = sender == 0;
    let named = if is_probe { target } else { sender };
    let is_operation = match message.operation {
        Arp::ASK => true,
        Arp::ANSWER => !is_probe,
        _ => false,
    };
    // Linux asks with no target MAC, iputils' and busybox' arping with the frame's destination; an
    // answer has the frame's destination, or the sender's own where it is an announcement.
    let is_target = number(message.target_mac) == 0
        || number(message.target_mac) == number(destination)
        || number(message.target_mac) == number(context.at.mac);
    let is_true = is_operation
        && is_target
        && number(message.sender_mac) == number(context.at.mac)
        && (is_individual(destination) || number(destination) == BROADCAST)
        && packet::ends_exactly(frame, ETHERNET + Arp::BYTES)
        && addresses::may_claim(context, 4, &in_sixteen(named));
    if is_true {
        Sent::True(Class::Arp, 1)
    } else {
        Sent::Lie(Reason::ForgedArp)
    }
}

/// What a frame may be padded to on the way here: behind a VLAN tag that a switch or driver took
/// off again there are four bytes more.
const LONGEST_PADDED: usize = SHORTEST_FRAME + 4;

/// ARP towards the endpoint. From beyond this host it has what padding the sender's driver leaves
/// there. An endpoint that no policy isolates gets other operations too (inverse ARP, RFC 2390).
#[inline(always)]
pub fn received<T: Subprograms, F: Frame>(context: &PolicyContext<'_, T>, frame: &F) -> Reason {
    let is_isolated = context.isolated();
    match packet::arp(frame) {
        Ok(_) if !is_isolated => Reason::Arp,
        Ok(message) => {
            let is_operation = matches!(message.operation, Arp::ASK | Arp::ANSWER);
            if is_operation && frame.len() <= LONGEST_PADDED {
                Reason::Arp
            } else {
                Reason::ForgedArp
            }
        }
        Err(reason) if is_isolated => reason,
        Err(_) => Reason::ForgedArp,
    }
}

/// An IPv4 address where it stands in the address of a packet.
#[inline(always)]
const fn in_sixteen(address: u32) -> [u8; 16] {
    (address as u128).to_ne_bytes()
}

const BROADCAST: u64 = 0xffff_ffff_ffff;

/// A MAC address as a number, to compare it at once.
#[inline(always)]
const fn number([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

/// Is it one interface's, and no group's (IEEE 802, 8.2)?
#[inline(always)]
pub const fn is_individual(mac: [u8; 6]) -> bool {
    mac[0] & 1 == 0
}
