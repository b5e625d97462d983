//! The packet parser: Ethernet, IPv4 with options, IPv6 with extension headers,
//! fragments, TCP, UDP, SCTP, ICMP, and the header that an ICMP error carries.
//!
//! It never reads outside the frame, never allocates, and has a defined answer for
//! every byte sequence: a [`Packet`], or the [`Reason`] why there is none. It only
//! reads; what a packet may do is [`crate::judge`]'s business.
//!
//! RFC 791, 826, 8200, 4443, 4861; lengths are checked against the frame and
//! against the header that claims them.

mod exact;
mod membership;
mod message;
mod plain;
mod wire;

use zerocopy::FromBytes;

use crate::{bytes::octets, limits::MAX_EXTENSION_HEADERS, reason::Reason};

pub use exact::{
    SHORTEST_FRAME, ends_exactly, has_listener_header, has_membership_header, has_neighbour_header,
    is_group_mac,
};
pub use membership::{Membership, membership, records};
pub use message::{Arp, arp, icmp, igmp, listener};
pub use plain::{Plain, Route, plain};

/// The endpoint's own view. Beware: the TC *ingress* hook of the host's end of a
/// veth sees the endpoint's *egress*.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// Towards the endpoint.
    Ingress = 0,
    /// From the endpoint.
    Egress = 1,
}

impl Direction {
    /// The one whose number is the lowest bit.
    #[must_use]
    #[inline(always)]
    pub const fn of_bit(bits: u32) -> Self {
        if bits & 1 == Self::Ingress as u32 {
            Self::Ingress
        } else {
            Self::Egress
        }
    }

    /// The direction with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Ingress),
            1 => Some(Self::Egress),
            _ => None,
        }
    }
}

/// Ethertypes, host order.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// Address resolution.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad tag.
    pub const QINQ: u16 = 0x88a8;
}

/// IP protocol numbers.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// Group membership for IPv4.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;

    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
    pub(super) const HIP: u8 = 139;
    pub(super) const SHIM6: u8 = 140;
    /// From here on IANA has assigned no protocol but for experiments (253, 254), which are
    /// extension headers to some and payload to others.
    pub(super) const UNASSIGNED: u8 = 148;
}

/// TCP flags.
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise: opens.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// The acknowledgement is valid.
    pub const ACK: u8 = 0x10;
    /// The flags that open, answer and close.
    pub const STATEFUL: u8 = FIN | SYN | RST | ACK;
}

/// Length of an Ethernet header.
pub const ETHERNET: usize = 14;

/// How a frame came to the interface that it leaves the host by: what the kernel's skb says of it, which no
/// sender can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The interface of the host's network namespace by which the host received it; 0: it did not, it sent the
    /// frame itself. [`Arrival::UNKNOWN`]: the hook can't tell.
    pub ifindex: u32,
    /// The stamp of the endpoint that sent it, as it stands in `tc_index`; 0: none.
    pub tc_index: u16,
    /// Nonzero: a socket of this host's network namespace sent it.
    pub has_socket: u16,
}

/// A socket of the host sent it.
impl Default for Arrival {
    fn default() -> Self {
        Self {
            ifindex: 0,
            tc_index: 0,
            has_socket: 1,
        }
    }
}

impl Arrival {
    /// Stands for an interface that no table has.
    pub const UNKNOWN: u32 = u32::MAX;
}

/// A frame's bytes: an skb in the kernel, a slice elsewhere.
pub trait Frame {
    /// Bytes of the whole frame, link-layer header included.
    fn len(&self) -> usize;
    /// A header at `offset`, where all of it is inside the frame.
    fn read<H: FromBytes>(&self, offset: usize) -> Option<H>;
    /// A header at `AT`, an offset that the compiler knows: in the kernel plain loads, where
    /// [`Frame::read`] is a call.
    fn read_near<const AT: usize, H: FromBytes>(&self) -> Option<H> {
        self.read(AT)
    }
    /// Does the frame carry a VLAN tag in its metadata (hardware-accelerated tags)?
    fn has_vlan_tag(&self) -> bool;
    /// How it came here. Without an skb: the host sent it.
    fn arrival(&self) -> Arrival {
        Arrival::default()
    }
    /// [`Arrival::tc_index`] alone.
    fn tc_index(&self) -> u16 {
        self.arrival().tc_index
    }
    /// Is there a source route among the `length` bytes of IPv4 options at `offset`? As
    /// [`source_route`] says; the programs have it verified once.
    fn has_source_route(&self, offset: usize, length: usize) -> bool
    where
        Self: Sized,
    {
        source_route(self, offset, length)
    }
    /// Is there nothing in it?
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a socket is to the connection that it was looked up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// It is one of the two ends of the connection, whose handshake is complete.
    Connected,
    /// It takes what comes to its port.
    Listening,
}

