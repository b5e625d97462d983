//! Manifests: file text to objects and diagnostics.
//!
//! ```text
//!  text ─▶ tree (YAML, spans, limits) ─▶ object (kinds, Lists) ─▶ metadata, network_policy, pod
//!                                              │                        │
//!                                              └───▶ decode (types, unknown fields, field paths)
//!  Files ─▶ assemble (each object once) ─▶ World::from_objects
//! ```
//!
//! Reads as strictly as `kubectl apply --validate=strict` and validates as the API
//! server does, in its words. Pure: text in, values out, never a file, never a
//! panic, whatever the text. Called by the daemon's store, by `netpol check` and by
//! everything that works offline.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::labels::Labels;
use crate::policy::{Mode, ObjectName, Policy};
use crate::world::NamedPort;

mod address;
mod assemble;
mod bookkeeping;
mod decode;
mod finding;
mod input;
mod locate;
mod merge;
mod metadata;
mod names;
mod network_policy;
mod object;
mod peer;
mod pod;
mod port;
mod report;
mod scalar;
mod selector;
mod syntax;
mod tree;
mod workload;

pub use assemble::{Assembled, assemble};
pub use locate::{Mark, locate};
pub use workload::Workload;

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
    /// Its valid objects, in order. Those of a file with errors are here too: whoever
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

/// The kinds that mean something here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `v1 Namespace`.
    Namespace,
    /// `v1 Pod`.
    Pod,
    /// `networking.k8s.io/v1 NetworkPolicy`.
    NetworkPolicy,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Namespace, Self::Pod, Self::NetworkPolicy];

    /// As `kind` spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Pod => "Pod",
            Self::NetworkPolicy => "NetworkPolicy",
        }
    }

    /// As `apiVersion` spells it.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::Pod => "v1",
            Self::NetworkPolicy => "networking.k8s.io/v1",
        }
    }
}

/// What tells two objects apart. For a Namespace, which has none itself, the
/// namespace is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace and name.
    pub name: ObjectName,
}

/// `NetworkPolicy ns/name`.
impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.name())?;
        f.write_str(" ")?;
        if !self.name.namespace.is_empty() {
            write!(f, "{}/", self.name.namespace)?;
        }
        f.write_str(&self.name.name)
    }
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
    /// What it is.
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

/// Reads a file's text. `path` only names it in diagnostics. Never panics, and takes time
/// and memory in proportion to the text.
#[must_use]
pub fn parse(path: &str, text: &str) -> File {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(diagnostic) = input::too_large(path, text.as_bytes()) {
        return input::refused(path, diagnostic);
    }
    let mut reader = object::Reader::new(path);
    for (begin, part) in input::streams(text) {
        tree::documents(part, begin, |document| match document {
            Ok(document) => reader.document(&document),
            Err(problem) => reader.broken(&problem, text),
        });
    }
    reader.report.extend(input::control_character(path, text));
    reader.report.extend(input::separators(path, text));
    File {
        path: path.to_owned(),
        documents: reader.objects,
        workloads: reader.workloads,
        diagnostics: reader.report.finish(),
    }
}

/// As [`parse`], for bytes that may not be text.
#[must_use]
pub fn parse_bytes(path: &str, bytes: &[u8]) -> File {
    // Before anything else: a text cut off in the middle of a letter is no text.
    if let Some(diagnostic) = input::too_large(path, bytes) {
        return input::refused(path, diagnostic);
    }
    match input::text(path, bytes) {
        Ok(text) => parse(path, text),
        Err(diagnostic) => input::refused(path, *diagnostic),
    }
}

/// Would the API take this label? Containers may have others.
pub(crate) fn is_label(key: &str, value: &str) -> bool {
    names::qualified(key).is_empty() && names::value(value).is_empty()
}

#[cfg(test)]
mod tests;
