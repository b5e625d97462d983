//! .

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use netpol_abi::Reason;
use serde::{Serialize, Serializer};

use crate::policy::ObjectName;

/// One end of a connection, as people write it: `namespace/name`, or `ip:ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// A Pod by name.
    Pod(ObjectName),
    /// An address; where a Pod or the host has it, it is that Pod or the host.
    Address(IpAddr),
}

/// The text names neither a Pod nor an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartyError {
    /// Neither form.
    #[error("`{0}` is neither `namespace/name` nor `ip:ADDRESS`")]
    Form(String),
    /// `ip:` and then no address.
    #[error("`{0}` is no IPv4 or IPv6 address")]
    Address(String),
}

impl FromStr for Party {
    type Err = PartyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(address) = text.strip_prefix("ip:") {
            return address
                .parse()
                .map(Self::Address)
                .map_err(|_| PartyError::Address(address.to_owned()));
        }
        text.parse()
            .map(Self::Pod)
            .map_err(|_| PartyError::Form(text.to_owned()))
    }
}

/// As it is parsed.
impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(name) => name.fmt(f),
            Self::Address(address) => write!(f, "ip:{address}"),
        }
    }
}

/// May the connection be opened? Both ends' policies have to allow it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Both sides allow it.
    pub allowed: bool,
    /// What the source's policies say.
    pub egress: Side,
    /// What the destination's policies say.
    pub ingress: Side,
}

/// What one end's policies say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// This end allows it.
    pub allowed: bool,
    /// Some policy selects this end for the direction.
    pub isolated: bool,
    /// Why.
    #[serde(serialize_with = "label")]
    pub reason: Reason,
    /// Allowed by rules: each of them that does. Denied: the policies that isolate, without rule.
    pub by: Vec<By>,
    /// The policies that isolate this end, whether they allow it or not.
    pub isolated_by: Vec<ObjectName>,
}

/// A policy that has a part in a verdict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct By {
    /// The policy.
    pub policy: ObjectName,
    /// Index of the rule in the direction's list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// Index of the peer in the rule's list; none where the rule is for any peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<usize>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn label<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.label())
}
