//! What tells Kubernetes objects apart: kind, namespace and name.

use std::fmt;

use crate::policy::ObjectName;

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
impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        f.write_str(" ")?;
        if !self.name.namespace.is_empty() {
            write!(f, "{}/", self.name.namespace)?;
        }
        f.write_str(&self.name.name)
    }
}
