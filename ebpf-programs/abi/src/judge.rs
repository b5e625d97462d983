//! The verdict on one frame.
//!
//! ```text
//!  frame ─▶ parse ─▶ interface ─▶ endpoint ─▶ connection known? ─ yes ─▶ revision current? ─▶ passes
//!              │ none                  │           │ no                       │ older
//!              ▼                       ▼           ▼                          ▼
//!            on hold             link control   lookup: peer class, policy set, port ─▶ enter, or drop
//!                               (ARP, ND, MLD)
//! ```
//!
//! Called by the two TC programs with the maps, by tests and the daemon's model with
//! ordered maps. The caller counts and reports ([`Outcome`]); nothing here does.
//! Every path that finds something missing drops.

mod addresses;
mod answer;
mod fast;
mod fragment;
mod link;
mod policy;
mod published;
mod question;
mod rules;
mod sender;
mod track;

use core::{cell::Cell, mem::MaybeUninit};

use crate::{
    bytes::octets,
    link::{LinkRate, Neighbour},
    packet::{self, Arrival, Direction, Ethernet, Frame, Packet, Piece, Socket, ethertype},
    reason::Reason,
    tables::{
        AddressBank, Control, Endpoint, EndpointBank, Flow, FlowKey4, FlowKey6, FragmentCursor,
        FragmentSet, Interface, Leave, NOT_ISOLATED, PortBlock, Prefix, PublishedBank,
        SenderAddress, Verdict, VerdictKey, control_flags, endpoint_flags, stamp,
    },
};

pub use addresses::leave;
pub use answer::{Answer, Question};
pub use fast::is_established;
pub use fragment::{Later, first as first_fragment, later as later_fragment};
pub use link::control as link_control;
pub use policy::{answer, answer_of_own, policy_set_of};
pub use published::{Dialled, answer_of_target, class_of_own, dialled};
pub use question::{RESOLVER, find_asking_endpoint, question};
pub use rules::{NOT_LISTED, find_rule, search_blocks};
pub use sender::{Sender, SenderKind};
pub use track::{Key, Opening, Remembered, is_related, remember};

