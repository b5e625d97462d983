//! Which version of which file is in force.
//!
//! Owns the promises of the manifests directory as a state machine over observations:
//! a file that is not valid changes nothing, one that is cut to nothing withdraws
//! nothing, of two that define one object the one accepted first stays. Pure: no
//! file, no clock; times are given. Called by `store` only, which looks at the disk
//! and saves what is accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use netpol_engine::diagnostic::{Diagnostic, Severity};
use netpol_engine::manifest::{self, File};
use netpol_engine::object::ObjectId;

use super::{Accepted, Rejected, rule};

#[cfg(any(test, fuzzing))]
pub mod stream;

/// How a text becomes a file's objects: `manifest::parse`.
pub type Parse = fn(path: &str, text: &str) -> File;

/// What a look at the disk says about one path.
#[derive(Clone, Debug)]
pub(super) enum Observation {
    /// As it was.
    Unchanged,
    /// Its content, whole, and when it came there.
    Text { text: String, arrived: SystemTime },
    /// It was cut to nothing.
    Truncated,
    /// It is there, and can't be taken: why (a rule's code, a message, a remedy).
    Refused(&'static str, String, &'static str),
    /// A process writes it: to be looked at again.
    BeingWritten,
    /// It is not there now; it may be on its way back (editors save by renaming).
    Missing,
    /// It is gone for good.
    Gone,
}

/// What has to be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// This version is in force now.
    Save(Arc<Accepted>),
    /// What was saved under this number is withdrawn.
    Remove(u64),
}

#[derive(Debug, Default)]
struct Entry {
    accepted: Option<Arc<Accepted>>,
    /// Valid by itself, and not in force because another file has one of its objects.
    candidate: Option<Candidate>,
    rejected: Option<Rejected>,
    missing: bool,
    /// Waits for a file that is missing, and may be gone: not an error yet.
    waiting: bool,
}

#[derive(Debug)]
struct Candidate {
    text: String,
    file: File,
    arrived: SystemTime,
}

impl Entry {
    /// The file as it will be when the candidates in `trying` are taken.
    fn file(&self, trying: bool) -> Option<&File> {
        match (&self.candidate, &self.accepted) {
            (Some(candidate), _) if trying => Some(&candidate.file),
            (_, Some(accepted)) => Some(&accepted.file),
            _ => None,
        }
    }

    fn arrived(&self) -> Option<SystemTime> {
        self.candidate.as_ref().map(|candidate| candidate.arrived)
    }
}

/// All files, by the path that the store knows them by.
#[derive(Debug)]
pub(super) struct Acceptance {
    parse: Parse,
    entries: BTreeMap<String, Entry>,
    next: u64,
}

impl Acceptance {
    /// One with what was accepted before a restart.
    pub fn new(parse: Parse, accepted: impl IntoIterator<Item = Accepted>) -> Self {
        let mut acceptance = Self {
            parse,
            entries: BTreeMap::new(),
            next: 1,
        };
        for version in accepted {
            acceptance.next = acceptance.next.max(version.order + 1);
            let entry = acceptance.entries.entry(version.key.clone()).or_default();
            entry.accepted = Some(Arc::new(version));
        }
        acceptance
    }

    /// Every path that is known, whether in force or not.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The paths of which a version is in force.
    pub fn accepted_paths(&self) -> impl Iterator<Item = &str> {
        let entries = self.entries.iter();
        entries
            .filter(|(_, entry)| entry.accepted.is_some())
            .map(|(path, _)| path.as_str())
    }

    /// Takes in what was seen, all at once, and gives what changed. `shown` turns a path of
    /// ours into the one that people know.
    pub fn observe(
        &mut self,
        observations: BTreeMap<String, Observation>,
        shown: impl Fn(&str) -> String,
        now: SystemTime,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        for (path, observation) in observations {
            if let Observation::Gone = observation {
                let gone = self.entries.remove(&path);
                changes.extend(
                    gone.and_then(|entry| entry.accepted)
                        .map(|accepted| Change::Remove(accepted.order)),
                );
                continue;
            }
            let entry = self.entries.entry(path.clone()).or_default();
            entry.missing = matches!(observation, Observation::Missing);
            entry.take(observation, &shown(&path), self.parse, now);
        }
        // A path that was only ever half-written has nothing to say yet.
        self.entries.retain(|_, entry| {
            entry.accepted.is_some() || entry.candidate.is_some() || entry.rejected.is_some()
        });
        loop {
            // What is taken may have been all that was in another's way.
            let taken = self.settle(&shown, now);
            if taken.is_empty() {
                return changes;
            }
            changes.extend(taken);
        }
    }

