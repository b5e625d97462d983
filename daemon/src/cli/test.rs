//! `netpol test`: real probes, held against what the policies say.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use netpol_engine::evaluate::{self, EndpointSpec};
use netpol_engine::policy::{ObjectName, Peer, Policy, Ports, Protocol};
use netpol_engine::world::World;
use serde::Deserialize;

use super::source::Source;
use super::{Cli, Exit};
use crate::api::Client;
use crate::printable::printable;
use crate::probe::{Outcome, Probe};

/// Ports that are tried where none are asked for.
const PORTS: usize = 8;
/// Probes under way at a time: most of those that are denied wait for their timeout.
const AT_A_TIME: usize = 64;
/// Bytes of a file of probes.
const FILE_LIMIT: usize = 16 << 20;

/// Try real connections, and hold them against what the policies say
///
/// Without FILE, every ordered pair of this host's endpoints on the ports that Pods
/// and policies name, against the verdict of the policies in force. With FILE, its
/// probes against the verdicts that it expects. Probes start inside the
/// containers' network namespaces: this needs root.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
FILE is YAML:
  probes:
    - {from: web/frontend, to: payments/api-server, protocol: TCP, port: 8080, allow: true}
    - {from: web/frontend, to: \"ip:192.0.2.1\", protocol: TCP, port: 443, allow: false}

Exit code 1 where a probe misses.

Examples:
  netpol test
  netpol test --port 8080 --port 53/UDP
  netpol test expected.yaml")]
pub struct Test {
    /// Probes and what is expected of them
    #[arg(value_name = "FILE", conflicts_with = "port")]
    file: Option<PathBuf>,
    /// Try this port: `8080`, `53/UDP`; may be repeated
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = port)]
    port: Vec<(Protocol, u16)>,
    /// When one probe gives up
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = super::wait::duration)]
    timeout: Duration,
    /// Show the misses alone
    #[arg(short, long)]
    quiet: bool,
}

/// The file. Cases of the conformance suite carry more beside `probes`; what
/// stands in one probe is checked.
#[derive(Debug, Deserialize)]
struct Expectations {
    probes: Vec<Expected>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    from: String,
    to: String,
    #[serde(default = "tcp")]
    protocol: String,
    port: u16,
    allow: bool,
}

fn tcp() -> String {
    Protocol::Tcp.to_string()
}

/// One probe and what is expected of it.
#[derive(Debug)]
struct Trial {
    from: EndpointSpec,
    to: EndpointSpec,
    allow: bool,
    probe: Probe,
}

/// What is known of this host's endpoints.
type Endpoints = BTreeMap<ObjectName, (PathBuf, Vec<IpAddr>)>;

impl Test {
    pub(super) fn run(
        &self,
        cli: &Cli,
        client: &Client,
        out: &mut dyn Write,
    ) -> anyhow::Result<Exit> {
        let status = super::wait_for(client.status())?;
        let listing = match Source::chosen(cli).listing() {
            Ok(listing) => listing,
            Err(none) => return none.exit(),
        };
        let endpoints: Endpoints = status
            .endpoints
            .into_iter()
            .filter_map(|endpoint| {
                let name = ObjectName::new(endpoint.namespace, endpoint.name);
                Some((name, (endpoint.netns?, endpoint.addresses)))
            })
            .collect();
        let trials = match &self.file {
            Some(file) => self.expected(file, &listing.world, &endpoints)?,
            None => self.predicted(&listing.world, &endpoints)?,
        };
        let mut missed = 0_usize;
        let mut tried = 0_usize;
        run_all(&trials, |trial, outcome| -> anyhow::Result<()> {
            tried += 1;
            let verdict = outcome.as_ref().ok().and_then(Outcome::arrived);
            let hit = verdict == Some(trial.allow);
            missed += usize::from(!hit);
            if hit && self.quiet {
                return Ok(());
            }
            let found = match &outcome {
                Ok(Outcome::Reached) => "reached".to_owned(),
                Ok(Outcome::Refused) => "refused by the other end".to_owned(),
                Ok(Outcome::TimedOut) => "timed out".to_owned(),
                Ok(Outcome::Unreachable(why)) => format!("not delivered: {why}"),
                Err(error) => format!("not tried: {error}"),
            };
            let end = |party: &EndpointSpec, address: IpAddr| match party {
                EndpointSpec::Pod(name) => format!("{name} ({address})"),
                EndpointSpec::Address(address) => address.to_string(),
            };
            let line = format!(
                "{} {} -> {} {} {}: expected {}, {found}",
                if hit { "PASS" } else { "FAIL" },
                end(&trial.from, trial.probe.source),
                end(&trial.to, trial.probe.destination.ip()),
                trial.probe.protocol,
                trial.probe.destination.port(),
                if trial.allow { "allowed" } else { "denied" },
            );
            writeln!(out, "{}", printable(&line))?;
            out.flush()?;
            Ok(())
        })?;
        anstream::eprintln!("{tried} probes, {missed} missed");
        if tried == 0 {
            anyhow::bail!("there is nothing to try: no two endpoints of this host share a network");
        }
        Ok(Exit::answer(missed == 0))
    }

