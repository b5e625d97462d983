//! Takes connections that timed out, or whose endpoint is no more, out of the kernel's
//! tables, and keeps the account of what each endpoint holds.
//!
//! The account: the programs count what they enter at whose expense (`ENTERED`). Each sweep
//! sets `COLLECTED`, which the daemon alone writes, to whatever makes `entered - collected`
//! what was really found, so an error lasts until the next sweep at most. Both wrap.
//!
//! Times are ticks of the coarse monotonic clock, wrapping. A sweep reads every connection
//! (about 1 µs each): it belongs on a thread of its own. Between sweeps nothing runs; the
//! caller sleeps until [`Sweep::next`], and sweeps sooner when an endpoint was removed
//! or a report says that a table is full.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::{Array, MapData, MapError};
use netpol_abi::connection::{State, TIMEOUTS, Timeout, age};
use netpol_abi::limits::ACCOUNTS;
use netpol_abi::tables::{Collected, Endpoint, Entered, Flow, FlowKey4, FlowKey6, account};
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};

use super::maps::{self, Hash, MapsError, Opener};
use super::pins::Lock;
use super::tables::Fill;
use super::wire::Wire;

/// The connection tables and what accounts for them.
pub struct FlowTables {
    flows4: Hash<FlowKey4, Flow>,
    flows6: Hash<FlowKey6, Flow>,
    endpoints: Array<MapData, Wire<Endpoint>>,
    entered: Array<MapData, Entered>,
    collected: Array<MapData, Collected>,
    rooms: [u32; 2],
    timeouts: [u32; TIMEOUTS],
    /// Connections that one endpoint may hold, in each table.
    share: u32,
    _lock: Arc<Lock>,
}

/// What a sweep did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// Connections removed.
    pub removed: u32,
    /// Ticks until the next connection times out; `None`: there is none. A connection
    /// that is entered later lasts at least as long as the shortest timeout.
    pub next: Option<u32>,
    /// How full the two tables are now.
    pub fill: [Fill; 2],
    /// Connections that are charged to each endpoint (by its slot), both families together.
    pub held: BTreeMap<u32, u32>,
    /// How long it took.
    pub took: Duration,
}

/// No sweep sooner after the last than this, so that expiries that follow each other
/// closely share one.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);

impl Sweep {
    /// How long to sleep until the next sweep; `None`: until something is reported.
    /// `tick` is the length of one. A large table is swept the less often: what takes long
    /// gets at most a twentieth of one CPU.
    #[must_use]
    pub fn pause(&self, tick: Duration) -> Option<Duration> {
        let expiry = tick.saturating_mul(self.next?);
        Some(expiry.max(SHORTEST_PAUSE).max(self.took * 20))
    }
}

/// The clock that the programs read (`bpf_ktime_get_coarse_ns`), in nanoseconds.
#[must_use]
pub fn coarse_clock() -> u64 {
    // The clock always exists; a time before 0 does not.
    let time =
        clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Duration::from);
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What is to become of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Expired,
    /// Ticks that it has left if nothing comes.
    Left(u32),
}

/// Wrapping ticks: `seen` may lie a little in the future, as the programs go on meanwhile.
fn fate(now: u32, seen: u32, lifetime: u32) -> Fate {
    match lifetime.checked_sub(age(now, seen)) {
        Some(left) if left > 0 => Fate::Left(left),
        _ => Fate::Expired,
    }
}

/// One table's share of a sweep.
#[derive(Debug, Default)]
struct Pass {
    entries: u32,
    removed: u32,
    next: Option<u32>,
    /// By the slot that they are charged to.
    held: HashMap<u32, u32>,
}

/// What a connection's fate depends on.
struct Sight {
    now: u32,
    /// Numbers of the endpoints that exist.
    live: BTreeSet<u32>,
    timeouts: [u32; TIMEOUTS],
    /// Slots of endpoints that hold nearly as many connections as they may.
    pressed: BTreeSet<u32>,
}

/// Ticks after which a connection without an answer makes room, where its endpoint has none left.
const UNANSWERED: u32 = 2;

impl Sight {
    fn fate(&self, flow: &Flow, protocol: u8) -> Fate {
        let state = State::from_number(flow.state);
        let mut lifetime = self.timeouts[Timeout::for_state(protocol, state) as usize];
        if state == State::New && self.pressed.contains(&flow.payer_slot()) {
            lifetime = lifetime.min(UNANSWERED);
        }
        fate(self.now, flow.seen, lifetime)
    }
}

