//! Bytes as a frame. Whatever they are: the parser has an answer, reads nothing outside the packet,
//! and where `etherparse` reads the frame too, both read the same. What the parser refuses and
//! etherparse does not, it refuses for a reason that etherparse does not look at.

use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};
use netpol_abi::Reason;
use netpol_abi::packet::{self, Arp, ETHERNET, Packet, Piece, ethertype, protocol};

/// What the parser made of a frame.
enum Read {
    Ip(Packet),
    Arp(Arp),
}

pub fn hold(bytes: &[u8]) {
    for version in [ethertype::IPV4, ethertype::IPV6] {
        // What an ICMP error quotes stands anywhere, and ends anywhere.
        for at in [0, ETHERNET, 42, 62, bytes.len() / 2] {
            if let Ok(found) = ip(bytes, at, version, true) {
                lies_inside(bytes, &found, at);
            }
        }
    }
    let read = read(bytes);
    if let Ok(Read::Ip(found)) = &read {
        lies_inside(bytes, found, ETHERNET);
    }
    let Ok(theirs) = SlicedPacket::from_ethernet(bytes) else {
        return;
    };
    match read {
        Ok(Read::Ip(found)) => alike(bytes, &found, &theirs),
        Ok(Read::Arp(found)) => arp_alike(&found, &theirs),
        Err(reason) => assert!(
            may_refuse(reason, &theirs),
            "refused as {reason:?}, and read as {theirs:?}"
        ),
    }
}

fn read(bytes: &[u8]) -> Result<Read, Reason> {
    let ethernet = packet::ethernet(&bytes)?;
    match ethernet.ethertype {
        kind @ (ethertype::IPV4 | ethertype::IPV6) => {
            ip(bytes, ETHERNET, kind, false).map(Read::Ip)
        }
        ethertype::ARP => packet::arp(&bytes).map(Read::Arp),
        ethertype::VLAN | ethertype::QINQ => Err(Reason::Vlan),
        _ => Err(Reason::EtherType),
    }
}

fn ip(bytes: &[u8], at: usize, version: u16, quoted: bool) -> Result<Packet, Reason> {
    // Nothing of what was there before stays.
    let mut found = Packet {
        source: [0xaa; 16],
        source_port: 0xaaaa,
        tcp_flags: 0xaa,
        piece: Piece::Later,
        ..Packet::default()
    };
    if version == ethertype::IPV4 {
        packet::ipv4(&bytes, at, quoted, &mut found)?;
    } else {
        packet::ipv6(&bytes, at, quoted, &mut found)?;
    }
    packet::transport(&bytes, &mut found, quoted)?;
    Ok(found)
}

fn lies_inside(bytes: &[u8], found: &Packet, at: usize) {
    let (transport, end) = (found.transport as usize, found.end as usize);
    assert!(end <= bytes.len(), "{found:?} of {} bytes", bytes.len());
    assert!(transport >= at + 20, "{found:?}");
    if found.piece == Piece::Later {
        let read = (found.source_port, found.destination_port, found.tcp_flags);
        assert_eq!(read, (0, 0, 0), "a later fragment has no ports");
        return;
    }
    match found.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            assert!(transport + 8 <= end, "{found:?}");
            let ports = [
                &bytes[transport..transport + 2],
                &bytes[transport + 2..transport + 4],
            ];
            let said = [
                found.source_port.to_be_bytes(),
                found.destination_port.to_be_bytes(),
            ];
            assert_eq!(ports, [&said[0], &said[1]]);
        }
        protocol::ICMP | protocol::ICMPV6 | protocol::IGMP => {
            assert!(transport + 8 <= end, "{found:?}")
        }
        _ => assert_eq!((found.source_port, found.destination_port), (0, 0)),
    }
}

