//! The manifests directory as the API server.
//!
//! ```text
//!  inotify ─▶ changed() ─▶ reload() ─▶ scan (names) ─▶ lease (whole contents)
//!                             │                             │
//!               StoreView ◀── acceptance (what is in force) ◀───┘
//!                             │
//!                             ▼ saved (state directory)
//! ```
//!
//! Owns what is in force of what is on disk. Events are hints, the listing is the
//! truth: [`Store::reload`] always looks at everything. Must never withdraw an object
//! because something could not be read, because there is too much of it, or because a link leads
//! elsewhere. A [`Store`] runs on a thread of its own ([`Reader`]): nothing that a directory holds
//! keeps the reconcile loop waiting.

mod acceptance;
mod alarm;
mod lease;
mod once;
mod reader;
mod saved;
mod scan;
#[cfg(test)]
mod tests;
mod trust;

pub use once::{NotListed, manifests};
pub use reader::{Ended, Reader};
pub use scan::is_manifest;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use netpol_engine::diagnostic::{Diagnostic, Severity};
use netpol_engine::manifest::{File, Object};

pub use acceptance::Parse;
#[cfg(fuzzing)]
pub use acceptance::stream::hold;
pub use saved::SavedError;

use crate::watch::{WatchError, Watcher};
use acceptance::{Acceptance, Change, Observation, finding};
use alarm::Alarms;
use lease::{Look, Stamp};
use saved::{Record, Saved};

/// Codes of what is wrong with a file or directory as such; those of its content are in
/// `netpol_engine::diagnostic::rule`.
pub mod rule {
    /// It was cut to nothing.
    pub const CUT: &str = "empty-file";
    /// It can't be read.
    pub const UNREADABLE: &str = "unreadable";
    /// It is larger than any manifest.
    pub const TOO_LARGE: &str = "limit";
    /// It is not text.
    pub const NOT_TEXT: &str = "not-utf8";
    /// It is no ordinary file, or its name can't be.
    pub const NOT_A_FILE: &str = "not-a-file";
    /// The manifests directory is not there.
    pub const NO_DIRECTORY: &str = "no-directory";
    /// A symbolic link that leads out of the manifests directory.
    pub const OUTSIDE: &str = "outside";
    /// There is more than is looked at.
    pub const TOO_MANY: &str = "too-many";
    /// Another name of a file that is read already.
    pub const SAME_FILE: &str = "same-file";
    /// Warning: others than root can write it.
    pub const WRITABLE: &str = "writable-by-others";
    /// Warning: no manifest, by its name or kind.
    pub const PASSED_OVER: &str = "passed-over";
    /// Warning: an accepted version could not be saved, or not be read again.
    pub const NOT_SAVED: &str = "not-saved";
    /// Warning: changes are not noticed at once.
    pub const NOT_WATCHED: &str = "not-watched";
}

/// How long a file must be away before its objects are withdrawn. Editors, and tools that
/// replace a file by removing it first, have it back within milliseconds; without this, a
/// policy would be off for as long.
const GRACE: Duration = Duration::from_millis(200);
/// Between two looks at a file that is being written. Its closing is an event, but the
/// event comes just before the kernel counts the writer out.
const SOON: Duration = Duration::from_millis(5);
/// The longest wait between two such looks.
const LATER: Duration = Duration::from_millis(500);
/// How long a file must not change where the file system knows no leases.
const QUIET: Duration = Duration::from_millis(300);
/// Between two looks where the kernel gives no watches.
const UNWATCHED: Duration = Duration::from_secs(5);
/// Between two looks for changes that give no event: those of a file that is bind-mounted here, has
/// another name elsewhere, or lies in an overlay's lower layer or on a network's file system
/// (inotify(7) tells of what is done through the same name on the same kernel). A look is a listing
/// and a stat(2) for each name.
const SILENT: Duration = Duration::from_secs(30);
/// Names that a warning has.
const NAMED: usize = 3;

/// A version of a file that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its path below the manifests directory.
    pub key: String,
    /// Its whole path, as diagnostics name it.
    pub path: String,
    /// When its file was first accepted, relative to others.
    pub order: u64,
    /// Since when each object is in force, in the order of `file.documents`.
    pub since: Vec<SystemTime>,
    /// Its content.
    pub text: String,
    /// The text as it was parsed.
    pub file: File,
}

