//! The state of the world: everything that decides a verdict, as one plain value.
//!
//! Owned by the daemon's one loop (or made from a directory by `netpol
//! --manifests`); compiled and evaluated, never mutated by those.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::labels::Labels;
use crate::policy::{Mode, ObjectName, Policy, Protocol};

/// Everything that decides a verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// Labels of namespaces. One that is not listed exists with just
    /// `kubernetes.io/metadata.name`; a listed one has it too, added by [`World::namespace_labels`].
    pub namespaces: BTreeMap<String, Labels>,
    /// Namespaces whose endpoints are audited: nothing of theirs is dropped, and what would be is
    /// reported.
    #[serde(default)]
    pub audited: BTreeSet<String>,
    /// Endpoints and external Pods, by name.
    pub pods: BTreeMap<ObjectName, Pod>,
    /// The policies in force. Worlds that follow one another share them: to clone a world, and to
    /// find what two have alike, costs little.
    pub policies: BTreeMap<ObjectName, Arc<Policy>>,
    /// The host's own addresses: all that make an address the host's. The daemon has them from
    /// the kernel; offline those that Pods on the host's network state stand in for them.
    pub host: BTreeSet<IpAddr>,
    /// Addresses for every host on a link of the host's (`10.0.0.255`), or for its routers (`fd00::`): a port that is
    /// published for datagrams at each of the host's addresses hears what is sent there, too.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub broadcasts: BTreeSet<IpAddr>,
    /// What the configuration says about the host.
    pub settings: Settings,
}

/// `[host]` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The host to its own containers is always allowed.
    pub host_ingress: bool,
    /// A container to its own host is always allowed.
    pub host_egress: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host_ingress: true,
            host_egress: true,
        }
    }
}

/// An endpoint, or a Pod elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Its labels.
    pub labels: Labels,
    /// Its named ports.
    pub ports: Vec<NamedPort>,
    /// Its addresses, link-local ones included where they are known. An address stands in
    /// one Pod only: the code that fills the world settles conflicts.
    pub addresses: BTreeSet<IpAddr>,
    /// Further addresses that it may use by leave ([`crate::leave`]): as a source, and as a destination. They are not
    /// its own: for others' rules they are strangers', and what has an owner is not among them. Two may have
    /// leave for the same.
    #[serde(default)]
    pub leaves: BTreeSet<IpNet>,
    /// Its ports that an engine publishes at addresses of the host: a client that dials them there dials the Pod.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub published: BTreeSet<PublishedPort>,
    /// Whether it is enforced here, and as what.
    pub place: Place,
}

/// Where a Pod is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// A container on this host (offline: any ordinary Pod): policies that select it are enforced.
    #[default]
    Local,
    /// Local, and with a number in the kernel's tables.
    Attached(Attached),
    /// `netpold.io/external`: a peer that has labels and is never enforced.
    External,
    /// On a host's network: its traffic is that host's. It is this host where it states an address
    /// of [`World::host`], or none at all; else a host elsewhere ([`Pod::is_on_another_host`]).
    HostNetwork,
}

/// How the kernel knows an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Its slot in `ENDPOINTS`.
    pub slot: u32,
    /// Its number, 1 ..= 0xff_ffff.
    pub id: u32,
    /// The host's ends of its veths, by ifindex, and its interfaces without such an end, by number
    /// ([`netpol_abi::limits::FIRST_INSIDE`]): the container end's MAC. Its loopback interface is among them where
    /// `asks` says something.
    pub interfaces: BTreeMap<u32, [u8; 6]>,
    /// The bridges that the host's ends are ports of, by ifindex.
    #[serde(default)]
    pub bridges: BTreeSet<u32>,
    /// May what it sends come without the stamp by which senders are known, as it leaves by an interface without an end
    /// on the host (macvlan, ipvlan)? Then its address has to do.
    #[serde(default)]
    pub on_wire: bool,
    /// The id by which the host's network namespace knows its own, where it is known.
    pub netns: Option<u32>,
    /// Its engine asks for names on its behalf, from the host's network namespace, and asks these resolvers. Policy
    /// judges that as questions to the peer `kube-dns`, or to one of these.
    #[serde(default)]
    pub asks: Option<BTreeSet<IpAddr>>,
}

/// A named port of a Pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamedPort {
    /// `spec.containers[].ports[].name`.
    pub name: String,
    /// `containerPort`.
    pub port: u16,
    /// `protocol`, TCP where left out.
    pub protocol: Protocol,
}

/// A port of a Pod that is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The host's address; unspecified (`0.0.0.0`, `::`): each of the family.
    pub address: IpAddr,
    /// The host's port.
    pub port: u16,
    /// The Pod's port.
    pub target: u16,
}

