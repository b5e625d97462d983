//! What the programs remember of an endpoint's link: how much of each kind of link message it sent
//! lately, and which strangers on its link were heard.
//!
//! Messages that keep a link working pass whatever policy says, so how many of them pass is all
//! that bounds what two accomplices can tell each other with them. The rates are far above what
//! stacks send: a bridge has at most 1,023 ports (`BR_MAX_PORTS`), so that many neighbours may ask
//! or have to be asked at once, and Linux asks a neighbour that it sends to again after some 35
//! seconds (`base_reachable_time`, `delay_first_probe_time`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::limits::ENDPOINTS;

/// Kinds of link messages. Each endpoint has a budget of its own for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Class {
    /// ARP, by the message.
    Arp = 0,
    /// Neighbour discovery and router solicitations, by the message.
    NeighbourDiscovery = 1,
    /// Multicast listener discovery, by the group and source address in it.
    ListenerDiscovery = 2,
    /// IGMP, likewise.
    GroupMembership = 3,
    /// A DHCP or DHCPv6 client's questions, by the message.
    Lease = 4,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 5] = [
        Self::Arp,
        Self::NeighbourDiscovery,
        Self::ListenerDiscovery,
        Self::GroupMembership,
        Self::Lease,
    ];

    /// The budget of an isolated endpoint.
    #[must_use]
    #[inline(always)]
    pub const fn budget(self) -> Budget {
        match self {
            // All neighbours of a full bridge at once, and then as often as Linux asks them again.
            Self::Arp | Self::NeighbourDiscovery => Budget {
                at_once: 1024,
                sixteenths_each_tick: 32 * 16,
            },
            // A querier asks every 125 seconds (RFC 3810, 9.2): the memberships of some 900 groups.
            Self::ListenerDiscovery | Self::GroupMembership => Budget {
                at_once: 1024,
                sixteenths_each_tick: 8 * 16,
            },
            // A client that gets no answer doubles its pause, from 4 seconds (RFC 2131, 4.1) or
            // one (RFC 8415, 7.6).
            Self::Lease => Budget {
                at_once: 32,
                sixteenths_each_tick: 4,
            },
        }
    }
}

/// How much may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// At once, after a pause.
    pub at_once: u32,
    /// What comes back with each tick ([`crate::connection::TICK_SHIFT`]), in sixteenths.
    pub sixteenths_each_tick: u32,
}

/// Element of `LINK_RATES`, at [`rate_index`]: a bucket that leaks. Written by the programs alone,
/// without locks: where two processors write at once, what one of them counted is lost.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct LinkRate {
    /// Tick of the last message that passed.
    pub tick: u32,
    /// What was in the bucket then, in sixteenths of a message or address.
    pub spent: u32,
}

/// What an endpoint that no policy isolates pays for what costs an isolated one a whole: it can
/// send what it likes in other packets, and its budget only protects others from floods.
const SIXTEENTHS_UNLESS_ISOLATED: u32 = 1;

impl LinkRate {
    /// Takes `cost` messages or addresses out of the budget; false: there is too little left, and
    /// nothing was taken.
    #[must_use]
    #[inline(always)]
    pub const fn spend(&mut self, class: Class, cost: u32, isolated: bool, tick: u32) -> bool {
        let budget = class.budget();
        let elapsed = tick.wrapping_sub(self.tick);
        let back = elapsed.saturating_mul(budget.sixteenths_each_tick);
        let each = if isolated {
            16
        } else {
            SIXTEENTHS_UNLESS_ISOLATED
        };
        let spent = self
            .spent
            .saturating_sub(back)
            .saturating_add(cost.saturating_mul(each));
        if spent > budget.at_once * 16 {
            return false;
        }
        self.tick = tick;
        self.spent = spent;
        true
    }
}

/// Classes that a slot has room for; a power of two.
const CLASSES: u32 = 8;
/// Elements of `LINK_RATES`.
pub const LINK_RATES: u32 = ENDPOINTS * CLASSES;

/// Where in `LINK_RATES` an endpoint's slot has the budget of a class.
#[must_use]
#[inline(always)]
pub const fn rate_index(slot: u32, class: Class) -> u32 {
    slot * CLASSES + class as u32
}

/// Element of `NEIGHBOURS`, at [`neighbour_index`]: an address beyond this host that neighbour
/// discovery showed to be on the endpoint's link.
///
/// That what came had a hop limit of 255 proves it (RFC 4861, 3.1): no router passed it on. An
/// endpoint of this host can't enter an address, as it sends in no other name than its own.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Neighbour {
    /// Its address.
    pub address: [u8; 16],
    /// Tick in which it was heard last.
    pub tick: u32,
    /// Its solicitations that the endpoint has not answered.
    pub unanswered: u32,
}

/// Neighbours that are remembered for each endpoint; a power of two. One that another one pushes
/// out is found by the group of its address again, as a new one is.
const NEIGHBOURS_EACH: u32 = 16;
/// Elements of `NEIGHBOURS`.
pub const NEIGHBOURS: u32 = ENDPOINTS * NEIGHBOURS_EACH;

/// Ticks in which a neighbour that was heard may be asked whether it is still there. Linux asks
/// after 20 to 50 seconds, and again as long as it is answered.
const ASKED: u32 = 64;
/// Ticks in which a solicitation may be answered; Linux answers at once, and for an anycast address within
/// a second (RFC 4861, 7.2.7).
const ANSWERED: u32 = 4;

