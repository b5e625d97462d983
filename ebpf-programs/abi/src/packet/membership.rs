//! Group membership: the messages of IGMP (RFC 1112, 2236, 3376) and of multicast listener
//! discovery (RFC 2710, 3810), which differ in the size of an address.
//!
//! A message is as long as its counts say, and has no bytes that no receiver reads.

use super::{Frame, Packet, igmp, listener};

/// Records that are read of one report. Linux fills frames of 1,500 bytes with 183 of IGMP, 72 of MLD.
const MOST_RECORDS: usize = 512;

/// A message of group membership that is exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Groups and sources in a report; 0: it is a router's query.
    pub addresses: u32,
    /// Does a report go to its group, or to the routers' for such reports?
    pub to_its_group: bool,
}

/// Reads a message of IGMP or of listener discovery. `None`: it is not exactly one. `records`: what
/// [`records`] says of it.
#[inline(always)]
pub fn membership<F: Frame>(
    frame: &F,
    packet: &Packet,
    records: impl FnOnce() -> u32,
) -> Option<Membership> {
    let at = packet.transport as usize;
    let is_v6 = packet.version == 6;
    let address = if is_v6 { 16 } else { 4 };
    let length = (packet.end as usize).wrapping_sub(at);
    // Type, code, checksum, and what each kind has there.
    let head = frame.read::<[u8; 8]>(at).map(u64::from_be_bytes)?;
    let (code, word) = ((head >> 48) as u8, head as u32);
    let destination = u128::from_be_bytes(packet.destination);
    let (routers, reports) = if is_v6 {
        (0xff02 << 112 | 2, 0xff02 << 112 | 0x16)
    } else {
        (0xe000_0002 << 96, 0xe000_0016 << 96)
    };
    let kind = packet.source_port;
    if matches!(kind, igmp::QUERY | listener::QUERY) {
        return is_query(frame, packet, length, address).then_some(Membership {
            addresses: 0,
            to_its_group: false,
        });
    }
    if code != 0 {
        return None;
    }
    // Two bytes that are reserved, and the number of records.
    if matches!(kind, igmp::REPORT3 | listener::REPORT2) && word >> 16 == 0 {
        let addresses = records();
        return (addresses > 0).then_some(Membership {
            addresses,
            to_its_group: destination == reports,
        });
    }
    // One group, in that word or (MLD, where the word is zero) behind it.
    let group = if is_v6 {
        let group = frame.read::<[u8; 16]>(at + 8)?;
        if word != 0 {
            return None;
        }
        u128::from_be_bytes(group)
    } else {
        u128::from(word) << 96
    };
    if !matches!(
        kind,
        igmp::REPORT1 | igmp::REPORT2 | igmp::LEAVE | listener::REPORT1 | listener::DONE
    ) {
        return None;
    }
    let is_left = matches!(kind, igmp::LEAVE | listener::DONE);
    let is_exact = length == 8 + if is_v6 { 16 } else { 0 };
    (is_exact && is_group((group >> 120) as u8, is_v6)).then_some(Membership {
        addresses: 1,
        to_its_group: destination == if is_left { routers } else { group },
    })
}

#[inline(always)]
const fn is_group(first: u8, is_v6: bool) -> bool {
    if is_v6 {
        first == 0xff
    } else {
        first >> 4 == 0xe
    }
}

/// Is a query as long as its version has it, and says how many sources it is about?
#[inline(always)]
fn is_query<F: Frame>(frame: &F, packet: &Packet, length: usize, address: usize) -> bool {
    // Behind the word and the group: flags, the querier's interval, the number of sources.
    let (short, long) = if address == 16 { (24, 28) } else { (8, 12) };
    let count = frame.read::<[u8; 2]>(packet.transport as usize + long - 2);
    match count.map(u16::from_be_bytes) {
        _ if length == short => true,
        Some(sources) => length == long + usize::from(sources) * address,
        None => false,
    }
}

/// How many addresses the records of a report have; 0: there are not as many as it says, one of them
/// is none, or the message does not end behind them. Nothing auxiliary: no version defines any.
///
/// Without choices between IGMP and listener discovery: a kernel's verifier would go through
/// the loop for each.
#[inline(always)]
pub fn records<F: Frame>(frame: &F, packet: &Packet) -> u32 {
    // 4, or 16 where the version has bit 1 set: 6.
    let is_v6 = u32::from(packet.version) >> 1 & 1;
    let shift = 2 + is_v6 * 2;
    let (mask, group) = (0xf0 + is_v6 * 0x0f, 0xe0 + is_v6 * 0x1f);
    let end = packet.end as usize;
    let mut at = packet.transport as usize + 8;
    let Some(count) = frame.read::<u16>(at - 2) else {
        return 0;
    };
    let mut left = u32::from(u16::from_be(count));
    let mut addresses = 0;
    let mut walked = 0;
    while walked < MOST_RECORDS {
        if left == 0 {
            return if at == end { addresses } else { 0 };
        }
        // Type, length of auxiliary data, number of sources, and how the group begins.
        let Some(head) = frame.read::<u64>(at).map(u64::from_be) else {
            return 0;
        };
        let (kind, auxiliary) = ((head >> 56) as u32, (head >> 48) as u8);
        let sources = (head >> 32) as u32 & 0xffff;
        let is_group = (head >> 24) as u32 & mask == group;
        if kind.wrapping_sub(1) >= 6 || auxiliary != 0 || !is_group || at >= end {
            return 0;
        }
        at += 4 + ((sources as usize + 1) << shift);
        addresses += 1 + sources;
        left -= 1;
        walked += 1;
    }
    0
}
