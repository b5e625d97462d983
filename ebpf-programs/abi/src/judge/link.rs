//! What keeps a link working: ARP, neighbour discovery, listener discovery. It passes
//! when it tells the truth, whatever policy says; a lie is dropped, whether or not
//! anybody isolates the endpoint: one forged answer diverts a neighbour's traffic.

use super::{Scene, Tables, View, lookup};
use crate::{
    packet::{self, Direction, Frame, Packet, Piece, ethertype, icmp, igmp},
    reason::Reason,
};

/// What keeps a link working, and what may only come from a router or a server of it; `None`: the
/// packet is neither.
#[inline(always)]
pub fn control<T: Tables, F: Frame>(tables: &T, frame: &F, view: &View) -> Option<Reason> {
    let packet = &view.packet;
    let is_arp = view.ethernet.ethertype == ethertype::ARP;
    let is_whole = packet.piece == Piece::Whole;
    let Some(scene) = &Scene::of(tables, &view.place) else {
        return Some(Reason::Unidentified);
    };
    if is_arp {
        return Some(arp(scene, frame));
    }
    if packet.is_neighbour_discovery() {
        return if is_whole {
            neighbour_discovery(scene, frame, packet)
        } else {
            // Nobody may take it to pieces (RFC 6980, 5), and its options could not be read.
            Some(Reason::ForgedNd)
        };
    }
    if packet.is_listener_discovery() && is_whole {
        return listener_discovery(scene, packet);
    }
    if packet.is_group_membership() && is_whole {
        return group_membership(scene, packet);
    }
    if scene.at.direction() == Direction::Egress && packet.is_to_lease_client() {
        return Some(Reason::ForgedDhcp);
    }
    if is_whole && (packet.is_dhcp_question() || packet.is_dhcp_answer()) {
        return lease(scene, packet);
    }
    None
}

/// What a frame is padded to (IEEE 802.3), with its checksum.
const SHORTEST_FRAME: usize = 64;

/// ARP from the endpoint names its own MAC and one of its own addresses. A probe (RFC 5227)
/// names no sender; it asks for one of its own, as one for somebody else's would tell
/// that one, who may be probing too, that the address is taken. ARP towards the endpoint was
/// checked where it came from.
#[inline(always)]
fn arp<T: Tables, F: Frame>(scene: &Scene<'_, T>, frame: &F) -> Reason {
    let message = match packet::arp(frame) {
        Ok(message) => message,
        Err(reason) if scene.isolated() => return reason,
        Err(_) => return Reason::ForgedArp,
    };
    if scene.at.direction() == Direction::Ingress {
        return Reason::LinkControl;
    }
    // What stands behind the message is not part of it, and would be read by an accomplice.
    if message.sender_mac != scene.at.mac || frame.len() > SHORTEST_FRAME {
        return Reason::ForgedArp;
    }
    let named = if u32::from_ne_bytes(message.sender) == 0 {
        &message.target
    } else {
        &message.sender
    };
    if lookup::owner4(scene, named) == scene.at.id {
        Reason::LinkControl
    } else {
        Reason::ForgedArp
    }
}

/// Bytes of a neighbour message before its options: type to reserved, then the target.
const ND_OPTIONS: usize = 24;
/// Bytes of a router solicitation before its options.
const RS_OPTIONS: usize = 8;

/// RFC 4861. From the endpoint: solicitations under its own address, or, under none, for its own
/// (duplicate address detection, RFC 4862, 5.4), and advertisements of its own addresses, each with
/// its own link-layer address; never what routers say. Hop limit 255 proves that the message was
/// not forwarded (section 3.1), but not that it will not be: what is for nobody on the link is for
/// policy (`None`).
#[inline(always)]
fn neighbour_discovery<T: Tables, F: Frame>(
    scene: &Scene<'_, T>,
    frame: &F,
    packet: &Packet,
) -> Option<Reason> {
    if packet.hops != 255 {
        return Some(Reason::ForgedNd);
    }
    if scene.at.direction() == Direction::Ingress {
        return Some(Reason::LinkControl);
    }
    let own_source = lookup::owner6(scene, &packet.source) == scene.at.id;
    let at = packet.transport as usize;
    let (truthful, options) = match packet.source_port {
        icmp::ROUTER_SOLICITATION => (own_source || is_unspecified(packet), RS_OPTIONS),
        icmp::NEIGHBOUR_SOLICITATION => {
            let asks_for_itself = is_unspecified(packet) && own_target(scene, frame, at);
            (own_source || asks_for_itself, ND_OPTIONS)
        }
        icmp::NEIGHBOUR_ADVERTISEMENT => (own_source && own_target(scene, frame, at), ND_OPTIONS),
        _ => (false, ND_OPTIONS),
    };
    let end = packet.end as usize;
    if !truthful || !own_link_layer(scene, frame, at + options, end) {
        return Some(Reason::ForgedNd);
    }
    is_on_link(scene, packet).then_some(Reason::LinkControl)
}

