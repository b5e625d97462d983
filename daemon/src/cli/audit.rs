//! `netpol audit`: what is written and means nothing.
//!
//! First form: selectors that match nobody, and port names that nobody has. A
//! finding is no error: the Pod may come yet. It is for people and for CI.

use std::io::Write;

use netpol_engine::labels::Selector;
use netpol_engine::policy::{Direction, Namespaces, ObjectName, Peer, Policy, Ports, Rule};
use netpol_engine::world::World;
use serde::Serialize;

use super::Exit;
use super::output::{Columns, Form};
use super::scope::Scope;
use super::source::Source;

/// Find selectors that match nobody, and port names that nobody has
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 1 where something is found.

Examples:
  netpol audit -A
  netpol audit --manifests ./manifests -o json")]
pub struct Audit {
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    form: Form,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    rule: &'static str,
    policy: ObjectName,
    field: String,
    message: String,
}

impl Audit {
    pub(super) fn run(&self, source: &Source, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let listing = match source.listing() {
            Ok(listing) => listing,
            Err(none) => return none.exit(),
        };
        let world = &listing.world;
        // All Namespaces, unless one is named: hygiene is not a matter of `default`.
        let meant = |name: &ObjectName| {
            let labels = listing.origins.policies.get(name);
            let labels = labels
                .map(|origin| origin.labels.clone())
                .unwrap_or_default();
            let namespace = self.scope.namespace.as_ref();
            namespace.is_none_or(|wanted| name.namespace == *wanted) && self.scope.selects(&labels)
        };
        let findings: Vec<Finding> = world
            .policies
            .iter()
            .filter(|(name, _)| meant(name))
            .flat_map(|(_, policy)| findings(world, policy))
            .collect();
        if !self.form.output.value(out, &findings)? {
            if findings.is_empty() {
                anstream::eprintln!("nothing found");
            } else {
                let mut columns = Columns::new(&["POLICY", "FIELD", "RULE", "MESSAGE"]);
                for found in &findings {
                    columns.row([
                        found.policy.to_string(),
                        found.field.clone(),
                        found.rule.to_owned(),
                        found.message.clone(),
                    ]);
                }
                columns.write(out, "")?;
            }
        }
        Ok(Exit::answer(findings.is_empty()))
    }
}

fn findings(world: &World, policy: &Policy) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut report = |rule, field: String, message: String| {
        found.push(Finding {
            rule,
            policy: policy.name.clone(),
            field,
            message,
        });
    };
    let own = Namespaces::Own(policy.name.namespace.clone());
    if !anybody(world, &own, &policy.subject, true) {
        report(
            "selects-nobody",
            "spec.podSelector".to_owned(),
            format!(
                "no Pod in the Namespace {} matches {}",
                policy.name.namespace, policy.subject
            ),
        );
    }
    for (direction, key, peers) in [
        (Direction::Ingress, "ingress", "from"),
        (Direction::Egress, "egress", "to"),
    ] {
        let rules = policy.rules(direction).unwrap_or_default();
        for (number, rule) in rules.iter().enumerate() {
            for (index, peer) in rule.peers.iter().enumerate() {
                if let Peer::Pods(pods) = peer
                    && !anybody(world, &pods.namespaces, &pods.pods, false)
                {
                    report(
                        "peer-matches-nobody",
                        format!("spec.{key}[{number}].{peers}[{index}]"),
                        "no Pod matches this peer".to_owned(),
                    );
                }
            }
            for (index, port) in rule.ports.iter().enumerate() {
                if let Ports::Named(name) = &port.ports
                    && !named(world, policy, direction, rule, name, port.protocol)
                {
                    report(
                        "port-name-unknown",
                        format!("spec.{key}[{number}].ports[{index}].port"),
                        format!(
                            "no Pod that this rule is about has a {} port named {name}",
                            port.protocol
                        ),
                    );
                }
            }
        }
    }
    found
}

/// Is there a Pod there that matches?
fn anybody(world: &World, namespaces: &Namespaces, pods: &Selector, enforced: bool) -> bool {
    world.pods.iter().any(|(name, pod)| {
        (!enforced || pod.is_enforced())
            && is_in(world, namespaces, &name.namespace)
            && pods.matches(&pod.labels)
    })
}

fn is_in(world: &World, namespaces: &Namespaces, namespace: &str) -> bool {
    match namespaces {
        Namespaces::Own(own) => own == namespace,
        Namespaces::Matching(selector) => selector.matches(&world.namespace_labels(namespace)),
    }
}

/// Does a Pod that may be the destination have a port of this name? For ingress that is
/// a Pod that the policy selects, for egress one of the rule's peers.
fn named(
    world: &World,
    policy: &Policy,
    direction: Direction,
    rule: &Rule,
    port: &str,
    protocol: netpol_engine::policy::Protocol,
) -> bool {
    world.pods.iter().any(|(name, pod)| {
        let is_destination = match direction {
            Direction::Ingress => {
                name.namespace == policy.name.namespace && policy.subject.matches(&pod.labels)
            }
            Direction::Egress => {
                rule.peers.is_empty()
                    || rule.peers.iter().any(|peer| match peer {
                        Peer::Pods(pods) => {
                            is_in(world, &pods.namespaces, &name.namespace)
                                && pods.pods.matches(&pod.labels)
                        }
                        Peer::Block(block) => pod
                            .addresses
                            .iter()
                            .any(|address| block.cidr.contains(address)),
                    })
            }
        };
        is_destination
            && pod
                .ports
                .iter()
                .any(|known| known.name == port && known.protocol == protocol)
    })
}
