//! Connection states: pure transitions, and which time-out holds in which state.
//!
//! Called by [`crate::judge`] for every packet of a known connection, and by the
//! daemon's collector, which asks how long an idle entry is kept. Units: *ticks* of
//! 2^30 ns (1.07 s): a shift of the coarse clock, no division in the kernel.
//!
//! TCP's states and what may come in each are those of netfilter's conntrack
//! (net/netfilter/nf_conntrack_proto_tcp.c, `tcp_conntracks`), without its windows: which end sends
//! is known here, so a sequence number out of the window harms its sender's own connection
//! only, and one that was closed by a stray RST is taken up again from the endpoint's sockets.

use crate::packet::{protocol, tcp};

/// A tick is `nanoseconds >> TICK_SHIFT`.
pub const TICK_SHIFT: u32 = 30;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// Only the opener has spoken. TCP: with a SYN.
    New = 1,
    /// Both sides have spoken. TCP: the handshake is complete.
    Established = 2,
    /// TCP: the opener has sent FIN.
    OpenerClosed = 3,
    /// TCP: the answering side has sent FIN.
    AnswererClosed = 4,
    /// TCP: both have. A new SYN opens another connection.
    TimeWait = 5,
    /// TCP: one side has sent RST. A new SYN opens another connection.
    Reset = 6,
    /// TCP: the answering side has sent SYN-ACK.
    Answered = 7,
}

impl State {
    /// The state with this number. An unknown one counts as reset: the shortest life.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::New,
            2 => Self::Established,
            3 => Self::OpenerClosed,
            4 => Self::AnswererClosed,
            5 => Self::TimeWait,
            7 => Self::Answered,
            _ => Self::Reset,
        }
    }

    /// Has the connection ended?
    #[must_use]
    #[inline(always)]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::TimeWait | Self::Reset)
    }

    /// What a packet does to the connection. `reply`: it goes against the direction of opening.
    #[must_use]
    #[inline(always)]
    pub const fn after(self, protocol: u8, tcp_flags: u8, reply: bool) -> Change {
        if protocol != protocol::TCP {
            return match (self, reply) {
                (Self::New, true) => Change::To(Self::Established),
                _ => Change::To(self),
            };
        }
        // PSH, URG, ECE and CWR say nothing about the state.
        const FIN_ACK: u8 = tcp::FIN | tcp::ACK;
        const SYN_ACK: u8 = tcp::SYN | tcp::ACK;
        const RST_ACK: u8 = tcp::RST | tcp::ACK;
        match tcp_flags & tcp::STATEFUL {
            tcp::ACK => self.after_ack(reply),
            FIN_ACK => self.after_fin(reply),
            tcp::RST | RST_ACK => Change::To(Self::Reset),
            tcp::SYN => self.after_syn(reply),
            SYN_ACK => self.after_syn_ack(reply),
            // NULL, a bare FIN, SYN-FIN, SYN-RST and the like: no stack sends them.
            _ => Change::Invalid,
        }
    }

    #[inline(always)]
    const fn after_ack(self, reply: bool) -> Change {
        match (self, reply) {
            // The opener has not been answered, so there is nothing to acknowledge.
            (Self::New, false) => Change::Invalid,
            // A challenge (RFC 5961, 4) from a peer that remembers an older connection.
            (Self::New, true) => Change::Nothing,
            (Self::Answered, false) => Change::To(Self::Established),
            (Self::TimeWait | Self::Reset, _) => Change::Nothing,
            _ => Change::To(self),
        }
    }

    #[inline(always)]
    const fn after_fin(self, reply: bool) -> Change {
        match (self, reply) {
            (Self::New, _) => Change::Invalid,
            (Self::TimeWait | Self::Reset, _) => Change::Nothing,
            (Self::AnswererClosed, false) | (Self::OpenerClosed, true) => {
                Change::To(Self::TimeWait)
            }
            (_, false) => Change::To(Self::OpenerClosed),
            (_, true) => Change::To(Self::AnswererClosed),
        }
    }

    #[inline(always)]
    const fn after_syn(self, reply: bool) -> Change {
        match (self, reply) {
            (Self::New, false) => Change::To(self),
            // An opener that has forgotten: the other side will challenge it.
            (Self::Answered, false) => Change::Nothing,
            (Self::Established | Self::OpenerClosed | Self::AnswererClosed, false) => {
                Change::Nothing
            }
            (Self::TimeWait | Self::Reset, _) => Change::Another { replaces: true },
            // Both open at once (RFC 9293, 3.5): allowed where both may open.
            (Self::New, true) => Change::Another { replaces: true },
            (_, true) => Change::Another { replaces: false },
        }
    }

    #[inline(always)]
    const fn after_syn_ack(self, reply: bool) -> Change {
        match (self, reply) {
            (Self::New, true) => Change::To(Self::Answered),
            // The second of two sides that opened at once.
            (Self::Answered, false) => Change::Nothing,
            (_, false) => Change::Invalid,
            // Sent again: a half-open connection does not last for that.
            (_, true) => Change::Nothing,
        }
    }
}

