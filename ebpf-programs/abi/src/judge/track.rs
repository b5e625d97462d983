//! Connections: known ones pass, new ones are judged and remembered.
//!
//! A connection belongs to its endpoint and is judged once, in the direction in which it
//! was opened, by that endpoint's policy. Its entry then speaks for both directions until
//! the endpoint's revision moves on. An entry can only come to be with a local address that
//! is the endpoint's own, or that it may use by leave, so a hit needs no further check of the source.
//! Where the address or the leave goes, the revision moves on.

use core::cell::Cell;

use super::{
    Decision, Isolation, ParsedFrame, PolicyContext, Question, Subprograms,
    addresses::{self, local},
    decision_flags, policy, rules,
    sender::{self, Sender, SenderKind},
};
use crate::{
    bytes::words,
    connection::{Change, SERVER_FIRST, State, Timeout, age},
    packet::{Direction, Frame, Packet, Piece, Socket, ethertype, icmp, protocol, tcp},
    reason::Reason,
    tables::{
        Flow, FlowKey4, FlowKey6, NOT_ISOLATED, account, control_flags, flow_flags, stamp,
        stamped_slot,
    },
};

/// A connection's key in either table: local and remote instead of source and destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// `FLOWS4`, where its version is 4.
    pub v4: FlowKey4,
    /// `FLOWS6`, else.
    pub v6: FlowKey6,
    /// 4 or 6: which.
    pub version: u8,
}

impl Key {
    /// Makes it the key of the connection that a packet belongs to which goes in this direction. What
    /// the other table's key held stays.
    #[inline(always)]
    pub(super) fn set(&mut self, packet: &Packet, direction: Direction, id: u32) {
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
        let (local_port, remote_port) = if rules::has_ports(packet.protocol) {
            (local_port, remote_port)
        } else {
            match echo(packet) {
                // 8 where the endpoint asked, 0 where the peer did: two that ping each
                // other with one identifier have two entries.
                Some(request) => {
                    let endpoint_asked = request == (direction as u8 == Direction::Egress as u8);
                    (packet.echo_id, if endpoint_asked { 8 } else { 0 })
                }
                None => (0, 0),
            }
        };
        let owner = owner(id, packet.protocol);
        self.version = packet.version;
        if packet.version == 4 {
            self.v4 = FlowKey4 {
                owner,
                local: addresses::v4(local),
                remote: addresses::v4(remote),
                local_port,
                remote_port,
            };
        } else {
            self.v6 = FlowKey6 {
                local: words(*local),
                remote: words(*remote),
                owner,
                local_port,
                remote_port,
            };
        }
    }

    #[inline(always)]
    fn find<'t, T: Subprograms>(&self, tables: &'t T) -> Option<&'t Cell<Flow>> {
        if self.version == 4 {
            tables.flow4(&self.v4)
        } else {
            tables.flow6(&self.v6)
        }
    }

    #[inline(always)]
    fn enter<T: Subprograms>(&self, tables: &T, flow: &Flow) -> bool {
        if self.version == 4 {
            tables.enter4(&self.v4, flow)
        } else {
            tables.enter6(&self.v6, flow)
        }
    }
}