/// The tables as the verdict sees them: the kernel's maps, or ordered maps.
pub trait Tables {
    /// The one element of `CONTROL`.
    fn control(&self) -> Option<&Control>;
    /// The interface with this index, whichever table it stands in.
    fn interface(&self, ifindex: u32) -> Option<&Interface>;
    /// The element of `ENDPOINTS`.
    fn endpoint(&self, slot: u32) -> Option<&Endpoint>;
    /// What a bank (0 or 1) of `ADDRESSES4` says, all of it of this very address: the daemon may replace the entry
    /// meanwhile.
    fn address4(&self, address: &[u8; 4], bank: usize) -> Option<AddressBank>;
    /// Likewise of `ADDRESSES6`.
    fn address6(&self, address: &[u8; 16], bank: usize) -> Option<AddressBank>;
    /// The owner in that bank of `ADDRESSES4`; `None`: the address is not listed there.
    fn owner4(&self, address: &[u8; 4], bank: usize) -> Option<u32> {
        AddressBank::owner_if_listed(self.address4(address, bank))
    }
    /// Likewise of `ADDRESSES6`.
    fn owner6(&self, address: &[u8; 16], bank: usize) -> Option<u32> {
        AddressBank::owner_if_listed(self.address6(address, bank))
    }
    /// `SENDERS`, at [`crate::tables::sender_key`].
    fn sender(&self, key: u32) -> Option<&SenderAddress>;
    /// The longest prefix of `PREFIXES4` that holds the address.
    fn prefix4(&self, address: &[u8; 4]) -> Option<&Prefix>;
    /// The longest prefix of `PREFIXES6` that holds the address.
    fn prefix6(&self, address: &[u8; 16]) -> Option<&Prefix>;
    /// The longest prefix of the slot in `LEAVES4` that holds the address.
    fn leave4(&self, slot: u32, address: u32) -> Option<&Leave>;
    /// The longest prefix of the slot in `LEAVES6` that holds the address, whose halves these are.
    fn leave6(&self, slot: u32, high: u64, low: u64) -> Option<&Leave>;
    /// What a bank (0 or 1) of `PUBLISHED` says, at the address whose first and second eight octets these are as they
    /// stand in memory; all of it of that very port.
    fn published(
        &self,
        first: u64,
        second: u64,
        service: u32,
        bank: usize,
    ) -> Option<PublishedBank>;
    /// `VERDICTS`.
    fn verdict(&self, key: &VerdictKey) -> Option<&Verdict>;
    /// `PORT_BLOCKS`.
    fn port_block(&self, id: u64) -> Option<&PortBlock>;
    /// `FLOWS4`. Its elements are read and written by the three methods below alone.
    fn flow4(&self, key: &FlowKey4) -> Option<&Cell<Flow>>;
    /// `FLOWS6`. Likewise.
    fn flow6(&self, key: &FlowKey6) -> Option<&Cell<Flow>>;
    /// Reads a connection. Another processor may write it at the same time: what the verdict depends on
    /// (revision, state, flags, payer) is one aligned word, so it is always as one processor wrote it.
    fn read_flow(&self, cell: &Cell<Flow>) -> Flow {
        cell.get()
    }
    /// Writes a connection, each of its two words at once. Of two processors that write one connection at the same
    /// time, the update of one is lost, and no mixture of both is left.
    fn write_flow(&self, cell: &Cell<Flow>, flow: Flow) {
        cell.set(flow);
    }
    /// Writes when a connection was last seen, and nothing else.
    fn see_flow(&self, cell: &Cell<Flow>, now: u32) {
        let flow = Flow {
            seen: now,
            ..cell.get()
        };
        cell.set(flow);
    }
    /// Enters a connection into `FLOWS4`; false where there is no room.
    fn enter4(&self, key: &FlowKey4, flow: &Flow) -> bool;
    /// Enters a connection into `FLOWS6`; false where there is no room.
    fn enter6(&self, key: &FlowKey6, flow: &Flow) -> bool;
    /// The element of `FRAGMENTS`. Two processors may write one at once; then a datagram is
    /// lost.
    fn fragments(&self, set: u32) -> Option<&Cell<FragmentSet>>;
    /// The element of `FRAGMENT_CURSORS`.
    fn fragment_cursor(&self, set: u32) -> Option<&Cell<FragmentCursor>>;
    /// The element of `ENTERED` ([`crate::tables::account`]).
    fn entered(&self, account: u32) -> u32;
    /// Adds one to it, atomically.
    fn enter_account(&self, account: u32);
    /// Takes one from it, atomically.
    fn leave_account(&self, account: u32);
    /// The element of `COLLECTED`.
    fn collected(&self, account: u32) -> u32;
    /// The element of `LINK_RATES` ([`crate::link::rate_index`]).
    fn link_rate(&self, index: u32) -> Option<&Cell<LinkRate>>;
    /// The element of `NEIGHBOURS` ([`crate::link::neighbour_index`]).
    fn neighbour(&self, index: u32) -> Option<&Cell<Neighbour>>;
    /// The coarse monotonic clock in ticks ([`crate::connection::TICK_SHIFT`]).
    fn tick(&self) -> u32;
}

