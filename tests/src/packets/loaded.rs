//! The loaded programs as an [`Executor`]: frames by BPF_PROG_TEST_RUN, and what they left
//! behind read back from the maps.
//!
//! A test run can't set the clock, but the programs only ever compare it with ticks that stand
//! in the maps. So the file's clock is kept by moving those: whenever the real clock has gone
//! on, or the file waits, every tick in `FLOWS4`, `FLOWS6`, `FRAGMENTS`, `LINK_RATES`, `NEIGHBOURS` and `USAGE` is shifted,
//! and each entry has the age that the file says. The verdict can't tell the difference.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, HashMap, Map, MapData, MapError, RingBuf};
use netpol_abi::connection::TICK_SHIFT;
use netpol_abi::event::Event;
use netpol_abi::limits::{ENDPOINTS, FRAGMENT_SETS};
use netpol_abi::link::{LINK_RATES, LinkRate, NEIGHBOURS, Neighbour};
use netpol_abi::packet::{Arrival, Direction, ethertype};
use netpol_abi::tables::{
    Collected, Counter, Entered, Flow, FlowKey4, FlowKey6, FragmentSet, Usage, account,
};
use netpol_engine::plan::Step;
use netpold::datapath::flows::coarse_clock;
use netpold::datapath::wire::Wire;
use netpold::datapath::{Hook, Sizes};
use zerocopy::FromBytes as _;

use super::executor::{BEGINNING, Counters, Executor};
use super::frame::Bytes;
use super::scene::{LOOPBACK, STAMP_KEY};
use super::state::{State, datagrams};
use crate::kernel::InKernel;
use crate::time_scale::scaled;

/// Slots whose budgets are looked at: no endpoint's, and more than the scene has.
const SLOTS: u32 = 8;

/// What of a tick must be left for a step to begin: a step that takes longer is put right
/// afterwards, but its budget of reports may have started over.
const MARGIN: Duration = Duration::from_millis(60);

/// Bytes that a test run takes at most: a page less what the kernel needs beside them
/// (net/bpf/test_run.c, `bpf_test_init`).
const LONGEST: usize = 3520;

type Hash<K, V> = HashMap<MapData, Wire<K>, Wire<V>>;

/// The programs with tables of their own.
pub struct Loaded {
    kernel: InKernel,
    takes_arrivals: bool,
    flows4: Hash<FlowKey4, Flow>,
    flows6: Hash<FlowKey6, Flow>,
    fragments: Array<MapData, Wire<FragmentSet>>,
    link_rates: Array<MapData, Wire<LinkRate>>,
    neighbours: Array<MapData, Wire<Neighbour>>,
    usage: Array<MapData, Wire<Usage>>,
    entered: Array<MapData, Wire<Entered>>,
    collected: Array<MapData, Wire<Collected>>,
    ring: RingBuf<MapData>,
    /// What was in the ring.
    events: Vec<Event>,
    /// What the counters were at the file's beginning.
    base: Counters,
    /// The file's clock.
    tick: u32,
    /// The real clock's tick less the file's.
    offset: u32,
}

impl Loaded {
    /// Loads the programs, see [`super::executor::Modelled::new`].
    ///
    /// # Errors
    /// Without root, or when the kernel refuses.
    pub fn new(name: &str, share: u32, room: u32) -> Result<Self> {
        let mut kernel = InKernel::new(name, &|options| {
            options.flow_share = share;
            options.stamp_key = STAMP_KEY;
            options.sizes = Sizes {
                addresses: 64,
                prefixes: 64,
                verdicts: 64,
                port_blocks: 64,
                flows4: room,
                flows6: room,
            };
        })?;
        let mut loaded = Self {
            flows4: open(&kernel, "FLOWS4")?,
            flows6: open(&kernel, "FLOWS6")?,
            fragments: open(&kernel, "FRAGMENTS")?,
            link_rates: open(&kernel, "LINK_RATES")?,
            neighbours: open(&kernel, "NEIGHBOURS")?,
            usage: open(&kernel, "USAGE")?,
            entered: open(&kernel, "ENTERED")?,
            collected: open(&kernel, "COLLECTED")?,
            ring: open(&kernel, "EVENTS")?,
            events: Vec::new(),
            takes_arrivals: kernel.takes_arrivals()?,
            kernel,
            base: Counters::new(),
            tick: BEGINNING,
            offset: 0,
        };
        loaded.reset()?;
        Ok(loaded)
    }

