//! From numbers to names: a kernel report becomes a [`Flow`].
//!
//! Pure: a [`Namer`] is made from one state of the world and asked about reports of
//! that time. A report of an older state may name an endpoint that is gone or a
//! policy set that no endpoint has any more; what is not known is left out, never guessed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use netpol_abi::Reason;
use netpol_abi::event::{Event, Kind};
use netpol_abi::judge::{Sender, SenderKind};
use netpol_abi::limits::{FIRST_INSIDE, FIRST_LOOPBACK};
use netpol_abi::packet::ethertype;
use netpol_abi::tables::stamped_slot;
use netpol_engine::compile::Names;
use netpol_engine::labels::Labels;
use netpol_engine::policy::{self, ObjectName};
use netpol_engine::resolver;
use netpol_engine::world::{Place, World, published_where};

use super::drop_reason;
use super::flow::{
    Detail, Endpoint, Ethernet, EventType, Extensions, Flow, FlowType, Ip, IpVersion, Layer4,
    Policy, TcpFlags, TrafficDirection, Verdict,
};

/// Hubble's number for the host.
const IDENTITY_HOST: u32 = 1;
/// Hubble's number for everything outside.
const IDENTITY_WORLD: u32 = 2;
/// The first number that a Pod may have (cilium: 0-255 are reserved).
const FIRST_IDENTITY: u32 = 256;

/// Nanoseconds to add to the monotonic clock for the time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    offset_ns: i128,
}

impl Clock {
    /// From both clocks, read at the same moment.
    #[must_use]
    pub fn new(now: jiff::Timestamp, monotonic_ns: u64) -> Self {
        Self {
            offset_ns: now.as_nanosecond() - i128::from(monotonic_ns),
        }
    }

    /// From the clocks of this host.
    ///
    /// # Errors
    /// When the kernel has no monotonic clock.
    pub fn read() -> Result<Self, nix::Error> {
        let monotonic = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
        let monotonic = std::time::Duration::from(monotonic);
        Ok(Self::new(
            jiff::Timestamp::now(),
            u64::try_from(monotonic.as_nanos()).unwrap_or(u64::MAX),
        ))
    }

    fn time(self, monotonic_ns: u64) -> jiff::Timestamp {
        // Out of the calendar only where a report is not from a kernel.
        jiff::Timestamp::from_nanosecond(self.offset_ns + i128::from(monotonic_ns))
            .unwrap_or_default()
    }
}

/// Knows the names of one state of the world.
#[derive(Clone, Debug)]
pub struct Namer {
    node: String,
    world: Arc<World>,
    names: Arc<Names>,
    by_number: BTreeMap<u32, ObjectName>,
    by_address: BTreeMap<IpAddr, ObjectName>,
    by_slot: BTreeMap<u32, ObjectName>,
    /// By protocol, port and address of the host: the Pod that publishes it, and its own port.
    by_published: BTreeMap<(u8, u16, IpAddr), (ObjectName, u16)>,
}

impl Namer {
    /// The names of this world, as it was compiled, on the host of this name.
    #[must_use]
    pub fn new(node: impl Into<String>, world: Arc<World>, names: Arc<Names>) -> Self {
        let mut by_number = BTreeMap::new();
        let mut by_address = BTreeMap::new();
        let mut by_slot = BTreeMap::new();
        let mut by_published = BTreeMap::new();
        for (name, pod) in &world.pods {
            if let Place::Attached(attached) = &pod.place {
                by_number.insert(attached.id, name.clone());
                by_slot.insert(attached.slot, name.clone());
                for port in &pod.published {
                    let at = (port.protocol.number(), port.port, port.address);
                    by_published
                        .entry(at)
                        .or_insert_with(|| (name.clone(), port.target));
                }
            }
            // A Pod on the host's network has the host's addresses: they stay the host's.
            if pod.place != Place::HostNetwork {
                by_address.extend(pod.addresses.iter().map(|address| (*address, name.clone())));
            }
        }
        Self {
            node: node.into(),
            world,
            names,
            by_number,
            by_address,
            by_slot,
            by_published,
        }
    }