/// Slots of endpoints that hold three quarters of a share, or more, in this table.
fn pressed<'f>(flows: impl Iterator<Item = &'f Flow>, share: u32) -> BTreeSet<u32> {
    let mut held: HashMap<u32, u32> = HashMap::new();
    for flow in flows {
        *held.entry(flow.payer_slot()).or_default() += 1;
    }
    let most = share - share / 4;
    let held = held.into_iter().filter(|(_, held)| *held >= most);
    held.map(|(slot, _)| slot).collect()
}

impl FlowTables {
    pub(super) fn open(
        opener: &Opener<'_>,
        timeouts: [u32; TIMEOUTS],
        share: u32,
        lock: Arc<Lock>,
    ) -> Result<Self, MapsError> {
        Ok(Self {
            flows4: opener.hash("FLOWS4")?,
            flows6: opener.hash("FLOWS6")?,
            endpoints: opener.array("ENDPOINTS")?,
            entered: opener.array("ENTERED")?,
            collected: opener.array("COLLECTED")?,
            rooms: [opener.room("FLOWS4")?, opener.room("FLOWS6")?],
            timeouts,
            share,
            _lock: lock,
        })
    }

    /// Removes what timed out and what belongs to no endpoint, and settles the accounts.
    ///
    /// # Errors
    /// A map that can't be read or written; what was done so far is done.
    pub fn sweep(&mut self, now: u32) -> Result<Sweep, MapsError> {
        let started = Instant::now();
        let entered = self.entered()?;
        let found4 =
            read(&self.flows4, self.rooms[0]).map_err(|source| access("FLOWS4", source))?;
        let found6 =
            read(&self.flows6, self.rooms[1]).map_err(|source| access("FLOWS6", source))?;
        // Only now: an endpoint that came while the tables were read is known. One
        // that is not here has gone for good, as numbers are not used again.
        let mut sight = Sight {
            now,
            live: self.live()?,
            timeouts: self.timeouts,
            pressed: pressed(found4.values(), self.share),
        };
        let pass4 = collect(&mut self.flows4, found4, |key| key.owner, &sight)
            .map_err(|source| access("FLOWS4", source))?;
        sight.pressed = pressed(found6.values(), self.share);
        let pass6 = collect(&mut self.flows6, found6, |key| key.owner, &sight)
            .map_err(|source| access("FLOWS6", source))?;
        let mut held = BTreeMap::new();
        for (family, pass) in (0..).zip([&pass4, &pass6]) {
            for (&slot, &count) in &pass.held {
                *held.entry(slot).or_insert(0) += count;
            }
            let all = (0, pass.entries);
            let accounts: HashMap<u32, u32> = pass
                .held
                .iter()
                .map(|(&slot, &count)| (slot, count))
                .chain([all])
                .map(|(slot, count)| (account(slot, family), count))
                .collect();
            self.settle(family, &entered, &accounts)?;
        }
        let fill = |table, entries, limit| Fill {
            table,
            entries,
            limit,
        };
        Ok(Sweep {
            removed: pass4.removed + pass6.removed,
            next: pass4.next.into_iter().chain(pass6.next).min(),
            fill: [
                fill("FLOWS4", pass4.entries, self.rooms[0]),
                fill("FLOWS6", pass6.entries, self.rooms[1]),
            ],
            held,
            took: started.elapsed(),
        })
    }

    /// Numbers of the endpoints that exist.
    fn live(&self) -> Result<BTreeSet<u32>, MapsError> {
        let mut live = BTreeSet::new();
        for endpoint in self.endpoints.iter() {
            let endpoint = endpoint.map_err(|source| access("ENDPOINTS", source))?.0;
            if endpoint.id != 0 {
                live.insert(endpoint.id);
            }
        }
        Ok(live)
    }

    /// What every account has entered so far.
    fn entered(&self) -> Result<Vec<u32>, MapsError> {
        self.entered
            .iter()
            .map(|entered| entered.map(|entered| entered as u32))
            .collect::<Result<_, _>>()
            .map_err(|source| access("ENTERED", source))
    }