impl Neighbour {
    /// It solicited the endpoint (`asks`), or advertised itself.
    #[inline(always)]
    pub fn hear(&mut self, address: &[u8; 16], asks: bool, tick: u32) {
        let known = u128::from_ne_bytes(self.address) == u128::from_ne_bytes(*address);
        let unanswered = if known && tick.wrapping_sub(self.tick) < ANSWERED {
            self.unanswered
        } else {
            0
        };
        *self = Self {
            address: u128::from_ne_bytes(*address).to_ne_bytes(),
            tick,
            unanswered: unanswered.saturating_add(asks as u32),
        };
    }

    /// May the endpoint ask whether this address is still there?
    #[must_use]
    #[inline(always)]
    pub fn may_be_asked(&self, address: &[u8; 16], tick: u32) -> bool {
        u128::from_ne_bytes(self.address) == u128::from_ne_bytes(*address)
            && tick.wrapping_sub(self.tick) < ASKED
    }

    /// Takes one solicitation of this address as answered; false: it has not solicited, or has been
    /// answered.
    #[must_use]
    #[inline(always)]
    pub fn answer(&mut self, address: &[u8; 16], tick: u32) -> bool {
        let may = u128::from_ne_bytes(self.address) == u128::from_ne_bytes(*address)
            && tick.wrapping_sub(self.tick) < ANSWERED
            && self.unanswered > 0;
        if may {
            self.unanswered -= 1;
        }
        may
    }
}

/// Where in `NEIGHBOURS` an endpoint's slot has an address.
#[must_use]
#[inline(always)]
pub const fn neighbour_index(slot: u32, address: &[u8; 16]) -> u32 {
    let whole = u128::from_ne_bytes(*address);
    let folded = (whole as u64) ^ (whole >> 64) as u64;
    // The best-known odd number that spreads a sum's bits to the top (Knuth's golden ratio).
    let spread = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    slot * NEIGHBOURS_EACH + ((spread >> 60) as u32 & (NEIGHBOURS_EACH - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(rate: &mut LinkRate, class: Class, isolated: bool, tick: u32) -> u32 {
        let mut passed = 0;
        while rate.spend(class, 1, isolated, tick) {
            passed += 1;
        }
        passed
    }

    #[test]
    fn a_budget_is_spent_and_comes_back_with_time() {
        for class in Class::ALL {
            let Budget {
                at_once,
                sixteenths_each_tick,
            } = class.budget();
            let mut rate = LinkRate::default();
            assert_eq!(passed(&mut rate, class, true, 1000), at_once, "{class:?}");
            let later = passed(&mut rate, class, true, 1016);
            assert_eq!(later, sixteenths_each_tick.min(at_once), "{class:?}");
            let long_after = passed(&mut rate, class, true, 1 << 30);
            assert_eq!(long_after, at_once, "{class:?}");
        }
    }

    #[test]
    fn what_is_refused_takes_nothing() {
        let mut rate = LinkRate::default();
        assert!(rate.spend(Class::ListenerDiscovery, 1000, true, 1000));
        let before = rate;
        assert!(!rate.spend(Class::ListenerDiscovery, 25, true, 1000));
        assert!(!rate.spend(Class::ListenerDiscovery, u32::MAX, true, 1000));
        assert_eq!(rate, before);
        assert!(rate.spend(Class::ListenerDiscovery, 24, true, 1000));
    }

    #[test]
    fn whom_no_policy_isolates_has_sixteen_times_as_much() {
        let mut rate = LinkRate::default();
        let passed = passed(&mut rate, Class::Arp, false, 1000);
        assert_eq!(passed, 16 * Class::Arp.budget().at_once);
        assert!(!rate.spend(Class::Arp, 1, true, 1000), "the bucket is one");
    }

    #[test]
    fn budgets_of_slots_and_classes_are_apart() {
        for slot in [0, 1, 2, ENDPOINTS - 1] {
            for class in Class::ALL {
                let index = rate_index(slot, class);
                assert_eq!((index / CLASSES, index % CLASSES), (slot, class as u32));
            }
        }
    }

    const A: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    const B: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8];

    #[test]
    fn each_solicitation_is_answered_once_and_soon() {
        let mut neighbour = Neighbour::default();
        assert!(!neighbour.answer(&A, 1000));
        neighbour.hear(&A, true, 1000);
        neighbour.hear(&A, true, 1000);
        assert!(!neighbour.answer(&B, 1000), "another's");
        assert!(neighbour.answer(&A, 1000) && neighbour.answer(&A, 1001));
        assert!(!neighbour.answer(&A, 1001), "twice was asked");
        neighbour.hear(&A, true, 1001);
        assert!(!neighbour.answer(&A, 1005), "too late");
        neighbour.hear(&A, true, 1005);
        assert!(neighbour.answer(&A, 1005) && !neighbour.answer(&A, 1005));
    }

    #[test]
    fn an_advertisement_asks_nothing_and_proves_the_link() {
        let mut neighbour = Neighbour::default();
        neighbour.hear(&A, false, 1000);
        assert!(!neighbour.answer(&A, 1000));
        assert!(neighbour.may_be_asked(&A, 1063));
        assert!(!neighbour.may_be_asked(&B, 1000) && !neighbour.may_be_asked(&A, 1064));
        neighbour.hear(&B, true, 1001);
        assert!(!neighbour.may_be_asked(&A, 1001), "pushed out");
    }

    #[test]
    fn neighbours_of_slots_are_apart() {
        for slot in [0, 1, ENDPOINTS - 1] {
            for last in 0..=u8::MAX {
                let mut address = A;
                address[15] = last;
                let index = neighbour_index(slot, &address);
                assert_eq!(index / NEIGHBOURS_EACH, slot);
            }
        }
    }
}
