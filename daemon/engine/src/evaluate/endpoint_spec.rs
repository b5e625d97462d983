//! The ends of a connection: how people name them, and what the world knows of them.
//!
//! An address that the host has is the host; else one that a Pod has is that Pod; else it
//! is a stranger. A Pod on the host's network is the host, because nothing in its packets differs
//! from the host's own. One that states addresses none of which this host has is on the network
//! of another host, and a stranger: the word of a manifest never adds to [`World::host`].

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;

use crate::labels::Labels;
use crate::policy::ObjectName;
use crate::spelling::distance;
use crate::world::{Place, Pod, World};

/// One end of a connection, as people write it: `namespace/name`, or `ip:ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointSpec {
    /// A Pod by name.
    Pod(ObjectName),
    /// An address; where a Pod or the host has it, it is that Pod or the host.
    Address(IpAddr),
}

/// A family of addresses. Two Pods may have both, and an ipBlock is of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    /// Both, in the order in which ends try them.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) const fn has(self, address: IpAddr) -> bool {
        matches!(self, Self::V4) == address.is_ipv4()
    }
}

/// `IPv4`, `IPv6`.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The text names neither a Pod nor an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointSpecError {
    /// The text is neither `NAMESPACE/NAME` nor `ip:ADDRESS`.
    #[error("`{0}` is neither `namespace/name` nor `ip:ADDRESS`")]
    Form(String),
    /// `ip:` and then no address.
    #[error("`{0}` is no IPv4 or IPv6 address")]
    Address(String),
}

impl FromStr for EndpointSpec {
    type Err = EndpointSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(address) = text.strip_prefix("ip:") {
            // On the wire an IPv4-mapped address is the IPv4 one.
            return address
                .parse::<IpAddr>()
                .map(|address| Self::Address(address.to_canonical()))
                .map_err(|_| EndpointSpecError::Address(address.to_owned()));
        }
        text.parse()
            .map(Self::Pod)
            .map_err(|_| EndpointSpecError::Form(text.to_owned()))
    }
}

/// As it is parsed.
impl fmt::Display for EndpointSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => name.fmt(f),
            Self::Address(address) => write!(f, "ip:{address}"),
        }
    }
}

/// The question can't be answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluateError {
    /// No Pod has this name.
    #[error("no Pod is named `{name}`{}", .nearest.as_ref().map(|near| format!("\n  did you mean `{near}`?")).unwrap_or_default())]
    UnknownPod {
        /// As it was asked for.
        name: ObjectName,
        /// What was perhaps meant.
        nearest: Option<ObjectName>,
    },
}

/// An end as policy sees it.
#[derive(Clone, Debug)]
pub(crate) struct End<'a> {
    /// The Pod, unless it is the host's.
    pub pod: Option<(&'a ObjectName, &'a Pod)>,
    /// Labels of the Pod's namespace.
    pub namespace_labels: Labels,
    /// The host itself.
    pub host: bool,
    /// What this end can be reached at: the addresses of the host, of the Pod, or the one asked for.
    addresses: Vec<IpAddr>,
}

impl<'a> End<'a> {
    /// What the world knows of this spec.
    pub(crate) fn resolve(world: &'a World, spec: &EndpointSpec) -> Result<Self, EvaluateError> {
        match spec {
            EndpointSpec::Pod(name) => world
                .pods
                .get_key_value(name)
                .map(|(name, pod)| Self::of_pod(world, name, pod))
                .ok_or_else(|| EvaluateError::UnknownPod {
                    name: name.clone(),
                    nearest: nearest(world, name),
                }),
            EndpointSpec::Address(address) => {
                let has =
                    |pod: &Pod| pod.place != Place::HostNetwork && pod.addresses.contains(address);
                let mut end = if world.host.contains(address) {
                    Self::host()
                } else {
                    match world.pods.iter().find(|(_, pod)| has(pod)) {
                        Some((name, pod)) => Self::of_pod(world, name, pod),
                        None => Self::stranger(),
                    }
                };
                end.addresses = vec![*address];
                Ok(end)
            }
        }
    }

