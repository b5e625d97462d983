//! Writes of one entry of a map, and why one could not be done.

use aya::maps::MapError;
use nix::errno::Errno;
use thiserror::Error;

use super::grace_period::GracePeriodError;
use super::maps;

/// Why one step could not be done.
#[derive(Debug, Error)]
pub enum StepError {
    /// The table has no room.
    #[error("the table `{map}` is full: it holds {limit} entries")]
    TableFull {
        /// The table's name.
        map: &'static str,
        /// Its size.
        limit: u32,
    },
    /// The kernel has no memory for an entry.
    #[error("the kernel has no memory for another entry of the table `{map}`")]
    NoMemory {
        /// The table's name.
        map: &'static str,
    },
    /// The slot does not exist.
    #[error("the table `{map}` has no slot {slot}")]
    NoSlot {
        /// The table's name.
        map: &'static str,
        /// The slot asked for.
        slot: u32,
    },
    /// The kernel refused.
    #[error("writing the table `{map}` failed: {source}")]
    Write {
        /// The table's name.
        map: &'static str,
        /// The kernel's error.
        source: MapError,
    },
    /// The wait for running programs.
    #[error(transparent)]
    GracePeriod(#[from] GracePeriodError),
}

/// What came of putting an entry into a map of this size.
pub(super) fn put(
    map: &'static str,
    limit: u32,
    result: Result<(), MapError>,
) -> Result<(), StepError> {
    result.map_err(|source| {
        if let MapError::OutOfBounds { index, .. } = source {
            return StepError::NoSlot { map, slot: index };
        }
        match maps::errno(&source).map(Errno::from_raw) {
            // A hash that is full says E2BIG, a trie ENOSPC.
            Some(Errno::E2BIG | Errno::ENOSPC) => StepError::TableFull { map, limit },
            Some(Errno::ENOMEM) => StepError::NoMemory { map },
            _ => StepError::Write { map, source },
        }
    })
}

/// What came of deleting an entry: an entry that is not there is deleted.
pub(super) fn delete(map: &'static str, result: Result<(), MapError>) -> Result<(), StepError> {
    match result {
        Err(source) if maps::errno(&source).map(Errno::from_raw) != Some(Errno::ENOENT) => {
            Err(StepError::Write { map, source })
        }
        _ => Ok(()),
    }
}
