//! Which connections are tried, from where to where, and what is expected of each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use ipnet::IpNet;
use netpol_engine::evaluate::{self, EndpointSpec};
use netpol_engine::policy::{ObjectName, Peer, Policy, Ports, Protocol};
use netpol_engine::world::World;

use super::expectations::Expectation;
use crate::cli::reference::pairs;
use crate::netns;
use crate::probe::Probe;

/// Ports that are tried where none are asked for.
const PORTS: usize = 8;

/// One probe and what is expected of it.
#[derive(Clone, Debug)]
pub struct Trial {
    pub from: EndpointSpec,
    pub to: EndpointSpec,
    pub allow: bool,
    pub probe: Probe,
}

/// What is tried, and what is not.
#[derive(Debug, Default)]
pub struct Trials {
    pub all: Vec<Trial>,
    /// Pairs that have no network in common.
    pub apart: usize,
}

/// What is known of an endpoint of this host.
#[derive(Debug)]
pub struct Endpoint {
    pub netns: PathBuf,
    pub addresses: Vec<IpAddr>,
    /// Its addresses, each with the network that it is in.
    pub networks: Vec<IpNet>,
}

/// This host's endpoints, by name.
pub type Endpoints = BTreeMap<ObjectName, Endpoint>;

/// The addresses of a network namespace, each with its network; those of the link and of the host itself are not dialled.
pub fn networks(namespace: &Path) -> anyhow::Result<Vec<IpNet>> {
    let found = netns::inside(namespace, || nix::ifaddrs::getifaddrs().map(Vec::from_iter))?
        .with_context(|| format!("the addresses in `{}`", namespace.display()))?;
    let networks = found.into_iter().filter_map(|interface| {
        let address = |storage: Option<nix::sys::socket::SockaddrStorage>| -> Option<IpAddr> {
            let storage = storage?;
            let v4 = storage.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
            v4.or_else(|| storage.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
        };
        let own = address(interface.address)?;
        let net = IpNet::with_netmask(own, address(interface.netmask)?).ok()?;
        is_dialled(&own).then_some(net)
    });
    Ok(networks.collect())
}

const fn is_dialled(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_loopback(),
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_loopback(),
    }
}

/// An address of each end in every family in which both are in one network.
pub fn common(sources: &[IpNet], destinations: &[IpAddr]) -> Vec<(IpAddr, IpAddr)> {
    let of_family = |v4: bool| {
        let sources = sources.iter().filter(move |net| net.addr().is_ipv4() == v4);
        sources
            .flat_map(|net| {
                let inside = destinations.iter().filter(move |to| net.contains(*to));
                inside.map(|to| (net.addr(), *to))
            })
            .next()
    };
    [true, false].into_iter().filter_map(of_family).collect()
}

/// An address of each end in every family that both have: as the one end dials an address that it was told.
fn any(sources: &[IpAddr], destinations: &[IpAddr]) -> Vec<(IpAddr, IpAddr)> {
    let of_family = |v4: bool| {
        let first = |all: &[IpAddr]| {
            let mut all = all.iter().filter(|address| is_dialled(address));
            all.find(|address| address.is_ipv4() == v4).copied()
        };
        Some((first(sources)?, first(destinations)?))
    };
    [true, false].into_iter().filter_map(of_family).collect()
}

/// Every pair of selected ends that has a network in common, on every port, in every family that both have there.
pub fn predicted(
    world: &World,
    endpoints: &Endpoints,
    ports: &[(Protocol, u16)],
    timeout: Duration,
    is_selected: impl Fn(&ObjectName, &ObjectName) -> bool,
) -> anyhow::Result<Trials> {
    let mut trials = Trials::default();
    for (from, source) in endpoints {
        for (to, destination) in endpoints {
            if from == to || !is_selected(from, to) {
                continue;
            }
            let paths = common(&source.networks, &destination.addresses);
            trials.apart += usize::from(paths.is_empty());
            for (source_address, address) in paths {
                for (protocol, port) in ports {
                    let verdict = evaluate::evaluate(
                        world,
                        &EndpointSpec::Address(source_address),
                        &EndpointSpec::Address(address),
                        *protocol,
                        *port,
                    )?;
                    trials.all.push(Trial {
                        from: EndpointSpec::Pod(from.clone()),
                        to: EndpointSpec::Pod(to.clone()),
                        allow: verdict.allowed,
                        probe: Probe {
                            from: source.netns.clone(),
                            source: source_address,
                            to: Some(destination.netns.clone()),
                            destination: SocketAddr::new(address, *port),
                            protocol: *protocol,
                            timeout,
                        },
                    });
                }
            }
        }
    }
    Ok(trials)
}

