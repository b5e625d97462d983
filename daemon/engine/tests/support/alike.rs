//! Does k8s-openapi read a file as the engine does? Both readings are put into one plain form,
//! field by field: names, labels, subject, rules, peers, ports, types, addresses.
//!
//! Nothing is evaluated here: two readings that mean the same by chance are still two.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use netpol_engine::labels::{Operator, Selector};
use netpol_engine::manifest::{File, Object, Value};
use netpol_engine::policy::{Namespaces, Peer, Policy, Port, Ports, Rule};

use super::reference::reading::{self, Document};
use super::reference::{self, Direction};

/// Compares the readings of an accepted file: how many objects it has, or where they differ.
pub fn compare(file: &File, text: &str) -> Result<usize, String> {
    let theirs = reading::documents(text)?;
    let ours: Vec<String> = file.documents.iter().map(ours).collect();
    let theirs: Vec<String> = theirs.iter().map(self::theirs).collect();
    if ours == theirs {
        return Ok(ours.len());
    }
    let differing = ours
        .iter()
        .zip(&theirs)
        .find(|(ours, theirs)| ours != theirs);
    Err(match differing {
        Some((ours, theirs)) => format!("the engine reads\n{ours}\nk8s-openapi reads\n{theirs}"),
        None => format!(
            "the engine reads {} objects, k8s-openapi {}",
            ours.len(),
            theirs.len()
        ),
    })
}

fn ours(object: &Object) -> String {
    let mut out = object.id().to_string();
    pairs(&mut out, "label", &object.labels);
    pairs(&mut out, "annotation", &object.annotations);
    match &object.value {
        Value::NetworkPolicy(policy) => our_policy(&mut out, policy),
        Value::Namespace { .. } => {}
        Value::Pod(pod) => {
            for port in &pod.ports {
                let _ = write!(out, "\nport {} {} {}", port.name, port.port, port.protocol);
            }
            for address in &pod.pod_ips {
                let _ = write!(out, "\naddress {address}");
            }
            let _ = write!(out, "\nhost network {}", pod.host_network);
            let _ = write!(out, "\nexternal {}", pod.external);
            let _ = write!(
                out,
                "\nnetns {:?}",
                pod.netns.as_ref().and_then(|path| path.to_str())
            );
        }
    }
    out
}

fn theirs(document: &Document) -> String {
    match document {
        Document::NetworkPolicy(policy) => {
            let mut out = metadata("NetworkPolicy", &policy.metadata, true);
            their_policy(&mut out, policy);
            out
        }
        Document::Namespace(namespace) => metadata("Namespace", &namespace.metadata, false),
        Document::Pod(pod) => {
            let mut out = metadata("Pod", &pod.metadata, true);
            for (name, port, protocol) in reference::named_ports(pod) {
                let _ = write!(out, "\nport {name} {port} {protocol}");
            }
            for address in reference::addresses(pod) {
                let _ = write!(out, "\naddress {address}");
            }
            let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network);
            let _ = write!(out, "\nhost network {}", host_network.unwrap_or(false));
            let _ = write!(out, "\nexternal {}", reference::is_external(pod));
            let annotations = pod.metadata.annotations.as_ref();
            let netns = annotations.and_then(|all| all.get("netpold.io/netns"));
            let _ = write!(out, "\nnetns {:?}", netns.map(String::as_str));
            out
        }
    }
}

fn metadata(kind: &str, metadata: &ObjectMeta, namespaced: bool) -> String {
    let name = metadata.name.as_deref().unwrap_or_default();
    let mut out = match namespaced {
        true => format!("{kind} {}/{name}", reference::namespace(metadata)),
        false => format!("{kind} {name}"),
    };
    pairs(
        &mut out,
        "label",
        metadata.labels.as_ref().unwrap_or(&BTreeMap::new()),
    );
    pairs(
        &mut out,
        "annotation",
        metadata.annotations.as_ref().unwrap_or(&BTreeMap::new()),
    );
    out
}

fn pairs(out: &mut String, what: &str, pairs: &BTreeMap<String, String>) {
    for (key, value) in pairs {
        let _ = write!(out, "\n{what} {key}={value:?}");
    }
}

fn our_policy(out: &mut String, policy: &Policy) {
    let _ = write!(out, "\nsubject {:?}", our_selector(&policy.subject));
    for (name, rules) in [("Ingress", &policy.ingress), ("Egress", &policy.egress)] {
        let Some(rules) = rules else { continue };
        let _ = write!(out, "\n{name}");
        for Rule { peers, ports, .. } in rules {
            *out += "\n  rule";
            for peer in peers {
                let _ = match peer {
                    Peer::Block(block) => {
                        write!(out, "\n    block {} except {:?}", block.cidr, block.except)
                    }
                    Peer::Pods(pods) => {
                        let namespaces = match &pods.namespaces {
                            Namespaces::Own(own) => format!("of {own}"),
                            Namespaces::Matching(selector) => {
                                format!("{:?}", our_selector(selector))
                            }
                        };
                        write!(
                            out,
                            "\n    namespaces {namespaces} pods {:?}",
                            our_selector(&pods.pods)
                        )
                    }
                };
            }
            for Port { protocol, ports } in ports {
                let _ = match ports {
                    Ports::All => write!(out, "\n    {protocol}"),
                    Ports::Range(first, last) => write!(out, "\n    {protocol} {first}-{last}"),
                    Ports::Named(name) => write!(out, "\n    {protocol} {name:?}"),
                };
            }
        }
    }
}

