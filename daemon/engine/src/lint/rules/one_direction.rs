//! `one-direction`: a policy that denies every Pod of its Namespace all of one direction and says
//! nothing of the other, where no policy isolates that one for all of them.

use super::Found;
use crate::lint::ground::{Ground, SIDES, Side};
use crate::lint::words;
use crate::policy::{Direction, Policy};

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let mut found = Vec::new();
    for neighbours in ground.namespaces() {
        for (index, policy) in neighbours.policies.iter().enumerate() {
            let [ingress, egress] = SIDES;
            for (named, other) in [(ingress, egress), (egress, ingress)] {
                if is_half(policy, named, other)
                    && !neighbours
                        .around(index)
                        .into_iter()
                        .map(|around| neighbours.policies[around])
                        .any(|around| around.rules(other.direction).is_some())
                {
                    found.push(report(policy, named, other));
                }
            }
        }
    }
    found
}

/// Does it deny all of one direction, and leave the other alone? What is for some Pods alone is no
/// default.
fn is_half(policy: &Policy, named: Side, other: Side) -> bool {
    policy.subject.is_everything()
        && policy.rules(named.direction).is_some_and(<[_]>::is_empty)
        && policy.rules(other.direction).is_none()
}

fn report<'w>(policy: &'w Policy, named: Side, other: Side) -> Found<'w> {
    let who = words::subject(policy);
    let still = match other.direction {
        Direction::Egress => "they may still open connections to anybody, the internet included",
        Direction::Ingress => "anybody may still open connections to them",
    };
    let name = match other.direction {
        Direction::Egress => "Egress",
        Direction::Ingress => "Ingress",
    };
    Found {
        policy,
        field: "spec.policyTypes".to_owned(),
        message: format!(
            "this denies all {} of {who}, and says nothing of their {}: {still}",
            named.rules, other.rules
        ),
        help: format!("add {name} to `policyTypes` where that is to be denied too"),
    }
}
