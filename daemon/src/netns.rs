//! Network namespaces: opening one by a path that others may have a say in, telling whether two are the same one, and
//! doing something inside one.
//!
//! Opening a device or a pipe may do something, or wait for ever, and what a path stands for may
//! be another thing a moment later. So the name is opened once, without what is behind it
//! (open(2), `O_PATH`); only what is on the namespaces' own file system is then opened, through that
//! descriptor.
//!
//! A socket belongs to the namespace it was opened in, whichever thread uses it
//! later. So a thread is made for the opening alone: setns(2) changes the calling
//! thread, and must never change one of ours. Knows nothing of netlink, links and programs.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

/// The calling thread's.
const OWN: &str = "/proc/thread-self/ns/net";

/// Device and inode: two files are the same namespace when these are the same.
pub type Identity = (u64, u64);

/// Why a namespace can't be used.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The path can't be opened.
    #[error("can't open the network namespace `{path}`: {source}")]
    Open {
        /// The namespace's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is none, or we have no right.
    #[error("can't enter the network namespace `{path}`: {source}")]
    Enter {
        /// The namespace's path.
        path: PathBuf,
        /// What the system said.
        source: nix::Error,
    },
    /// No thread to be had, or it panicked.
    #[error("no thread for the network namespace `{path}`: {source}")]
    Thread {
        /// The namespace's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl NamespaceError {
    /// The namespace's path, and what the system said.
    #[must_use]
    pub fn into_parts(self) -> (PathBuf, io::Error) {
        match self {
            Self::Open { path, source } | Self::Thread { path, source } => (path, source),
            Self::Enter { path, source } => (path, source.into()),
        }
    }
}

/// Where a network namespace is to be found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Netns {
    /// A process is in it.
    Pid(u32),
    /// It is mounted there (`/run/netns/NAME`).
    Path(PathBuf),
}

impl Netns {
    /// The calling thread's.
    pub(crate) fn own() -> Self {
        Self::Path(PathBuf::from(OWN))
    }

    /// The file that stands for it.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Pid(pid) => of_process(pid),
            Self::Path(path) => path.clone(),
        }
    }

    /// Opens the namespace.
    ///
    /// # Errors
    /// There is no such namespace (any more).
    pub fn open(&self) -> Result<File, NamespaceError> {
        open_named(&self.path())
    }

    /// Which one it is.
    ///
    /// # Errors
    /// There is no such namespace (any more).
    pub fn identity(&self) -> Result<Identity, NamespaceError> {
        let file = self.open()?;
        identity(&file).map_err(|source| NamespaceError::Open {
            path: self.path(),
            source,
        })
    }
}

/// The file that stands for a process's namespace.
#[must_use]
pub fn of_process(process: impl Display) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/ns/net"))
}

/// What the kernel calls a process's namespace (`net:[INODE]`), without opening it; `None`: the process ended, or may
/// not be looked at.
pub(crate) fn name_of_process(process: impl Display) -> Option<PathBuf> {
    fs::read_link(of_process(process)).ok()
}

/// Opens a namespace, whose kind the kernel checks where it is used.
///
/// # Errors
/// The path can't be opened.
pub fn open(path: &Path) -> io::Result<File> {
    let named = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_PATH.bits())
        .open(path)?;
    if fstatfs(&named)?.filesystem_type() != NSFS_MAGIC {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no network namespace",
        ));
    }
    File::open(format!("/proc/self/fd/{}", named.as_raw_fd()))
}

fn open_named(path: &Path) -> Result<File, NamespaceError> {
    open(path).map_err(|source| NamespaceError::Open {
        path: path.to_owned(),
        source,
    })
}

/// Which namespace an open file stands for.
///
/// # Errors
/// The system does not tell.
pub fn identity(file: &File) -> io::Result<Identity> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Which namespace the calling thread is in.
///
/// # Errors
/// The system does not tell.
pub fn own_identity() -> io::Result<Identity> {
    identity_at(Path::new(OWN))
}

/// Does this path lead to the namespace that the calling thread is in? Opens nothing.
#[must_use]
pub fn is_own(path: &Path) -> bool {
    identity_at(path).is_ok_and(|found| own_identity().ok() == Some(found))
}

fn identity_at(path: &Path) -> io::Result<Identity> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Runs `act` on a thread of its own inside the namespace at `path` (`/run/netns/NAME`,
/// `/proc/PID/ns/net`).
///
/// # Errors
/// When it can't be entered.
pub fn inside<T: Send>(path: &Path, act: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    inside_opened(path, &open_named(path)?, act)
}

/// Runs `act` on a thread of its own inside the namespace that is open as `file`; `path` is for errors.
///
/// # Errors
/// When it can't be entered.
pub(crate) fn inside_opened<T: Send>(
    path: &Path,
    file: &File,
    act: impl FnOnce() -> T + Send,
) -> Result<T, NamespaceError> {
    let no_thread = |source| NamespaceError::Thread {
        path: path.to_owned(),
        source,
    };
    thread::scope(|scope| {
        thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, || {
                setns(file, CloneFlags::CLONE_NEWNET)?;
                Ok(act())
            })
            .map_err(no_thread)?
            .join()
            .map_err(|_| no_thread(io::Error::other("it panicked")))?
            .map_err(|source| NamespaceError::Enter {
                path: path.to_owned(),
                source,
            })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn own_is_told_without_opening() {
        let own = Netns::Pid(std::process::id());
        assert_eq!(own.identity().unwrap(), own_identity().unwrap());
        assert!(is_own(&own.path()));
        assert!(!is_own(Path::new("/proc/self/ns/mnt")));
        assert!(!is_own(Path::new("/nonexistent")));
        assert_eq!(name_of_process(std::process::id()), name_of_process("self"));
    }

    #[test]
    fn a_namespace_that_is_none_is_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [Path::new("/nonexistent/netns"), file.path()] {
            let Err(NamespaceError::Open { path: said, .. }) = inside(path, || ()) else {
                panic!("{} is none", path.display());
            };
            assert_eq!(said, path);
        }
    }

    #[test]
    fn what_is_no_namespace_is_not_opened() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("x");
        // Opened for reading, a FIFO without a writer waits for one.
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = open(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let link = root.path().join("y");
        symlink("/proc/self/ns/net", &link).unwrap();
        open(&link).unwrap();
        assert!(open(&root.path().join("none")).is_err());
    }

    /// A link that is exchanged while it is looked at gives a namespace or an error, and never a
    /// FIFO, whose opening would not return.
    #[test]
    fn a_link_that_is_swapped_meanwhile_never_waits() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("/proc/self/ns/net", at("x")).unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                for target in ["fifo", "/proc/self/ns/net"].iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    symlink(target, at("next")).unwrap();
                    fs::rename(at("next"), at("x")).unwrap();
                }
            });
            let mut seen = [0; 2];
            for _ in 0..20_000 {
                seen[usize::from(open(&at("x")).is_ok())] += 1;
            }
            stop.store(true, Ordering::Relaxed);
            assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
        });
    }
}
