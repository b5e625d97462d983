//! What policy says of a connection: which end is the peer, what do the policy sets of the endpoint say.

use super::{
    Decision, ParsedFrame, PolicyContext, Subprograms,
    answer::{Answer, Question},
    decision_flags, published,
    rules::{SOME_PORT, has_ports},
    sender::{self, Peer, Sender, SenderKind},
};
use crate::{
    packet::Direction,
    reason::Reason,
    tables::{NOT_ISOLATED, OWNER_HOST, VerdictKey, control_flags},
};

/// What policy says of the packet's connection, if it was opened in `opening` (which differs from the
/// packet's own direction when a known connection is judged again by one of its replies).
///
/// What the policies that are audited alone would deny is ruled so, and marked.
#[inline(always)]
pub(super) fn policy<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    opening: Direction,
    parsed: &ParsedFrame,
) -> Decision {
    decision(context, opening, parsed, Question::new(opening, false))
}

/// The same for the reply of a connection that a peer opened: the opener is remembered with it.
#[inline(always)]
pub(super) fn policy_for<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    opening: Direction,
    parsed: &ParsedFrame,
    sender: Sender,
) -> Decision {
    decision(context, opening, parsed, Question::about(opening, sender))
}

#[inline(always)]
fn decision<T: Subprograms>(
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
pub fn policy_set_of<T: Subprograms>(
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
pub(super) fn some_port<T: Subprograms>(
    context: &PolicyContext<'_, T>,
    parsed: &ParsedFrame,
) -> bool {
    let question = Question::new(context.at.direction(), true);
    let answer = context.tables.ask(parsed, question);
    answer.reason().allows() || answer.is_audited()
}

/// What policy says of the packet in `parsed`: the endpoint's own, and where it dials a port that an engine publishes for
/// another container, also that container's.
#[inline(always)]
pub fn answer<T: Subprograms>(tables: &T, parsed: &ParsedFrame, question: Question) -> Answer {
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
pub fn answer_of_own<T: Subprograms>(
    tables: &T,
    parsed: &ParsedFrame,
    question: Question,
) -> Answer {
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
fn of_policy_set<T: Subprograms>(
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
