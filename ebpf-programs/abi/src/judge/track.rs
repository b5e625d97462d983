//! Connections: known ones pass, new ones are judged and remembered.
//!
//! A connection belongs to its endpoint and is judged once, in the direction in which it
//! was opened, by that endpoint's policy. Its entry then speaks for both directions until
//! the endpoint's revision moves on. An entry can only come to be with a local address that
//! is the endpoint's own, so a hit needs no further check of the source.

use core::cell::Cell;

use super::{Ruling, Scene, Tables, lookup};
use crate::{
    connection::{State, expires_after},
    packet::{Direction, Frame, Packet, Piece, ethertype, icmp, protocol, tcp},
    reason::Reason,
    tables::{Flow, FlowKey4, FlowKey6, Fragment, FragmentKey, control_flags, flow_flags},
};

/// A packet as its connection's key sees it: local and remote instead of source and
/// destination.
struct Ends<'a> {
    version: u8,
    protocol: u8,
    local: &'a [u8; 16],
    remote: &'a [u8; 16],
    local_port: u16,
    remote_port: u16,
}

impl<'a> Ends<'a> {
    #[inline(always)]
    fn of(packet: &'a Packet, direction: Direction) -> Self {
        let (local, remote, local_port, remote_port) = match direction {
            Direction::Egress => (
                &packet.source,
                &packet.destination,
                packet.source_port,
                packet.destination_port,
            ),
            Direction::Ingress => (
                &packet.destination,
                &packet.source,
                packet.destination_port,
                packet.source_port,
            ),
        };
        let (local_port, remote_port) = if lookup::has_ports(packet.protocol) {
            (local_port, remote_port)
        } else {
            match echo(packet) {
                // 8 where the endpoint asked, 0 where the peer did: two who ping each
                // other with one identifier have two entries.
                Some(request) => {
                    let endpoint_asked = request == (direction as u8 == Direction::Egress as u8);
                    (packet.echo_id, if endpoint_asked { 8 } else { 0 })
                }
                None => (0, 0),
            }
        };
        Self {
            version: packet.version,
            protocol: packet.protocol,
            local,
            remote,
            local_port,
            remote_port,
        }
    }

    #[inline(always)]
    fn find<'t, T: Tables>(&self, tables: &'t T, id: u32) -> Option<&'t Cell<Flow>> {
        if self.version == 4 {
            tables.flow4(&self.key4(id))
        } else {
            tables.flow6(&self.key6(id))
        }
    }

    #[inline(always)]
    fn enter<T: Tables>(&self, tables: &T, id: u32, flow: &Flow) -> bool {
        if self.version == 4 {
            tables.enter4(&self.key4(id), flow)
        } else {
            tables.enter6(&self.key6(id), flow)
        }
    }

    #[inline(always)]
    fn key4(&self, id: u32) -> FlowKey4 {
        FlowKey4 {
            owner: owner(id, self.protocol),
            local: lookup::v4(self.local),
            remote: lookup::v4(self.remote),
            local_port: self.local_port,
            remote_port: self.remote_port,
        }
    }

    #[inline(always)]
    fn key6(&self, id: u32) -> FlowKey6 {
        FlowKey6 {
            owner: owner(id, self.protocol),
            local: *self.local,
            remote: *self.remote,
            local_port: self.local_port,
            remote_port: self.remote_port,
        }
    }
}

#[inline(always)]
const fn owner(id: u32, protocol: u8) -> u32 {
    id << 8 | protocol as u32
}

/// Is it an echo, and if so, a request?
#[inline(always)]
const fn echo(packet: &Packet) -> Option<bool> {
    match (packet.protocol, packet.source_port) {
        (protocol::ICMP, icmp::ECHO) | (protocol::ICMPV6, icmp::ECHO6) => Some(true),
        (protocol::ICMP, icmp::ECHO_REPLY) | (protocol::ICMPV6, icmp::ECHO_REPLY6) => Some(false),
        _ => None,
    }
}

