//! File-system changes as hints, by the library `notify`.
//!
//! Owns one [`INotifyWatcher`] and the directories that it watches: whole directories, or names in
//! them. A hint says only "look again": a caller lists the files again, and says
//! with the same listing what to watch from then on. Never reads a file, never
//! decides what a change means. A hint comes when something is closed after writing, moved, made, removed or given other
//! rights, and none when it is read or written: a caller that looks must not wake itself.
//!
//! # Why no change is missed
//! Each directory is watched without those below it: what is made in a new directory before a recursive watch
//! reaches it gives no event. A watch ends with its directory, also where another one takes its path at once. So before each
//! hint all directories are watched again, and the caller lists after that, until the listing names no other directories.
//! `notify` hands over an event before it forgets the watch that the event ends, so each watch that is forgotten is followed by
//! a hint. A mount over a directory gives no event at all: `/proc/self/mountinfo` tells of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use notify::event::{Event, EventKindMask};
use notify::{Config, ErrorKind, INotifyWatcher, PathOp, Watcher as _};
use tokio::io::Interest as Readiness;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::async_fd::ready_when;

/// As many symbolic links as the kernel follows in one path (`MAXSYMLINKS`).
const LINKS: usize = 40;

/// What to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    directories: BTreeMap<PathBuf, Names>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Names {
    All,
    These(BTreeSet<OsString>),
}

impl Names {
    fn add(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::These(names), Self::These(more)) => names.extend(more),
            (Self::All, _) => {}
            (_, Self::All) => *self = Self::All,
        }
    }

    fn has(&self, name: &OsStr) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(name),
        }
    }
}

impl Wanted {
    /// Everything in a directory.
    pub fn directory(&mut self, directory: &Path) {
        self.directories.insert(directory.to_owned(), Names::All);
    }

    /// One name in a directory.
    fn name(&mut self, directory: &Path, name: &OsStr) {
        let names = Names::These(BTreeSet::from([name.to_owned()]));
        match self.directories.get_mut(directory) {
            Some(known) => known.add(names),
            None => {
                self.directories.insert(directory.to_owned(), names);
            }
        }
    }

    /// Everything that decides what an absolute path stands for: each folder on the way,
    /// each symbolic link and where it leads. What is missing is awaited where it would
    /// appear. Gives the path without links, where there is something.
    pub fn path(&mut self, path: &Path) -> Option<PathBuf> {
        let mut place = PathBuf::from("/");
        let mut rest: Vec<OsString> = reversed(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                place.pop();
                continue;
            }
            self.name(&place, &name);
            let next = place.join(&name);
            let meta = next.symlink_metadata().ok()?;
            if meta.is_symlink() {
                links += 1;
                if links > LINKS {
                    return None;
                }
                let target = next.read_link().ok()?;
                if target.is_absolute() {
                    place = PathBuf::from("/");
                }
                rest.extend(reversed(&target));
            } else {
                place = next;
            }
        }
        Some(place)
    }
}

fn reversed(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}

/// Why watching is not possible.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The kernel gave no inotify instance.
    #[error("inotify: {0} (see fs.inotify.max_user_instances)")]
    Instance(io::Error),
    /// A directory could not be watched.
    #[error("{} can't be watched: {source} (see fs.inotify.max_user_watches)", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The kinds of events that are hints. Reading and running a file is none of them.
const KINDS: EventKindMask = EventKindMask::CREATE
    .union(EventKindMask::REMOVE)
    .union(EventKindMask::MODIFY_META)
    .union(EventKindMask::MODIFY_NAME)
    .union(EventKindMask::ACCESS_CLOSE);

/// What the thread of `notify` and the watcher share.
#[derive(Debug, Default)]
struct Shared {
    directories: Mutex<BTreeMap<PathBuf, Names>>,
    hint: Notify,
    /// How many events came, and how many hints were given.
    #[cfg(test)]
    counted: [std::sync::atomic::AtomicU64; 2],
}

