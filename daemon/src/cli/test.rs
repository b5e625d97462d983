//! `netpol test`: real probes, held against what the policies say.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use netpol_engine::evaluate::EndpointSpec;
use netpol_engine::policy::{ObjectName, Protocol};
use netpol_engine::world::World;
use serde::Serialize;

use super::output::Form;
use super::reference::{PortReference, Reference};
use super::scope::Scope;
use super::source::Source;
use super::verdict::said;
use super::{Cli, Exit, junit};
use crate::api::Client;
use crate::flows::filter::Filter;
use crate::flows::flow::{Flow, Line, Verdict};
use crate::flows::recorder::KEPT;
use crate::printable::printable;
use crate::probe::{Outcome, ProbeError};
use trials::{Endpoint, Endpoints, Trial, Trials};

pub mod expectations;
mod run;
mod trials;

/// Try real connections, and hold them against what the policies say
///
/// Without FILE, every ordered pair of this host's endpoints that have a network in
/// common, on the ports that Pods and policies name, against the verdict of the
/// policies in force. With FILE, its probes against the verdicts that it expects.
/// Probes start inside the containers' network namespaces: this needs root.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
FILE is YAML:
  probes:
    - {from: web/frontend, to: payments/api-server, protocol: TCP, port: 8080, allow: true}
    - {from: web/frontend, to: \"ip:192.0.2.1\", protocol: TCP, port: 443, allow: false}
`netpol verdict --expect FILE` asks the policies alone about the same file, also offline.

Exit code 1 where a probe misses. Of one that was to arrive and did not, it is said whether
netpold dropped it, or whether it was lost between the two: by another rule of the host,
a network without a route, or a service that does not answer.

Examples:
  netpol test
  netpol test --to shop/db --port 5432 --port 53/UDP
  netpol test -n shop -o json | jq -r '.probes[] | select(.hit == false)'
  netpol test expected.yaml --junit test.xml")]
pub struct Test {
    /// Probes and what is expected of them
    #[arg(value_name = "FILE", conflicts_with_all = ["port", "from", "to", "namespace", "selector"])]
    file: Option<PathBuf>,
    /// Try this port: `8080`, `53/UDP`; may be repeated
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = port)]
    port: Vec<(Protocol, u16)>,
    /// Pairs from this end alone: `namespace/name` of a Pod or of a Compose service
    #[arg(long, value_name = "REF")]
    from: Option<Reference>,
    /// Pairs to this end alone
    #[arg(long, value_name = "REF")]
    to: Option<Reference>,
    /// Pairs of which one end is selected
    #[command(flatten)]
    scope: Scope,
    /// When one probe gives up; one that was to arrive is tried once more, for four times as long
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = super::wait::duration)]
    timeout: Duration,
    /// Show the misses alone
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    form: Form,
    /// Write JUnit's XML, for CI servers: to this file
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// A probe that was tried.
#[derive(Debug, Serialize)]
struct Probed {
    hit: bool,
    from: String,
    source: IpAddr,
    to: String,
    destination: IpAddr,
    protocol: Protocol,
    port: u16,
    /// `allowed` or `denied`.
    expected: &'static str,
    /// What became of it, in words.
    found: String,
    /// Of a miss that was to arrive: the reason of netpold's drop; `None`: netpold has not dropped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped: Option<String>,
}

#[derive(Serialize)]
struct Report<'p> {
    tried: usize,
    missed: usize,
    /// Pairs that have no network in common.
    not_tried: usize,
    probes: &'p [Probed],
}

