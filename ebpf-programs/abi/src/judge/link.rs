//! What keeps a link working: ARP, neighbour discovery, listener discovery. It passes
//! when it tells the truth, whatever policy says; a lie is dropped, whether or not
//! anybody isolates the endpoint: one forged answer diverts a neighbour's traffic.

use super::{Scene, Tables, lookup};
use crate::{
    packet::{self, Direction, Frame, Packet, icmp},
    reason::Reason,
};

/// ARP from the endpoint names its own MAC and one of its own addresses, or none (a
/// probe, RFC 5227). ARP towards it was checked where it came from.
#[inline(never)]
pub(super) fn arp<T: Tables, F: Frame>(scene: &Scene<'_, T>, frame: &F) -> Reason {
    let message = match packet::arp(frame) {
        Ok(message) => message,
        Err(reason) if scene.isolated() => return reason,
        Err(_) => return Reason::ForgedArp,
    };
    if scene.direction == Direction::Ingress {
        return Reason::LinkControl;
    }
    if message.sender_mac != scene.mac {
        return Reason::ForgedArp;
    }
    let probe = u32::from_ne_bytes(message.sender) == 0;
    if probe || lookup::owner4(scene, &message.sender) == scene.id {
        Reason::LinkControl
    } else {
        Reason::ForgedArp
    }
}

/// Bytes of a neighbour message before its options: type to reserved, then the target.
const ND_OPTIONS: usize = 24;
/// Bytes of a router solicitation before its options.
const RS_OPTIONS: usize = 8;

/// RFC 4861. From the endpoint: solicitations under its own address or none, and
/// advertisements of its own addresses, each with its own link-layer address; never what
/// routers say. Hop limit 255 proves that the message was not forwarded (section 3.1).
#[inline(never)]
pub(super) fn neighbour_discovery<T: Tables, F: Frame>(
    scene: &Scene<'_, T>,
    frame: &F,
    packet: &Packet,
) -> Reason {
    if packet.hops != 255 {
        return Reason::ForgedNd;
    }
    if scene.direction == Direction::Ingress {
        return Reason::LinkControl;
    }
    let own_source = is_unspecified(packet) || lookup::owner6(scene, &packet.source) == scene.id;
    let at = packet.transport as usize;
    let truthful = match packet.source_port {
        icmp::ROUTER_SOLICITATION => own_source && own_link_layer(scene, frame, at + RS_OPTIONS),
        icmp::NEIGHBOUR_SOLICITATION => own_source && own_link_layer(scene, frame, at + ND_OPTIONS),
        icmp::NEIGHBOUR_ADVERTISEMENT => {
            let Some(target) = frame.read::<[u8; 16]>(at + 8) else {
                return Reason::ForgedNd;
            };
            own_source
                && lookup::owner6(scene, &target) == scene.id
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
        if (kind == 1 || kind == 2) && (length != 1 || mac != scene.mac) {
            return false;
        }
        at += usize::from(length) * 8;
        walked += 1;
    }
    false
}

/// Reports of the groups the endpoint listens to, under its own address; queries only
/// towards it. Without them a snooping bridge would not deliver neighbour solicitations.
#[inline(never)]
pub(super) fn listener_discovery<T: Tables>(scene: &Scene<'_, T>, packet: &Packet) -> Reason {
    const QUERY: u16 = 130;
    if scene.direction == Direction::Ingress {
        return Reason::LinkControl;
    }
    let own_source = is_unspecified(packet) || lookup::owner6(scene, &packet.source) == scene.id;
    if own_source && packet.source_port != QUERY {
        Reason::LinkControl
    } else {
        Reason::ForgedNd
    }
}

#[inline(always)]
fn is_unspecified(packet: &Packet) -> bool {
    u128::from_ne_bytes(packet.source) == 0
}
