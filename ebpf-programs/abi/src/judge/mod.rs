//! The verdict on one frame.
//!
//! ```text
//!  frame ─▶ interface ─▶ endpoint ─▶ parse ─▶ connection known? ─ yes ─▶ revision current? ─▶ passes
//!              │ none                  │           │ no                       │ older
//!              ▼                       ▼           ▼                          ▼
//!            on hold             link control   lookup: peer class, subject, port ─▶ enter, or drop
//!                               (ARP, ND, MLD)
//! ```
//!
//! Called by the two TC programs with the maps, by tests and the daemon's model with
//! ordered maps. The caller counts and reports ([`Outcome`]); nothing here does.
//! Every path that finds something missing drops.

mod link;
mod lookup;
mod track;

use core::cell::Cell;

use crate::{
    packet::{self, Direction, Ethernet, Frame, Packet, Piece, ethertype},
    reason::Reason,
    tables::{
        Address, Control, Endpoint, EndpointLane, Flow, FlowKey4, FlowKey6, Fragment, FragmentKey,
        Interface, PortBlock, Prefix, SUBJECT_NOT_ISOLATED, Usage, Verdict, VerdictKey,
        control_flags,
    },
};

pub use lookup::{NOT_LISTED, find_rule, search_blocks};

/// The tables as the verdict sees them: the kernel's maps, or ordered maps.
pub trait Tables {
    /// The one element of `CONTROL`.
    fn control(&self) -> Option<&Control>;
    /// The interface with this index, whichever table it stands in.
    fn interface(&self, ifindex: u32) -> Option<&Interface>;
    /// The element of `ENDPOINTS`.
    fn endpoint(&self, slot: u32) -> Option<&Endpoint>;
    /// `ADDRESSES4`.
    fn address4(&self, address: &[u8; 4]) -> Option<&Address>;
    /// `ADDRESSES6`.
    fn address6(&self, address: &[u8; 16]) -> Option<&Address>;
    /// The longest prefix of `PREFIXES4` that holds the address.
    fn prefix4(&self, address: &[u8; 4]) -> Option<&Prefix>;
    /// The longest prefix of `PREFIXES6` that holds the address.
    fn prefix6(&self, address: &[u8; 16]) -> Option<&Prefix>;
    /// `VERDICTS`.
    fn verdict(&self, key: &VerdictKey) -> Option<&Verdict>;
    /// `PORT_BLOCKS`.
    fn port_block(&self, id: u64) -> Option<&PortBlock>;
    /// Looks through the blocks chained from `spill`, see [`search_blocks`].
    fn search_blocks(&self, spill: u64, protocol: u8, port: u16) -> u32
    where
        Self: Sized,
    {
        search_blocks(self, spill, protocol, port)
    }
    /// `FLOWS4`. Two processors may write one flow at once; what is lost then is an update
    /// of its state, never its existence.
    fn flow4(&self, key: &FlowKey4) -> Option<&Cell<Flow>>;
    /// `FLOWS6`.
    fn flow6(&self, key: &FlowKey6) -> Option<&Cell<Flow>>;
    /// Enters a connection into `FLOWS4`; false where there is no room.
    fn enter4(&self, key: &FlowKey4, flow: &Flow) -> bool;
    /// Enters a connection into `FLOWS6`; false where there is no room.
    fn enter6(&self, key: &FlowKey6, flow: &Flow) -> bool;
    /// `FRAGMENTS`.
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment>;
    /// Enters a datagram into `FRAGMENTS`.
    fn remember_fragment(&self, key: &FragmentKey, fragment: &Fragment);
    /// The element of `USAGE`.
    fn usage(&self, slot: u32) -> Option<&Cell<Usage>>;
    /// The element of `COLLECTED`.
    fn collected(&self, slot: u32) -> u32;
    /// The coarse monotonic clock in ticks ([`crate::connection::TICK_SHIFT`]).
    fn tick(&self) -> u32;
}

