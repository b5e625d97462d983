//! `netpol explain`: the verdict as a person would explain it.
//!
//! The verdict itself is [`evaluate`]'s. What stands beside it (which rule came
//! closest, and why it missed) is worked out here from the same policies and never
//! changes it.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::IpAddr;

use netpol_engine::evaluate::{self, Party, Side};
use netpol_engine::labels::Labels;
use netpol_engine::policy::{
    Direction, Namespaces, ObjectName, Peer, Policy, Port, Ports, Protocol, Rule,
};
use netpol_engine::world::{Pod, World};
use serde::Serialize;

use super::Exit;
use super::output::Form;
use super::source::Source;
use super::verdict::{Connection, word};
use crate::printable::printable;

/// Explain why a connection is allowed or denied
///
/// Which policies select each end, which rule allows it, and where none does, what
/// each rule asks for that this connection does not have.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0 where it is allowed, 1 where it is denied.

Examples:
  netpol explain --from payments/api-server --to payments/postgres-primary --port 5432
  netpol explain --manifests ./manifests --from a/b --to ip:192.0.2.1 --port 443")]
pub struct Explain {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    form: Form,
}

/// What is said, in a form for programs.
#[derive(Debug, Serialize)]
struct Explanation {
    allowed: bool,
    egress: End,
    ingress: End,
}

/// What is said of one end.
#[derive(Debug, Serialize)]
struct End {
    verdict: Side,
    /// Rules of the isolating policies that do not hold, those that came closest first.
    missed: Vec<Missed>,
}

/// One rule that does not hold.
#[derive(Debug, Serialize)]
struct Missed {
    policy: ObjectName,
    rule: usize,
    /// The peer is right, so that just the port is wrong.
    peer_matches: bool,
    /// The port is right, so that just the peer is wrong.
    port_matches: bool,
}

/// One end, as rules look at it.
struct Seen<'a> {
    name: Option<&'a ObjectName>,
    pod: Option<&'a Pod>,
    namespace: Labels,
    addresses: BTreeSet<IpAddr>,
}

impl<'a> Seen<'a> {
    fn of(world: &'a World, party: &Party) -> Self {
        let found = match party {
            Party::Pod(name) => world.pods.get_key_value(name),
            Party::Address(address) => world
                .pods
                .iter()
                .find(|(_, pod)| pod.addresses.contains(address)),
        };
        Self {
            name: found.map(|(name, _)| name),
            pod: found.map(|(_, pod)| pod),
            namespace: found
                .map(|(name, _)| world.namespace_labels(&name.namespace))
                .unwrap_or_default(),
            addresses: match party {
                Party::Address(address) => [*address].into(),
                Party::Pod(_) => found
                    .map(|(_, pod)| pod.addresses.clone())
                    .unwrap_or_default(),
            },
        }
    }

    fn is(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Block(block) => self.addresses.iter().any(|address| {
                block.cidr.contains(address)
                    && !block.except.iter().any(|except| except.contains(address))
            }),
            Peer::Pods(pods) => match (self.name, self.pod) {
                (Some(name), Some(pod)) => {
                    (match &pods.namespaces {
                        Namespaces::Own(own) => name.namespace == *own,
                        Namespaces::Matching(selector) => selector.matches(&self.namespace),
                    }) && pods.pods.matches(&pod.labels)
                }
                _ => false,
            },
        }
    }

    /// Is this port of ours meant?
    fn has(&self, port: &Port, protocol: Protocol, number: u16) -> bool {
        port.protocol == protocol
            && match &port.ports {
                Ports::All => true,
                Ports::Range(first, last) => (*first..=*last).contains(&number),
                Ports::Named(name) => self.pod.is_some_and(|pod| {
                    pod.ports.iter().any(|known| {
                        known.name == *name && known.port == number && known.protocol == protocol
                    })
                }),
            }
    }
}

impl Explain {
    pub(super) fn run(&self, source: &Source, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let listing = match source.listing() {
            Ok(listing) => listing,
            Err(none) => return none.exit(),
        };
        let world = &listing.world;
        let Connection { from, to, port } = &self.connection;
        let verdict = evaluate::evaluate(world, from, to, port.protocol, port.port)?;
        let (source, destination) = (Seen::of(world, from), Seen::of(world, to));
        let missed = |side: &Side, direction, peer: &Seen| {
            missed(
                world,
                side,
                direction,
                peer,
                &destination,
                port.protocol,
                port.port,
            )
        };
        let explanation = Explanation {
            allowed: verdict.allowed,
            egress: End {
                missed: missed(&verdict.egress, Direction::Egress, &destination),
                verdict: verdict.egress,
            },
            ingress: End {
                missed: missed(&verdict.ingress, Direction::Ingress, &source),
                verdict: verdict.ingress,
            },
        };
        if !self.form.output.value(out, &explanation)? {
            writeln!(
                out,
                "{} -> {}, {} {}: {}\n",
                printable(&from.to_string()),
                printable(&to.to_string()),
                port.protocol,
                port.port,
                word(explanation.allowed)
            )?;
            tell(out, world, from, to, Direction::Egress, &explanation.egress)?;
            writeln!(out)?;
            tell(
                out,
                world,
                to,
                from,
                Direction::Ingress,
                &explanation.ingress,
            )?;
        }
        Ok(Exit::answer(explanation.allowed))
    }
}

