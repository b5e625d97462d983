//! From addresses and ports to a verdict: who is the peer, what does the policy set say.

use super::{
    Decision, ParsedFrame, PolicyContext, Tables, decision_flags, published,
    sender::{self, Peer, Sender, SenderKind},
};
use crate::{
    limits::{BLOCK_RANGES, INLINE_RANGES, MAX_BLOCKS},
    packet::{Direction, protocol},
    reason::Reason,
    tables::{
        AddressBank, CLASS_ANY, CLASS_UNLISTED, LEAVE_CLAIMS, NOT_ISOLATED, OWNER_HOST, PortRange,
        VerdictKey, control_flags, leave_holder,
    },
};

/// The first four octets: where an IPv4 address stands.
#[inline(always)]
pub(super) const fn v4(address: &[u8; 16]) -> [u8; 4] {
    let [a, b, c, d, ..] = *address;
    u32::from_ne_bytes([a, b, c, d]).to_ne_bytes()
}

/// Number of the endpoint that owns the address in this bank; 0: none.
#[inline(always)]
pub(super) fn owner<T: Tables>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> u32 {
    listed_owner(context, version, address).unwrap_or_default()
}

/// Does the address belong to the endpoint itself?
#[inline(always)]
pub(super) fn is_own<T: Tables>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> bool {
    owner(context, version, address) == context.at.id
}

/// Whose an address is, as an endpoint sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Whose {
    /// The endpoint's own.
    Own = 0,
    /// No owner on this host, and the endpoint may use it by leave.
    ByLeave = 1,
    /// Another owner's.
    Others = 2,
}

impl Whose {
    /// May the endpoint use it?
    #[inline(always)]
    pub const fn is_usable(self) -> bool {
        self as u8 != Self::Others as u8
    }
    #[inline(always)]
    pub const fn is_by_leave(self) -> bool {
        self as u8 == Self::ByLeave as u8
    }
}

/// Whose the address is. A leave gives nothing that has an owner: it is looked up for strangers' addresses alone.
#[inline(always)]
pub(super) fn whose<T: Tables>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> Whose {
    let holder = match listed_owner(context, version, address) {
        Some(owner) if owner == context.at.id => return Whose::Own,
        Some(_) => 0,
        None => leave_holder(leave_word(context, version, address)),
    };
    if holder == context.at.id {
        Whose::ByLeave
    } else {
        Whose::Others
    }
}

/// May the endpoint say in ARP and neighbour discovery that it has the address?
#[inline(always)]
pub(super) fn may_claim<T: Tables>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> bool {
    match listed_owner(context, version, address) {
        Some(owner) => owner == context.at.id,
        None => leave_word(context, version, address) == context.at.id | LEAVE_CLAIMS,
    }
}

/// The entry of an address in the table of exact addresses, if it counts in this bank.
#[inline(always)]
pub(super) fn listed<T: Tables>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> Option<AddressBank> {
    let entry = if version == 4 {
        context.tables.address4(&v4(address), context.bank())
    } else {
        context.tables.address6(address, context.bank())
    }?;
    (entry.class != CLASS_UNLISTED).then_some(entry)
}

/// The owner that stands in the table of exact addresses in this bank; `None`: the address is not there.
#[inline(always)]
fn listed_owner<T: Tables>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> Option<u32> {
    if version == 4 {
        context.tables.owner4(&v4(address), context.bank())
    } else {
        context.tables.owner6(address, context.bank())
    }
}

/// What the endpoint's leave for an address says in this bank; 0: there is none.
#[inline(always)]
fn leave_word<T: Tables>(context: &PolicyContext<'_, T>, version: u8, address: &[u8; 16]) -> u32 {
    let [high, low] = halves(address);
    let words = context.tables.leave(context.at.slot, version, high, low);
    (if context.bank() == 0 {
        words
    } else {
        words >> 32
    }) as u32
}

