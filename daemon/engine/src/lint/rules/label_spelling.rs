//! `label-spelling`: a label key in a selector that nothing has, beside one that differs only by
//! its spelling and is in use. Selectors that ask for an absent key are met by everything
//! then, so those are the ones that hurt most.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Found;
use crate::labels::{Operator, Requirement, Selector};
use crate::lint::ground::Ground;
use crate::policy::{Namespaces, Policy};
use crate::spelling;
use crate::world::METADATA_NAME;

/// Keys in use that one is compared with.
const MAX_KEYS: usize = 1_000;

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let mut of_pods = Keys::collect(ground.world.pods.values().flat_map(|pod| pod.labels.keys()));
    let namespaces = ground
        .world
        .namespaces
        .values()
        .flat_map(|labels| labels.keys());
    let mut of_namespaces = Keys::collect(namespaces);
    of_namespaces.in_use.insert(METADATA_NAME);
    let mut found = Vec::new();
    for policy in ground.policies() {
        let mut report = |keys: &mut Keys<'w>, selector: &'w Selector, field: &str| {
            found.extend(keys.slips(policy, selector, field));
        };
        report(&mut of_pods, &policy.subject, "spec.podSelector");
        for at in Ground::rules_of(policy) {
            for (number, pods) in at.pods() {
                let field = at.peer(number);
                if let Namespaces::Matching(selector) = &pods.namespaces {
                    report(
                        &mut of_namespaces,
                        selector,
                        &format!("{field}.namespaceSelector"),
                    );
                }
                report(&mut of_pods, &pods.pods, &format!("{field}.podSelector"));
            }
        }
    }
    found
}

/// Label keys in use, and what was found for others.
struct Keys<'w> {
    in_use: BTreeSet<&'w str>,
    meant: HashMap<&'w str, Option<&'w str>>,
}

impl<'w> Keys<'w> {
    fn collect(keys: impl Iterator<Item = &'w String>) -> Self {
        Self {
            in_use: keys.map(String::as_str).collect(),
            meant: HashMap::new(),
        }
    }

    fn meant(&mut self, key: &'w str) -> Option<&'w str> {
        if self.in_use.contains(key) {
            return None;
        }
        let in_use = &self.in_use;
        *self.meant.entry(key).or_insert_with(|| {
            let mut alike = in_use
                .iter()
                .take(MAX_KEYS)
                .filter(|known| spelling::same_but_for_spelling(key, known));
            alike.next().copied()
        })
    }

    fn slips(&mut self, policy: &'w Policy, selector: &'w Selector, field: &str) -> Vec<Found<'w>> {
        let mut keys: BTreeMap<&str, &Requirement> = BTreeMap::new();
        for requirement in selector.requirements() {
            keys.entry(&requirement.key).or_insert(requirement);
        }
        keys.into_iter()
            .filter_map(|(key, requirement)| {
                let meant = self.meant(key)?;
                let so = match requirement.operator {
                    Operator::In(_) | Operator::Exists => "so nothing matches",
                    Operator::NotIn(_) | Operator::DoesNotExist => "so this holds for everything",
                };
                Some(Found {
                    policy,
                    field: format!("{field}.matchLabels[{key}]"),
                    message: format!("nothing has a label `{key}`, {so}"),
                    help: format!("`{meant}` is in use: is that meant?"),
                })
            })
            .collect()
    }
}