    /// Whose published port the endpoint dials, where the container behind it denies it, and that one's port. The report
    /// has a policy set for ingress then, and is about a connection that the endpoint opens.
    fn dialled(&self, event: &Event, dialled: IpAddr, port: u16) -> Option<&(ObjectName, u16)> {
        let policy_set = self.names.policy_sets.get(&event.policy_set)?;
        let is_opened_by_endpoint = (event.direction == 1) != (event.reply != 0);
        if policy_set.direction != policy::Direction::Ingress || !is_opened_by_endpoint {
            return None;
        }
        published_where(dialled)
            .into_iter()
            .find_map(|address| self.by_published.get(&(event.protocol, port, address)))
    }

    /// Is it a single host's address, and none of this endpoint's own?
    fn is_claimed(&self, endpoint: u32, address: IpAddr) -> bool {
        let name = self.by_number.get(&endpoint);
        let pod = name.and_then(|name| self.world.pods.get(name));
        pod.is_some_and(|pod| !pod.addresses.contains(&address))
            && !address.is_multicast()
            && address != IpAddr::V4(Ipv4Addr::BROADCAST)
    }

    /// The report with names on it; `None` where it is of a kind that this build does not know.
    #[must_use]
    pub fn flow(&self, event: &Event, clock: Clock) -> Option<Flow> {
        let kind = Kind::from_number(event.kind)?;
        let reason = Reason::from_number(event.reason)?;
        let direction = match event.direction {
            0 => TrafficDirection::Ingress,
            1 => TrafficDirection::Egress,
            _ => return None,
        };
        let ip = addresses(event);
        let is_question = event.ifindex >= FIRST_LOOPBACK;
        let peer = |address: Option<IpAddr>| self.by_address(address);
        let own = |address: Option<IpAddr>| match self.by_number.get(&event.endpoint) {
            Some(name) => self.pod(name),
            None => self.by_address(address),
        };
        let from = ip.as_ref().map(|ip| ip.source);
        let to = ip.as_ref().map(|ip| ip.destination);
        let sender = Sender(event.sender);
        let peer = |address: Option<IpAddr>| match sender.kind() {
            SenderKind::Address => peer(address),
            SenderKind::Translated => match self.by_slot.get(&stamped_slot(sender.stamp())) {
                Some(name) => self.pod(name),
                None => outside(),
            },
            // Another endpoint has the address.
            SenderKind::NotHost | SenderKind::Forged => outside(),
        };
        let claimed = match direction {
            TrafficDirection::Ingress => to,
            TrafficDirection::Egress => from,
        }
        // On its loopback interface it speaks from whichever address it likes.
        .filter(|address| !is_question && self.is_claimed(event.endpoint, *address));
        let (mut source, mut destination) = match direction {
            TrafficDirection::Ingress => (peer(from), own(to)),
            // What it asks its engine is judged as what it asks this peer.
            TrafficDirection::Egress
                if is_question && self.world.pods.contains_key(&resolver::name()) =>
            {
                (own(from), self.pod(&resolver::name()))
            }
            TrafficDirection::Egress => (own(from), peer(to)),
        };
        let (dialled, port, behind) = match direction {
            TrafficDirection::Ingress => (from, event.source_port, &mut source),
            TrafficDirection::Egress => (to, event.destination_port, &mut destination),
        };
        let published = dialled.and_then(|address| self.dialled(event, address, port));
        let published = published.map(|(name, port)| {
            *behind = self.pod(name);
            *port
        });
        // It is the container's policy that has decided.
        let direction = match published {
            Some(_) => TrafficDirection::Ingress,
            None => direction,
        };
        let rule = self.names.rule(event.policy_set, event.rule);
        let policies = match (rule, reason) {
            (Some(rule), _) => vec![self.policy(&rule.policy, event)],
            (None, Reason::PolicyDenied | Reason::PolicyRevoked) => self
                .names
                .policy_sets
                .get(&event.policy_set)
                .map(|policy_set| &policy_set.policies)
                .into_iter()
                .flatten()
                .map(|name| self.policy(name, event))
                .collect(),
            (None, _) => Vec::new(),
        };
        let l4 = ip.as_ref().and_then(|ip| layer4(event, ip.version));
        let mut flow = Flow {
            time: clock.time(event.time_ns),
            uuid: uuid(),
            verdict: match kind {
                Kind::Opened => Verdict::Forwarded,
                Kind::Dropped => Verdict::Dropped,
                Kind::Audited => Verdict::Audit,
            },
            ethernet: Some(Ethernet {
                source: mac(event.source_mac),
                destination: mac(event.destination_mac),
            }),
            summary: summary(l4.as_ref()),
            source,
            destination,
            flow_type: FlowType::L3L4,
            node_name: self.node.clone(),
            event_type: EventType {
                kind: EventType::POLICY_VERDICT,
                sub_type: 0,
            },
            traffic_direction: direction,
            is_reply: event.reply != 0,
            extensions: Some(Extensions::new(Detail {
                reason: reason.label().to_owned(),
                message: reason.text().to_owned(),
                rule: rule.map(|rule| rule.rule),
                // Any other number is unknown.
                ifindex: if event.ifindex < FIRST_INSIDE {
                    event.ifindex
                } else {
                    0
                },
                length: event.length,
                sender: match sender.kind() {
                    SenderKind::Address => String::new(),
                    SenderKind::Translated => "translated".to_owned(),
                    SenderKind::NotHost => "not-host".to_owned(),
                    SenderKind::Forged => "forged".to_owned(),
                },
                claimed,
                published,
                ethertype: if event.version != 0 {
                    String::new()
                } else {
                    format!("{:#06x}", event.ethertype)
                },
                protocol: (event.version != 0 && l4.is_none()).then_some(event.protocol),
            })),
            ip,
            l4,
            ..Flow::default()
        };
        if kind != Kind::Opened
            && let Some((number, name)) = drop_reason::from_reason(reason)
        {
            flow.drop_reason = Some(number);
            flow.drop_reason_desc = Some(name.to_owned());
            if kind == Kind::Dropped {
                flow.event_type = EventType {
                    kind: EventType::DROP,
                    sub_type: number,
                };
            }
        }
        let by = match (kind, direction) {
            (Kind::Opened, TrafficDirection::Ingress) => &mut flow.ingress_allowed_by,
            (Kind::Opened, TrafficDirection::Egress) => &mut flow.egress_allowed_by,
            (_, TrafficDirection::Ingress) => &mut flow.ingress_denied_by,
            (_, TrafficDirection::Egress) => &mut flow.egress_denied_by,
        };
        *by = policies;
        Some(flow)
    }