/// The parts of a verdict. In the programs each is a global function, which the verifier looks at once, with any arguments,
/// and not again on each path that leads to it: hence plain numbers, and the packet at hand, which is in a map there. By
/// default each part is called directly.
pub trait Subprograms: Tables + Sized {
    /// The socket of the endpoint for the packet in `parsed`, in its network namespace. `listens`:
    /// not the connection's own is sought, but the one that takes what comes to its port.
    fn socket(&self, parsed: &ParsedFrame, listens: bool) -> Option<Socket>;
    /// See [`search_blocks`].
    fn search_blocks(&self, spill: u64, protocol: u8, port: u32) -> u32 {
        search_blocks(self, spill, protocol, port)
    }
    /// See [`find_rule`].
    fn find_rule(&self, key: &VerdictKey, protocol: u8, port: u32) -> u32 {
        find_rule(self, key.policy_set, key.class, protocol, port)
    }
    /// See [`leave`].
    fn leave(&self, slot: u32, version: u8, high: u64, low: u64) -> u64 {
        leave(self, slot, version.into(), high, low)
    }
    /// See [`answer`].
    fn ask(&self, parsed: &ParsedFrame, question: Question) -> Answer {
        answer(self, parsed, question)
    }
    /// See [`answer_of_own`].
    fn ask_own(&self, parsed: &ParsedFrame, question: Question) -> Answer {
        answer_of_own(self, parsed, question)
    }
    /// See [`answer_of_target`].
    fn ask_target(&self, parsed: &ParsedFrame, question: Question) -> Answer {
        answer_of_target(self, parsed, question)
    }
    /// See [`dialled`].
    fn dialled(&self, parsed: &ParsedFrame, opening: Direction) -> Dialled {
        dialled(self, parsed, opening)
    }
    /// See [`class_of_own`].
    fn class_of_own(&self, parsed: &ParsedFrame) -> u64 {
        class_of_own(self, parsed)
    }
    /// See [`policy_set_of`].
    fn policy_set_of(&self, parsed: &ParsedFrame, opening: Direction, answer: Answer) -> u64 {
        policy_set_of(self, parsed, opening, answer)
    }
    /// See [`remember`].
    fn remember(&self, parsed: &ParsedFrame, opening: Opening, rule: u32) -> Remembered {
        remember(self, parsed, opening, rule)
    }
    /// See [`is_related`].
    fn is_related<F: Frame>(&self, frame: &F, parsed: &ParsedFrame) -> bool {
        is_related(self, frame, parsed, &mut ParsedFrame::default())
    }
    /// See [`link_control`].
    fn link_control<F: Frame>(&self, frame: &F, parsed: &ParsedFrame) -> Option<Reason> {
        link_control(self, frame, parsed)
    }
    /// See [`packet::records`].
    fn records<F: Frame>(&self, frame: &F, parsed: &ParsedFrame) -> u32 {
        packet::records(frame, &parsed.packet)
    }
    /// See [`first_fragment`].
    fn first_fragment(&self, parsed: &ParsedFrame, allowed: bool) {
        first_fragment(self, parsed, allowed);
    }
    /// See [`later_fragment`].
    fn later_fragment(&self, parsed: &ParsedFrame) -> Later {
        later_fragment(self, parsed)
    }
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
    /// The deciding rule by its number in the policy set; 0: none.
    pub rule: u32,
    /// Slot of the endpoint; 0: unidentified.
    pub slot: u32,
    /// Number of the endpoint; 0: unidentified.
    pub endpoint: u32,
    /// The policy set that was asked; 0: none.
    pub policy_set: u64,
    /// The generation that judged.
    pub generation: u64,
    /// What was found of a peer that opens a connection, beside its address.
    pub sender: Sender,
    /// What the frame carries in `tc_index` from here on, where it leaves an endpoint; 0: nothing.
    pub tc_index: u32,
}

/// The endpoint and its policy, as they are before the packet itself is considered. References into the tables, not
/// copies: a BPF program has 512 bytes of stack for all its frames together.
struct PolicyContext<'a, T> {
    tables: &'a T,
    control: &'a Control,
    policy: &'a EndpointBank,
    at: &'a EndpointRef,
}

/// An interface without an endpoint is unidentified: nothing passes it.
impl Default for Outcome {
    fn default() -> Self {
        Self {
            reason: Reason::Unidentified,
            passes: false,
            opened: false,
            reply: false,
            rule: 0,
            slot: 0,
            endpoint: 0,
            policy_set: 0,
            generation: 0,
            sender: Sender::UNASKED,
            tc_index: 0,
        }
    }
}

