//! From a container's labels to a Pod: labels, Namespace, name, named ports.
//!
//! Pure. Labels are hostile ground: images bring their own, and the user who starts a
//! container chooses the rest. What the Kubernetes API would refuse is left out and
//! noted, never repaired: a repaired value could be one that a policy trusts. Called
//! for every container, whatever runtime reports it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::IpNet;
use netpol_engine::labels::Labels;
use netpol_engine::leave::{self, ADDRESSES, LeaveError};
use netpol_engine::manifest::PodManifest;
use netpol_engine::policy::{ObjectName, Protocol};
use netpol_engine::world::NamedPort;

use super::container::{Container, Runtime};
use crate::config::{LabelSettings, Namespaces};
use crate::printable::printable;
use crate::syntax;

/// The label that gives a container's named ports.
pub const PORTS_LABEL: &str = "netpold.io/ports";
/// A container's named ports, at most: a Pod's are few, and each costs look-ups.
const MOST_PORTS: usize = 256;

/// The Namespace of a Kubernetes runtime's Pod, where no label that is configured names one.
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// What containerd and its clients note down for themselves begins so: no selector sees it.
const BOOKKEEPING: [&str; 5] = [
    "io.kubernetes.",
    "io.cri-containerd.",
    "io.containerd.",
    "containerd.io/",
    "nerdctl/",
];

/// What a container is as a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its Namespace and name. The name is the container's own; see [`unique`].
    pub name: ObjectName,
    /// Its labels, those made by `[labels] rename` among them.
    pub labels: Labels,
    /// Its named ports.
    pub ports: Vec<NamedPort>,
    /// What it may use by leave.
    pub leaves: BTreeSet<IpNet>,
    /// What was left out.
    pub notes: Vec<Note>,
}

/// Something that a container says and that can't be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// A label that Kubernetes would not take: no selector sees it.
    Label {
        /// Its key.
        key: String,
        /// What would be right.
        right: syntax::SyntaxError,
    },
    /// A label that should name the Namespace, and can't: the container is in the default one.
    Namespace {
        /// The label's key.
        key: String,
        /// Its value.
        value: String,
    },
    /// An entry of [`PORTS_LABEL`] that is not `name=port[/protocol]`.
    Port {
        /// The entry.
        entry: String,
        /// Why the entry is no port.
        why: &'static str,
    },
    /// [`ADDRESSES`], which counts for nothing as it stands.
    Addresses(LeaveError),
}

impl Note {
    /// Was this label meant for netpold? Images carry many labels that are no Pod labels
    /// (descriptions, URLs): those are for a closer look only.
    #[must_use]
    pub fn is_meant_for_us(&self) -> bool {
        match self {
            Self::Label { key, .. } => key.starts_with("netpold.io/"),
            Self::Namespace { .. } | Self::Port { .. } | Self::Addresses(_) => true,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label { key, right } => {
                write!(
                    f,
                    "label `{}` is left out: it must be {right}",
                    printable(key)
                )
            }
            Self::Namespace { key, value } => write!(
                f,
                "label `{}` names no Namespace: `{}` is not {}; the default one is taken",
                printable(key),
                printable(value),
                syntax::SyntaxError::DnsLabel
            ),
            Self::Port { entry, why } => write!(
                f,
                "label `{PORTS_LABEL}`: `{}` is left out: {why}",
                printable(entry)
            ),
            Self::Addresses(error) => write!(
                f,
                "label `{ADDRESSES}` is left out as a whole: it {}",
                printable(&error.to_string())
            ),
        }
    }
}

impl Identity {
    /// As a manifest of it completes it: that gives it name and Namespace, and its labels and ports
    /// go before what the container says of itself.
    #[must_use]
    pub fn completed(mut self, manifest: &PodManifest) -> Self {
        self.name = manifest.name.clone();
        let given = manifest.labels.iter();
        self.labels
            .extend(given.map(|(key, value)| (key.clone(), value.clone())));
        let own = std::mem::take(&mut self.ports);
        for port in manifest.ports.iter().cloned().chain(own) {
            let is_known =
                |known: &NamedPort| known.name == port.name && known.protocol == port.protocol;
            if !self.ports.iter().any(is_known) {
                self.ports.push(port);
            }
        }
        if !manifest.leaves.is_empty() {
            self.leaves.clone_from(&manifest.leaves);
        }
        // The label that would have named its Namespace names none now.
        self.notes
            .retain(|note| !matches!(note, Note::Namespace { .. }));
        self
    }
}