#[inline(always)]
pub(super) const fn owner(id: u32, protocol: u8) -> u32 {
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

pub(super) const fn opening_of(flow: &Flow) -> Direction {
    if flow.flags & flow_flags::OPENED_BY_ENDPOINT != 0 {
        Direction::Egress
    } else {
        Direction::Ingress
    }
}

/// Ticks that an idle connection is kept.
#[inline(always)]
fn lifetime<T>(context: &PolicyContext<'_, T>, protocol: u8, state: State) -> u32 {
    context.control.timeout(Timeout::for_state(protocol, state))
}

/// A packet with a transport header.
#[inline(always)]
pub(super) fn connection<T: Subprograms, F: Frame>(
    context: &PolicyContext<'_, T>,
    frame: &F,
    parsed: &ParsedFrame,
) -> Decision {
    let packet = &parsed.packet;
    let now = context.tables.tick();
    if let Some(cell) = parsed.key.find(context.tables) {
        let flow = context.tables.read_flow(cell);
        let state = State::from_number(flow.state);
        let reply = opening_of(&flow) as u8 != context.at.direction() as u8;
        if age(now, flow.seen) <= lifetime(context, packet.protocol, state) {
            let change = state.after(packet.protocol, packet.tcp_flags, reply);
            if !matches!(change, Change::Another { .. }) {
                return known(context, parsed, cell, flow, change, reply, now);
            }
        }
    }
    opening(context, frame, parsed)
}

#[inline(always)]
fn known<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    parsed: &ParsedFrame,
    cell: &Cell<Flow>,
    flow: Flow,
    change: Change,
    reply: bool,
    now: u32,
) -> Decision {
    let packet = &parsed.packet;
    let mut next = flow;
    let keeps = context.flags() & control_flags::KEEP_ESTABLISHED != 0;
    let audited = flow.flags & flow_flags::AUDITED != 0;
    let opening = opening_of(&flow);
    let audits = context.audits()
        || context.policy_set(opening) != context.audited_policy_set(opening)
        // Behind a published port another one may be audited. If not any more, the revision is another, too.
        || (opening as u8 == Direction::Egress as u8
            && context.flags() & control_flags::PUBLISHES != 0);
    // What only audit let through is judged each time the opener speaks, and is no sender's
    // established connection once enforcement is on.
    let older = flow.revision != context.policy.revision;
    // Another endpoint of this host uses the same addresses and ports (a tunnel of the host's leads it here, or the
    // translation of an earlier connection was given to it): its packets are judged as its own.
    let is_another = sender::is_another(
        context.control,
        parsed.arrival.tc_index,
        context.at.direction(),
        &flow,
    );
    let again = older || is_another || (audited && (!reply || !audits));
    let mut decision = Decision::new(Reason::Established);
    if again {
        let local = local(packet, context.at.direction());
        let whose = addresses::whose(context, packet.version, local);
        next.flags &= !flow_flags::BY_LEAVE;
        if whose.is_by_leave() {
            next.flags |= flow_flags::BY_LEAVE;
        }
        decision = if !whose.is_usable() {
            // The address went to another endpoint, or its leave ended, while the connection was open.
            Decision::new(Reason::PolicyRevoked)
        } else if keeps && !audited && !is_another {
            Decision {
                rule: flow.rule,
                sender: Sender::of_flow(flow.flags, flow.payer),
                ..Decision::new(Reason::Established)
            }
        } else if opening as u8 == Direction::Ingress as u8 && reply {
            let sender = Sender::of_flow(flow.flags, flow.payer);
            policy::policy_for(context, opening, parsed, sender)
        } else {
            policy::policy(context, opening, parsed)
        };
        if decision.reason.allows() {
            next.revision = context.policy.revision;
            next.rule = decision.rule;
            next.flags &= !flow_flags::AUDITED;
            if opening as u8 == Direction::Ingress as u8 && !reply {
                // The peer's own packet proves its sender now.
                next.flags = next.flags & !flow_flags::SENDER | decision.sender.flow_flags();
                next.payer = payer(context, decision.sender);
                recharge(context.tables, parsed, flow.payer, next.payer);
            }
            decision = Decision::new(Reason::Established);
        } else if !audited {
            decision.reason = Reason::PolicyRevoked;
        }
    }
    decision = decision.with(decision_flags::REPLY, reply).with(
        decision_flags::BY_LEAVE,
        next.flags & flow_flags::BY_LEAVE != 0,
    );
    if !context.passes(&decision) {
        return decision;
    }
    match change {
        Change::To(state) => {
            next.state = state as u8;
            next.seen = now;
        }
        Change::Invalid => decision = context.invalid(decision),
        _ => {}
    }
    // Most packets change nothing: the cache line stays clean.
    if next.seen != flow.seen || next.state != flow.state || again {
        context.tables.write_flow(cell, next);
    }
    if decision.reason as u8 == Reason::Established as u8 {
        decision.rule = next.rule;
    }
    decision
}