    fn by_address(&self, address: Option<IpAddr>) -> Endpoint {
        let Some(address) = address else {
            return Endpoint::default();
        };
        if let Some(name) = self.by_address.get(&address) {
            return self.pod(name);
        }
        if !self.world.host.contains(&address) {
            return outside();
        }
        Endpoint {
            identity: IDENTITY_HOST,
            labels: vec!["reserved:host".to_owned()],
            ..Endpoint::default()
        }
    }

    fn pod(&self, name: &ObjectName) -> Endpoint {
        let pod = self.world.pods.get(name);
        let labels = pod.map(|pod| &pod.labels);
        let id = match pod.map(|pod| &pod.place) {
            Some(Place::Attached(attached)) => attached.id,
            _ => 0,
        };
        Endpoint {
            id,
            identity: identity(&name.namespace, labels),
            namespace: name.namespace.clone(),
            labels: labels
                .into_iter()
                .flatten()
                .map(|(key, value)| format!("k8s:{key}={value}"))
                .chain(std::iter::once(format!(
                    "k8s:io.kubernetes.pod.namespace={}",
                    name.namespace
                )))
                .collect(),
            pod_name: name.name.clone(),
        }
    }

    fn policy(&self, name: &ObjectName, event: &Event) -> Policy {
        Policy {
            name: name.name.clone(),
            namespace: name.namespace.clone(),
            kind: "NetworkPolicy".to_owned(),
            revision: event.generation.to_string(),
        }
    }
}