/// A file (or the directory) that is there and not in force as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its whole path.
    pub path: String,
    /// Since when it is rejected for this.
    pub since: SystemTime,
    /// Does an earlier version of it stay in force?
    pub in_force: bool,
    /// Its content, for showing the lines, where it was read.
    pub text: Option<String>,
    /// Why: at least one error.
    pub diagnostics: Vec<Diagnostic>,
}

/// What the directory says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreView {
    /// What is in force, in the order in which the files were first accepted.
    pub accepted: Vec<Arc<Accepted>>,
    /// What is not, by path.
    pub rejected: Vec<Rejected>,
    /// Warnings about what is in force, and about the store itself.
    pub warnings: Vec<Diagnostic>,
    /// Was everything on disk taken or rejected? False while a file is being written, or was
    /// away for less than a moment: [`Store::changed`] returns when it is time to look again.
    pub settled: bool,
    /// Grows when what is in force changes.
    pub revision: u64,
}

impl StoreView {
    /// The files in force, as `manifest::assemble` takes them.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.accepted.iter().map(|accepted| &accepted.file)
    }

    /// The objects in force, in order, each with its file and since when.
    pub fn objects(&self) -> impl Iterator<Item = (&Object, &Accepted, SystemTime)> {
        self.accepted.iter().flat_map(|accepted| {
            accepted
                .file
                .documents
                .iter()
                .zip(&accepted.since)
                .map(|(object, since)| (object, &**accepted, *since))
        })
    }
}

/// What is remembered of a path between two looks.
#[derive(Debug, Default)]
struct FileState {
    /// What was read and handed to the acceptance.
    read: Option<Stamp>,
    /// A stamp that was seen, and when first: for file systems without leases.
    seen: Option<(Stamp, Instant)>,
    /// Since when it is away.
    missing: Option<Instant>,
}

/// The manifests directory.
#[derive(Debug)]
pub struct Store {
    place: scan::Place,
    saved: Saved,
    acceptance: Acceptance,
    alarms: Alarms,
    memory: HashMap<String, FileState>,
    watcher: Watcher,
    /// The device the directory was on when it was last listed.
    device: Option<u64>,
    /// When to look again without a hint.
    again: Option<Instant>,
    /// The next wait for a file that is being written.
    patience: Duration,
    /// What could not be saved yet.
    unsaved: Vec<Change>,
    /// Records that could not be read at the start.
    damaged: Vec<Diagnostic>,
    /// Since when something is wrong with a path that the acceptance does not know.
    faults: BTreeMap<String, Rejected>,
    view: Arc<StoreView>,
}

impl Store {
    /// A store with what was in force before a restart; [`Store::reload`] looks at the disk.
    /// Symbolic links may lead to what is below `follow`, too. To be made inside a tokio runtime.
    /// `parse` is `manifest::parse`.
    ///
    /// # Errors
    /// The kernel gives no inotify instance.
    pub fn open(
        directory: &Path,
        follow: &[PathBuf],
        state: &Path,
        parse: Parse,
    ) -> Result<Self, WatchError> {
        let mut watcher = Watcher::new()?;
        // The directory may be a mount of its own.
        watcher.follow_mounts()?;
        let saved = Saved::below(state);
        let (records, failed) = saved.read();
        let mut damaged: Vec<Diagnostic> = failed
            .iter()
            .map(|error| {
                warning(
                    &error.path,
                    rule::NOT_SAVED,
                    &format!("can't be read: {}", error.source),
                )
            })
            .collect();
        let mut accepted = Vec::new();
        for record in records {
            let path = shown(directory, &record.path);
            let mut file = parse(&path, &record.text);
            if !file.is_accepted() {
                // Stricter than the version that accepted it. What was in force stays: without
                // them, an isolated Pod would not be.
                match record.objects() {
                    Some(objects) => file.documents = objects,
                    None => {
                        damaged.extend(file.diagnostics);
                        continue;
                    }
                }
            }
            accepted.push(restored(record, path, file));
        }
        let mut store = Self {
            place: scan::Place {
                directory: directory.to_owned(),
                follow: follow.to_owned(),
                bounds: scan::Bounds::DEFAULT,
            },
            saved,
            acceptance: Acceptance::new(parse, accepted),
            alarms: Alarms::default(),
            memory: HashMap::new(),
            watcher,
            device: None,
            again: None,
            patience: SOON,
            unsaved: Vec::new(),
            damaged,
            faults: BTreeMap::new(),
            view: Arc::default(),
        };
        store.view = Arc::new(store.seen(Vec::new(), false));
        Ok(store)
    }

