//! `changes-nothing`: a rule whose every connection another rule allows as well, and a policy of
//! such rules alone, beside others that isolate the same Pods.
//!
//! Told from selectors, not from the Pods that run: what is found may be removed for good. Of
//! two that say the same the later one is found, so that all that is found may be
//! removed at once. A policy without rules is never found: it is there to isolate.

use super::Found;
use crate::lint::ground::{Ground, Neighbours, SIDES, Side};
use crate::lint::{within, words};
use crate::policy::{Policy, Rule};
use crate::world::World;

/// Rules that one is compared with, so that thousands for the same Pods cost no square.
const MAX_COMPARED: usize = 500;

pub(super) fn find<'w>(ground: &Ground<'w>) -> Vec<Found<'w>> {
    let mut found = Vec::new();
    for neighbours in ground.namespaces() {
        for index in 0..neighbours.policies.len() {
            let place = Place::new(ground.world, neighbours, index);
            match place.whole() {
                Some(whole) => found.push(whole),
                None => found.extend(SIDES.into_iter().flat_map(|side| place.rules(side))),
            }
        }
    }
    found
}

/// One policy among those that select whatever it selects.
struct Place<'g, 'w> {
    world: &'g World,
    policy: &'w Policy,
    /// Those others, and whether removing this policy leaves them: wider ones, and of equals those
    /// before it.
    around: Vec<(&'w Policy, bool)>,
}

impl<'w> Place<'_, 'w> {
    fn new<'g>(world: &'g World, neighbours: &Neighbours<'w>, index: usize) -> Place<'g, 'w> {
        let policy = neighbours.policies[index];
        let stays = |other: usize| {
            other < index || !within::selector(&neighbours.policies[other].subject, &policy.subject)
        };
        Place {
            world,
            policy,
            around: neighbours
                .around(index)
                .into_iter()
                .map(|other| (neighbours.policies[other], stays(other)))
                .collect(),
        }
    }

    /// The policy as a whole, where it is for nothing.
    fn whole(&self) -> Option<Found<'w>> {
        let mut instead: Vec<&Policy> = Vec::new();
        let mut has_rules = false;
        for side in SIDES {
            let Some(rules) = self.policy.rules(side.direction) else {
                continue;
            };
            let isolates = |(other, stays): &&(&'w Policy, bool)| {
                *stays && other.rules(side.direction).is_some()
            };
            instead.push(self.around.iter().find(isolates)?.0);
            for rule in rules {
                has_rules = true;
                instead.push(self.elsewhere(side, rule)?.0);
            }
        }
        instead.sort_unstable_by_key(|policy| &policy.name);
        instead.dedup_by_key(|policy| &policy.name);
        let names = words::list(
            instead
                .iter()
                .map(|policy| format!("`{}`", policy.name.name)),
        );
        let (message, help) = if instead.len() == 1 {
            (
                format!(
                    "this policy changes nothing: {names} isolates the same Pods and allows all that it allows"
                ),
                "remove it, or narrow the other",
            )
        } else {
            (
                format!(
                    "this policy changes nothing: {names} isolate the same Pods and allow all that it allows"
                ),
                "remove it, or narrow the others",
            )
        };
        has_rules.then(|| Found {
            policy: self.policy,
            field: "spec".to_owned(),
            message,
            help: help.to_owned(),
        })
    }

    /// The rules of one side that are for nothing.
    fn rules(&self, side: Side) -> Vec<Found<'w>> {
        let rules = self.policy.rules(side.direction).unwrap_or_default();
        let mut found = Vec::new();
        for (index, rule) in side.numbered_rules(self.policy) {
            let own = rules
                .iter()
                .take(MAX_COMPARED)
                .enumerate()
                .find(|(other, wide)| {
                    *other != index && self.is_within(rule, wide, *other < index)
                });
            let by = match (own, self.elsewhere(side, rule)) {
                (Some((other, _)), _) => format!("rule {other} of this policy"),
                (None, Some((policy, other))) => {
                    format!("rule {other} of `{}`", policy.name.name)
                }
                (None, None) => continue,
            };
            found.push(Found {
                policy: self.policy,
                field: side.rule(index),
                message: format!("this rule changes nothing: {by} allows all that it allows"),
                help: "remove it, or narrow the other".to_owned(),
            });
        }
        found
    }

    /// A rule of another policy that allows all that this one does.
    fn elsewhere(&self, side: Side, rule: &Rule) -> Option<(&'w Policy, usize)> {
        self.around
            .iter()
            .flat_map(|(policy, stays)| {
                side.numbered_rules(policy)
                    .map(move |(index, wide)| (*policy, *stays, index, wide))
            })
            .take(MAX_COMPARED)
            .find(|(_, stays, _, wide)| self.is_within(rule, wide, *stays))
            .map(|(policy, _, index, _)| (policy, index))
    }

    /// Does `wide` allow all that `rule` does? Of two that say the same only one that `stays` does.
    fn is_within(&self, rule: &Rule, wide: &Rule, stays: bool) -> bool {
        within::rule(self.world, rule, wide) && (stays || !within::rule(self.world, wide, rule))
    }
}
