//! Where the objects of a world come from, as plain values: the reconcile loop finds it out, `/v1/world` shows it, and
//! `netpol get` and `netpol diff` read it. Its JSON is part of `/v1/world`: fields are only ever added.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ipnet::IpNet;
use netpol_engine::labels::Labels;
use netpol_engine::policy::ObjectName;
use netpol_engine::world::NamedPort;
use serde::{Deserialize, Serialize};

/// Where objects come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origins {
    /// Of policies.
    pub policies: BTreeMap<ObjectName, Origin>,
    /// Of endpoints and external Pods.
    pub pods: BTreeMap<ObjectName, Origin>,
    /// Of namespaces that have a manifest, or that a container is in.
    pub namespaces: BTreeMap<String, Origin>,
}

/// Where one object comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// Its manifest; `None`: a runtime reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// When it was accepted, or first seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<jiff::Timestamp>,
    /// Labels of a policy, which decide nothing; those of Pods and Namespaces are in the world.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    /// Annotations of its manifest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What a runtime says of it, without what a manifest adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Reported>,
    /// Its engine asks its resolvers from the host's network namespace, and no program is sure to see the questions.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub asked_from_host: bool,
}

/// A container as its runtime reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reported {
    /// Its ID.
    pub id: String,
    /// The name that the runtime knows it by.
    pub name: String,
    /// The Pod that it would be without a manifest that names it.
    pub pod: ObjectName,
    /// That one's labels.
    pub labels: Labels,
    /// That one's named ports.
    pub ports: Vec<NamedPort>,
    /// What that one may use by leave.
    pub leaves: BTreeSet<IpNet>,
}
