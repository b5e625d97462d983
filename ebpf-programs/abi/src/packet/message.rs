//! What the messages say that are neither payload nor transport: ICMP and its errors, group
//! membership, neighbour discovery, leases, ARP. Predicates over a [`Packet`] that was read, and
//! ARP's own header.

use super::{ETHERNET, Frame, Packet, protocol};
use crate::reason::Reason;

/// IGMP types (RFC 3376, 4).
pub mod igmp {
    /// A router's question.
    pub const QUERY: u16 = 0x11;
    /// Version 1 report.
    pub const REPORT1: u16 = 0x12;
    /// Version 2 report.
    pub const REPORT2: u16 = 0x16;
    /// Version 2: a group is left.
    pub const LEAVE: u16 = 0x17;
    /// Version 3 report.
    pub const REPORT3: u16 = 0x22;
}

/// ICMPv6 types of multicast listener discovery (RFC 2710, 3; RFC 3810, 5).
pub mod listener {
    /// A router's question.
    pub const QUERY: u16 = 130;
    /// Version 1 report.
    pub const REPORT1: u16 = 131;
    /// Version 1: a group is left.
    pub const DONE: u16 = 132;
    /// Version 2 report.
    pub const REPORT2: u16 = 143;
}

/// ICMP and ICMPv6 types that a verdict looks at.
pub mod icmp {
    /// Echo reply, IPv4.
    pub const ECHO_REPLY: u16 = 0;
    /// Echo request, IPv4.
    pub const ECHO: u16 = 8;
    /// Echo request, IPv6.
    pub const ECHO6: u16 = 128;
    /// Echo reply, IPv6.
    pub const ECHO_REPLY6: u16 = 129;
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u16 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u16 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u16 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u16 = 136;
    /// Redirect.
    pub const REDIRECT6: u16 = 137;
}

impl Packet {
    /// Can it be a message that keeps a link working, or one that only a router or a server of the
    /// link sends? Nearly no packet can, and those that can't need not be asked for each.
    #[must_use]
    #[inline(always)]
    pub const fn may_concern_link(&self) -> bool {
        match self.protocol {
            protocol::ICMPV6 | protocol::IGMP => true,
            protocol::UDP => matches!(self.destination_port, 67 | 68 | 546 | 547),
            _ => false,
        }
    }

    /// Is it an ICMP error, which quotes the packet that it is about? Redirects are
    /// not counted: they are about a route, not about a failure.
    #[must_use]
    #[inline(always)]
    pub const fn is_icmp_error(&self) -> bool {
        match self.protocol {
            protocol::ICMP => self.version == 4 && matches!(self.source_port, 3 | 4 | 11 | 12),
            protocol::ICMPV6 => self.version == 6 && self.source_port >= 1 && self.source_port <= 4,
            _ => false,
        }
    }

    /// Is it neighbour or router discovery (RFC 4861)?
    #[must_use]
    #[inline(always)]
    pub const fn is_neighbour_discovery(&self) -> bool {
        self.version == 6
            && self.protocol == protocol::ICMPV6
            && self.source_port >= icmp::ROUTER_SOLICITATION
            && self.source_port <= icmp::REDIRECT6
    }

    /// Is it IGMP (RFC 3376): listener discovery's elder brother?
    #[must_use]
    #[inline(always)]
    pub const fn is_group_membership(&self) -> bool {
        self.version == 4
            && self.protocol == protocol::IGMP
            && matches!(
                self.source_port,
                igmp::QUERY | igmp::REPORT1 | igmp::REPORT2 | igmp::LEAVE | igmp::REPORT3
            )
    }

    /// Is it one of the two?
    #[must_use]
    #[inline(always)]
    pub const fn is_any_membership(&self) -> bool {
        self.is_group_membership() || self.is_listener_discovery()
    }

    /// Is it what a DHCP or DHCPv6 client asks every host on the link?
    #[must_use]
    #[inline(always)]
    pub const fn is_dhcp_question(&self) -> bool {
        self.protocol == protocol::UDP
            && self.to_group()
            && matches!(
                (self.version, self.source_port, self.destination_port),
                (4, 68, 67) | (6, 546, 547)
            )
    }