    /// Takes the candidates that collide with nothing. Several files that exchange their
    /// objects are taken together, in whatever order they were seen.
    fn settle(&mut self, shown: &impl Fn(&str) -> String, now: SystemTime) -> Vec<Change> {
        let mut held: BTreeMap<ObjectId, (String, SystemTime)> = BTreeMap::new();
        for (path, entry) in &self.entries {
            if let Some(accepted) = &entry.accepted {
                for (object, since) in accepted.file.documents.iter().zip(&accepted.since) {
                    held.insert(object.id(), (path.clone(), *since));
                }
            }
        }
        let mut trying: BTreeSet<String> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.candidate.is_some())
            .map(|(path, _)| path.clone())
            .collect();
        let mut lost: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        loop {
            let losers = self.losers(&trying, &held);
            if losers.is_empty() {
                break;
            }
            for (loser, winners) in losers {
                trying.remove(&loser);
                lost.insert(loser, winners);
            }
        }
        // A version that lost to one that has lost since may have none in its way any more.
        let mut stranded: Vec<(Option<SystemTime>, String)> = lost
            .iter()
            .filter(|(_, winners)| winners.iter().all(|winner| lost.contains_key(winner)))
            .map(|(path, _)| (self.entries[path].arrived(), path.clone()))
            .collect();
        stranded.sort();
        for (_, path) in stranded {
            trying.insert(path.clone());
            if self.losers(&trying, &held).is_empty() {
                lost.remove(&path);
            } else {
                trying.remove(&path);
            }
        }
        for (loser, winners) in &lost {
            let findings = self.collisions(loser, winners, &trying);
            let waiting = winners
                .iter()
                .all(|winner| self.entries.get(winner).is_some_and(|entry| entry.missing));
            if let Some(entry) = self.entries.get_mut(loser) {
                entry.waiting = waiting;
                entry.reject(&shown(loser), findings, now);
            }
        }
        let mut arrivals: Vec<(SystemTime, String)> = trying
            .into_iter()
            .map(|path| (self.entries[&path].arrived().unwrap_or(now), path))
            .collect();
        arrivals.sort();
        let mut changes = Vec::new();
        for (_, path) in arrivals {
            let Some(entry) = self.entries.get_mut(&path) else {
                continue;
            };
            let Some(candidate) = entry.candidate.take() else {
                continue;
            };
            let order = entry.accepted.as_ref().map_or(self.next, |old| old.order);
            self.next = self.next.max(order + 1);
            let since = candidate
                .file
                .documents
                .iter()
                .map(|object| held.get(&object.id()).map_or(now, |(_, since)| *since))
                .collect();
            let version = Arc::new(Accepted {
                key: path.clone(),
                path: shown(&path),
                order,
                since,
                text: candidate.text,
                file: candidate.file,
            });
            entry.rejected = None;
            entry.waiting = false;
            entry.accepted = Some(Arc::clone(&version));
            changes.push(Change::Save(version));
        }
        changes
    }

    /// Files whose candidates can't be taken beside the others, and the files that have their objects.
    fn losers(
        &self,
        trying: &BTreeSet<String>,
        held: &BTreeMap<ObjectId, (String, SystemTime)>,
    ) -> BTreeMap<String, BTreeSet<String>> {
        let mut claims: BTreeMap<ObjectId, Vec<&str>> = BTreeMap::new();
        for (path, entry) in &self.entries {
            let file = entry.file(trying.contains(path));
            for object in file.iter().flat_map(|file| &file.documents) {
                claims.entry(object.id()).or_default().push(path);
            }
        }
        let mut lost: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        let mut last: Option<(SystemTime, &str, &str)> = None;
        for (id, paths) in claims.iter().filter(|(_, paths)| paths.len() > 1) {
            let holder = held.get(id).map(|(holder, _)| holder.as_str());
            match holder.filter(|holder| paths.contains(holder)) {
                // Whatever becomes of the holder's own candidate, the holder keeps this object.
                Some(holder) => {
                    for path in paths.iter().filter(|path| **path != holder) {
                        lost.entry(path).or_default().insert(holder.to_owned());
                    }
                }
                None => {
                    let mut by_arrival: Vec<(SystemTime, &str)> = paths
                        .iter()
                        .filter_map(|path| Some((self.entries[*path].arrived()?, *path)))
                        .collect();
                    by_arrival.sort_unstable();
                    if let (Some(first), Some(worst)) = (by_arrival.first(), by_arrival.last()) {
                        last = last.max(Some((worst.0, worst.1, first.1)));
                    }
                }
            }
        }
        // All of these at once: a holder keeps its objects, whatever else loses.
        if !lost.is_empty() {
            return lost
                .into_iter()
                .map(|(path, winners)| (path.to_owned(), winners))
                .collect();
        }
        // Only new ones among themselves: the last to come is left out, and the rest is asked
        // again, as it may have been the only one in their way.
        last.into_iter()
            .map(|(_, path, first)| (path.to_owned(), BTreeSet::from([first.to_owned()])))
            .collect()
    }

    /// What is said of a file that lost, naming both places.
    fn collisions(
        &self,
        loser: &str,
        winners: &BTreeSet<String>,
        trying: &BTreeSet<String>,
    ) -> Vec<Diagnostic> {
        let Some(candidate) = self
            .entries
            .get(loser)
            .and_then(|entry| entry.candidate.as_ref())
        else {
            return Vec::new();
        };
        let winners = winners
            .iter()
            .filter_map(|winner| {
                self.entries.get(winner).map(|entry| {
                    // The winner may itself have lost since, to a third: its claim is what counts here.
                    let claim = entry.candidate.as_ref().map(|candidate| &candidate.file);
                    [entry.file(trying.contains(winner)), claim]
                })
            })
            .flatten()
            .flatten();
        let together = manifest::assemble(winners.chain([&candidate.file]));
        let mut findings = candidate.file.diagnostics.clone();
        findings.extend(
            together
                .diagnostics
                .into_iter()
                .filter(|finding| finding.is_error() && finding.path == candidate.file.path),
        );
        findings
    }

    /// The versions in force, in the order in which their files were first accepted.
    pub fn accepted(&self) -> Vec<Arc<Accepted>> {
        let mut accepted: Vec<_> = self
            .entries
            .values()
            .filter_map(|entry| entry.accepted.clone())
            .collect();
        accepted.sort_by_key(|version| version.order);
        accepted
    }

    /// The files that are there and not in force, by path.
    pub fn rejected(&self) -> Vec<Rejected> {
        self.entries
            .values()
            .filter(|entry| !entry.waiting)
            .filter_map(|entry| entry.rejected.clone())
            .collect()
    }

    /// Does a file wait for another that is missing?
    pub fn is_waiting(&self) -> bool {
        self.entries.values().any(|entry| entry.waiting)
    }
}

