//! The JSON form of Hubble's `flow.Flow` (cilium `api/v1/flow/flow.proto`), the
//! fields that netpold fills.
//!
//! Field names are the proto's own, as Hubble prints them. What proto3 leaves out
//! when it is unset is left out here too, except `is_reply`: unset it means
//! "unknown", and Hubble then prints an arrow with two heads.
//!
//! Unknown fields are ignored on reading: a newer daemon may add some.

use serde::{Deserialize, Serialize};

/// One flow: the first packet of a connection, or a packet that was dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// When the packet was judged; RFC 3339 with nanoseconds, UTC.
    pub time: jiff::Timestamp,
    /// Unlike that of any other flow.
    pub uuid: String,
    /// What became of it.
    pub verdict: Verdict,
    /// Number of `drop_reason_desc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason: Option<u32>,
    /// Link layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ethernet: Option<Ethernet>,
    /// Network layer; absent where the frame is neither IPv4 nor IPv6.
    #[serde(rename = "IP", default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Ip>,
    /// Transport layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l4: Option<Layer4>,
    /// The sender.
    pub source: Endpoint,
    /// The destination.
    pub destination: Endpoint,
    /// Always [`FlowType::L3L4`].
    #[serde(rename = "Type")]
    pub flow_type: FlowType,
    /// The host that judged it.
    pub node_name: String,
    /// Which of Hubble's events it corresponds to.
    pub event_type: EventType,
    /// As the endpoint that was judged sees it.
    pub traffic_direction: TrafficDirection,
    /// Hubble's word for why it was dropped; the exact reason is in `extensions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drop_reason_desc: Option<String>,
    /// Against the direction in which its connection was opened.
    pub is_reply: bool,
    /// A few words for Hubble's last column.
    #[serde(rename = "Summary", default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// What Hubble has no field for. A `google.protobuf.Any` that holds a
    /// `google.protobuf.Struct`, which every proto reader knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Extensions>,
    /// Policies that let it out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress_allowed_by: Vec<Policy>,
    /// Policies that let it in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress_allowed_by: Vec<Policy>,
    /// Policies that kept it from leaving.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress_denied_by: Vec<Policy>,
    /// Policies that kept it from coming in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress_denied_by: Vec<Policy>,
}

/// `flow.Verdict`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verdict {
    /// It passed, and opened a connection.
    #[default]
    Forwarded,
    /// It was dropped.
    Dropped,
    /// It passed because enforcement is in audit mode.
    Audit,
}

impl Verdict {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "FORWARDED",
            Self::Dropped => "DROPPED",
            Self::Audit => "AUDIT",
        }
    }
}

/// `flow.FlowType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlowType {
    /// Network and transport layer.
    #[default]
    #[serde(rename = "L3_L4")]
    L3L4,
}

/// `flow.TrafficDirection`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TrafficDirection {
    /// Towards the endpoint.
    #[default]
    Ingress,
    /// From the endpoint.
    Egress,
}

/// `flow.Ethernet`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ethernet {
    /// Source MAC address.
    pub source: String,
    /// Destination MAC address.
    pub destination: String,
}

/// `flow.IP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// Source address.
    pub source: std::net::IpAddr,
    /// Destination address.
    pub destination: std::net::IpAddr,
    /// Which of the two.
    #[serde(rename = "ipVersion")]
    pub version: IpVersion,
}

/// `flow.IPVersion`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpVersion {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

/// `flow.Layer4`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layer4 {
    /// TCP.
    #[serde(rename = "TCP")]
    Tcp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
        /// Flags that are set.
        #[serde(default)]
        flags: TcpFlags,
    },
    /// UDP.
    #[serde(rename = "UDP")]
    Udp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
    },
    /// SCTP.
    #[serde(rename = "SCTP")]
    Sctp {
        /// Source port.
        source_port: u16,
        /// Destination port.
        destination_port: u16,
    },
    /// ICMP.
    #[serde(rename = "ICMPv4")]
    Icmp4 {
        /// Type.
        #[serde(rename = "type", default)]
        kind: u16,
        /// Code.
        #[serde(default)]
        code: u16,
    },
    /// ICMPv6.
    #[serde(rename = "ICMPv6")]
    Icmp6 {
        /// Type.
        #[serde(rename = "type", default)]
        kind: u16,
        /// Code.
        #[serde(default)]
        code: u16,
    },
}

impl Layer4 {
    /// The protocol's name, and source and destination port where it has them.
    #[must_use]
    pub fn ports(&self) -> (&'static str, Option<(u16, u16)>) {
        match *self {
            Self::Tcp {
                source_port,
                destination_port,
                ..
            } => ("TCP", Some((source_port, destination_port))),
            Self::Udp {
                source_port,
                destination_port,
            } => ("UDP", Some((source_port, destination_port))),
            Self::Sctp {
                source_port,
                destination_port,
            } => ("SCTP", Some((source_port, destination_port))),
            Self::Icmp4 { .. } => ("ICMPv4", None),
            Self::Icmp6 { .. } => ("ICMPv6", None),
        }
    }
}

