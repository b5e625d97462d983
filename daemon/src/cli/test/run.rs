//! Runs the probes, many at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, iter};

use anyhow::Context as _;
use netpol_engine::policy::Protocol;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::trials::Trial;
use crate::links::neighbours::{self, Neighbour};
use crate::netns;
use crate::probe::{Outcome, ProbeError};

/// Probes under way at a time: most of those that are denied wait for their timeout.
const AT_A_TIME: usize = 1024;
/// Descriptors that a probe has open at a time: two sockets, and two of the namespaces that it enters.
const DESCRIPTORS: u64 = 4;

/// How many may be under way, by the descriptors that this process may have; asks for all that it may.
fn at_a_time(listeners: usize) -> usize {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 64;
    };
    let wanted = hard.min(1 << 20);
    // A process that may not is asked below what it has.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
    let has = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let left = has.saturating_sub(64 + listeners as u64) / DESCRIPTORS;
    usize::try_from(left)
        .unwrap_or(AT_A_TIME)
        .clamp(16, AT_A_TIME)
}

/// A listener on each TCP port that is tried, for as long as any probe runs: a probe's own would answer another one's
/// until it is closed, and refuse it from then on. A port that a service has is left to it.
fn listeners(trials: &[Trial]) -> Vec<TcpListener> {
    let places: BTreeSet<_> = trials
        .iter()
        .filter(|trial| trial.probe.protocol == Protocol::Tcp)
        .filter_map(|trial| Some((trial.probe.to.clone()?, trial.probe.destination)))
        .collect();
    let mut by_namespace: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (namespace, address) in places {
        by_namespace.entry(namespace).or_default().push(address);
    }
    let opened = by_namespace.into_iter().flat_map(|(namespace, addresses)| {
        let open = || -> Vec<TcpListener> {
            let all = addresses.iter();
            all.filter_map(|address| TcpListener::bind(address).ok())
                .collect()
        };
        // A namespace that is gone shows at its probes.
        netns::inside(&namespace, open).unwrap_or_default()
    });
    opened.collect()
}

/// The most entries of the kernel's table of neighbours that the probes may fill: that table is all containers', and one
/// that is full keeps every container of this host from others.
fn neighbour_budget() -> usize {
    const USUAL: usize = 1024;
    let read = fs::read_to_string("/proc/sys/net/ipv4/neigh/default/gc_thresh3");
    let limit = read.ok().and_then(|text| text.trim().parse().ok());
    limit.unwrap_or(USUAL) * 3 / 4
}

/// The two addresses between which a probe goes, whichever is the sender's: each end finds the other one's MAC address, and
/// that takes two entries.
fn pair(trial: &Trial) -> (IpAddr, IpAddr) {
    let (one, other) = (trial.probe.source, trial.probe.destination.ip());
    (one.min(other), one.max(other))
}

/// The trials in batches, by their numbers: what a batch needs of the table of neighbours fits into it.
fn batches(trials: &[Trial], budget: usize) -> Vec<Vec<usize>> {
    let mut by_pair: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (number, trial) in trials.iter().enumerate() {
        by_pair.entry(pair(trial)).or_default().push(number);
    }
    let at_once = (budget / 2).max(1);
    if by_pair.len() <= at_once {
        return vec![(0..trials.len()).collect()];
    }
    let pairs: Vec<Vec<usize>> = by_pair.into_values().collect();
    pairs
        .chunks(at_once)
        .map(|chunk| chunk.iter().flatten().copied().collect())
        .collect()
}

/// What the namespaces of probes knew of their neighbours before.
#[derive(Default)]
struct Known(BTreeMap<PathBuf, BTreeSet<Neighbour>>);

impl Known {
    /// Notes what the namespaces of these trials know, where that is not noted yet.
    fn note<'t>(&mut self, trials: impl Iterator<Item = &'t Trial>) {
        for trial in trials {
            for namespace in iter::once(&trial.probe.from).chain(&trial.probe.to) {
                if !self.0.contains_key(namespace) {
                    let found = neighbours::neighbours(namespace).unwrap_or_default();
                    self.0.insert(namespace.clone(), found);
                }
            }
        }
    }

    /// Has these trials' namespaces forget what they came to know by them. What fails leaves an entry that ages by itself.
    fn restore<'t>(&self, trials: impl Iterator<Item = &'t Trial>) {
        let mut addresses: BTreeMap<&PathBuf, BTreeSet<IpAddr>> = BTreeMap::new();
        for trial in trials {
            let (source, destination) = (trial.probe.source, trial.probe.destination.ip());
            addresses
                .entry(&trial.probe.from)
                .or_default()
                .insert(destination);
            if let Some(to) = &trial.probe.to {
                addresses.entry(to).or_default().insert(source);
            }
        }
        for (namespace, addresses) in addresses {
            let before = self.0.get(namespace);
            let Ok(mut found) = neighbours::neighbours(namespace) else {
                continue;
            };
            found.retain(|one| {
                addresses.contains(&one.1) && before.is_none_or(|before| !before.contains(one))
            });
            let _ = neighbours::forget(namespace, &found);
        }
    }
}

/// Runs them, and tells of each in the order in which they stand.
///
/// # Errors
/// What telling gives.
pub fn run_all(
    trials: &[Trial],
    mut tell: impl FnMut(&Trial, Result<Outcome, ProbeError>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let listeners = listeners(trials);
    let at_a_time = at_a_time(listeners.len());
    let batches = batches(trials, neighbour_budget());
    let (mut known, mut early, mut told) = (Known::default(), BTreeMap::new(), 0);
    for batch in &batches {
        let of_batch = || batch.iter().filter_map(|number| trials.get(*number));
        if batches.len() > 1 {
            known.note(of_batch());
        }
        run_batch(trials, batch, at_a_time, |number, outcome| {
            early.insert(number, outcome);
            while let Some(outcome) = early.remove(&told) {
                tell(&trials[told], outcome)?;
                told += 1;
            }
            Ok(())
        })?;
        if batches.len() > 1 {
            known.restore(of_batch());
        }
    }
    Ok(())
}

fn run_batch(
    trials: &[Trial],
    batch: &[usize],
    at_a_time: usize,
    mut tell: impl FnMut(usize, Result<Outcome, ProbeError>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = Mutex::new(sender);
    std::thread::scope(|scope| {
        for _ in 0..at_a_time.min(batch.len()) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some((number, trial)) = batch
                        .get(place)
                        .and_then(|number| Some((*number, trials.get(*number)?)))
                    else {
                        return;
                    };
                    let outcome = trial.probe.run();
                    let sender = sender
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    if sender.send((number, outcome)).is_err() {
                        return;
                    }
                }
            });
        }
        let result = (|| {
            for _ in 0..batch.len() {
                let (number, outcome) = receiver.recv().context("a probe's thread died")?;
                tell(number, outcome)?;
            }
            Ok(())
        })();
        // Where telling failed (a closed pipe), those not begun are not.
        next.store(batch.len(), Ordering::Relaxed);
        result
    })
}