/// Whether any policy selects an endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Isolation {
    None,
    /// Only policies that are audited do.
    Audited,
    Enforced,
}

impl<'a, T: Subprograms> PolicyContext<'a, T> {
    /// The context of an endpoint. `None`: the tables lack it, which does not happen to an endpoint that was found.
    #[inline(always)]
    fn find(tables: &'a T, at: &'a EndpointRef) -> Option<Self> {
        Some(Self {
            tables,
            control: tables.control()?,
            policy: &tables.endpoint(at.slot)?.banks[at.bank()],
            at,
        })
    }
}

impl<T> PolicyContext<'_, T> {
    const fn bank(&self) -> usize {
        self.at.bank()
    }
    /// [`control_flags`]
    const fn flags(&self) -> u32 {
        self.control.flags[self.bank()]
    }
    /// Is nothing of this endpoint dropped?
    const fn audits(&self) -> bool {
        self.flags() & control_flags::AUDIT != 0 || self.policy.flags & endpoint_flags::AUDIT != 0
    }
    const fn policy_set(&self, direction: Direction) -> u64 {
        match direction {
            Direction::Ingress => self.policy.ingress,
            Direction::Egress => self.policy.egress,
        }
    }
    const fn audited_policy_set(&self, direction: Direction) -> u64 {
        match direction {
            Direction::Ingress => self.policy.audited_ingress,
            Direction::Egress => self.policy.audited_egress,
        }
    }
    const fn isolation(&self) -> Isolation {
        if self.policy.ingress != NOT_ISOLATED || self.policy.egress != NOT_ISOLATED {
            Isolation::Enforced
        } else if self.policy.audited_ingress != NOT_ISOLATED
            || self.policy.audited_egress != NOT_ISOLATED
        {
            Isolation::Audited
        } else {
            Isolation::None
        }
    }
    const fn isolated(&self) -> bool {
        matches!(self.isolation(), Isolation::Enforced)
    }
    /// What an isolated endpoint neither sends nor gets, and another one does.
    const fn unless_isolated(&self, reason: Reason) -> Decision {
        match self.isolation() {
            Isolation::Enforced => Decision::new(reason),
            Isolation::Audited => Decision::new(reason).with(decision_flags::AUDITED, true),
            Isolation::None => Decision::new(Reason::NotIsolated),
        }
    }
    /// The decision on a segment that its connection's state does not allow, when it would have been
    /// this one otherwise.
    const fn invalid(&self, otherwise: Decision) -> Decision {
        let decision = self.unless_isolated(Reason::TcpState);
        if decision.reason.allows() {
            return otherwise;
        }
        decision.with(decision_flags::REPLY, otherwise.is(decision_flags::REPLY))
    }
    /// Does a frame with this decision go on? That the endpoint is only audited does not open another one's published port.
    const fn passes(&self, decision: &Decision) -> bool {
        const {
            assert!(control_flags::AUDIT == 1 && endpoint_flags::AUDIT == 1);
            assert!(decision_flags::OF_TARGET == 1 << 4);
        };
        // One number and one branch: the verifier looks at all that follows once for each way that leads there.
        let flags = decision.flags as u32;
        let own = self.policy.flags & endpoint_flags::AUDIT & !(flags >> 4);
        let audits =
            own | self.flags() & control_flags::AUDIT | flags & decision_flags::AUDITED as u32;
        decision.reason.allows() || audits != 0
    }
}

/// A reason with what decided it; becomes an [`Outcome`].
#[derive(Clone, Copy)]
struct Decision {
    reason: Reason,
    rule: u32,
    /// What policy said, where it was asked: its policy set is looked for once all is decided.
    answer: Answer,
    sender: Sender,
    /// [`decision_flags`]. Bits of one byte: three `bool`s in a row are merged to a store that is not
    /// aligned, which the verifier does not take on the stack.
    flags: u8,
}