/// The verdict on a frame, and what a report of it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why; [`Reason::allows`] tells whether policy lets it pass.
    pub reason: Reason,
    /// Does the frame go on? Differs from the reason in audit mode only.
    pub passes: bool,
    /// It opened a connection: reported although it passes.
    pub opened: bool,
    /// It goes against the direction in which its connection was opened.
    pub reply: bool,
    /// The deciding rule by its number in the subject; 0: none.
    pub rule: u32,
    /// Slot of the endpoint; 0: unidentified.
    pub slot: u32,
    /// Number of the endpoint; 0: unidentified.
    pub endpoint: u32,
    /// The subject that was asked; 0: none.
    pub subject: u64,
    /// The generation that judged.
    pub generation: u64,
}

/// What is known before the packet is looked at.
struct Scene<'a, T> {
    tables: &'a T,
    lane: usize,
    flags: u32,
    direction: Direction,
    slot: u32,
    id: u32,
    said: EndpointLane,
    mac: [u8; 6],
    flow_share: u32,
}

impl<T> Scene<'_, T> {
    /// Masked, so that indexing by it needs no bounds check: the kernel has no panic.
    const fn lane(&self) -> usize {
        self.lane & 1
    }
    const fn audits(&self) -> bool {
        self.flags & control_flags::AUDIT != 0
    }
    const fn subject(&self, direction: Direction) -> u64 {
        match direction {
            Direction::Ingress => self.said.ingress,
            Direction::Egress => self.said.egress,
        }
    }
    const fn isolated(&self) -> bool {
        self.said.ingress != SUBJECT_NOT_ISOLATED || self.said.egress != SUBJECT_NOT_ISOLATED
    }
}

/// A reason with what decided it; becomes an [`Outcome`].
#[derive(Clone, Copy)]
struct Ruling {
    reason: Reason,
    rule: u32,
    subject: u64,
    opened: bool,
    reply: bool,
}

impl Ruling {
    const fn of(reason: Reason) -> Self {
        Self {
            reason,
            rule: 0,
            subject: 0,
            opened: false,
            reply: false,
        }
    }
}

/// Judges a frame on the interface `ifindex`. `view` receives the parsed headers, as
/// far as they could be read, for the report.
#[inline(always)]
pub fn judge<T: Tables, F: Frame>(
    tables: &T,
    frame: &F,
    direction: Direction,
    ifindex: u32,
    view: &mut View,
) -> Outcome {
    let mut outcome = Outcome {
        reason: Reason::Unidentified,
        passes: false,
        opened: false,
        reply: false,
        rule: 0,
        slot: 0,
        endpoint: 0,
        subject: 0,
        generation: 0,
    };
    let read = read(frame, view);
    // Without its own control word nothing was ever configured: closed.
    let Some(control) = tables.control() else {
        return outcome;
    };
    outcome.generation = control.generation;
    let lane = control.lane();
    let flags = control.flags[lane];
    let known = match tables.interface(ifindex) {
        Some(interface) => match tables.endpoint(interface.endpoint) {
            Some(endpoint) if endpoint.id != 0 && endpoint.lanes[lane].revision != 0 => {
                Some((interface, endpoint))
            }
            _ => None,
        },
        None => None,
    };
    let Some((interface, endpoint)) = known else {
        if flags & control_flags::UNIDENTIFIED_PASS != 0 {
            outcome.reason = Reason::UnidentifiedAllowed;
            outcome.passes = true;
        } else {
            outcome.passes = flags & control_flags::AUDIT != 0;
        }
        return outcome;
    };
    let scene = Scene {
        tables,
        lane,
        flags,
        direction,
        slot: interface.endpoint,
        id: endpoint.id,
        said: endpoint.lanes[lane],
        mac: interface.mac,
        flow_share: control.flow_share,
    };
    outcome.slot = scene.slot;
    outcome.endpoint = scene.id;
    let ruling = match read {
        Ok(()) => rule_on(&scene, frame, view),
        // What can't be read can't be judged: an isolated endpoint neither sends nor gets it.
        Err(reason) if scene.isolated() => Ruling::of(reason),
        Err(reason) => unread_and_not_isolated(&scene, view, reason),
    };
    outcome.reason = ruling.reason;
    outcome.rule = ruling.rule;
    outcome.subject = ruling.subject;
    outcome.opened = ruling.opened;
    outcome.reply = ruling.reply;
    outcome.passes = ruling.reason.allows() || scene.audits();
    outcome
}

