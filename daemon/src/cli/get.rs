//! `netpol get`: what there is, in kubectl's columns.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::Write;

use clap::ValueEnum as _;
use clap::builder::PossibleValue;
use clap::error::ErrorKind;
use netpol_engine::labels::Labels;
use netpol_engine::leave;
use netpol_engine::policy::{Direction, Mode, ObjectName};
use netpol_engine::world::Place;
use serde_json::Value;

use super::output::{Columns, Output, age};
use super::scope::Scope;
use super::source::Source;
use super::{Exit, object};
use crate::api::wire::Listing;
use crate::origin::Origin;
use crate::printable::printable;

/// List policies, Pods or Namespaces
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  netpol get networkpolicies -A
  netpol get pods -n payments -l app=api-server --show-labels
  netpol get netpol/default-deny -n payments -o yaml
  netpol get pods,netpol -n payments
  netpol get ns --manifests ./manifests")]
pub struct Get {
    /// What to list, as one KIND or more (KIND,KIND), or as KIND/NAME
    #[arg(value_name = "KIND", value_parser = TargetParser)]
    target: Target,
    /// Just these (as KIND/NAME, where the first is)
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    scope: Scope,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
    /// Labels as a last column
    #[arg(long)]
    show_labels: bool,
    /// Leave the first line out
    #[arg(long)]
    no_headers: bool,
}

/// The form of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people.
    #[default]
    Table,
    /// For people with a wide terminal: more columns.
    Wide,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
    /// For scripts: `kind/name`, one a line.
    Name,
}

/// What the first argument says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    /// `pods`, `pods,netpol`
    Kinds(Vec<Kind>),
    /// `pods/db`
    Object(Kind, String),
}

/// Parses a [`Target`], and knows the kinds for help and completions.
#[derive(Clone, Copy, Debug)]
struct TargetParser;

impl clap::builder::TypedValueParser for TargetParser {
    type Value = Target;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Target, clap::Error> {
        target(&value.to_string_lossy())
            .map_err(|error| clap::Error::raw(ErrorKind::InvalidValue, error).with_cmd(command))
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let values = Kind::value_variants().iter();
        Some(Box::new(values.filter_map(Kind::to_possible_value)))
    }
}

