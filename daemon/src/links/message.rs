//! rtnetlink messages as bytes: requests made, answers read.
//!
//! Read by hand, and only what is needed: an attribute of a newer kernel, or one with an
//! unexpected length, is skipped and never costs the whole message. Everything is in
//! host byte order but addresses and MACs, which are in network order. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};

use crate::netlink::{Message, attribute, attributes, read_i32, read_u32, request, text};

pub const RTM_NEWLINK: u16 = 16;
pub const RTM_DELLINK: u16 = 17;
pub const RTM_GETLINK: u16 = 18;
pub const RTM_NEWADDR: u16 = 20;
pub const RTM_DELADDR: u16 = 21;
pub const RTM_GETADDR: u16 = 22;
pub const RTM_NEWNEIGH: u16 = 28;
pub const RTM_GETNEIGH: u16 = 30;
pub const RTM_NEWNSID: u16 = 88;
pub const RTM_GETNSID: u16 = 90;

pub const NETNSA_NSID: u16 = 1;
pub const NETNSA_FD: u16 = 3;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
/// `IFLA_MACVLAN_MODE` (32 bits) and `IFLA_IPVLAN_MODE` (16 bits).
const MODE: u16 = 1;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_EXT_MASK: u16 = 29;
/// Asks about an interface of the namespace that has this id here (4.20).
const IFLA_TARGET_NETNSID: u16 = 46;
/// Leaves out the statistics, which are most of an interface's message.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFF_UP: u32 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// It stays until it is removed: neither a router nor a lease gave it.
const IFA_F_PERMANENT: u32 = 0x80;

const NDA_DST: u16 = 1;
/// It was asked for, and has not answered.
const NUD_INCOMPLETE: u16 = 1;

const NDMSG: usize = 12;
const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;
const RTGENMSG: usize = 4;
/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub ifindex: u32,
    pub name: String,
    pub kind: Option<String>,
    /// The mode of a macvlan or ipvlan.
    pub mode: Option<u32>,
    pub mac: Option<[u8; 6]>,
    pub link: Option<u32>,
    pub link_nsid: Option<i32>,
    pub master: Option<u32>,
    pub up: bool,
}