/// The address as two numbers.
#[inline(always)]
const fn halves(address: &[u8; 16]) -> [u64; 2] {
    let whole = u128::from_be_bytes(*address);
    [(whole >> 64) as u64, whole as u64]
}

/// The words of the longest prefix with the address that the endpoint in this slot has leave for, bank 0 in the
/// lower half; 0: none. The address comes as two numbers, IPv4 in the upper half of the first, as the programs make this
/// a global function.
///
/// Addresses that are no single host's beyond the link (this network, loopback, link-local, multicast, reserved) are
/// given by none, however short its prefix.
#[inline(always)]
pub fn leave<T: Tables>(tables: &T, slot: u32, version: u32, high: u64, low: u64) -> u64 {
    let found = if version == 4 {
        let first = high >> 56;
        if matches!(first, 0 | 127 | 224..) || high >> 48 == 0xa9fe {
            return 0;
        }
        tables.leave4(slot, (high >> 32) as u32)
    } else {
        let is_none_or_loopback = high == 0 && low <= 1;
        if is_none_or_loopback || high >> 56 == 0xff || high >> 54 == 0xfe80 >> 6 {
            return 0;
        }
        tables.leave6(slot, high, low)
    };
    match found {
        Some(leave) => u64::from(leave.words[0]) | u64::from(leave.words[1]) << 32,
        None => 0,
    }
}

/// Slot of the endpoint of this host that has the address; 0: none has.
#[inline(always)]
pub(super) fn slot_of<T: Tables>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> u32 {
    match listed(context, version, address) {
        Some(entry) => entry.slot,
        None => 0,
    }
}

/// What policy says of the packet's connection, if it was opened in `opening` (which differs from the
/// packet's own direction when a known connection is judged again by one of its replies).
///
/// What the policies that are audited alone would deny is ruled so, and marked.
#[inline(always)]
pub(super) fn policy<T: Tables>(
    context: &PolicyContext<'_, T>,
    opening: Direction,
    parsed: &ParsedFrame,
) -> Decision {
    decision(context, opening, parsed, Question::new(opening, false))
}

/// The same for the reply of a connection that a peer opened: who that was is remembered with it.
#[inline(always)]
pub(super) fn policy_for<T: Tables>(
    context: &PolicyContext<'_, T>,
    opening: Direction,
    parsed: &ParsedFrame,
    sender: Sender,
) -> Decision {
    decision(context, opening, parsed, Question::about(opening, sender))
}

#[inline(always)]
fn decision<T: Tables>(
    context: &PolicyContext<'_, T>,
    opening: Direction,
    parsed: &ParsedFrame,
    question: Question,
) -> Decision {
    let answer = context.tables.ask(parsed, question);
    Decision {
        rule: answer.rule(),
        answer,
        sender: answer.sender(),
        flags: answer.flags() | (opening as u8) << decision_flags::OPENING_SHIFT,
        ..Decision::new(answer.reason())
    }
}

/// The policy set that has given this answer; 0: none was asked. Apart, and not where it is needed: the verifier looks at it once,
/// and not again on each path that leads there.
#[inline(always)]
pub fn policy_set_of<T: Tables>(
    tables: &T,
    parsed: &ParsedFrame,
    opening: Direction,
    answer: Answer,
) -> u64 {
    if answer.is_of_target() {
        return published::policy_set(tables, parsed, opening, answer.is_audited());
    }
    let Some(context) = PolicyContext::find(tables, &parsed.endpoint) else {
        return 0;
    };
    match answer.reason() {
        Reason::RuleAllowed | Reason::PolicyDenied if answer.is_audited() => {
            context.audited_policy_set(opening)
        }
        Reason::RuleAllowed | Reason::PolicyDenied => context.policy_set(opening),
        _ => 0,
    }
}

/// Does policy allow some port of the packet's protocol in its own direction?
#[inline(always)]
pub(super) fn some_port<T: Tables>(context: &PolicyContext<'_, T>, parsed: &ParsedFrame) -> bool {
    let question = Question::new(context.at.direction(), true);
    let answer = context.tables.ask(parsed, question);
    answer.reason().allows() || answer.is_audited()
}

