//! Tells an endpoint's neighbours its addresses, from inside its network namespace: what it said of itself while its
//! interface was on hold was dropped, and neighbours that remember another MAC address for them would not ask again for
//! up to half a minute. And asks once more for neighbours that the endpoint asked for meanwhile, as its kernel would do
//! only after a second: the packets that wait for the answer go out with it.
//!
//! Sent by a packet socket on the endpoint's own interface, so that the frames take the way of all its others: through
//! the programs, which let only truth pass, and into the bridge, which learns where the MAC address is. No process of
//! the container sees them. The thread that goes there ends with its errand.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};

use super::ask::here;
use super::error::LinksError;
use super::netns::{Inside, read};
use crate::netns::{self, Identity, Netns};

/// What is to be announced, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The endpoint's network namespace.
    pub netns: Netns,
    /// Device and inode of that one: by the path may be another by now.
    pub identity: Identity,
    /// The host's end of the interface.
    pub ifindex: u32,
    /// The endpoint's addresses; those that the interface has are announced.
    pub addresses: BTreeSet<IpAddr>,
}

/// Announces it. How many addresses were.
///
/// # Errors
/// There is no such namespace (any more), or see [`LinksError`].
pub fn announce(wanted: &Announcement) -> Result<usize, LinksError> {
    let failed = |source| LinksError::namespace(&wanted.netns, source);
    let file = wanted.netns.open()?;
    if netns::identity(&file).map_err(failed)? != wanted.identity {
        return Ok(0);
    }
    let host = Netns::own().open()?;
    netns::inside_opened(&wanted.netns.path(), &file, || {
        let found = here(async |route| {
            let inside = read(route, &host).await?;
            let interface = inside.into_iter().find(|one| {
                one.iflink == Some(wanted.ifindex) && one.kind.as_deref() == Some("veth")
            });
            let Some(interface) = interface else {
                return Ok(None);
            };
            let unresolved = route.unresolved("listing a container's neighbours").await?;
            Ok(Some((interface, unresolved)))
        })?;
        let Some((interface, unresolved)) = found else {
            return Ok(0);
        };
        let unresolved = unresolved
            .into_iter()
            .filter(|(ifindex, _)| *ifindex == interface.ifindex)
            .map(|(_, address)| address);
        send_all(&interface, &wanted.addresses, unresolved).map_err(|error| failed(error.into()))
    })?
}

fn send_all(
    interface: &Inside,
    addresses: &BTreeSet<IpAddr>,
    unresolved: impl Iterator<Item = IpAddr>,
) -> nix::Result<usize> {
    let Some(mac) = interface.mac.filter(|_| interface.up) else {
        return Ok(0);
    };
    let link = getifaddrs()?.find_map(|found| {
        let link = *found.address?.as_link_addr()?;
        (link.ifindex() == interface.ifindex as usize).then_some(link)
    });
    let Some(link) = link else {
        return Ok(0);
    };
    // Without a protocol it receives nothing.
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bind(socket.as_raw_fd(), &link)?;
    let own = interface.usable().filter(|own| addresses.contains(own));
    let own: Vec<IpAddr> = own.collect();
    let announcements = own.iter().map(|address| match *address {
        IpAddr::V4(address) => arp_request(mac, address, address),
        IpAddr::V6(address) => unsolicited_advertisement(mac, address),
    });
    let questions = unresolved.filter_map(|target| question(mac, &own, target));
    for frame in announcements.chain(questions) {
        send(socket.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT)?;
    }
    Ok(own.len())
}

/// Asks for a neighbour, under the first of these addresses that may.
fn question(mac: [u8; 6], own: &[IpAddr], target: IpAddr) -> Option<Vec<u8>> {
    match target {
        IpAddr::V4(target) => own.iter().find_map(|own| match own {
            IpAddr::V4(own) => Some(arp_request(mac, *own, target)),
            IpAddr::V6(_) => None,
        }),
        IpAddr::V6(target) => own.iter().find_map(|own| match own {
            IpAddr::V6(own) if own.is_unicast_link_local() == target.is_unicast_link_local() => {
                Some(solicitation(mac, *own, target))
            }
            _ => None,
        }),
    }
}

const BROADCAST: [u8; 6] = [0xff; 6];

/// An ARP request. For the sender's own address it is an announcement (RFC 5227, 3).
fn arp_request(mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, 0x0806);
    // Ethernet, IPv4, lengths of their addresses, a request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// An unsolicited neighbour advertisement to all nodes, which overrides what they know (RFC 4861, 7.2.6).
