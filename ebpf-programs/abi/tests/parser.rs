//! The parser on anything: it has an answer for every byte sequence, and what it says of
//! a packet lies inside the packet.

use netpol_abi::packet::{ETHERNET, Packet, Piece, arp, ethernet, ipv4, ipv6, transport};
use proptest::prelude::*;

/// Bytes that reach deep: an IP header of the version with random fields, then anything.
fn packet(version: u8) -> impl Strategy<Value = Vec<u8>> {
    let header = if version == 4 { 20 } else { 40 };
    (
        prop::collection::vec(any::<u8>(), ETHERNET + header..400),
        prop::sample::select(vec![0_u8, 1, 6, 17, 43, 44, 50, 51, 58, 59, 60, 132, 135]),
        any::<bool>(),
    )
        .prop_map(move |(mut bytes, next, honest)| {
            let length = bytes.len();
            let at = ETHERNET;
            bytes[at] = if version == 4 {
                0x45 | (bytes[at] & 0x0a)
            } else {
                0x60 | (bytes[at] & 0xf)
            };
            let (place, field) = if version == 4 {
                (9, length - at)
            } else {
                (6, length - at - 40)
            };
            bytes[at + place] = next;
            if honest {
                let at = at + if version == 4 { 2 } else { 4 };
                bytes[at..at + 2].copy_from_slice(&u16::try_from(field).unwrap_or(0).to_be_bytes());
            }
            bytes
        })
}

fn read(bytes: &[u8], version: u8, quoted: bool) -> Option<Packet> {
    let mut found = Packet::default();
    let network = if version == 4 { ipv4 } else { ipv6 };
    network(&bytes, ETHERNET, quoted, &mut found).ok()?;
    transport(&bytes, &mut found, quoted).ok()?;
    Some(found)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200), quoted: bool) {
        let _ = ethernet(&bytes.as_slice());
        let _ = arp(&bytes.as_slice());
        for version in [4, 6] {
            let _ = read(&bytes, version, quoted);
        }
    }

    #[test]
    fn what_is_read_lies_in_the_packet(
        (version, bytes) in prop_oneof![packet(4).prop_map(|p| (4, p)), packet(6).prop_map(|p| (6, p))]
    ) {
        if let Some(found) = read(&bytes, version, false) {
            prop_assert_eq!(found.version, version);
            prop_assert!(found.end as usize <= bytes.len());
            prop_assert!(found.transport as usize <= bytes.len() + 8 * 256);
            if found.piece != Piece::Later && matches!(found.protocol, 6 | 17 | 132) {
                prop_assert!(found.transport + 8 <= found.end, "ports are read from inside");
                let at = found.transport as usize;
                prop_assert_eq!(found.source_port, u16::from_be_bytes([bytes[at], bytes[at + 1]]));
            }
            if found.piece == Piece::Later {
                prop_assert_eq!((found.source_port, found.destination_port), (0, 0));
            }
        }
    }

    /// Cutting a packet short never gives it other ports.
    #[test]
    fn a_cut_packet_is_the_same_or_unreadable(bytes in packet(4), cut in 0_usize..400) {
        let short = &bytes[..cut.min(bytes.len())];
        if let (Some(whole), Some(cut)) = (read(&bytes, 4, false), read(short, 4, false)) {
            prop_assert_eq!(whole, cut);
        }
    }
}
