//! The two hooks of an interface: which direction each is, by which names, for which program. A container's loopback
//! interface has one, for what it asks its engine.

use aya::programs::TcAttachType;
use netpol_abi::packet::Direction;

use super::within::{is_inside, is_loopback};

/// A hook, in the endpoint's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Towards the container: TC's egress hook of the host's end, its ingress hook inside.
    Ingress,
    /// From the container: TC's ingress hook of the host's end, its egress hook inside. On the loopback interface TC's
    /// ingress hook, which packet sockets can't send past.
    Egress,
}

impl Hook {
    /// Both, the container's own packets first: it is held before it can speak.
    pub const BOTH: [Self; 2] = [Self::Egress, Self::Ingress];

    /// Those of the interface with this number, in the same order.
    #[must_use]
    pub const fn for_interface(number: u32) -> &'static [Self] {
        if is_loopback(number) {
            &[Self::Egress]
        } else {
            &Self::BOTH
        }
    }

    /// As it stands in pin names and messages.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }

    /// As a direction in the programs' records and counters.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Ingress => Direction::Ingress as u32,
            Self::Egress => Direction::Egress as u32,
        }
    }

    /// The program for this hook of the interface with this number.
    #[must_use]
    pub const fn program(self, number: u32) -> &'static str {
        match self {
            Self::Egress if is_loopback(number) => "netpold_asks",
            Self::Ingress => "netpold_ingress",
            Self::Egress => "netpold_egress",
        }
    }

    /// TC's hook of the interface with this number.
    pub(super) const fn tc(self, number: u32) -> TcAttachType {
        match (self, is_inside(number)) {
            (Self::Egress, true) if is_loopback(number) => TcAttachType::Ingress,
            (Self::Ingress, false) | (Self::Egress, true) => TcAttachType::Egress,
            (Self::Egress, false) | (Self::Ingress, true) => TcAttachType::Ingress,
        }
    }
}
