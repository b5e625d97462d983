//! What is explained is what is decided, and what is suggested opens what was asked for,
//! in random worlds.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;

use netpol_engine::evaluate::{Party, evaluate};
use netpol_engine::explain::{Explanation, Side, Suggestion, explain};
use netpol_engine::manifest::{Value, parse};
use netpol_engine::policy::{ObjectName, Peer, Policy, Protocol, Tier};
use netpol_engine::world::{Place, World};
use proptest::prelude::*;

use support::worlds;

/// What rules name and what they don't; 0 is none that a rule can name.
const PORTS: [(Protocol, u16); 4] = [
    (Protocol::Tcp, 0),
    (Protocol::Tcp, 80),
    (Protocol::Tcp, 8080),
    (Protocol::Udp, 53),
];

/// Every Pod, the host, and strangers at the edges of blocks.
fn parties(world: &World) -> Vec<Party> {
    let pods = world.pods.keys().cloned().map(Party::Pod);
    let strangers = ["10.1.0.1", "203.0.113.64", "fd00:1::1"].map(|text| text.parse().unwrap());
    let addresses = world.host.iter().copied().chain(strangers);
    pods.chain(addresses.map(Party::Address)).collect()
}

fn questions(world: &World) -> Vec<(Party, Party, Protocol, u16)> {
    let parties = parties(world);
    let mut questions = Vec::new();
    for from in &parties {
        for to in &parties {
            let ends = |(protocol, port)| (from.clone(), to.clone(), protocol, port);
            questions.extend(PORTS.map(ends));
        }
    }
    questions
}

fn ask(world: &World, question: &(Party, Party, Protocol, u16)) -> Explanation {
    let (from, to, protocol, port) = question;
    explain(world, from, to, *protocol, *port).unwrap()
}

/// Has it NetworkPolicies alone?
fn is_of_one_tier(world: &World) -> bool {
    world
        .policies
        .values()
        .all(|policy| policy.tier == Tier::NetworkPolicy)
}

/// The policy of a suggestion, as a reader of the manifest has it.
fn read(suggestion: &Suggestion) -> Policy {
    let file = parse("suggested.yaml", &suggestion.yaml);
    assert!(
        file.diagnostics.is_empty(),
        "{}\n{:?}",
        suggestion.yaml,
        file.diagnostics
    );
    let [object] = file.documents.as_slice() else {
        panic!("one document: {}", suggestion.yaml);
    };
    let Value::NetworkPolicy(policy) = &object.value else {
        panic!("a NetworkPolicy: {}", suggestion.yaml);
    };
    Policy::clone(policy)
}

/// The rules that matched, with the first peer that did.
fn matched(side: &Side) -> BTreeSet<(ObjectName, usize, Option<usize>)> {
    let mut found = BTreeSet::new();
    for policy in &side.policies {
        for rule in policy.rules.iter().filter(|rule| rule.matched) {
            let peer = rule.peers.iter().find(|peer| peer.matched);
            found.insert((policy.policy.clone(), rule.rule, peer.map(|peer| peer.peer)));
        }
    }
    found
}

