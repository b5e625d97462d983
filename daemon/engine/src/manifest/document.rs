//! What stands in a manifest, as plain values: the file, its objects, and what each says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::labels::Labels;
use crate::object::{Kind, ObjectId};
use crate::policy::{Mode, ObjectName, Policy};
use crate::world::NamedPort;

/// Annotation: the network namespace of a declared Pod.
pub const ANNOTATION_NETNS: &str = "netpold.io/netns";
/// Annotation: the container that a Pod is, by name or ID.
pub const ANNOTATION_CONTAINER: &str = "netpold.io/container";
/// Annotation: a Pod that is elsewhere.
pub const ANNOTATION_EXTERNAL: &str = "netpold.io/external";

/// Annotation of a NetworkPolicy and of a Namespace: whether it is enforced, or audited.
pub const ANNOTATION_MODE: &str = "netpold.io/mode";

/// What stands in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Its name, as it was given.
    pub path: String,
    /// Its valid objects, in order. Those of a file with errors are here too: a caller that
    /// puts objects in force asks [`File::is_accepted`] first.
    pub documents: Vec<Object>,
    /// Its workloads: no objects here, they only tell of labels that are meant to be in use.
    pub workloads: Vec<Workload>,
    /// What is wrong with it, in order.
    pub diagnostics: Vec<Diagnostic>,
}

impl File {
    /// Is it valid as a whole? One error anywhere makes a file change nothing.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        !self.diagnostics.iter().any(Diagnostic::is_error)
    }

    /// Does it hold nothing: neither object nor finding? So looks a file that a full
    /// disk cut to nothing.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.documents.is_empty() && self.diagnostics.is_empty()
    }
}

/// A place in a file, counted from 1; columns in characters.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One valid object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Where it begins in its file.
    pub position: Position,
    /// `metadata.labels`: of a Pod and a Namespace what selectors look at, of a policy for people.
    pub labels: Labels,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `metadata.creationTimestamp`, where it is stated.
    pub created: Option<String>,
    /// The object itself.
    pub value: Value,
}

/// What an [`Object`] is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// A NetworkPolicy, decoded.
    NetworkPolicy(Arc<Policy>),
    /// A Namespace; its labels are the object's.
    Namespace {
        /// Its name.
        name: String,
        /// [`ANNOTATION_MODE`].
        mode: Mode,
    },
    /// A Pod.
    Pod(PodManifest),
}

impl Object {
    /// What tells it from others.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        let (kind, name) = match &self.value {
            Value::NetworkPolicy(policy) => (Kind::NetworkPolicy, policy.name.clone()),
            Value::Namespace { name, .. } => (Kind::Namespace, ObjectName::new("", name)),
            Value::Pod(pod) => (Kind::Pod, pod.name.clone()),
        };
        ObjectId { kind, name }
    }
}

/// What a Pod manifest says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodManifest {
    /// Its name.
    pub name: ObjectName,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// `spec.containers[].ports[]` that have a name, in order: where a name stands twice, the first counts.
    pub ports: Vec<NamedPort>,
    /// `status.podIP` and `status.podIPs[].ip`, each once, in order.
    pub pod_ips: Vec<IpAddr>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// [`ANNOTATION_NETNS`]: an absolute path.
    pub netns: Option<PathBuf>,
    /// [`ANNOTATION_CONTAINER`]: a container's name, its ID, or the beginning of that.
    pub container: Option<String>,
    /// [`ANNOTATION_EXTERNAL`].
    pub external: bool,
    /// [`crate::leave::ADDRESSES`]: what it may use beside its own addresses.
    #[serde(default)]
    pub leaves: BTreeSet<IpNet>,
}

/// What a workload says of its Pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Its namespace and name.
    pub name: ObjectName,
    /// Labels of its Pods.
    pub labels: Labels,
    /// Their named ports.
    pub ports: Vec<NamedPort>,
    /// They are on the host's network.
    pub host_network: bool,
}
