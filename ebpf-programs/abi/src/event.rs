//! The record that a program writes to the `EVENTS` ring: one for the first
//! packet of a connection and one for a drop, within the endpoint's budget.

use core::net::Ipv4Addr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::packet::ethertype;

/// What happened to the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// It opened a connection that is allowed.
    Opened = 1,
    /// It was dropped.
    Dropped = 2,
    /// It would have been dropped, but enforcement is in audit mode.
    Audited = 3,
}

impl Kind {
    /// The kind with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Opened),
            2 => Some(Self::Dropped),
            3 => Some(Self::Audited),
            _ => None,
        }
    }
}

/// One report. Addresses in network order, IPv4 in the first four octets;
/// everything else in host order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Event {
    /// Coarse monotonic clock, nanoseconds (`CLOCK_MONOTONIC_COARSE`).
    pub time_ns: u64,
    /// Generation that judged the packet.
    pub generation: u64,
    /// PolicySet that denied or allowed; 0: none was asked.
    pub policy_set: u64,
    /// The deciding rule; 0: none.
    pub rule: u32,
    /// Endpoint number; 0: unidentified.
    pub endpoint: u32,
    /// Interface of the host's end.
    pub ifindex: u32,
    /// Length of the frame in bytes.
    pub length: u32,
    /// Source address; ARP: the sender's, as the message claims it.
    pub source: [u8; 16],
    /// Destination address; ARP: the target's.
    pub destination: [u8; 16],
    /// Source port; ICMP: type.
    pub source_port: u16,
    /// Destination port; ICMP: code.
    pub destination_port: u16,
    /// Ethertype of the frame.
    pub ethertype: u16,
    /// 4, 6, or 0 where the frame is neither.
    pub version: u8,
    /// IP protocol number, after extension headers.
    pub protocol: u8,
    /// [`crate::packet::Direction`] as a number.
    pub direction: u8,
    /// [`Kind`] as a number.
    pub kind: u8,
    /// [`crate::Reason`] as a number.
    pub reason: u8,
    /// TCP flags as on the wire.
    pub tcp_flags: u8,
    /// Nonzero: the packet goes against the direction in which its connection was opened.
    pub reply: u8,
    /// Reserved, zero.
    pub reserved: [u8; 3],
    /// Source MAC address.
    pub source_mac: [u8; 6],
    /// Destination MAC address.
    pub destination_mac: [u8; 6],
    /// What was found of a peer that opens a connection, beside its address: a [`crate::judge::Sender`].
    pub sender: u32,
}

impl Event {
    /// The addresses that an ARP message states: its sender's and its target's. A probe (RFC 5227) states no sender: what it
    /// claims is the target. `None`: it is no ARP message, or states neither.
    #[must_use]
    pub fn arp_ends(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let first = |octets: [u8; 16]| {
            let [a, b, c, d, ..] = octets;
            Ipv4Addr::new(a, b, c, d)
        };
        let (sender, target) = (first(self.source), first(self.destination));
        let claimed = if sender.is_unspecified() {
            target
        } else {
            sender
        };
        let is_said = self.ethertype == ethertype::ARP && !claimed.is_unspecified();
        is_said.then_some((claimed, target))
    }
}