impl Shared {
    /// A panic in the thread of `notify` would end it: nothing here panics while it holds this.
    fn directories(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Names>> {
        self.directories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, event: notify::Result<Event>) {
        // An error says that events may be lost.
        let matters = event.is_err() || event.is_ok_and(|event| self.matters(&event));
        #[cfg(test)]
        for counter in &self.counted[..=usize::from(matters)] {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        if matters {
            self.hint.notify_one();
        }
    }

    fn matters(&self, event: &Event) -> bool {
        let directories = self.directories();
        let is_wanted = |path: &PathBuf| {
            let parent = path.parent().and_then(|parent| directories.get(parent));
            let named = parent.zip(path.file_name());
            directories.contains_key(path) || named.is_some_and(|(names, name)| names.has(name))
        };
        event.need_rescan() || event.paths.iter().any(is_wanted)
    }
}

/// Which directory is at a path: its device and inode. `None`: there is none.
type Identity = Option<(u64, u64)>;

/// Watches directories.
#[derive(Debug)]
pub struct Watcher {
    inotify: INotifyWatcher,
    shared: Arc<Shared>,
    mounts: Option<AsyncFd<File>>,
    /// The directory that was at each path when it was watched last.
    watched: BTreeMap<PathBuf, Identity>,
}

/// What tells of mounts: proc(5).
const MOUNTS: &str = "/proc/self/mountinfo";

impl Watcher {
    /// A watcher of no directory yet. To be made inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel gives no inotify instance.
    pub fn new() -> Result<Self, WatchError> {
        let shared = Arc::new(Shared::default());
        let handler = Arc::clone(&shared);
        let inotify = INotifyWatcher::new(
            move |event| handler.take(event),
            Config::default().with_event_kinds(KINDS),
        );
        Ok(Self {
            inotify: inotify.map_err(|error| WatchError::Instance(cause(error)))?,
            shared,
            mounts: None,
            watched: BTreeMap::new(),
        })
    }

    /// From now on every mount and unmount in this mount namespace is a hint too: inotify is
    /// silent about those, and a network namespace gets its name by a mount.
    ///
    /// # Errors
    /// /proc is not there.
    pub fn follow_mounts(&mut self) -> Result<(), WatchError> {
        if self.mounts.is_some() {
            return Ok(());
        }
        // It gives POLLPRI and POLLERR when the table changes.
        let mounts = File::open(MOUNTS)
            .and_then(|file| ready_when(file, Readiness::PRIORITY | Readiness::ERROR))
            .map_err(|source| WatchError::Directory {
                path: PathBuf::from(MOUNTS),
                source,
            })?;
        self.mounts = Some(mounts);
        Ok(())
    }

    /// Mounts are no hints from now on.
    pub fn ignore_mounts(&mut self) {
        self.mounts = None;
    }

    /// Watches this from now on, and nothing else. True: it is not what was watched
    /// before, so what happened there since it was listed may have been missed: list again.
    ///
    /// # Errors
    /// A directory can't be watched; the others are.
    pub fn watch(&mut self, wanted: &Wanted) -> Result<bool, WatchError> {
        let before = std::mem::replace(&mut *self.shared.directories(), wanted.directories.clone());
        let is_over = |path: &PathBuf, _: &mut Identity| !wanted.directories.contains_key(path);
        let ended = self.watched.extract_if(.., is_over);
        let ended = ended.map(|(path, _)| path).collect();
        let begun = wanted.directories.keys();
        let begun: Vec<&PathBuf> = begun
            .filter(|path| !self.watched.contains_key(*path))
            .collect();
        let found = begun.iter().map(|path| found_at(path)).collect();
        let failed = self.update(ended, found);
        let has_begun = begun.iter().any(|path| self.watched.contains_key(*path));
        let is_new = before != wanted.directories || has_begun;
        failed.map_or(Ok(is_new), Err)
    }

    /// Watches again what is to be watched: the directory of a path may be another one by now. Mounts end no watch, so after
    /// one only those directories are watched again. What fails is tried again by [`Watcher::watch`], which tells of it.
    fn renew(&mut self, is_mount: bool) {
        let paths: Vec<PathBuf> = self.shared.directories().keys().cloned().collect();
        let found: Vec<_> = paths.iter().map(|path| found_at(path)).collect();
        // `notify` keeps a watch that it has for a path.
        let is_other = |(path, identity): &&(PathBuf, Identity)| {
            let before = self.watched.get(path).copied().flatten();
            before.is_some() && before != *identity
        };
        let other: Vec<_> = found.iter().filter(is_other).cloned().collect();
        let ended = other.iter().map(|(path, _)| path.clone()).collect();
        self.update(ended, if is_mount { other } else { found });
    }

    /// Ends the watches of some paths, and begins those of others. Gives the first failure. The directories at those others
    /// were found before this: one that takes such a place meanwhile is seen to be another one.
    fn update(
        &mut self,
        ended: Vec<PathBuf>,
        begun: Vec<(PathBuf, Identity)>,
    ) -> Option<WatchError> {
        let mut failed = None;
        let ended = ended.into_iter().map(PathOp::unwatch);
        let watches = begun.iter().map(|(path, _)| path);
        let watches = watches.map(PathOp::watch_non_recursive);
        let mut operations: Vec<PathOp> = ended.chain(watches).collect();
        self.watched.extend(begun);
        while !operations.is_empty() {
            let Err(error) = self.inotify.update_paths(operations) else {
                break;
            };
            operations = error.remaining;
            let path = match error.origin {
                Some(PathOp::Watch(path, _)) => path,
                // Its directory is gone, and its watch with it.
                Some(PathOp::Unwatch(_)) => continue,
                // The thread of `notify` has ended.
                None => {
                    failed.get_or_insert(WatchError::Instance(cause(error.source)));
                    break;
                }
            };
            self.watched.remove(&path);
            let source = cause(error.source);
            // Gone since it was listed: its parent is watched, and tells.
            let absent = [Errno::ENOENT, Errno::ENOTDIR].map(|errno| errno as i32);
            if !source
                .raw_os_error()
                .is_some_and(|code| absent.contains(&code))
            {
                failed.get_or_insert(WatchError::Directory { path, source });
            }
        }
        failed
    }

    /// Returns when something that is watched has changed. Dropping the future loses no
    /// change that it has not returned for.
    ///
    /// # Errors
    /// The table of mounts can't be read.
    pub async fn changed(&mut self) -> io::Result<()> {
        let is_mount = match &self.mounts {
            Some(mounts) => tokio::select! {
                () = self.shared.hint.notified() => false,
                ready = mounts.ready(Readiness::PRIORITY | Readiness::ERROR) => {
                    ready?.clear_ready();
                    true
                }
            },
            None => {
                self.shared.hint.notified().await;
                false
            }
        };
        self.renew(is_mount);
        Ok(())
    }
}

/// A path, and which directory is there now.
fn found_at(path: &Path) -> (PathBuf, Identity) {
    (path.to_owned(), identity(path))
}

fn identity(path: &Path) -> Identity {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}

/// What the system said.
fn cause(error: notify::Error) -> io::Error {
    match error.kind {
        ErrorKind::Io(source) => source,
        ErrorKind::PathNotFound => Errno::ENOENT.into(),
        // inotify_add_watch(2) says so where `fs.inotify.max_user_watches` is reached.
        ErrorKind::MaxFilesWatch => Errno::ENOSPC.into(),
        _ => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;
    use std::process::Command;
    use std::sync::atomic::Ordering;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    async fn hinted(watcher: &mut Watcher) -> bool {
        tokio::time::timeout(Duration::from_secs(5), watcher.changed())
            .await
            .is_ok()
    }

    /// How many events came and how many hints were given, once at least so many hints were. Events come in their order.
    async fn counted(watcher: &mut Watcher, hints: u64) -> [u64; 2] {
        loop {
            let now = [0, 1].map(|at| watcher.shared.counted[at].load(Ordering::Relaxed));
            if now[1] >= hints {
                return now;
            }
            assert!(hinted(watcher).await, "{now:?}");
        }
    }

    #[tokio::test]
    async fn a_missing_path_is_awaited_where_it_would_appear() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b/c");
        let mut watcher = Watcher::new().unwrap();
        for step in ["a", "a/b", "a/b/c"] {
            let mut wanted = Wanted::default();
            assert_eq!(wanted.path(&deep), None);
            assert!(watcher.watch(&wanted).unwrap());
            fs::create_dir(root.path().join(step)).unwrap();
            assert!(hinted(&mut watcher).await, "{step}");
        }
        assert_eq!(Wanted::default().path(&deep), Some(deep));
    }

    #[tokio::test]
    async fn a_swapped_link_on_the_way_is_a_hint() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (root.path().join("one"), root.path().join("two"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        fs::write(two.join("f"), "").unwrap();
        std::os::unix::fs::symlink("one", root.path().join("now")).unwrap();
        let path = root.path().join("now/f");
        let mut watcher = Watcher::new().unwrap();
        let mut wanted = Wanted::default();
        assert_eq!(wanted.path(&path), None);
        watcher.watch(&wanted).unwrap();
        std::os::unix::fs::symlink("two", root.path().join("next")).unwrap();
        fs::rename(root.path().join("next"), root.path().join("now")).unwrap();
        assert!(hinted(&mut watcher).await);
        assert_eq!(Wanted::default().path(&path), Some(two.join("f")));
    }

    #[tokio::test]
    async fn other_names_and_reading_are_no_hints() {
        let root = tempfile::tempdir().unwrap();
        let mut wanted = Wanted::default();
        wanted.path(&root.path().join("marker"));
        let mut watcher = Watcher::new().unwrap();
        assert!(watcher.watch(&wanted).unwrap());
        assert!(!watcher.watch(&wanted).unwrap());
        fs::write(root.path().join("other"), "x").unwrap();
        fs::read(root.path().join("other")).unwrap();
        // It is made, and it is closed after writing.
        fs::write(root.path().join("marker"), "").unwrap();
        assert_eq!(counted(&mut watcher, 2).await[1], 2);
    }

    #[tokio::test]
    async fn reading_listing_and_running_wake_no_thread() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("program");
        fs::copy("/bin/true", &program).unwrap();
        let mut wanted = Wanted::default();
        wanted.directory(root.path());
        let mut watcher = Watcher::new().unwrap();
        watcher.watch(&wanted).unwrap();
        for _ in 0..100 {
            fs::read(&program).unwrap();
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
            assert!(Command::new(&program).status().unwrap().success());
        }
        let mut file = File::create(root.path().join("marker")).unwrap();
        for _ in 0..100 {
            file.write_all(b"a line\n").unwrap();
        }
        drop(file);
        assert_eq!(counted(&mut watcher, 2).await, [2, 2]);
    }

    /// Every file below a directory, and the directories that tell of the next one.
    fn list(directory: &Path, wanted: &mut Wanted, found: &mut BTreeSet<PathBuf>) {
        wanted.directory(directory);
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                list(&path, wanted, found);
            } else {
                found.insert(path);
            }
        }
    }