fn addresses(event: &Event) -> Option<Ip> {
    if event.ethertype == ethertype::ARP {
        let (source, destination) = event.arp_ends()?;
        return Some(Ip {
            source: source.into(),
            destination: destination.into(),
            version: IpVersion::V4,
        });
    }
    let (convert, version): (fn([u8; 16]) -> IpAddr, _) = match event.version {
        4 => (
            |octets| Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into(),
            IpVersion::V4,
        ),
        6 => (|octets| Ipv6Addr::from(octets).into(), IpVersion::V6),
        _ => return None,
    };
    Some(Ip {
        source: convert(event.source),
        destination: convert(event.destination),
        version,
    })
}

fn layer4(event: &Event, version: IpVersion) -> Option<Layer4> {
    let (source_port, destination_port) = (event.source_port, event.destination_port);
    Some(match (event.protocol, version) {
        (6, _) => Layer4::Tcp {
            source_port,
            destination_port,
            flags: TcpFlags::from_wire(event.tcp_flags),
        },
        (17, _) => Layer4::Udp {
            source_port,
            destination_port,
        },
        (132, _) => Layer4::Sctp {
            source_port,
            destination_port,
        },
        (1, IpVersion::V4) => Layer4::Icmp4 {
            kind: source_port,
            code: destination_port,
        },
        (58, IpVersion::V6) => Layer4::Icmp6 {
            kind: source_port,
            code: destination_port,
        },
        _ => return None,
    })
}

/// What Hubble puts in brackets at the end of a line.
fn summary(l4: Option<&Layer4>) -> String {
    match l4 {
        None => String::new(),
        Some(Layer4::Tcp { flags, .. }) => format!("TCP Flags: {}", flags.names()),
        Some(Layer4::Udp { .. }) => "UDP".to_owned(),
        Some(Layer4::Sctp { .. }) => "SCTP".to_owned(),
        Some(Layer4::Icmp4 { kind, code }) => format!("ICMPv4 type {kind} code {code}"),
        Some(Layer4::Icmp6 { kind, code }) => format!("ICMPv6 type {kind} code {code}"),
    }
}

fn mac(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

/// The same number for the same Namespace and labels, on every host and after every
/// restart (FNV-1a, 24 bits). Two label sets may share one; it is for colouring and
/// grouping, never for deciding.
fn identity(namespace: &str, labels: Option<&Labels>) -> u32 {
    let parts = labels
        .into_iter()
        .flatten()
        .flat_map(|(key, value)| [key.as_str(), value.as_str()]);
    let hash = std::iter::once(namespace)
        .chain(parts)
        .flat_map(|part| part.bytes().chain(std::iter::once(0)))
        .fold(0x811c_9dc5_u32, |hash, octet| {
            (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193)
        });
    FIRST_IDENTITY + (hash & 0x00ff_ffff)
}

/// An end that is neither an endpoint of this host nor the host.
fn outside() -> Endpoint {
    Endpoint {
        identity: IDENTITY_WORLD,
        labels: vec!["reserved:world".to_owned()],
        ..Endpoint::default()
    }
}

/// A version 4 UUID (RFC 9562) from the process's own random keys and a counter: unlike
/// any other, and not a secret.
fn uuid() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let high = KEYS[0].hash_one(count);
    let low = KEYS[1].hash_one(count);
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0x0fff,
        0x8000 | (low >> 48) & 0x3fff,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests;
