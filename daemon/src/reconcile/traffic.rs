//! What the packets do: reports become flows, and connections that timed out are swept.
//!
//! Reports are named by the state that was in force when they were made, or the next one that
//! is known. Nothing runs while nothing passes: the sweeper sleeps until a connection can time out,
//! and without one until a report says that there is one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use netpol_abi::Reason;
use netpol_abi::connection::TICK_SHIFT;
use netpol_abi::event::{Event, Kind};
use tokio::sync::{mpsc, watch};

use super::control::Applied;
use crate::datapath::events::Events;
use crate::datapath::flows::{FlowTables, Sweep, coarse_clock};
use crate::datapath::maps::MapsError;
use crate::datapath::tables::Fill;
use crate::flows::{Clock, Namer, Recorder};

/// A tick of the connections' clock.
const TICK: Duration = Duration::from_nanos(1 << TICK_SHIFT);
/// The first sweep after a time without connections.
const FIRST: Duration = Duration::from_secs(30);
/// Between two sweeps for a full table.
const PRESSED: Duration = Duration::from_secs(1);
/// How long a report waits for the names of its generation.
const NAMES: Duration = Duration::from_millis(250);

/// The names of one state, and its generation.
#[derive(Clone, Debug)]
pub struct Naming {
    /// The generation from which on they hold.
    pub generation: u64,
    /// The names.
    pub namer: Arc<Namer>,
}

/// Gives the names by which packets are reported.
pub struct PacketNames {
    node: String,
    naming: watch::Sender<Naming>,
}

impl PacketNames {
    /// Names nothing, until there is something in force. `node`: this host's name.
    #[must_use]
    pub fn new(node: String, generation: u64) -> (Self, watch::Receiver<Naming>) {
        let namer = Namer::new(node.clone(), Arc::default(), Arc::default());
        let (naming, names) = watch::channel(Naming {
            generation,
            namer: Arc::new(namer),
        });
        (Self { node, naming }, names)
    }

    /// Names packets from now on by what is in force.
    pub fn change(&self, applied: &Applied) {
        let (world, names) = (Arc::clone(&applied.world), Arc::clone(&applied.names));
        self.naming.send_replace(Naming {
            generation: applied.generation,
            namer: Arc::new(Namer::new(self.node.clone(), world, names)),
        });
    }
}

/// A packet was dropped because it claimed an address that is not known to be its endpoint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The endpoint's number.
    pub endpoint: u32,
    /// The address; `None`: the report does not say.
    pub address: Option<IpAddr>,
}

/// Claims that wait to be looked at; those beyond are lost: the packet comes again.
pub const CLAIMS: usize = 64;

/// Why to sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// A connection was opened, and the next sweep is far.
    First,
    /// A table is full, or an endpoint was removed.
    Now,
}

/// Wakes the sweeper.
#[derive(Clone, Debug)]
pub struct Waker {
    causes: Sender<Cause>,
    asleep: Arc<AtomicBool>,
}

impl Waker {
    /// Sweep now: an endpoint was removed, or a table is full.
    pub fn now(&self) {
        // It ends with the daemon alone.
        let _ = self.causes.send(Cause::Now);
    }

    fn traffic(&self) {
        if self.asleep.swap(false, Ordering::Relaxed) {
            let _ = self.causes.send(Cause::First);
        }
    }
}

/// Starts the sweeper's thread.
///
/// # Errors
/// The system gives no thread.
pub fn sweep(flows: FlowTables) -> std::io::Result<(Waker, watch::Receiver<Vec<Fill>>)> {
    let (causes, inbox) = channel();
    let (fill, filled) = watch::channel(Vec::new());
    let asleep = Arc::new(AtomicBool::new(false));
    let waker = Waker {
        causes,
        asleep: Arc::clone(&asleep),
    };
    thread::Builder::new()
        .name("sweeper".to_owned())
        .spawn(move || sweeper(flows, &inbox, &fill, &asleep))?;
    Ok((waker, filled))
}

fn sweeper(
    mut flows: FlowTables,
    inbox: &Receiver<Cause>,
    fill: &watch::Sender<Vec<Fill>>,
    asleep: &AtomicBool,
) {
    loop {
        let pause = match sweep_once(&mut flows) {
            Ok(sweep) => {
                fill.send_replace(sweep.fill.to_vec());
                sweep.pause(TICK)
            }
            Err(error) => {
                tracing::error!(%error, "connections that timed out can't be removed");
                Some(FIRST)
            }
        };
        // What is opened meanwhile may end long before the next sweep.
        let sleeps = pause.is_none_or(|pause| pause > FIRST);
        asleep.store(sleeps, Ordering::Relaxed);
        if !wait(inbox, pause) {
            return;
        }
    }
}