fn their_policy(out: &mut String, policy: &NetworkPolicy) {
    let subject = policy
        .spec
        .as_ref()
        .and_then(|spec| spec.pod_selector.as_ref());
    let _ = write!(out, "\nsubject {:?}", their_selector(subject));
    for (name, direction) in [
        ("Ingress", Direction::Ingress),
        ("Egress", Direction::Egress),
    ] {
        if !reference::affects(policy, direction) {
            continue;
        }
        let _ = write!(out, "\n{name}");
        for (peers, ports) in reference::rules(policy, direction) {
            *out += "\n  rule";
            for peer in peers {
                let _ = write!(
                    out,
                    "\n    {}",
                    their_peer(peer, reference::namespace(&policy.metadata))
                );
            }
            for port in ports {
                let _ = write!(out, "\n    {}", their_port(port));
            }
        }
    }
}

fn their_peer(peer: &NetworkPolicyPeer, own: &str) -> String {
    if let Some(block) = &peer.ip_block {
        let except: Vec<String> = block
            .except
            .iter()
            .flatten()
            .map(|one| masked(one))
            .collect();
        return format!(
            "block {} except [{}]",
            masked(&block.cidr),
            except.join(", ")
        );
    }
    let namespaces = match &peer.namespace_selector {
        None => format!("of {own}"),
        Some(selector) => format!("{:?}", their_selector(Some(selector))),
    };
    let pods = their_selector(peer.pod_selector.as_ref());
    format!("namespaces {namespaces} pods {pods:?}")
}

fn their_port(port: &NetworkPolicyPort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match (&port.port, port.end_port) {
        (None, None) => protocol.to_owned(),
        (Some(IntOrString::String(name)), None) => format!("{protocol} {name:?}"),
        (Some(IntOrString::Int(first)), last) => {
            format!("{protocol} {first}-{}", last.unwrap_or(*first))
        }
        (port, last) => format!("{protocol} {port:?} to {last:?}"),
    }
}

/// Key, operator and values of every requirement.
type Requirements<'s> = BTreeSet<(&'s str, &'s str, BTreeSet<&'s str>)>;

fn our_selector(selector: &Selector) -> Requirements<'_> {
    fn all(values: &BTreeSet<String>) -> BTreeSet<&str> {
        values.iter().map(String::as_str).collect()
    }
    selector
        .requirements()
        .map(|requirement| {
            let (operator, values) = match &requirement.operator {
                Operator::In(values) => ("In", all(values)),
                Operator::NotIn(values) => ("NotIn", all(values)),
                Operator::Exists => ("Exists", BTreeSet::new()),
                Operator::DoesNotExist => ("DoesNotExist", BTreeSet::new()),
            };
            (requirement.key.as_str(), operator, values)
        })
        .collect()
}

/// Left out it is empty.
fn their_selector(selector: Option<&LabelSelector>) -> Requirements<'_> {
    let labels = selector.and_then(|selector| selector.match_labels.as_ref());
    let labels = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str(), "In", BTreeSet::from([value.as_str()])));
    let expressions = selector.and_then(|selector| selector.match_expressions.as_ref());
    let expressions = expressions.into_iter().flatten().map(|one| {
        let values = one.values.iter().flatten().map(String::as_str).collect();
        (one.key.as_str(), one.operator.as_str(), values)
    });
    labels.chain(expressions).collect()
}

/// A block with the bits beyond its prefix length cleared.
fn masked(block: &str) -> String {
    let Some((base, length)) = block.split_once('/') else {
        return format!("{block} is no block");
    };
    let (Ok(base), Ok(length)) = (base.parse(), length.parse::<u32>()) else {
        return format!("{block} is no block");
    };
    let base: IpAddr = match base {
        IpAddr::V4(base) => {
            let mask = u32::MAX
                .checked_shl(32_u32.saturating_sub(length))
                .unwrap_or(0);
            IpAddr::V4((base.to_bits() & mask).into())
        }
        IpAddr::V6(base) => {
            let mask = u128::MAX
                .checked_shl(128_u32.saturating_sub(length))
                .unwrap_or(0);
            IpAddr::V6((base.to_bits() & mask).into())
        }
    };
    format!("{base}/{length}")
}