proptest! {
    // Each case asks about every pair of its world.
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_rule_is_said_to_match_where_the_verdict_names_it(world in worlds::world()) {
        for question in questions(&world) {
            let (from, to, protocol, port) = &question;
            let explanation = ask(&world, &question);
            let verdict = evaluate(&world, from, to, *protocol, *port).unwrap();
            prop_assert_eq!(&explanation.egress.verdict, &verdict.egress);
            prop_assert_eq!(&explanation.ingress.verdict, &verdict.ingress);
            prop_assert_eq!(explanation.allowed, verdict.allowed);
            for side in [&explanation.egress, &explanation.ingress] {
                let by: BTreeSet<_> = side
                    .verdict
                    .by
                    .iter()
                    .filter_map(|by| Some((by.policy.clone(), by.rule?, by.peer)))
                    .collect();
                let matched = matched(side);
                if is_of_one_tier(&world) {
                    prop_assert_eq!(&matched, &by, "{:?}", question);
                } else {
                    // In other tiers the first rule that matches hides the rest.
                    prop_assert!(by.is_subset(&matched), "{:?}", question);
                }
                for rule in side.policies.iter().flat_map(|policy| &policy.rules) {
                    let peer = rule.peers.is_empty() || rule.peers.iter().any(|peer| peer.matched);
                    let port = rule.ports.is_empty() || rule.ports.iter().any(|port| port.matched);
                    prop_assert_eq!(rule.matched, peer && port);
                    prop_assert_eq!(rule.matched, rule.cost() == 0);
                }
            }
        }
    }

    #[test]
    fn a_suggestion_allows_what_was_asked_and_takes_nothing_away(world in worlds::world()) {
        let all = questions(&world);
        let allowed = |world: &World| -> Vec<bool> {
            all.iter()
                .map(|(from, to, protocol, port)| {
                    evaluate(world, from, to, *protocol, *port).unwrap().allowed
                })
                .collect()
        };
        let before = allowed(&world);
        let mut seen = BTreeSet::new();
        for (question, _) in all.iter().zip(&before).filter(|(_, allowed)| !**allowed) {
            let (from, to, protocol, port) = question;
            let explanation = ask(&world, question);
            let sides = [&explanation.egress, &explanation.ingress];
            let mut more = world.clone();
            for side in sides {
                let Some(suggestion) = &side.suggestion else {
                    // A rule of another tier denies it, or nothing is denied.
                    let denies = side.verdict.by.iter().any(|by| by.rule.is_some());
                    prop_assert!(side.verdict.allowed || denies || *port == 0, "{:?}", question);
                    continue;
                };
                let policy = read(suggestion);
                prop_assert_eq!(&policy.name, &suggestion.name);
                prop_assert!(more.policies.insert(policy.name.clone(), policy.into()).is_none());
            }
            if sides.iter().all(|side| side.verdict.allowed || side.suggestion.is_some()) {
                prop_assert!(evaluate(&more, from, to, *protocol, *port).unwrap().allowed, "{:?}", question);
            }
            // The same policies were tried before: once is enough.
            let texts: Vec<String> = sides
                .iter()
                .filter_map(|side| Some(side.suggestion.as_ref()?.yaml.clone()))
                .collect();
            if !seen.insert(texts) {
                continue;
            }
            for ((other, before), after) in all.iter().zip(&before).zip(allowed(&more)) {
                prop_assert!(!before || after, "closed by it: {:?}", other);
                if after && !before {
                    prop_assert_eq!((other.2, other.3), (*protocol, *port));
                    prop_assert!(is_told(&world, other, question, &explanation), "{:?} {:?}", other, question);
                }
            }
        }
    }
}

/// Is a connection that is open now between the ends that were asked about, or those that the
/// suggestions say they let through as well?
fn is_told(
    world: &World,
    opened: &(Party, Party, Protocol, u16),
    asked: &(Party, Party, Protocol, u16),
    explanation: &Explanation,
) -> bool {
    let (from, to) = (
        same(world, &opened.0, &asked.0),
        same(world, &opened.1, &asked.1),
    );
    let also = |party: &Party, own: bool, side: &Side| {
        side.suggestion.as_ref().is_some_and(|suggestion| {
            let names = if own {
                &suggestion.also_selects
            } else {
                &suggestion.also_peers
            };
            names
                .iter()
                .any(|name| same(world, party, &Party::Pod(name.clone())))
        })
    };
    let (egress, ingress) = (&explanation.egress, &explanation.ingress);
    let from = from || also(&opened.0, true, egress) || also(&opened.0, false, ingress);
    let to = to || also(&opened.1, true, ingress) || also(&opened.1, false, egress);
    from && to
}

/// Are they one end? A block names a single address, labels all that a Pod has.
fn same(world: &World, one: &Party, two: &Party) -> bool {
    let addresses = |party: &Party| -> BTreeSet<IpAddr> {
        match party {
            Party::Address(address) => [*address].into(),
            Party::Pod(name) if world.pods[name].place == Place::HostNetwork => {
                &world.pods[name].addresses | &world.host
            }
            Party::Pod(name) => world.pods[name].addresses.clone(),
        }
    };
    !addresses(one).is_disjoint(&addresses(two))
        || matches!((one, two), (Party::Pod(one), Party::Pod(two)) if one == two)
        || holder(world, one).is_some_and(|name| holder(world, two) == Some(name))
}

fn holder<'w>(world: &'w World, party: &'w Party) -> Option<&'w ObjectName> {
    match party {
        Party::Pod(name) => Some(name),
        Party::Address(address) => world
            .pods
            .iter()
            .find(|(_, pod)| pod.addresses.contains(address))
            .map(|(name, _)| name),
    }
}

#[test]
fn a_suggestion_names_one_address_of_a_stranger() {
    let text = "\
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
status: {podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: shop}
spec: {podSelector: {}}
";
    let file = parse("world.yaml", text);
    let world = World::from_objects(&file.documents);
    let question = (
        "ip:2001:db8::7".parse().unwrap(),
        "shop/db".parse().unwrap(),
        Protocol::Udp,
        53,
    );
    let explanation = ask(&world, &question);
    let policy = read(explanation.ingress.suggestion.as_ref().unwrap());
    let Peer::Block(block) = &policy.ingress.unwrap()[0].peers[0] else {
        panic!("a block");
    };
    assert_eq!(block.cidr.to_string(), "2001:db8::7/128");
}
