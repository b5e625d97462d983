//! Takes connections that timed out, or whose endpoint is no more, out of the kernel's
//! tables, and keeps the account of what each endpoint holds.
//!
//! The account: the programs count what they enter and remove (`USAGE`), without
//! locks, so a race may lose a count. Each sweep therefore sets `COLLECTED`, which the
//! daemon alone writes, to whatever makes `entered - removed - collected` what was really
//! found; an error lasts until the next sweep at most. All three wrap.
//!
//! Times are ticks of the coarse monotonic clock, wrapping. A sweep reads every connection
//! (about 1 µs each): it belongs on a thread of its own. Between sweeps nothing runs; the
//! caller sleeps until [`Sweep::next`], and sweeps sooner when an endpoint was removed
//! or a report says that a table is full.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::{Array, MapData, MapError};
use netpol_abi::tables::{Collected, Endpoint, Flow, FlowKey4, FlowKey6, Usage};
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
    usage: Array<MapData, Wire<Usage>>,
    collected: Array<MapData, Collected>,
    rooms: [u32; 2],
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
    /// Connections that each endpoint (by its number) holds.
    pub held: HashMap<u32, u32>,
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
    let age = now.wrapping_sub(seen);
    if age > u32::MAX / 2 {
        return Fate::Left(lifetime);
    }
    match lifetime.checked_sub(age) {
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
}

impl FlowTables {
    pub(super) fn open(opener: &Opener<'_>, lock: Arc<Lock>) -> Result<Self, MapsError> {
        Ok(Self {
            flows4: opener.hash("FLOWS4")?,
            flows6: opener.hash("FLOWS6")?,
            endpoints: opener.array("ENDPOINTS")?,
            usage: opener.array("USAGE")?,
            collected: opener.array("COLLECTED")?,
            rooms: [opener.room("FLOWS4")?, opener.room("FLOWS6")?],
            _lock: lock,
        })
    }

    /// Removes what timed out and what belongs to nobody, and settles the account.
    /// `lifetime` gives the ticks that a connection lasts after its last packet, by its
    /// state and protocol.
    ///
    /// # Errors
    /// A map that can't be read or written; what was done so far is done.
    pub fn sweep(
        &mut self,
        now: u32,
        lifetime: impl Fn(&Flow, u8) -> u32,
    ) -> Result<Sweep, MapsError> {
        let started = Instant::now();
        let before = self.live()?;
        let mut accounts = BTreeMap::new();
        for (&id, &slot) in &before {
            let usage = self
                .usage
                .get(&slot, 0)
                .map_err(|source| access("USAGE", source))?
                .0;
            accounts.insert(id, usage.flows_entered.wrapping_sub(usage.flows_removed));
        }
        let found4 =
            read(&self.flows4, self.rooms[0]).map_err(|source| access("FLOWS4", source))?;
        let found6 =
            read(&self.flows6, self.rooms[1]).map_err(|source| access("FLOWS6", source))?;
        // Only now: an endpoint that came while the tables were read is not nobody. One
        // that is not here has gone for good, as numbers are not used again.
        let live = self.live()?;
        let mut held = HashMap::new();
        let owner = |key: &FlowKey4| key.owner;
        let pass4 = collect(
            &mut self.flows4,
            found4,
            owner,
            now,
            &live,
            &lifetime,
            &mut held,
        )
        .map_err(|source| access("FLOWS4", source))?;
        let owner = |key: &FlowKey6| key.owner;
        let pass6 = collect(
            &mut self.flows6,
            found6,
            owner,
            now,
            &live,
            &lifetime,
            &mut held,
        )
        .map_err(|source| access("FLOWS6", source))?;
        for (id, net) in accounts {
            let Some(&slot) = live.get(&id) else { continue };
            if before.get(&id) != Some(&slot) {
                continue;
            }
            let collected = net.wrapping_sub(held.get(&id).copied().unwrap_or(0));
            self.collected
                .set(slot, collected, 0)
                .map_err(|source| access("COLLECTED", source))?;
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

    /// Slots of the endpoints that exist, by number.
    fn live(&self) -> Result<BTreeMap<u32, u32>, MapsError> {
        let mut live = BTreeMap::new();
        for (slot, endpoint) in (0..).zip(self.endpoints.iter()) {
            let endpoint = endpoint.map_err(|source| access("ENDPOINTS", source))?.0;
            if endpoint.id != 0 {
                live.insert(endpoint.id, slot);
            }
        }
        Ok(live)
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
    now: u32,
    live: &BTreeMap<u32, u32>,
    lifetime: &impl Fn(&Flow, u8) -> u32,
    held: &mut HashMap<u32, u32>,
) -> Result<Pass, MapError>
where
    K: Copy,
    Wire<K>: aya::Pod,
{
    let mut pass = Pass::default();
    for (key, read) in found {
        let owner = owner(&key);
        let id = owner >> 8;
        let protocol = (owner & 0xff) as u8;
        let is_live = live.contains_key(&id);
        let judge = |flow: &Flow| fate(now, flow.seen, lifetime(flow, protocol));
        let mut fate = judge(&read);
        if is_live && fate == Fate::Expired {
            // It may have been used since it was read.
            match map.get(&Wire(key), 0) {
                Ok(flow) => fate = judge(&flow.0),
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(error),
            }
        }
        match fate {
            Fate::Left(left) if is_live => {
                pass.entries += 1;
                pass.next = Some(pass.next.map_or(left, |next| next.min(left)));
                *held.entry(id).or_insert(0) += 1;
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
            held: HashMap::new(),
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
