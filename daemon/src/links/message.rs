//! rtnetlink messages: requests made, answers read. Pure.
//!
//! Takes from an answer only what is needed. An attribute that netlink-packet-route could not read is not there
//! (`lenient`), and counts as one that the kernel did not send. Addresses and MACs are in network order.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoIpVlan, InfoMacVlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo,
    LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

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

/// The interface that an answer is about; `None`: it is about none.
pub fn answered_link(answer: RouteNetlinkMessage) -> Option<Link> {
    match answer {
        RouteNetlinkMessage::NewLink(message) => Some(link(&message)),
        _ => None,
    }
}

/// Reads an interface.
pub fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        ifindex: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok(),
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Link(index) => link.link = Some(*index).filter(|index| *index != 0),
            LinkAttribute::Controller(index) => {
                link.master = Some(*index).filter(|index| *index != 0);
            }
            LinkAttribute::LinkNetNsId(id) => link.link_nsid = Some(*id).filter(|id| *id >= 0),
            LinkAttribute::LinkInfo(all) => {
                for info in all {
                    match info {
                        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                        LinkInfo::Data(data) => link.mode = mode(data),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

fn mode(data: &InfoData) -> Option<u32> {
    match data {
        InfoData::MacVlan(all) => all.iter().find_map(|one| match one {
            InfoMacVlan::Mode(mode) => Some((*mode).into()),
            _ => None,
        }),
        InfoData::IpVlan(all) => all.iter().find_map(|one| match one {
            InfoIpVlan::Mode(mode) => Some(u16::from(*mode).into()),
            _ => None,
        }),
        _ => None,
    }
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkAddress {
    pub ifindex: u32,
    pub address: IpAddr,
    /// The addresses by which its holder may be reached beside its own: those for every host on the link, of which the first
    /// of a subnet is one before Linux 5.14; and that first one of an IPv6 subnet, which is for its routers (RFC 4291, 2.6.1:
    /// hosts that forward hear it).
    pub broadcasts: BTreeSet<IpAddr>,
    /// It was set by hand or by an engine, not by a router's advertisement or a lease.
    pub permanent: bool,
}

/// Reads an address; `None`: it has none.
pub fn address(message: &AddressMessage) -> Option<LinkAddress> {
    let (mut local, mut address) = (None, None);
    let mut broadcasts = BTreeSet::new();
    // The header has the lower eight flags; the attribute, since 3.14, all.
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            // On a point-to-point interface IFA_ADDRESS is the other side's.
            AddressAttribute::Local(one) => local = Some(*one),
            AddressAttribute::Address(one) => address = Some(*one),
            AddressAttribute::Broadcast(one) => broadcasts.extend([IpAddr::V4(*one)]),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let length = message.header.prefix_len;
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
        ifindex: message.header.index,
        address: local.or(address)?,
        broadcasts,
        permanent: flags.contains(AddressFlags::Permanent),
    })
}

/// Reads a neighbour whose address waits to be resolved: the interface, and the address.
pub fn unresolved(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    // It was asked for, and has not answered; the states are bits.
    let incomplete = u16::from(NeighbourState::Incomplete);
    if u16::from(message.header.state) & incomplete == 0 {
        return None;
    }
    entry(message)
}

/// Reads a neighbour that the kernel may forget.
pub fn neighbour(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    let kept = u16::from(NeighbourState::Permanent) | u16::from(NeighbourState::Noarp);
    if u16::from(message.header.state) & kept != 0 {
        return None;
    }
    entry(message)
}

/// The interface, and the address.
fn entry(message: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    let address = message.attributes.iter().find_map(|one| match one {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(one)) => Some(IpAddr::V4(*one)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(one)) => Some(IpAddr::V6(*one)),
        _ => None,
    })?;
    Some((message.header.ifindex, address))
}

/// Reads a namespace's id; negative: none is assigned.
pub fn nsid(message: &NsidMessage) -> Option<i32> {
    message.attributes.iter().find_map(|one| match one {
        NsidAttribute::Id(id) => Some(*id),
        _ => None,
    })
}

/// Asks for all interfaces, without the statistics, which are most of an interface's message.
pub fn all_links() -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    RouteNetlinkMessage::GetLink(message)
}

/// Asks for the addresses of both families.
pub fn all_addresses() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetAddress(AddressMessage::default())
}

/// Asks for the neighbours of both families.
pub fn all_neighbours() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default())
}

/// Has a neighbour forgotten.
pub fn forget_neighbour(ifindex: u32, address: IpAddr) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    message.header.family = match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let address = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message.attributes = vec![NeighbourAttribute::Destination(address)];
    RouteNetlinkMessage::DelNeighbour(message)
}

/// Asks about one interface of another namespace (4.20).
pub fn link_elsewhere(nsid: i32, ifindex: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.attributes = vec![LinkAttribute::IfNetnsId(nsid)];
    RouteNetlinkMessage::GetLink(message)
}

/// A namespace by a descriptor that the asking process has open.
pub fn namespace(descriptor: u32) -> NsidMessage {
    let mut message = NsidMessage::default();
    message.attributes = vec![NsidAttribute::Fd(descriptor)];
    message
}

/// That namespace with any id that is free.
pub fn namespace_with_id(descriptor: u32) -> NsidMessage {
    let mut message = namespace(descriptor);
    message.attributes.push(NsidAttribute::Id(-1));
    message
}

#[cfg(test)]
mod tests;