const fn opening_of(flow: &Flow) -> Direction {
    if flow.flags & flow_flags::OPENED_BY_ENDPOINT != 0 {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}

/// A packet with a transport header.
#[inline(always)]
pub(super) fn connection<T: Tables, F: Frame>(
    scene: &Scene<'_, T>,
    frame: &F,
    packet: &Packet,
    quoted: &mut Packet,
) -> Ruling {
    let ends = Ends::of(packet, scene.direction);
    let now = scene.tables.tick();
    if let Some(cell) = ends.find(scene.tables, scene.id) {
        let flow = cell.get();
        let state = State::from_number(flow.state);
        let reply = opening_of(&flow) as u8 != scene.direction as u8;
        let alive = now.wrapping_sub(flow.seen) <= expires_after(packet.protocol, state);
        if alive && !opens_anew(packet, state, reply) {
            return known(scene, packet, &ends, cell, flow, state, reply, now);
        }
    }
    opening(scene, frame, packet, quoted, &ends, now)
}

/// A SYN of the answering side, or on a closed connection, is another connection: a
/// denied side can't take over the ports of an allowed one.
#[inline(always)]
fn opens_anew(packet: &Packet, state: State, reply: bool) -> bool {
    packet.protocol == protocol::TCP
        && packet.tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN
        && (reply || state as u8 == State::Closed as u8)
}

#[expect(
    clippy::too_many_arguments,
    reason = "inlined; what is known so far, each used once"
)]
#[inline(always)]
fn known<T: Tables>(
    scene: &Scene<'_, T>,
    packet: &Packet,
    ends: &Ends<'_>,
    cell: &Cell<Flow>,
    flow: Flow,
    state: State,
    reply: bool,
    now: u32,
) -> Ruling {
    let mut next = flow;
    let keeps = scene.flags & control_flags::KEEP_ESTABLISHED != 0;
    let audited = flow.flags & flow_flags::AUDITED != 0;
    // What only audit let through is judged each time the opener speaks, and is nobody's
    // established connection once enforcement is on.
    let again = (flow.revision != scene.said.revision && !keeps)
        || (audited && (!reply || !scene.audits()));
    if again {
        let opening = opening_of(&flow);
        let port = match opening {
            Direction::Egress => ends.remote_port,
            Direction::Ingress => ends.local_port,
        };
        let ruling = if lookup::is_own(scene, packet.version, ends.local) {
            lookup::policy(scene, opening, packet, ends.remote, port)
        } else {
            // The address went to somebody else while the connection was open.
            Ruling::of(Reason::PolicyRevoked)
        };
        if !ruling.reason.allows() {
            let reason = if audited {
                Reason::PolicyDenied
            } else {
                Reason::PolicyRevoked
            };
            return Ruling {
                reason,
                reply,
                ..ruling
            };
        }
        next.revision = scene.said.revision;
        next.rule = ruling.rule;
        next.flags = flow.flags & !flow_flags::AUDITED;
    }
    next.state = state.after(packet.protocol, packet.tcp_flags, reply) as u8;
    next.seen = now;
    // Most packets change nothing: the cache line stays clean.
    if next.seen != flow.seen || next.state != flow.state || again {
        cell.set(next);
    }
    Ruling {
        rule: next.rule,
        reply,
        ..Ruling::of(Reason::Established)
    }
}

