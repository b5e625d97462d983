//! What packets leave behind: connections, fragments, counters, budgets. Both executors give it
//! in the same form, with the file's clock (ticks since its beginning) instead of their own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netpol_abi::Reason;
use netpol_abi::event::Event;
use netpol_abi::link::{LinkRate, Neighbour};
use netpol_abi::packet::Direction;
use netpol_abi::tables::{
    Collected, Counter, Flow, FlowKey4, FlowKey6, Fragment, FragmentKey, FragmentSet, Usage,
};

/// A connection's key, IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// The endpoint's number.
    pub endpoint: u32,
    /// IP protocol.
    pub protocol: u8,
    /// The endpoint's address.
    pub local: IpAddr,
    /// The endpoint's port, or an echo's identifier.
    pub local_port: u16,
    /// The peer's address.
    pub remote: IpAddr,
    /// The peer's port, or the identifier of an echo.
    pub remote_port: u16,
}

impl From<FlowKey4> for Connection {
    fn from(key: FlowKey4) -> Self {
        Self {
            endpoint: key.owner >> 8,
            protocol: (key.owner & 0xff) as u8,
            local: Ipv4Addr::from(key.local).into(),
            local_port: key.local_port,
            remote: Ipv4Addr::from(key.remote).into(),
            remote_port: key.remote_port,
        }
    }
}

impl From<FlowKey6> for Connection {
    fn from(key: FlowKey6) -> Self {
        Self {
            endpoint: key.owner >> 8,
            protocol: (key.owner & 0xff) as u8,
            local: Ipv6Addr::from(key.local).into(),
            local_port: key.local_port,
            remote: Ipv6Addr::from(key.remote).into(),
            remote_port: key.remote_port,
        }
    }
}

/// All of it. Ticks are the file's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The file's clock.
    pub tick: u32,
    /// `FLOWS4` and `FLOWS6`.
    pub flows: BTreeMap<Connection, Flow>,
    /// `FRAGMENTS`, by set and datagram.
    pub fragments: BTreeMap<(u32, FragmentKey), Fragment>,
    /// `COUNTERS` that moved since the file's beginning.
    pub counters: BTreeMap<(Reason, Direction), Counter>,
    /// `USAGE` of the slots that were used.
    pub usage: BTreeMap<u32, Usage>,
    /// `LINK_RATES`, the elements that were used.
    pub link_rates: BTreeMap<u32, LinkRate>,
    /// `NEIGHBOURS`, likewise.
    pub neighbours: BTreeMap<u32, Neighbour>,
    /// `ENTERED` and `COLLECTED`, the accounts that were used.
    pub accounts: BTreeMap<u32, (u32, Collected)>,
}

/// The datagrams of a set.
pub fn datagrams(set: u32, places: &FragmentSet) -> Vec<((u32, FragmentKey), Fragment)> {
    let places = places.iter().filter(|place| place.key.owner != 0);
    places
        .map(|place| ((set, place.key), place.value))
        .collect()
}

/// What one step did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Each frame's fate, in order.
    pub fates: Vec<Fate>,
    /// Records that were sent.
    pub events: Vec<Event>,
    /// Before.
    pub before: State,
    /// After.
    pub after: State,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// The reason of the verdict.
    pub reason: Reason,
    /// Did it go on?
    pub passes: bool,
}
