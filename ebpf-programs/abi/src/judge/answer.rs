//! What policy is asked, and what it answers: numbers, as they pass between functions that the verifier looks at apart.

use super::{decision_flags, sender::Sender};
use crate::{packet::Direction, reason::Reason};

/// What is asked of policy about a packet, as a number: in bit 0 the direction in which its
/// connection was opened, in bit 1 whether any port of its protocol will do, and in bit 2 whether the sender is
/// known already: its kind in bits 3 and 4 then, and its stamp from bit 16 on.
#[derive(Clone, Copy, Debug)]
pub struct Question(pub u32);

impl Question {
    /// Of what the endpoint dials.
    pub(super) const DIALLED: Self = Self::new(Direction::Egress, false);

    pub(super) const KNOWN_SENDER: u32 = 1 << 2;
    pub(super) const KIND_SHIFT: u32 = 3;

    pub(super) const fn new(opening: Direction, some_port: bool) -> Self {
        Self(opening as u32 | (some_port as u32) << 1)
    }
    pub(super) const fn about(opening: Direction, sender: Sender) -> Self {
        Self(
            opening as u32
                | Self::KNOWN_SENDER
                | (sender.kind() as u32) << Self::KIND_SHIFT
                | sender.stamp() << 16,
        )
    }
    /// The sender that is known already.
    pub(super) const fn sender(self) -> Option<Sender> {
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

    pub(super) const AUDITED: u64 = 1 << 40;
    pub(super) const KIND_SHIFT: u32 = 41;
    pub(super) const OF_TARGET: u64 = 1 << 43;
    pub(super) const STAMP_SHIFT: u32 = 48;

    pub(super) const fn new(reason: Reason, rule: u32) -> Self {
        Self((reason as u64) << 32 | rule as u64)
    }
    /// That of a container behind a published port, which denies. `audited`: it drops nothing.
    pub(super) const fn of_target(audited: bool) -> Self {
        let denied = Self::new(Reason::PolicyDenied, 0);
        Self(denied.0 | Self::OF_TARGET | if audited { Self::AUDITED } else { 0 })
    }
    pub(super) const fn about(self, sender: Sender) -> Self {
        Self(
            self.0
                | (sender.kind() as u64) << Self::KIND_SHIFT
                | (sender.stamp() as u64) << Self::STAMP_SHIFT,
        )
    }
    pub(super) const fn sender(self) -> Sender {
        let kind = (self.0 >> Self::KIND_SHIFT) as u32 & 3;
        Sender(kind | ((self.0 >> Self::STAMP_SHIFT) as u32) << 16)
    }
    pub(super) const fn rule(self) -> u32 {
        self.0 as u32
    }
    pub(super) const fn is_audited(self) -> bool {
        self.0 & Self::AUDITED != 0
    }
    /// Is it a denial that counts?
    pub(super) const fn denies(self) -> bool {
        !self.reason().allows() && !self.is_audited()
    }
    pub(super) const fn is_of_target(self) -> bool {
        self.0 & Self::OF_TARGET != 0
    }
    /// [`decision_flags`], without a branch.
    pub(super) const fn flags(self) -> u8 {
        let audited = (self.0 >> 40 & 1) as u8 * decision_flags::AUDITED;
        let of_target = (self.0 >> 43 & 1) as u8 * decision_flags::OF_TARGET;
        audited | of_target
    }
    /// Only these are given; whatever else it is denies.
    pub(super) const fn reason(self) -> Reason {
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