/// What a container is, by its name and labels.
#[must_use]
pub fn identify(
    container: &Container,
    labels: &LabelSettings,
    namespaces: &Namespaces,
) -> Identity {
    let given = &container.labels;
    let mut notes = Vec::new();
    let mut keys: Vec<&str> = namespaces.from.iter().map(String::as_str).collect();
    if container.part.is_some() {
        keys.push(POD_NAMESPACE);
    }
    let namespace = namespace(given, &keys, &namespaces.default, &mut notes);
    let hidden: &[&str] = match container.runtime {
        Runtime::Docker => &[],
        Runtime::Containerd => &BOOKKEEPING,
    };
    let labels = pod_labels(given, hidden, labels, &mut notes);
    let ports = given
        .get(PORTS_LABEL)
        .map(|text| named_ports(text, &mut notes))
        .unwrap_or_default();
    let leaves = match given.get(ADDRESSES).map(|text| leave::parse(text)) {
        Some(Ok(leaves)) => leaves,
        Some(Err(error)) => {
            notes.push(Note::Addresses(error));
            BTreeSet::new()
        }
        None => BTreeSet::new(),
    };
    Identity {
        name: ObjectName::new(namespace, container.name.trim_start_matches('/')),
        labels,
        ports,
        leaves,
        notes,
    }
}

fn namespace(
    given: &BTreeMap<String, String>,
    keys: &[&str],
    default: &str,
    notes: &mut Vec<Note>,
) -> String {
    let set = keys
        .iter()
        .find_map(|key| Some((key, given.get(*key).filter(|value| !value.is_empty())?)));
    match set {
        Some((_, value)) if syntax::dns_label(value).is_ok() => value.clone(),
        Some((key, value)) => {
            notes.push(Note::Namespace {
                key: (*key).to_owned(),
                value: value.clone(),
            });
            default.to_owned()
        }
        None => default.to_owned(),
    }
}

fn pod_labels(
    given: &BTreeMap<String, String>,
    hidden: &[&str],
    settings: &LabelSettings,
    notes: &mut Vec<Note>,
) -> Labels {
    let mut labels = Labels::new();
    for (key, value) in given {
        // These two hold lists, and are read as such; the others say nothing about the Pod.
        let is_list = key == PORTS_LABEL || key == ADDRESSES;
        if is_list || hidden.iter().any(|prefix| key.starts_with(prefix)) {
            continue;
        }
        match syntax::label_key(key).and_then(|()| syntax::label_value(value)) {
            Ok(()) => {
                labels.insert(key.clone(), value.clone());
            }
            Err(right) => notes.push(Note::Label {
                key: key.clone(),
                right,
            }),
        }
    }
    for (from, to) in &settings.rename {
        // What the container says of itself under that key goes before.
        if let Some(value) = given.get(from)
            && !given.contains_key(to)
            && syntax::label_value(value).is_ok()
        {
            labels.entry(to.clone()).or_insert_with(|| value.clone());
        }
    }
    labels
}

/// `http=8080/TCP,dns=53/UDP`: what can't be is left out and noted, the rest counts.
fn named_ports(text: &str, notes: &mut Vec<Note>) -> Vec<NamedPort> {
    let mut ports: Vec<NamedPort> = Vec::new();
    for entry in text
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
    {
        let why = match named_port(entry) {
            Ok(_) if ports.len() == MOST_PORTS => "there are too many",
            // One name may stand for two protocols: rules look up both together.
            Ok(port)
                if ports
                    .iter()
                    .any(|known| known.name == port.name && known.protocol == port.protocol) =>
            {
                "the name is given already"
            }
            Ok(port) => {
                ports.push(port);
                continue;
            }
            Err(why) => why,
        };
        notes.push(Note::Port {
            entry: entry.to_owned(),
            why,
        });
        if notes.len() > 2 * MOST_PORTS {
            break;
        }
    }
    ports
}

fn named_port(entry: &str) -> Result<NamedPort, &'static str> {
    let (name, rest) = entry
        .split_once('=')
        .ok_or("it is not `name=port/protocol`")?;
    let (name, rest) = (name.trim(), rest.trim());
    syntax::port_name(name).map_err(|_| "the name is not a port name")?;
    let (port, protocol) = match rest.split_once('/') {
        Some((port, protocol)) => (
            port,
            protocol
                .parse()
                .map_err(|_| "the protocol is not TCP, UDP or SCTP")?,
        ),
        None => (rest, Protocol::Tcp),
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port
        .parse()
        .ok()
        .filter(|port| digits && *port != 0)
        .ok_or("the port is not a number from 1 to 65535")?;
    Ok(NamedPort {
        name: name.to_owned(),
        port,
        protocol,
    })
}

