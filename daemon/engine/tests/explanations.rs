//! What is explained is what is decided, and what is suggested opens what was asked for,
//! in random worlds.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use netpol_engine::evaluate::{EndpointSpec, Family, evaluate};
use netpol_engine::explain::{Explanation, Fix, Side, Suggestion, explain};
use netpol_engine::labels::{Requirement, Selector};
use netpol_engine::manifest::{Value, parse};
use netpol_engine::policy::{
    Direction, Namespaces, ObjectName, Peer, Policy, Port, Ports, Protocol, Rule, Tier,
};
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

/// Source, destination and port of each question.
type Question = (EndpointSpec, EndpointSpec, Protocol, u16);

/// Every Pod, the host, and strangers at the edges of blocks.
fn specs(world: &World) -> Vec<EndpointSpec> {
    let pods = world.pods.keys().cloned().map(EndpointSpec::Pod);
    let strangers = ["10.1.0.1", "203.0.113.64", "fd00:1::1"].map(|text| text.parse().unwrap());
    let addresses = world.host.iter().copied().chain(strangers);
    pods.chain(addresses.map(EndpointSpec::Address)).collect()
}

fn questions(world: &World) -> Vec<Question> {
    let specs = specs(world);
    let mut questions = Vec::new();
    for from in &specs {
        for to in &specs {
            let ends = |(protocol, port)| (from.clone(), to.clone(), protocol, port);
            questions.extend(PORTS.map(ends));
        }
    }
    questions
}

