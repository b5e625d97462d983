//! What is said of a packet that was judged: the counter that it moves, whether it is reported,
//! the endpoint's budget of reports, and what a record holds.
//!
//! Called after [`crate::judge`] by the TC programs, which write to the per-CPU counters and
//! the ring, and by the model, which keeps both in memory. Nothing here changes a verdict.

use crate::{
    bytes::{octets, words},
    event::{Event, Kind},
    judge::{Outcome, ParsedFrame},
    limits::EVENTS_PER_TICK,
    packet::Direction,
    reason::Reason,
    tables::Usage,
};

/// Where in `COUNTERS` the packets of this reason and direction are counted.
#[must_use]
#[inline(always)]
pub const fn counter(reason: Reason, direction: Direction) -> u32 {
    (reason as u32) * 2 + direction as u32
}

/// What a report of the packet says; `None`: it is not reported. First packets of connections
/// are, and all that policy does not allow, whether or not it passes.
#[must_use]
#[inline(always)]
pub const fn kind(outcome: &Outcome) -> Option<Kind> {
    if outcome.opened {
        Some(Kind::Opened)
    } else if outcome.reason.allows() {
        None
    } else if outcome.passes {
        Some(Kind::Audited)
    } else {
        Some(Kind::Dropped)
    }
}

/// Takes one report from what the endpoint may send in this tick; false: nothing is left. New
/// connections and drops have a budget each, so that a flood of drops hides no connection.
#[must_use]
#[inline(always)]
pub const fn spend(usage: &mut Usage, kind: Kind, tick: u32) -> bool {
    if usage.tick != tick {
        usage.tick = tick;
        usage.drops = 0;
        usage.opens = 0;
    }
    let spent = match kind {
        Kind::Opened => &mut usage.opens,
        Kind::Dropped | Kind::Audited => &mut usage.drops,
    };
    let left = *spent < EVENTS_PER_TICK;
    if left {
        *spent += 1;
    }
    left
}

/// Where and when a frame was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Coarse monotonic clock, nanoseconds.
    pub time_ns: u64,
    /// Interface of the host's end.
    pub ifindex: u32,
    /// Length of the frame in bytes.
    pub length: u32,
    /// The endpoint's view.
    pub direction: Direction,
}

/// Writes the record, every field of it. In place: on the programs' stack there is no room for one.
#[inline(always)]
pub const fn fill(
    event: &mut Event,
    kind: Kind,
    outcome: &Outcome,
    parsed: &ParsedFrame,
    seen: &Sighting,
) {
    let packet = &parsed.packet;
    event.time_ns = seen.time_ns;
    event.generation = outcome.generation;
    event.policy_set = outcome.policy_set;
    event.rule = outcome.rule;
    event.endpoint = outcome.endpoint;
    event.ifindex = seen.ifindex;
    event.length = seen.length;
    event.source = words(packet.source);
    event.destination = words(packet.destination);
    event.source_port = packet.source_port;
    event.destination_port = packet.destination_port;
    event.ethertype = parsed.ethernet.ethertype;
    event.version = packet.version;
    event.protocol = packet.protocol;
    event.direction = seen.direction as u8;
    event.kind = kind as u8;
    event.reason = outcome.reason as u8;
    event.tcp_flags = packet.tcp_flags;
    event.reply = outcome.reply as u8;
    event.reserved = [0; 3];
    event.source_mac = octets(parsed.ethernet.source);
    event.destination_mac = octets(parsed.ethernet.destination);
    event.sender = outcome.sender.0;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(reason: Reason, passes: bool, opened: bool) -> Outcome {
        Outcome {
            reason,
            passes,
            opened,
            ..Outcome::default()
        }
    }

    #[test]
    fn what_opens_and_what_policy_does_not_allow_is_reported() {
        for (reason, passes, opened, expected) in [
            (Reason::RuleAllowed, true, true, Some(Kind::Opened)),
            (Reason::Established, true, false, None),
            (Reason::LinkControl, true, false, None),
            (Reason::PolicyDenied, false, false, Some(Kind::Dropped)),
            (Reason::PolicyDenied, true, false, Some(Kind::Audited)),
        ] {
            let kind = kind(&outcome(reason, passes, opened));
            assert_eq!(kind, expected, "{reason:?}, passes {passes}");
        }
    }

    #[test]
    fn a_flood_of_drops_leaves_the_budget_of_connections_alone() {
        let mut usage = Usage::default();
        for sent in 0..EVENTS_PER_TICK + 3 {
            let left = spend(&mut usage, Kind::Dropped, 5);
            assert_eq!(left, sent < EVENTS_PER_TICK, "after {sent}");
        }
        assert!(!spend(&mut usage, Kind::Audited, 5));
        assert!(spend(&mut usage, Kind::Opened, 5));
        assert_eq!((usage.drops, usage.opens), (EVENTS_PER_TICK, 1));
        assert!(spend(&mut usage, Kind::Dropped, 6), "another tick");
        assert_eq!((usage.drops, usage.opens), (1, 0));
    }
}