/// Reads `RTM_NEWLINK` and `RTM_DELLINK`.
pub fn link(message: &Message<'_>) -> Option<Link> {
    if !matches!(message.message_type(), RTM_NEWLINK | RTM_DELLINK) {
        return None;
    }
    let mut link = Link {
        ifindex: read_u32(message.payload(), 4)?,
        up: read_u32(message.payload(), 8)? & IFF_UP != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(message.payload().get(IFINFOMSG..)?) {
        match kind {
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_IFNAME => link.name = text(value),
            IFLA_LINK => link.link = read_u32(value, 0).filter(|index| *index != 0),
            IFLA_MASTER => link.master = read_u32(value, 0).filter(|index| *index != 0),
            IFLA_LINK_NETNSID => link.link_nsid = read_i32(value, 0).filter(|id| *id >= 0),
            IFLA_LINKINFO => {
                for (kind, value) in attributes(value) {
                    match kind {
                        IFLA_INFO_KIND => link.kind = Some(text(value)),
                        IFLA_INFO_DATA => link.mode = mode(value),
                        _ => {}
                    }
                }
                // A number of another kind means something else.
                let has_mode = matches!(link.kind.as_deref(), Some("macvlan" | "ipvlan"));
                link.mode = link.mode.filter(|_| has_mode);
            }
            _ => {}
        }
    }
    Some(link)
}

fn mode(data: &[u8]) -> Option<u32> {
    let (_, value) = attributes(data).find(|(kind, _)| *kind == MODE)?;
    if let Ok(short) = <[u8; 2]>::try_from(value) {
        return Some(u16::from_ne_bytes(short).into());
    }
    read_u32(value, 0)
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    pub ifindex: u32,
    pub address: IpAddr,
    /// The addresses by which its holder may be reached beside its own: those for everybody on the link, of which the first
    /// of a subnet is one before Linux 5.14; and that first one of an IPv6 subnet, which is for its routers (RFC 4291, 2.6.1:
    /// hosts that forward hear it).
    pub broadcasts: BTreeSet<IpAddr>,
    /// It was set by hand or by an engine, not by a router's advertisement or a lease.
    pub permanent: bool,
}

/// Reads `RTM_NEWADDR` and `RTM_DELADDR`.
pub fn address(message: &Message<'_>) -> Option<LinkAddress> {
    if !matches!(message.message_type(), RTM_NEWADDR | RTM_DELADDR) {
        return None;
    }
    let ifindex = read_u32(message.payload(), 4)?;
    let (mut local, mut address) = (None, None);
    let mut broadcasts = BTreeSet::new();
    // The header has the lower eight flags; the attribute, since 3.14, all.
    let mut flags = u32::from(*message.payload().get(2)?);
    for (kind, value) in attributes(message.payload().get(IFADDRMSG..)?) {
        match kind {
            // On a point-to-point interface IFA_ADDRESS is the other side's.
            IFA_LOCAL => local = ip_address(value),
            IFA_ADDRESS => address = ip_address(value),
            IFA_BROADCAST => broadcasts.extend(ip_address(value)),
            IFA_FLAGS => flags = read_u32(value, 0).unwrap_or(flags),
            _ => {}
        }
    }
    let length = *message.payload().get(1)?;
    match address {
        Some(IpAddr::V4(subnet)) if (1..31).contains(&length) => {
            if let Ok(subnet) = Ipv4Net::new(subnet, length) {
                broadcasts.extend([subnet.network(), subnet.broadcast()].map(IpAddr::V4));
            }
        }
        // On a link of two there is none (RFC 6164).
        Some(IpAddr::V6(subnet)) if (1..127).contains(&length) => {
            if let Ok(subnet) = Ipv6Net::new(subnet, length) {
                broadcasts.insert(subnet.network().into());
            }
        }
        _ => {}
    }
    Some(LinkAddress {
        ifindex,
        address: local.or(address)?,
        broadcasts,
        permanent: flags & IFA_F_PERMANENT != 0,
    })
}

/// Reads a neighbour (`RTM_NEWNEIGH`) whose address waits to be resolved: the interface, and the address.
pub fn unresolved(message: &Message<'_>) -> Option<(u32, IpAddr)> {
    let ifindex = read_u32(message.payload(), 4)?;
    let state = message.payload().get(8..10)?;
    let state = u16::from_ne_bytes([state[0], state[1]]);
    if message.message_type() != RTM_NEWNEIGH || state & NUD_INCOMPLETE == 0 {
        return None;
    }
    let mut attributes = attributes(message.payload().get(NDMSG..)?);
    let (_, address) = attributes.find(|(kind, _)| *kind == NDA_DST)?;
    Some((ifindex, ip_address(address)?))
}

/// Reads the id in an answer to `RTM_GETNSID`; negative: none is assigned.
pub fn nsid(message: &Message<'_>) -> Option<i32> {
    if message.message_type() != RTM_NEWNSID {
        return None;
    }
    attributes(message.payload().get(RTGENMSG..)?)
        .find(|(kind, _)| *kind == NETNSA_NSID)
        .and_then(|(_, value)| read_i32(value, 0))
}

/// A request for a whole table of `kind`, all families.
pub fn dump_request(kind: u16, sequence: u32) -> Vec<u8> {
    let mut body = vec![
        0;
        match kind {
            RTM_GETLINK => IFINFOMSG,
            RTM_GETNEIGH => NDMSG,
            _ => IFADDRMSG,
        }
    ];
    if kind == RTM_GETLINK {
        attribute(
            &mut body,
            IFLA_EXT_MASK,
            &RTEXT_FILTER_SKIP_STATS.to_ne_bytes(),
        );
    }
    request(kind, NLM_F_REQUEST | NLM_F_DUMP, sequence, &body)
}

/// A request about one interface of another namespace.
pub fn link_request(sequence: u32, nsid: i32, ifindex: u32) -> Vec<u8> {
    let mut body = vec![0; IFINFOMSG];
    body[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    attribute(&mut body, IFLA_TARGET_NETNSID, &nsid.to_ne_bytes());
    request(RTM_GETLINK, NLM_F_REQUEST | NLM_F_ACK, sequence, &body)
}

/// A request about a namespace's id.
pub fn nsid_request(kind: u16, sequence: u32, attributes: &[(u16, i32)]) -> Vec<u8> {
    let mut body = vec![0; RTGENMSG];
    for (kind, value) in attributes {
        attribute(&mut body, *kind, &value.to_ne_bytes());
    }
    request(kind, NLM_F_REQUEST | NLM_F_ACK, sequence, &body)
}

fn ip_address(value: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        return Some(octets.into());
    }
    <[u8; 16]>::try_from(value).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::netlink::messages;

    fn link_bytes() -> Vec<u8> {
        let mut body = vec![0; IFINFOMSG];
        body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        body[8..12].copy_from_slice(&(IFF_UP | 0x40).to_ne_bytes());
        // A name, padded: `veth0\0` is 6 bytes.
        body.extend(10_u16.to_ne_bytes());
        body.extend(IFLA_IFNAME.to_ne_bytes());
        body.extend(b"veth0\0\0\0");
        body.extend(10_u16.to_ne_bytes());
        body.extend(IFLA_ADDRESS.to_ne_bytes());
        body.extend([2, 0, 0, 0, 0, 9, 0, 0]);
        // Nested flag set, as the kernel may.
        body.extend(13_u16.to_ne_bytes());
        body.extend((IFLA_LINKINFO | 0x8000).to_ne_bytes());
        body.extend(9_u16.to_ne_bytes());
        body.extend(IFLA_INFO_KIND.to_ne_bytes());
        body.extend(b"veth\0\0\0\0");
        attribute(&mut body, IFLA_LINK_NETNSID, &3_i32.to_ne_bytes());
        attribute(&mut body, IFLA_LINK, &2_i32.to_ne_bytes());
        request(RTM_NEWLINK, 0, 1, &body)
    }

    #[test]
    fn an_interface_is_read_with_what_it_says() {
        let bytes = link_bytes();
        let message = messages(&bytes).next().unwrap();
        let expected = Link {
            ifindex: 7,
            name: "veth0".to_owned(),
            kind: Some("veth".to_owned()),
            mode: None,
            mac: Some([2, 0, 0, 0, 0, 9]),
            link: Some(2),
            link_nsid: Some(3),
            master: None,
            up: true,
        };
        assert_eq!(link(&message), Some(expected));
        assert_eq!(address(&message), None);
    }

    #[test]
    fn the_mode_of_a_macvlan_and_of_an_ipvlan_is_read() {
        let of = |kind: &str, mode: &[u8]| {
            let mut data = Vec::new();
            attribute(&mut data, MODE, mode);
            let mut info = Vec::new();
            attribute(&mut info, IFLA_INFO_KIND, format!("{kind}\0").as_bytes());
            attribute(&mut info, IFLA_INFO_DATA, &data);
            let mut body = vec![0; IFINFOMSG];
            attribute(&mut body, IFLA_LINKINFO, &info);
            let bytes = request(RTM_NEWLINK, 0, 1, &body);
            link(&messages(&bytes).next().unwrap()).unwrap().mode
        };
        assert_eq!(of("macvlan", &4_u32.to_ne_bytes()), Some(4));
        assert_eq!(of("ipvlan", &2_u16.to_ne_bytes()), Some(2));
        assert_eq!(of("bridge", &4_u32.to_ne_bytes()), None);
        assert_eq!(of("ipvlan", &[2]), None);
    }

    #[test]
    fn a_message_cut_anywhere_is_read_or_left_and_never_panics() {
        let mut bytes = link_bytes();
        let whole = bytes.len();
        bytes.extend(link_bytes());
        assert_eq!(messages(&bytes).count(), 2);
        for end in 0..bytes.len() {
            let read = messages(&bytes[..end])
                .filter_map(|message| link(&message))
                .count();
            assert_eq!(read, end / whole, "cut at {end}");
        }
        for at in 0..whole {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut broken = link_bytes();
                broken[at] = value;
                for message in messages(&broken) {
                    let _ = (link(&message), address(&message), nsid(&message));
                }
            }
        }
    }

    #[test]
    fn of_two_ends_the_address_is_the_near_one() {
        let mut body = vec![0; IFADDRMSG];
        attribute(&mut body, IFA_ADDRESS, &[10, 0, 0, 2]);
        attribute(&mut body, IFA_LOCAL, &[10, 0, 0, 1]);
        let bytes = request(RTM_NEWADDR, 0, 1, &body);
        let message = messages(&bytes).next().unwrap();
        let expected = LinkAddress {
            ifindex: 0,
            address: IpAddr::from([10, 0, 0, 1]),
            broadcasts: BTreeSet::new(),
            permanent: false,
        };
        assert_eq!(address(&message), Some(expected));
    }

    #[test]
    fn a_subnet_has_addresses_for_everybody() {
        let of = |length: u8, own: &[u8], broadcast: Option<[u8; 4]>| {
            let mut body = vec![0; IFADDRMSG];
            body[1] = length;
            attribute(&mut body, IFA_ADDRESS, own);
            if let Some(broadcast) = broadcast {
                attribute(&mut body, IFA_BROADCAST, &broadcast);
            }
            let bytes = request(RTM_NEWADDR, 0, 1, &body);
            let found = address(&messages(&bytes).next().unwrap()).unwrap();
            let all = found.broadcasts.iter().map(ToString::to_string);
            all.collect::<Vec<_>>()
        };
        let both = ["10.0.0.0", "10.0.0.255"];
        assert_eq!(of(24, &[10, 0, 0, 1], Some([10, 0, 0, 255])), both);
        assert_eq!(of(24, &[10, 0, 0, 1], None), both);
        let set = of(24, &[10, 0, 0, 1], Some([10, 0, 255, 255]));
        assert_eq!(set, ["10.0.0.0", "10.0.0.255", "10.0.255.255"]);
        assert_eq!(of(31, &[10, 0, 0, 1], None), [""; 0]);
        assert_eq!(of(32, &[10, 0, 0, 1], None), [""; 0]);
        let own = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        assert_eq!(of(64, &own("fd00::1"), None), ["fd00::"]);
        assert_eq!(of(64, &own("fe80::1"), None), ["fe80::"]);
        assert_eq!(of(127, &own("fd00::1"), None), [""; 0]);
        assert_eq!(of(128, &own("::1"), None), [""; 0]);
    }

    #[test]
    fn an_address_is_permanent_by_its_header_or_by_the_attribute() {
        let of = |header: u8, attribute_flags: Option<u32>| {
            let mut body = vec![0; IFADDRMSG];
            body[2] = header;
            attribute(&mut body, IFA_ADDRESS, &[10, 0, 0, 2]);
            if let Some(flags) = attribute_flags {
                attribute(&mut body, IFA_FLAGS, &flags.to_ne_bytes());
            }
            let bytes = request(RTM_NEWADDR, 0, 1, &body);
            address(&messages(&bytes).next().unwrap())
                .unwrap()
                .permanent
        };
        assert!(of(0x80, None));
        assert!(of(0x80, Some(0x280)));
        assert!(!of(0, None));
        // A router's: IFA_F_MANAGETEMPADDR.
        assert!(!of(0, Some(0x100)));
    }
}
