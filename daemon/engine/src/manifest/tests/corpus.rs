//! The conformance corpus: every case reads clean, every invalid one names its object,
//! and k8s-openapi reads the accepted ones alike.

use std::path::{Path, PathBuf};

use k8s_openapi::api::networking::v1 as api;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize as _;

use super::*;
use crate::labels::{Requirement, Selector};
use crate::policy::{Action, IpBlock, Namespaces, Peer, PodPeer, Port, Ports, Rule, Tier};

fn manifests(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance");
    let mut cases: Vec<_> = std::fs::read_dir(root.join(folder))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path().join("manifests.yaml");
            let text = std::fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "{folder}");
    cases
}

#[test]
fn every_case_is_accepted() {
    for (path, text) in manifests("cases") {
        let file = parse(path.to_str().unwrap(), &text);
        let errors: Vec<_> = file.diagnostics.iter().filter(|d| d.is_error()).collect();
        assert!(errors.is_empty(), "{errors:?}");
        assert!(
            assemble([&file]).diagnostics.is_empty(),
            "{}",
            path.display()
        );
    }
}

#[test]
fn every_invalid_case_names_its_object_and_keeps_the_others() {
    for (path, text) in manifests("invalid") {
        let file = parse(path.to_str().unwrap(), &text);
        assert!(!file.is_accepted(), "{}", path.display());
        for error in &file.diagnostics {
            assert_eq!(error.kind.as_deref(), Some("NetworkPolicy"), "{error}");
            assert_eq!(error.namespace.as_deref(), Some("ns1"), "{error}");
            assert_eq!(error.name.as_deref(), Some("bad"), "{error}");
        }
        let names: Vec<_> = file.documents.iter().map(|o| o.id().to_string()).collect();
        assert_eq!(
            names,
            [
                "Namespace ns1",
                "Pod ns1/a",
                "Pod ns1/b",
                "NetworkPolicy ns1/good"
            ]
        );
    }
}

fn selector(from: &LabelSelector) -> Selector {
    let labels = from.match_labels.iter().flatten();
    let labels = labels.map(|(key, value)| Requirement::equals(key, value));
    let expressions = from.match_expressions.iter().flatten().map(|expression| {
        let values = || expression.values.iter().flatten().cloned().collect();
        Requirement {
            key: expression.key.clone(),
            operator: match expression.operator.as_str() {
                "In" => crate::labels::Operator::In(values()),
                "NotIn" => crate::labels::Operator::NotIn(values()),
                "Exists" => crate::labels::Operator::Exists,
                "DoesNotExist" => crate::labels::Operator::DoesNotExist,
                other => panic!("{other}"),
            },
        }
    });
    Selector::new(labels.chain(expressions))
}

fn peer(from: &api::NetworkPolicyPeer, namespace: &str) -> Peer {
    if let Some(block) = &from.ip_block {
        return Peer::Block(IpBlock {
            cidr: block.cidr.parse::<ipnet::IpNet>().unwrap().trunc(),
            except: block
                .except
                .iter()
                .flatten()
                .map(|e| e.parse().unwrap())
                .collect(),
        });
    }
    Peer::Pods(PodPeer {
        namespaces: match &from.namespace_selector {
            None => Namespaces::Own(namespace.to_owned()),
            Some(from) => Namespaces::Matching(selector(from)),
        },
        pods: from.pod_selector.as_ref().map(selector).unwrap_or_default(),
    })
}

fn port(from: &api::NetworkPolicyPort) -> Port {
    Port {
        protocol: from.protocol.as_deref().unwrap_or("TCP").parse().unwrap(),
        ports: match &from.port {
            None => Ports::All,
            Some(IntOrString::String(name)) => Ports::Named(name.clone()),
            Some(IntOrString::Int(first)) => Ports::Range(
                u16::try_from(*first).unwrap(),
                u16::try_from(from.end_port.unwrap_or(*first)).unwrap(),
            ),
        },
    }
}

fn rule(
    peers: Option<&Vec<api::NetworkPolicyPeer>>,
    ports: Option<&Vec<api::NetworkPolicyPort>>,
    namespace: &str,
) -> Rule {
    Rule {
        action: Action::Allow,
        peers: peers
            .into_iter()
            .flatten()
            .map(|from| peer(from, namespace))
            .collect(),
        ports: ports.into_iter().flatten().map(port).collect(),
    }
}

/// What the public types make of a policy, defaults by hand.
fn from_public_types(from: &api::NetworkPolicy) -> Policy {
    let namespace = from.metadata.namespace.as_deref().unwrap_or("default");
    let spec = from.spec.clone().unwrap_or_default();
    let ingress = spec.ingress.iter().flatten();
    let ingress: Vec<_> = ingress
        .map(|r| rule(r.from.as_ref(), r.ports.as_ref(), namespace))
        .collect();
    let egress = spec.egress.iter().flatten();
    let egress: Vec<_> = egress
        .map(|r| rule(r.to.as_ref(), r.ports.as_ref(), namespace))
        .collect();
    let types = spec.policy_types.unwrap_or_default();
    let has = |name: &str| types.iter().any(|t| t == name);
    let says_ingress = types.is_empty() || has("Ingress");
    let says_egress = has("Egress") || (types.is_empty() && !egress.is_empty());
    Policy {
        name: ObjectName::new(namespace, from.metadata.name.as_deref().unwrap()),
        tier: Tier::NetworkPolicy,
        subject: spec.pod_selector.as_ref().map(selector).unwrap_or_default(),
        ingress: says_ingress.then_some(ingress),
        egress: says_egress.then_some(egress),
    }
}

#[test]
fn the_public_types_read_the_same() {
    let mut compared = 0;
    for (path, text) in manifests("cases") {
        let file = parse(path.to_str().unwrap(), &text);
        let ours = file
            .documents
            .iter()
            .filter_map(|object| match &object.value {
                Value::NetworkPolicy(policy) => Some(policy),
                _ => None,
            });
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).unwrap();
        let theirs = documents
            .into_iter()
            .filter(|document| document["kind"] == "NetworkPolicy")
            .map(|document| from_public_types(&api::NetworkPolicy::deserialize(document).unwrap()));
        let (ours, theirs): (Vec<_>, Vec<_>) = (ours.cloned().collect(), theirs.collect());
        assert_eq!(ours, theirs, "{}", path.display());
        compared += ours.len();
    }
    assert!(compared > 100, "{compared}");
}