/// A plain slice, without metadata.
impl Frame for &[u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
    fn read<H: FromBytes>(&self, offset: usize) -> Option<H> {
        let (header, _) = H::read_from_prefix(self.get(offset..)?).ok()?;
        Some(header)
    }
    fn has_vlan_tag(&self) -> bool {
        false
    }
}

/// The Ethernet header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination MAC.
    pub destination: [u8; 6],
    /// Source MAC.
    pub source: [u8; 6],
    /// Ethertype, host order.
    pub ethertype: u16,
}

/// Whether a packet is a piece of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Piece {
    /// A whole datagram.
    #[default]
    Whole = 0,
    /// The first fragment: it has the transport header.
    First = 1,
    /// A later one: it has no ports.
    Later = 2,
}

/// What a verdict needs of an IP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Packet {
    /// Source address in network order; IPv4 in the first four octets.
    pub source: [u8; 16],
    /// Destination address, likewise.
    pub destination: [u8; 16],
    /// Identification of the datagram, where it is a fragment.
    pub fragment_id: u32,
    /// Offset of the transport header in the frame.
    pub transport: u32,
    /// Offset behind the packet's last byte, by its own account.
    pub end: u32,
    /// Offset in the frame of what is cut into fragments.
    pub cut_from: u32,
    /// Bytes of the datagram that come before this fragment's.
    pub fragment_offset: u16,
    /// TCP, UDP, SCTP: source port. ICMP: type.
    pub source_port: u16,
    /// TCP, UDP, SCTP: destination port. ICMP: code.
    pub destination_port: u16,
    /// ICMP echo: the identifier.
    pub echo_id: u16,
    /// 4 or 6.
    pub version: u8,
    /// Protocol after extension headers.
    pub protocol: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// Whole or a fragment.
    pub piece: Piece,
    /// The protocol that the header with the fragment's offset names.
    pub cut_protocol: u8,
    /// Time to live, hop limit.
    pub hops: u8,
}

/// Reads the Ethernet header.
///
/// # Errors
/// [`Reason::Truncated`] when the frame is shorter than that.
#[inline(always)]
pub fn ethernet<F: Frame>(frame: &F) -> Result<Ethernet, Reason> {
    let header: wire::Ethernet = frame.read_near::<0, _>().ok_or(Reason::Truncated)?;
    Ok(Ethernet {
        destination: octets(header.destination),
        source: octets(header.source),
        ethertype: u16::from_be(header.ethertype_be),
    })
}

/// Reads an IPv4 header at `at`; [`transport`] reads on. `quoted`: it is the packet that an
/// ICMP error carries, of which only the first bytes are there.
///
/// The headers go into `packet`, as far as they could be read, and nothing of what it held
/// before stays.
///
/// # Errors
/// Why it can't be read.
#[inline(always)]
pub fn ipv4<F: Frame>(
    frame: &F,
    at: usize,
    quoted: bool,
    packet: &mut Packet,
) -> Result<(), Reason> {
    let header: Option<wire::Ipv4> = if at == ETHERNET {
        frame.read_near::<ETHERNET, _>()
    } else {
        frame.read(at)
    };
    let Some(header) = header else {
        *packet = Packet {
            version: 4,
            ..Packet::default()
        };
        return Err(Reason::Truncated);
    };
    let header_length = usize::from(header.version_and_length & 0xf) * 4;
    let total = usize::from(u16::from_be(header.total_be));
    let there = frame.len().wrapping_sub(at);
    // A length of zero is how IPv4 BIG TCP (kernel 6.3, b1a78b9b98862) marks a
    // segment that offload will cut; a frame that is not that large lies.
    let big = total == 0 && there > 0xffff;
    let end = if quoted || big {
        frame.len()
    } else {
        at + total
    };
    let fragment = u16::from_be(header.fragment_be);
    let offset = fragment & 0x1fff;
    *packet = Packet {
        version: 4,
        protocol: header.protocol,
        hops: header.hops,
        cut_protocol: header.protocol,
        transport: (at + header_length) as u32,
        cut_from: (at + header_length) as u32,
        end: end as u32,
        fragment_offset: offset << 3,
        piece: match (offset, fragment & 0x2000 != 0) {
            (0, false) => Piece::Whole,
            (0, true) => Piece::First,
            _ => Piece::Later,
        },
        fragment_id: u32::from(u16::from_be(header.id_be)),
        source: widen(header.source_be),
        destination: widen(header.destination_be),
        ..Packet::default()
    };
    if header.version_and_length >> 4 != 4 || header_length < 20 || (!big && total < header_length)
    {
        return Err(Reason::Malformed);
    }
    if !quoted && !big && total > there {
        return Err(Reason::Truncated);
    }
    // Routers on the way read them; the address in the header is not where it goes.
    if !quoted && header_length > 20 && frame.has_source_route(at + 20, header_length - 20) {
        return Err(Reason::SourceRoute);
    }
    Ok(())
}