fn alike(bytes: &[u8], found: &Packet, theirs: &SlicedPacket<'_>) {
    let payload = match &theirs.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            assert_eq!((found.version, found.hops), (4, header.ttl()));
            assert_eq!(found.source[..4], header.source());
            assert_eq!(found.destination[..4], header.destination());
            assert_eq!(
                (&found.source[4..], &found.destination[4..]),
                (&[0; 12][..], &[0; 12][..])
            );
            assert_eq!(found.fragment_id, u32::from(header.identification()));
            let piece = piece(
                header.fragments_offset().value() << 3,
                header.more_fragments(),
            );
            assert_eq!((found.fragment_offset, found.piece), piece);
            if ip.extensions().auth.is_some() {
                // To IPv4 the authentication header is a protocol like others.
                assert_eq!(found.protocol, IpNumber::AUTHENTICATION_HEADER.0);
                return;
            }
            ip.payload()
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            assert_eq!((found.version, found.hops), (6, header.hop_limit()));
            assert_eq!(found.source, header.source());
            assert_eq!(found.destination, header.destination());
            if header.payload_length() == 0 {
                return;
            }
            ip.payload()
        }
        other => panic!("{found:?} is read as {other:?}"),
    };
    if unwalked(Some(payload.ip_number.0)) {
        return;
    }
    if found.piece == Piece::Later {
        assert!(payload.fragmented, "{found:?}");
        return;
    }
    assert_eq!(found.protocol, payload.ip_number.0, "{found:?}");
    let at = payload.payload.as_ptr() as usize - bytes.as_ptr() as usize;
    assert_eq!(
        (found.transport as usize, found.end as usize),
        (at, at + payload.payload.len())
    );
    assert_eq!(found.piece != Piece::Whole, payload.fragmented);
    let ports = (found.source_port, found.destination_port);
    match &theirs.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            assert_eq!(ports, (tcp.source_port(), tcp.destination_port()));
            let flags = [
                tcp.fin(),
                tcp.syn(),
                tcp.rst(),
                tcp.psh(),
                tcp.ack(),
                tcp.urg(),
                tcp.ece(),
                tcp.cwr(),
            ];
            let flags = flags
                .iter()
                .rev()
                .fold(0, |all, set| all << 1 | u8::from(*set));
            assert_eq!(found.tcp_flags, flags);
        }
        Some(TransportSlice::Udp(udp)) => {
            assert_eq!(ports, (udp.source_port(), udp.destination_port()));
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            assert_eq!(ports, (icmp.type_u8().into(), icmp.code_u8().into()));
            assert_eq!(found.echo_id.to_be_bytes(), icmp.bytes5to8()[..2]);
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            assert_eq!(ports, (icmp.type_u8().into(), icmp.code_u8().into()));
            assert_eq!(found.echo_id.to_be_bytes(), icmp.bytes5to8()[..2]);
        }
        _ => {}
    }
}

fn piece(offset: u16, more: bool) -> (u16, Piece) {
    let piece = match (offset, more) {
        (0, false) => Piece::Whole,
        (0, true) => Piece::First,
        _ => Piece::Later,
    };
    (offset, piece)
}

fn arp_alike(found: &Arp, theirs: &SlicedPacket<'_>) {
    let Some(NetSlice::Arp(arp)) = &theirs.net else {
        panic!("{found:?} is read as {theirs:?}");
    };
    assert_eq!(found.sender_mac, arp.sender_hw_addr());
    assert_eq!(found.sender, arp.sender_protocol_addr());
    assert_eq!(found.target, arp.target_protocol_addr());
}

/// Mobility, HIP, SHIM6: headers that etherparse does not walk. What is behind them it does not see.
fn unwalked(number: Option<u8>) -> bool {
    matches!(number, Some(135 | 139 | 140))
}

/// May the parser refuse what etherparse reads?
fn may_refuse(reason: Reason, theirs: &SlicedPacket<'_>) -> bool {
    let fragmented = theirs.is_ip_payload_fragmented();
    let number = theirs.ip_payload().map(|payload| payload.ip_number.0);
    match (reason, &theirs.net) {
        (Reason::Vlan, _) => !theirs.link_exts.is_empty(),
        (Reason::EtherType, _) => true,
        // Any hardware and protocol is an ARP message to etherparse.
        (Reason::Malformed, Some(NetSlice::Arp(arp))) => {
            (arp.hw_addr_size(), arp.proto_addr_size()) != (6, 4)
                || arp.hw_addr_type().0 != 1
                || arp.proto_addr_type().0 != ethertype::IPV4
        }
        (Reason::Truncated, Some(NetSlice::Arp(arp))) => arp.slice().len() < 28,
        (Reason::SourceRoute, Some(NetSlice::Ipv4(ip))) => !ip.header().options().is_empty(),
        // How far one walks, and where a routing header leads to.
        (Reason::ExtensionHeaders, Some(NetSlice::Ipv6(_))) => true,
        (Reason::FragmentTiny, _) => fragmented || unwalked(number),
        // A header that etherparse does not read further than its number: SCTP, and whatever
        // stands in a first fragment. A payload of no length is the whole slice to it.
        (Reason::Malformed, _) => fragmented || unwalked(number),
        (Reason::Truncated, Some(NetSlice::Ipv6(ip))) if ip.header().payload_length() == 0 => true,
        (Reason::Truncated, _) => number == Some(protocol::SCTP) || unwalked(number),
        _ => false,
    }
}