#[inline(always)]
fn opening<T: Subprograms, F: Frame>(
    context: &PolicyContext<'_, T>,
    frame: &F,
    parsed: &ParsedFrame,
) -> Decision {
    let packet = &parsed.packet;
    let whose = addresses::whose(
        context,
        packet.version,
        local(packet, context.at.direction()),
    );
    if context.at.direction() == Direction::Egress {
        if !whose.is_usable() {
            return Decision::new(Reason::SpoofedAddress);
        }
    } else if !packet.to_group() && !whose.is_usable() {
        // Frames that the bridge floods, or for an address that was not given to it: it may be
        // anything, so an isolated endpoint does not get it.
        return not_for_endpoint(context, parsed);
    }
    let by_leave = whose.is_by_leave();
    opened(context, frame, parsed, by_leave).with(decision_flags::BY_LEAVE, by_leave)
}

/// A packet without a connection that is known, with an address that the endpoint may use.
#[inline(always)]
fn opened<T: Subprograms, F: Frame>(
    context: &PolicyContext<'_, T>,
    frame: &F,
    parsed: &ParsedFrame,
    by_leave: bool,
) -> Decision {
    let packet = &parsed.packet;
    let is_error = packet.is_icmp_error();
    if is_error && context.tables.is_related(frame, parsed) {
        return Decision::new(Reason::Related);
    }
    let older = older_tcp(context, parsed);
    let mut opening = match older {
        Some(opening) => opening,
        None => context.at.direction(),
    };
    let mut decision = policy::policy(context, opening, parsed);
    if matches!(older, Some(Direction::Egress))
        && decision.reason.allows()
        && local_port(context, packet) < FIRST_DIALLING
    {
        // The opener is in doubt: policy has to allow both.
        let other = policy::policy(context, Direction::Ingress, parsed);
        if !other.reason.allows() {
            (opening, decision) = (Direction::Ingress, other);
        }
    }
    if opening != context.at.direction() && decision.reason.allows() && !may_speak_first(context) {
        // A word of the endpoint on a connection that its own sockets alone tell of.
        decision = policy::policy(context, context.at.direction(), parsed);
        opening = context.at.direction();
    }
    if !decision.reason.allows() && awaited_udp(context, parsed) {
        let answer = policy::policy(context, Direction::Egress, parsed);
        if answer.reason.allows() {
            (opening, decision) = (Direction::Egress, answer);
        }
    }
    decision = decision.with(
        decision_flags::REPLY,
        opening as u8 != context.at.direction() as u8,
    );
    let opens = older.is_some() || opens(packet);
    if !opens && decision.reason as u8 == Reason::RuleAllowed as u8 {
        // A bare ACK, FIN, RST, SYN-ACK or NULL is a scan, even at an open port.
        decision.reason = Reason::TcpNotOpening;
    }
    if !decision.reason.allows() && is_error {
        decision.reason = Reason::UnrelatedError;
    }
    if !context.passes(&decision) || !opens || packet.to_group() || !is_tracked(packet) {
        return decision;
    }
    if decision.reason as u8 == Reason::Host as u8
        && opening as u8 == Direction::Ingress as u8
        && decision.is(decision_flags::REPLY)
    {
        // Only the peer's own packet can show that it is the host: the next one does.
        return decision;
    }
    if packet.protocol == protocol::UDP
        && decision.sender.kind() as u8 == SenderKind::NotHost as u8
        && context
            .tables
            .ask_target(parsed, Question::DIALLED)
            .denies()
    {
        // It would make answers of what the endpoint may not send to a port that is published there.
        return decision;
    }
    let allowed = decision.reason.allows();
    let entry = Opening::new(opening, allowed, by_leave, decision.sender);
    match context.tables.remember(parsed, entry, decision.rule) {
        Remembered::Yes => decision = decision.with(decision_flags::OPENED, allowed),
        // No policy isolates it: its packets pass without an entry too, in both directions.
        _ if !context.isolated() || !allowed => {}
        Remembered::ShareFull => decision.reason = Reason::FlowShareFull,
        Remembered::TableFull => decision.reason = Reason::FlowTableFull,
    }
    decision
}