/// Sleeps until the next sweep. False: the daemon has ended.
fn wait(inbox: &Receiver<Cause>, pause: Option<Duration>) -> bool {
    let swept = Instant::now();
    let mut until = pause.map(|pause| swept + pause);
    loop {
        let cause = match until {
            Some(until) => inbox.recv_timeout(until.saturating_duration_since(Instant::now())),
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let sooner = match cause {
            Ok(Cause::First) => Instant::now() + FIRST,
            Ok(Cause::Now) => swept + PRESSED,
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        };
        until = Some(until.map_or(sooner, |until| until.min(sooner)));
    }
}

/// Removes what timed out, and what belongs to endpoints that are no more.
///
/// # Errors
/// A table can't be read.
pub fn sweep_once(flows: &mut FlowTables) -> Result<Sweep, MapsError> {
    let now = (coarse_clock() >> TICK_SHIFT) as u32;
    flows.sweep(now)
}

/// Reads reports for as long as the daemon lives.
pub async fn report(
    mut events: Events,
    mut naming: watch::Receiver<Naming>,
    recorder: Arc<Recorder>,
    waker: Waker,
    claims: mpsc::Sender<Claim>,
) {
    let mut batch = Vec::new();
    loop {
        batch.clear();
        if let Err(error) = events.next(&mut batch).await {
            tracing::error!(%error, "the kernel's reports can't be read: no flows from now on");
            return;
        }
        let newest = batch.iter().map(|event| event.generation).max();
        let known = naming.wait_for(|naming| Some(naming.generation) >= newest);
        // Too late, or the loop has ended: the names of before are better than none.
        let _ = tokio::time::timeout(NAMES, known).await;
        let namer = Arc::clone(&naming.borrow_and_update().namer);
        // Suspend moves the clocks against each other.
        let clock = match Clock::read() {
            Ok(clock) => clock,
            Err(error) => {
                tracing::error!(%error, "there is no clock");
                continue;
            }
        };
        // One flood is one claim.
        let claimed: BTreeSet<Claim> = batch.iter().filter_map(claim).collect();
        for claim in claimed {
            // The loop has enough of them.
            let _ = claims.try_send(claim);
        }
        for event in &batch {
            wake(event, &waker);
            if let Some(flow) = namer.flow(event, clock) {
                recorder.record(flow);
            }
        }
        // A flood of reports must not keep the loop from its work.
        tokio::task::yield_now().await;
    }
}

/// What a report says that netpold may not know yet: an engine gives an address before it tells of it.
fn claim(event: &Event) -> Option<Claim> {
    let is_claim = matches!(
        Reason::from_number(event.reason),
        Some(Reason::SpoofedAddress | Reason::ForgedArp | Reason::ForgedNd)
    );
    let passed = Kind::from_number(event.kind) == Some(Kind::Opened);
    if !is_claim || passed || event.endpoint == 0 {
        return None;
    }
    let address = match event.version {
        4 => {
            let [a, b, c, d, ..] = event.source;
            Some(IpAddr::from([a, b, c, d]))
        }
        6 => Some(IpAddr::from(event.source)),
        _ => event.arp_ends().map(|(source, _)| source.into()),
    };
    Some(Claim {
        endpoint: event.endpoint,
        address: address.filter(|address| !address.is_unspecified()),
    })
}

fn wake(event: &Event, waker: &Waker) {
    if matches!(
        Kind::from_number(event.kind),
        Some(Kind::Opened | Kind::Audited)
    ) {
        waker.traffic();
    }
    if matches!(
        Reason::from_number(event.reason),
        Some(Reason::FlowTableFull | Reason::FlowShareFull)
    ) {
        waker.now();
    }
}

#[cfg(test)]
mod tests {
    use netpol_abi::packet::ethertype;

    use super::*;

    #[test]
    fn only_a_drop_of_what_an_endpoint_says_to_be_is_a_claim() {
        let event = |reason: Reason| {
            let mut event = Event {
                endpoint: 7,
                version: 4,
                kind: Kind::Dropped as u8,
                reason: reason as u8,
                ..Event::default()
            };
            event.source[..4].copy_from_slice(&[10, 0, 0, 1]);
            event
        };
        let of = |event: &Event| claim(event).map(|claim| (claim.endpoint, claim.address));
        let address = Some(IpAddr::from([10, 0, 0, 1]));
        assert_eq!(of(&event(Reason::SpoofedAddress)), Some((7, address)));
        assert_eq!(of(&event(Reason::PolicyDenied)), None);
        let arp = Event {
            version: 0,
            ..event(Reason::ForgedArp)
        };
        // Of another ethertype, and not read.
        assert_eq!(of(&arp), Some((7, None)));
        let arp = Event {
            ethertype: ethertype::ARP,
            ..arp
        };
        assert_eq!(of(&arp), Some((7, address)));
        // A probe names no sender.
        let mut probe = Event {
            source: [0; 16],
            ..arp
        };
        assert_eq!(of(&probe), Some((7, None)));
        probe.destination = arp.source;
        assert_eq!(of(&probe), Some((7, address)));
        let unidentified = Event {
            endpoint: 0,
            ..event(Reason::SpoofedAddress)
        };
        assert_eq!(of(&unidentified), None);
    }
}