/// What a packet does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The state from now on, perhaps the same; the connection's idle time starts over.
    To(State),
    /// It may pass, and proves nothing: not even that the connection is in use.
    Nothing,
    /// No stack sends it in this state.
    Invalid,
    /// It opens another connection with the same addresses and ports, in its own direction:
    /// that has to be allowed. `replaces`: where it is, this one is over.
    Another {
        /// Does this connection end with it?
        replaces: bool,
    },
}

/// Idle times, by protocol and state; the index into [`crate::tables::Control::timeouts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Timeout {
    /// TCP: SYN without an answer.
    TcpSyn = 0,
    /// TCP: SYN-ACK without the opener's ACK.
    TcpSynAck = 1,
    /// TCP: established.
    TcpEstablished = 2,
    /// TCP: one side has sent FIN.
    TcpFin = 3,
    /// TCP: both have.
    TcpTimeWait = 4,
    /// TCP: reset.
    TcpReset = 5,
    /// UDP: no answer yet.
    Udp = 6,
    /// UDP: both sides have spoken.
    UdpStream = 7,
    /// SCTP: no answer yet.
    SctpInit = 8,
    /// SCTP: both sides have spoken.
    SctpEstablished = 9,
    /// ICMP echo.
    Icmp = 10,
    /// Any other protocol.
    Other = 11,
}

/// Elements of [`crate::tables::Control::timeouts`]: a power of two, so that a mask bounds an index.
pub const TIMEOUTS: usize = 16;

macro_rules! timeouts {
    ($($timeout:ident = $key:literal, $seconds:literal, $text:literal;)*) => {
        impl Timeout {
            /// All of them, in their order.
            pub const ALL: &'static [Self] = &[$(Self::$timeout,)*];

            /// The key in `[timeouts]` of the configuration.
            #[must_use]
            pub const fn key(self) -> &'static str {
                match self { $(Self::$timeout => $key,)* }
            }

            /// Seconds where nothing else is set.
            #[must_use]
            pub const fn seconds(self) -> u32 {
                match self { $(Self::$timeout => $seconds,)* }
            }

            /// What it is for, in a few words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$timeout => $text,)* }
            }
        }
    };
}

// Netfilter's (`nf_conntrack_*_timeout*`), but for two: TIME_WAIT holds one minute, as long as
// Linux keeps the socket, and SCTP has no states here.
timeouts! {
    TcpSyn = "tcp-syn", 120, "a SYN without an answer";
    TcpSynAck = "tcp-syn-ack", 60, "a SYN-ACK that the opener did not acknowledge";
    TcpEstablished = "tcp-established", 432_000, "an established TCP connection";
    TcpFin = "tcp-fin", 120, "one side has closed";
    TcpTimeWait = "tcp-time-wait", 60, "both sides have closed";
    TcpReset = "tcp-reset", 10, "a TCP connection that was reset";
    Udp = "udp", 30, "UDP, one side has spoken";
    UdpStream = "udp-stream", 120, "UDP, both sides have spoken";
    SctpInit = "sctp-init", 60, "SCTP, one side has spoken";
    SctpEstablished = "sctp-established", 3_600, "SCTP, both sides have spoken";
    Icmp = "icmp", 30, "an ICMP echo";
    Other = "other", 600, "any other protocol";
}

impl Timeout {
    /// The one that holds for a protocol in a state.
    #[must_use]
    #[inline(always)]
    pub const fn for_state(protocol: u8, state: State) -> Self {
        match protocol {
            protocol::TCP => match state {
                State::New => Self::TcpSyn,
                State::Answered => Self::TcpSynAck,
                State::Established => Self::TcpEstablished,
                State::OpenerClosed | State::AnswererClosed => Self::TcpFin,
                State::TimeWait => Self::TcpTimeWait,
                State::Reset => Self::TcpReset,
            },
            protocol::UDP => match state {
                State::New => Self::Udp,
                _ => Self::UdpStream,
            },
            protocol::SCTP => match state {
                State::New => Self::SctpInit,
                _ => Self::SctpEstablished,
            },
            protocol::ICMP | protocol::ICMPV6 => Self::Icmp,
            _ => Self::Other,
        }
    }
}

/// Ticks since an entry was last used. Another processor may have used it in a later tick than the one
/// that was read here: that is no age at all.
#[must_use]
#[inline(always)]
pub const fn age(now: u32, seen: u32) -> u32 {
    let age = now.wrapping_sub(seen);
    if age > u32::MAX / 2 { 0 } else { age }
}

/// How long after its tables were made a server may speak first on a connection that they have not
/// seen, in ticks: ten minutes. A container could forge the sockets of such a connection to get out
/// where it may only be dialled; afterwards the client has to speak first, or egress be allowed.
pub const SERVER_FIRST: u32 = ticks(600);

/// Seconds in ticks, rounded up: nothing ends sooner than was asked for.
#[must_use]
pub const fn ticks(seconds: u32) -> u32 {
    let nanoseconds = seconds as u64 * 1_000_000_000;
    nanoseconds.div_ceil(1 << TICK_SHIFT) as u32
}