    /// Forgets what packets left behind, for another file. Its tables are emptied already.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn reset(&mut self) -> Result<()> {
        clear(&mut self.flows4)?;
        clear(&mut self.flows6)?;
        for set in sets() {
            self.fragments.set(set, &Wire(FragmentSet::default()), 0)?;
        }
        self.tick = BEGINNING;
        self.offset = real_tick().wrapping_sub(BEGINNING);
        for index in elements(LINK_RATES) {
            let unused = LinkRate {
                tick: self.offset,
                ..LinkRate::default()
            };
            self.link_rates.set(index, &Wire(unused), 0)?;
        }
        for index in elements(NEIGHBOURS) {
            self.neighbours.set(index, &Wire(Neighbour::default()), 0)?;
        }
        for slot in 0..SLOTS {
            let unused = Usage {
                tick: self.offset,
                ..Usage::default()
            };
            self.usage.set(slot, &Wire(unused), 0)?;
            for account in [account(slot, 0), account(slot, 1)] {
                self.entered.set(account, &Wire(0), 0)?;
                self.collected.set(account, &Wire(0), 0)?;
            }
        }
        self.take_events()?;
        self.base = self.absolute()?;
        Ok(())
    }

    /// Why a test run of this kernel does not take one of these frames, while one of another kernel does.
    #[must_use]
    pub fn lacks(&self, frames: &[Bytes]) -> Option<&'static str> {
        let is_told = |frame: &Bytes| !frame.loopback && frame.arrival != Arrival::default();
        let lacks = !self.takes_arrivals && frames.iter().any(is_told);
        lacks.then_some("a test run of this kernel can't set the interface by which a frame came")
    }

    /// Why a test run does not take the frame, whichever kernel's.
    #[must_use]
    pub fn refuses(frame: &Bytes) -> Option<&'static str> {
        let length = frame.bytes.len();
        let least = match frame
            .bytes
            .get(12..14)
            .map(|kind| u16::from_be_bytes([kind[0], kind[1]]))
        {
            _ if frame.tagged => return Some("a test run can't set a VLAN tag beside the frame"),
            _ if frame.arrival.ifindex == 0 && frame.arrival.has_socket == 0 => {
                return Some("a packet of a test run has a socket");
            }
            _ if frame.sockets.connected => return Some("a test run has no sockets"),
            None => return Some("a test run takes no frame without an Ethernet header"),
            Some(ethertype::IPV4) => 34,
            Some(ethertype::IPV6) => 54,
            Some(_) => 14,
        };
        if length < least {
            return Some("a test run takes no frame without the whole IP header");
        }
        (length > LONGEST).then_some("a test run takes no frame of more than a page")
    }

    /// Moves the ticks in the maps so that each entry has the age that the file says.
    fn set_clock(&mut self) -> Result<()> {
        loop {
            let into = Duration::from_nanos(coarse_clock() & ((1 << TICK_SHIFT) - 1));
            let left = Duration::from_nanos(1 << TICK_SHIFT) - into;
            if left > scaled(MARGIN) {
                break;
            }
            thread::sleep(left);
        }
        let offset = real_tick().wrapping_sub(self.tick);
        let shift = offset.wrapping_sub(self.offset);
        self.offset = offset;
        if shift != 0 {
            self.each_tick(|tick| tick.wrapping_add(shift))?;
        }
        Ok(())
    }

    /// What was written since the clock was set, at whatever tick, was written now.
    fn settle_clock(&mut self) -> Result<()> {
        let now = self.tick.wrapping_add(self.offset);
        let late = real_tick().wrapping_sub(now);
        if late == 0 {
            return Ok(());
        }
        self.each_tick(|tick| {
            let ahead = tick.wrapping_sub(now);
            if ahead <= late { now } else { tick }
        })
    }

    fn each_tick(&mut self, change: impl Fn(u32) -> u32) -> Result<()> {
        each(&mut self.flows4, |flow| flow.seen = change(flow.seen))?;
        each(&mut self.flows6, |flow| flow.seen = change(flow.seen))?;
        for set in sets() {
            let mut places = self.fragments.get(&set, 0)?.0;
            let used = places.iter_mut().filter(|place| place.key.owner != 0);
            let mut any = false;
            for place in used {
                place.value.seen = change(place.value.seen);
                any = true;
            }
            if any {
                self.fragments.set(set, &Wire(places), 0)?;
            }
        }
        for index in elements(LINK_RATES) {
            let mut rate = self.link_rates.get(&index, 0)?.0;
            rate.tick = change(rate.tick);
            self.link_rates.set(index, &Wire(rate), 0)?;
        }
        for index in elements(NEIGHBOURS) {
            let mut neighbour = self.neighbours.get(&index, 0)?.0;
            if neighbour != Neighbour::default() {
                neighbour.tick = change(neighbour.tick);
                self.neighbours.set(index, &Wire(neighbour), 0)?;
            }
        }
        for slot in 0..SLOTS {
            let mut usage = self.usage.get(&slot, 0)?.0;
            usage.tick = change(usage.tick);
            self.usage.set(slot, &Wire(usage), 0)?;
        }
        Ok(())
    }

    /// Takes the records out of the ring, while the real clock is that of the file.
    fn read_ring(&mut self) -> Result<()> {
        while let Some(record) = self.ring.next() {
            ensure!(
                record.len() == size_of::<Event>(),
                "a record of {} bytes",
                record.len()
            );
            let (mut event, _) = Event::read_from_prefix(&record)
                .map_err(|_| anyhow::anyhow!("a record that is none"))?;
            let real = (event.time_ns >> TICK_SHIFT) as u32;
            // A step may end in the next tick, see `settle_clock`.
            event.time_ns = real.wrapping_sub(self.offset).min(self.tick).into();
            self.events.push(event);
        }
        Ok(())
    }

    /// The counters since the maps were made.
    fn absolute(&self) -> Result<Counters> {
        let mut counters = Counters::new();
        for count in self.kernel.kernel.counters.read()? {
            let direction = match count.direction {
                Hook::Ingress => Direction::Ingress,
                Hook::Egress => Direction::Egress,
            };
            let counter = Counter {
                packets: count.packets,
                bytes: count.bytes,
            };
            counters.insert((count.reason, direction), counter);
        }
        Ok(counters)
    }
}