impl Test {
    pub(super) fn run(
        &self,
        cli: &Cli,
        client: &Client,
        out: &mut dyn Write,
    ) -> anyhow::Result<Exit> {
        let begun = jiff::Timestamp::now();
        let status = super::wait_for(client.status())?;
        let mut listing = match Source::chosen(cli).listing() {
            Ok(listing) => listing,
            Err(none) => return none.exit(),
        };
        let mut endpoints = Endpoints::new();
        for endpoint in status.endpoints {
            let Some(netns) = endpoint.netns else {
                continue;
            };
            let name = ObjectName::new(endpoint.namespace, endpoint.name);
            let known = Endpoint {
                networks: trials::networks(&netns)?,
                netns,
                addresses: endpoint.addresses,
            };
            endpoints.insert(name, known);
        }
        let trials = match &self.file {
            Some(file) => trials::expected(
                expectations::read(file)?,
                &mut listing.world,
                &endpoints,
                self.timeout,
            )?,
            None => self.predicted(&mut listing.world, &endpoints)?,
        };
        let is_streamed = !self.form.output.is_data();
        let mut probed = Vec::new();
        run::run_all(&trials.all, |trial, outcome| -> anyhow::Result<()> {
            let one = probed_from(trial, &outcome);
            // A miss is told when it is known where it was lost.
            if one.hit && !self.quiet && is_streamed {
                writeln!(out, "{}", line(&one))?;
                out.flush()?;
            }
            probed.push(one);
            Ok(())
        })?;
        self.try_again(&trials, &mut probed)?;
        let is_lost = |one: &Probed| !one.hit && one.expected == "allowed";
        if probed.iter().any(is_lost) {
            let drops = super::wait_for(drops(client, begun))?;
            for one in probed.iter_mut().filter(|one| is_lost(one)) {
                let key = (one.source, one.destination, one.protocol, one.port);
                one.dropped = drops.get(&key).cloned();
            }
        }
        let missed = probed.iter().filter(|one| !one.hit).count();
        let report = Report {
            tried: probed.len(),
            missed,
            not_tried: trials.apart,
            probes: &probed,
        };
        if !self.form.output.value(out, &report)? {
            for one in probed.iter().filter(|one| !one.hit) {
                writeln!(out, "{}", line(one))?;
            }
        }
        if let Some(path) = &self.junit {
            let failed = || format!("can't write `{}`", path.display());
            let mut file = File::create(path).with_context(failed)?;
            let cases = probed.iter().map(|one| (line(one), !one.hit));
            junit::write_cases(&mut file, "netpol test", cases).with_context(failed)?;
        }
        anstream::eprintln!("{} probes, {missed} missed", probed.len());
        self.note_apart(&trials);
        if probed.is_empty() {
            bail!(
                "there is nothing to try: no two selected endpoints of this host share a network"
            );
        }
        Ok(Exit::answer(missed == 0))
    }

    /// A busy host may be late with what it lets through: what timed out and was to arrive is tried once more.
    fn try_again(&self, trials: &Trials, probed: &mut [Probed]) -> anyhow::Result<()> {
        let tried = trials.all.iter().zip(probed.iter());
        let lost = tried
            .enumerate()
            .filter(|(_, (trial, one))| trial.allow && !one.hit);
        let (numbers, again): (Vec<usize>, Vec<Trial>) = lost
            .map(|(number, (trial, _))| {
                let mut trial = trial.clone();
                trial.probe.timeout = self.timeout * 4;
                (number, trial)
            })
            .unzip();
        let mut numbers = numbers.into_iter();
        run::run_all(&again, |trial, outcome| {
            if let Some(one) = numbers.next().and_then(|number| probed.get_mut(number)) {
                *one = probed_from(trial, &outcome);
            }
            Ok(())
        })
    }

    fn note_apart(&self, trials: &Trials) {
        if trials.apart > 0 {
            anstream::eprintln!(
                "{} pairs were not tried: they have no network in common, so the engine keeps them apart, whatever policy says",
                trials.apart
            );
        }
    }

    fn predicted(&self, world: &mut World, endpoints: &Endpoints) -> anyhow::Result<Trials> {
        let ports = if self.port.is_empty() {
            let ports = trials::named_ports(world);
            let text: Vec<String> = ports
                .iter()
                .map(|(protocol, port)| format!("{port}/{protocol}"))
                .collect();
            anstream::eprintln!("ports tried: {} (--port names others)", text.join(" "));
            ports
        } else {
            self.port.clone()
        };
        let ends = |written: &Option<Reference>, world: &mut World| -> anyhow::Result<_> {
            let Some(written) = written else {
                return Ok(None);
            };
            let found = written.resolve(world)?;
            let names: Vec<ObjectName> = found
                .into_iter()
                .filter_map(|end| match end {
                    EndpointSpec::Pod(name) => Some(name),
                    EndpointSpec::Address(address) => {
                        let mut all = endpoints.iter();
                        let holder = all.find(|(_, known)| known.addresses.contains(&address));
                        holder.map(|(name, _)| name.clone())
                    }
                })
                .filter(|name| endpoints.contains_key(name))
                .collect();
            if names.is_empty() {
                bail!("`{written}` is no endpoint of this host: `netpol get pods -A` lists them");
            }
            Ok(Some(names))
        };
        let (senders, receivers) = (ends(&self.from, world)?, ends(&self.to, world)?);
        let is_one = |all: &Option<Vec<ObjectName>>, name: &ObjectName| {
            all.as_ref().is_none_or(|all| all.contains(name))
        };
        let is_meant = |name: &ObjectName| {
            let namespace = self.scope.named();
            namespace.is_none_or(|wanted| name.namespace == wanted)
                && world
                    .pods
                    .get(name)
                    .is_some_and(|pod| self.scope.selects(&pod.labels))
        };
        trials::predicted(world, endpoints, &ports, self.timeout, |from, to| {
            is_one(&senders, from)
                && is_one(&receivers, to)
                && (!self.scope.is_narrow() || is_meant(from) || is_meant(to))
        })
    }
}