    /// Sets what the accounts of a family have collected to what leaves these held.
    fn settle(
        &mut self,
        family: u32,
        entered: &[u32],
        held: &HashMap<u32, u32>,
    ) -> Result<(), MapsError> {
        for (index, &entered) in (0..ACCOUNTS).zip(entered) {
            if index & 1 != family {
                continue;
            }
            let collected = entered.wrapping_sub(held.get(&index).copied().unwrap_or(0));
            let known = self
                .collected
                .get(&index, 0)
                .map_err(|source| access("COLLECTED", source))?;
            if known != collected {
                self.collected
                    .set(index, &collected, 0)
                    .map_err(|source| access("COLLECTED", source))?;
            }
        }
        Ok(())
    }
}

/// All connections. The kernel starts over when the key it goes on from is gone, so
/// the number of steps is bounded, and a connection that is met twice is kept once.
fn read<K>(map: &Hash<K, Flow>, room: u32) -> Result<HashMap<K, Flow>, MapError>
where
    K: Copy + Eq + std::hash::Hash,
    Wire<K>: aya::Pod,
{
    let mut found = HashMap::new();
    for entry in map.iter().take(room as usize * 2) {
        let (key, flow) = entry?;
        found.insert(key.0, flow.0);
    }
    Ok(found)
}

fn collect<K>(
    map: &mut Hash<K, Flow>,
    found: HashMap<K, Flow>,
    owner: impl Fn(&K) -> u32,
    sight: &Sight,
) -> Result<Pass, MapError>
where
    K: Copy,
    Wire<K>: aya::Pod,
{
    let mut pass = Pass::default();
    for (key, read) in found {
        let owner = owner(&key);
        let protocol = (owner & 0xff) as u8;
        let is_live = sight.live.contains(&(owner >> 8));
        let mut fate = sight.fate(&read, protocol);
        if is_live && fate == Fate::Expired {
            // It may have been used since it was read.
            match map.get(&Wire(key), 0) {
                Ok(flow) => fate = sight.fate(&flow.0, protocol),
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(error),
            }
        }
        match fate {
            Fate::Left(left) if is_live => {
                pass.entries += 1;
                pass.next = Some(pass.next.map_or(left, |next| next.min(left)));
                *pass.held.entry(read.payer_slot()).or_insert(0) += 1;
            }
            _ => match map.remove(&Wire(key)) {
                Ok(()) => pass.removed += 1,
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            },
        }
    }
    Ok(pass)
}

fn is_gone(error: &MapError) -> bool {
    matches!(error, MapError::KeyNotFound)
        || maps::errno(error).map(Errno::from_raw) == Some(Errno::ENOENT)
}

fn access(name: &'static str, source: MapError) -> MapsError {
    MapsError::Access { name, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_lasts_exactly_its_lifetime_after_its_last_packet() {
        assert_eq!(fate(100, 100, 10), Fate::Left(10));
        assert_eq!(fate(109, 100, 10), Fate::Left(1));
        assert_eq!(fate(110, 100, 10), Fate::Expired);
        assert_eq!(fate(5000, 100, 10), Fate::Expired);
    }

    fn sweep(next: Option<u32>, took: Duration) -> Sweep {
        let fill = Fill {
            table: "FLOWS4",
            entries: 0,
            limit: 1,
        };
        Sweep {
            removed: 0,
            next,
            fill: [fill; 2],
            held: BTreeMap::new(),
            took,
        }
    }

    #[test]
    fn the_pause_is_the_next_expiry_within_reason_and_none_on_an_idle_host() {
        let tick = Duration::from_secs(1);
        let quick = Duration::from_millis(1);
        assert_eq!(sweep(None, quick).pause(tick), None);
        assert_eq!(sweep(Some(60), quick).pause(tick), Some(tick * 60));
        assert_eq!(sweep(Some(1), quick).pause(tick), Some(SHORTEST_PAUSE));
        assert_eq!(sweep(Some(1), tick).pause(tick), Some(tick * 20));
    }

    #[test]
    fn ticks_wrap_and_a_packet_may_be_newer_than_the_clock_that_was_read() {
        assert_eq!(fate(3, u32::MAX - 1, 10), Fate::Left(5));
        assert_eq!(fate(20, u32::MAX - 1, 10), Fate::Expired);
        assert_eq!(fate(100, 102, 10), Fate::Left(10));
    }
}