/// What is asked of policy about a packet, as a number: in bit 0 the direction in which its
/// connection was opened, in bit 1 whether any port of its protocol will do, and in bit 2 whether the sender is
/// known already: its kind in bits 3 and 4 then, and its stamp from bit 16 on.
#[derive(Clone, Copy, Debug)]
pub struct Question(pub u32);

impl Question {
    /// Of what the endpoint dials.
    pub(super) const DIALLED: Self = Self::new(Direction::Egress, false);

    const KNOWN_SENDER: u32 = 1 << 2;
    const KIND_SHIFT: u32 = 3;

    const fn new(opening: Direction, some_port: bool) -> Self {
        Self(opening as u32 | (some_port as u32) << 1)
    }
    const fn about(opening: Direction, sender: Sender) -> Self {
        Self(
            opening as u32
                | Self::KNOWN_SENDER
                | (sender.kind() as u32) << Self::KIND_SHIFT
                | sender.stamp() << 16,
        )
    }
    /// The sender that is known already.
    const fn sender(self) -> Option<Sender> {
        if self.0 & Self::KNOWN_SENDER == 0 {
            return None;
        }
        Some(Sender(
            self.0 >> Self::KIND_SHIFT & 3 | self.0 & 0xffff_0000,
        ))
    }
    pub(super) const fn opening(self) -> Direction {
        Direction::of_bit(self.0)
    }
    pub(super) const fn some_port(self) -> bool {
        self.0 & 2 != 0
    }
}

/// What policy answers: the rule in the lower half, the reason's number above it, in bit 40
/// whether the answer is one of audited policies, in bits 41 and 42 the kind of the [`Sender`], in bit 43 whether it is the
/// answer of the container behind a published port, and from bit 48 on the sender's stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer(pub u64);

impl Answer {
    /// No policy was asked.
    pub(super) const NONE: Self = Self::new(Reason::NotIsolated, 0);

    const AUDITED: u64 = 1 << 40;
    const KIND_SHIFT: u32 = 41;
    const OF_TARGET: u64 = 1 << 43;
    const STAMP_SHIFT: u32 = 48;

    pub(super) const fn new(reason: Reason, rule: u32) -> Self {
        Self((reason as u64) << 32 | rule as u64)
    }
    /// That of a container behind a published port, which denies. `audited`: it drops nothing.
    pub(super) const fn of_target(audited: bool) -> Self {
        let denied = Self::new(Reason::PolicyDenied, 0);
        Self(denied.0 | Self::OF_TARGET | if audited { Self::AUDITED } else { 0 })
    }
    const fn about(self, sender: Sender) -> Self {
        Self(
            self.0
                | (sender.kind() as u64) << Self::KIND_SHIFT
                | (sender.stamp() as u64) << Self::STAMP_SHIFT,
        )
    }
    const fn sender(self) -> Sender {
        let kind = (self.0 >> Self::KIND_SHIFT) as u32 & 3;
        Sender(kind | ((self.0 >> Self::STAMP_SHIFT) as u32) << 16)
    }
    const fn rule(self) -> u32 {
        self.0 as u32
    }
    const fn is_audited(self) -> bool {
        self.0 & Self::AUDITED != 0
    }
    /// Is it a denial that counts?
    pub(super) const fn denies(self) -> bool {
        !self.reason().allows() && !self.is_audited()
    }
    const fn is_of_target(self) -> bool {
        self.0 & Self::OF_TARGET != 0
    }
    /// [`decision_flags`], without a branch.
    const fn flags(self) -> u8 {
        let audited = (self.0 >> 40 & 1) as u8 * decision_flags::AUDITED;
        let of_target = (self.0 >> 43 & 1) as u8 * decision_flags::OF_TARGET;
        audited | of_target
    }
    /// Only these are given; whatever else it is denies.
    const fn reason(self) -> Reason {
        const NOT_ISOLATED: u8 = Reason::NotIsolated as u8;
        const RULE_ALLOWED: u8 = Reason::RuleAllowed as u8;
        const HOST: u8 = Reason::Host as u8;
        const ITSELF: u8 = Reason::Itself as u8;
        const FORGED_SOURCE: u8 = Reason::ForgedSource as u8;
        match (self.0 >> 32) as u8 {
            NOT_ISOLATED => Reason::NotIsolated,
            RULE_ALLOWED => Reason::RuleAllowed,
            HOST => Reason::Host,
            ITSELF => Reason::Itself,
            FORGED_SOURCE => Reason::ForgedSource,
            _ => Reason::PolicyDenied,
        }
    }
}