/// A frame for an address that is not the endpoint's. It passes an endpoint that no policy isolates, as a router's
/// or a bridge's would, unless a neighbour sent it that its own policies isolate: those judge the address, and the
/// frame's MAC address would lead it past them.
#[inline(always)]
pub(super) fn not_for_endpoint<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    parsed: &ParsedFrame,
) -> Decision {
    let slot = sender::slot(context, &parsed.arrival);
    if slot != 0
        && slot != context.at.slot
        && let Some(endpoint) = context.tables.endpoint(slot)
        && endpoint.banks[context.bank()].egress != NOT_ISOLATED
    {
        return Decision::new(Reason::NotForEndpoint);
    }
    context.unless_isolated(Reason::NotForEndpoint)
}

/// In which direction a TCP connection was opened that has no entry, because it is older or
/// the entry was lost, but a socket in the endpoint's network namespace: that is connected to
/// the peer, and where another one listens at its port, the peer opened the connection.
///
/// This decides no more than which direction to ask policy about, and that the segment
/// belongs to something: what policy denies stays denied. But an endpoint can make up its own sockets:
/// see [`may_speak_first`].
#[inline(always)]
fn older_tcp<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    parsed: &ParsedFrame,
) -> Option<Direction> {
    if parsed.packet.protocol != protocol::TCP
        || parsed.packet.tcp_flags & tcp::SYN != 0
        || context.at.netns == 0
        // Nothing depends on the opener.
        || matches!(context.isolation(), Isolation::None)
        || !matches!(context.tables.socket(parsed, false), Some(Socket::Connected))
    {
        return None;
    }
    Some(match context.tables.socket(parsed, true) {
        Some(Socket::Listening) => Direction::Ingress,
        _ => Direction::Egress,
    })
}

/// The first port that Linux gives to a socket that dials (`net.ipv4.ip_local_port_range`). A connection from a lower one, of
/// which no entry is left, may be one of a server that closed its listening socket since.
const FIRST_DIALLING: u16 = 32768;

/// The endpoint's port.
#[inline(always)]
const fn local_port<T>(context: &PolicyContext<'_, T>, packet: &Packet) -> u16 {
    match context.at.direction() {
        Direction::Egress => packet.source_port,
        Direction::Ingress => packet.destination_port,
    }
}

/// May the answering side be the first to be heard on a connection without an entry? Towards the
/// endpoint always: what it opened is for its egress policy. From it only for a while.
#[inline(always)]
fn may_speak_first<T: Subprograms>(context: &PolicyContext<'_, T>) -> bool {
    context.at.direction() as u8 == Direction::Ingress as u8
        || age(context.tables.tick(), context.control.since) <= SERVER_FIRST
}

/// Is it from the peer that a connected UDP socket of the endpoint may have asked before these tables were
/// made? UDP knows no opening; what was asked then is answered within the time that an
/// entry would have lasted.
#[inline(always)]
fn awaited_udp<T: Subprograms>(context: &PolicyContext<'_, T>, parsed: &ParsedFrame) -> bool {
    let since = age(context.tables.tick(), context.control.since);
    parsed.packet.protocol == protocol::UDP
        && context.at.direction() as u8 == Direction::Ingress as u8
        && context.at.netns != 0
        && since <= lifetime(context, protocol::UDP, State::Established)
        && matches!(
            context.tables.socket(parsed, false),
            Some(Socket::Connected)
        )
}

/// TCP begins with a SYN and nothing else.
#[inline(always)]
const fn opens(packet: &Packet) -> bool {
    packet.protocol != protocol::TCP || packet.tcp_flags & tcp::STATEFUL == tcp::SYN
}

/// Of ICMP only echo requests have an answer that must find its way back.
#[inline(always)]
const fn is_tracked(packet: &Packet) -> bool {
    match packet.protocol {
        protocol::ICMP | protocol::ICMPV6 => matches!(echo(packet), Some(true)),
        _ => true,
    }
}

