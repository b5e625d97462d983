//! File-system changes as hints, straight from inotify.
//!
//! Owns one inotify instance and what it looks at: whole directories, or names in
//! them. A hint says only "look again": who follows files lists them anew, and says
//! with the same listing what to watch from then on. Never reads a file, never
//! decides what a change means. Wakes on what is closed, moved, made, removed or
//! re-labelled with rights, not on reading or writing: looking must not wake the
//! looker. Called by `store` and `runtime`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest as Readiness;
use tokio::io::unix::AsyncFd;

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

/// What tokio asks of a descriptor, which nix does not give.
#[derive(Debug)]
struct Instance(Inotify);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Puts a descriptor into tokio's hands, which owns it from now on.
#[expect(
    deprecated,
    reason = "its successor is unsafe, because `AsRawFd` may lie; those of `File` and `Instance` do not"
)]
fn ready_when<T: AsRawFd>(inner: T, readiness: Readiness) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(inner, readiness)
}

/// One inotify instance.
#[derive(Debug)]
pub struct Watcher {
    inotify: AsyncFd<Instance>,
    mounts: Option<AsyncFd<File>>,
    watches: HashMap<WatchDescriptor, Names>,
}

impl Watcher {
    /// A watcher that looks at nothing yet. To be made inside a tokio runtime.
    ///
    /// # Errors
    /// The kernel gives no instance.
    pub fn new() -> Result<Self, WatchError> {
        let instance = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .map_err(|errno| WatchError::Instance(errno.into()))?;
        Ok(Self {
            inotify: ready_when(Instance(instance), Readiness::READABLE)
                .map_err(WatchError::Instance)?,
            mounts: None,
            watches: HashMap::new(),
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
        // proc(5): `mountinfo` gives POLLPRI and POLLERR when the table changes.
        let mounts = File::open("/proc/self/mountinfo")
            .and_then(|file| ready_when(file, Readiness::PRIORITY | Readiness::ERROR))
            .map_err(|source| WatchError::Directory {
                path: PathBuf::from("/proc/self/mountinfo"),
                source,
            })?;
        self.mounts = Some(mounts);
        Ok(())
    }

    /// Mounts are no hints from now on.
    pub fn ignore_mounts(&mut self) {
        self.mounts = None;
    }

    /// Watches this from now on, and nothing else. True: something is watched that was not
    /// before, so what happened there since it was listed may have been missed: list again.
    ///
    /// # Errors
    /// A directory can't be watched; the others are.
    pub fn watch(&mut self, wanted: &Wanted) -> Result<bool, WatchError> {
        let mask = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let mut watches: HashMap<WatchDescriptor, Names> = HashMap::new();
        let mut failed = None;
        // Two paths may lead to one directory, and the kernel then gives one number for both.
        for (path, names) in &wanted.directories {
            match self.inotify.get_ref().0.add_watch(path, mask) {
                Ok(watch) => match watches.get_mut(&watch) {
                    Some(known) => known.add(names.clone()),
                    None => {
                        watches.insert(watch, names.clone());
                    }
                },
                // Gone since it was listed: its parent is watched, and tells.
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => {
                    failed.get_or_insert(WatchError::Directory {
                        path: path.clone(),
                        source: errno.into(),
                    });
                }
            }
        }
        let added = watches
            .iter()
            .any(|(watch, names)| self.watches.get(watch).is_none_or(|known| known != names));
        for old in self.watches.keys() {
            if !watches.contains_key(old) {
                // Fails where the directory is gone: then the kernel has removed it already.
                let _ = self.inotify.get_ref().0.rm_watch(*old);
            }
        }
        self.watches = watches;
        failed.map_or(Ok(added), Err)
    }

    /// Returns when something that is watched has changed. Dropping the future loses no
    /// change that it has not returned for.
    ///
    /// # Errors
    /// The kernel's queue can't be read.
    pub async fn changed(&mut self) -> io::Result<()> {
        loop {
            let mut ready = match &self.mounts {
                Some(mounts) => tokio::select! {
                    ready = self.inotify.readable() => ready?,
                    mounts = mounts.ready(Readiness::PRIORITY | Readiness::ERROR) => {
                        mounts?.clear_ready();
                        return Ok(());
                    }
                },
                None => self.inotify.readable().await?,
            };
            match self.inotify.get_ref().0.read_events() {
                Ok(events) => {
                    // One read may leave more behind: the next look at the listing covers
                    // them, and readiness stays set until the queue is empty.
                    if events.iter().any(|event| self.matters(event)) {
                        return Ok(());
                    }
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn matters(&self, event: &InotifyEvent) -> bool {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return true;
        }
        // What is no longer watched may still stand in the queue.
        let Some(names) = self.watches.get(&event.wd) else {
            return false;
        };
        match &event.name {
            Some(name) => names.has(name),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    async fn hinted(watcher: &mut Watcher) -> bool {
        tokio::time::timeout(Duration::from_secs(5), watcher.changed())
            .await
            .is_ok()
    }

    /// Is the queue empty of what matters? The marker is an event that does, made now.
    async fn quiet(watcher: &mut Watcher, directory: &Path) -> bool {
        let before = std::time::Instant::now();
        let marker = directory.join("marker");
        let mut changes = std::pin::pin!(watcher.changed());
        let early = tokio::time::timeout(Duration::ZERO, &mut changes)
            .await
            .is_ok();
        std::fs::write(&marker, "").unwrap();
        !early && changes.await.is_ok() && before.elapsed() < Duration::from_secs(5)
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
            std::fs::create_dir(root.path().join(step)).unwrap();
            assert!(hinted(&mut watcher).await, "{step}");
        }
        assert_eq!(Wanted::default().path(&deep), Some(deep));
    }

    #[tokio::test]
    async fn a_swapped_link_on_the_way_is_a_hint() {
        let root = tempfile::tempdir().unwrap();
        let (one, two) = (root.path().join("one"), root.path().join("two"));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&two).unwrap();
        std::fs::write(two.join("f"), "").unwrap();
        std::os::unix::fs::symlink("one", root.path().join("now")).unwrap();
        let path = root.path().join("now/f");
        let mut watcher = Watcher::new().unwrap();
        let mut wanted = Wanted::default();
        assert_eq!(wanted.path(&path), None);
        watcher.watch(&wanted).unwrap();
        std::os::unix::fs::symlink("two", root.path().join("next")).unwrap();
        std::fs::rename(root.path().join("next"), root.path().join("now")).unwrap();
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
        std::fs::write(root.path().join("other"), "x").unwrap();
        std::fs::read(root.path().join("other")).unwrap();
        assert!(quiet(&mut watcher, root.path()).await);
    }

    #[test]
    fn links_in_a_circle_end() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("b", root.path().join("a")).unwrap();
        std::os::unix::fs::symlink("a", root.path().join("b")).unwrap();
        assert_eq!(Wanted::default().path(&root.path().join("a")), None);
    }
}
