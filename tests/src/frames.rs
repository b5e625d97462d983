//! Frames made by hand: valid ones by default, every field open to be bent.
//!
//! Checksums are left zero: the programs do not look at them. What a real stack is to take, or
//! a router to pass on, has to be sealed.

use std::net::IpAddr;

/// A MAC address.
pub type Mac = [u8; 6];

/// An Ethernet frame.
#[must_use]
pub fn ethernet(source: Mac, destination: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [&destination[..], &source[..]].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet without options.
#[must_use]
pub fn ipv4(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_piece(source, destination, protocol, 0, 0, payload)
}

/// An IPv4 packet with an identification and the flags-and-offset field.
#[must_use]
pub fn ipv4_piece(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    id: u16,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

/// An IPv4 packet with options (padded to whole words).
#[must_use]
pub fn ipv4_with_options(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let words = options.len().div_ceil(4);
    let padded = [options, &vec![0; words * 4 - options.len()]].concat();
    let mut packet = ipv4(source, destination, protocol, &[&padded, payload].concat());
    packet[0] = 0x45 + u8::try_from(words).unwrap_or(10);
    packet
}

/// An IPv6 packet; `next` is the first header behind it.
#[must_use]
pub fn ipv6(
    source: [u8; 16],
    destination: [u8; 16],
    next: u8,
    hops: u8,
    payload: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next, hops]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

/// A TCP segment without data.
#[must_use]
pub fn tcp(source: u16, destination: u16, flags: u8) -> Vec<u8> {
    let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment
}

/// A UDP datagram.
#[must_use]
pub fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap_or(u16::MAX);
    let mut datagram = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    datagram.extend(length.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    datagram
}

/// An SCTP packet with an INIT chunk's header.
#[must_use]
pub fn sctp(source: u16, destination: u16) -> Vec<u8> {
    let mut packet = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    packet.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20]);
    packet.extend([0; 16]);
    packet
}

/// An ICMP or ICMPv6 message: type, code, the second word, and what follows.
#[must_use]
pub fn icmp(kind: u8, code: u8, word: [u8; 4], payload: &[u8]) -> Vec<u8> {
    [&[kind, code, 0, 0][..], &word, payload].concat()
}

/// An ARP message for IPv4 over Ethernet; operation 1 asks, 2 answers.
#[must_use]
pub fn arp(operation: u16, sender_mac: Mac, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut message = vec![0, 1, 8, 0, 6, 4];
    message.extend(operation.to_be_bytes());
    message.extend(sender_mac);
    message.extend(sender);
    message.extend([0; 6]);
    message.extend(target);
    message
}

/// The internet checksum (RFC 1071).
#[must_use]
pub fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// An IPv4 packet with its header's checksum.
#[must_use]
pub fn sealed_ipv4(mut packet: Vec<u8>) -> Vec<u8> {
    let header = usize::from(packet[0] & 0xf) * 4;
    let sum = checksum(&packet[..header]);
    packet[10..12].copy_from_slice(&sum);
    packet
}

/// An ICMP message with its checksum.
#[must_use]
pub fn sealed_icmp(mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// A UDP datagram with its checksum for the way between these addresses.
#[must_use]
pub fn sealed_udp(source: &[u8], destination: &[u8], mut datagram: Vec<u8>) -> Vec<u8> {
    let sum = checksum_between(source, destination, 17, &datagram);
    datagram[6..8].copy_from_slice(&sum);
    datagram
}

/// An ICMPv6 message with its checksum, likewise.
#[must_use]
pub fn sealed_icmpv6(source: &[u8], destination: &[u8], mut message: Vec<u8>) -> Vec<u8> {
    let sum = checksum_between(source, destination, 58, &message);
    message[2..4].copy_from_slice(&sum);
    message
}

/// With the pseudo-header of either family (RFC 768, RFC 8200): it sums up alike.
fn checksum_between(source: &[u8], destination: &[u8], protocol: u8, payload: &[u8]) -> [u8; 2] {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut covered = [source, destination].concat();
    covered.extend(length.to_be_bytes());
    covered.extend([0, 0, 0, protocol]);
    covered.extend(payload);
    checksum(&covered)
}

/// A piece of a datagram between two addresses of one family, sealed: `offset` octets come
/// before it. The Ethernet type that it goes by stands beside it.
///
/// # Panics
/// When the addresses are of two families.
#[must_use]
pub fn piece(
    (source, destination): (IpAddr, IpAddr),
    protocol: u8,
    id: u16,
    (offset, more): (usize, bool),
    payload: &[u8],
) -> (u16, Vec<u8>) {
    let offset = u16::try_from(offset).unwrap_or(u16::MAX);
    assert!(offset % 8 == 0, "pieces begin at whole blocks of eight");
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let field = if more { 0x2000 } else { 0 } + offset / 8;
            let (source, destination) = (source.octets(), destination.octets());
            let packet = ipv4_piece(source, destination, protocol, id, field, payload);
            (0x0800, sealed_ipv4(packet))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let field = (offset | u16::from(more)).to_be_bytes();
            let header = [&[protocol, 0][..], &field, &[0, 0], &id.to_be_bytes()].concat();
            let (source, destination) = (source.octets(), destination.octets());
            let packet = ipv6(source, destination, 44, 64, &[&header, payload].concat());
            (0x86dd, packet)
        }
        _ => panic!("{source} and {destination} are of two families"),
    }
}

/// A datagram in pieces of `size` octets, first to last.
#[must_use]
pub fn pieces(
    ends: (IpAddr, IpAddr),
    protocol: u8,
    id: u16,
    datagram: &[u8],
    size: usize,
) -> Vec<(u16, Vec<u8>)> {
    (0..datagram.len())
        .step_by(size)
        .map(|offset| {
            let end = datagram.len().min(offset + size);
            let place = (offset, end < datagram.len());
            piece(ends, protocol, id, place, &datagram[offset..end])
        })
        .collect()
}

/// A UDP datagram that a real stack takes.
#[must_use]
pub fn real_udp(
    (source, destination): (IpAddr, IpAddr),
    ports: (u16, u16),
    data: &[u8],
) -> Vec<u8> {
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let datagram = udp(ports.0, ports.1, data);
    sealed_udp(&octets(source), &octets(destination), datagram)
}
