//! The packet's part of the model: the very verdict that the programs run
//! ([`netpol_abi::judge`]), over [`MapImage`] and connections in ordered maps, and what they
//! count and report of it ([`netpol_abi::report`]).
//!
//! For tests, and for trying a packet without a kernel. Time is what the caller says.

mod store;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netpol_abi::Reason;
use netpol_abi::connection::{State, TICK_SHIFT, Timeout};
use netpol_abi::event::Event;
use netpol_abi::judge::{self, Outcome, ParsedFrame, Subprograms, Tables};
use netpol_abi::link::{LinkRate, Neighbour};
use netpol_abi::packet::{Direction, Frame, Socket};
use netpol_abi::report::{self, Sighting};
use netpol_abi::tables::{
    AddressBank, Collected, Control, Counter, Endpoint, Flow, FlowKey4, FlowKey6, FragmentCursor,
    FragmentSet, Interface, Leave, PortBlock, Prefix, PublishedBank, PublishedKey, SenderAddress,
    Usage, Verdict, VerdictKey, account,
};

use self::store::Store;
use super::MapImage;
use crate::plan::both_banks;

/// A host's datapath: what policy decides, and what packets have done.
#[derive(Default)]
pub struct Datapath {
    /// What policy decides.
    pub banks: MapImage,
    /// The coarse clock, in ticks.
    pub tick: u32,
    flows4: Store<FlowKey4, Flow>,
    flows6: Store<FlowKey6, Flow>,
    /// The sockets that the endpoint has for the frames to come.
    pub sockets: Sockets,
    fragments: Store<u32, FragmentSet>,
    cursors: Store<u32, FragmentCursor>,
    link_rates: Store<u32, LinkRate>,
    neighbours: Store<u32, Neighbour>,
    usage: Store<u32, Usage>,
    entered: RefCell<BTreeMap<u32, u32>>,
    collected: BTreeMap<u32, Collected>,
    counters: RefCell<BTreeMap<(Reason, Direction), Counter>>,
    events: RefCell<Vec<Event>>,
}

/// The sockets of an endpoint that a packet may belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    /// One is connected to the packet's peer.
    pub connected: bool,
    /// One listens at the packet's port of the endpoint.
    pub listening: bool,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It belongs to an established connection, and needed no verdict.
    Shortly,
    /// It was judged.
    Judged(Outcome),
}

impl Seen {
    /// Why it passes or does not.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Shortly => Reason::Established,
            Self::Judged(outcome) => outcome.reason,
        }
    }

    /// Does it go on?
    #[must_use]
    pub const fn passes(&self) -> bool {
        match self {
            Self::Shortly => true,
            Self::Judged(outcome) => outcome.passes,
        }
    }
}

impl Datapath {
    /// A datapath with these banks and no connections.
    #[must_use]
    pub fn new(banks: MapImage) -> Self {
        Self {
            banks,
            ..Self::default()
        }
    }

    /// Bounds the connections of each family.
    pub fn limit_flows(&mut self, limit: usize) {
        self.flows4.limit = limit;
        self.flows6.limit = limit;
    }

    /// Judges a frame on the interface by the whole verdict, and reports nothing.
    pub fn judge<F: Frame>(&self, frame: &F, direction: Direction, ifindex: u32) -> Outcome {
        judge::judge(self, frame, direction, ifindex, &mut ParsedFrame::default())
    }

    /// Sees a frame on the interface, as a program does: by the short way where there is one,
    /// else judges; counts, reports.
    pub fn see<F: Frame>(&self, frame: &F, direction: Direction, ifindex: u32) -> Seen {
        let sighting = Sighting {
            time_ns: u64::from(self.tick) << TICK_SHIFT,
            ifindex,
            length: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            direction,
        };
        if judge::is_established(self, frame, direction, ifindex).is_some() {
            self.count(Reason::Established, &sighting);
            return Seen::Shortly;
        }
        let mut parsed = ParsedFrame::default();
        let outcome = judge::judge(self, frame, direction, ifindex, &mut parsed);
        self.count(outcome.reason, &sighting);
        self.report(&outcome, &parsed, &sighting);
        Seen::Judged(outcome)
    }

