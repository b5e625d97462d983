//! Many files to one set of objects, and objects to a [`World`].
//!
//! Owns the rule that an object stands once: the first given stays, the second is
//! an error that names both places. Order is the caller's: the daemon gives files
//! in the order in which it accepted them, `netpol check` by path. Called by the
//! store and by everything offline.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use super::document::{File, Object, PodManifest, Position, Value, Workload};
use crate::diagnostic::{Diagnostic, Mark, Severity, rule};
use crate::object::ObjectId;
use crate::policy::Mode;
use crate::world::{Place, Pod, World};

/// The objects of many files, each once.
#[derive(Clone, Debug, Default)]
pub struct Assembled<'a> {
    /// The objects with the path of their file, in order.
    pub objects: Vec<(&'a str, &'a Object)>,
    /// Workloads with the path of their file, in order.
    pub workloads: Vec<(&'a str, &'a Workload)>,
    /// Objects given twice (errors), addresses stated twice (warnings).
    pub diagnostics: Vec<Diagnostic>,
}

impl<'a> Assembled<'a> {
    /// Just the objects.
    pub fn objects(&self) -> impl Iterator<Item = &'a Object> {
        self.objects.iter().map(|(_, object)| *object)
    }

    /// The world that these objects make, see [`World::from_objects`].
    #[must_use]
    pub fn world(&self) -> World {
        World::from_objects(self.objects())
    }

    /// The world that a cluster would make of them: that of the objects, and the Pods of each workload as one Pod with the
    /// workload's name, unless a Pod has that name. It has no address: it never runs here.
    #[must_use]
    pub fn offline_world(&self) -> World {
        let mut world = self.world();
        for (_, workload) in &self.workloads {
            let pod = world.pods.entry(workload.name.clone());
            pod.or_insert_with(|| Pod::from(*workload));
        }
        world
    }
}

/// Puts the objects of files together. The files' own diagnostics are not repeated, and
/// whether a file is accepted is the caller's question.
pub fn assemble<'a>(files: impl IntoIterator<Item = &'a File>) -> Assembled<'a> {
    let mut assembled = Assembled::default();
    let mut seen: BTreeMap<ObjectId, (&str, Position)> = BTreeMap::new();
    let mut addresses: BTreeMap<IpAddr, (&str, Position)> = BTreeMap::new();
    for file in files {
        let workloads = file.workloads.iter();
        assembled
            .workloads
            .extend(workloads.map(|workload| (&*file.path, workload)));
        for object in &file.documents {
            match seen.entry(object.id()) {
                Entry::Vacant(entry) => {
                    entry.insert((&file.path, object.position));
                }
                Entry::Occupied(first) => {
                    let diagnostic = given_twice(object, &file.path, *first.get());
                    assembled.diagnostics.push(diagnostic);
                    continue;
                }
            }
            if let Value::Pod(pod) = &object.value
                && has_own_addresses(pod)
            {
                for address in &pod.pod_ips {
                    match addresses.entry(*address) {
                        Entry::Vacant(entry) => {
                            entry.insert((&file.path, object.position));
                        }
                        Entry::Occupied(first) => {
                            let diagnostic =
                                address_twice(object, &file.path, *address, *first.get());
                            assembled.diagnostics.push(diagnostic);
                        }
                    }
                }
            }
            assembled.objects.push((&file.path, object));
        }
    }
    assembled
}

/// Pods on the host's network share its addresses.
fn has_own_addresses(pod: &PodManifest) -> bool {
    pod.external || !pod.host_network
}

/// The second of two objects with one name.
pub(super) fn given_twice(object: &Object, path: &str, first: (&str, Position)) -> Diagnostic {
    let (first_path, first) = first;
    let also = (first_path == path).then(|| Mark {
        line: first.line,
        column: first.column,
        length: 0,
        label: "first here".to_owned(),
    });
    Diagnostic {
        also,
        message: format!(
            "{} is given twice: first at {first_path}:{}:{}",
            object.id(),
            first.line,
            first.column
        ),
        help: Some("remove one of the two, or give one another name or namespace".to_owned()),
        field: Some("metadata.name".to_owned()),
        ..about(object, path, Severity::Error, rule::DUPLICATE_OBJECT)
    }
}

fn address_twice(
    object: &Object,
    path: &str,
    address: IpAddr,
    first: (&str, Position),
) -> Diagnostic {
    let (first_path, first) = first;
    Diagnostic {
        message: format!(
            "{address} belongs to the Pod at {first_path}:{}:{} already, and counts for that one",
            first.line, first.column
        ),
        help: Some("give each Pod an address of its own".to_owned()),
        field: Some("status.podIPs".to_owned()),
        ..about(object, path, Severity::Warning, rule::ADDRESS_CONFLICT)
    }
}

fn about(object: &Object, path: &str, severity: Severity, rule: &'static str) -> Diagnostic {
    let id = object.id();
    let place = (object.position.line, object.position.column);
    Diagnostic {
        kind: Some(id.kind.name().to_owned()),
        namespace: Some(id.name.namespace).filter(|namespace| !namespace.is_empty()),
        name: Some(id.name.name),
        ..Diagnostic::new(path, place, severity, rule, "")
    }
}

impl World {
    /// The world that manifests alone make, for offline use: Pods at their
    /// `status.podIPs`. An address that two Pods state stays with the first, and of two
    /// objects with one name the first counts. Without a kernel to ask, the host is whatever
    /// address a Pod on the host's network states: [`World::host`] has those.
    #[must_use]
    pub fn from_objects<'a>(objects: impl IntoIterator<Item = &'a Object>) -> Self {
        let mut world = Self::default();
        let mut owners = BTreeMap::new();
        for object in objects {
            match &object.value {
                Value::NetworkPolicy(policy) => {
                    world
                        .policies
                        .entry(policy.name.clone())
                        .or_insert_with(|| Arc::clone(policy));
                }
                Value::Namespace { name, mode } => {
                    if let Entry::Vacant(entry) = world.namespaces.entry(name.clone()) {
                        entry.insert(object.labels.clone());
                        if *mode == Mode::Audit {
                            world.audited.insert(name.clone());
                        }
                    }
                }
                Value::Pod(manifest) => {
                    let Entry::Vacant(entry) = world.pods.entry(manifest.name.clone()) else {
                        continue;
                    };
                    let mut pod = Pod::from(manifest);
                    if has_own_addresses(manifest) {
                        pod.addresses.retain(|address| {
                            *owners.entry(*address).or_insert(&manifest.name) == &manifest.name
                        });
                    } else {
                        world.host.extend(&pod.addresses);
                    }
                    entry.insert(pod);
                }
            }
        }
        world
    }
}

/// As it stands in the manifest, at its `status.podIPs`, and not attached.
impl From<&PodManifest> for Pod {
    fn from(manifest: &PodManifest) -> Self {
        Self {
            labels: manifest.labels.clone(),
            ports: manifest.ports.clone(),
            addresses: manifest.pod_ips.iter().copied().collect(),
            leaves: manifest.leaves.clone(),
            published: Default::default(),
            place: if manifest.external {
                Place::External
            } else if manifest.host_network {
                Place::HostNetwork
            } else {
                Place::Local
            },
        }
    }
}

impl From<&Workload> for Pod {
    fn from(workload: &Workload) -> Self {
        Self {
            labels: workload.labels.clone(),
            ports: workload.ports.clone(),
            place: match workload.host_network {
                true => Place::HostNetwork,
                false => Place::Local,
            },
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests;
