//! `port-name-unknown`, `port-name-protocol`: a port by a name that no destination in question
//! has, or has for another protocol. Such an entry opens nothing.

use std::collections::BTreeSet;

use super::Found;
use crate::lint::ground::{Ground, RuleAt};
use crate::lint::words;
use crate::policy::{Direction, Peer, Port, Ports, Protocol};
use crate::spelling;
use crate::world::{NamedPort, Pod};

/// Names that no Pod has.
pub(super) fn unknown<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    each(ground, |name, protocol, ports| {
        if ports.iter().any(|port| port.name == name) {
            return None;
        }
        let names: BTreeSet<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let help = match spelling::nearest(name, &names) {
            Some(meant) => format!("there is a port `{meant}`: is that meant?"),
            None if names.is_empty() => {
                "none of them names its ports: write the number, or name it in `containerPort`s or in \
                 the label netpold.io/ports"
                    .to_owned()
            }
            None => format!("their ports are {}", words::list(shown(ports))),
        };
        let message = format!("no Pod in question has a {protocol} port named `{name}`");
        Some(("port", message, help))
    })
}

/// Names with another protocol.
pub(super) fn protocol<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    each(ground, |name, protocol, ports| {
        let other = ports.iter().find(|port| port.name == name)?;
        if ports
            .iter()
            .any(|port| port.name == name && port.protocol == protocol)
        {
            return None;
        }
        Some((
            "protocol",
            format!(
                "the port `{name}` is {}/{} at the Pods in question, not {protocol}",
                other.port, other.protocol
            ),
            format!("write `protocol: {}`", other.protocol),
        ))
    })
}

fn shown<'p>(ports: &[&'p NamedPort]) -> BTreeSet<String> {
    let text = |port: &&'p NamedPort| format!("{}={}/{}", port.name, port.port, port.protocol);
    ports.iter().map(text).collect()
}

type Judged = Option<(&'static str, String, String)>;

/// Asks about every port by name, with all named ports that its destinations have. A rule
/// without a destination among the Pods is another rule's business.
fn each<'w>(
    ground: &Ground<'w>,
    find: impl Fn(&str, Protocol, &[&NamedPort]) -> Judged,
) -> Vec<Found<'w>> {
    let mut found = Vec::new();
    for at in ground.rules() {
        let is_named = |port: &Port| matches!(port.ports, Ports::Named(_));
        if !at.rule.ports.iter().any(is_named) {
            continue;
        }
        let destinations = destinations(ground, at);
        if destinations.is_empty() {
            continue;
        }
        let ports: BTreeSet<&NamedPort> = destinations.iter().flat_map(|pod| &pod.ports).collect();
        let ports: Vec<&NamedPort> = ports.into_iter().collect();
        for (number, port) in at.rule.ports.iter().enumerate() {
            let Ports::Named(name) = &port.ports else {
                continue;
            };
            if let Some((below, message, help)) = find(name, port.protocol, &ports) {
                found.push(Found {
                    policy: at.policy,
                    field: format!("{}.ports[{number}].{below}", at.field()),
                    message,
                    help,
                });
            }
        }
    }
    found
}

/// The Pods at which a rule's names of ports are looked up: those that the policy selects, or
/// for egress the rule's peers.
fn destinations<'w>(ground: &Ground<'w>, at: RuleAt<'w>) -> Vec<&'w Pod> {
    let pods_of = |groups: Vec<usize>| -> Vec<&'w Pod> {
        groups
            .into_iter()
            .flat_map(|group| ground.group(group).pods.iter().map(|(_, pod)| *pod))
            .collect()
    };
    match at.side.direction {
        Direction::Ingress => pods_of(ground.selected(at.policy)),
        Direction::Egress if at.rule.peers.is_empty() => {
            pods_of((0..ground.groups.all.len()).collect())
        }
        Direction::Egress => {
            let mut pods = Vec::new();
            for peer in &at.rule.peers {
                pods.extend(pods_of(ground.peers(peer)));
                if let Peer::Block(block) = peer {
                    let names = ground.covered(block, usize::MAX);
                    pods.extend(names.into_iter().map(|name| &ground.world.pods[name]));
                }
            }
            pods
        }
    }
}