    /// What is in force, as of the last look.
    #[must_use]
    pub fn view(&self) -> Arc<StoreView> {
        Arc::clone(&self.view)
    }

    /// Returns when it is time to [`Store::reload`]. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        let again = self.again;
        let timer = async {
            match again {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            hint = self.watcher.changed() => if let Err(error) = hint {
                tracing::warn!(%error, "the manifests directory's events can't be read");
                tokio::time::sleep(UNWATCHED).await;
            }
        }
    }

    /// Looks at all that is on disk now, and gives what is in force of it.
    pub fn reload(&mut self) -> Arc<StoreView> {
        let mut warnings = Vec::new();
        let deadline = Instant::now() + self.place.bounds.time;
        let mut listing = scan::list(&self.place, deadline);
        let mut watched = true;
        // What is made between the listing and the watch gives no event: so list again until
        // nothing new is watched. A process may make folders for ever: so not for ever.
        for _ in 0..8 {
            match self.watcher.watch(&listing.wanted) {
                Ok(false) => break,
                Ok(true) => listing = scan::list(&self.place, deadline),
                Err(error) => {
                    warnings.push(warning(
                        &self.place.directory,
                        rule::NOT_WATCHED,
                        &error.to_string(),
                    ));
                    watched = false;
                    break;
                }
            }
        }
        self.unmounted(&mut listing);
        let now = SystemTime::now();
        let (observations, next) = self.look(&listing, now, deadline);
        let directory = self.place.directory.clone();
        let changes = self
            .acceptance
            .observe(observations, |key| shown(&directory, key), now);
        self.save(changes);
        self.note_faults(&listing, now);
        let settled = next.is_none() && !self.acceptance.is_waiting();
        let next = next
            .or((!watched || !self.unsaved.is_empty()).then_some(UNWATCHED))
            .unwrap_or(SILENT);
        warnings.extend(self.passed_over(&listing));
        warnings.extend(self.writable(&listing));
        let view = self.seen(warnings, settled);
        self.log(&view);
        let alarm = self.alarms.look(&view.rejected, Instant::now());
        let next = [alarm, listing.has_new.then_some(scan::SETTLED)]
            .into_iter()
            .flatten()
            .fold(next, Duration::min);
        self.again = Some(Instant::now() + next);
        self.view = Arc::new(view);
        self.view()
    }

    /// An unmounted directory looks like one whose files were all removed.
    fn unmounted(&mut self, listing: &mut scan::Listing) {
        let Some(device) = listing.device else {
            return;
        };
        let replaced = self.device.is_some_and(|before| before != device);
        if replaced && listing.files.is_empty() && self.acceptance.paths().next().is_some() {
            let why = "another file system is here now, and it is empty".to_owned();
            listing
                .unlisted
                .insert(PathBuf::new(), scan::no_directory(why));
        } else {
            self.device = Some(device);
        }
    }