/// What became of a connection that was to be entered; a number, as the parts of a verdict speak in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Remembered {
    /// It is entered.
    Yes = 0,
    /// The opener has used up its share.
    ShareFull = 1,
    /// There is no room.
    TableFull = 2,
}

impl Remembered {
    /// The one with this number; what is none is no entry.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Yes,
            1 => Self::ShareFull,
            _ => Self::TableFull,
        }
    }
}

/// How a connection comes to be entered, as a number: in bit 0 the direction in which it was
/// opened, in bit 1 whether only audit lets it through, of a peer that opened it the [`Sender`]: its kind in
/// bits 2 and 3, its stamp from bit 16 on; and in bit 4 whether the endpoint uses its address by leave.
#[derive(Clone, Copy, Debug)]
pub struct Opening(pub u32);

impl Opening {
    const KIND_SHIFT: u32 = 2;

    const fn new(direction: Direction, allowed: bool, by_leave: bool, sender: Sender) -> Self {
        Self(
            direction as u32
                | (!allowed as u32) << 1
                | (by_leave as u32) << 4
                | (sender.kind() as u32) << Self::KIND_SHIFT
                | sender.stamp() << 16,
        )
    }
    const fn sender(self) -> Sender {
        Sender(self.0 >> Self::KIND_SHIFT & 3 | self.0 & 0xffff_0000)
    }
    const fn direction(self) -> Direction {
        Direction::of_bit(self.0)
    }
    const fn is_audited(self) -> bool {
        self.0 & 2 != 0
    }
    const fn is_by_leave(self) -> bool {
        self.0 & 1 << 4 != 0
    }
}

/// Enters the connection of the packet in `parsed`, which this rule lets through.
#[inline(always)]
pub fn remember<T: Subprograms>(
    tables: &T,
    parsed: &ParsedFrame,
    opening: Opening,
    rule: u32,
) -> Remembered {
    let packet = &parsed.packet;
    let Some(context) = &PolicyContext::find(tables, &parsed.endpoint) else {
        return Remembered::TableFull;
    };
    let key = &parsed.key;
    let now = tables.tick();
    let mut flags = match opening.direction() {
        Direction::Egress => flow_flags::OPENED_BY_ENDPOINT,
        Direction::Ingress => 0,
    };
    if opening.is_audited() {
        flags |= flow_flags::AUDITED;
    }
    if opening.is_by_leave() {
        flags |= flow_flags::BY_LEAVE;
    }
    let is_first = opens(packet) && opening.direction() as u8 == context.at.direction() as u8;
    let sender = opening.sender();
    flags |= sender.flow_flags();
    let stamp = payer(context, sender);
    let payer = stamped_slot(stamp.into());
    let flow = Flow {
        revision: context.policy.revision,
        seen: now,
        rule,
        // What has no beginning was found with its socket, which is connected.
        state: if is_first {
            State::New as u8
        } else {
            State::Established as u8
        },
        flags,
        payer: stamp,
    };
    if let Some(old) = key.find(tables) {
        let held = tables.read_flow(old);
        if !goes_on(context, packet, &held, now) {
            recharge(tables, parsed, held.payer, flow.payer);
            tables.write_flow(old, flow);
        }
        return Remembered::Yes;
    }
    let family = u32::from(key.version != 4);
    let room = context.control.flow_rooms[family as usize & 1];
    let free = room.saturating_sub(held(tables, account(0, family)));
    if free == 0 {
        return Remembered::TableFull;
    }
    // An account that holds as much as is left for all others gets no more, so the table is never full
    // for an account that holds little, however many fill it (Choudhury and Hahne's dynamic threshold).
    if held(tables, account(payer, family)) >= context.control.flow_share.min(free) {
        return Remembered::ShareFull;
    }
    if !key.enter(tables, &flow) {
        // Another processor may have entered it meanwhile.
        return match key.find(tables) {
            Some(_) => Remembered::Yes,
            None => Remembered::TableFull,
        };
    }
    tables.enter_account(account(payer, family));
    tables.enter_account(account(0, family));
    Remembered::Yes
}