impl Executor for Loaded {
    fn name(&self) -> &'static str {
        "the kernel"
    }
    fn apply(&mut self, steps: &[Step]) -> Result<()> {
        self.kernel.apply(steps)
    }
    fn see(&mut self, frame: &Bytes, direction: Direction) -> Result<bool> {
        if let Some(why) = Self::refuses(frame) {
            bail!("{why}");
        }
        // What is loaded with the first frame that needs it takes longer than a step may.
        if frame.loopback {
            let attachments = &mut self.kernel.kernel.attachments;
            attachments.program_of(LOOPBACK, Hook::Egress)?;
        } else if frame.arrival != Arrival::default() {
            self.kernel.arrived()?;
        }
        self.set_clock()?;
        let passes = if frame.loopback {
            self.kernel.passes_loopback(&frame.bytes, LOOPBACK)?
        } else if frame.arrival == Arrival::default() {
            self.kernel.passes(&frame.bytes, direction)?
        } else {
            self.kernel.passes_arrived(&frame.bytes, frame.arrival)?
        };
        self.settle_clock()?;
        self.read_ring()?;
        Ok(passes)
    }
    fn wait(&mut self, ticks: u32) {
        self.tick += ticks;
    }
    fn collect(&mut self) -> Result<()> {
        self.set_clock()?;
        let now = self.tick.wrapping_add(self.offset);
        self.kernel.kernel.flows.sweep(now)?;
        Ok(())
    }
    fn counters(&mut self) -> Result<Counters> {
        let mut counters = self.absolute()?;
        for (key, counter) in &mut counters {
            let base = self.base.get(key).copied().unwrap_or_default();
            counter.packets -= base.packets;
            counter.bytes -= base.bytes;
        }
        counters.retain(|_, counter| *counter != Counter::default());
        Ok(counters)
    }
    fn state(&mut self) -> Result<State> {
        self.set_clock()?;
        let offset = self.offset;
        let file = |tick: u32| tick.wrapping_sub(offset);
        let flow = |mut flow: Flow| {
            flow.seen = file(flow.seen);
            flow
        };
        let flows4 = entries(&self.flows4)?.into_iter();
        let flows6 = entries(&self.flows6)?.into_iter();
        let mut fragments = BTreeMap::new();
        for set in sets() {
            for (key, mut first) in datagrams(set, &self.fragments.get(&set, 0)?.0) {
                first.seen = file(first.seen);
                fragments.insert(key, first);
            }
        }
        let mut link_rates = BTreeMap::new();
        for index in elements(LINK_RATES) {
            let mut rate = self.link_rates.get(&index, 0)?.0;
            rate.tick = file(rate.tick);
            if rate != LinkRate::default() {
                link_rates.insert(index, rate);
            }
        }
        let mut neighbours = BTreeMap::new();
        for index in elements(NEIGHBOURS) {
            let mut neighbour = self.neighbours.get(&index, 0)?.0;
            if neighbour != Neighbour::default() {
                neighbour.tick = file(neighbour.tick);
                neighbours.insert(index, neighbour);
            }
        }
        let mut usages = BTreeMap::new();
        let mut accounts = BTreeMap::new();
        for slot in 0..SLOTS {
            let mut usage = self.usage.get(&slot, 0)?.0;
            usage.tick = file(usage.tick);
            if usage != Usage::default() {
                usages.insert(slot, usage);
            }
            for account in [account(slot, 0), account(slot, 1)] {
                let entered = self.entered.get(&account, 0)?.0 as u32;
                let collected = self.collected.get(&account, 0)?.0;
                if (entered, collected) != (0, 0) {
                    accounts.insert(account, (entered, collected));
                }
            }
        }
        Ok(State {
            tick: self.tick,
            flows: flows4
                .map(|(key, value)| (key.into(), flow(value)))
                .chain(flows6.map(|(key, value)| (key.into(), flow(value))))
                .collect(),
            fragments,
            counters: self.counters()?,
            link_rates,
            neighbours,
            usage: usages,
            accounts,
        })
    }
    fn take_events(&mut self) -> Result<Vec<Event>> {
        self.read_ring()?;
        Ok(std::mem::take(&mut self.events))
    }
}