    /// What is to be said about every path, and how soon to look again.
    fn look(
        &mut self,
        listing: &scan::Listing,
        now: SystemTime,
        deadline: Instant,
    ) -> (BTreeMap<String, Observation>, Option<Duration>) {
        let mut budget = self.budget(listing);
        let first = self.first_names(listing);
        let mut observations = BTreeMap::new();
        let mut next: Option<Duration> = None;
        let mut sooner = |wait: Duration| next = Some(next.map_or(wait, |known| known.min(wait)));
        let mut written = false;
        for (key, meta) in &listing.files {
            let memory = self.memory.entry(key.clone()).or_default();
            memory.missing = None;
            let observation = match meta {
                Err(refusal) => {
                    Observation::Refused(refusal.rule, refusal.why.clone(), refusal.help)
                }
                Ok(meta) if first[&identity(meta)] != key => Observation::Refused(
                    rule::SAME_FILE,
                    format!(
                        "the same file as `{}`, which is read",
                        first[&identity(meta)]
                    ),
                    "remove one of its names",
                ),
                Ok(meta) if memory.read == Some(Stamp::from_metadata(meta)) => {
                    Observation::Unchanged
                }
                Ok(meta) if meta.len() <= lease::LARGEST && !budget.takes(meta.len()) => {
                    Observation::Refused(
                        rule::TOO_MANY,
                        format!(
                            "not read: the manifests have more than {} bytes in all",
                            self.place.bounds.bytes
                        ),
                        "take out what does not belong here; what was in force of it stays",
                    )
                }
                Ok(_) if Instant::now() > deadline => {
                    sooner(UNWATCHED);
                    Observation::Refused(
                        rule::TOO_MANY,
                        format!("not read within {:?}", self.place.bounds.time),
                        "it is tried again; what was in force of it stays",
                    )
                }
                Ok(meta) => memory.look(&self.place.directory.join(key), identity(meta), now),
            };
            match observation {
                Observation::BeingWritten => {
                    written = true;
                    sooner(self.patience);
                }
                Observation::Missing => {
                    memory.missing = Some(Instant::now());
                    sooner(GRACE);
                }
                Observation::Refused(..) => memory.read = None,
                _ => {}
            }
            observations.insert(key.clone(), observation);
        }
        self.patience = if written {
            (self.patience * 2).min(LATER)
        } else {
            SOON
        };
        for key in self
            .acceptance
            .paths()
            .filter(|key| !listing.files.contains_key(*key))
        {
            let below = |folder: &PathBuf| Path::new(key).starts_with(folder);
            let memory = self.memory.entry(key.to_owned()).or_default();
            memory.read = None;
            let observation = if listing.unlisted.keys().any(below) {
                memory.missing = None;
                Observation::Unchanged
            } else {
                let away = memory.missing.get_or_insert_with(Instant::now).elapsed();
                if away < GRACE {
                    sooner(GRACE.saturating_sub(away).max(Duration::from_millis(1)));
                    Observation::Missing
                } else {
                    Observation::Gone
                }
            };
            observations.insert(key.to_owned(), observation);
        }
        self.memory.retain(|key, _| {
            observations
                .get(key)
                .is_some_and(|seen| !matches!(seen, Observation::Gone))
        });
        (observations, next)
    }

    /// What may be read: not what is known already, whose bytes count first. So nothing that was
    /// accepted goes out of date because other files came.
    fn budget(&self, listing: &scan::Listing) -> Budget {
        let mut budget = Budget(self.place.bounds.bytes);
        for (key, meta) in &listing.files {
            let known = self.memory.get(key).and_then(|memory| memory.read);
            if let Ok(meta) = meta
                && known == Some(Stamp::from_metadata(meta))
            {
                budget.takes(meta.len());
            }
        }
        budget
    }