mod decision_flags {
    /// It opened a connection.
    pub const OPENED: u8 = 1 << 0;
    /// It goes against the direction in which its connection was opened.
    pub const REPLY: u8 = 1 << 1;
    /// The reason is that of policies which are only audited: it drops nothing.
    pub const AUDITED: u8 = 1 << 2;
    /// The endpoint's address in the packet is one that it uses by leave.
    pub const BY_LEAVE: u8 = 1 << 3;
    /// It is that of the container behind a published port which the endpoint dials.
    pub const OF_TARGET: u8 = 1 << 4;
    /// Where in the flags it stands which direction policy was asked about.
    pub const OPENING_SHIFT: u32 = 5;
}

impl Decision {
    const fn new(reason: Reason) -> Self {
        Self {
            reason,
            rule: 0,
            answer: Answer::NONE,
            sender: Sender::UNASKED,
            flags: 0,
        }
    }

    const fn with(self, mark: u8, yes: bool) -> Self {
        Self {
            flags: if yes { self.flags | mark } else { self.flags },
            ..self
        }
    }

    const fn is(&self, mark: u8) -> bool {
        self.flags & mark != 0
    }

    /// The direction that policy was asked about.
    const fn opening(&self) -> Direction {
        Direction::of_bit(self.flags as u32 >> decision_flags::OPENING_SHIFT)
    }
}

/// Judges a frame on the interface `ifindex`. `parsed` receives the headers, as
/// far as they could be read, for the report.
#[inline(always)]
pub fn judge<T: Subprograms, F: Frame>(
    tables: &T,
    frame: &F,
    direction: Direction,
    ifindex: u32,
    parsed: &mut ParsedFrame,
) -> Outcome {
    let read = read(frame, parsed);
    find_endpoint(tables, direction, ifindex, parsed);
    let mut room = MaybeUninit::uninit();
    *rule(tables, frame, parsed, read, &mut room)
}

/// Finds the endpoint of the interface, and completes `parsed` with it; the frame was [`read`] before.
#[inline(always)]
pub fn find_endpoint<T: Subprograms>(
    tables: &T,
    direction: Direction,
    ifindex: u32,
    parsed: &mut ParsedFrame,
) {
    // No endpoint's, unless all of it is found.
    parsed.endpoint.id = 0;
    let Some(control) = tables.control() else {
        return;
    };
    let bank = control.bank();
    let Some(interface) = tables.interface(ifindex) else {
        return;
    };
    let Some(endpoint) = tables.endpoint(interface.endpoint) else {
        return;
    };
    if endpoint.banks[bank].revision == 0 {
        return;
    }
    parsed.endpoint = EndpointRef {
        id: endpoint.id,
        slot: interface.endpoint,
        bank: bank as u32,
        netns: interface.netns,
        mac: octets(interface.mac),
        direction: direction as u8,
    };
    parsed.key.set(&parsed.packet, direction, endpoint.id);
}

/// Judges a frame that was [`read`] into `parsed`, after [`find_endpoint`]. `outcome` is room for what comes of
/// it, which is written once.
#[inline(always)]
pub fn rule<'o, T: Subprograms, F: Frame>(
    tables: &T,
    frame: &F,
    parsed: &ParsedFrame,
    read: Result<(), Reason>,
    outcome: &'o mut MaybeUninit<Outcome>,
) -> &'o Outcome {
    in_context(tables, parsed, outcome, |context| {
        let decision = match read {
            Ok(()) => rule_on(context, frame, parsed),
            Err(reason) => unread(context, parsed, reason),
        };
        Outcome {
            reason: decision.reason,
            passes: context.passes(&decision),
            opened: decision.is(decision_flags::OPENED),
            reply: decision.is(decision_flags::REPLY),
            rule: decision.rule,
            slot: parsed.endpoint.slot,
            endpoint: parsed.endpoint.id,
            policy_set: tables.policy_set_of(parsed, decision.opening(), decision.answer),
            generation: context.control.generation,
            sender: decision.sender,
            tc_index: match context.at.direction() {
                // What it forwards is not its own: policy sees the source address, and not the endpoint.
                Direction::Egress if !decision.is(decision_flags::BY_LEAVE) => {
                    let stamp = stamp(parsed.endpoint.slot, &parsed.packet.source);
                    context.control.stamp_on_wire(stamp)
                }
                _ => 0,
            },
        }
    })
}

