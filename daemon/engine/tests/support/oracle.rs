//! The naive oracle: NetworkPolicy as the API's text has it, one connection between two
//! addresses at a time. It shares the input's types with the engine and nothing else: labels,
//! blocks and ports are matched here again, bit by bit, as slowly as it likes.

use std::net::IpAddr;

use ipnet::IpNet;
use netpol_engine::labels::{Labels, Operator, Selector};
use netpol_engine::policy::{
    Action, Direction, Namespaces, Peer, Policy, Ports, Protocol, Rule, Tier,
};
use netpol_engine::world::{Place, Pod, World};

/// May `from` open a connection to `port` of `to`?
pub fn allows(world: &World, from: IpAddr, to: IpAddr, protocol: Protocol, port: u16) -> bool {
    side(world, Direction::Egress, from, to, to, protocol, port)
        && side(world, Direction::Ingress, to, from, to, protocol, port)
}

fn side(
    world: &World,
    direction: Direction,
    own: IpAddr,
    peer: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    port: u16,
) -> bool {
    // The host's own side, external Pods and strangers: nothing is enforced.
    let Some((namespace, pod)) = holder(world, own) else {
        return true;
    };
    if pod.place == Place::External {
        return true;
    }
    // "A Pod cannot block access to itself."
    if pod.addresses.contains(&peer) {
        return true;
    }
    let mut policies = Vec::new();
    for policy in world.policies.values() {
        let in_force = match direction {
            Direction::Ingress => policy.ingress.is_some(),
            Direction::Egress => policy.egress.is_some(),
        };
        if in_force && policy.name.namespace == namespace && selects(&policy.subject, &pod.labels) {
            policies.push(policy);
        }
    }
    if policies.is_empty() {
        return true;
    }
    // "Traffic to and from the node where a Pod is running is always allowed."
    let always = match direction {
        Direction::Ingress => world.settings.host_ingress,
        Direction::Egress => world.settings.host_egress,
    };
    if is_host(world, peer) && always {
        return true;
    }
    let holds = |rule: &Rule| {
        (rule.peers.is_empty()
            || rule
                .peers
                .iter()
                .any(|entry| peer_matches(world, entry, peer)))
            && ports_match(world, rule, destination, protocol, port)
    };
    if let Some(verdict) = ordered(&policies, Tier::Admin, direction, &holds) {
        return verdict;
    }
    let middle: Vec<&Policy> = of_tier(&policies, Tier::NetworkPolicy);
    if !middle.is_empty() {
        // "The union of what those policies allow."
        return middle
            .iter()
            .any(|policy| rules(policy, direction).iter().any(&holds));
    }
    ordered(&policies, Tier::Baseline, direction, &holds).unwrap_or(true)
}

fn of_tier<'a>(policies: &[&'a Policy], tier: Tier) -> Vec<&'a Policy> {
    let mut found: Vec<&Policy> = policies
        .iter()
        .copied()
        .filter(|p| p.tier == tier)
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn rules(policy: &Policy, direction: Direction) -> &[Rule] {
    match direction {
        Direction::Ingress => policy.ingress.as_deref().unwrap_or(&[]),
        Direction::Egress => policy.egress.as_deref().unwrap_or(&[]),
    }
}

fn ordered(
    policies: &[&Policy],
    tier: Tier,
    direction: Direction,
    holds: &dyn Fn(&Rule) -> bool,
) -> Option<bool> {
    for policy in of_tier(policies, tier) {
        for rule in rules(policy, direction) {
            if holds(rule) {
                return match rule.action {
                    Action::Allow => Some(true),
                    Action::Deny => Some(false),
                    Action::Pass => None,
                };
            }
        }
    }
    None
}

fn is_host(world: &World, address: IpAddr) -> bool {
    world.host.contains(&address)
        || world
            .pods
            .values()
            .any(|pod| pod.place == Place::HostNetwork && pod.addresses.contains(&address))
}

fn holder(world: &World, address: IpAddr) -> Option<(&str, &Pod)> {
    if is_host(world, address) {
        return None;
    }
    for (name, pod) in &world.pods {
        if pod.addresses.contains(&address) {
            return Some((&name.namespace, pod));
        }
    }
    None
}

fn selects(selector: &Selector, labels: &Labels) -> bool {
    for requirement in selector.requirements() {
        let value = labels.get(&requirement.key);
        let fulfilled = match (&requirement.operator, value) {
            (Operator::In(values), Some(value)) => values.iter().any(|one| one == value),
            (Operator::In(_), None) => false,
            (Operator::NotIn(values), Some(value)) => values.iter().all(|one| one != value),
            (Operator::NotIn(_), None) => true,
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
        };
        if !fulfilled {
            return false;
        }
    }
    true
}

fn peer_matches(world: &World, entry: &Peer, peer: IpAddr) -> bool {
    match entry {
        Peer::Block(block) => {
            inside(&block.cidr, peer) && !block.except.iter().any(|hole| inside(hole, peer))
        }
        Peer::Pods(wanted) => {
            let Some((namespace, pod)) = holder(world, peer) else {
                return false;
            };
            let there = match &wanted.namespaces {
                Namespaces::Own(own) => own == namespace,
                Namespaces::Matching(selector) => {
                    let mut labels = world.namespaces.get(namespace).cloned().unwrap_or_default();
                    labels.insert("kubernetes.io/metadata.name".into(), namespace.into());
                    selects(selector, &labels)
                }
            };
            there && selects(&wanted.pods, &pod.labels)
        }
    }
}

/// Bit by bit.
fn inside(net: &IpNet, address: IpAddr) -> bool {
    let (net_bits, bits, width) = match (net.addr(), address) {
        (IpAddr::V4(net), IpAddr::V4(one)) => {
            (u128::from(net.to_bits()), u128::from(one.to_bits()), 32)
        }
        (IpAddr::V6(net), IpAddr::V6(one)) => (net.to_bits(), one.to_bits(), 128),
        _ => return false,
    };
    (0..net.prefix_len()).all(|bit| {
        let shift = width - 1 - bit;
        (net_bits >> shift) & 1 == (bits >> shift) & 1
    })
}

fn ports_match(
    world: &World,
    rule: &Rule,
    destination: IpAddr,
    protocol: Protocol,
    port: u16,
) -> bool {
    if rule.ports.is_empty() {
        return true;
    }
    rule.ports.iter().any(|entry| {
        entry.protocol == protocol
            && match &entry.ports {
                Ports::All => true,
                Ports::Range(first, last) => *first <= port && port <= *last,
                Ports::Named(name) => {
                    let Some((_, pod)) = holder(world, destination) else {
                        return false;
                    };
                    let mut named = pod.ports.iter();
                    let first = named.find(|one| one.name == *name && one.protocol == protocol);
                    first.is_some_and(|one| one.port == port)
                }
            }
    })
}
