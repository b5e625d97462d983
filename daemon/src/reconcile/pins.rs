//! Knows when a process touches the pins. The daemon does, too, whenever containers come and go: then it
//! is looked once more than needed.

use std::path::PathBuf;

use crate::watch::{Wanted, WatchError, Watcher};

/// The directories of pins.
#[derive(Debug)]
pub(super) struct Pins {
    watcher: Watcher,
    directories: [PathBuf; 2],
}

impl Pins {
    /// Follows them from now on. To be called inside a tokio runtime.
    pub(super) fn watch(directories: [PathBuf; 2]) -> Result<Self, WatchError> {
        let mut pins = Self {
            watcher: Watcher::new()?,
            directories,
        };
        pins.watch_again();
        Ok(pins)
    }

    /// Returns when something was pinned or unpinned. Dropping the future loses nothing.
    pub(super) async fn changed(&mut self) {
        if let Err(error) = self.watcher.changed().await {
            tracing::warn!(%error, "pins that are removed are noticed late");
            std::future::pending::<()>().await;
        }
        // They may be others of the same names.
        self.watch_again();
    }

    fn watch_again(&mut self) {
        let mut wanted = Wanted::default();
        for directory in &self.directories {
            if let Some(place) = wanted.path(directory) {
                wanted.directory(&place);
            }
        }
        if let Err(error) = self.watcher.watch(&wanted) {
            tracing::warn!(%error, "pins that are removed are noticed late");
        }
    }
}
