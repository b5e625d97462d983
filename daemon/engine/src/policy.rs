//! What a policy says, after parsing: types that cannot be wrong.
//!
//! The form has *tiers*, orders and actions from the start, so that
//! ClusterNetworkPolicy can be added as another producer of [`Policy`];
//! NetworkPolicy is the middle tier, its rules only allow, and what no rule
//! allows is denied once a policy selects the Pod.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::labels::Selector;

/// Namespace and name of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// `metadata.namespace`, `default` where left out.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl ObjectName {
    /// A name of these parts.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// As `namespace/name`.
impl Serialize for ObjectName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From `namespace/name`: both parts there, no further slash.
impl std::str::FromStr for ObjectName {
    type Err = NotAnObjectName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self::new(namespace, name))
            }
            _ => Err(NotAnObjectName),
        }
    }
}

/// As `namespace/name`.
impl<'de> Deserialize<'de> for ObjectName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The text is not `namespace/name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form `namespace/name`")]
pub struct NotAnObjectName;

/// The endpoint's own view, as in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Towards the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

/// As a manifest's `policyTypes` and its lists of rules are read aloud: `ingress`, `egress`.
impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// When a policy is asked, relative to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Tier {
    /// Before NetworkPolicy.
    Admin,
    /// NetworkPolicy itself: where one selects the Pod, its answer is final.
    NetworkPolicy,
    /// After it, where none isolates.
    Baseline,
}

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// It may pass.
    Allow,
    /// It may not.
    Deny,
    /// The rest of this tier is not asked.
    Pass,
}

/// Whether what policy denies is dropped.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is.
    #[default]
    Enforce,
    /// It passes, and is reported.
    Audit,
}

impl Mode {
    /// As an annotation and the configuration spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Audit => "audit",
        }
    }
}

/// One policy. A direction that is `None` is not named by `policyTypes`: the policy
/// says nothing about it. `Some` of no rules isolates and allows nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Policy {
    /// Its name; the namespace bounds `subject` too.
    pub name: ObjectName,
    /// When it is asked.
    pub tier: Tier,
    /// One that is audited isolates no Pod and allows nothing; what it would drop is reported.
    #[serde(default)]
    pub mode: Mode,
    /// Which Pods of its namespace it selects (`spec.podSelector`).
    pub subject: Selector,
    /// Rules for traffic towards them.
    pub ingress: Option<Vec<Rule>>,
    /// Rules for traffic from them.
    pub egress: Option<Vec<Rule>>,
}

impl Policy {
    /// The rules of a direction, where the policy has a say in it.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// One rule: a peer AND a port must match.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// The peers, any of which may match. Empty: any peer (`from`/`to` absent or empty).
    pub peers: Vec<Peer>,
    /// The ports, any of which may match. Empty: every protocol and port, ICMP included.
    pub ports: Vec<Port>,
}

/// One entry of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Peer {
    /// Pods by label.
    Pods(PodPeer),
    /// Addresses, whatever has them.
    Block(IpBlock),
}

/// Pods selected by their own labels AND their namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodPeer {
    /// Where they are.
    pub namespaces: Namespaces,
    /// Which of them.
    pub pods: Selector,
}

/// The namespaces of a [`PodPeer`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Namespaces {
    /// `namespaceSelector` absent: the policy's own, by name.
    Own(String),
    /// Those whose labels match.
    Matching(Selector),
}

/// `ipBlock`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IpBlock {
    /// The block, host bits cleared.
    pub cidr: IpNet,
    /// What is taken out of it again.
    pub except: Vec<IpNet>,
}

/// A transport protocol that rules can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[repr(u8)]
pub enum Protocol {
    /// IP protocol 6.
    Tcp = 6,
    /// IP protocol 17.
    Udp = 17,
    /// IP protocol 132.
    Sctp = 132,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The IP protocol number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// The name is none of TCP, UDP and SCTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown protocol: it is one of TCP, UDP and SCTP")]
pub struct UnknownProtocol;

/// Without regard to case, as people type it; manifests are stricter.
impl std::str::FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.to_string().eq_ignore_ascii_case(text))
            .ok_or(UnknownProtocol)
    }
}

/// One entry of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Port {
    /// The protocol, TCP where left out.
    pub protocol: Protocol,
    /// Which ports of it.
    pub ports: Ports,
}

/// The ports of a [`Port`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ports {
    /// `port` absent: all of the protocol.
    All,
    /// From … to, inclusive (`port`, `endPort`).
    Range(u16, u16),
    /// By name, looked up on the *destination* Pod, with this protocol.
    Named(String),
}
