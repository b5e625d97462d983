//! What the reconcile loop hands to the API: whole snapshots, swapped, and a way
//! to ask it for a full sync.
//!
//! The API never holds the world itself and never blocks the loop.

use std::fmt;
use std::fs::File;
use std::sync::Arc;

use netpol_engine::world::World;
use tokio::sync::{mpsc, oneshot, watch};

use super::wire::{GateDrops, Readiness, Status, Synced};
use crate::flows::Recorder;
use crate::origin::Origins;

/// One state of the world and what is to be said about it.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// What is in force.
    pub world: Arc<World>,
    /// Where its objects come from, and since when they are known.
    pub origins: Origins,
    /// What `netpol status` shows.
    pub status: Status,
}

/// What the server works with; made by the daemon's `main`.
#[derive(Clone, Debug)]
pub struct State {
    /// The latest snapshot.
    pub published: watch::Receiver<Arc<Published>>,
    /// The flows.
    pub flows: Arc<Recorder>,
    /// To the reconcile loop.
    pub sync: mpsc::Sender<SyncRequest>,
    /// To it as well.
    pub ready: mpsc::Sender<ReadyRequest>,
    /// What the gate has dropped.
    pub gate: GateMeter,
}

/// Reads what the gate has dropped, on request.
#[derive(Clone)]
pub struct GateMeter(Arc<dyn Fn() -> GateDrops + Send + Sync>);

impl GateMeter {
    /// One that reads so.
    pub fn new(read: impl Fn() -> GateDrops + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// As of now.
    #[must_use]
    pub fn read(&self) -> GateDrops {
        (self.0)()
    }
}

impl Default for GateMeter {
    fn default() -> Self {
        Self::new(GateDrops::default)
    }
}

impl fmt::Debug for GateMeter {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("GateMeter")
    }
}

/// Please read all that is on disk and in the runtimes now, bring it in force, and
/// answer then. Dropping `reply` says that it could not be done.
#[derive(Debug)]
pub struct SyncRequest {
    /// Where the answer goes. The client may be gone by then.
    pub reply: oneshot::Sender<Synced>,
}

/// Please say whether all is in force for a network namespace.
#[derive(Debug)]
pub struct ReadyRequest {
    /// The namespace's file, opened: a look at it waits for no file system.
    pub netns: Arc<File>,
    /// Only once it is; else as things are now.
    pub wait: bool,
    /// Where the answer goes. The client may be gone by then.
    pub reply: oneshot::Sender<Result<Readiness, String>>,
}