fn unsolicited_advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ADVERTISEMENT: u8 = 136;
    const OVERRIDE: u8 = 0x20;
    // The target's link-layer address.
    neighbour_message(
        [ADVERTISEMENT, OVERRIDE, 2],
        mac,
        [address, ALL_NODES, address],
    )
}

/// A neighbour solicitation to the target's solicited-node address (RFC 4861, 7.2.2; RFC 4291, 2.7.1).
fn solicitation(mac: [u8; 6], source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    const SOLICITATION: u8 = 135;
    let [.., high, low] = target.segments();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low);
    // The source's link-layer address.
    neighbour_message([SOLICITATION, 0, 1], mac, [source, group, target])
}

/// A message of neighbour discovery to a group: its type, flags and the type of its option; its source, destination and
/// target.
fn neighbour_message(
    [kind, flags, option]: [u8; 3],
    mac: [u8; 6],
    [source, group, target]: [Ipv6Addr; 3],
) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    // Its length is in units of eight octets.
    message.extend([option, 1]);
    message.extend(mac);
    let mut summed = Vec::new();
    summed.extend(source.octets());
    summed.extend(group.octets());
    summed.extend((message.len() as u32).to_be_bytes());
    summed.extend([0, 0, 0, ICMPV6]);
    summed.extend(&message);
    message[2..4].copy_from_slice(&checksum(&summed).to_be_bytes());
    // RFC 2464, 7.
    let [.., a, b, c, d] = group.octets();
    let mut frame = ethernet([0x33, 0x33, a, b, c, d], mac, 0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    // The hop limit proves that no router forwarded it.
    frame.extend([ICMPV6, 255]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

fn ethernet(destination: [u8; 6], source: [u8; 6], ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(86);
    frame.extend(destination);
    frame.extend(source);
    frame.extend(ethertype.to_be_bytes());
    frame
}

/// RFC 1071; of an even number of octets.
fn checksum(octets: &[u8]) -> u16 {
    let words = octets
        .as_chunks()
        .0
        .iter()
        .map(|&pair| u32::from(u16::from_be_bytes(pair)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    const MAC: [u8; 6] = [2, 0x42, 0, 0, 0, 9];

    #[test]
    fn an_arp_announcement_is_what_linux_takes_for_one() {
        let own = Ipv4Addr::new(10, 0, 0, 9);
        let frame = arp_request(MAC, own, own);
        let expected = [
            &[0xff; 6][..],
            &MAC,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &MAC,
            &[10, 0, 0, 9, 0, 0, 0, 0, 0, 0, 10, 0, 0, 9],
        ];
        assert_eq!(frame, expected.concat());
    }

    #[test]
    fn an_unsolicited_advertisement_is_whole() {
        let address: Ipv6Addr = "fd00::9".parse().unwrap();
        let frame = unsolicited_advertisement(MAC, address);
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = &packet.net else {
            panic!("{packet:?}");
        };
        let header = ip.header();
        assert_eq!((header.source_addr(), header.hop_limit()), (address, 255));
        let Some(TransportSlice::Icmpv6(message)) = &packet.transport else {
            panic!("{packet:?}");
        };
        assert_eq!(message.type_u8(), 136);
        assert!(message.is_checksum_valid(header.source(), header.destination()));
        assert_eq!(&frame[62..78], address.octets());
        assert_eq!(&frame[78..], [&[2, 1][..], &MAC].concat());
    }

    #[test]
    fn a_neighbour_is_asked_for_under_an_address_of_its_scope() {
        let own: Vec<IpAddr> = ["fe80::9", "fd00::9", "10.0.0.9"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let source = |target: &str| {
            let frame = question(MAC, &own, target.parse().unwrap())?;
            Some(frame[22..38].to_vec())
        };
        assert_eq!(source("fe80::1").unwrap()[..2], [0xfe, 0x80]);
        assert_eq!(source("fd00::12:3456").unwrap()[..2], [0xfd, 0]);
        let frame = question(MAC, &own, "fd00::12:3456".parse().unwrap()).unwrap();
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!((frame[54], &frame[78..80]), (135, &[1, 1][..]));
        let arp = question(MAC, &own, "10.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(arp[28..], [10, 0, 0, 9, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
        assert_eq!(question(MAC, &own[..2], "10.0.0.1".parse().unwrap()), None);
    }
}