    /// Every pair, on every port, in every family that both have.
    fn predicted(&self, world: &World, endpoints: &Endpoints) -> anyhow::Result<Vec<Trial>> {
        let ports = if self.port.is_empty() {
            let ports = named_ports(world);
            let text: Vec<String> = ports
                .iter()
                .map(|(protocol, port)| format!("{port}/{protocol}"))
                .collect();
            anstream::eprintln!("ports tried: {} (--port names others)", text.join(" "));
            ports
        } else {
            self.port.clone()
        };
        let mut trials = Vec::new();
        for (from, (from_netns, sources)) in endpoints {
            for (to, (to_netns, destinations)) in endpoints {
                if from == to {
                    continue;
                }
                for (source, destination) in paths(sources, destinations) {
                    for (protocol, port) in &ports {
                        let verdict = evaluate::evaluate(
                            world,
                            &EndpointSpec::Address(source),
                            &EndpointSpec::Address(destination),
                            *protocol,
                            *port,
                        )?;
                        trials.push(Trial {
                            from: EndpointSpec::Pod(from.clone()),
                            to: EndpointSpec::Pod(to.clone()),
                            allow: verdict.allowed,
                            probe: Probe {
                                from: from_netns.clone(),
                                source,
                                to: Some(to_netns.clone()),
                                destination: SocketAddr::new(destination, *port),
                                protocol: *protocol,
                                timeout: self.timeout,
                            },
                        });
                    }
                }
            }
        }
        Ok(trials)
    }

    fn expected(
        &self,
        file: &Path,
        world: &World,
        endpoints: &Endpoints,
    ) -> anyhow::Result<Vec<Trial>> {
        let shown = file.display();
        let text =
            std::fs::read_to_string(file).with_context(|| format!("can't read `{shown}`"))?;
        anyhow::ensure!(text.len() <= FILE_LIMIT, "`{shown}` is too large");
        let expectations: Expectations = serde_saphyr::from_str(&text)
            .map_err(|error| anyhow::anyhow!("`{shown}` is no list of probes: {error}"))?;
        let mut trials = Vec::new();
        for (number, expected) in expectations.probes.into_iter().enumerate() {
            let context = || format!("`{shown}`: probes[{number}]");
            let from: EndpointSpec = expected.from.parse().with_context(context)?;
            let to: EndpointSpec = expected.to.parse().with_context(context)?;
            let protocol: Protocol = expected.protocol.parse().with_context(context)?;
            let (from_netns, sources) = known(endpoints, world, &from)
                .and_then(|(netns, addresses)| Some((netns?, addresses)))
                .with_context(|| format!("{}: `{from}` is no endpoint of this host", context()))?;
            let (to_netns, destinations) = known(endpoints, world, &to)
                .with_context(|| format!("{}: nobody is named `{to}`", context()))?;
            let all = paths(&sources, &destinations);
            anyhow::ensure!(
                !all.is_empty(),
                "{}: `{from}` and `{to}` have no addresses of one family",
                context()
            );
            for (source, destination) in all {
                trials.push(Trial {
                    from: from.clone(),
                    to: to.clone(),
                    allow: expected.allow,
                    probe: Probe {
                        from: from_netns.clone(),
                        source,
                        to: to_netns.clone(),
                        destination: SocketAddr::new(destination, expected.port),
                        protocol,
                        timeout: self.timeout,
                    },
                });
            }
        }
        Ok(trials)
    }
}