fn ask(world: &World, question: &Question) -> Explanation {
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
    for policy in side.policies.iter().filter(|policy| !policy.audited) {
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
            let over = Family::BOTH.map(|family| worlds::over(&world, family, [from, to]));
            let is_dual = over[0] != over[1];
            let by_family = over.map(|[from, to]| evaluate(&world, &from, &to, *protocol, *port).unwrap().allowed);
            let families = explanation.families.as_ref().map(|families| [families.v4, families.v6.allowed]);
            prop_assert_eq!(families, is_dual.then_some(by_family), "{:?}", question);
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_mend_allows_what_was_asked_and_opens_no_more_than_it_says(world in worlds::world()) {
        let all = questions(&world);
        let mut seen = BTreeSet::new();
        for question in &all {
            let explanation = ask(&world, question);
            for direction in [Direction::Egress, Direction::Ingress] {
                let side = side(&explanation, direction);
                let Some(nearest) = &side.nearest else { continue };
                let Some(fix) = &nearest.fix else { continue };
                let mut mended = world.clone();
                let policy = mended.policies.get_mut(&nearest.policy).unwrap();
                let rule = rule(Arc::make_mut(policy), direction, nearest.rule);
                prop_assert!(!rule.peers.is_empty(), "{:?} {:?}", question, fix);
                if !apply(fix, nearest.peer, question, rule) {
                    continue;
                }
                let own = if direction == Direction::Egress { &question.0 } else { &question.1 };
                if !seen.insert((own.to_string(), format!("{fix:?}"))) {
                    continue;
                }
                let allows = |world: &World, (from, to, protocol, port): &Question| {
                    let verdict = evaluate(world, from, to, *protocol, *port).unwrap();
                    match direction {
                        Direction::Egress => verdict.egress.allowed,
                        Direction::Ingress => verdict.ingress.allowed,
                    }
                };
                prop_assert!(allows(&mended, question), "{:?} {:?}", question, fix);
                for other in &all {
                    let (before, after) = (allows(&world, other), allows(&mended, other));
                    prop_assert!(!before || after, "closed by it: {:?}", other);
                    if before || !after {
                        continue;
                    }
                    let is_same_port = (other.2, other.3) == (question.2, question.3);
                    prop_assert!(is_same_port || !fix.field.ends_with(".ports"), "{:?} {:?}", other, fix);
                    if is_same_port {
                        prop_assert!(is_mend_told(&world, other, question, direction, fix), "{:?} {:?} {:?}", other, question, fix);
                    }
                }
            }
        }
    }
}

fn side(explanation: &Explanation, direction: Direction) -> &Side {
    match direction {
        Direction::Egress => &explanation.egress,
        Direction::Ingress => &explanation.ingress,
    }
}

fn rule(policy: &mut Policy, direction: Direction, index: usize) -> &mut Rule {
    let rules = match direction {
        Direction::Egress => &mut policy.egress,
        Direction::Ingress => &mut policy.ingress,
    };
    &mut rules.as_mut().unwrap()[index]
}

/// Does to a rule what a mend says, where it adds something.
fn apply(fix: &Fix, peer: Option<usize>, question: &Question, rule: &mut Rule) -> bool {
    let (_, _, protocol, port) = *question;
    if fix.field.ends_with(".ports") {
        assert_eq!(fix.write, format!("{{protocol: {protocol}, port: {port}}}"));
        let ports = Ports::Range(port, port);
        rule.ports.push(Port { protocol, ports });
        return true;
    }
    let start = "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ";
    let Some(namespace) = fix.write.strip_prefix(start) else {
        return false;
    };
    let Peer::Pods(pods) = &mut rule.peers[peer.unwrap()] else {
        panic!("not for Pods: {fix:?}");
    };
    let name = namespace.trim_end_matches('}');
    let here = Requirement::equals("kubernetes.io/metadata.name", name);
    pods.namespaces = Namespaces::Matching(Selector::new([here]));
    true
}

/// Are the ends of what is open now those that were asked about, or that the mend names?
fn is_mend_told(
    world: &World,
    opened: &Question,
    asked: &Question,
    direction: Direction,
    fix: &Fix,
) -> bool {
    let is_meant = |spec: &EndpointSpec, asked: &EndpointSpec, also: &BTreeSet<ObjectName>| {
        let mut also = also.iter().cloned().map(EndpointSpec::Pod);
        same(world, spec, asked) || also.any(|name| same(world, spec, &name))
    };
    let (from, to) = match direction {
        Direction::Egress => (&fix.also_selects, &fix.also_peers),
        Direction::Ingress => (&fix.also_peers, &fix.also_selects),
    };
    is_meant(&opened.0, &asked.0, from) && is_meant(&opened.1, &asked.1, to)
}

/// Is a connection that is open now between the ends that were asked about, or those that the
/// suggestions say they let through as well?
fn is_told(world: &World, opened: &Question, asked: &Question, explanation: &Explanation) -> bool {
    let (from, to) = (
        same(world, &opened.0, &asked.0),
        same(world, &opened.1, &asked.1),
    );
    let also = |spec: &EndpointSpec, own: bool, side: &Side| {
        side.suggestion.as_ref().is_some_and(|suggestion| {
            let names = if own {
                &suggestion.also_selects
            } else {
                &suggestion.also_peers
            };
            names
                .iter()
                .any(|name| same(world, spec, &EndpointSpec::Pod(name.clone())))
        })
    };
    let (egress, ingress) = (&explanation.egress, &explanation.ingress);
    let from = from || also(&opened.0, true, egress) || also(&opened.0, false, ingress);
    let to = to || also(&opened.1, true, ingress) || also(&opened.1, false, egress);
    from && to
}

/// Are they one end? A block names a single address, labels all that a Pod has.
fn same(world: &World, one: &EndpointSpec, two: &EndpointSpec) -> bool {
    let addresses = |spec: &EndpointSpec| -> BTreeSet<IpAddr> {
        match spec {
            EndpointSpec::Address(address) => [*address].into(),
            EndpointSpec::Pod(name)
                if world.pods[name].place == Place::HostNetwork
                    && !world.pods[name].is_on_another_host(&world.host) =>
            {
                world.host.clone()
            }
            EndpointSpec::Pod(name) => world.pods[name].addresses.clone(),
        }
    };
    !addresses(one).is_disjoint(&addresses(two))
        || matches!((one, two), (EndpointSpec::Pod(one), EndpointSpec::Pod(two)) if one == two)
        || holder(world, one).is_some_and(|name| holder(world, two) == Some(name))
}

fn holder<'w>(world: &'w World, spec: &'w EndpointSpec) -> Option<&'w ObjectName> {
    match spec {
        EndpointSpec::Pod(name) => Some(name),
        EndpointSpec::Address(address) => world
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