/// The headers of a frame, as far as they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Ethernet.
    pub ethernet: Ethernet,
    /// IPv4 or IPv6; version 0: neither.
    pub packet: Packet,
    /// The packet that an ICMP error is about; room for the parser, of no use to others.
    pub quoted: Packet,
}

#[inline(always)]
fn read<F: Frame>(frame: &F, view: &mut View) -> Result<(), Reason> {
    view.ethernet = match packet::ethernet(frame) {
        Ok(ethernet) => ethernet,
        Err(reason) => {
            view.ethernet = Ethernet::default();
            view.packet = Packet::default();
            return Err(reason);
        }
    };
    match view.ethernet.ethertype {
        _ if frame.has_vlan_tag() => {}
        ethertype::IPV4 | ethertype::IPV6 => {
            return network(
                frame,
                packet::ETHERNET,
                view.ethernet.ethertype,
                false,
                &mut view.packet,
            );
        }
        _ => {}
    }
    // `view` may be another packet's: a report must not name that one's addresses.
    view.packet = Packet::default();
    match view.ethernet.ethertype {
        _ if frame.has_vlan_tag() => Err(Reason::Vlan),
        ethertype::ARP => Ok(()),
        ethertype::VLAN | ethertype::QINQ => Err(Reason::Vlan),
        _ => Err(Reason::EtherType),
    }
}

/// [`network`] for the packet that an ICMP error is about. Not inlined: a BPF program has 512
/// bytes of stack for all its frames together, and errors are rare.
#[inline(never)]
fn quoted<F: Frame>(frame: &F, at: usize, ethertype: u16, packet: &mut Packet) -> bool {
    network(frame, at, ethertype, true, packet).is_ok()
}

/// A packet's headers, from the network's to the transport's.
#[inline(always)]
fn network<F: Frame>(
    frame: &F,
    at: usize,
    ethertype: u16,
    quoted: bool,
    packet: &mut Packet,
) -> Result<(), Reason> {
    if ethertype == ethertype::IPV4 {
        packet::ipv4(frame, at, quoted, packet)?;
    } else {
        packet::ipv6(frame, at, quoted, packet)?;
    }
    packet::transport(frame, packet, quoted)
}

/// An endpoint that nobody isolates may send what we can't read, but under its own name.
///
/// Not what the next hop would read otherwise than we can: a tag is taken off on the way (that
/// of VLAN 0 by any receiver, a port's own by a bridge that filters), and behind a long chain
/// of headers may stand a neighbour advertisement. Both would carry a lie past the checks of
/// the sender, and, untagged, past those of the receiver.
#[inline(always)]
fn unread_and_not_isolated<T: Tables>(scene: &Scene<'_, T>, view: &View, reason: Reason) -> Ruling {
    if scene.direction == Direction::Egress {
        if view.ethernet.source != scene.mac {
            return Ruling::of(Reason::SpoofedMac);
        }
        if matches!(reason, Reason::Vlan | Reason::ExtensionHeaders) {
            return Ruling::of(reason);
        }
        let packet = &view.packet;
        if packet.version != 0 && !lookup::is_own(scene, packet.version, &packet.source) {
            return Ruling::of(Reason::SpoofedAddress);
        }
    }
    Ruling::of(Reason::NotIsolated)
}

#[inline(always)]
fn rule_on<T: Tables, F: Frame>(scene: &Scene<'_, T>, frame: &F, view: &mut View) -> Ruling {
    if scene.direction == Direction::Egress && view.ethernet.source != scene.mac {
        return Ruling::of(Reason::SpoofedMac);
    }
    if view.ethernet.ethertype == ethertype::ARP {
        return Ruling::of(link::arp(scene, frame));
    }
    let View { packet, quoted, .. } = view;
    if packet.is_neighbour_discovery() && packet.piece == Piece::Whole {
        return Ruling::of(link::neighbour_discovery(scene, frame, packet));
    }
    if packet.is_listener_discovery() && packet.piece == Piece::Whole {
        return Ruling::of(link::listener_discovery(scene, packet));
    }
    if packet.piece == Piece::Later {
        return Ruling::of(track::later_fragment(scene, packet));
    }
    let ruling = track::connection(scene, frame, packet, quoted);
    if packet.piece == Piece::First && (ruling.reason.allows() || scene.audits()) {
        track::first_fragment(scene, packet);
    }
    ruling
}
