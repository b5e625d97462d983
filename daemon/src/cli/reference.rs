//! How people name the ends of a connection and its port, alike in every verb: `namespace/name` of a Pod or of a Compose
//! service, `host`, `world`, an address; `5432`, `53/UDP`, or a port's name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use anyhow::{bail, ensure};
use netpol_engine::evaluate::EndpointSpec;
use netpol_engine::policy::{ObjectName, Peer, Protocol};
use netpol_engine::world::World;

/// The label in which Compose names a container's service.
const SERVICE: &str = "com.docker.compose.service";
/// What stands for the host offline, where no kernel says which addresses it has; a documentation address (RFC 5737).
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// One end, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A Pod, or a Compose service: all its containers.
    Name(ObjectName),
    /// This host.
    Host,
    /// An address outside that no `ipBlock` names, but those that hold every address.
    World,
    /// An address: that of a Pod, of the host, or of a stranger.
    Address(IpAddr),
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "host" => return Ok(Self::Host),
            "world" => return Ok(Self::World),
            _ => {}
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        match text.parse() {
            Ok(EndpointSpec::Pod(name)) => Ok(Self::Name(name)),
            Ok(EndpointSpec::Address(address)) => Ok(Self::Address(address)),
            Err(_) if text.starts_with("ip:") => {
                Err(format!("`{text}` is no IPv4 or IPv6 address"))
            }
            Err(_) => Err(format!(
                "`{text}` is neither `namespace/name` (a Pod or a Compose service), nor `host`, `world` or an address"
            )),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Host => f.write_str("host"),
            Self::World => f.write_str("world"),
            Self::Address(address) => write!(f, "ip:{address}"),
        }
    }
}

impl Reference {
    /// The ends that it means, in this world: more than one for a service of more than one container. A host without an
    /// address gets one.
    ///
    /// # Errors
    /// Every address is named by a block, so that none is just any.
    pub fn resolve(&self, world: &mut World) -> anyhow::Result<Vec<EndpointSpec>> {
        Ok(match self {
            Self::Name(name) => of_service(world, name),
            Self::Address(address) => vec![EndpointSpec::Address(*address)],
            Self::Host => {
                if world.host.is_empty() {
                    world.host.insert(HOST);
                }
                let first = world.host.iter().find(|address| !address.is_loopback());
                vec![EndpointSpec::Address(first.copied().unwrap_or(HOST))]
            }
            Self::World => vec![EndpointSpec::Address(unnamed_address(world)?)],
        })
    }
}

/// Each sender with each receiver; a service of several containers does not dial itself.
pub fn pairs<'e>(
    senders: &'e [EndpointSpec],
    receivers: &'e [EndpointSpec],
) -> impl Iterator<Item = (&'e EndpointSpec, &'e EndpointSpec)> {
    senders.iter().flat_map(move |from| {
        let others = receivers.iter();
        let others = others.filter(move |to| *to != from || senders.len() == 1);
        others.map(move |to| (from, to))
    })
}

/// The Pod of that name; else the containers of the Compose service of that name. A name that is neither stays: the
/// answer to it says what was perhaps meant.
fn of_service(world: &World, name: &ObjectName) -> Vec<EndpointSpec> {
    if world.pods.contains_key(name) {
        return vec![EndpointSpec::Pod(name.clone())];
    }
    let all = world.pods.iter().filter(|(pod_name, pod)| {
        pod_name.namespace == name.namespace
            && pod
                .labels
                .get(SERVICE)
                .is_some_and(|service| *service == name.name)
    });
    let found: Vec<EndpointSpec> = all
        .map(|(name, _)| EndpointSpec::Pod(name.clone()))
        .collect();
    match found.is_empty() {
        true => vec![EndpointSpec::Pod(name.clone())],
        false => found,
    }
}

/// An IPv4 address that no Pod and not the host has, and that no block names, but those that hold every address. The candidates are
/// public: blocks of private addresses name networks.
fn unnamed_address(world: &World) -> anyhow::Result<IpAddr> {
    let mut blocks = Vec::new();
    for policy in world.policies.values() {
        let rules = policy.ingress.iter().chain(&policy.egress).flatten();
        for peer in rules.flat_map(|rule| &rule.peers) {
            if let Peer::Block(block) = peer {
                blocks.extend(block.except.iter().copied());
                blocks.extend((block.cidr.prefix_len() > 0).then_some(block.cidr));
            }
        }
    }
    let is_taken = |address: &IpAddr| {
        world.host.contains(address)
            || blocks.iter().any(|block| block.contains(address))
            || world
                .pods
                .values()
                .any(|pod| pod.addresses.contains(address))
    };
    // One in each /8 that is routed on the internet, and not in the middle of anything well known.
    let candidates = (1..=223_u8)
        .filter(|first| ![10, 100, 127, 169, 172, 192, 198, 203].contains(first))
        .map(|first| IpAddr::V4(Ipv4Addr::new(first, 201, 102, 53)));
    for candidate in candidates {
        if !is_taken(&candidate) {
            return Ok(candidate);
        }
    }
    bail!(
        "the policies' blocks name every part of the internet: say which address instead of `world`"
    )
}

