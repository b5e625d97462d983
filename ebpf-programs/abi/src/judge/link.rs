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
        return Some(if is_whole {
            neighbour_discovery(scene, frame, packet)
        } else {
            // Nobody may take it to pieces (RFC 6980, 5), and its options could not be read.
            Reason::ForgedNd
        });
    }
    if packet.is_listener_discovery() && is_whole {
        return Some(listener_discovery(scene, packet));
    }
    if packet.is_group_membership() && is_whole {
        return Some(group_membership(scene, packet));
    }
    if scene.at.direction() == Direction::Egress && packet.is_dhcp_answer() {
        return Some(Reason::ForgedDhcp);
    }
    if is_whole && (packet.is_dhcp_question() || packet.is_dhcp_answer()) {
        return lease(scene, packet);
    }
    None
}

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
    if message.sender_mac != scene.at.mac {
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
/// not forwarded (section 3.1).
#[inline(always)]
fn neighbour_discovery<T: Tables, F: Frame>(
    scene: &Scene<'_, T>,
    frame: &F,
    packet: &Packet,
) -> Reason {
    if packet.hops != 255 {
        return Reason::ForgedNd;
    }
    if scene.at.direction() == Direction::Ingress {
        return Reason::LinkControl;
    }
    let own_source = lookup::owner6(scene, &packet.source) == scene.at.id;
    let at = packet.transport as usize;
    let truthful = match packet.source_port {
        icmp::ROUTER_SOLICITATION => {
            (own_source || is_unspecified(packet)) && own_link_layer(scene, frame, at + RS_OPTIONS)
        }
        icmp::NEIGHBOUR_SOLICITATION => {
            (own_source || (is_unspecified(packet) && own_target(scene, frame, at)))
                && own_link_layer(scene, frame, at + ND_OPTIONS)
        }
        icmp::NEIGHBOUR_ADVERTISEMENT => {
            own_source
                && own_target(scene, frame, at)
                && own_link_layer(scene, frame, at + ND_OPTIONS)
        }
        _ => false,
    };
    if truthful {
        Reason::LinkControl
    } else {
        Reason::ForgedNd
    }
}

/// Is the address that a neighbour message is about the endpoint's own?
#[inline(always)]
fn own_target<T: Tables, F: Frame>(scene: &Scene<'_, T>, frame: &F, at: usize) -> bool {
    frame
        .read::<[u8; 16]>(at + 8)
        .is_some_and(|target| lookup::owner6(scene, &target) == scene.at.id)
}

/// Do all link-layer address options (source 1, target 2) name the endpoint's own MAC?
/// Eight options are more than these messages ever have; what is behind is a lie.
#[inline(always)]
fn own_link_layer<T: Tables, F: Frame>(scene: &Scene<'_, T>, frame: &F, first: usize) -> bool {
    let mut at = first;
    let mut walked = 0;
    while walked < 8 {
        if at >= frame.len() {
            return at == frame.len();
        }
        let Some(option) = frame.read::<[u8; 8]>(at) else {
            return false;
        };
        if option[1] == 0 {
            return false;
        }
        let [kind, length, mac @ ..] = option;
        if (kind == 1 || kind == 2) && (length != 1 || mac != scene.at.mac) {
            return false;
        }
        at += usize::from(length) * 8;
        walked += 1;
    }
    false
}

/// Reports of the groups the endpoint listens to, under its own address; queries only
/// towards it. Without them a snooping bridge would not deliver neighbour solicitations.
#[inline(always)]
fn listener_discovery<T: Tables>(scene: &Scene<'_, T>, packet: &Packet) -> Reason {
    const QUERY: u16 = 130;
    if scene.at.direction() == Direction::Ingress {
        return Reason::LinkControl;
    }
    let own_source = is_unspecified(packet) || lookup::owner6(scene, &packet.source) == scene.at.id;
    if own_source && packet.source_port != QUERY {
        Reason::LinkControl
    } else {
        Reason::ForgedNd
    }
}

/// The same for IPv4. Reports reach no further than the link (RFC 3376, 4), and whoever has no
/// address yet sends them from none.
#[inline(always)]
fn group_membership<T: Tables>(scene: &Scene<'_, T>, packet: &Packet) -> Reason {
    if scene.at.direction() == Direction::Ingress {
        return Reason::LinkControl;
    }
    let source = lookup::v4(&packet.source);
    let own_source =
        u32::from_ne_bytes(source) == 0 || lookup::owner4(scene, &source) == scene.at.id;
    if own_source && packet.hops == 1 && packet.to_group() && packet.source_port != igmp::QUERY {
        Reason::LinkControl
    } else {
        Reason::ForgedIgmp
    }
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
