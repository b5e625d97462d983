//! Doing something inside a network namespace.
//!
//! A socket belongs to the namespace it was opened in, whichever thread uses it
//! later. So a thread is made for the opening alone: setns(2) changes the calling
//! thread, and must never change one of ours.

use std::io;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};

/// Why the namespace can't be entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// There is none.
    #[error("can't open the network namespace `{path}`: {source}")]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is none, or we have no right.
    #[error("can't enter the network namespace `{path}`: {source}")]
    Enter {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: nix::Error,
    },
    /// No thread to be had, or it panicked.
    #[error("no thread for the network namespace `{path}`")]
    Thread {
        /// Which.
        path: PathBuf,
    },
}

/// Runs `act` on a thread of its own inside the namespace at `path` (`/run/netns/NAME`,
/// `/proc/PID/ns/net`).
///
/// # Errors
/// When it can't be entered.
pub fn inside<T: Send>(path: &Path, act: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    let file = crate::nsfs::open(path).map_err(|source| NamespaceError::Open {
        path: path.to_owned(),
        source,
    })?;
    let no_thread = || NamespaceError::Thread {
        path: path.to_owned(),
    };
    thread::scope(|scope| {
        thread::Builder::new()
            .spawn_scoped(scope, || {
                setns(&file, CloneFlags::CLONE_NEWNET)?;
                Ok(act())
            })
            .map_err(|_| no_thread())?
            .join()
            .map_err(|_| no_thread())?
            .map_err(|source| NamespaceError::Enter {
                path: path.to_owned(),
                source,
            })
    })
}