    /// Of the names of each file the one by which it is read: one that is in force, else the first.
    fn first_names<'l>(&self, listing: &'l scan::Listing) -> HashMap<(u64, u64), &'l String> {
        let accepted: BTreeSet<&str> = self.acceptance.accepted_paths().collect();
        let mut first: HashMap<(u64, u64), &String> = HashMap::new();
        for (key, meta) in &listing.files {
            let Ok(meta) = meta else { continue };
            let known = first.entry(identity(meta)).or_insert(key);
            if !accepted.contains(known.as_str()) && accepted.contains(key.as_str()) {
                *known = key;
            }
        }
        first
    }

    /// What has no name of a manifest, or is none: a policy in `F.YAML` is no policy.
    fn passed_over(&self, listing: &scan::Listing) -> Option<Diagnostic> {
        let (first, why) = listing.passed.first_key_value()?;
        let mut message = format!("passed over: {why}");
        let others: Vec<String> = listing
            .passed
            .keys()
            .skip(1)
            .take(NAMED - 1)
            .map(|path| format!("`{}`", path.display()))
            .collect();
        if !others.is_empty() {
            let more = listing.passed.len() - 1 - others.len();
            message.push_str("; so are ");
            message.push_str(&others.join(", "));
            if more > 0 {
                message.push_str(&format!(" and {more} more"));
            }
        }
        let path = self.place.directory.join(first);
        Some(warning(&path, rule::PASSED_OVER, &message))
    }

    /// A user who can write a manifest decides policy.
    fn writable(&self, listing: &scan::Listing) -> Option<Diagnostic> {
        let first = listing.writable.first()?;
        let path: PathBuf = self.place.directory.join(first).components().collect();
        let more = match listing.writable.len() - 1 {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        Some(warning(
            &path,
            rule::WRITABLE,
            &format!(
                "others than root can write it{more}: every user who can write manifests decides policy"
            ),
        ))
    }

    /// Saves what changed; what can't be saved is in force all the same, and tried again.
    fn save(&mut self, changes: Vec<Change>) {
        self.unsaved.extend(changes);
        let removed: BTreeSet<u64> = self
            .unsaved
            .iter()
            .filter_map(|change| match change {
                Change::Remove(order) => Some(*order),
                Change::Save(_) => None,
            })
            .collect();
        // The newest version of each is what counts, and one that was withdrawn must not come back.
        self.unsaved.retain(
            |change| !matches!(change, Change::Save(version) if removed.contains(&version.order)),
        );
        let versions: BTreeMap<u64, Record> = self
            .unsaved
            .iter()
            .filter_map(|change| match change {
                Change::Save(version) => Some((version.order, record(version))),
                Change::Remove(_) => None,
            })
            .collect();
        let versions: Vec<Record> = versions.into_values().collect();
        let done = self.saved.save(&versions).map_err(said);
        let saved = &self.saved;
        self.unsaved.retain(|change| match change {
            Change::Save(_) => done.is_err(),
            Change::Remove(order) => saved.remove(*order).map_err(said).is_err(),
        });
    }

    /// What is wrong with paths that the acceptance does not know.
    fn note_faults(&mut self, listing: &scan::Listing, now: SystemTime) {
        let mut faults = BTreeMap::new();
        let refused = listing
            .refused
            .iter()
            .map(|(path, why)| (path, why, rule::NOT_A_FILE, "give it a name in UTF-8"));
        let unlisted = listing
            .unlisted
            .iter()
            .map(|(path, refusal)| (path, &refusal.why, refusal.rule, refusal.help));
        for (path, why, rule, help) in refused.chain(unlisted) {
            // Through its components: the empty path would leave a slash at the end.
            let whole: PathBuf = self.place.directory.join(path).components().collect();
            let whole = whole.to_string_lossy().into_owned();
            let diagnostics = vec![finding(&whole, rule, why, help)];
            let since = self
                .faults
                .get(&whole)
                .filter(|old| old.diagnostics == diagnostics)
                .map_or(now, |old| old.since);
            let in_force = self
                .acceptance
                .accepted()
                .iter()
                .any(|accepted| Path::new(&accepted.key).starts_with(path));
            faults.insert(
                whole.clone(),
                Rejected {
                    path: whole,
                    since,
                    in_force,
                    text: None,
                    diagnostics,
                },
            );
        }
        self.faults = faults;
    }

    fn seen(&self, mut warnings: Vec<Diagnostic>, settled: bool) -> StoreView {
        let accepted = self.acceptance.accepted();
        let mut rejected = self.acceptance.rejected();
        rejected.extend(self.faults.values().cloned());
        rejected.sort_by(|a, b| a.path.cmp(&b.path));
        warnings.extend(self.damaged.iter().cloned());
        warnings.extend(self.unsaved.iter().filter_map(|change| match change {
            Change::Save(version) => Some(warning(
                Path::new(&version.path),
                rule::NOT_SAVED,
                "in force, but it could not be saved: after a restart an earlier version would be",
            )),
            Change::Remove(_) => None,
        }));
        for version in &accepted {
            warnings.extend(version.file.diagnostics.iter().cloned());
        }
        let revision = self.view.revision + u64::from(self.view.accepted != accepted);
        StoreView {
            accepted,
            rejected,
            warnings,
            settled,
            revision,
        }
    }

    /// Says what is in force now. What is not is said by [`Alarms`], and warnings with those of
    /// the status.
    fn log(&self, view: &StoreView) {
        let old = &self.view;
        // By their number: with thousands of files, looking for each among all takes seconds.
        let by_order = |view: &StoreView| -> BTreeMap<u64, Arc<Accepted>> {
            let numbered = |version: &Arc<Accepted>| (version.order, Arc::clone(version));
            view.accepted.iter().map(numbered).collect()
        };
        let (before, now) = (by_order(old), by_order(view));
        for version in &view.accepted {
            if before.get(&version.order) != Some(version) {
                tracing::info!(path = %version.path.escape_debug(), objects = version.file.documents.len(), "accepted");
            }
        }
        for version in &old.accepted {
            if !now.contains_key(&version.order) {
                tracing::info!(path = %version.path.escape_debug(), "withdrawn");
            }
        }
    }
}