fn missed(
    world: &World,
    side: &Side,
    direction: Direction,
    peer: &Seen,
    destination: &Seen,
    protocol: Protocol,
    number: u16,
) -> Vec<Missed> {
    if side.allowed {
        return Vec::new();
    }
    let mut all: Vec<Missed> = side
        .isolated_by
        .iter()
        .filter_map(|name| world.policies.get(name))
        .flat_map(|policy| {
            let rules = policy.rules(direction).unwrap_or_default();
            rules.iter().enumerate().map(move |(index, rule)| Missed {
                policy: policy.name.clone(),
                rule: index,
                peer_matches: rule.peers.is_empty()
                    || rule.peers.iter().any(|wanted| peer.is(wanted)),
                port_matches: rule.ports.is_empty()
                    || rule
                        .ports
                        .iter()
                        .any(|port| destination.has(port, protocol, number)),
            })
        })
        .collect();
    all.sort_by_key(|rule| std::cmp::Reverse((rule.peer_matches, rule.port_matches)));
    all
}

fn tell(
    out: &mut dyn Write,
    world: &World,
    party: &Party,
    peer: &Party,
    direction: Direction,
    end: &End,
) -> std::io::Result<()> {
    let (title, verb) = match direction {
        Direction::Egress => ("Egress of", "to"),
        Direction::Ingress => ("Ingress of", "from"),
    };
    let (party, peer) = (party.to_string(), peer.to_string());
    let (party, peer) = (printable(&party), printable(&peer));
    let side = &end.verdict;
    writeln!(out, "{title} {party}: {}", word(side.allowed))?;
    if side.isolated_by.is_empty() {
        return writeln!(out, "  {}.", side.reason.text());
    }
    for name in &side.isolated_by {
        let selector = world.policies.get(name).map(selector).unwrap_or_default();
        writeln!(
            out,
            "  {} selects it ({}).",
            printable(&name.to_string()),
            printable(&selector)
        )?;
    }
    if side.allowed {
        for by in &side.by {
            if let Some(rule) = by.rule {
                writeln!(
                    out,
                    "  Rule {rule} of {} allows it.",
                    printable(&by.policy.to_string())
                )?;
            }
        }
        if side.by.is_empty() {
            writeln!(out, "  All the same: {}.", side.reason.text())?;
        }
        return Ok(());
    }
    if end.missed.is_empty() {
        return writeln!(
            out,
            "  None of them has a rule: nothing {verb} anybody is allowed."
        );
    }
    for missed in &end.missed {
        let rule = world
            .policies
            .get(&missed.policy)
            .and_then(|policy| policy.rules(direction)?.get(missed.rule));
        let Some(rule) = rule else { continue };
        let why = match (missed.peer_matches, missed.port_matches) {
            (true, false) => format!("the peer is right, but it is for {}", ports(rule)),
            (false, true) => format!("the port is right, but it is {verb} {}", peers(rule)),
            _ => format!("it is {verb} {}, and for {}", peers(rule), ports(rule)),
        };
        writeln!(
            out,
            "  Rule {} of {} misses: {}.",
            missed.rule,
            printable(&missed.policy.to_string()),
            printable(&why)
        )?;
    }
    match direction {
        Direction::Egress => writeln!(out, "  No rule lets it reach {peer}."),
        Direction::Ingress => writeln!(out, "  No rule lets {peer} in."),
    }
}

fn selector(policy: &Policy) -> String {
    if policy.subject.is_everything() {
        format!("every Pod of {}", policy.name.namespace)
    } else {
        policy.subject.to_string()
    }
}

fn ports(rule: &Rule) -> String {
    let ports: Vec<String> = rule
        .ports
        .iter()
        .map(|port| match &port.ports {
            Ports::All => format!("every port of {}", port.protocol),
            Ports::Range(first, last) if first == last => format!("{first}/{}", port.protocol),
            Ports::Range(first, last) => format!("{first}-{last}/{}", port.protocol),
            Ports::Named(name) => format!("the port named {name}/{}", port.protocol),
        })
        .collect();
    if ports.is_empty() {
        "every port".to_owned()
    } else {
        ports.join(", ")
    }
}

fn peers(rule: &Rule) -> String {
    let peers: Vec<String> = rule
        .peers
        .iter()
        .map(|peer| match peer {
            Peer::Block(block) if block.except.is_empty() => block.cidr.to_string(),
            Peer::Block(block) => {
                let except: Vec<String> = block.except.iter().map(ToString::to_string).collect();
                format!("{} except {}", block.cidr, except.join(", "))
            }
            Peer::Pods(pods) => {
                let place = match &pods.namespaces {
                    Namespaces::Own(own) => format!("the Namespace {own}"),
                    Namespaces::Matching(selector) if selector.is_everything() => {
                        "any Namespace".to_owned()
                    }
                    Namespaces::Matching(selector) => format!("Namespaces with {selector}"),
                };
                if pods.pods.is_everything() {
                    format!("any Pod in {place}")
                } else {
                    format!("Pods with {} in {place}", pods.pods)
                }
            }
        })
        .collect();
    if peers.is_empty() {
        "anybody".to_owned()
    } else {
        peers.join(", or ")
    }
}
