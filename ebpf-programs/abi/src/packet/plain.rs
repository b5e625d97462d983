//! Plain packets: what nearly all are. One read a header, at places known beforehand; whatever else
//! there may be in a frame is not plain, and read by the whole parser.

use super::{ETHERNET, Frame, ethertype, protocol, tcp, wire};

/// A TCP segment in the middle of its connection, or a UDP datagram, without a tag, options,
/// extension headers or fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Source MAC.
    pub source_mac: [u8; 6],
    /// From where to where.
    pub route: Route,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// TCP or UDP.
    pub protocol: u8,
}

/// Source and destination, in network order; IPv4 in the first four bytes, the others zero.
///
/// No enum: of one the compiler reads both variants' bytes before it knows which it is, and
/// verifiers before Linux 6.3 refuse to read from the stack what was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// IPv6, or IPv4.
    pub is_v6: bool,
    /// The source.
    pub source: [u8; 16],
    /// The destination.
    pub destination: [u8; 16],
}

/// Reads a plain packet; `None`: the frame is not one.
#[inline(always)]
pub fn plain<F: Frame>(frame: &F) -> Option<Plain> {
    const V4: usize = ETHERNET + 20;
    const V6: usize = ETHERNET + 40;
    let ethernet: wire::Ethernet = frame.read_near::<0, _>()?;
    if frame.has_vlan_tag() {
        return None;
    }
    match u16::from_be(ethernet.ethertype_be) {
        ethertype::IPV4 => {
            let header: wire::Ipv4 = frame.read_near::<ETHERNET, _>()?;
            // Neither more fragments nor an offset.
            if header.version_and_length != 0x45 || header.fragment_be & 0x3fff_u16.to_be() != 0 {
                return None;
            }
            let end = ETHERNET + usize::from(u16::from_be(header.total_be));
            let route = Route {
                is_v6: false,
                source: super::widen(header.source_be),
                destination: super::widen(header.destination_be),
            };
            behind::<F, V4>(frame, &ethernet, header.protocol, end, route)
        }
        ethertype::IPV6 => {
            let header: wire::Ipv6 = frame.read_near::<ETHERNET, _>()?;
            if u32::from_be(header.version_class_label_be) >> 28 != 6 {
                return None;
            }
            let end = V6 + usize::from(u16::from_be(header.payload_be));
            let route = Route {
                is_v6: true,
                source: super::join(header.source_be),
                destination: super::join(header.destination_be),
            };
            behind::<F, V6>(frame, &ethernet, header.next, end, route)
        }
        _ => None,
    }
}

/// The transport's header at `AT`, and whether all lengths agree.
#[inline(always)]
fn behind<F: Frame, const AT: usize>(
    frame: &F,
    ethernet: &wire::Ethernet,
    protocol: u8,
    end: usize,
    route: Route,
) -> Option<Plain> {
    if end > frame.len() {
        return None;
    }
    let (ports, bytes) = match protocol {
        protocol::TCP => {
            let header: wire::Tcp = frame.read_near::<AT, _>()?;
            if header.flags & tcp::STATEFUL != tcp::ACK {
                return None;
            }
            (header.ports, (20, usize::from(header.length >> 4) * 4))
        }
        protocol::UDP => {
            let header: wire::Udp = frame.read_near::<AT, _>()?;
            (
                header.ports,
                (8, usize::from(u16::from_be(header.length_be))),
            )
        }
        _ => return None,
    };
    let (least, bytes) = bytes;
    if bytes < least || AT + bytes > end {
        return None;
    }
    Some(Plain {
        source_mac: ethernet.source,
        route,
        source_port: u16::from_be(ports.source_be),
        destination_port: u16::from_be(ports.destination_be),
        protocol,
    })
}
