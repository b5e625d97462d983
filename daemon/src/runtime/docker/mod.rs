//! The Docker engine, or what speaks its API: which containers there are.
//!
//! ```text
//!  events (hints) ─▶ follow ─▶ engine (HTTP) ─▶ model (listing → Snapshot) ─▶ watch channel
//! ```
//!
//! Owns the talk with one engine. A listing is the truth, events only say when to make
//! one. Must never ask for one container in the way of the others: the engine holds a
//! container's lock for as long as it starts, and an inspection waits for it. Started
//! by `netpold`; the [`Snapshot`] is read by `reconcile`.

mod engine;
mod follow;
mod model;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

#[cfg(fuzzing)]
pub use follow::stream::hold;
pub use follow::{Follower, follow};

/// What the engine says, as of the last time it said something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Its containers, running or not, by ID. Where `connected` is false they are those of
    /// before: containers may outlive their engine.
    pub containers: Vec<Container>,
    /// Is the engine there, and was everything listed?
    pub connected: bool,
    /// Does its last listing lack an inspection, so that some PID is not known yet?
    pub incomplete: bool,
    /// Why it is not connected, where that is not as it should be.
    pub error: Option<String>,
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its ID, 64 hexadecimal digits.
    pub id: String,
    /// Its name, without the `/` before it.
    pub name: String,
    /// Its labels as they are; `runtime::identity` makes a Pod's of them.
    pub labels: BTreeMap<String, String>,
    /// Its first process; 0 where it does not run, or is not known yet.
    pub pid: u32,
    /// `HostConfig.NetworkMode`.
    pub network_mode: String,
    /// The ID of the container whose network namespace it shares.
    pub joined: Option<String>,
    /// Is it on the host's network?
    pub host_network: bool,
    /// The networks that it is on.
    pub networks: Vec<Attachment>,
    /// What it does.
    pub state: State,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

impl Container {
    /// Does it have processes?
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running | State::Paused)
    }
}

/// A container's place in a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The network's name.
    pub name: String,
    /// The network's driver: `bridge`, `macvlan`, `overlay`; empty where it is not known.
    pub driver: String,
    /// The host's bridge, for the driver `bridge`.
    pub bridge: Option<String>,
    /// The container's MAC address.
    pub mac: Option<[u8; 6]>,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its global IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}

/// What a container does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It was made, and may be starting: the engine calls it so until it has started.
    Created,
    /// It runs.
    Running,
    /// It is frozen.
    Paused,
    /// It ended, and will be started again.
    Restarting,
    /// It ended.
    #[default]
    Ended,
}

/// The name that Docker gives the host's end of a container's veth: `veth` and seven
/// hexadecimal digits.
#[must_use]
pub fn is_veth_name(name: &str) -> bool {
    name.strip_prefix("veth").is_some_and(|digits| {
        digits.len() == 7
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}