/// Is the destination a group, a link-local address, or an endpoint or the host itself?
#[inline(always)]
fn is_on_link<T: Tables>(scene: &Scene<'_, T>, packet: &Packet) -> bool {
    packet.to_group()
        || (packet.destination[0] == 0xfe && packet.destination[1] & 0xc0 == 0x80)
        || lookup::owner6(scene, &packet.destination) != 0
}

/// Is the address that a neighbour message is about the endpoint's own?
#[inline(always)]
fn own_target<T: Tables, F: Frame>(scene: &Scene<'_, T>, frame: &F, at: usize) -> bool {
    frame
        .read::<[u8; 16]>(at + 8)
        .is_some_and(|target| lookup::owner6(scene, &target) == scene.at.id)
}

/// Are there no options but link-layer addresses (source 1, target 2), all of the endpoint's own, and
/// nonces (14, RFC 7527), up to `end`? Others are for routers, or would carry what nobody reads
/// but an accomplice.
#[inline(always)]
fn own_link_layer<T: Tables, F: Frame>(
    scene: &Scene<'_, T>,
    frame: &F,
    first: usize,
    end: usize,
) -> bool {
    const SOURCE: u8 = 1;
    const TARGET: u8 = 2;
    const NONCE: u8 = 14;
    let mut at = first;
    let mut walked = 0;
    // One of each is all that these messages have.
    while walked < 4 {
        if at >= end {
            return at == end;
        }
        let Some([kind, 1, mac @ ..]) = frame.read::<[u8; 8]>(at) else {
            return false;
        };
        if kind != NONCE && (!matches!(kind, SOURCE | TARGET) || mac != scene.at.mac) {
            return false;
        }
        at += 8;
        walked += 1;
    }
    false
}

/// Reports of the groups the endpoint listens to, under its own address; queries only
/// towards it. Without them a snooping bridge would not deliver neighbour solicitations.
///
/// All of it goes to a group, no further than the link (RFC 2710, 3; RFC 3810, 5). What does not is
/// no such message, whatever its type says.
#[inline(always)]
fn listener_discovery<T: Tables>(scene: &Scene<'_, T>, packet: &Packet) -> Option<Reason> {
    const QUERY: u16 = 130;
    let is_on_link = packet.hops == 1 && packet.to_group();
    if scene.at.direction() == Direction::Ingress {
        return is_on_link.then_some(Reason::LinkControl);
    }
    let own_source = is_unspecified(packet) || lookup::owner6(scene, &packet.source) == scene.at.id;
    Some(if own_source && is_on_link && packet.source_port != QUERY {
        Reason::LinkControl
    } else {
        Reason::ForgedNd
    })
}

/// The same for IPv4 (RFC 3376, 4); whoever has no address yet sends reports from none.
#[inline(always)]
fn group_membership<T: Tables>(scene: &Scene<'_, T>, packet: &Packet) -> Option<Reason> {
    let is_on_link = packet.hops == 1 && packet.to_group();
    if scene.at.direction() == Direction::Ingress {
        return is_on_link.then_some(Reason::LinkControl);
    }
    let source = lookup::v4(&packet.source);
    let own_source =
        u32::from_ne_bytes(source) == 0 || lookup::owner4(scene, &source) == scene.at.id;
    Some(
        if own_source && is_on_link && packet.source_port != igmp::QUERY {
            Reason::LinkControl
        } else {
            Reason::ForgedIgmp
        },
    )
}

/// DHCP and DHCPv6: a client asks everybody on the link, and whoever is no container answers. What a
/// client asks one server, to keep its lease, is for policy; where it denies that, the client
/// asks everybody again.
#[inline(always)]
fn lease<T: Tables>(scene: &Scene<'_, T>, packet: &Packet) -> Option<Reason> {
    match (scene.at.direction(), packet.is_dhcp_answer()) {
        (Direction::Ingress, true) => Some(Reason::LinkControl),
        (Direction::Ingress, false) => None,
        (Direction::Egress, _) => {
            let source = lookup::v4(&packet.source);
            let is_own = if packet.version == 4 {
                u32::from_ne_bytes(source) == 0 || lookup::owner4(scene, &source) == scene.at.id
            } else {
                lookup::owner6(scene, &packet.source) == scene.at.id
            };
            Some(if is_own {
                Reason::LinkControl
            } else {
                Reason::SpoofedAddress
            })
        }
    }
}

#[inline(always)]
fn is_unspecified(packet: &Packet) -> bool {
    u128::from_ne_bytes(packet.source) == 0
}
