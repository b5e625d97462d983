//! Interfaces that have no end in this network namespace (macvlan, ipvlan, a container's loopback interface): where they are, and how
//! to do something there.
//!
//! Their programs are attached inside the container's namespace, by a thread that enters it. What is known of
//! one outlives the daemon as the name of an empty directory ([`super::pins::Layout::inside`]).

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use netpol_abi::limits::{FIRST_INSIDE, FIRST_LOOPBACK};

use crate::netns::{self, NamespaceError};

/// An interface inside another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Within {
    /// A file of the namespace.
    pub namespace: PathBuf,
    /// Which one that has to be.
    pub location: Location,
}

/// Which interface of which namespace, in what outlives the file that it was found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// The namespace's inode; all of them are on one device.
    pub namespace: u64,
    /// The interface's index there.
    pub ifindex: u32,
}

/// An interface as the programs, the pins and the kernel call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Its number in the tables and pins.
    pub number: u32,
    /// Its index in the namespace that it is in.
    pub ifindex: u32,
}

impl Spot {
    /// An interface of the host's: index and number are the same.
    pub(super) const fn here(ifindex: u32) -> Self {
        Self {
            number: ifindex,
            ifindex,
        }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inside = if is_inside(self.number) {
            " inside a container"
        } else {
            ""
        };
        write!(out, "interface {}{inside}", self.ifindex)
    }
}

/// Is this the number of an interface inside another namespace?
#[must_use]
pub const fn is_inside(number: u32) -> bool {
    number >= FIRST_INSIDE
}

/// Is this the number of a loopback interface inside another namespace?
#[must_use]
pub const fn is_loopback(number: u32) -> bool {
    number >= FIRST_LOOPBACK
}

impl Location {
    /// Does something in its namespace, which `path` may lead to; `None`: it leads to another one, or
    /// nowhere.
    ///
    /// # Errors
    /// The namespace can't be entered.
    pub(super) fn inside<T: Send>(
        self,
        path: &Path,
        act: impl FnOnce() -> T + Send,
    ) -> Result<Option<T>, NamespaceError> {
        let done = netns::inside(path, move || {
            // Asked once inside: the process that the path names may be another one by now.
            (own() == Some(self.namespace)).then(act)
        });
        match done {
            Err(NamespaceError::Open { source, .. }) if is_gone(&source) => Ok(None),
            done => done,
        }
    }

    /// A file of its namespace, found by looking at all processes and at where namespaces are usually
    /// mounted.
    pub(super) fn find(self) -> Option<PathBuf> {
        let below = |folder: &str| fs::read_dir(folder).into_iter().flatten().flatten();
        let processes = below("/proc")
            .filter(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .bytes()
                    .all(|byte| byte.is_ascii_digit())
            })
            .map(|entry| netns::of_process(entry.file_name().display()));
        let mounted = ["/run/netns", "/run/docker/netns"]
            .into_iter()
            .flat_map(below)
            .map(|entry| entry.path());
        processes
            .chain(mounted)
            .find(|path| fs::metadata(path).is_ok_and(|found| found.ino() == self.namespace))
    }
}

/// The inode of the calling thread's namespace.
fn own() -> Option<u64> {
    netns::own_identity().ok().map(|(_, inode)| inode)
}

/// A process that ended has no files, or says that there is no process.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_number_is_never_shown_as_an_index() {
        let spot = Spot {
            number: FIRST_INSIDE + 7,
            ifindex: 2,
        };
        assert_eq!(spot.to_string(), "interface 2 inside a container");
        assert_eq!(Spot::here(7).to_string(), "interface 7");
    }

    #[test]
    fn a_location_is_found_by_the_processes_in_it() {
        let own = Location {
            namespace: own().unwrap(),
            ifindex: 1,
        };
        let path = own.find().unwrap();
        assert_eq!(fs::metadata(path).unwrap().ino(), own.namespace);
        let nowhere = Location {
            namespace: 1,
            ..own
        };
        assert_eq!(nowhere.find(), None);
    }

    #[test]
    fn a_process_that_ended_is_nowhere() {
        let location = Location {
            namespace: 1,
            ifindex: 1,
        };
        let path = Path::new("/proc/4194305/ns/net");
        assert_eq!(location.inside(path, || ()).unwrap(), None);
    }
}
