//! The gate: a static nftables rule set that drops the frames of containers' interfaces until netpold's
//! programs decide there. It needs no daemon to drop, only one to let through.
//!
//! ```text
//!  netpol gate install ─▶ nft ──▶ table bridge netpold ◀── kernel ◀── reconcile (interface N is ready)
//!  (at boot, its unit)            in the kernel        ──▶ listen ──▶ reconcile (it was flushed: again)
//!            └──────── kept: installed; bridges ────────────┘
//! ```
//!
//! The programs can't be on an interface before it is there, and the daemon that puts them there may be late, stopped or
//! not started yet. The gate closes that: a port that did not exist when it was installed is
//! shut. [`rules`] says whose ports it is about. What does not pass through a bridge (CNI's `ptp`, macvlan) it
//! can't see.
//!
//! Nothing here decides which interface is ready: `reconcile` does.

pub mod kernel;
pub mod listen;
mod message;
mod nft;
pub mod rules;
pub mod state;
pub mod veths;

use std::io;

use thiserror::Error;

pub use kernel::{Drops, GateSnapshot, Kernel};
pub use listen::Listener;
pub use nft::install;
pub use rules::{Contents, Scope};
pub use state::GateState;
pub use veths::{Seen, VethNaming};

use crate::config::{Config, Enabled, Mode, Unidentified};

/// Why the gate is not as it should be.
#[derive(Debug, Error)]
pub enum GateError {
    /// There is no nft(8).
    #[error("there is no nft(8) to install it with (Debian: `apt install nftables`)")]
    NoNft,
    /// nft(8) could not be run.
    #[error("nft(8) can't be run: {0}")]
    Run(io::Error),
    /// The kernel, or nft(8), refuses the rules.
    #[error("nft(8) refuses its rules: {0}")]
    Refused(String),
    /// Netlink.
    #[error("nftables: {action}: {source}")]
    Netlink {
        /// What was being done.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The state directory.
    #[error("the state directory: {0}")]
    GateState(io::Error),
}

/// Why this configuration has no gate; `None`: it has one.
#[must_use]
pub fn why_not(config: &Config) -> Option<&'static str> {
    if config.gate.enabled == Enabled::No {
        return Some("`[gate] enabled = false`");
    }
    if config.enforcement.mode == Mode::Audit {
        return Some("nothing is dropped with `[enforcement] mode = \"audit\"`");
    }
    if config.enforcement.unidentified == Unidentified::Allow {
        return Some(
            "interfaces that nobody knows pass with `[enforcement] unidentified = \"allow\"`",
        );
    }
    None
}
