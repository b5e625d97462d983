//! What was gathered, as plain values: all that [`super::assemble`] may look at.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use netpol_engine::policy::ObjectName;

use crate::links::{self, Inside};
use crate::runtime::docker;
use crate::store::StoreView;

/// Everything that is known of the outside at one moment.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The manifests.
    pub store: Arc<StoreView>,
    /// The container engine.
    pub docker: Engine,
    /// Network namespaces of running containers, by container ID.
    pub containers: BTreeMap<String, Namespace>,
    /// Declared endpoints, in the order of their manifests.
    pub declared: Vec<Declared>,
    /// This host's interfaces and addresses.
    pub links: links::Snapshot,
    /// The host's resolvers; `None`: they are no peer.
    pub resolvers: Option<BTreeSet<IpAddr>>,
    /// What could not be looked at.
    pub problems: Vec<String>,
}

/// The container engine.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    /// Is one to be followed?
    pub followed: bool,
    /// Must it be there?
    pub required: bool,
    /// Is its socket there?
    pub socket: bool,
    /// Has it listed its containers since the daemon started?
    pub listed: bool,
    /// What it said last.
    pub snapshot: Arc<docker::Snapshot>,
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