/// A port as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortReference {
    port: NumberOrName,
    protocol: Option<Protocol>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum NumberOrName {
    Number(u16),
    Name(String),
}

impl FromStr for PortReference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (port, protocol) = match text.split_once('/') {
            Some((port, protocol)) => {
                let known = protocol.to_ascii_uppercase().parse();
                let right = format!("`{protocol}` is no protocol: TCP, UDP or SCTP");
                (port, Some(known.map_err(|_| right)?))
            }
            None => (text, None),
        };
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port.parse() {
            Ok(number) if is_number && number > 0 => NumberOrName::Number(number),
            _ if is_number => return Err(format!("`{port}` is no port: 1 to 65535")),
            _ if port.is_empty() || port.contains(char::is_whitespace) => {
                return Err(format!(
                    "`{text}` is no port: `5432`, `53/UDP`, or a port's name"
                ));
            }
            _ => NumberOrName::Name(port.to_owned()),
        };
        Ok(Self { port, protocol })
    }
}

impl PortReference {
    /// Its protocol (TCP where it says none) and number.
    ///
    /// # Errors
    /// It is a name, where no Pod says what the name stands for.
    pub fn number(self) -> Result<(Protocol, u16), String> {
        match self.port {
            NumberOrName::Number(port) => Ok((self.protocol.unwrap_or(Protocol::Tcp), port)),
            NumberOrName::Name(name) => Err(format!("`{name}` is no port: `5432` or `53/UDP`")),
        }
    }
}

/// Protocol and port: the options of the verbs that ask about one.
#[derive(Debug, clap::Args)]
pub struct PortArguments {
    /// Destination port: `5432`, `53/UDP`, or the name of one
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub port: PortReference,
    /// TCP, UDP or SCTP, where --port does not say
    #[arg(long, value_name = "PROTOCOL")]
    pub protocol: Option<Protocol>,
}

impl PortArguments {
    /// Which one that is: a name as it is defined by the Pods that `is_meant` selects.
    ///
    /// # Errors
    /// Two protocols are named, or the name is that of no port, or of more than one.
    pub fn resolve(
        &self,
        world: &World,
        is_meant: impl Fn(&ObjectName) -> bool,
    ) -> anyhow::Result<(Protocol, u16)> {
        if let (Some(one), Some(other)) = (self.port.protocol, self.protocol) {
            ensure!(
                one == other,
                "--port says {one}, and --protocol says {other}"
            );
        }
        let protocol = self.port.protocol.or(self.protocol);
        let name = match &self.port.port {
            NumberOrName::Number(port) => return Ok((protocol.unwrap_or(Protocol::Tcp), *port)),
            NumberOrName::Name(name) => name,
        };
        let pods = world.pods.iter().filter(|(pod, _)| is_meant(pod));
        let mut all: Vec<(Protocol, u16)> = pods
            .flat_map(|(_, pod)| &pod.ports)
            .filter(|port| port.name == *name && protocol.is_none_or(|it| it == port.protocol))
            .map(|port| (port.protocol, port.port))
            .collect();
        all.sort_unstable();
        all.dedup();
        match all[..] {
            [one] => Ok(one),
            [] => bail!(
                "no port is named `{name}` at the destination\n  say its number: `--port 8080`, `--port 53/UDP`"
            ),
            _ => {
                let all: Vec<String> = all
                    .iter()
                    .map(|(protocol, port)| format!("{port}/{protocol}"))
                    .collect();
                bail!(
                    "`{name}` is {} at the destination: say which",
                    all.join(" and ")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ends_and_ports_are_read() {
        for text in ["web/front", "host", "world", "ip:10.0.0.1", "ip:fd00::1"] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        let bare: Reference = "10.0.0.1".parse().unwrap();
        assert_eq!(bare.to_string(), "ip:10.0.0.1");
        for text in ["", "front", "ip:x", "/", "a/b/c"] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
        for text in ["0", "65536", "", "/UDP", "53/udpp", "a b"] {
            assert!(text.parse::<PortReference>().is_err(), "{text}");
        }
        for (text, protocol) in [("53/udp", Some(Protocol::Udp)), ("53", None)] {
            let expected = PortReference {
                port: NumberOrName::Number(53),
                protocol,
            };
            assert_eq!(text.parse::<PortReference>().unwrap(), expected);
        }
    }
}