/// The time-outs where the configuration sets none, in ticks.
#[must_use]
pub const fn default_timeouts() -> [u32; TIMEOUTS] {
    let mut timeouts = [ticks(Timeout::Other.seconds()); TIMEOUTS];
    let mut index = 0;
    while index < Timeout::ALL.len() {
        let timeout = Timeout::ALL[index];
        timeouts[timeout as usize] = ticks(timeout.seconds());
        index += 1;
    }
    timeouts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::protocol::{TCP, UDP};
    use tcp::{ACK, FIN, RST, SYN};

    const PSH: u8 = 0x08;

    fn follow(steps: &[(u8, bool, State)]) {
        let mut state = State::New;
        for &(flags, reply, expected) in steps {
            if let Change::To(next) = state.after(TCP, flags, reply) {
                state = next;
            }
            assert_eq!(state, expected, "after flags {flags:#x}, reply {reply}");
        }
    }

    #[test]
    fn tcp_lives_and_closes() {
        follow(&[
            (SYN, false, State::New),
            (SYN | ACK, true, State::Answered),
            (ACK, false, State::Established),
            (ACK | PSH, false, State::Established),
            (FIN | ACK, true, State::AnswererClosed),
            (ACK, false, State::AnswererClosed),
            (FIN | ACK, false, State::TimeWait),
            (ACK, true, State::TimeWait),
        ]);
    }

    #[test]
    fn a_repeated_fin_of_one_side_does_not_close_both() {
        follow(&[
            (SYN | ACK, true, State::Answered),
            (FIN | ACK, false, State::OpenerClosed),
            (FIN | ACK, false, State::OpenerClosed),
            (FIN | ACK, true, State::TimeWait),
        ]);
    }

    #[test]
    fn nothing_but_a_handshake_makes_a_connection_last() {
        for flags in [ACK, ACK | PSH, FIN | ACK, FIN, 0, SYN | FIN] {
            assert!(
                !matches!(State::New.after(TCP, flags, true), Change::To(_)),
                "reply {flags:#x}"
            );
            assert!(
                !matches!(State::New.after(TCP, flags, false), Change::To(_)),
                "{flags:#x}"
            );
        }
        assert_eq!(
            State::Answered.after(TCP, ACK, true),
            Change::To(State::Answered)
        );
    }

    #[test]
    fn what_no_stack_sends_is_invalid_in_every_state() {
        for state in (1..=7).map(State::from_number) {
            for flags in [
                0,
                FIN,
                SYN | FIN,
                SYN | RST,
                FIN | RST,
                SYN | FIN | ACK,
                0x29,
            ] {
                for reply in [false, true] {
                    assert_eq!(state.after(TCP, flags, reply), Change::Invalid);
                }
            }
        }
    }

    #[test]
    fn a_syn_of_the_answering_side_has_to_be_allowed_in_every_state() {
        for state in (1..=7).map(State::from_number) {
            assert_eq!(
                state.after(TCP, SYN, true),
                Change::Another {
                    replaces: state == State::New || state.is_over()
                }
            );
        }
        assert_eq!(State::Established.after(TCP, SYN, false), Change::Nothing);
        assert_eq!(
            State::Reset.after(TCP, SYN, false),
            Change::Another { replaces: true }
        );
    }

    #[test]
    fn what_is_over_is_not_kept_alive() {
        for state in [State::TimeWait, State::Reset] {
            for flags in [ACK, FIN | ACK, SYN | ACK] {
                for reply in [false, true] {
                    assert!(
                        !matches!(state.after(TCP, flags, reply), Change::To(_)),
                        "{state:?} {flags:#x}"
                    );
                }
            }
        }
    }

    #[test]
    fn rst_closes_and_udp_has_no_flags() {
        assert_eq!(
            State::Established.after(TCP, RST, true),
            Change::To(State::Reset)
        );
        assert_eq!(
            State::New.after(UDP, RST, true),
            Change::To(State::Established)
        );
        assert_eq!(State::New.after(UDP, 0, false), Change::To(State::New));
    }

    #[test]
    fn every_timeout_has_a_place_and_a_key_of_its_own() {
        for (index, timeout) in Timeout::ALL.iter().enumerate() {
            assert_eq!(*timeout as usize, index);
        }
        for (index, timeout) in Timeout::ALL.iter().enumerate() {
            let same = |other: &&Timeout| other.key() == timeout.key();
            assert_eq!(
                Timeout::ALL.iter().position(|other| same(&other)),
                Some(index)
            );
        }
        assert!(Timeout::ALL.len() <= TIMEOUTS);
    }

    #[test]
    fn seconds_become_ticks_that_are_no_shorter() {
        for seconds in [1, 10, 120, 432_000] {
            let nanoseconds = u64::from(ticks(seconds)) << TICK_SHIFT;
            assert!(nanoseconds >= u64::from(seconds) * 1_000_000_000);
            assert!(nanoseconds < (u64::from(seconds) + 2) * 1_000_000_000);
        }
    }
}
