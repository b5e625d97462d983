//! A policy as the YAML that a person would write: the shortest form that says the same, and
//! that the API reads without a question.
//!
//! For policies whose names, labels and ports the API accepts: what it would refuse has to be
//! kept out before.

use std::fmt::{self, Write as _};

use crate::labels::{Operator, Requirement, Selector};
use crate::policy::{Direction, Namespaces, Peer, Policy, Ports};

/// The whole document, with a final line break.
pub(super) fn document(policy: &Policy) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write(&mut text, policy);
    text
}

/// A text as a YAML scalar: plain where every reader takes it for this very text.
pub(super) fn scalar(text: &str) -> String {
    let plain = text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/'))
        && !text.ends_with('.')
        // YAML 1.1 and 1.2 have these, and letters that some take for numbers.
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n" | "inf" | "nan"
        );
    if plain {
        text.to_owned()
    } else {
        // Label values have no character that JSON and YAML would quote differently.
        format!("{text:?}")
    }
}

fn write(text: &mut String, policy: &Policy) -> fmt::Result {
    writeln!(text, "apiVersion: networking.k8s.io/v1")?;
    writeln!(text, "kind: NetworkPolicy")?;
    writeln!(text, "metadata:")?;
    writeln!(text, "  name: {}", scalar(&policy.name.name))?;
    writeln!(text, "  namespace: {}", scalar(&policy.name.namespace))?;
    writeln!(text, "spec:")?;
    selector(text, "  podSelector:", "    ", &policy.subject)?;
    for (direction, kind, key, peers) in [
        (Direction::Ingress, "Ingress", "ingress", "from"),
        (Direction::Egress, "Egress", "egress", "to"),
    ] {
        let Some(rules) = policy.rules(direction) else {
            continue;
        };
        writeln!(text, "  policyTypes: [{kind}]")?;
        writeln!(text, "  {key}:")?;
        for rule in rules {
            writeln!(text, "    - {peers}:")?;
            for wanted in &rule.peers {
                peer(text, wanted)?;
            }
            writeln!(text, "      ports:")?;
            for port in &rule.ports {
                writeln!(text, "        - protocol: {}", port.protocol)?;
                match &port.ports {
                    Ports::All => {}
                    Ports::Range(first, last) => {
                        writeln!(text, "          port: {first}")?;
                        if first != last {
                            writeln!(text, "          endPort: {last}")?;
                        }
                    }
                    Ports::Named(name) => writeln!(text, "          port: {}", scalar(name))?,
                }
            }
        }
    }
    Ok(())
}

fn peer(text: &mut String, peer: &Peer) -> fmt::Result {
    let (first, next, deep) = ("        - ", "          ", "            ");
    match peer {
        Peer::Block(block) => {
            writeln!(text, "{first}ipBlock:")?;
            writeln!(text, "{deep}cidr: {:?}", block.cidr.to_string())
        }
        Peer::Pods(pods) => {
            let start = match &pods.namespaces {
                Namespaces::Own(_) => first,
                Namespaces::Matching(namespaces) => {
                    let start = format!("{first}namespaceSelector:");
                    selector(text, &start, deep, namespaces)?;
                    if pods.pods.is_everything() {
                        return Ok(());
                    }
                    next
                }
            };
            selector(text, &format!("{start}podSelector:"), deep, &pods.pods)
        }
    }
}

/// `start` and the selector after it, its lines after `indent`.
fn selector(text: &mut String, start: &str, indent: &str, selector: &Selector) -> fmt::Result {
    if selector.is_everything() {
        return writeln!(text, "{start} {{}}");
    }
    writeln!(text, "{start}")?;
    let equal = |requirement: &Requirement| match &requirement.operator {
        Operator::In(values) if values.len() == 1 => values.first().cloned(),
        _ => None,
    };
    let (labels, expressions): (Vec<_>, Vec<_>) = selector
        .requirements()
        .partition(|requirement| equal(requirement).is_some());
    if !labels.is_empty() {
        writeln!(text, "{indent}matchLabels:")?;
        for requirement in labels {
            let value = equal(requirement).unwrap_or_default();
            let key = scalar(&requirement.key);
            writeln!(text, "{indent}  {key}: {}", scalar(&value))?;
        }
    }
    if !expressions.is_empty() {
        writeln!(text, "{indent}matchExpressions:")?;
        for requirement in expressions {
            let key = scalar(&requirement.key);
            let (operator, values) = match &requirement.operator {
                Operator::In(values) => ("In", Some(values)),
                Operator::NotIn(values) => ("NotIn", Some(values)),
                Operator::Exists => ("Exists", None),
                Operator::DoesNotExist => ("DoesNotExist", None),
            };
            write!(text, "{indent}  - {{key: {key}, operator: {operator}")?;
            if let Some(values) = values {
                let values: Vec<String> = values.iter().map(|value| scalar(value)).collect();
                write!(text, ", values: [{}]", values.join(", "))?;
            }
            writeln!(text, "}}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reader_could_take_for_something_else_is_quoted() {
        for plain in ["web", "app.kubernetes.io/name", "a-1_b", "e3", "nullable"] {
            assert_eq!(scalar(plain), plain);
        }
        for quoted in [
            "",
            "true",
            "null",
            "no",
            "y",
            "1",
            "1e3",
            "0x1",
            "1.5",
            "-",
            "On",
            "NaN",
            "2026-01-01",
        ] {
            assert_eq!(scalar(quoted), format!("\"{quoted}\""));
        }
    }
}