    /// A Pod of this world.
    pub(crate) fn of_pod(world: &'a World, name: &'a ObjectName, pod: &'a Pod) -> Self {
        // Link-local addresses last: no client dials them across namespaces.
        let mut addresses: Vec<IpAddr> = pod.addresses.iter().copied().collect();
        addresses.sort_by_key(is_link_local);
        if pod.place == Place::HostNetwork {
            if pod.is_on_another_host(&world.host) {
                return Self {
                    addresses,
                    ..Self::stranger()
                };
            }
            addresses.retain(|address| world.host.contains(address));
            addresses.extend(&world.host);
            return Self {
                addresses,
                ..Self::host()
            };
        }
        Self {
            pod: Some((name, pod)),
            namespace_labels: world.namespace_labels(&name.namespace),
            host: false,
            addresses,
        }
    }

    fn host() -> Self {
        Self {
            host: true,
            ..Self::stranger()
        }
    }

    fn stranger() -> Self {
        Self {
            pod: None,
            namespace_labels: Labels::new(),
            host: false,
            addresses: Vec::new(),
        }
    }

    /// The address that this end is spoken to at, for IPv4 and for IPv6.
    pub(crate) fn by_family(&self) -> [Option<IpAddr>; 2] {
        Family::BOTH.map(|family| {
            let mut all = self.addresses.iter().copied();
            all.find(|address| family.has(*address))
        })
    }

    /// Is it spoken to over both families? Every interface has a link-local address: that alone
    /// is none.
    pub(crate) fn is_dual(&self) -> bool {
        let spoken = |address: Option<IpAddr>| address.is_some_and(|one| !is_link_local(&one));
        self.by_family().into_iter().all(spoken)
    }

    /// Its addresses beyond its link.
    pub(crate) fn global_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let addresses = self.addresses.iter().copied();
        addresses.filter(|address| !is_link_local(address))
    }

    /// The same end, spoken to over this family alone.
    pub(crate) fn over(mut self, family: Family) -> Self {
        self.addresses.retain(|address| family.has(*address));
        self
    }

    /// The same end, dialled at this address.
    pub(crate) fn at(mut self, address: IpAddr) -> Self {
        self.addresses = vec![address];
        self
    }

    /// Are they one and the same endpoint (or both the host)?
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self.pod, other.pod) {
            (Some((one, _)), Some((two, _))) => one == two,
            (None, None) => self.host && other.host,
            _ => false,
        }
    }
}

pub(crate) const fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The addresses between which two ends speak, see [`meet`].
pub(crate) fn addresses(from: &End, to: &End) -> (Option<IpAddr>, Option<IpAddr>) {
    meet(from.by_family(), to.by_family())
}

/// What two ends speak by, of what each has for IPv4 and IPv6: that of the first family that
/// both have, IPv4 before IPv6. Without such a family each end's own first one: there will be no
/// connection, but labels and blocks still have an answer.
pub(crate) fn meet<T: Copy>(from: [Option<T>; 2], to: [Option<T>; 2]) -> (Option<T>, Option<T>) {
    for (from, to) in from.into_iter().zip(to) {
        if from.is_some() && to.is_some() {
            return (from, to);
        }
    }
    let own = |[v4, v6]: [Option<T>; 2]| v4.or(v6);
    (own(from), own(to))
}

/// The Pod whose name is closest to this one: the same name in another namespace, else few
/// letters apart.
fn nearest(world: &World, name: &ObjectName) -> Option<ObjectName> {
    let text = name.to_string();
    world
        .pods
        .keys()
        .map(|known| {
            let letters = distance(&text, &known.to_string());
            (
                if known.name == name.name {
                    letters.min(1)
                } else {
                    letters
                },
                known,
            )
        })
        .filter(|(letters, known)| *letters <= 1 + known.name.chars().count() / 4)
        .min()
        .map(|(_, known)| known.clone())
}
