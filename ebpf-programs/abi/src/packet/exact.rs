//! What has no meaning in a link message and could carry one: padding, traffic classes, options,
//! identifications, destination MACs. Link messages pass whatever policy says, so each of these has
//! to be what stacks send.
//!
//! Linux 6.18 and gVisor were looked at: Linux sends neighbour discovery with no traffic class
//! (`ndisc_tclass` sets it), IGMP with that of network control (RFC 2474, 4.2.2.2), forbids
//! fragments of it and leaves the identification zero; gVisor allows them and has to give one.

use super::{ETHERNET, Frame, Packet, wire};

/// What a frame is padded to (IEEE 802.3), less its checksum.
pub const SHORTEST_FRAME: usize = 60;

/// Is nothing behind `end` but the zeros that make up the shortest frame? Those of udhcpc's ARP are
/// among the bytes that it sends, and a network card's driver adds them for most others.
#[inline(always)]
pub fn ends_exactly<F: Frame>(frame: &F, end: usize) -> bool {
    const WORDS: usize = 9;
    let length = frame.len();
    if length == end {
        return true;
    }
    // Messages that are that short have an even number of bytes.
    if length != SHORTEST_FRAME || end & 1 != 0 || end + WORDS * 2 < length {
        return false;
    }
    let mut at = end;
    let mut walked = 0;
    while walked < WORDS {
        if at >= SHORTEST_FRAME {
            return at == SHORTEST_FRAME;
        }
        if frame.read::<u16>(at) != Some(0) {
            return false;
        }
        at += 2;
        walked += 1;
    }
    at == SHORTEST_FRAME
}

/// Is it the MAC address of the multicast group (RFC 1112, 6.4; RFC 2464, 7)?
#[must_use]
#[inline(always)]
pub const fn is_group_mac(mac: [u8; 6], version: u8, group: &[u8; 16]) -> bool {
    let [a, b, c, d, e, f] = mac;
    let found = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
    let g = group;
    let expected = if version == 4 {
        u64::from_be_bytes([0, 0, 0x01, 0, 0x5e, g[1] & 0x7f, g[2], g[3]])
    } else {
        u64::from_be_bytes([0, 0, 0x33, 0x33, g[12], g[13], g[14], g[15]])
    };
    found == expected
}

/// The traffic class of network control, as DSCP and ECN stand in the field.
const NETWORK_CONTROL: u8 = 0xc0;

/// Version 6, no flow label, and a class that link messages have.
#[inline(always)]
fn is_plain_ipv6<F: Frame>(frame: &F) -> bool {
    const NOTHING: u32 = 6 << 28;
    const CLASS: u32 = 6 << 28 | (NETWORK_CONTROL as u32) << 20;
    let Some(header) = frame.read_near::<ETHERNET, wire::Ipv6>() else {
        return false;
    };
    matches!(u32::from_be(header.version_class_label_be), NOTHING | CLASS)
}

/// Is the message right behind an IPv6 header without extensions, and the frame no longer than
/// it says? Neighbour discovery has no options there, and is not fragmented (RFC 6980, 5).
#[inline(always)]
pub fn has_neighbour_header<F: Frame>(frame: &F, packet: &Packet) -> bool {
    packet.transport as usize == ETHERNET + 40
        && frame.len() == packet.end as usize
        && is_plain_ipv6(frame)
}

/// Is the message behind an IPv6 header and a router alert (RFC 2711, 2.1; RFC 3810, 5), with the
/// padding before or behind it, and the frame no longer than it says?
#[inline(always)]
pub fn has_listener_header<F: Frame>(frame: &F, packet: &Packet) -> bool {
    const ALERT_FIRST: u64 = u64::from_be_bytes([58, 0, 5, 2, 0, 0, 1, 0]);
    const PADDING_FIRST: u64 = u64::from_be_bytes([58, 0, 1, 0, 5, 2, 0, 0]);
    if packet.transport as usize != ETHERNET + 48
        || frame.len() != packet.end as usize
        || !is_plain_ipv6(frame)
    {
        return false;
    }
    let options = frame.read::<[u8; 8]>(ETHERNET + 40);
    matches!(
        options.map(u64::from_be_bytes),
        Some(ALERT_FIRST | PADDING_FIRST)
    )
}

/// Is the message behind an IPv4 header with a router alert (RFC 2113, 2.1) or without options, as
/// stacks send it, and the frame no longer than it says?
#[inline(always)]
pub fn has_membership_header<F: Frame>(frame: &F, packet: &Packet) -> bool {
    const DONT_FRAGMENT: u16 = 0x4000;
    const ALERT: u32 = u32::from_be_bytes([0x94, 4, 0, 0]);
    let Some(header) = frame.read_near::<ETHERNET, wire::Ipv4>() else {
        return false;
    };
    let options = match header.version_and_length {
        0x45 => true,
        0x46 => {
            let options = frame.read::<[u8; 4]>(ETHERNET + 20);
            matches!(options.map(u32::from_be_bytes), Some(ALERT))
        }
        _ => false,
    };
    // A datagram that may be fragmented has to have an identification of its own (RFC 6864, 4).
    let identified = match u16::from_be(header.fragment_be) {
        0 => true,
        DONT_FRAGMENT => header.id_be == 0,
        _ => false,
    };
    options
        && identified
        && matches!(header.service, 0 | NETWORK_CONTROL)
        && ends_exactly(frame, packet.end as usize)
}