#[inline(always)]
fn opening<T: Tables, F: Frame>(
    scene: &Scene<'_, T>,
    frame: &F,
    packet: &Packet,
    quoted: &mut Packet,
    ends: &Ends<'_>,
    now: u32,
) -> Ruling {
    if scene.direction == Direction::Egress {
        if !lookup::is_own(scene, packet.version, ends.local) && !asks_for_lease(packet) {
            return Ruling::of(Reason::SpoofedAddress);
        }
    } else if !packet.to_group() && !lookup::is_own(scene, packet.version, ends.local) {
        // Frames that the bridge floods, or for an address that nobody gave it: it may be
        // anything, so who is isolated does not get it.
        let reason = if scene.isolated() {
            Reason::NotForEndpoint
        } else {
            Reason::NotIsolated
        };
        return Ruling::of(reason);
    }
    let is_error = packet.is_icmp_error();
    if is_error && is_related(scene, frame, packet, quoted) {
        return Ruling::of(Reason::Related);
    }
    let port = match scene.direction {
        Direction::Egress => ends.remote_port,
        Direction::Ingress => ends.local_port,
    };
    let mut ruling = lookup::policy(scene, scene.direction, packet, ends.remote, port);
    let opens = opens_or_picks_up(packet);
    if ruling.reason.allows() && !opens && ruling.reason as u8 == Reason::RuleAllowed as u8 {
        // A FIN, RST, SYN-ACK or NULL out of nothing is a scan, even at an open port.
        ruling.reason = Reason::TcpNotOpening;
    }
    if !ruling.reason.allows() {
        if is_error {
            ruling.reason = Reason::UnrelatedError;
        }
        if !scene.audits() {
            return ruling;
        }
    }
    if !opens || packet.to_group() || !is_tracked(packet) {
        return ruling;
    }
    match remember(scene, packet, now, ruling.rule, ruling.reason.allows()) {
        Remembered::Yes => ruling.opened = ruling.reason.allows(),
        // Nobody isolates it: its packets pass without an entry too, in both directions.
        _ if !scene.isolated() || !ruling.reason.allows() => {}
        Remembered::ShareFull => ruling.reason = Reason::FlowShareFull,
        Remembered::TableFull => ruling.reason = Reason::FlowTableFull,
    }
    ruling
}

/// DHCP and nothing else is sent before there is an address.
#[inline(always)]
fn asks_for_lease(packet: &Packet) -> bool {
    packet.version == 4
        && packet.protocol == protocol::UDP
        && packet.source_port == 68
        && packet.destination_port == 67
        && u32::from_ne_bytes(lookup::v4(&packet.source)) == 0
}

/// TCP begins with a SYN; a connection that is older than the endpoint's entry is picked
/// up by a segment that carries an ACK and neither opens nor closes.
#[inline(always)]
const fn opens_or_picks_up(packet: &Packet) -> bool {
    if packet.protocol != protocol::TCP {
        return true;
    }
    let flags = packet.tcp_flags & (tcp::SYN | tcp::ACK | tcp::FIN | tcp::RST);
    flags == tcp::SYN || flags == tcp::ACK
}

/// Of ICMP only echo requests have an answer that must find its way back.
#[inline(always)]
const fn is_tracked(packet: &Packet) -> bool {
    match packet.protocol {
        protocol::ICMP | protocol::ICMPV6 => matches!(echo(packet), Some(true)),
        _ => true,
    }
}

/// What became of a connection that was to be entered.
enum Remembered {
    Yes,
    ShareFull,
    TableFull,
}

/// Enters the connection that the packet opens. `allowed` is false where only audit mode
/// lets it through.
#[inline(never)]
fn remember<T: Tables>(
    scene: &Scene<'_, T>,
    packet: &Packet,
    now: u32,
    rule: u32,
    allowed: bool,
) -> Remembered {
    let ends = Ends::of(packet, scene.direction);
    let by_endpoint = match scene.direction {
        Direction::Egress => flow_flags::OPENED_BY_ENDPOINT,
        Direction::Ingress => 0,
    };
    let flow = Flow {
        revision: scene.said.revision,
        seen: now,
        rule,
        state: State::New as u8,
        flags: if allowed {
            by_endpoint
        } else {
            by_endpoint | flow_flags::AUDITED
        },
        reserved: 0,
    };
    if let Some(old) = ends.find(scene.tables, scene.id) {
        // Expired or closed: its place is taken, its share is counted already.
        old.set(flow);
        return Remembered::Yes;
    }
    let Some(usage) = scene.tables.usage(scene.slot) else {
        return Remembered::TableFull;
    };
    if held(scene, usage.get()) >= scene.flow_share {
        return Remembered::ShareFull;
    }
    if !ends.enter(scene.tables, scene.id, &flow) {
        return Remembered::TableFull;
    }
    let mut used = usage.get();
    used.flows_entered = used.flows_entered.wrapping_add(1);
    usage.set(used);
    Remembered::Yes
}