/// A name that is not taken: its own, or with the beginning of the container's ID. Who is
/// there first keeps the name: a container can't take a declared Pod's.
#[must_use]
pub fn unique(name: &ObjectName, id: &str, taken: &BTreeSet<ObjectName>) -> ObjectName {
    let id = id.rsplit('/').next().unwrap_or(id);
    let short = id.get(..12).unwrap_or(id);
    let mut unique = name.clone();
    let mut round = 0_u32;
    while taken.contains(&unique) {
        round += 1;
        unique.name = match round {
            1 => format!("{}-{short}", name.name),
            _ => format!("{}-{short}-{round}", name.name),
        };
    }
    unique
}

/// Is it a name that [`unique`] gives?
#[must_use]
pub fn is_made_of(given: &ObjectName, name: &ObjectName, id: &str) -> bool {
    let id = id.rsplit('/').next().unwrap_or(id);
    let short = id.get(..12).unwrap_or(id);
    let added = given.name.strip_prefix(&name.name);
    given.namespace == name.namespace
        && added.is_some_and(|added| {
            added.is_empty()
                || added
                    .strip_prefix('-')
                    .is_some_and(|id| id.starts_with(short))
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn labelled(labels: &[(&str, &str)]) -> Identity {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let container = Container {
            name: "/shop-web-1".to_owned(),
            labels,
            ..Container::default()
        };
        identify(
            &container,
            &LabelSettings::default(),
            &Namespaces::default(),
        )
    }

    #[test]
    fn a_compose_service_is_a_pod() {
        let pod = labelled(&[
            ("com.docker.compose.project", "shop"),
            ("com.docker.compose.service", "web"),
            ("tier", "front"),
        ]);
        assert_eq!(pod.name, ObjectName::new("shop", "shop-web-1"));
        assert_eq!(
            (pod.labels["app"].as_str(), pod.labels["tier"].as_str()),
            ("web", "front")
        );
        assert!(pod.notes.is_empty());
    }

    #[test]
    fn its_own_label_goes_before_a_renamed_one() {
        let rows: [(&str, Option<&str>); 3] =
            [("own", Some("own")), ("", Some("")), ("not valid", None)];
        for (own, expected) in rows {
            let pod = labelled(&[("com.docker.compose.service", "web"), ("app", own)]);
            assert_eq!(
                pod.labels.get("app").map(String::as_str),
                expected,
                "{own:?}"
            );
        }
    }

    #[test]
    fn the_first_label_that_is_set_names_the_namespace() {
        let rows = [
            ("lab", "shop", "lab", 0),
            ("", "shop", "shop", 0),
            ("", "", "default", 0),
            ("Not_valid", "shop", "default", 1),
            ("kube-system\n", "shop", "default", 1),
            ("", "my_project", "default", 1),
        ];
        for (own, project, expected, notes) in rows {
            let pod = labelled(&[
                ("netpold.io/namespace", own),
                ("com.docker.compose.project", project),
            ]);
            assert_eq!(pod.name.namespace, expected, "{own:?} {project:?}");
            let meant = pod
                .notes
                .iter()
                .filter(|note| matches!(note, Note::Namespace { .. }));
            assert_eq!(meant.count(), notes, "{own:?} {project:?}");
        }
    }

    #[test]
    fn labels_that_cannot_be_are_left_out_and_noted() {
        let pod = labelled(&[
            ("good", "v1.0"),
            ("org.example.description", "a b c"),
            ("bad key", "x"),
            ("netpold.io/x", "\u{1b}[31m"),
            ("", ""),
        ]);
        assert_eq!(
            pod.labels,
            Labels::from([("good".to_owned(), "v1.0".to_owned())])
        );
        assert_eq!(pod.notes.len(), 4);
        let meant: Vec<_> = pod
            .notes
            .iter()
            .filter(|note| note.is_meant_for_us())
            .collect();
        assert_eq!(meant.len(), 1);
        assert!(
            pod.notes
                .iter()
                .all(|note| !note.to_string().contains('\u{1b}'))
        );
    }

    #[test]
    fn named_ports_are_read_and_bad_ones_left_out() {
        let pod = labelled(&[(PORTS_LABEL, "http=8080/TCP, dns=53/UDP,dns=53,web=80/sctp,")]);
        let said: Vec<String> = pod
            .ports
            .iter()
            .map(|port| format!("{}={}/{}", port.name, port.port, port.protocol))
            .collect();
        assert_eq!(
            said,
            ["http=8080/TCP", "dns=53/UDP", "dns=53/TCP", "web=80/SCTP"]
        );
        assert!(pod.notes.is_empty() && pod.labels.is_empty());
        for bad in [
            "http",
            "=80",
            "http=",
            "http=0",
            "http=65536",
            "http=+80",
            "http=80/ICMP",
            "80=80",
            "HTTP=80",
            "http=80/TCP/UDP",
            "http=8 0",
            "a=1,a=2",
        ] {
            let pod = labelled(&[(PORTS_LABEL, bad)]);
            assert_eq!(pod.notes.len(), 1, "{bad:?}");
            assert!(pod.ports.len() <= 1, "{bad:?}");
        }
        let many = labelled(&[(PORTS_LABEL, &"x,".repeat(100_000))]);
        assert!(many.notes.len() < 1000);
    }

    #[test]
    fn what_a_container_may_use_by_leave_is_taken_whole_or_not_at_all() {
        let nets = |pod: &Identity| -> Vec<String> {
            pod.leaves.iter().map(ToString::to_string).collect()
        };
        let pod = labelled(&[(ADDRESSES, "10.99.0.0/24, 10.0.0.7")]);
        assert_eq!(nets(&pod), ["10.0.0.7/32", "10.99.0.0/24"]);
        assert!(pod.notes.is_empty() && !pod.labels.contains_key(ADDRESSES));
        for bad in [
            "",
            "10.0.0.7,",
            "10.0.0.7,x\u{1b}[31m",
            "10.0.0.7,::1",
            "10.0.0.7/8",
        ] {
            let pod = labelled(&[(ADDRESSES, bad)]);
            assert!(
                pod.leaves.is_empty() && pod.notes.len() == 1,
                "{bad:?}: {pod:?}"
            );
            assert!(pod.notes[0].is_meant_for_us());
            let said = pod.notes[0].to_string();
            assert!(
                said.contains(ADDRESSES) && !said.contains('\u{1b}'),
                "{said}"
            );
        }
        // A manifest's list goes before the label.
        let manifest = |leaves: &[&str]| PodManifest {
            leaves: leaves.iter().map(|net| net.parse().unwrap()).collect(),
            ..PodManifest::default()
        };
        let completed = |leaves| nets(&pod.clone().completed(&manifest(leaves)));
        assert_eq!(completed(&["10.1.0.0/16"]), ["10.1.0.0/16"]);
        assert_eq!(completed(&[]), nets(&pod));
    }

    #[test]
    fn a_manifest_completes_a_container() {
        let port = |name: &str, port| NamedPort {
            name: name.to_owned(),
            port,
            protocol: Protocol::Tcp,
        };
        let pod = labelled(&[
            ("netpold.io/namespace", "Not_valid"),
            (PORTS_LABEL, "http=80,db=5432"),
            ("app", "old"),
            ("tier", "back"),
        ]);
        assert_eq!(pod.notes.len(), 1);
        let manifest = PodManifest {
            name: ObjectName::new("lab", "db"),
            labels: [("app", "db"), ("role", "main")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ports: vec![port("http", 8080)],
            ..PodManifest::default()
        };
        let pod = pod.completed(&manifest);
        assert_eq!(pod.name, ObjectName::new("lab", "db"));
        let labels = [("app", "db"), ("role", "main"), ("tier", "back")];
        assert!(
            pod.labels
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .filter(|(key, _)| *key != "netpold.io/namespace")
                .eq(labels),
            "{:?}",
            pod.labels
        );
        assert_eq!(pod.ports, [port("http", 8080), port("db", 5432)]);
        assert!(pod.notes.is_empty());
    }

    #[test]
    fn names_are_unique() {
        let name = ObjectName::new("a", "web");
        let id = "0123456789abcdef";
        let mut taken = BTreeSet::new();
        for expected in ["web", "web-0123456789ab", "web-0123456789ab-2"] {
            let given = unique(&name, id, &taken);
            assert_eq!(given.name, expected);
            assert!(is_made_of(&given, &name, id), "{given}");
            taken.insert(given);
        }
        for other in [("a", "web2"), ("a", "web-2"), ("b", "web"), ("a", "we")] {
            let other = ObjectName::new(other.0, other.1);
            assert!(!is_made_of(&other, &name, id), "{other}");
        }
    }
}
