//! What is in force, written as Kubernetes objects again, for `get -o json|yaml`.
//!
//! The spec is made from the parsed policy, not from the file's text: it shows
//! what was understood.

use netpol_engine::labels::{Labels, Operator, Selector};
use netpol_engine::leave;
use netpol_engine::policy::{Direction, Namespaces, ObjectName, Peer, Policy, Port, Ports, Rule};
use netpol_engine::world::{Place, Pod};
use serde_json::{Map, Value, json};

use crate::origin::Origin;

/// A `v1 List` of them.
#[must_use]
pub fn list(items: Vec<Value>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "List",
        "metadata": {"resourceVersion": ""},
        "items": items,
    })
}

/// A NetworkPolicy.
#[must_use]
pub fn network_policy(name: &ObjectName, policy: &Policy, origin: Option<&Origin>) -> Value {
    let mut spec = Map::new();
    spec.insert("podSelector".to_owned(), selector(&policy.subject));
    let mut types = Vec::new();
    for (direction, kind, key, peers) in [
        (Direction::Ingress, "Ingress", "ingress", "from"),
        (Direction::Egress, "Egress", "egress", "to"),
    ] {
        if let Some(rules) = policy.rules(direction) {
            types.push(kind);
            if !rules.is_empty() {
                let rules = rules.iter().map(|found| rule(found, peers)).collect();
                spec.insert(key.to_owned(), Value::Array(rules));
            }
        }
    }
    spec.insert("policyTypes".to_owned(), json!(types));
    let labels = origin.map(|origin| &origin.labels);
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(Some(&name.namespace), &name.name, labels, origin),
        "spec": spec,
    })
}

/// A Pod.
#[must_use]
pub fn pod(name: &ObjectName, pod: &Pod, origin: Option<&Origin>) -> Value {
    let ips: Vec<Value> = pod
        .addresses
        .iter()
        .map(|address| json!({"ip": address}))
        .collect();
    let ports: Vec<Value> = pod
        .ports
        .iter()
        .map(|port| {
            json!({
                "name": port.name,
                "containerPort": port.port,
                "protocol": port.protocol,
            })
        })
        .collect();
    let mut spec = json!({"containers": [{"name": name.name, "ports": ports}]});
    let mut metadata = metadata(Some(&name.namespace), &name.name, Some(&pod.labels), origin);
    match pod.place {
        Place::HostNetwork => spec["hostNetwork"] = json!(true),
        Place::External => {
            metadata["annotations"] = json!({netpol_engine::manifest::ANNOTATION_EXTERNAL: "true"});
        }
        Place::Local | Place::Attached(_) => {}
    }
    if !pod.leaves.is_empty() {
        let leaves: Vec<String> = pod.leaves.iter().map(leave::show).collect();
        metadata["annotations"][leave::ADDRESSES] = json!(leaves.join(","));
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": spec,
        "status": {
            "phase": "Running",
            "podIP": pod.addresses.first(),
            "podIPs": ips,
        },
    })
}

/// A Namespace.
#[must_use]
pub fn namespace(name: &str, labels: &Labels, origin: Option<&Origin>) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": metadata(None, name, Some(labels), origin),
        "status": {"phase": "Active"},
    })
}

fn metadata(
    namespace: Option<&str>,
    name: &str,
    labels: Option<&Labels>,
    origin: Option<&Origin>,
) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(name));
    if let Some(namespace) = namespace {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    if let Some(labels) = labels.filter(|labels| !labels.is_empty()) {
        metadata.insert("labels".to_owned(), json!(labels));
    }
    if let Some(since) = origin.and_then(|origin| origin.since) {
        // The API's times have no fractions.
        let text = format!("{since:.0}");
        metadata.insert("creationTimestamp".to_owned(), json!(text));
    }
    Value::Object(metadata)
}

fn rule(rule: &Rule, peers: &str) -> Value {
    let mut written = Map::new();
    if !rule.peers.is_empty() {
        let list = rule.peers.iter().map(peer).collect();
        written.insert(peers.to_owned(), Value::Array(list));
    }
    if !rule.ports.is_empty() {
        let list = rule.ports.iter().map(port).collect();
        written.insert("ports".to_owned(), Value::Array(list));
    }
    Value::Object(written)
}

fn peer(peer: &Peer) -> Value {
    match peer {
        Peer::Block(block) => {
            let mut written = json!({"cidr": block.cidr});
            if !block.except.is_empty() {
                written["except"] = json!(block.except);
            }
            json!({"ipBlock": written})
        }
        Peer::Pods(pods) => match &pods.namespaces {
            Namespaces::Own(_) => json!({"podSelector": selector(&pods.pods)}),
            Namespaces::Matching(namespaces) if pods.pods.is_everything() => {
                json!({"namespaceSelector": selector(namespaces)})
            }
            Namespaces::Matching(namespaces) => json!({
                "namespaceSelector": selector(namespaces),
                "podSelector": selector(&pods.pods),
            }),
        },
    }
}

fn port(port: &Port) -> Value {
    let mut written = json!({"protocol": port.protocol});
    match &port.ports {
        Ports::All => {}
        Ports::Range(first, last) => {
            written["port"] = json!(first);
            if first != last {
                written["endPort"] = json!(last);
            }
        }
        Ports::Named(name) => written["port"] = json!(name),
    }
    written
}

fn selector(selector: &Selector) -> Value {
    let mut labels = Map::new();
    let mut expressions = Vec::new();
    for requirement in selector.requirements() {
        let key = &requirement.key;
        let (operator, values) = match &requirement.operator {
            Operator::In(values) => {
                let only = values.iter().next().filter(|_| values.len() == 1);
                if let Some(only) = only.filter(|_| !labels.contains_key(key)) {
                    labels.insert(key.clone(), json!(only));
                    continue;
                }
                ("In", Some(values))
            }
            Operator::NotIn(values) => ("NotIn", Some(values)),
            Operator::Exists => ("Exists", None),
            Operator::DoesNotExist => ("DoesNotExist", None),
        };
        let mut expression = json!({"key": key, "operator": operator});
        if let Some(values) = values {
            expression["values"] = json!(values);
        }
        expressions.push(expression);
    }
    let mut written = Map::new();
    if !labels.is_empty() {
        written.insert("matchLabels".to_owned(), Value::Object(labels));
    }
    if !expressions.is_empty() {
        written.insert("matchExpressions".to_owned(), Value::Array(expressions));
    }
    Value::Object(written)
}