fn target(text: &str) -> Result<Target, String> {
    if let Some((kind, name)) = text.split_once('/') {
        return match name {
            "" => Err(format!("`{text}`: a name is missing after the slash\n")),
            name => Ok(Target::Object(Kind::named(kind)?, name.to_owned())),
        };
    }
    let mut kinds = Vec::new();
    for word in text.split(',') {
        let kind = Kind::named(word)?;
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(Target::Kinds(kinds))
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
    fn named(word: &str) -> Result<Self, String> {
        // As kubectl takes it, with the group or without.
        let word = word.strip_suffix(".networking.k8s.io").unwrap_or(word);
        Self::from_str(word, true).map_err(|_| {
            format!(
                "there is no kind `{word}` here: there are networkpolicies, pods and namespaces\n"
            )
        })
    }

    /// As the API server says which resource it did not find.
    const fn resource(self) -> &'static str {
        match self {
            Self::NetworkPolicies => "networkpolicies.networking.k8s.io",
            Self::Pods => "pods",
            Self::Namespaces => "namespaces",
        }
    }

    /// Before the slash of `-o name`.
    const fn one(self) -> &'static str {
        match self {
            Self::NetworkPolicies => "networkpolicy.networking.k8s.io",
            Self::Pods => "pod",
            Self::Namespaces => "namespace",
        }
    }

    const fn columns(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::NetworkPolicies => (
                &["NAME", "POD-SELECTOR", "AGE"],
                &["POLICY-TYPES", "MODE", "SELECTS", "FILE"],
            ),
            Self::Pods => (&["NAME", "STATUS", "AGE"], &["IP", "PORTS", "FILE"]),
            Self::Namespaces => (&["NAME", "STATUS", "AGE"], &["MODE", "PODS", "FILE"]),
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
        let asked = self.asked()?;
        let listing = match source.listing() {
            Ok(listing) => listing,
            Err(none) => return none.exit(),
        };
        let mut found: Vec<(Kind, Vec<Item>)> = Vec::new();
        let mut is_whole = true;
        for (kind, names) in &asked {
            let mut items = self.items(*kind, &listing);
            for name in names {
                if !items
                    .iter()
                    .any(|(item, there)| *there && item.name.name == *name)
                {
                    is_whole = false;
                    not_found(*kind, name, &items);
                }
            }
            items.retain(|(item, there)| {
                *there && (names.is_empty() || names.contains(&item.name.name))
            });
            let items = items.into_iter().map(|(item, _)| item).collect();
            found.push((*kind, items));
        }
        let one = asked.len() == 1 && asked[0].1.len() == 1;
        self.write(found, one, is_whole, out)?;
        Ok(Exit::answer(is_whole))
    }

    /// The kinds, each with the names that are asked for; none: all of it.
    fn asked(&self) -> anyhow::Result<Vec<(Kind, Vec<String>)>> {
        let (kind, name) = match &self.target {
            Target::Kinds(kinds) => {
                if let Some(name) = self.names.iter().find(|name| name.contains('/')) {
                    anyhow::bail!(
                        "`{name}`: a name has no slash\n  \
                         say KIND NAME…, or KIND/NAME for each"
                    );
                }
                let asked = kinds.iter().map(|kind| (*kind, self.names.clone()));
                return Ok(asked.collect());
            }
            Target::Object(kind, name) => (*kind, name.clone()),
        };
        let mut asked = vec![(kind, vec![name])];
        for text in &self.names {
            let Ok(Target::Object(kind, name)) = target(text) else {
                anyhow::bail!(
                    "`{text}` is not of the form KIND/NAME, as the first one is\n  \
                     say KIND NAME…, or KIND/NAME for each"
                );
            };
            match asked.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, names)) => names.push(name),
                None => asked.push((kind, vec![name])),
            }
        }
        Ok(asked)
    }

    /// All of a kind; is it one of those that the scope is about?
    fn items(&self, kind: Kind, listing: &Listing) -> Vec<(Item, bool)> {
        let now = jiff::Timestamp::now();
        let items = match kind {
            Kind::NetworkPolicies => policies(listing, now),
            Kind::Pods => pods(listing, now),
            Kind::Namespaces => namespaces(listing, now),
        };
        items
            .into_iter()
            .map(|item| {
                let there = match kind {
                    Kind::Namespaces => self.scope.selects(&item.labels),
                    _ => self.scope.holds(&item.name, &item.labels),
                };
                (item, there)
            })
            .collect()
    }

    /// `one`: a single object was asked for by name, and is written as itself. Where not all was
    /// found, that has been said.
    fn write(
        &self,
        found: Vec<(Kind, Vec<Item>)>,
        one: bool,
        is_whole: bool,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let value = match self.output {
            Form::Json => Output::Json,
            Form::Yaml => Output::Yaml,
            Form::Name => {
                for (kind, items) in found {
                    for item in items {
                        writeln!(out, "{}/{}", kind.one(), printable(&item.name.name))?;
                    }
                }
                return Ok(());
            }
            Form::Table | Form::Wide => return self.tables(found, is_whole, out),
        };
        let mut objects: Vec<Value> = found
            .into_iter()
            .flat_map(|(_, items)| items)
            .map(|item| item.object)
            .collect();
        match objects.pop() {
            Some(object) if one && objects.is_empty() => value.value(out, &object)?,
            None if !is_whole => return Ok(()),
            last => {
                objects.extend(last);
                value.value(out, &object::list(objects))?
            }
        };
        Ok(())
    }

    fn tables(
        &self,
        found: Vec<(Kind, Vec<Item>)>,
        is_whole: bool,
        out: &mut dyn Write,
    ) -> anyhow::Result<()> {
        let many = found.len() > 1;
        let mut written = false;
        for (kind, items) in found {
            if items.is_empty() {
                continue;
            }
            if written {
                writeln!(out)?;
            }
            self.columns(kind, items, many).write(out, "")?;
            written = true;
        }
        if !written && is_whole {
            match self
                .scope
                .namespace()
                .filter(|_| self.target != Target::Kinds(vec![Kind::Namespaces]))
            {
                None => anstream::eprintln!("No resources found"),
                Some(namespace) => {
                    anstream::eprintln!("No resources found in {} namespace.", printable(namespace))
                }
            }
        }
        Ok(())
    }

    /// `many`: of several kinds, so that each name says of which it is.
    fn columns(&self, kind: Kind, items: Vec<Item>, many: bool) -> Columns {
        let wide = self.output == Form::Wide;
        let with_namespace = self.scope.all_namespaces && kind != Kind::Namespaces;
        let (narrow_names, wide_names) = kind.columns();
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
            cells.push(if many {
                format!("{}/{}", kind.one(), item.name.name)
            } else {
                item.name.name
            });
            cells.extend(item.cells);
            cells.extend(item.wide.into_iter().filter(|_| wide));
            cells.extend(self.show_labels.then(|| written(&item.labels)));
            columns.row(cells);
        }
        columns
    }
}

/// In kubectl's words, and where there is one of that name.
fn not_found(kind: Kind, name: &str, items: &[(Item, bool)]) {
    anstream::eprintln!(
        "Error from server (NotFound): {} \"{}\" not found",
        kind.resource(),
        printable(name)
    );
    let elsewhere = items
        .iter()
        .filter(|(item, _)| item.name.name == name && !item.name.namespace.is_empty());
    for (item, _) in elsewhere.take(3) {
        anstream::eprintln!(
            "  there is one in the Namespace `{}`: say -n {0}",
            printable(&item.name.namespace)
        );
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
                wide: vec![
                    types.join(","),
                    mode(world.enforces(policy)),
                    selects.to_string(),
                    file(origin),
                ],
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
            let own = pod.addresses.iter().map(ToString::to_string);
            let by_leave = pod
                .leaves
                .iter()
                .map(|net| format!("leave:{}", leave::show(net)));
            let addresses: Vec<String> = own.chain(by_leave).collect();
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

/// Namespaces with a manifest, Namespaces with a Pod in them, and `default`.
fn namespaces(listing: &Listing, now: jiff::Timestamp) -> Vec<Item> {
    let world = &listing.world;
    let names: BTreeSet<&str> = world
        .namespaces
        .keys()
        .map(String::as_str)
        .chain(world.pods.keys().map(|name| name.namespace.as_str()))
        .chain(world.policies.keys().map(|name| name.namespace.as_str()))
        .chain(world.audited.iter().map(String::as_str))
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
                wide: vec![
                    mode(!world.audited.contains(name)),
                    pods.count().to_string(),
                    file(origin),
                ],
                object: object::namespace(name, &labels, origin),
                labels,
            }
        })
        .collect()
}

/// What holds: a policy's own mode, or its Namespace's.
fn mode(enforced: bool) -> String {
    let mode = if enforced { Mode::Enforce } else { Mode::Audit };
    mode.name().to_owned()
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
