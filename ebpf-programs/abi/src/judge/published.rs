//! Ports that engines publish: an endpoint that dials an address of its host there may be dialling a container.
//!
//! ```text
//!  endpoint A ─▶ [egress: B's policy, with A as the peer] ─▶ docker-proxy, a process of the host ─▶ [ingress: the host] ─▶ B
//! ```
//!
//! Where a rule of the host translates the destination instead, the packet keeps its stamp, and B's own hook
//! says the same once more. Behind a process that relays, B sees the host alone, so it is A's hook that asks, when A opens
//! the connection and whenever it is judged again. The answer is what B's own would be, had A's address been kept.

use super::{
    ParsedFrame, PolicyContext, Subprograms, addresses,
    answer::{Answer, Question},
    sender,
};
use crate::{
    packet::{Direction, Packet, protocol},
    reason::Reason,
    tables::{
        CLASS_UNLISTED, NOT_ISOLATED, OWNER_HOST, PublishedBank, VerdictKey, control_flags,
        published_flags, service,
    },
};

/// The answer of the container that the endpoint in `parsed` dials by a published port: a denial, or no objection, as of one
/// which is not isolated.
#[inline(always)]
pub fn answer_of_target<T: Subprograms>(
    tables: &T,
    parsed: &ParsedFrame,
    question: Question,
) -> Answer {
    let Some(context) = &PolicyContext::find(tables, &parsed.endpoint) else {
        return Answer::new(Reason::PolicyDenied, 0);
    };
    let Some(policy) = find(context, parsed, question.opening()) else {
        return Answer::NONE;
    };
    if policy.id == context.at.id {
        // Its own port.
        return Answer::NONE;
    }
    let packet = &parsed.packet;
    let class = tables.class_of_own(parsed);
    let allows = |policy_set| {
        let key = VerdictKey { policy_set, class };
        policy_set == NOT_ISOLATED
            || tables.find_rule(&key, packet.protocol, policy.port.into()) != 0
    };
    if !allows(policy.ingress) {
        return Answer::of_target(policy.flags & published_flags::AUDIT != 0);
    }
    if policy.audited_ingress != policy.ingress && !allows(policy.audited_ingress) {
        return Answer::of_target(true);
    }
    Answer::NONE
}

/// The class of the endpoint's address in a packet, as its peers see it.
#[inline(always)]
pub fn class_of_own<T: Subprograms>(tables: &T, parsed: &ParsedFrame) -> u64 {
    let Some(context) = &PolicyContext::find(tables, &parsed.endpoint) else {
        return CLASS_UNLISTED;
    };
    let own = addresses::local(&parsed.packet, context.at.direction());
    sender::classify(context, parsed.packet.version, own).class
}

/// May a packet that can't be read be one to a published port? The receiver's own hook would see it whole, once its pieces are
/// together; a process of the host takes it there.
#[inline(always)]
pub(super) fn may_be_dialled<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    packet: &Packet,
) -> bool {
    context.flags() & control_flags::PUBLISHES != 0
        && (packet.to_group() || is_host(context, packet.version, &packet.destination))
}

/// The policy set of that container which denies: the one in force, or the one as if all its policies were; 0: none.
#[inline(always)]
pub(super) fn policy_set<T: Subprograms>(
    tables: &T,
    parsed: &ParsedFrame,
    opening: Direction,
    audited: bool,
) -> u64 {
    let Some(context) = &PolicyContext::find(tables, &parsed.endpoint) else {
        return 0;
    };
    match find(context, parsed, opening) {
        // Of a container whose policies are all in force, and which is only audited itself, both are the same.
        Some(policy) if audited => policy.audited_ingress,
        Some(policy) => policy.ingress,
        None => 0,
    }
}

/// Which entry speaks for the port that the endpoint opens a connection to; a number, as the parts of a verdict speak in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Dialled {
    /// None: it is not published.
    Nothing = 0,
    /// The one for all addresses.
    Everywhere = 1,
    /// That of the address itself.
    ByAddress = 2,
}

