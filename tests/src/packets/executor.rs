//! Who carries a packet file out: the model in user space, and the loaded programs under
//! BPF_PROG_TEST_RUN ([`super::loaded`]). Both give what happened in one form.
//!
//! The clock is the file's: it stands still but for `wait`, and begins at [`BEGINNING`].

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use netpol_abi::Reason;
use netpol_abi::connection::{State as Phase, TICK_SHIFT, Timeout, default_timeouts};
use netpol_abi::event::Event;
use netpol_abi::packet::Direction;
use netpol_abi::tables::{Counter, Flow, stamp_key};
use netpol_engine::model::MapImage;
use netpol_engine::model::packets::{Datapath, Seen};
use netpol_engine::plan::Step;

use super::frame::Bytes;
use super::scene::{INTERFACE, LOOPBACK, STAMP_KEY};
use super::state::{Effect, Fate, State, datagrams};

/// The clock's first tick. Not 0, which an empty table's entries have.
pub const BEGINNING: u32 = 1000;

/// Counters by reason and direction.
pub type Counters = BTreeMap<(Reason, Direction), Counter>;

/// What a packet file asks of a datapath.
pub trait Executor {
    /// As it stands in messages.
    fn name(&self) -> &'static str;
    /// Takes the steps of a plan.
    ///
    /// # Errors
    /// One can't be done.
    fn apply(&mut self, steps: &[Step]) -> Result<()>;
    /// Sees a frame on the box's interface; does it go on?
    ///
    /// # Errors
    /// It could not be shown.
    fn see(&mut self, frame: &Bytes, direction: Direction) -> Result<bool>;
    /// Lets time pass.
    fn wait(&mut self, ticks: u32);
    /// Removes what timed out, which is the daemon's part.
    ///
    /// # Errors
    /// The tables can't be read or written.
    fn collect(&mut self) -> Result<()>;
    /// The counters that moved since the beginning.
    ///
    /// # Errors
    /// They can't be read.
    fn counters(&mut self) -> Result<Counters>;
    /// All that packets left behind.
    ///
    /// # Errors
    /// The tables can't be read.
    fn state(&mut self) -> Result<State>;
    /// What was reported since the last call; the time of each is the file's tick.
    ///
    /// # Errors
    /// The ring can't be read.
    fn take_events(&mut self) -> Result<Vec<Event>>;
}

/// Shows the frames, one after the other, and says what they did.
///
/// # Errors
/// A frame could not be shown, or does not move exactly one counter, by one packet and its bytes.
pub fn show(executor: &mut dyn Executor, frames: &[Bytes], direction: Direction) -> Result<Effect> {
    let before = executor.state()?;
    let mut counters = before.counters.clone();
    let mut fates = Vec::with_capacity(frames.len());
    for frame in frames {
        let passes = executor.see(frame, direction)?;
        let next = executor.counters()?;
        let reason = moved(&counters, &next, frame.bytes.len() as u64, direction)?;
        counters = next;
        fates.push(Fate { reason, passes });
    }
    Ok(Effect {
        fates,
        events: executor.take_events()?,
        before,
        after: executor.state()?,
    })
}

/// The reason that one frame was counted under.
fn moved(before: &Counters, after: &Counters, length: u64, direction: Direction) -> Result<Reason> {
    let mut reasons = Vec::new();
    for (key, counter) in after {
        let earlier = before.get(key).copied().unwrap_or_default();
        if *counter != earlier {
            let one = Counter {
                packets: earlier.packets + 1,
                bytes: earlier.bytes + length,
            };
            ensure!(
                *counter == one && key.1 == direction,
                "{key:?} moves from {earlier:?} to {counter:?} for one frame of {length} bytes"
            );
            reasons.push(key.0);
        }
    }
    ensure!(
        reasons.len() == 1,
        "one frame moves one counter, not {reasons:?}"
    );
    Ok(reasons[0])
}

/// How long an idle connection is kept: the configuration's defaults.
#[must_use]
pub fn lifetime(flow: &Flow, protocol: u8) -> u32 {
    let timeout = Timeout::for_state(protocol, Phase::from_number(flow.state));
    default_timeouts()[timeout as usize]
}

/// The elements that are not as they were made.
fn used<T: Default + PartialEq>(elements: Vec<(u32, T)>) -> BTreeMap<u32, T> {
    let elements = elements.into_iter();
    elements
        .filter(|(_, element)| *element != T::default())
        .collect()
}

/// The model.
pub struct Modelled {
    datapath: Datapath,
}

impl Modelled {
    /// Without tables; with the share of connections that each endpoint has, and the room that
    /// the table has for each family.
    #[must_use]
    pub fn new(share: u32, room: u32) -> Self {
        let mut datapath = Datapath::new(MapImage::default());
        let control = &mut datapath.banks.control;
        control.flow_share = share;
        control.flow_rooms = [room; 2];
        control.timeouts = default_timeouts();
        control.since = BEGINNING;
        control.stamp_key = stamp_key(STAMP_KEY);
        datapath.limit_flows(room as usize);
        datapath.tick = BEGINNING;
        Self { datapath }
    }
}

impl Executor for Modelled {
    fn name(&self) -> &'static str {
        "the model"
    }
    fn apply(&mut self, steps: &[Step]) -> Result<()> {
        for step in steps {
            self.datapath.banks.apply(step);
        }
        Ok(())
    }
    fn see(&mut self, frame: &Bytes, direction: Direction) -> Result<bool> {
        if frame.loopback {
            return Ok(self.datapath.question(frame, LOOPBACK).passes);
        }
        self.datapath.sockets = frame.sockets;
        let seen = self.datapath.see(frame, direction, INTERFACE);
        if seen == Seen::Shortly {
            // The whole verdict says the same, and has nothing to change any more.
            let before = self.state()?;
            let outcome = self.datapath.judge(frame, direction, INTERFACE);
            ensure!(
                outcome.reason == Reason::Established && outcome.passes && !outcome.opened,
                "the short way lets pass what the whole verdict does not: {outcome:?}"
            );
            ensure!(
                self.state()? == before,
                "the short way leaves something out"
            );
        }
        Ok(seen.passes())
    }
    fn wait(&mut self, ticks: u32) {
        self.datapath.tick += ticks;
    }
    fn collect(&mut self) -> Result<()> {
        self.datapath.collect();
        Ok(())
    }
    fn counters(&mut self) -> Result<Counters> {
        Ok(self.datapath.counters())
    }
    fn state(&mut self) -> Result<State> {
        let datapath = &self.datapath;
        let flows4 = datapath.flows4().into_iter();
        let flows6 = datapath.flows6().into_iter();
        let sets = datapath.fragment_sets().into_iter();
        Ok(State {
            tick: datapath.tick,
            flows: flows4
                .map(|(key, flow)| (key.into(), flow))
                .chain(flows6.map(|(key, flow)| (key.into(), flow)))
                .collect(),
            fragments: sets
                .flat_map(|(set, places)| datagrams(set, &places))
                .collect(),
            counters: datapath.counters(),
            usage: used(datapath.usages()),
            link_rates: used(datapath.link_rates()),
            neighbours: used(datapath.neighbours()),
            // One that was given back whole is as one that was never used.
            accounts: datapath
                .accounts()
                .into_iter()
                .filter(|(_, account)| *account != (0, 0))
                .collect(),
        })
    }
    fn take_events(&mut self) -> Result<Vec<Event>> {
        let mut events = self.datapath.take_events();
        for event in &mut events {
            event.time_ns >>= TICK_SHIFT;
        }
        Ok(events)
    }
}