/// Writes what comes of a frame, after [`find_endpoint`]: by `judge`, where the interface is an endpoint's.
#[inline(always)]
fn in_context<'o, T: Subprograms>(
    tables: &T,
    parsed: &ParsedFrame,
    outcome: &'o mut MaybeUninit<Outcome>,
    judge: impl FnOnce(&PolicyContext<'_, T>) -> Outcome,
) -> &'o Outcome {
    // Without its own control word nothing was ever configured: closed.
    let Some(control) = tables.control() else {
        return outcome.write(Outcome::default());
    };
    if parsed.endpoint.id == 0 {
        return outcome.write(unidentified(control));
    }
    match PolicyContext::find(tables, &parsed.endpoint) {
        Some(context) => outcome.write(judge(&context)),
        None => outcome.write(Outcome::default()),
    }
}

/// On an interface whose endpoint is not known.
#[inline(always)]
fn unidentified(control: &Control) -> Outcome {
    let flags = control.flags[control.bank()];
    let passes = flags & control_flags::UNIDENTIFIED_PASS != 0;
    Outcome {
        reason: if passes {
            Reason::UnidentifiedAllowed
        } else {
            Reason::Unidentified
        },
        passes: passes || flags & control_flags::AUDIT != 0,
        generation: control.generation,
        ..Outcome::default()
    }
}

/// The endpoint that a packet is judged for, as the tables say of the packet's interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointRef {
    /// The endpoint's number.
    pub id: u32,
    /// Its slot.
    pub slot: u32,
    /// The bank that is read.
    pub bank: u32,
    /// [`Interface::netns`]
    pub netns: u32,
    /// MAC address of the container's end.
    pub mac: [u8; 6],
    /// The endpoint's view, as a number.
    pub direction: u8,
}

impl EndpointRef {
    /// From the lowest bit, so that the verifier, too, knows that there are two.
    #[must_use]
    #[inline(always)]
    pub const fn direction(&self) -> Direction {
        Direction::of_bit(self.direction as u32)
    }
    /// Masked, so that indexing by it needs no bounds check: the kernel has no panic.
    const fn bank(&self) -> usize {
        (self.bank & 1) as usize
    }
}

/// A frame's headers, as far as they were read, with the endpoint that it is judged for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParsedFrame {
    /// The endpoint that it is judged for.
    pub endpoint: EndpointRef,
    /// Ethernet.
    pub ethernet: Ethernet,
    /// IPv4 or IPv6; version 0: neither.
    pub packet: Packet,
    /// How it came to the interface.
    pub arrival: Arrival,
    /// The connection that the packet would belong to.
    pub key: Key,
}

/// Reads the headers of a frame.
///
/// # Errors
/// Why they can't be read; `parsed` has them as far as they could.
#[inline(always)]
pub fn read<F: Frame>(frame: &F, parsed: &mut ParsedFrame) -> Result<(), Reason> {
    parsed.arrival = frame.arrival();
    parsed.ethernet = match packet::ethernet(frame) {
        Ok(ethernet) => ethernet,
        Err(reason) => {
            parsed.ethernet = Ethernet::default();
            parsed.packet = Packet::default();
            return Err(reason);
        }
    };
    match parsed.ethernet.ethertype {
        _ if frame.has_vlan_tag() => {}
        ethertype::IPV4 | ethertype::IPV6 => {
            return network(
                frame,
                packet::ETHERNET,
                parsed.ethernet.ethertype,
                false,
                &mut parsed.packet,
            );
        }
        _ => {}
    }
    // `parsed` may be another packet's: a report must not name that one's addresses.
    parsed.packet = Packet::default();
    match parsed.ethernet.ethertype {
        _ if frame.has_vlan_tag() => Err(Reason::Vlan),
        ethertype::ARP => {
            name_ends(frame, &mut parsed.packet);
            Ok(())
        }
        ethertype::VLAN | ethertype::QINQ => Err(Reason::Vlan),
        _ => Err(Reason::EtherType),
    }
}