    /// Sees a packet to the engine's resolver on an endpoint's loopback interface, as the program there does.
    pub fn question<F: Frame>(&self, frame: &F, number: u32) -> Outcome {
        let sighting = Sighting {
            time_ns: u64::from(self.tick) << TICK_SHIFT,
            ifindex: number,
            length: u32::try_from(frame.len()).unwrap_or(u32::MAX),
            direction: Direction::Egress,
        };
        let mut parsed = ParsedFrame::default();
        let read = judge::read(frame, &mut parsed);
        judge::find_asking_endpoint(self, number, &mut parsed);
        let mut room = MaybeUninit::uninit();
        let outcome = *judge::question(self, &parsed, read, &mut room);
        self.count(outcome.reason, &sighting);
        self.report(&outcome, &parsed, &sighting);
        outcome
    }

    fn count(&self, reason: Reason, seen: &Sighting) {
        let mut counters = self.counters.borrow_mut();
        let counter = counters.entry((reason, seen.direction)).or_default();
        counter.packets += 1;
        counter.bytes += u64::from(seen.length);
    }

    fn report(&self, outcome: &Outcome, parsed: &ParsedFrame, seen: &Sighting) {
        let Some(kind) = report::kind(outcome) else {
            return;
        };
        self.usage.enter(&outcome.slot, &Usage::default());
        let Some(cell) = self.usage.get(&outcome.slot) else {
            return;
        };
        let mut usage = cell.get();
        if report::spend(&mut usage, kind, self.tick) {
            let mut event = Event::default();
            report::fill(&mut event, kind, outcome, parsed, seen);
            self.events.borrow_mut().push(event);
        } else {
            usage.suppressed = usage.suppressed.wrapping_add(1);
        }
        cell.set(usage);
    }

    /// Removes what timed out, and settles the accounts: the daemon's part.
    pub fn collect(&mut self) {
        let expired = |owner: u32, flow: &Flow| {
            let timeout = Timeout::for_state((owner & 0xff) as u8, State::from_number(flow.state));
            let age = self.tick.wrapping_sub(flow.seen);
            age >= self.banks.control.timeout(timeout)
        };
        let mut held: BTreeMap<u32, u32> = BTreeMap::new();
        let mut hold = |family, flow: &Flow| {
            for slot in [0, flow.payer_slot()] {
                *held.entry(account(slot, family)).or_default() += 1;
            }
        };
        for (key, flow) in self.flows4.entries() {
            if expired(key.owner, &flow) {
                self.flows4.remove(&key);
            } else {
                hold(0, &flow);
            }
        }
        for (key, flow) in self.flows6.entries() {
            if expired(key.owner, &flow) {
                self.flows6.remove(&key);
            } else {
                hold(1, &flow);
            }
        }
        for (account, entered) in self.entered.get_mut() {
            let held = held.get(account).copied().unwrap_or(0);
            self.collected.insert(*account, entered.wrapping_sub(held));
        }
    }

    /// `FLOWS4`.
    #[must_use]
    pub fn flows4(&self) -> Vec<(FlowKey4, Flow)> {
        self.flows4.entries()
    }

    /// `FLOWS6`.
    #[must_use]
    pub fn flows6(&self) -> Vec<(FlowKey6, Flow)> {
        self.flows6.entries()
    }

    /// `FRAGMENTS`, the sets that were ever used.
    #[must_use]
    pub fn fragment_sets(&self) -> Vec<(u32, FragmentSet)> {
        self.fragments.entries()
    }

    /// `LINK_RATES`, the elements that were ever used.
    #[must_use]
    pub fn link_rates(&self) -> Vec<(u32, LinkRate)> {
        self.link_rates.entries()
    }

    /// `NEIGHBOURS`, the elements that were ever used.
    #[must_use]
    pub fn neighbours(&self) -> Vec<(u32, Neighbour)> {
        self.neighbours.entries()
    }

    /// `USAGE`, the slots that were ever used.
    #[must_use]
    pub fn usages(&self) -> Vec<(u32, Usage)> {
        self.usage.entries()
    }

    /// `ENTERED` and `COLLECTED`, the accounts that were ever used.
    #[must_use]
    pub fn accounts(&self) -> BTreeMap<u32, (u32, Collected)> {
        let entered = self.entered.borrow();
        let collected = |account| self.collected.get(account).copied().unwrap_or(0);
        let accounts = entered.iter();
        accounts
            .map(|(account, entered)| (*account, (*entered, collected(account))))
            .collect()
    }

