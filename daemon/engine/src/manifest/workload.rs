//! Workloads (Deployment and its like): the Pods that a cluster would make of them.
//!
//! The daemon makes no Pods of them, so they change nothing that is enforced. Offline, their Pods' labels and ports are
//! read, so that a published application's policies can be asked about and held against it. Leniently: what is wrong in
//! a workload is its own reader's business.

use super::decode::{below, get, present};
use super::document::Workload;
use super::node::{Entry, Node, Value};
use super::scalar::Scalar;
use crate::labels::Labels;
use crate::names::is_pair;
use crate::policy::{ObjectName, Protocol};
use crate::world::NamedPort;

/// Kinds with a Pod template, and the fields that lead to it.
const KINDS: &[(&str, &str, &[&str])] = &[
    ("apps/v1", "Deployment", &["spec", "template"]),
    ("apps/v1", "StatefulSet", &["spec", "template"]),
    ("apps/v1", "DaemonSet", &["spec", "template"]),
    ("apps/v1", "ReplicaSet", &["spec", "template"]),
    ("v1", "ReplicationController", &["spec", "template"]),
    ("batch/v1", "Job", &["spec", "template"]),
    (
        "batch/v1",
        "CronJob",
        &["spec", "jobTemplate", "spec", "template"],
    ),
];

/// Has a kind of this name a Pod template, which is read?
#[must_use]
pub fn is_workload(kind: &str) -> bool {
    KINDS.iter().any(|(_, name, _)| *name == kind)
}

/// The workload that an object of this kind is, if it is one.
pub(super) fn read(entries: &[Entry<'_>], version: &str, kind: &str) -> Option<Workload> {
    let (_, _, path) = KINDS
        .iter()
        .find(|(of, name, _)| (*of, *name) == (version, kind))?;
    let metadata = inside(entries, "metadata");
    let name = text(metadata, "name").or_else(|| text(metadata, "generateName"))?;
    let namespace = text(metadata, "namespace").unwrap_or("default");
    let template = path.iter().fold(entries, |at, field| inside(at, field));
    let pod = inside(template, "spec");
    Some(Workload {
        name: ObjectName::new(namespace, name),
        labels: labels(inside(inside(template, "metadata"), "labels")),
        ports: items(pod, "containers").flat_map(ports).collect(),
        host_network: matches!(
            present(pod, "hostNetwork").map(|entry| &entry.value.value),
            Some(Value::Scalar(_, Scalar::Bool(true)))
        ),
    })
}

/// The entries of a field that is a mapping.
fn inside<'n, 'a>(entries: &'n [Entry<'a>], name: &str) -> &'n [Entry<'a>] {
    get(entries, name).map_or(&[], below)
}

/// The items of a field that is a list of mappings.
fn items<'n, 'a>(
    entries: &'n [Entry<'a>],
    name: &str,
) -> impl Iterator<Item = &'n [Entry<'a>]> + use<'n, 'a> {
    let items: &[Node] = match get(entries, name).map(|entry| &entry.value.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    };
    items.iter().filter_map(|item| match &item.value {
        Value::Mapping(entries) => Some(&entries[..]),
        _ => None,
    })
}

fn text<'n>(entries: &'n [Entry<'_>], name: &str) -> Option<&'n str> {
    match &present(entries, name)?.value.value {
        Value::Scalar(text, Scalar::Text) if !text.is_empty() => Some(text),
        _ => None,
    }
}

fn labels(entries: &[Entry<'_>]) -> Labels {
    entries
        .iter()
        .filter_map(|entry| match &entry.value.value {
            Value::Scalar(value, Scalar::Text) if is_pair(&entry.key, value) => {
                Some((entry.key.clone().into_owned(), value.clone().into_owned()))
            }
            _ => None,
        })
        .collect()
}

fn ports(container: &[Entry<'_>]) -> Vec<NamedPort> {
    items(container, "ports")
        .filter_map(|port| {
            let number = &present(port, "containerPort")?.value.value;
            let protocol = text(port, "protocol").map_or(Ok(Protocol::Tcp), str::parse);
            Some(NamedPort {
                name: text(port, "name")?.to_owned(),
                port: match number {
                    Value::Scalar(_, Scalar::Int(number)) => u16::try_from(*number).ok()?,
                    _ => return None,
                },
                protocol: protocol.ok()?,
            })
        })
        .collect()
}
