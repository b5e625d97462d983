//! Tells an endpoint's neighbours its addresses, from inside its network namespace: what it said of itself while its
//! interface was on hold was dropped, and neighbours that remember another MAC address for them would not ask again for
//! up to half a minute.
//!
//! Sent by a packet socket on the endpoint's own interface, so that the frames take the way of all its others: through
//! the programs, which let only truth pass, and into the bridge, which learns where the MAC address is. No process of
//! the container sees them. The thread that goes there ends with its errand.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd as _;
use std::thread;

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};

use super::netns::{self, Netns, failed};
use super::{Inside, LinksError};

/// What is to be announced, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The endpoint's network namespace.
    pub netns: Netns,
    /// Device and inode of that one: by the path may be another by now.
    pub identity: (u64, u64),
    /// The host's end of the interface.
    pub ifindex: u32,
    /// The endpoint's addresses; those that the interface has are announced.
    pub addresses: BTreeSet<IpAddr>,
}

/// Announces it. How many addresses were.
///
/// # Errors
/// There is no such namespace (any more), or see [`LinksError`].
pub fn announce(wanted: Announcement) -> Result<usize, LinksError> {
    let path = wanted.netns.path();
    let file = wanted.netns.open()?;
    if netns::identity(&path, &file)? != wanted.identity {
        return Ok(0);
    }
    let sender = thread::Builder::new()
        .name("announcer".to_owned())
        .spawn({
            let path = path.clone();
            move || {
                setns(file, CloneFlags::CLONE_NEWNET)
                    .map_err(|error| failed(&path, error.into()))?;
                let inside = netns::read()?;
                let interface = inside.iter().find(|one| {
                    one.iflink == Some(wanted.ifindex) && one.kind.as_deref() == Some("veth")
                });
                match interface {
                    Some(interface) => send_all(interface, &wanted.addresses)
                        .map_err(|error| failed(&path, error.into())),
                    None => Ok(0),
                }
            }
        })
        .map_err(|source| failed(&path, source))?;
    sender
        .join()
        .unwrap_or_else(|_| Err(failed(&path, std::io::Error::other("its thread panicked"))))
}

fn send_all(interface: &Inside, addresses: &BTreeSet<IpAddr>) -> nix::Result<usize> {
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
    let mut sent = 0;
    for address in own {
        let frame = match address {
            IpAddr::V4(address) => arp_announcement(mac, address),
            IpAddr::V6(address) => unsolicited_advertisement(mac, address),
        };
        send(socket.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT)?;
        sent += 1;
    }
    Ok(sent)
}

const BROADCAST: [u8; 6] = [0xff; 6];

/// An ARP announcement (RFC 5227, 3): a question for the sender's own address.
fn arp_announcement(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, 0x0806);
    // Ethernet, IPv4, lengths of their addresses, a request.
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend(address.octets());
    frame.extend([0; 6]);
    frame.extend(address.octets());
    frame
}

/// An unsolicited neighbour advertisement to all nodes, which overrides what they know (RFC 4861, 7.2.6).
fn unsolicited_advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ICMPV6: u8 = 58;
    const OVERRIDE: u8 = 0x20;
    let mut message = vec![136, 0, 0, 0, OVERRIDE, 0, 0, 0];
    message.extend(address.octets());
    // The target's link-layer address, in units of eight octets.
    message.extend([2, 1]);
    message.extend(mac);
    let mut summed = Vec::new();
    summed.extend(address.octets());
    summed.extend(ALL_NODES.octets());
    summed.extend((message.len() as u32).to_be_bytes());
    summed.extend([0, 0, 0, ICMPV6]);
    summed.extend(&message);
    message[2..4].copy_from_slice(&checksum(&summed).to_be_bytes());
    let mut frame = ethernet([0x33, 0x33, 0, 0, 0, 1], mac, 0x86dd);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend((message.len() as u16).to_be_bytes());
    // The hop limit proves that nobody forwarded it.
    frame.extend([ICMPV6, 255]);
    frame.extend(address.octets());
    frame.extend(ALL_NODES.octets());
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
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
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
        let frame = arp_announcement(MAC, [10, 0, 0, 9].into());
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
}