/// Namespace and addresses of a party; no namespace where it is not on this host.
fn known(
    endpoints: &Endpoints,
    world: &World,
    party: &EndpointSpec,
) -> Option<(Option<PathBuf>, Vec<IpAddr>)> {
    match party {
        EndpointSpec::Pod(name) => match endpoints.get(name) {
            Some((netns, addresses)) => Some((Some(netns.clone()), addresses.clone())),
            None => world
                .pods
                .get(name)
                .map(|pod| (None, pod.addresses.iter().copied().collect())),
        },
        EndpointSpec::Address(address) => {
            let holder = endpoints
                .values()
                .find(|(_, addresses)| addresses.contains(address));
            Some((holder.map(|(netns, _)| netns.clone()), vec![*address]))
        }
    }
}

/// An address of each end in every family that both have. Link-local ones need an
/// interface beside them, and no client dials them across endpoints.
fn paths(sources: &[IpAddr], destinations: &[IpAddr]) -> Vec<(IpAddr, IpAddr)> {
    let dialled = |address: &&IpAddr| match address {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_loopback(),
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_loopback(),
    };
    [true, false]
        .into_iter()
        .filter_map(|v4| {
            let first = |all: &[IpAddr]| {
                all.iter()
                    .filter(dialled)
                    .find(|address| address.is_ipv4() == v4)
                    .copied()
            };
            Some((first(sources)?, first(destinations)?))
        })
        .collect()
}

/// The first ports that Pods and policies name, both ends of a range; 80/TCP where
/// no argument names one.
fn named_ports(world: &World) -> Vec<(Protocol, u16)> {
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

/// Runs them, some at a time, and tells of each in the order in which they stand.
fn run_all(
    trials: &[Trial],
    mut tell: impl FnMut(&Trial, Result<Outcome, crate::probe::ProbeError>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = std::sync::mpsc::channel();
    let sender = Mutex::new(sender);
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(trials.len()) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(trial) = trials.get(number) else {
                        return;
                    };
                    let outcome = trial.probe.run();
                    let sender = sender
                        .lock()
                        .unwrap_or_else(std::sync::PoisonError::into_inner);
                    if sender.send((number, outcome)).is_err() {
                        return;
                    }
                }
            });
        }
        let mut early = BTreeMap::new();
        let mut told = 0;
        let result = (|| {
            while told < trials.len() {
                let (number, outcome) = receiver.recv().context("a probe's thread died")?;
                early.insert(number, outcome);
                while let Some(outcome) = early.remove(&told) {
                    tell(&trials[told], outcome)?;
                    told += 1;
                }
            }
            Ok(())
        })();
        // Where telling failed (a closed pipe), those not begun are not.
        next.store(trials.len(), Ordering::Relaxed);
        result
    })
}

/// `8080`, `53/UDP`.
fn port(text: &str) -> Result<(Protocol, u16), String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "TCP"));
    let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
    let protocol = protocol.parse().map_err(|error| format!("{error}"))?;
    Ok((protocol, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_family_that_both_have_is_a_path() {
        let addresses = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let one = addresses(&["fe80::1", "10.0.0.1", "fd00::1"]);
        let two = addresses(&["10.0.0.2", "fe80::2", "fd00::2"]);
        assert_eq!(paths(&one, &two), [(one[1], two[0]), (one[2], two[2])]);
        assert_eq!(paths(&one, &addresses(&["fe80::2"])), []);
    }

    #[test]
    fn ports_are_read_with_their_protocol() {
        assert_eq!(port("8080").unwrap(), (Protocol::Tcp, 8080));
        assert_eq!(port("53/udp").unwrap(), (Protocol::Udp, 53));
        for text in ["", "x", "70000", "53/ICMP", "/UDP"] {
            assert!(port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_of_probes_may_be_a_conformance_case() {
        let text =
            "title: x\nprobes:\n  - {from: a/b, to: 'ip:192.0.2.1', port: 80, allow: false}\n";
        let file: Expectations = serde_saphyr::from_str(text).unwrap();
        assert_eq!(file.probes[0].protocol, "TCP");
        let typo = "probes:\n  - {from: a/b, to: c/d, port: 80, alow: false, allow: true}\n";
        assert!(serde_saphyr::from_str::<Expectations>(typo).is_err());
    }
}