/// Is the connection that has this entry still going on, though a packet asks for another one?
#[inline(always)]
fn goes_on<T>(context: &PolicyContext<'_, T>, packet: &Packet, flow: &Flow, now: u32) -> bool {
    let state = State::from_number(flow.state);
    let reply = opening_of(flow) as u8 != context.at.direction() as u8;
    age(now, flow.seen) <= lifetime(context, packet.protocol, state)
        && matches!(
            state.after(packet.protocol, packet.tcp_flags, reply),
            Change::Another { replaces: false }
        )
}

/// Whose share an entry counts for, as a stamp: that of the endpoint of this host which opened the connection.
/// Otherwise one that opens many to another would use up the other's. Only a packet of the peer's own tells which that
/// is: what a socket tells the endpoint may have made up.
#[inline(always)]
const fn payer<T>(context: &PolicyContext<'_, T>, sender: Sender) -> u16 {
    if sender.stamp() == 0 {
        stamp(context.at.slot, &[0; 16]) as u16
    } else {
        sender.stamp() as u16
    }
}

/// The entry counts for another endpoint from now on.
#[inline(always)]
fn recharge<T: Subprograms>(tables: &T, parsed: &ParsedFrame, from: u16, to: u16) {
    let (from, to) = (stamped_slot(from.into()), stamped_slot(to.into()));
    if from == to {
        return;
    }
    let family = u32::from(parsed.key.version != 4);
    tables.enter_account(account(to, family));
    tables.leave_account(account(from, family));
}

/// May the sender of an ICMP error know of a packet to this destination? Any router may. An endpoint of this host is
/// none: it is the destination, or no end that could know, and the error a word past the receiver's policies.
#[inline(always)]
fn may_report<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    parsed: &ParsedFrame,
    sent: &Packet,
) -> bool {
    if context.at.direction() == Direction::Egress {
        return true;
    }
    let from = sender::slot(context, &parsed.arrival);
    from == 0
        || from == addresses::slot_of(context, sent.version, &sent.destination)
        // Network address translation gives an error the address that the receiver dialled.
        || u128::from_ne_bytes(parsed.packet.source) == u128::from_ne_bytes(sent.destination)
}

/// Connections that an account holds now.
#[inline(always)]
fn held<T: Subprograms>(tables: &T, account: u32) -> u32 {
    tables
        .entered(account)
        .wrapping_sub(tables.collected(account))
}

/// Does the packet that an ICMP error quotes belong to a connection of this endpoint? The
/// quoted packet went the other way (RFC 792, 4443): the error's receiver sent it. An error to
/// any other end would be a way out: its sender chooses what follows the quoted header.
///
/// `quoted` is room for what is quoted, as it went.
#[inline(always)]
pub fn is_related<T: Subprograms, F: Frame>(
    tables: &T,
    frame: &F,
    parsed: &ParsedFrame,
    quoted: &mut ParsedFrame,
) -> bool {
    let packet = &parsed.packet;
    let Some(context) = &PolicyContext::find(tables, &parsed.endpoint) else {
        return false;
    };
    let at = packet.transport as usize + 8;
    let ethertype = if packet.version == 4 {
        ethertype::IPV4
    } else {
        ethertype::IPV6
    };
    let readable = super::read_quoted(frame, at, ethertype, &mut quoted.packet);
    let sent = &quoted.packet;
    if !readable
        || u128::from_ne_bytes(sent.source) != u128::from_ne_bytes(packet.destination)
        || sent.piece == Piece::Later
        || sent.is_icmp_error()
    {
        return false;
    }
    let opposite = match context.at.direction() {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    };
    if !may_report(context, parsed, sent) {
        return false;
    }
    quoted.key.set(sent, opposite, context.at.id);
    let Some(cell) = quoted.key.find(tables) else {
        return false;
    };
    let flow = tables.read_flow(cell);
    let keeps = context.flags() & control_flags::KEEP_ESTABLISHED != 0;
    let state = State::from_number(flow.state);
    age(tables.tick(), flow.seen) <= lifetime(context, sent.protocol, state)
        && (flow.revision == context.policy.revision || keeps)
}
