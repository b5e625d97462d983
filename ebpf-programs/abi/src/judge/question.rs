//! Questions for names that a container asks its engine.
//!
//! Docker's resolver is a socket at 127.0.0.11 in the container's network namespace, and may pass a question on from the
//! host's. So a question is judged on its way to that socket, at the container's own loopback interface:
//!
//! ```text
//!  process ─▶ 127.0.0.11:53 ─▶ the engine's NAT rule ─▶ 127.0.0.11:PORT ─▶ lo [here] ─▶ the engine ─▶ the host's resolver
//! ```
//!
//! By then it has a port that only the engine knows, so all that is sent to the address counts as a question to port 53.
//! What policy says of it stands with the endpoint ([`crate::tables::EndpointBank::asks`]): the compiler looks up what
//! the endpoint's policy set says of the peer `kube-dns` and of the resolvers that the engine asks.
//!
//! Nothing is remembered: the policy in force judges each packet, so a change holds for the next one. Answers have the
//! address as their source, and pass, as everything else on the interface does.

use core::mem::MaybeUninit;

use super::{
    Decision, Outcome, ParsedFrame, PolicyContext, Subprograms, decision_flags, find_endpoint,
    in_context,
};
use crate::{
    packet::{Direction, Packet, Piece, protocol, tcp},
    reason::Reason,
    tables::{ASKS_PASS, NOT_ISOLATED, RULE_DEFAULT, asks_index},
};

/// Where Docker's resolver is in each container, in network order: it has had this address since it exists, and no
/// setting of an engine changes it (`resolverIPSandbox` of its libnetwork).
pub const RESOLVER: [u8; 4] = [127, 0, 0, 11];

/// The port that a question counts for.
const PORT: u16 = 53;

/// Finds the endpoint of the loopback interface, and completes `parsed` with it; the packet was [`super::read`] before.
#[inline(always)]
pub fn find_asking_endpoint<T: Subprograms>(tables: &T, number: u32, parsed: &mut ParsedFrame) {
    find_endpoint(tables, Direction::Egress, number, parsed);
    parsed.packet.destination_port = PORT;
}

/// Judges a packet to [`RESOLVER`] that was [`super::read`], after [`find_asking_endpoint`]; TCP and UDP alone lead to the
/// engine. `outcome` is room for what comes of it, which is written once.
#[inline(always)]
pub fn question<'o, T: Subprograms>(
    tables: &T,
    parsed: &ParsedFrame,
    read: Result<(), Reason>,
    outcome: &'o mut MaybeUninit<Outcome>,
) -> &'o Outcome {
    in_context(tables, parsed, outcome, |context| {
        let (decision, policy_set) = match read {
            Ok(()) => rule_on(context, &parsed.packet),
            Err(reason) => (context.unless_isolated(reason), 0),
        };
        Outcome {
            reason: decision.reason,
            passes: context.passes(&decision),
            opened: decision.reason.allows() && opens(&parsed.packet),
            rule: decision.rule,
            slot: parsed.endpoint.slot,
            endpoint: parsed.endpoint.id,
            policy_set,
            generation: context.control.generation,
            ..Outcome::default()
        }
    })
}

#[inline(always)]
fn rule_on<T: Subprograms>(context: &PolicyContext<'_, T>, packet: &Packet) -> (Decision, u64) {
    let is_tcp = packet.protocol == protocol::TCP;
    let policy_set = context.policy_set(Direction::Egress);
    let audited = context.audited_policy_set(Direction::Egress);
    let in_force = policy(policy_set, context.policy.asks[asks_index(is_tcp, false)]);
    if audited == policy_set || !in_force.0.reason.allows() {
        return in_force;
    }
    let if_enforced = policy(audited, context.policy.asks[asks_index(is_tcp, true)]);
    if if_enforced.0.reason.allows() {
        return in_force;
    }
    (
        if_enforced.0.with(decision_flags::AUDITED, true),
        if_enforced.1,
    )
}

/// What a policy set says by this word of [`crate::tables::EndpointBank::asks`], and the policy set where a rule of it, or none,
/// decides.
#[inline(always)]
const fn policy(policy_set: u64, word: u32) -> (Decision, u64) {
    if policy_set == NOT_ISOLATED {
        return (Decision::new(Reason::NotIsolated), 0);
    }
    if word >= ASKS_PASS && word != RULE_DEFAULT {
        const ITSELF: u8 = Reason::Itself as u8;
        // Of reasons that need no rule there are two.
        let reason = match word as u8 {
            ITSELF => Reason::Itself,
            _ => Reason::Host,
        };
        return (Decision::new(reason), 0);
    }
    let reason = if word == 0 {
        Reason::PolicyDenied
    } else {
        Reason::RuleAllowed
    };
    let decision = Decision {
        rule: word,
        ..Decision::new(reason)
    };
    (decision, policy_set)
}

/// Does it begin a question? A datagram is one; TCP begins with a SYN.
#[inline(always)]
const fn opens(packet: &Packet) -> bool {
    let is_later = matches!(packet.piece, Piece::Later);
    !is_later && (packet.protocol != protocol::TCP || packet.tcp_flags & tcp::STATEFUL == tcp::SYN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_a_rule_or_why_none_is_needed() {
        let policy = |policy_set, word| {
            let (decision, policy_set) = policy(policy_set, word);
            (decision.reason, decision.rule, policy_set)
        };
        assert_eq!(policy(0, 0), (Reason::NotIsolated, 0, 0));
        assert_eq!(policy(20, 0), (Reason::PolicyDenied, 0, 20));
        assert_eq!(policy(20, 7), (Reason::RuleAllowed, 7, 20));
        let default = (Reason::RuleAllowed, RULE_DEFAULT, 20);
        assert_eq!(policy(20, RULE_DEFAULT), default);
        let host = ASKS_PASS | Reason::Host as u32;
        assert_eq!(policy(20, host), (Reason::Host, 0, 0));
        let itself = ASKS_PASS | Reason::Itself as u32;
        assert_eq!(policy(20, itself), (Reason::Itself, 0, 0));
    }
}