/// What policy says of the packet in `parsed`: the endpoint's own, and where it dials a port that an engine publishes for
/// another container, also that container's.
#[inline(always)]
pub fn answer<T: Tables>(tables: &T, parsed: &ParsedFrame, question: Question) -> Answer {
    let own = tables.ask_own(parsed, question);
    if question.opening() as u8 != Direction::Egress as u8 || !has_ports(parsed.packet.protocol) {
        return own;
    }
    let is_let_through = own.reason().allows()
        || own.is_audited()
        || match PolicyContext::find(tables, &parsed.endpoint) {
            Some(context) => context.audits(),
            None => false,
        };
    if question.some_port() || !is_let_through {
        return own;
    }
    let other = tables.ask_target(parsed, question);
    if other.reason().allows() || (other.is_audited() && !own.reason().allows()) {
        return own;
    }
    other
}

/// What the endpoint's own policies say of it.
#[inline(always)]
pub fn answer_of_own<T: Tables>(tables: &T, parsed: &ParsedFrame, question: Question) -> Answer {
    let (packet, opening) = (&parsed.packet, question.opening());
    let Some(context) = PolicyContext::find(tables, &parsed.endpoint) else {
        return Answer::new(Reason::PolicyDenied, 0);
    };
    let sender = match question.sender() {
        Some(known) => known,
        // What the endpoint opens is judged by where it sends it.
        None if opening as u8 == Direction::Egress as u8 => Sender::UNASKED,
        // On the endpoint's own word the peer opened it, and no packet of the peer's is at hand.
        None if context.at.direction() as u8 == Direction::Egress as u8 => Sender::UNASKED,
        None => sender::find(&context, parsed),
    };
    let (policy_set, audited) = (
        context.policy_set(opening),
        context.audited_policy_set(opening),
    );
    if policy_set == NOT_ISOLATED && audited == NOT_ISOLATED {
        return Answer::new(Reason::NotIsolated, 0).about(sender);
    }
    let peer = match context.at.direction() {
        Direction::Egress => &packet.destination,
        Direction::Ingress => &packet.source,
    };
    // The port of the end that did not open; protocols without ports have none.
    let port = if question.some_port() {
        SOME_PORT
    } else if !has_ports(packet.protocol) {
        0
    } else if opening as u8 == context.at.direction() as u8 {
        packet.destination_port.into()
    } else {
        packet.source_port.into()
    };
    if sender.kind() as u8 == SenderKind::Forged as u8 {
        let forged = Answer::new(Reason::ForgedSource, 0).about(sender);
        return if policy_set == NOT_ISOLATED {
            Answer(forged.0 | Answer::AUDITED)
        } else {
            forged
        };
    }
    let peer = sender::peer(&context, packet.version, peer, sender);
    let in_force = of_policy_set(&context, opening, policy_set, peer, packet.protocol, port);
    if audited == policy_set || !in_force.reason().allows() {
        return in_force.about(sender);
    }
    let if_enforced = of_policy_set(&context, opening, audited, peer, packet.protocol, port);
    if if_enforced.reason().allows() {
        return in_force.about(sender);
    }
    Answer(if_enforced.0 | Answer::AUDITED).about(sender)
}

