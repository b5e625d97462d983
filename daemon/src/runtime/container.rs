//! What runtimes say of their containers, as plain values: the same for all of them.
//!
//! A container's ID is unique among all engines of a host. An engine that speaks Docker's API says 64 hexadecimal
//! digits, and another engine may say the same ones (its data was copied); so `reconcile` has them as
//! `SOCKET/ID` ([`Snapshot::of`]), the socket being an absolute path. containerd's are `NAMESPACE/ID`, and no namespace
//! begins with `/`. Filled by `docker` and `containerd`, read by `reconcile`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Instant;

use netpol_engine::world::PublishedPort;

/// What a runtime says, as of the last time it said something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Its containers, running or not. Where `connected` is false they are those of before:
    /// containers may outlive their runtime's daemon.
    pub containers: Vec<Container>,
    /// The host's bridges of its networks, with or without containers on them.
    pub bridges: BTreeSet<String>,
    /// An interface of the engine's own on one of its bridges, by which a swarm's published ports come in, and when the
    /// engine was asked: it is no container's.
    pub ingress: Option<(Attachment, Instant)>,
    /// Is the runtime there, and was everything listed?
    pub connected: bool,
    /// Does its last listing lack an inspection, so that some PID is not known yet?
    pub incomplete: bool,
    /// Why it is not connected, where that is not as it should be; or what it can't name.
    pub error: Option<String>,
}

impl Snapshot {
    /// The same, with IDs that no container of another engine has, whatever that one says: those of the engine at this
    /// socket.
    #[must_use]
    pub fn of_engine(&self, socket: &Path) -> Self {
        let mut all = self.clone();
        for container in &mut all.containers {
            container.id = qualified(socket, &container.id);
            if let Some(owner) = &mut container.joined {
                *owner = qualified(socket, owner);
            }
        }
        all
    }
}

/// The ID that a container of the engine at this socket has among all engines.
#[must_use]
pub fn qualified(socket: &Path, id: &str) -> String {
    format!("{}/{id}", socket.display())
}

/// An engine's socket, where the ID of a container has it, and the ID that the engine says.
#[must_use]
pub fn split(id: &str) -> (Option<&Path>, &str) {
    match id.rsplit_once('/') {
        Some((socket, own)) if socket.starts_with('/') => (Some(Path::new(socket)), own),
        _ => (None, id),
    }
}

/// The runtime of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Runtime {
    /// The Docker engine, or what speaks its API.
    #[default]
    Docker,
    /// containerd, for its own clients.
    Containerd,
}

impl Runtime {
    /// Its name, as in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
        }
    }
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Its runtime.
    pub runtime: Runtime,
    /// Its ID: Docker's are 64 hexadecimal digits, or `SOCKET/ID` among several engines; containerd's `NAMESPACE/ID`.
    pub id: String,
    /// Its name, without the `/` before it.
    pub name: String,
    /// Its labels as they are; `runtime::identity` makes a Pod's of them.
    pub labels: BTreeMap<String, String>,
    /// Its first process; 0 where it does not run, or is not known yet.
    pub pid: u32,
    /// The control group that it was to be put below, where that was asked for.
    pub cgroup_parent: String,
    /// `HostConfig.NetworkMode`.
    pub network_mode: String,
    /// The ID of the container whose network namespace it shares.
    pub joined: Option<String>,
    /// Is it on the host's network?
    pub host_network: bool,
    /// The networks that it is on; containerd knows of none.
    pub networks: Vec<Attachment>,
    /// Its ports that the engine publishes at the host's addresses; before it runs, those that it is to.
    pub published: BTreeSet<PublishedPort>,
    /// Its resolvers.
    pub dns: Dns,
    /// Its part in a Pod of a Kubernetes runtime.
    pub part: Option<Part>,
    /// What it does.
    pub state: State,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// It is a step of an image's build, which no listing has; it was on its networks after this time.
    pub build: Option<Instant>,
}

impl Container {
    /// Does it have processes?
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running | State::Paused)
    }

    /// Does it hold its Pod's network namespace?
    #[must_use]
    pub fn is_sandbox(&self) -> bool {
        self.part.as_ref().is_some_and(|part| part.sandbox)
    }
}

/// A container's resolvers, as far as its runtime tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Those that it was given for itself, and can ask.
    pub servers: BTreeSet<IpAddr>,
    /// Where the questions come from.
    pub asked_from: AskedFrom,
}

/// The network namespace that a container's resolvers are asked from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AskedFrom {
    /// The container's: its policies see the questions.
    #[default]
    Container,
    /// The host's, if the host's resolver was a loopback address when the container started.
    HostIfLoopback,
    /// The host's.
    Host,
    /// It runs, and its engine was not asked about it yet.
    Unknown,
}

/// A container's part in a Pod of a Kubernetes runtime. All parts of a Pod are one endpoint,
/// and the sandbox speaks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The Pod's UID.
    pub pod: String,
    /// Is it the one that holds the network namespace?
    pub sandbox: bool,
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
    /// Link-local addresses that the engine was told to give it beside those.
    pub link_local: Vec<IpAddr>,
}

impl Attachment {
    /// All addresses that the engine gave the container there.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let own = [self.ipv4.map(IpAddr::V4), self.ipv6.map(IpAddr::V6)];
        let link_local = self.link_local.iter().copied();
        own.into_iter().flatten().chain(link_local)
    }
}

/// What a container does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It was made, and may be starting: the runtime calls it so until it has started.
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