impl Dialled {
    /// The one with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Everywhere,
            2 => Self::ByAddress,
            _ => Self::Nothing,
        }
    }
}

/// The end that the endpoint opens a connection to.
#[inline(always)]
fn far(parsed: &ParsedFrame) -> (&[u8; 16], u16) {
    let packet = &parsed.packet;
    match parsed.endpoint.direction() {
        Direction::Egress => (&packet.destination, packet.destination_port),
        Direction::Ingress => (&packet.source, packet.source_port),
    }
}

/// What the bank that is read has there.
#[inline(always)]
fn find<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    parsed: &ParsedFrame,
    opening: Direction,
) -> Option<PublishedBank> {
    let (address, port) = far(parsed);
    let packet = &parsed.packet;
    let service = service(packet.version, packet.protocol, port);
    match context.tables.dialled(parsed, opening) {
        Dialled::Nothing => None,
        Dialled::Everywhere => entry(context, EVERYWHERE, service),
        Dialled::ByAddress => entry(context, halves(packet, address), service),
    }
}

/// Which entry speaks for the port that the endpoint opens a connection to?
#[inline(always)]
pub fn dialled<T: Subprograms>(tables: &T, parsed: &ParsedFrame, opening: Direction) -> Dialled {
    let packet = &parsed.packet;
    let Some(context) = &PolicyContext::find(tables, &parsed.endpoint) else {
        return Dialled::Nothing;
    };
    if opening as u8 != Direction::Egress as u8 {
        return Dialled::Nothing;
    }
    let (address, port) = far(parsed);
    let own = service(packet.version, packet.protocol, port);
    // Most ports are not published: one look-up, whatever the address.
    let Some(everywhere) = entry(context, EVERYWHERE, own) else {
        return Dialled::Nothing;
    };
    let flags = everywhere.flags;
    if flags & published_flags::BY_ADDRESS != 0 && is_listed(context, halves(packet, address), own)
    {
        return Dialled::ByAddress;
    }
    if flags & published_flags::LISTED == 0 {
        return Dialled::Nothing;
    }
    if is_host(context, packet.version, address) {
        return Dialled::Everywhere;
    }
    // A socket that is bound to all addresses also hears datagrams for every host on the link.
    let is_sent = context.at.direction() as u8 == Direction::Egress as u8;
    let of_link = service(packet.version, 0, 0);
    if packet.protocol == protocol::UDP
        && is_sent
        && (packet.to_group() || is_listed(context, halves(packet, address), of_link))
    {
        return Dialled::Everywhere;
    }
    Dialled::Nothing
}

/// In the place of an address: all of them.
const EVERYWHERE: [u64; 2] = [0; 2];

/// The address of a key, by halves: the programs have no room for a key on their stack.
#[inline(always)]
const fn halves(packet: &Packet, address: &[u8; 16]) -> [u64; 2] {
    const { assert!(cfg!(target_endian = "little")) };
    let whole = u128::from_ne_bytes(*address);
    if packet.version == 4 {
        [whole as u32 as u64, 0]
    } else {
        [whole as u64, (whole >> 64) as u64]
    }
}

#[inline(always)]
fn entry<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    [first, second]: [u64; 2],
    service: u32,
) -> Option<PublishedBank> {
    context
        .tables
        .published(first, second, service, context.bank())
}

/// Does the bank that is read list this?
#[inline(always)]
fn is_listed<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    address: [u64; 2],
    service: u32,
) -> bool {
    match entry(context, address, service) {
        Some(policy) => policy.flags & published_flags::LISTED != 0,
        None => false,
    }
}

/// Is the address the host's? Also each loopback address: what an endpoint sends there, the host alone can take, and does
/// where `route_localnet` is set.
#[inline(always)]
fn is_host<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    version: u8,
    address: &[u8; 16],
) -> bool {
    if version == 4 && address[0] == 127 {
        return true;
    }
    match addresses::listed(context, version, address) {
        Some(entry) => entry.owner == OWNER_HOST,
        None => false,
    }
}