#[inline(always)]
fn of_policy_set<T: Tables>(
    context: &PolicyContext<'_, T>,
    opening: Direction,
    policy_set: u64,
    peer: Peer,
    protocol: u8,
    port: u32,
) -> Answer {
    if policy_set == NOT_ISOLATED {
        return Answer::new(Reason::NotIsolated, 0);
    }
    if peer.owner == context.at.id {
        return Answer::new(Reason::Itself, 0);
    }
    let host_passes = match opening {
        Direction::Ingress => control_flags::HOST_INGRESS,
        Direction::Egress => control_flags::HOST_EGRESS,
    };
    if peer.owner == OWNER_HOST && context.flags() & host_passes != 0 {
        return Answer::new(Reason::Host, 0);
    }
    let key = VerdictKey {
        policy_set,
        class: peer.class,
    };
    match context.tables.find_rule(&key, protocol, port) {
        0 => Answer::new(Reason::PolicyDenied, 0),
        rule => Answer::new(Reason::RuleAllowed, rule),
    }
}

/// Stands for a port in [`find_rule`]: is there any that some rule allows?
pub const SOME_PORT: u32 = 1 << 16;

/// The rule of `policy_set` that allows a peer of `class` this protocol and port, or [`SOME_PORT`]; 0:
/// none.
#[inline(always)]
pub fn find_rule<T: Tables>(
    tables: &T,
    policy_set: u64,
    class: u64,
    protocol: u8,
    port: u32,
) -> u32 {
    let entry = match tables.verdict(&VerdictKey { policy_set, class }) {
        Some(entry) => entry,
        // No rule names this class: those for any peer are left.
        None => match tables.verdict(&VerdictKey {
            policy_set,
            class: CLASS_ANY,
        }) {
            Some(entry) => entry,
            None => return 0,
        },
    };
    let mut index = 0;
    while index < INLINE_RANGES {
        if index >= entry.len as usize {
            break;
        }
        let range = &entry.ranges[index];
        if holds(range, protocol, port) {
            return decided(range);
        }
        index += 1;
    }
    if entry.spill == 0 {
        return entry.other;
    }
    match tables.search_blocks(entry.spill, protocol, port) {
        NOT_LISTED => entry.other,
        rule => rule,
    }
}

/// [`search_blocks`] found no range that holds the port.
pub const NOT_LISTED: u32 = u32::MAX - 1;

/// Looks through spilled blocks: the rule that allows, 0 where a rule denies or the chain is
/// broken (what it would have said is unknown), or [`NOT_LISTED`].
///
/// One range after the other: a search by halves is a tree of paths to the kernel's
/// verifier, and long lists are rare. Plain numbers in and out: the programs make it a
/// global function, which is verified once and not again on each path that leads to it.
#[inline(always)]
pub fn search_blocks<T: Tables>(tables: &T, spill: u64, protocol: u8, port: u32) -> u32 {
    let mut next = spill;
    let mut walked = 0;
    while walked < MAX_BLOCKS {
        let Some(block) = tables.port_block(next) else {
            return 0;
        };
        let mut index = 0;
        while index < BLOCK_RANGES {
            if index >= block.len as usize {
                break;
            }
            let range = &block.ranges[index];
            if holds(range, protocol, port) {
                return decided(range);
            }
            index += 1;
        }
        next = block.next;
        if next == 0 {
            return NOT_LISTED;
        }
        walked += 1;
    }
    0
}

#[inline(always)]
const fn holds(range: &PortRange, protocol: u8, port: u32) -> bool {
    range.protocol == protocol
        && if port == SOME_PORT {
            range.deny == 0
        } else {
            range.first as u32 <= port && port <= range.last as u32
        }
}

#[inline(always)]
const fn decided(range: &PortRange) -> u32 {
    if range.deny != 0 { 0 } else { range.rule }
}

/// Has this protocol ports that rules can name?
#[inline(always)]
pub(super) const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
}