/// Connections that the endpoint holds now.
#[inline(always)]
fn held<T: Tables>(scene: &Scene<'_, T>, used: crate::tables::Usage) -> u32 {
    used.flows_entered
        .wrapping_sub(used.flows_removed)
        .wrapping_sub(scene.tables.collected(scene.slot))
}

/// Does the packet that an ICMP error quotes belong to a connection of this endpoint? The
/// quoted packet went the other way (RFC 792, 4443): the error's receiver sent it. An error to
/// anybody else would be a way out: its sender chooses what follows the quoted header.
#[inline(always)]
fn is_related<T: Tables, F: Frame>(
    scene: &Scene<'_, T>,
    frame: &F,
    packet: &Packet,
    quoted: &mut Packet,
) -> bool {
    let at = packet.transport as usize + 8;
    let ethertype = if packet.version == 4 {
        ethertype::IPV4
    } else {
        ethertype::IPV6
    };
    super::quoted(frame, at, ethertype, quoted)
        && u128::from_ne_bytes(quoted.source) == u128::from_ne_bytes(packet.destination)
        && is_of_connection(scene, quoted)
}

/// Not inlined: the keys would not fit the stack of the caller, see `judge::quoted`.
#[inline(never)]
fn is_of_connection<T: Tables>(scene: &Scene<'_, T>, quoted: &Packet) -> bool {
    if quoted.piece == Piece::Later || quoted.is_icmp_error() {
        return false;
    }
    let sent = match scene.direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    };
    let Some(cell) = Ends::of(quoted, sent).find(scene.tables, scene.id) else {
        return false;
    };
    let flow = cell.get();
    let keeps = scene.flags & control_flags::KEEP_ESTABLISHED != 0;
    let state = State::from_number(flow.state);
    scene.tables.tick().wrapping_sub(flow.seen) <= expires_after(quoted.protocol, state)
        && (flow.revision == scene.said.revision || keeps)
}

#[inline(always)]
fn fragment_key<T>(scene: &Scene<'_, T>, packet: &Packet) -> FragmentKey {
    FragmentKey {
        owner: owner(scene.id, packet.protocol),
        id: packet.fragment_id,
        source: packet.source,
        destination: packet.destination,
        version: packet.version,
        direction: scene.direction as u8,
        reserved: 0,
    }
}

/// The first fragment passed: the others of its datagram may follow.
#[inline(never)]
pub(super) fn first_fragment<T: Tables>(scene: &Scene<'_, T>, packet: &Packet) {
    if scene.isolated() {
        let fragment = Fragment {
            seen: scene.tables.tick(),
            revision: scene.said.revision,
        };
        scene
            .tables
            .remember_fragment(&fragment_key(scene, packet), &fragment);
    }
}

/// A fragment without ports follows the verdict on its first.
#[inline(never)]
pub(super) fn later_fragment<T: Tables>(scene: &Scene<'_, T>, packet: &Packet) -> Reason {
    /// The time that Linux keeps fragments for reassembly (`net.ipv4.ipfrag_time`), in ticks.
    const REASSEMBLY: u32 = 28;
    if scene.direction == Direction::Egress
        && !lookup::is_own(scene, packet.version, &packet.source)
    {
        return Reason::SpoofedAddress;
    }
    if !scene.isolated() {
        return Reason::NotIsolated;
    }
    match scene.tables.fragment(&fragment_key(scene, packet)) {
        Some(first) if scene.tables.tick().wrapping_sub(first.seen) <= REASSEMBLY => {
            Reason::Established
        }
        _ => Reason::FragmentWithoutFirst,
    }
}