    /// As the store does: what is listed when no further directory is to be watched.
    fn look(watcher: &mut Watcher, root: &Path) -> BTreeSet<PathBuf> {
        loop {
            let (mut wanted, mut found) = Default::default();
            list(root, &mut wanted, &mut found);
            if !watcher.watch(&wanted).unwrap() {
                return found;
            }
        }
    }

    /// Looks after each hint, until the receiver is gone.
    fn follow(root: PathBuf) -> mpsc::Receiver<BTreeSet<PathBuf>> {
        let (found, looks) = mpsc::channel();
        std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut watcher = Watcher::new().unwrap();
                while found.send(look(&mut watcher, &root)).is_ok() {
                    watcher.changed().await.unwrap();
                }
            });
        });
        looks
    }

    #[test]
    fn trees_that_are_made_moved_and_removed_at_once_are_never_missed() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let looks = follow(root.to_owned());
        let (tree, aside) = (root.join("s"), root.join("aside"));
        for number in 0..1500 {
            // Before, while or after the watcher looks at what was done last.
            std::thread::sleep(Duration::from_micros(number % 50 * 10));
            let file = tree.join(format!("t/{number}.yaml"));
            if tree.exists() {
                match number % 3 {
                    0 => fs::remove_dir_all(&tree).unwrap(),
                    1 => fs::rename(&tree, &aside).unwrap(),
                    _ => {
                        fs::rename(&tree, &aside).unwrap();
                        fs::remove_dir_all(&aside).unwrap();
                    }
                }
            }
            fs::create_dir_all(tree.join("t")).unwrap();
            // Before, while or after the watcher watches the new directories.
            std::thread::sleep(Duration::from_micros(number % 11 * 20));
            fs::write(&file, "").unwrap();
            loop {
                let found = looks.recv_timeout(Duration::from_secs(5));
                let found = found.unwrap_or_else(|_| panic!("tree {number} is missed"));
                if found.contains(&file) {
                    break;
                }
            }
            let _ = fs::remove_dir_all(&aside);
        }
    }

    #[tokio::test]
    async fn a_directory_that_another_one_replaces_is_watched() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("place");
        let mut wanted = Wanted::default();
        wanted.directory(root.path());
        wanted.directory(&place);
        let mut watcher = Watcher::new().unwrap();
        watcher.watch(&wanted).unwrap();
        for number in 0..50 {
            fs::create_dir(&place).unwrap();
            assert!(hinted(&mut watcher).await);
            assert_eq!(watcher.watched[&place], identity(&place));
            watcher.watch(&wanted).unwrap();
            // Of what came before.
            while tokio::time::timeout(Duration::from_millis(2), watcher.changed())
                .await
                .is_ok()
            {}
            fs::write(place.join("file"), "").unwrap();
            assert!(hinted(&mut watcher).await, "file {number} is missed");
            fs::remove_dir_all(&place).unwrap();
            assert!(hinted(&mut watcher).await);
        }
    }

    #[test]
    fn links_in_a_circle_end() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("b", root.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", root.path().join("b")).unwrap();
        assert_eq!(Wanted::default().path(&root.path().join("a")), None);
    }
}
