//! Lints in random worlds: advice that is followed changes no verdict.
#![allow(clippy::unwrap_used)]

mod support;

use netpol_engine::evaluate::{EndpointSpec, evaluate};
use netpol_engine::lint::{Census, Finding, Scope, lint};
use netpol_engine::policy::{Protocol, Rule};
use netpol_engine::world::World;
use proptest::prelude::*;

use support::worlds;

/// The rule that a field names, if it is one: direction's list and index.
fn rule(field: &str) -> Option<(bool, usize)> {
    let (list, rest) = field.strip_prefix("spec.")?.split_once('[')?;
    let index = rest.strip_suffix(']')?.parse().ok()?;
    Some((list == "egress", index))
}

/// The world without all that changes nothing; how much that was.
fn without(world: &World, findings: &[Finding]) -> (World, usize) {
    let mut rest = world.clone();
    let idle = findings
        .iter()
        .filter(|found| found.code == "changes-nothing");
    let mut removed = 0;
    // From the last rule on, so that the others keep their numbers.
    let mut idle: Vec<&Finding> = idle.collect();
    idle.sort_by_key(|found| std::cmp::Reverse(rule(&found.field)));
    for found in idle {
        removed += 1;
        match rule(&found.field) {
            None => {
                assert_eq!(found.field, "spec");
                rest.policies.remove(&found.object.name);
            }
            Some((egress, index)) => {
                let policy = rest.policies.get_mut(&found.object.name).unwrap();
                let policy = std::sync::Arc::make_mut(policy);
                let rules: &mut Option<Vec<Rule>> = if egress {
                    &mut policy.egress
                } else {
                    &mut policy.ingress
                };
                rules.as_mut().unwrap().remove(index);
            }
        }
    }
    (rest, removed)
}

#[test]
fn what_changes_nothing_can_be_removed_all_at_once() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;

    let mut removed_in_all = 0;
    let mut runner = TestRunner::deterministic();
    for _ in 0..150 {
        let world = worlds::world().new_tree(&mut runner).unwrap().current();
        let (rest, removed) = without(&world, &lint(&world, Census::Complete, &[Scope::Policies]));
        if removed == 0 {
            continue;
        }
        removed_in_all += removed;
        let addresses = worlds::addresses(&world);
        for from in &addresses {
            for to in &addresses {
                for protocol in Protocol::ALL {
                    for port in worlds::PORTS {
                        let ask = |world| {
                            let (from, to) =
                                (EndpointSpec::Address(*from), EndpointSpec::Address(*to));
                            evaluate(world, &from, &to, protocol, port).unwrap()
                        };
                        let (before, after) = (ask(&world), ask(&rest));
                        assert_eq!(
                            before.allowed, after.allowed,
                            "{from} {to} {protocol} {port}"
                        );
                        assert_eq!(before.egress.isolated, after.egress.isolated, "{from} {to}");
                        assert_eq!(
                            before.ingress.isolated, after.ingress.isolated,
                            "{from} {to}"
                        );
                    }
                }
            }
        }
    }
    assert!(removed_in_all > 30, "only {removed_in_all} were found");
}

proptest! {
    #[test]
    fn whatever_the_world_is_every_finding_is_of_a_policy_in_it(world in worlds::world()) {
        for found in lint(&world, Census::Complete, &[Scope::Policies, Scope::World]) {
            prop_assert!(world.policies.contains_key(&found.object.name));
            prop_assert!(found.field.starts_with("spec"), "{}", found.field);
            prop_assert!(!found.message.is_empty() && !found.message.contains('\n'));
        }
    }
}
