//! How a run of the daemon ends: on request, or because it can't go on.

use std::net::SocketAddr;

use thiserror::Error;

use super::sources::SourcesError;
use crate::api::listener::ListenError;
use crate::datapath::maps::MapsError;
use crate::datapath::tables::StepError;
use crate::datapath::{AttachError, OpenError};
use crate::watch::WatchError;

/// Why the daemon could not start, or go on. What was enforced before still is.
#[derive(Debug, Error)]
pub enum StartError {
    /// The kernel's side.
    #[error("{0}")]
    Kernel(#[from] OpenError),
    /// The pins.
    #[error("{0}")]
    Watch(#[from] WatchError),
    /// Files, interfaces.
    #[error("{0}")]
    Sources(#[from] SourcesError),
    /// The API's socket.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// The kernel's tables.
    #[error("the kernel's tables can't be written: {0}")]
    Tables(#[from] StepError),
    /// The connections.
    #[error("the kernel's connections can't be read: {0}")]
    Flows(#[from] MapsError),
    /// The programs of an earlier daemon.
    #[error("the programs of an earlier netpold can't be replaced: {0}")]
    Settle(#[from] AttachError),
    /// The metrics' address.
    #[error("metrics can't be served on {listen}: {source}\nhelp: set another `[metrics] listen`")]
    Metrics {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// A thread has ended.
    #[error("the {0} has ended unexpectedly: enforcement stays as it is")]
    Ended(&'static str),
    /// What is in force is not pinned.
    #[error(
        "what is in force is not pinned, and ends with netpold ({why}): containers are {} until it is back\n\
         help: `mount -t bpf bpf /sys/fs/bpf && systemctl restart netpold`",
        if *shut { "shut by the gate" } else { "open" }
    )]
    Unpinned {
        /// Why something is not pinned.
        why: String,
        /// The gate is shut instead.
        shut: bool,
    },
}

/// Why the daemon ended, while what is in force stays in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was asked to.
    Stopped,
    /// Its configuration has changed: it has to start once more.
    Reexec,
}