/// Bytes that may still be read.
struct Budget(u64);

impl Budget {
    fn takes(&mut self, bytes: u64) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

/// What tells a file from all others.
fn identity(meta: &std::fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (meta.dev(), meta.ino())
}

impl FileState {
    /// Looks at the file that was listed under this path.
    fn look(&mut self, path: &Path, listed: (u64, u64), now: SystemTime) -> Observation {
        match lease::look(path, listed) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Observation::Missing,
            Err(error) => {
                let refusal = scan::Refusal::unreadable(&error);
                Observation::Refused(refusal.rule, refusal.why, refusal.help)
            }
            Ok(Look::BeingWritten) => Observation::BeingWritten,
            Ok(Look::NotAFile) => Observation::Refused(
                rule::NOT_A_FILE,
                "not an ordinary file".to_owned(),
                "remove it, or give it another ending",
            ),
            Ok(Look::TooLarge(bytes)) => Observation::Refused(
                rule::TOO_LARGE,
                format!(
                    "{bytes} bytes are too many: the limit is {}",
                    lease::LARGEST
                ),
                "split the file",
            ),
            Ok(Look::Whole { bytes, stamp, sure }) => {
                if !sure && !self.is_quiet(stamp) {
                    return Observation::BeingWritten;
                }
                // A stamp that is too new may not tell the next change from this one.
                self.read = stamp.is_old(now).then_some(stamp);
                if bytes.is_empty() {
                    return Observation::Truncated;
                }
                match String::from_utf8(bytes) {
                    Ok(text) => Observation::Text {
                        text,
                        arrived: stamp.arrived(),
                    },
                    Err(error) => Observation::Refused(
                        rule::NOT_TEXT,
                        format!("not UTF-8 from byte {}", error.utf8_error().valid_up_to()),
                        "manifests are UTF-8 text",
                    ),
                }
            }
        }
    }

    fn is_quiet(&mut self, stamp: Stamp) -> bool {
        match self.seen {
            Some((seen, since)) if seen == stamp => since.elapsed() >= QUIET,
            _ => {
                self.seen = Some((stamp, Instant::now()));
                false
            }
        }
    }
}

fn warning(path: &Path, rule: &'static str, message: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        help: None,
        ..finding(&path.to_string_lossy(), rule, message, "")
    }
}

fn shown(directory: &Path, key: &str) -> String {
    directory.join(key).to_string_lossy().into_owned()
}

fn said(error: SavedError) {
    tracing::warn!(%error, "the accepted manifests can't be saved");
}

fn record(version: &Accepted) -> Record {
    let since_ms = version
        .since
        .iter()
        .map(|since| {
            let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
        .collect();
    Record::new(
        version.key.clone(),
        version.order,
        since_ms,
        version.text.clone(),
        &version.file.documents,
    )
}

fn restored(record: Record, path: String, file: File) -> Accepted {
    let time = |ms: &u64| UNIX_EPOCH + Duration::from_millis(*ms);
    let mut since: Vec<SystemTime> = record.since_ms.iter().map(time).collect();
    // Another version of the parser may find another number of objects.
    let first = since.first().copied().unwrap_or(UNIX_EPOCH);
    since.resize(file.documents.len(), first);
    Accepted {
        key: record.path,
        path,
        order: record.order,
        since,
        text: record.text,
        file,
    }
}
