//! Connection states: pure transitions and time-outs.
//!
//! Called by [`crate::judge`] for every packet of a known connection, and by the
//! daemon's collector, which asks how long an idle entry is kept. Units: *ticks* of
//! 2^30 ns (1.07 s): a shift of the coarse clock, no division in the kernel.

use crate::packet::tcp;

/// A tick is `nanoseconds >> TICK_SHIFT`.
pub const TICK_SHIFT: u32 = 30;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// Only the opener has spoken.
    New = 1,
    /// Both sides have spoken.
    Established = 2,
    /// TCP: the opener has sent FIN.
    OpenerClosed = 3,
    /// TCP: the answering side has sent FIN.
    AnswererClosed = 4,
    /// TCP: both have, or one has sent RST. A new SYN opens another connection.
    Closed = 5,
}

impl State {
    /// The state with this number. An unknown one counts as closed: the shortest life.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::New,
            2 => Self::Established,
            3 => Self::OpenerClosed,
            4 => Self::AnswererClosed,
            _ => Self::Closed,
        }
    }

    /// The state after a packet. `reply`: it goes against the direction of opening.
    #[must_use]
    #[inline(always)]
    pub const fn after(self, protocol: u8, tcp_flags: u8, reply: bool) -> Self {
        if protocol == crate::packet::protocol::TCP {
            if tcp_flags & tcp::RST != 0 {
                return Self::Closed;
            }
            if tcp_flags & tcp::FIN != 0 {
                return match (self, reply) {
                    (Self::Closed, _)
                    | (Self::AnswererClosed, false)
                    | (Self::OpenerClosed, true) => Self::Closed,
                    (_, false) => Self::OpenerClosed,
                    (_, true) => Self::AnswererClosed,
                };
            }
        }
        match (self, reply) {
            (Self::New, true) => Self::Established,
            _ => self,
        }
    }
}

/// Ticks that an entry is kept after its last packet. The numbers are those of
/// netfilter's conntrack defaults (`nf_conntrack_*_timeout*`), in ticks.
#[must_use]
#[inline(always)]
pub const fn expires_after(protocol: u8, state: State) -> u32 {
    const MINUTE: u32 = 56;
    match (protocol, state) {
        (crate::packet::protocol::TCP, State::Established) => 5 * 24 * 60 * MINUTE,
        (
            crate::packet::protocol::TCP,
            State::New | State::OpenerClosed | State::AnswererClosed,
        ) => 2 * MINUTE,
        (_, State::Closed) => 10,
        (crate::packet::protocol::UDP, State::Established) => 3 * MINUTE,
        (crate::packet::protocol::SCTP, State::Established) => 60 * MINUTE,
        (crate::packet::protocol::SCTP, _) => MINUTE,
        (
            crate::packet::protocol::UDP
            | crate::packet::protocol::ICMP
            | crate::packet::protocol::ICMPV6,
            _,
        ) => MINUTE / 2,
        _ => 10 * MINUTE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::protocol::{TCP, UDP};

    #[test]
    fn tcp_lives_and_closes() {
        let mut state = State::New;
        for (flags, reply, expected) in [
            (tcp::SYN | tcp::ACK, true, State::Established),
            (tcp::ACK, false, State::Established),
            (tcp::FIN | tcp::ACK, true, State::AnswererClosed),
            (tcp::ACK, false, State::AnswererClosed),
            (tcp::FIN | tcp::ACK, false, State::Closed),
            (tcp::ACK, true, State::Closed),
        ] {
            state = state.after(TCP, flags, reply);
            assert_eq!(state, expected, "after flags {flags:#x}, reply {reply}");
        }
    }

    #[test]
    fn a_repeated_fin_of_one_side_does_not_close_both() {
        let once = State::Established.after(TCP, tcp::FIN | tcp::ACK, false);
        assert_eq!(
            once.after(TCP, tcp::FIN | tcp::ACK, false),
            State::OpenerClosed
        );
    }

    #[test]
    fn rst_closes_and_udp_has_no_flags() {
        assert_eq!(State::Established.after(TCP, tcp::RST, true), State::Closed);
        assert_eq!(State::New.after(UDP, tcp::RST, true), State::Established);
        assert_eq!(State::New.after(UDP, 0, false), State::New);
    }

    #[test]
    fn an_idle_tcp_connection_outlives_days() {
        let ticks_per_day = (24 * 3600 * 1_000_000_000_u64) >> TICK_SHIFT;
        assert!(u64::from(expires_after(TCP, State::Established)) >= 4 * ticks_per_day);
    }
}