/// The probes of a file.
pub fn expected(
    file: Vec<Expectation>,
    world: &mut World,
    endpoints: &Endpoints,
    timeout: Duration,
) -> anyhow::Result<Trials> {
    let mut trials = Trials::default();
    for expectation in file {
        let place = &expectation.place;
        let senders = expectation.from.resolve(world)?;
        let receivers = expectation.to.resolve(world)?;
        for (from, to) in pairs(&senders, &receivers) {
            let Some((source, Some(netns))) = known(endpoints, world, from) else {
                bail!("{place}: `{from}` is no endpoint of this host");
            };
            let Some((destination, to_netns)) = known(endpoints, world, to) else {
                bail!("{place}: there is no `{to}`");
            };
            let networks = match from {
                EndpointSpec::Pod(name) => endpoints.get(name).map(|it| &*it.networks),
                EndpointSpec::Address(_) => None,
            };
            let mut paths = common(networks.unwrap_or_default(), &destination);
            if paths.is_empty() {
                paths = any(&source, &destination);
            }
            ensure!(
                !paths.is_empty(),
                "{place}: `{from}` and `{to}` have no addresses of one family"
            );
            for (source, destination) in paths {
                trials.all.push(Trial {
                    from: from.clone(),
                    to: to.clone(),
                    allow: expectation.allow,
                    probe: Probe {
                        from: netns.clone(),
                        source,
                        to: to_netns.clone(),
                        destination: SocketAddr::new(destination, expectation.port),
                        protocol: expectation.protocol,
                        timeout,
                    },
                });
            }
        }
    }
    Ok(trials)
}

/// Addresses and namespace of an end; no namespace where it is not on this host.
fn known(
    endpoints: &Endpoints,
    world: &World,
    end: &EndpointSpec,
) -> Option<(Vec<IpAddr>, Option<PathBuf>)> {
    match end {
        EndpointSpec::Pod(name) => match endpoints.get(name) {
            Some(known) => Some((known.addresses.clone(), Some(known.netns.clone()))),
            None => {
                let pod = world.pods.get(name)?;
                Some((pod.addresses.iter().copied().collect(), None))
            }
        },
        EndpointSpec::Address(address) => {
            let mut all = endpoints.values();
            let holder = all.find(|known| known.addresses.contains(address));
            Some((vec![*address], holder.map(|known| known.netns.clone())))
        }
    }
}

/// The first ports that Pods and policies name, both ends of a range; 80/TCP where
/// no argument names one.
pub fn named_ports(world: &World) -> Vec<(Protocol, u16)> {
    let of_pods = world
        .pods
        .values()
        .flat_map(|pod| pod.ports.iter().map(|port| (port.protocol, port.port)));
    let rules = |policy: &'_ Policy| {
        [&policy.ingress, &policy.egress]
            .into_iter()
            .flatten()
            .flatten()
            // A rule for strangers says little about what containers listen on.
            .filter(|rule| {
                rule.peers.is_empty() || rule.peers.iter().any(|peer| matches!(peer, Peer::Pods(_)))
            })
            .flat_map(|rule| rule.ports.clone())
            .collect::<Vec<_>>()
    };
    let of_policies = world
        .policies
        .values()
        .flat_map(|policy| rules(policy))
        .flat_map(|port| match port.ports {
            Ports::Range(first, last) => vec![(port.protocol, first), (port.protocol, last)],
            Ports::All | Ports::Named(_) => Vec::new(),
        });
    let ports: BTreeSet<_> = of_policies.chain(of_pods).collect();
    if ports.is_empty() {
        return vec![(Protocol::Tcp, 80)];
    }
    ports.into_iter().take(PORTS).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_path_is_in_the_network_that_both_are_in() {
        let sources = nets(&["172.18.0.2/16", "172.19.0.2/16", "fd00::2/64"]);
        let found = common(
            &sources,
            &addresses(&["172.20.0.3", "172.19.0.3", "fd00::3"]),
        );
        let expected = [("172.19.0.2", "172.19.0.3"), ("fd00::2", "fd00::3")];
        let expected = expected.map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap()));
        assert_eq!(found, expected);
        assert_eq!(common(&sources, &addresses(&["172.20.0.3"])), []);
    }

    #[test]
    fn every_family_that_both_have_is_a_path() {
        let one = addresses(&["fe80::1", "10.0.0.1", "fd00::1"]);
        let two = addresses(&["10.0.0.2", "fe80::2", "fd00::2"]);
        assert_eq!(any(&one, &two), [(one[1], two[0]), (one[2], two[2])]);
        assert_eq!(any(&one, &addresses(&["fe80::2"])), []);
    }
}