    /// Is it for a DHCP or DHCPv6 client's port? Only a server sends there, and clients do not
    /// look at the port that it comes from.
    #[must_use]
    #[inline(always)]
    pub const fn is_to_lease_client(&self) -> bool {
        self.protocol == protocol::UDP
            && matches!((self.version, self.destination_port), (4, 68) | (6, 546))
    }

    /// Is it what only a DHCP or DHCPv6 server sends to a client (RFC 2131, 4.1; RFC 8415, 7.2)?
    #[must_use]
    #[inline(always)]
    pub const fn is_dhcp_answer(&self) -> bool {
        self.protocol == protocol::UDP
            && matches!(
                (self.version, self.source_port, self.destination_port),
                (4, 67, 68) | (6, 547, 546)
            )
    }

    /// Is it multicast listener discovery (RFC 2710, 3810)? Bridges that snoop need it
    /// to deliver neighbour solicitations.
    #[must_use]
    #[inline(always)]
    pub const fn is_listener_discovery(&self) -> bool {
        self.version == 6
            && self.protocol == protocol::ICMPV6
            && matches!(
                self.source_port,
                listener::QUERY | listener::REPORT1 | listener::DONE | listener::REPORT2
            )
    }
}

/// An ARP message for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arp {
    /// 1 asks, 2 answers; there are others.
    pub operation: u16,
    /// The sender's MAC as the message claims it.
    pub sender_mac: [u8; 6],
    /// The sender's address; all zero in a probe (RFC 5227).
    pub sender: [u8; 4],
    /// The target's MAC as the message claims it; what a question says there means nothing.
    pub target_mac: [u8; 6],
    /// The address asked for or announced.
    pub target: [u8; 4],
}

impl Arp {
    /// Asks for an address.
    pub const ASK: u16 = 1;
    /// Tells one.
    pub const ANSWER: u16 = 2;
    /// Bytes of a message.
    pub const BYTES: usize = 28;
}

/// Reads an ARP message behind the Ethernet header.
///
/// # Errors
/// [`Reason::Truncated`], or [`Reason::Malformed`] when it is not IPv4 over Ethernet.
#[inline(always)]
pub fn arp<F: Frame>(frame: &F) -> Result<Arp, Reason> {
    // In place: the compiler loads four bytes at once, wherever they lie, and the verifier takes a load that is not aligned
    // from the packet, not from the stack.
    let bytes: [u8; 28] = frame.read_near::<ETHERNET, _>().ok_or(Reason::Truncated)?;
    // Hardware Ethernet, protocol IPv4, address lengths 6 and 4.
    if bytes[0] != 0
        || bytes[1] != 1
        || bytes[2] != 8
        || bytes[3] != 0
        || bytes[4] != 6
        || bytes[5] != 4
    {
        return Err(Reason::Malformed);
    }
    Ok(Arp {
        operation: u16::from_be_bytes([bytes[6], bytes[7]]),
        sender_mac: [
            bytes[8], bytes[9], bytes[10], bytes[11], bytes[12], bytes[13],
        ],
        sender: [bytes[14], bytes[15], bytes[16], bytes[17]],
        target_mac: [
            bytes[18], bytes[19], bytes[20], bytes[21], bytes[22], bytes[23],
        ],
        target: [bytes[24], bytes[25], bytes[26], bytes[27]],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_concern_a_link_is_nothing_of_it() {
        for version in [4, 6] {
            for protocol in 0..=u8::MAX {
                for (source_port, destination_port) in (0..1024).flat_map(|port| {
                    [
                        (port, 0),
                        (0, port),
                        (67, port),
                        (68, port),
                        (546, port),
                        (547, port),
                    ]
                }) {
                    let packet = Packet {
                        version,
                        protocol,
                        source_port,
                        destination_port,
                        destination: [0xff; 16],
                        ..Packet::default()
                    };
                    let concerns = packet.is_neighbour_discovery()
                        || packet.is_group_membership()
                        || packet.is_listener_discovery()
                        || packet.is_dhcp_question()
                        || packet.is_to_lease_client()
                        || packet.is_dhcp_answer();
                    assert!(!concerns || packet.may_concern_link(), "{packet:?}");
                }
            }
        }
    }
}