/// Is there a loose or strict source route (RFC 791, 3.1) among IPv4 options, or an option that
/// could hide one because its length makes no sense?
#[inline(always)]
pub fn source_route<F: Frame>(frame: &F, at: usize, length: usize) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE: u8 = 131;
    const STRICT: u8 = 137;
    let mut offset = 0;
    let mut walked = 0;
    // Forty bytes are all that a header has room for.
    while walked < 40 && offset < length {
        let Some(kind) = frame.read::<u8>(at + offset) else {
            return true;
        };
        match kind {
            END => return false,
            NO_OPERATION => offset += 1,
            LOOSE | STRICT => return true,
            _ => match frame.read::<u8>(at + offset + 1) {
                Some(bytes) if bytes >= 2 => offset += usize::from(bytes),
                _ => return true,
            },
        }
        walked += 1;
    }
    false
}

/// An IPv4 address, as it was loaded from the wire, in the first four octets of sixteen.
#[inline(always)]
const fn widen(address_be: u32) -> [u8; 16] {
    (u32::from_le(address_be) as u128).to_le_bytes()
}

/// Reads an IPv6 header and its extensions at `at`; `quoted` as in [`ipv4`].
///
/// # Errors
/// Why it can't be read.
#[inline(always)]
pub fn ipv6<F: Frame>(
    frame: &F,
    at: usize,
    quoted: bool,
    packet: &mut Packet,
) -> Result<(), Reason> {
    let header: Option<wire::Ipv6> = if at == ETHERNET {
        frame.read_near::<ETHERNET, _>()
    } else {
        frame.read(at)
    };
    let Some(header) = header else {
        *packet = Packet {
            version: 6,
            ..Packet::default()
        };
        return Err(Reason::Truncated);
    };
    let payload = usize::from(u16::from_be(header.payload_be));
    let there = frame.len().wrapping_sub(at);
    // As for IPv4: BIG TCP inside the host has no length; a jumbogram would.
    let big = payload == 0 && there > 0xffff + 40;
    let end = if quoted || big {
        frame.len()
    } else {
        at + 40 + payload
    };
    *packet = Packet {
        version: 6,
        hops: header.hops,
        end: end as u32,
        source: join(header.source_be),
        destination: join(header.destination_be),
        ..Packet::default()
    };
    if u32::from_be(header.version_class_label_be) >> 28 != 6 {
        return Err(Reason::Malformed);
    }
    if !quoted && !big && payload + 40 > there {
        return Err(Reason::Truncated);
    }
    let mut next = header.next;
    let mut at = at + 40;
    let mut walked = 0;
    while walked < MAX_EXTENSION_HEADERS {
        if !is_extension(next) {
            if next >= protocol::UNASSIGNED {
                return Err(Reason::ExtensionHeaders);
            }
            packet.protocol = next;
            packet.transport = at as u32;
            return Ok(());
        }
        // Hop-by-hop options stand first or not at all (RFC 8200, 4.1).
        if next == protocol::HOP_BY_HOP && walked > 0 {
            return Err(Reason::ExtensionHeaders);
        }
        if at + 8 > end {
            return Err(Reason::Truncated);
        }
        let extension: [u8; 8] = frame.read(at).ok_or(Reason::Truncated)?;
        let length = match next {
            protocol::FRAGMENT => 8,
            protocol::AUTHENTICATION => (usize::from(extension[1]) + 2) * 4,
            _ => (usize::from(extension[1]) + 1) * 8,
        };
        // A packet that has routers to visit yet is not for the destination in its header.
        if next == protocol::ROUTING && extension[3] != 0 {
            return Err(Reason::ExtensionHeaders);
        }
        if next == protocol::FRAGMENT {
            let field = u16::from_be_bytes([extension[2], extension[3]]);
            if packet.piece != Piece::Whole {
                return Err(Reason::ExtensionHeaders);
            }
            packet.cut_protocol = extension[0];
            packet.cut_from = (at + 8) as u32;
            packet.fragment_offset = field & 0xfff8;
            packet.fragment_id =
                u32::from_be_bytes([extension[4], extension[5], extension[6], extension[7]]);
            packet.piece = match (packet.fragment_offset, field & 1 != 0) {
                // An atomic fragment (RFC 6946) is a whole datagram.
                (0, false) => Piece::Whole,
                (0, true) => Piece::First,
                _ => Piece::Later,
            };
            // What follows in a later fragment is data, whatever it looks like.
            if packet.piece == Piece::Later {
                packet.protocol = extension[0];
                packet.transport = (at + 8) as u32;
                return Ok(());
            }
        }
        next = extension[0];
        at += length;
        walked += 1;
    }
    Err(Reason::ExtensionHeaders)
}

