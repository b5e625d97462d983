//! The packet's part of the model: the very verdict that the programs run
//! ([`netpol_abi::judge`]), over [`Lanes`] and connections in ordered maps.
//!
//! For tests, and for trying a packet without a kernel. Time is what the caller says.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netpol_abi::judge::{self, Outcome, Tables, View};
use netpol_abi::packet::{Direction, Frame, Socket};
use netpol_abi::tables::{
    Address, Control, Endpoint, Flow, FlowKey4, FlowKey6, FragmentCursor, FragmentSet,
    FragmentSlot, Interface, PortBlock, Prefix, Verdict, VerdictKey,
};

use super::Lanes;

/// A host's datapath: what policy decides, and what packets have done.
#[derive(Default)]
pub struct Datapath {
    /// What policy decides.
    pub lanes: Lanes,
    /// The coarse clock, in ticks.
    pub tick: u32,
    flows4: Store<FlowKey4, Flow>,
    flows6: Store<FlowKey6, Flow>,
    fragments: RefCell<BTreeMap<u32, &'static Cell<FragmentSet>>>,
    cursors: RefCell<BTreeMap<u32, &'static Cell<FragmentCursor>>>,
    entered: RefCell<BTreeMap<u32, u32>>,
}

/// Entries that are handed out while others are added: each has a place of its own.
struct Store<K, V: 'static> {
    entries: RefCell<BTreeMap<K, &'static Cell<V>>>,
    limit: usize,
}

impl<K, V> Default for Store<K, V> {
    fn default() -> Self {
        Self {
            entries: RefCell::default(),
            limit: usize::MAX,
        }
    }
}

impl<K: Ord + Copy, V: Copy> Store<K, V> {
    fn get(&self, key: &K) -> Option<&Cell<V>> {
        self.entries.borrow().get(key).copied()
    }

    fn enter(&self, key: &K, value: &V) -> bool {
        let mut entries = self.entries.borrow_mut();
        if entries.len() >= self.limit || entries.contains_key(key) {
            return false;
        }
        // Leaked on purpose: a handful of bytes per connection of a test, in return for
        // references that live as long as the kernel's.
        entries.insert(*key, Box::leak(Box::new(Cell::new(*value))));
        true
    }
}

impl Datapath {
    /// A datapath with these lanes and no connections.
    #[must_use]
    pub fn new(lanes: Lanes) -> Self {
        Self {
            lanes,
            ..Self::default()
        }
    }

    /// Bounds the connections of each family.
    pub fn limit_flows(&mut self, limit: usize) {
        self.flows4.limit = limit;
        self.flows6.limit = limit;
    }

    /// How many connections there are.
    #[must_use]
    pub fn flows(&self) -> usize {
        self.flows4.entries.borrow().len() + self.flows6.entries.borrow().len()
    }

    /// Judges a frame on the interface.
    pub fn judge<F: Frame>(&self, frame: &F, direction: Direction, ifindex: u32) -> Outcome {
        judge::judge(self, frame, direction, ifindex, &mut View::default())
    }

    fn prefix(&self, address: IpAddr) -> Option<&Prefix> {
        let longest = |(net, _): &(&IpNet, &Prefix)| net.prefix_len();
        let prefixes = self.lanes.prefixes.iter();
        let (_, prefix) = prefixes
            .filter(|(net, _)| net.contains(&address))
            .max_by_key(longest)?;
        Some(prefix)
    }
}

impl Tables for Datapath {
    fn control(&self) -> Option<&Control> {
        Some(&self.lanes.control)
    }
    fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.lanes.interfaces.get(&ifindex)
    }
    fn endpoint(&self, slot: u32) -> Option<&Endpoint> {
        self.lanes.endpoints.get(&slot)
    }
    fn address4(&self, address: &[u8; 4]) -> Option<&Address> {
        self.lanes.addresses.get(&Ipv4Addr::from(*address).into())
    }
    fn address6(&self, address: &[u8; 16]) -> Option<&Address> {
        self.lanes.addresses.get(&Ipv6Addr::from(*address).into())
    }
    fn prefix4(&self, address: &[u8; 4]) -> Option<&Prefix> {
        self.prefix(Ipv4Addr::from(*address).into())
    }
    fn prefix6(&self, address: &[u8; 16]) -> Option<&Prefix> {
        self.prefix(Ipv6Addr::from(*address).into())
    }
    fn verdict(&self, key: &VerdictKey) -> Option<&Verdict> {
        self.lanes.verdicts.get(key)
    }
    fn port_block(&self, id: u64) -> Option<&PortBlock> {
        self.lanes.port_blocks.get(&id)
    }
    fn flow4(&self, key: &FlowKey4) -> Option<&Cell<Flow>> {
        self.flows4.get(key)
    }
    fn flow6(&self, key: &FlowKey6) -> Option<&Cell<Flow>> {
        self.flows6.get(key)
    }
    fn enter4(&self, key: &FlowKey4, flow: &Flow) -> bool {
        self.flows4.enter(key, flow)
    }
    fn enter6(&self, key: &FlowKey6, flow: &Flow) -> bool {
        self.flows6.enter(key, flow)
    }
    fn fragments(&self, set: u32) -> Option<&Cell<FragmentSet>> {
        let mut sets = self.fragments.borrow_mut();
        let empty: FragmentSet = [FragmentSlot::default(); _];
        Some(
            sets.entry(set)
                .or_insert_with(|| Box::leak(Box::new(Cell::new(empty)))),
        )
    }
    fn fragment_cursor(&self, set: u32) -> Option<&Cell<FragmentCursor>> {
        let mut cursors = self.cursors.borrow_mut();
        Some(
            cursors
                .entry(set)
                .or_insert_with(|| Box::leak(Box::default())),
        )
    }
    fn entered(&self, account: u32) -> u32 {
        self.entered.borrow().get(&account).copied().unwrap_or(0)
    }
    fn enter_account(&self, account: u32) {
        *self.entered.borrow_mut().entry(account).or_insert(0) += 1;
    }
    fn collected(&self, _: u32) -> u32 {
        0
    }
    fn tick(&self) -> u32 {
        self.tick
    }
    fn socket(&self, _: &View, _: bool) -> Option<Socket> {
        None
    }
}