/// `flow.TCPFlags`: those that are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TcpFlags {
    /// FIN.
    #[serde(rename = "FIN", skip_serializing_if = "std::ops::Not::not")]
    pub fin: bool,
    /// SYN.
    #[serde(rename = "SYN", skip_serializing_if = "std::ops::Not::not")]
    pub syn: bool,
    /// RST.
    #[serde(rename = "RST", skip_serializing_if = "std::ops::Not::not")]
    pub rst: bool,
    /// PSH.
    #[serde(rename = "PSH", skip_serializing_if = "std::ops::Not::not")]
    pub psh: bool,
    /// ACK.
    #[serde(rename = "ACK", skip_serializing_if = "std::ops::Not::not")]
    pub ack: bool,
    /// URG.
    #[serde(rename = "URG", skip_serializing_if = "std::ops::Not::not")]
    pub urg: bool,
}

impl TcpFlags {
    /// From the octet on the wire (RFC 9293, section 3.1).
    #[must_use]
    pub const fn from_wire(octet: u8) -> Self {
        Self {
            fin: octet & 0x01 != 0,
            syn: octet & 0x02 != 0,
            rst: octet & 0x04 != 0,
            psh: octet & 0x08 != 0,
            ack: octet & 0x10 != 0,
            urg: octet & 0x20 != 0,
        }
    }

    /// `SYN, ACK`, the way Hubble lists them.
    #[must_use]
    pub fn names(self) -> String {
        [
            (self.syn, "SYN"),
            (self.ack, "ACK"),
            (self.fin, "FIN"),
            (self.rst, "RST"),
            (self.psh, "PSH"),
            (self.urg, "URG"),
        ]
        .into_iter()
        .filter_map(|(set, name)| set.then_some(name))
        .collect::<Vec<_>>()
        .join(", ")
    }
}

/// `flow.Endpoint`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoint {
    /// netpold's number of the endpoint; 0: not one of this host's.
    #[serde(rename = "ID", skip_serializing_if = "is_zero")]
    pub id: u32,
    /// The same for all Pods of a Namespace with the same labels. 1 is the host, 2 the world.
    #[serde(skip_serializing_if = "is_zero")]
    pub identity: u32,
    /// Its Namespace; empty where it is no Pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// `k8s:app=web`, or `reserved:host`, `reserved:world`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Its name; empty where it is no Pod.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod_name: String,
}

/// `flow.CiliumEventType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventType {
    /// [`EventType::DROP`] or [`EventType::POLICY_VERDICT`].
    #[serde(rename = "type")]
    pub kind: i32,
    /// For drops, the number of the reason.
    #[serde(skip_serializing_if = "is_zero")]
    pub sub_type: u32,
}

impl EventType {
    /// A packet was dropped.
    pub const DROP: i32 = 1;
    /// Policy was asked about a connection.
    pub const POLICY_VERDICT: i32 = 5;
}

/// `flow.Policy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// Its kind.
    pub kind: String,
    /// The generation of netpold's tables that judged. A string, as proto3 writes `uint64` in JSON.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revision: String,
}

/// The content of `extensions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extensions {
    /// Always [`Extensions::TYPE`].
    #[serde(rename = "@type")]
    pub type_url: String,
    /// What netpold adds.
    pub value: Detail,
}

impl Extensions {
    /// The type that a `google.protobuf.Any` names here.
    pub const TYPE: &'static str = "type.googleapis.com/google.protobuf.Struct";

    /// With this inside.
    #[must_use]
    pub fn new(value: Detail) -> Self {
        Self {
            type_url: Self::TYPE.to_owned(),
            value,
        }
    }
}

/// What netpold knows beyond Hubble's fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Detail {
    /// [`netpol_abi::Reason::label`].
    pub reason: String,
    /// [`netpol_abi::Reason::text`].
    pub message: String,
    /// The rule that decided, from 0 in the order of the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// The host's interface that the packet was judged at; 0: one inside the container.
    #[serde(skip_serializing_if = "is_zero")]
    pub ifindex: u32,
    /// Length of the frame in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    pub length: u32,
    /// What was found of the sender of a packet that came in, where the source address is not its own:
    /// `translated` (`source` is the endpoint of this host that sent it, and network address translation replaced
    /// its address), `not-host` (the host's address, and the host did not send it) or `forged` (an endpoint's
    /// address, and that endpoint did not send it).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sender: String,
    /// The endpoint's address in the packet, where it is none of its own: it has leave for it, or claims it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed: Option<std::net::IpAddr>,
    /// The container's port, where the endpoint dialled one that an engine publishes at an address of the host: the
    /// addresses and ports of the flow are those of the packet, and `destination` is the container behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<u16>,
    /// `0x…`, where the frame is neither IPv4 nor IPv6.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ethertype: String,
    /// The IP protocol's number, where it is none of those that have a field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde calls it with a reference
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A line of the API's `/v1/observe`: Hubble's `GetFlowsResponse`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A flow.
    Flow(Box<Flow>),
    /// Flows that the reader was too slow for.
    LostEvents {
        /// How many.
        num_events_lost: u64,
    },
}
