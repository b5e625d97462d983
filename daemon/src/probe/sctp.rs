//! An SCTP packet by hand (RFC 9260): the INIT chunk that opens an association.

/// The packet from the SCTP header on, its checksum right.
pub(super) fn init(source_port: u16, destination_port: u16, tag: u32) -> Vec<u8> {
    let mut packet = Vec::with_capacity(32);
    packet.extend_from_slice(&source_port.to_be_bytes());
    packet.extend_from_slice(&destination_port.to_be_bytes());
    // The verification tag of an INIT is zero; the checksum is filled in below.
    packet.extend_from_slice(&[0; 8]);
    // INIT, no flags, 20 octets.
    packet.extend_from_slice(&[1, 0, 0, 20]);
    packet.extend_from_slice(&tag.to_be_bytes());
    // Receiver window; one stream each way.
    packet.extend_from_slice(&65536_u32.to_be_bytes());
    packet.extend_from_slice(&[0, 1, 0, 1]);
    packet.extend_from_slice(&tag.to_be_bytes());
    let checksum = crc32c(&packet);
    // RFC 9260, appendix A: the checksum's octets go out least significant first.
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    packet
}

/// CRC-32C (Castagnoli), bit by bit: 32 octets a probe.
fn crc32c(octets: &[u8]) -> u32 {
    !octets.iter().fold(u32::MAX, |crc, octet| {
        (0..8).fold(crc ^ u32::from(*octet), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn an_init_is_laid_out_as_the_rfc_draws_it() {
        let packet = init(0x1234, 80, 0xdead_beef);
        assert_eq!(packet.len(), 12 + 20);
        assert_eq!(packet[..4], [0x12, 0x34, 0, 80]);
        assert_eq!(packet[12..20], [1, 0, 0, 20, 0xde, 0xad, 0xbe, 0xef]);
    }
}
