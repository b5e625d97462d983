//! A world of the engine's types as the objects that would make it, so that the reference can
//! read it. Tiers and actions have no form in a NetworkPolicy: [`super::tiers`] adds them again.
//! Written from the types outwards, and nothing read back: the reference never sees them.

use std::collections::BTreeSet;

use ipnet::IpNet;
use netpol_engine::labels::{Operator, Selector};
use netpol_engine::policy::{Mode, Namespaces, Peer, Policy, Ports, Protocol, Rule};
use netpol_engine::world::{Place, World};
use serde_json::{Map, Value, json};

/// Its objects, in the order of their names.
pub fn documents(world: &World) -> Vec<Value> {
    let names: BTreeSet<&String> = world.namespaces.keys().chain(&world.audited).collect();
    let namespaces = names.into_iter().map(|name| {
        let labels = world.namespaces.get(name).cloned().unwrap_or_default();
        let mode = world.audited.contains(name).then_some("audit");
        let metadata = json!({"name": name, "labels": labels, "annotations": {"netpold.io/mode": mode.unwrap_or("enforce")}});
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    });
    let pods = world.pods.iter().map(|(name, pod)| {
        let ports: Vec<Value> = pod
            .ports
            .iter()
            .map(|port| {
                let protocol = protocol(port.protocol);
                json!({"name": port.name, "containerPort": port.port, "protocol": protocol})
            })
            .collect();
        // What is known of the host stands in the world. A manifest's word of it counts only where
        // there is no other source, and would make another host's addresses this one's.
        let stated = pod.addresses.iter().filter(|_| pod.place != Place::HostNetwork);
        let addresses: Vec<Value> = stated.map(|ip| json!({"ip": ip})).collect();
        let external = pod.place == Place::External;
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name.name, "namespace": name.namespace, "labels": pod.labels,
                "annotations": if external { json!({"netpold.io/external": "true"}) } else { json!({}) },
            },
            "spec": {
                "hostNetwork": pod.place == Place::HostNetwork,
                // One port a container: what stands twice in one is refused.
                "containers": ports.iter().map(|port| json!({"name": "c", "ports": [port]})).collect::<Vec<_>>(),
            },
            "status": {"podIPs": addresses},
        })
    });
    namespaces
        .chain(pods)
        .chain(
            world
                .policies
                .values()
                .filter_map(|written| policy(written)),
        )
        .collect()
}

/// `None`: a policy that has no say in either direction, which the API does not have.
fn policy(policy: &Policy) -> Option<Value> {
    let mut types = Vec::new();
    let mut spec = Map::new();
    spec.insert("podSelector".to_owned(), selector(&policy.subject));
    for (rules, name, field, peers) in [
        (&policy.ingress, "Ingress", "ingress", "from"),
        (&policy.egress, "Egress", "egress", "to"),
    ] {
        if let Some(rules) = rules {
            types.push(name);
            let rules = rules.iter().map(|one| rule(one, peers)).collect();
            spec.insert(field.to_owned(), rules);
        }
    }
    if types.is_empty() {
        return None;
    }
    spec.insert("policyTypes".to_owned(), json!(types));
    Some(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {
            "name": policy.name.name, "namespace": policy.name.namespace,
            "annotations": if policy.mode == Mode::Audit { json!({"netpold.io/mode": "audit"}) } else { json!({}) },
        },
        "spec": spec,
    }))
}

fn rule(rule: &Rule, peers: &str) -> Value {
    let ports: Vec<Value> = rule
        .ports
        .iter()
        .map(|port| {
            let protocol = protocol(port.protocol);
            match &port.ports {
                Ports::All => json!({"protocol": protocol}),
                Ports::Range(first, last) => {
                    json!({"protocol": protocol, "port": first, "endPort": last})
                }
                Ports::Named(name) => json!({"protocol": protocol, "port": name}),
            }
        })
        .collect();
    json!({"ports": ports, peers: rule.peers.iter().map(peer).collect::<Vec<_>>()})
}

fn peer(peer: &Peer) -> Value {
    match peer {
        Peer::Block(block) => {
            json!({"ipBlock": {"cidr": block.cidr, "except": block.except.iter().map(IpNet::to_string).collect::<Vec<_>>()}})
        }
        Peer::Pods(pods) => match &pods.namespaces {
            Namespaces::Own(_) => json!({"podSelector": selector(&pods.pods)}),
            Namespaces::Matching(namespaces) => {
                json!({"podSelector": selector(&pods.pods), "namespaceSelector": selector(namespaces)})
            }
        },
    }
}

fn selector(selector: &Selector) -> Value {
    let requirements: Vec<Value> = selector
        .requirements()
        .map(|requirement| {
            let key = &requirement.key;
            match &requirement.operator {
                Operator::In(values) => json!({"key": key, "operator": "In", "values": values}),
                Operator::NotIn(values) => {
                    json!({"key": key, "operator": "NotIn", "values": values})
                }
                Operator::Exists => json!({"key": key, "operator": "Exists"}),
                Operator::DoesNotExist => json!({"key": key, "operator": "DoesNotExist"}),
            }
        })
        .collect();
    json!({"matchExpressions": requirements})
}

/// As the API spells it.
pub fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}