    /// `COUNTERS`, those that ever moved.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<(Reason, Direction), Counter> {
        self.counters.borrow().clone()
    }

    /// What was reported since the last call.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        self.events.take()
    }

    fn leave_of(&self, slot: u32, address: IpAddr) -> Option<&Leave> {
        let leaves = self.banks.leaves.iter();
        let (_, leave) = leaves
            .filter(|((other, net), _)| *other == slot && net.contains(&address))
            .max_by_key(|((_, net), _)| net.prefix_len())?;
        Some(leave)
    }

    fn prefix(&self, address: IpAddr) -> Option<&Prefix> {
        let longest = |(net, _): &(&IpNet, &Prefix)| net.prefix_len();
        let prefixes = self.banks.prefixes.iter();
        let (_, prefix) = prefixes
            .filter(|(net, _)| net.contains(&address))
            .max_by_key(longest)?;
        Some(prefix)
    }
}

impl Tables for Datapath {
    fn control(&self) -> Option<&Control> {
        Some(&self.banks.control)
    }
    fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.banks.interfaces.get(&ifindex)
    }
    fn endpoint(&self, slot: u32) -> Option<&Endpoint> {
        self.banks.endpoints.get(&slot)
    }
    fn address4(&self, address: &[u8; 4], bank: usize) -> Option<AddressBank> {
        let found = self.banks.addresses.get(&Ipv4Addr::from(*address).into());
        found.map(|found| found.bank(bank))
    }
    fn address6(&self, address: &[u8; 16], bank: usize) -> Option<AddressBank> {
        let found = self.banks.addresses.get(&Ipv6Addr::from(*address).into());
        found.map(|found| found.bank(bank))
    }
    fn sender(&self, key: u32) -> Option<&SenderAddress> {
        self.banks.senders.get(&key)
    }
    fn prefix4(&self, address: &[u8; 4]) -> Option<&Prefix> {
        self.prefix(Ipv4Addr::from(*address).into())
    }
    fn prefix6(&self, address: &[u8; 16]) -> Option<&Prefix> {
        self.prefix(Ipv6Addr::from(*address).into())
    }
    fn leave4(&self, slot: u32, address: u32) -> Option<&Leave> {
        self.leave_of(slot, Ipv4Addr::from_bits(address).into())
    }
    fn leave6(&self, slot: u32, high: u64, low: u64) -> Option<&Leave> {
        let address = u128::from(high) << 64 | u128::from(low);
        self.leave_of(slot, Ipv6Addr::from_bits(address).into())
    }
    fn published(
        &self,
        first: u64,
        second: u64,
        service: u32,
        bank: usize,
    ) -> Option<PublishedBank> {
        let whole = u128::from(second) << 64 | u128::from(first);
        let key = PublishedKey {
            address: whole.to_le_bytes(),
            service,
            reserved: 0,
        };
        let found = self.banks.published.get(&both_banks::published_at(&key));
        found.map(|found| found.banks[bank])
    }
    fn verdict(&self, key: &VerdictKey) -> Option<&Verdict> {
        self.banks.verdicts.get(key)
    }
    fn port_block(&self, id: u64) -> Option<&PortBlock> {
        self.banks.port_blocks.get(&id)
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
        self.fragments.enter(&set, &FragmentSet::default());
        self.fragments.get(&set)
    }
    fn fragment_cursor(&self, set: u32) -> Option<&Cell<FragmentCursor>> {
        self.cursors.enter(&set, &0);
        self.cursors.get(&set)
    }
    fn link_rate(&self, index: u32) -> Option<&Cell<LinkRate>> {
        self.link_rates.enter(&index, &LinkRate::default());
        self.link_rates.get(&index)
    }
    fn neighbour(&self, index: u32) -> Option<&Cell<Neighbour>> {
        self.neighbours.enter(&index, &Neighbour::default());
        self.neighbours.get(&index)
    }
    fn entered(&self, account: u32) -> u32 {
        self.entered.borrow().get(&account).copied().unwrap_or(0)
    }
    fn enter_account(&self, account: u32) {
        let mut entered = self.entered.borrow_mut();
        let entered = entered.entry(account).or_default();
        *entered = entered.wrapping_add(1);
    }
    fn leave_account(&self, account: u32) {
        let mut entered = self.entered.borrow_mut();
        let entered = entered.entry(account).or_default();
        *entered = entered.wrapping_sub(1);
    }
    fn collected(&self, account: u32) -> u32 {
        self.collected.get(&account).copied().unwrap_or(0)
    }
    fn tick(&self) -> u32 {
        self.tick
    }
}

impl Subprograms for Datapath {
    fn socket(&self, _: &ParsedFrame, listens: bool) -> Option<Socket> {
        let (is_there, socket) = if listens {
            (self.sockets.listening, Socket::Listening)
        } else {
            (self.sockets.connected, Socket::Connected)
        };
        is_there.then_some(socket)
    }
}