fn probed_from(trial: &Trial, outcome: &Result<Outcome, ProbeError>) -> Probed {
    let arrived = outcome.as_ref().ok().and_then(Outcome::arrived);
    let found = match outcome {
        Ok(Outcome::Reached) => "reached".to_owned(),
        Ok(Outcome::Refused) => "refused by the other end".to_owned(),
        Ok(Outcome::TimedOut) => "timed out".to_owned(),
        Ok(Outcome::Unreachable(why)) => format!("not delivered: {why}"),
        Err(error) => format!("not tried: {error}"),
    };
    Probed {
        hit: arrived == Some(trial.allow),
        from: trial.from.to_string(),
        source: trial.probe.source,
        to: trial.to.to_string(),
        destination: trial.probe.destination.ip(),
        protocol: trial.probe.protocol,
        port: trial.probe.destination.port(),
        expected: said(trial.allow),
        found,
        dropped: None,
    }
}

fn line(one: &Probed) -> String {
    let end = |name: &str, address: IpAddr| match name.strip_prefix("ip:") {
        Some(address) => address.to_owned(),
        None => format!("{name} ({address})"),
    };
    let lost = match (one.hit || one.expected == "denied", &one.dropped) {
        (true, _) => String::new(),
        (false, Some(reason)) => format!("; dropped by netpold: {reason}"),
        (false, None) => "; lost between the two, not by netpold".to_owned(),
    };
    let line = format!(
        "{} {} -> {} {}/{}: expected {}, {}{lost}",
        if one.hit { "PASS" } else { "FAIL" },
        end(&one.from, one.source),
        end(&one.to, one.destination),
        one.port,
        one.protocol,
        one.expected,
        one.found
    );
    printable(&line).into_owned()
}

/// Why netpold has dropped what since then, by source, destination, protocol and destination port.
async fn drops(
    client: &Client,
    since: jiff::Timestamp,
) -> anyhow::Result<BTreeMap<(IpAddr, IpAddr, Protocol, u16), String>> {
    let filter = Filter {
        verdicts: vec![Verdict::Dropped],
        ..Filter::default()
    };
    let mut lines = client.observe(&filter, KEPT, false).await?;
    let mut drops = BTreeMap::new();
    while let Some(found) = lines.next().await? {
        let Line::Flow(flow) = found else {
            continue;
        };
        if flow.time < since {
            continue;
        }
        if let Some((key, reason)) = dropped(&flow) {
            drops.insert(key, reason);
        }
    }
    Ok(drops)
}

fn dropped(flow: &Flow) -> Option<((IpAddr, IpAddr, Protocol, u16), String)> {
    let ip = flow.ip.as_ref()?;
    let (protocol, ports) = flow.l4.as_ref()?.ports();
    let (_, port) = ports?;
    let reason = flow.extensions.as_ref()?.value.reason.clone();
    Some((
        (ip.source, ip.destination, protocol.parse().ok()?, port),
        reason,
    ))
}

/// `8080`, `53/UDP`.
fn port(text: &str) -> Result<(Protocol, u16), String> {
    text.parse::<PortReference>()?.number()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn ports_are_read_with_their_protocol() {
        assert_eq!(port("8080").unwrap(), (Protocol::Tcp, 8080));
        assert_eq!(port("53/udp").unwrap(), (Protocol::Udp, 53));
        for text in ["", "x", "70000", "53/ICMP", "/UDP"] {
            assert!(port(text).is_err(), "{text}");
        }
    }
}