/// The sets of datagrams that the scene's senders have: endpoints, and strangers.
fn sets() -> impl Iterator<Item = u32> {
    (0..SLOTS).chain(ENDPOINTS..FRAGMENT_SETS)
}

/// The elements of the scene's slots in a map that has `all` for all slots.
fn elements(all: u32) -> std::ops::Range<u32> {
    0..SLOTS * (all / ENDPOINTS)
}

fn real_tick() -> u32 {
    (coarse_clock() >> TICK_SHIFT) as u32
}

fn open<T: TryFrom<Map, Error = MapError>>(kernel: &InKernel, name: &'static str) -> Result<T> {
    let open = || T::try_from(Map::from_map_data(MapData::from_pin(kernel.map(name))?)?);
    open().with_context(|| format!("map `{name}`"))
}

fn entries<K, V>(map: &Hash<K, V>) -> Result<Vec<(K, V)>>
where
    K: Copy,
    V: Copy,
    Wire<K>: aya::Pod,
    Wire<V>: aya::Pod,
{
    let entries: Result<Vec<_>, _> = map.iter().collect();
    let entries = entries?.into_iter();
    Ok(entries.map(|(key, value)| (key.0, value.0)).collect())
}

fn each<K, V>(map: &mut Hash<K, V>, change: impl Fn(&mut V)) -> Result<()>
where
    K: Copy,
    V: Copy,
    Wire<K>: aya::Pod,
    Wire<V>: aya::Pod,
{
    for (key, mut value) in entries(map)? {
        change(&mut value);
        map.insert(&Wire(key), &Wire(value), 0)?;
    }
    Ok(())
}

fn clear<K, V>(map: &mut Hash<K, V>) -> Result<()>
where
    K: Copy,
    V: Copy,
    Wire<K>: aya::Pod,
    Wire<V>: aya::Pod,
{
    for (key, _) in entries(map)? {
        map.remove(&Wire(key))?;
    }
    Ok(())
}
