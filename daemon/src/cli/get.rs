//! `netpol get`: what there is, in kubectl's columns.

use std::collections::BTreeSet;
use std::io::Write;

use netpol_engine::labels::Labels;
use netpol_engine::policy::{Direction, ObjectName};
use netpol_engine::world::Place;
use serde_json::Value;

use super::output::{Columns, Form, Output, age};
use super::scope::Scope;
use super::source::Source;
use super::{Exit, object};
use crate::api::wire::{Listing, Origin};
use crate::printable::printable;

/// List policies, Pods or Namespaces
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  netpol get networkpolicies -A
  netpol get pods -n payments -l app=api-server --show-labels
  netpol get netpol default-deny -n payments -o yaml
  netpol get ns --manifests ./manifests")]
pub struct Get {
    /// What to list
    #[arg(value_enum, value_name = "KIND")]
    kind: Kind,
    /// Just these
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    form: Form,
    /// Labels as a last column
    #[arg(long)]
    show_labels: bool,
    /// Leave the first line out
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    #[value(name = "networkpolicies", aliases = ["networkpolicy", "netpol", "netpols"])]
    NetworkPolicies,
    #[value(name = "pods", aliases = ["pod", "po"])]
    Pods,
    #[value(name = "namespaces", aliases = ["namespace", "ns"])]
    Namespaces,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::NetworkPolicies => "NetworkPolicy",
            Self::Pods => "Pod",
            Self::Namespaces => "Namespace",
        }
    }

    const fn columns(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::NetworkPolicies => (
                &["NAME", "POD-SELECTOR", "AGE"],
                &["POLICY-TYPES", "SELECTS", "FILE"],
            ),
            Self::Pods => (&["NAME", "STATUS", "AGE"], &["IP", "PORTS", "FILE"]),
            Self::Namespaces => (&["NAME", "STATUS", "AGE"], &["PODS", "FILE"]),
        }
    }
}

/// One object, in all forms that can be asked for.
struct Item {
    /// The Namespace is empty for those that are in none.
    name: ObjectName,
    labels: Labels,
    /// Without the name.
    cells: Vec<String>,
    wide: Vec<String>,
    object: Value,
}

impl Get {
    pub(super) fn run(&self, source: &Source, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let listing = match source.listing() {
            Ok(listing) => listing,
            Err(none) => return none.exit(),
        };
        let now = jiff::Timestamp::now();
        let mut items = match self.kind {
            Kind::NetworkPolicies => policies(&listing, now),
            Kind::Pods => pods(&listing, now),
            Kind::Namespaces => namespaces(&listing, now),
        };
        items.retain(|item| match self.kind {
            Kind::Namespaces => self.scope.selects(&item.labels),
            _ => self.scope.holds(&item.name, &item.labels),
        });
        let missing: Vec<&String> = self
            .names
            .iter()
            .filter(|name| !items.iter().any(|item| item.name.name == **name))
            .collect();
        if !self.names.is_empty() {
            items.retain(|item| self.names.contains(&item.name.name));
        }
        for name in &missing {
            anstream::eprintln!(
                "error: no {} is named `{}`{}",
                self.kind.name(),
                printable(name),
                self.place()
            );
        }
        if matches!(self.form.output, Output::Json | Output::Yaml) {
            let objects = items.into_iter().map(|item| item.object).collect();
            self.form.output.value(out, &object::list(objects))?;
        } else if !items.is_empty() {
            self.columns(items).write(out, "")?;
        } else if missing.is_empty() {
            anstream::eprintln!("No resources found{}", self.place());
        }
        Ok(Exit::answer(missing.is_empty()))
    }

    fn place(&self) -> String {
        match (self.kind, self.scope.namespace()) {
            (Kind::Namespaces, _) | (_, None) => String::new(),
            (_, Some(namespace)) => format!(" in the Namespace `{}`", printable(namespace)),
        }
    }