/// An IPv6 address from the two halves in which it was loaded.
#[inline(always)]
const fn join(halves_be: [u64; 2]) -> [u8; 16] {
    let [low, high] = halves_be;
    (u64::from_le(low) as u128 | (u64::from_le(high) as u128) << 64).to_le_bytes()
}

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6
    )
}

/// Reads ports, flags and types, once [`ipv4`] or [`ipv6`] has found where they are.
///
/// # Errors
/// Why they can't be read.
#[inline(always)]
pub fn transport<F: Frame>(frame: &F, packet: &mut Packet, quoted: bool) -> Result<(), Reason> {
    if packet.piece == Piece::Later {
        // RFC 3128: a fragment that could overwrite the ports or flags of the first.
        return if packet.fragment_offset < header_bytes(packet.protocol) {
            Err(Reason::FragmentTiny)
        } else {
            Ok(())
        };
    }
    let end = packet.end as usize;
    let short = if packet.piece == Piece::First {
        Reason::FragmentTiny
    } else {
        Reason::Truncated
    };
    let at = packet.transport as usize;
    match packet.protocol {
        protocol::TCP if !quoted => {
            if at + 20 > end {
                return Err(short);
            }
            let header: wire::Tcp = near_or_far(frame, at).ok_or(short)?;
            packet.source_port = u16::from_be(header.ports.source_be);
            packet.destination_port = u16::from_be(header.ports.destination_be);
            packet.tcp_flags = header.flags;
            let bytes = usize::from(header.length >> 4) * 4;
            if bytes < 20 || (packet.piece == Piece::Whole && at + bytes > end) {
                return Err(Reason::Malformed);
            }
        }
        protocol::UDP if !quoted => {
            if at + 8 > end {
                return Err(short);
            }
            let header: wire::Udp = near_or_far(frame, at).ok_or(short)?;
            packet.source_port = u16::from_be(header.ports.source_be);
            packet.destination_port = u16::from_be(header.ports.destination_be);
            // 0: longer than the field can say (RFC 2675, 4), or left to the driver that cuts it up.
            let bytes = usize::from(u16::from_be(header.length_be));
            let lies = bytes < 8 || (packet.piece == Piece::Whole && at + bytes > end);
            if bytes != 0 && lies {
                return Err(Reason::Malformed);
            }
        }
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            let needed = match packet.protocol {
                protocol::SCTP if !quoted => 12,
                _ => 8,
            };
            if at + needed > end {
                return Err(short);
            }
            let header: wire::Ports = near_or_far(frame, at).ok_or(short)?;
            packet.source_port = u16::from_be(header.source_be);
            packet.destination_port = u16::from_be(header.destination_be);
        }
        protocol::ICMP | protocol::ICMPV6 | protocol::IGMP => {
            if at + 8 > end {
                return Err(short);
            }
            let header: wire::Icmp = near_or_far(frame, at).ok_or(short)?;
            packet.source_port = u16::from(header.kind);
            packet.destination_port = u16::from(header.code);
            packet.echo_id = u16::from_be(header.echo_id_be);
        }
        _ => {}
    }
    Ok(())
}

/// Bytes of a transport header that a verdict depends on.
#[must_use]
#[inline(always)]
pub const fn header_bytes(protocol: u8) -> u16 {
    match protocol {
        protocol::TCP => 20,
        protocol::SCTP => 12,
        protocol::UDP | protocol::ICMP | protocol::ICMPV6 | protocol::IGMP => 8,
        _ => 0,
    }
}

/// Behind a plain IPv4 or IPv6 header the transport's place is known beforehand.
#[inline(always)]
fn near_or_far<F: Frame, H: FromBytes>(frame: &F, at: usize) -> Option<H> {
    const BEHIND_IPV4: usize = ETHERNET + 20;
    const BEHIND_IPV6: usize = ETHERNET + 40;
    match at {
        BEHIND_IPV4 => frame.read_near::<BEHIND_IPV4, H>(),
        BEHIND_IPV6 => frame.read_near::<BEHIND_IPV6, H>(),
        _ => frame.read(at),
    }
}

impl Packet {
    /// Is the destination a multicast group or the limited broadcast address? The rest of 240.0.0.0/4
    /// is reserved (RFC 1112, 4), and ordinary unicast to Linux (since 2.6.25).
    #[must_use]
    #[inline(always)]
    pub const fn to_group(&self) -> bool {
        if self.version == 4 {
            let [a, b, c, d, ..] = self.destination;
            a & 0xf0 == 224 || u32::from_ne_bytes([a, b, c, d]) == u32::MAX
        } else {
            self.destination[0] == 0xff
        }
    }
}