impl Entry {
    fn take(&mut self, observation: Observation, path: &str, parse: Parse, now: SystemTime) {
        if !matches!(
            observation,
            Observation::Unchanged | Observation::BeingWritten
        ) {
            self.waiting = false;
        }
        match observation {
            // The candidate of a file that can't be read now, or is away, is not known to be
            // its content any more; what is in force stays.
            Observation::Missing => self.candidate = None,
            Observation::Unchanged | Observation::BeingWritten | Observation::Gone => {}
            Observation::Truncated => {
                self.candidate = None;
                let help = "write its content again, or remove it to withdraw its objects";
                self.reject(
                    path,
                    vec![finding(path, rule::CUT, "the file is empty", help)],
                    now,
                );
            }
            Observation::Refused(rule, message, help) => {
                self.candidate = None;
                self.reject(path, vec![finding(path, rule, &message, help)], now);
            }
            Observation::Text { text, arrived } => {
                if self.accepted.as_ref().is_some_and(|old| old.text == text) {
                    self.candidate = None;
                    self.rejected = None;
                    return;
                }
                if text.trim().is_empty() {
                    self.take(Observation::Truncated, path, parse, now);
                    return;
                }
                if self.candidate.as_ref().is_some_and(|old| old.text == text) {
                    return;
                }
                let mut file = parse(path, &text);
                let twice = manifest::assemble([&file]).diagnostics;
                for finding in twice.into_iter().filter(Diagnostic::is_error) {
                    if !file.diagnostics.contains(&finding) {
                        file.diagnostics.push(finding);
                    }
                }
                if file.is_accepted() {
                    self.candidate = Some(Candidate {
                        text,
                        file,
                        arrived,
                    });
                } else {
                    self.candidate = None;
                    self.reject(path, file.diagnostics, now);
                    if let Some(rejected) = &mut self.rejected {
                        rejected.text = Some(text);
                    }
                }
            }
        }
    }

    fn reject(&mut self, path: &str, diagnostics: Vec<Diagnostic>, now: SystemTime) {
        let since = match &self.rejected {
            Some(old) if old.diagnostics == diagnostics => old.since,
            _ => now,
        };
        self.rejected = Some(Rejected {
            path: path.to_owned(),
            since,
            in_force: self.accepted.is_some(),
            text: self
                .candidate
                .as_ref()
                .map(|candidate| candidate.text.clone()),
            diagnostics,
        });
    }
}

/// A finding about a file as a whole.
pub(super) fn finding(path: &str, rule: &'static str, message: &str, help: &str) -> Diagnostic {
    Diagnostic {
        help: Some(help.to_owned()),
        ..Diagnostic::new(path, (1, 1), Severity::Error, rule, message)
    }
}