/// Takes the sender's and the target's address of an ARP message, as it states them, for the report. It stays a packet of
/// no version.
#[inline(always)]
fn name_ends<F: Frame>(frame: &F, packet: &mut Packet) {
    if let Ok(message) = packet::arp(frame) {
        let in_sixteen = |address| u128::from(u32::from_ne_bytes(address)).to_ne_bytes();
        packet.source = in_sixteen(message.sender);
        packet.destination = in_sixteen(message.target);
    }
}

/// Reads the packet that an ICMP error is about, at `at`, as far as an error carries it.
#[inline(always)]
pub fn read_quoted<F: Frame>(frame: &F, at: usize, ethertype: u16, packet: &mut Packet) -> bool {
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

/// What can't be read can't be judged: an isolated endpoint neither sends nor gets it. Another
/// one may send it, but under its own name.
///
/// Not what the next hop would read otherwise than we can: a tag is taken off on the way (that
/// of VLAN 0 by any receiver, a port's own by a bridge that filters), and behind a long chain
/// of headers, or in the second fragment of one (RFC 7112), may stand a neighbour advertisement.
/// They would carry a lie past the checks of the sender, and, untagged, past those of the
/// receiver.
#[inline(always)]
fn unread<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    parsed: &ParsedFrame,
    reason: Reason,
) -> Decision {
    if context.isolated() {
        return Decision::new(reason);
    }
    if context.at.direction() == Direction::Egress {
        if parsed.ethernet.source != context.at.mac {
            return Decision::new(Reason::SpoofedMac);
        }
        if matches!(reason, Reason::Vlan | Reason::ExtensionHeaders) {
            return Decision::new(reason);
        }
        let packet = &parsed.packet;
        if packet.version == 6 && packet.piece as u8 == Piece::First as u8 {
            return Decision::new(reason);
        }
        if packet.version != 0 {
            let whose = addresses::whose(context, packet.version, &packet.source);
            if !whose.is_usable() {
                return Decision::new(Reason::SpoofedAddress);
            }
            if published::may_be_dialled(context, packet) {
                return Decision::new(reason).with(decision_flags::OF_TARGET, true);
            }
            return context
                .unless_isolated(reason)
                .with(decision_flags::BY_LEAVE, whose.is_by_leave());
        }
    }
    context.unless_isolated(reason)
}

#[inline(always)]
fn rule_on<T: Subprograms, F: Frame>(
    context: &PolicyContext<'_, T>,
    frame: &F,
    parsed: &ParsedFrame,
) -> Decision {
    if context.at.direction() == Direction::Egress && parsed.ethernet.source != context.at.mac {
        return Decision::new(Reason::SpoofedMac);
    }
    if parsed.packet.piece == Piece::Later {
        let later = context.tables.later_fragment(parsed);
        let reason = match later.reason() {
            // Asked from here, and not from there: calls within calls share one stack.
            Reason::FragmentEarly if !policy::some_port(context, parsed) => {
                Reason::FragmentWithoutFirst
            }
            reason => reason,
        };
        return Decision::new(reason).with(decision_flags::BY_LEAVE, later.is_by_leave());
    }
    let is_arp = parsed.ethernet.ethertype == ethertype::ARP;
    if (is_arp || parsed.packet.may_concern_link())
        && let Some(reason) = context.tables.link_control(frame, parsed)
    {
        return Decision::new(reason);
    }
    let decision = track::connection(context, frame, parsed);
    if parsed.packet.piece == Piece::First {
        // What only audit lets through is denied to the others too, so that each is reported; what
        // audited policies alone deny is not, as enforced ones decide about the others.
        let allowed = decision.reason.allows() || decision.is(decision_flags::AUDITED);
        context.tables.first_fragment(parsed, allowed);
    }
    decision
}
