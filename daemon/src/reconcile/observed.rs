//! What was gathered, as plain values: all that [`super::assemble`] may look at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use netpol_engine::policy::ObjectName;

use crate::links::{self, Inside, Veth};
use crate::runtime::container::{self, Container, Runtime};
use crate::runtime::resolvers;
use crate::store::StoreView;
use crate::translation::Rule;

/// Everything that is known of the outside at one moment.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The manifests.
    pub store: Arc<StoreView>,
    /// Engines that speak Docker's API, in the order of the configuration.
    pub docker: Vec<Engine>,
    /// containerd.
    pub containerd: Engine,
    /// Steps of Podman's builds, which no listing of its containers has.
    pub builds: Vec<Container>,
    /// Network namespaces of running containers, by container ID.
    pub containers: BTreeMap<String, Namespace>,
    /// Network namespaces of the engines' own, by their ids here: no container is in them.
    pub engines_own: BTreeSet<i32>,
    /// Declared endpoints, in the order of their manifests.
    pub declared: Vec<Declared>,
    /// This host's interfaces and addresses.
    pub links: links::Snapshot,
    /// The host's resolvers.
    pub resolvers: resolvers::Found,
    /// The host's rules that replace source addresses.
    pub translations: Vec<Rule>,
    /// What could not be looked at.
    pub problems: Vec<String>,
}

impl Observed {
    /// Every engine that may be followed.
    pub fn engines(&self) -> impl Iterator<Item = &Engine> {
        self.docker.iter().chain([&self.containerd])
    }

    /// The engine that has the container of this ID; `None`: the configuration no longer names its socket.
    #[must_use]
    pub fn engine_of(&self, runtime: Runtime, id: &str) -> Option<&Engine> {
        match runtime {
            Runtime::Containerd => Some(&self.containerd),
            Runtime::Docker => match container::split(id) {
                (Some(socket), _) => self.docker.iter().find(|engine| engine.path == socket),
                (None, _) => self.docker.first(),
            },
        }
    }

    /// Every container that a runtime has, or builds with.
    pub fn all_containers(&self) -> impl Iterator<Item = &Container> {
        let listed = self.engines();
        let listed = listed.flat_map(|engine| &engine.snapshot.containers);
        listed.chain(&self.builds)
    }
}

/// A container runtime.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    /// What it speaks.
    pub runtime: Runtime,
    /// Its socket.
    pub path: PathBuf,
    /// What messages call it.
    pub label: String,
    /// Is one to be followed?
    pub followed: bool,
    /// Must it be there?
    pub required: bool,
    /// Is its socket there?
    pub socket: bool,
    /// Has it listed its containers since the daemon started?
    pub listed: bool,
    /// Bridges of its networks: those that it named, and until it has named all, those of before.
    pub bridges: BTreeSet<String>,
    /// What it said last.
    pub snapshot: Arc<container::Snapshot>,
}

impl Engine {
    /// May a veth that looks like this engine's be a container's?
    #[must_use]
    pub const fn may_have_containers(&self) -> bool {
        self.followed && (self.required || self.socket || self.listed)
    }
}

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its file.
    pub path: PathBuf,
    /// Device and inode.
    pub identity: (u64, u64),
    /// Its id here; `None`: it is the host's own.
    pub nsid: Option<i32>,
    /// What is inside, where that was looked at.
    pub inside: Vec<Inside>,
    /// Did its container run already when that was looked at?
    pub looked_running: bool,
    /// What the processes in it can do, where that matters.
    pub rights: Rights,
}

/// Rights in a network namespace by which programs inside can be got rid of, or gone around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// CAP_NET_ADMIN.
    pub net_admin: bool,
    /// CAP_NET_RAW.
    pub net_raw: bool,
}

impl Rights {
    /// What either of two can do.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            net_admin: self.net_admin || other.net_admin,
            net_raw: self.net_raw || other.net_raw,
        }
    }
}

impl Namespace {
    /// The interface with this index in it, where that was looked at.
    #[must_use]
    pub fn interface(&self, ifindex: Option<u32>) -> Option<&Inside> {
        self.inside
            .iter()
            .find(|inside| Some(inside.ifindex) == ifindex)
    }

    /// The other end of a veth, where it is inside and was looked at.
    #[must_use]
    pub fn peer_of(&self, veth: &Veth) -> Option<&Inside> {
        self.inside.iter().find(|inside| {
            Some(inside.ifindex) == veth.peer_ifindex && inside.iflink == Some(veth.ifindex)
        })
    }
}

/// A declared endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The Pod's name.
    pub name: ObjectName,
    /// The path that it declares.
    pub path: PathBuf,
    /// What is there, or why nothing.
    pub namespace: Result<Namespace, String>,
}