    fn columns(&self, items: Vec<Item>) -> Columns {
        let wide = self.form.output == Output::Wide;
        let with_namespace = self.scope.all_namespaces && self.kind != Kind::Namespaces;
        let (narrow_names, wide_names) = self.kind.columns();
        let mut header = Vec::new();
        if !self.no_headers {
            header.extend(with_namespace.then_some("NAMESPACE"));
            header.extend(narrow_names);
            header.extend(wide_names.iter().filter(|_| wide));
            header.extend(self.show_labels.then_some("LABELS"));
        }
        let mut columns = Columns::new(&header);
        for item in items {
            let mut cells = Vec::new();
            cells.extend(with_namespace.then_some(item.name.namespace));
            cells.push(item.name.name);
            cells.extend(item.cells);
            cells.extend(item.wide.into_iter().filter(|_| wide));
            cells.extend(self.show_labels.then(|| written(&item.labels)));
            columns.row(cells);
        }
        columns
    }
}

fn policies(listing: &Listing, now: jiff::Timestamp) -> Vec<Item> {
    let world = &listing.world;
    world
        .policies
        .iter()
        .map(|(name, policy)| {
            let origin = listing.origins.policies.get(name);
            let types: Vec<&str> = [
                (Direction::Ingress, "Ingress"),
                (Direction::Egress, "Egress"),
            ]
            .into_iter()
            .filter_map(|(direction, word)| policy.rules(direction).map(|_| word))
            .collect();
            let selects = world
                .pods
                .iter()
                .filter(|(pod, known)| {
                    known.is_enforced()
                        && pod.namespace == name.namespace
                        && policy.subject.matches(&known.labels)
                })
                .count();
            Item {
                name: name.clone(),
                labels: origin
                    .map(|origin| origin.labels.clone())
                    .unwrap_or_default(),
                cells: vec![policy.subject.to_string(), aged(origin, now)],
                wide: vec![types.join(","), selects.to_string(), file(origin)],
                object: object::network_policy(name, policy, origin),
            }
        })
        .collect()
}

fn pods(listing: &Listing, now: jiff::Timestamp) -> Vec<Item> {
    let pods = &listing.world.pods;
    pods.iter()
        .map(|(name, pod)| {
            let origin = listing.origins.pods.get(name);
            let status = match pod.place {
                Place::Local | Place::Attached(_) => "Running",
                Place::External => "External",
                Place::HostNetwork => "HostNetwork",
            };
            let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
            let ports: Vec<String> = pod
                .ports
                .iter()
                .map(|port| format!("{}={}/{}", port.name, port.port, port.protocol))
                .collect();
            Item {
                name: name.clone(),
                labels: pod.labels.clone(),
                cells: vec![status.to_owned(), aged(origin, now)],
                wide: vec![
                    or_none(addresses.join(",")),
                    or_none(ports.join(",")),
                    file(origin),
                ],
                object: object::pod(name, pod, origin),
            }
        })
        .collect()
}

/// Those with a manifest, those that somebody is in, and `default`.
fn namespaces(listing: &Listing, now: jiff::Timestamp) -> Vec<Item> {
    let world = &listing.world;
    let names: BTreeSet<&str> = world
        .namespaces
        .keys()
        .map(String::as_str)
        .chain(world.pods.keys().map(|name| name.namespace.as_str()))
        .chain(world.policies.keys().map(|name| name.namespace.as_str()))
        .chain(std::iter::once("default"))
        .collect();
    names
        .into_iter()
        .map(|name| {
            let origin = listing.origins.namespaces.get(name);
            let labels = world.namespace_labels(name);
            let pods = world.pods.keys().filter(|pod| pod.namespace == name);
            Item {
                name: ObjectName::new("", name),
                cells: vec!["Active".to_owned(), aged(origin, now)],
                wide: vec![pods.count().to_string(), file(origin)],
                object: object::namespace(name, &labels, origin),
                labels,
            }
        })
        .collect()
}

fn aged(origin: Option<&Origin>, now: jiff::Timestamp) -> String {
    age(origin.and_then(|origin| origin.since), now)
}

fn file(origin: Option<&Origin>) -> String {
    let file = origin.and_then(|origin| origin.file.as_ref());
    or_none(file.map_or_else(String::new, |file| file.display().to_string()))
}

fn written(labels: &Labels) -> String {
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    or_none(labels.join(","))
}

fn or_none(text: String) -> String {
    if text.is_empty() {
        "<none>".to_owned()
    } else {
        text
    }
}