/// Where a port may be published for a connection to this address of the host, in the order in which it counts: at the address
/// itself, at all of its family, at all of the other one (a socket of an engine's may hear both).
#[must_use]
pub const fn published_where(dialled: IpAddr) -> [IpAddr; 3] {
    let (v4, v6) = (
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    );
    match dialled {
        IpAddr::V4(_) => [dialled, v4, v6],
        IpAddr::V6(_) => [dialled, v6, v4],
    }
}

/// The label that every namespace has, with its name as the value.
pub const METADATA_NAME: &str = "kubernetes.io/metadata.name";

impl Pod {
    /// Do policies that select it hold here?
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        matches!(self.place, Place::Local | Place::Attached(_))
    }

    /// Is it on the network of a host that has none of these addresses, which are this host's? An
    /// export of a whole cluster has such Pods for every other node.
    #[must_use]
    pub fn is_on_another_host(&self, host: &BTreeSet<IpAddr>) -> bool {
        self.place == Place::HostNetwork
            && !self.addresses.is_empty()
            && self.addresses.is_disjoint(host)
    }

    /// What a port's name stands for here. Of several the first, as Kubernetes does for
    /// Services: so the number of ports that a rule opens is bounded by the rule alone.
    #[must_use]
    pub fn named_port(&self, name: &str, protocol: Protocol) -> Option<u16> {
        self.ports
            .iter()
            .find(|port| port.name == name && port.protocol == protocol)
            .map(|port| port.port)
    }
}

impl World {
    /// Is this policy in force, rather than only audited by its own mode or its Namespace's?
    #[must_use]
    pub fn enforces(&self, policy: &Policy) -> bool {
        policy.mode == Mode::Enforce && !self.audited.contains(&policy.name.namespace)
    }

    /// The labels of a namespace, whether it has a manifest or not.
    #[must_use]
    pub fn namespace_labels(&self, namespace: &str) -> Labels {
        let mut labels = self.namespaces.get(namespace).cloned().unwrap_or_default();
        labels.insert(METADATA_NAME.to_owned(), namespace.to_owned());
        labels
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::labels::{Requirement, Selector};
    use crate::policy::{IpBlock, Mode, Namespaces, Peer, PodPeer, Port, Ports, Rule, Tier};

    #[test]
    fn a_world_survives_its_json_form() {
        let name = ObjectName::new("web", "frontend");
        let pod = Pod {
            addresses: ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()].into(),
            leaves: ["10.99.0.0/24".parse().unwrap()].into(),
            published: [PublishedPort {
                protocol: Protocol::Udp,
                address: "0.0.0.0".parse().unwrap(),
                port: 5353,
                target: 53,
            }]
            .into(),
            place: Place::Attached(Attached {
                slot: 1,
                id: 7,
                interfaces: [(12, [2, 0, 0, 0, 0, 1])].into(),
                bridges: [4].into(),
                on_wire: false,
                netns: Some(3),
                asks: Some(["192.0.2.53".parse().unwrap()].into()),
            }),
            ..Pod::default()
        };
        let policy = Policy {
            name: name.clone(),
            tier: Tier::NetworkPolicy,
            mode: Mode::Audit,
            subject: Selector::new([Requirement::equals("app", "a")]),
            ingress: Some(Vec::new()),
            egress: Some(vec![Rule {
                action: crate::policy::Action::Allow,
                peers: vec![
                    Peer::Pods(PodPeer {
                        namespaces: Namespaces::Matching(Selector::everything()),
                        pods: Selector::everything(),
                    }),
                    Peer::Block(IpBlock {
                        cidr: "10.0.0.0/8".parse().unwrap(),
                        except: vec!["10.1.0.0/16".parse().unwrap()],
                    }),
                ],
                ports: vec![Port {
                    protocol: Protocol::Sctp,
                    ports: Ports::Range(1, 9),
                }],
            }]),
        };
        let world = World {
            namespaces: [("web".to_owned(), Labels::new())].into(),
            audited: ["web".to_owned()].into(),
            pods: [(name.clone(), pod)].into(),
            policies: [(name, Arc::new(policy))].into(),
            host: ["192.0.2.1".parse().unwrap()].into(),
            broadcasts: ["192.0.2.255".parse().unwrap()].into(),
            settings: Settings {
                host_ingress: false,
                host_egress: true,
            },
        };
        let text = serde_json::to_string(&world).unwrap();
        assert_eq!(serde_json::from_str::<World>(&text).unwrap(), world);
    }

    #[test]
    fn an_object_name_needs_both_parts() {
        for text in ["", "a", "/a", "a/", "a/b/c"] {
            assert!(text.parse::<ObjectName>().is_err(), "{text}");
        }
        assert_eq!(
            "a/b".parse::<ObjectName>().unwrap(),
            ObjectName::new("a", "b")
        );
    }
}
