//! What a spec means: defaults, absent and empty, directions, peers and ports.

use super::*;
use crate::labels::{Requirement, Selector};
use crate::policy::{IpBlock, Namespaces, Peer, PodPeer, Port, Ports, Protocol, Rule};

/// The only ingress rule of a spec.
fn ingress_rule(rule: &str) -> Rule {
    let mut rules = policy(&format!("{{podSelector: {{}}, ingress: [{rule}]}}"))
        .ingress
        .unwrap();
    assert_eq!(rules.len(), 1);
    rules.remove(0)
}

#[test]
fn policy_types_and_their_defaults() {
    let directions = |spec: &str| {
        let text = with_spec(spec);
        let file = parse("a.yaml", &text);
        assert!(file.is_accepted(), "{:?}", file.diagnostics);
        match &file.documents[0].value {
            Value::NetworkPolicy(policy) => (
                policy.ingress.as_ref().map(Vec::len),
                policy.egress.as_ref().map(Vec::len),
            ),
            other => panic!("{other:?}"),
        }
    };
    for (spec, expected) in [
        ("{podSelector: {}}", (Some(0), None)),
        ("{podSelector: {}, policyTypes: []}", (Some(0), None)),
        ("{podSelector: {}, policyTypes: null}", (Some(0), None)),
        ("{podSelector: {}, egress: []}", (Some(0), None)),
        ("{podSelector: {}, egress: [{}]}", (Some(0), Some(1))),
        (
            "{podSelector: {}, policyTypes: [], egress: [{}]}",
            (Some(0), Some(1)),
        ),
        (
            "{podSelector: {}, policyTypes: [Ingress], egress: [{}]}",
            (Some(0), None),
        ),
        (
            "{podSelector: {}, policyTypes: [Egress], ingress: [{}]}",
            (None, Some(0)),
        ),
        (
            "{podSelector: {}, policyTypes: [Egress, Ingress]}",
            (Some(0), Some(0)),
        ),
        (
            "{podSelector: {}, policyTypes: [Ingress, Ingress]}",
            (Some(0), None),
        ),
        ("{}", (Some(0), None)),
        ("", (Some(0), None)),
    ] {
        assert_eq!(directions(spec), expected, "{spec}");
    }
}

#[test]
fn absent_and_empty_lists_are_any_peer_and_any_port() {
    let rule = ingress_rule("{}");
    assert_eq!((rule.peers.len(), rule.ports.len()), (0, 0));
    for (rule, count) in [
        ("{from: []}", 1),
        ("{ports: []}", 1),
        ("{from: [], ports: []}", 2),
    ] {
        let text = with_spec(&format!("{{podSelector: {{}}, ingress: [{rule}]}}"));
        let file = parse("a.yaml", &text);
        let found: Vec<_> = file.diagnostics.iter().map(|found| found.rule).collect();
        assert_eq!(found, vec![rule::EMPTY_LIST; count], "{text}");
        alike::compare(&file, &text).unwrap();
        let Value::NetworkPolicy(policy) = &file.documents[0].value else {
            panic!("{text}");
        };
        let rule = &policy.ingress.as_ref().unwrap()[0];
        assert_eq!((rule.peers.len(), rule.ports.len()), (0, 0));
    }
}

#[test]
fn where_a_peer_looks() {
    let app = Selector::new([Requirement::equals("app", "a")]);
    let team = Selector::new([Requirement::equals("team", "b")]);
    for (peer, namespaces, pods) in [
        ("{podSelector: {}}", None, Selector::everything()),
        ("{podSelector: {matchLabels: {app: a}}}", None, app.clone()),
        (
            "{namespaceSelector: {}}",
            Some(Selector::everything()),
            Selector::everything(),
        ),
        (
            "{namespaceSelector: {matchLabels: {team: b}}}",
            Some(team.clone()),
            Selector::everything(),
        ),
        (
            "{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: a}}}",
            Some(team),
            app,
        ),
    ] {
        let rule = ingress_rule(&format!("{{from: [{peer}]}}"));
        let namespaces = match namespaces {
            None => Namespaces::Own("ns".into()),
            Some(selector) => Namespaces::Matching(selector),
        };
        assert_eq!(
            rule.peers,
            [Peer::Pods(PodPeer { namespaces, pods })],
            "{peer}"
        );
    }
}

#[test]
fn blocks_of_both_families() {
    let rule = ingress_rule(
        "{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.3.4/32]}}, {ipBlock: {cidr: '::/0'}}]}",
    );
    let block = |cidr: &str, except: &[&str]| {
        Peer::Block(IpBlock {
            cidr: cidr.parse().unwrap(),
            except: except.iter().map(|e| e.parse().unwrap()).collect(),
        })
    };
    assert_eq!(
        rule.peers,
        [
            block("10.0.0.0/8", &["10.1.0.0/16", "10.2.3.4/32"]),
            block("::/0", &[])
        ]
    );
}

#[test]
fn ports_of_every_form() {
    for (port, protocol, ports) in [
        ("{}", Protocol::Tcp, Ports::All),
        ("{protocol: UDP}", Protocol::Udp, Ports::All),
        ("{port: 80}", Protocol::Tcp, Ports::Range(80, 80)),
        ("{port: 65535}", Protocol::Tcp, Ports::Range(65535, 65535)),
        ("{port: 80.0}", Protocol::Tcp, Ports::Range(80, 80)),
        (
            "{port: http, protocol: SCTP}",
            Protocol::Sctp,
            Ports::Named("http".into()),
        ),
        (
            "{port: 80, endPort: 80}",
            Protocol::Tcp,
            Ports::Range(80, 80),
        ),
        (
            "{port: 1, endPort: 65535}",
            Protocol::Tcp,
            Ports::Range(1, 65535),
        ),
        (
            "{port: 80, endPort: null}",
            Protocol::Tcp,
            Ports::Range(80, 80),
        ),
        ("{port: null, protocol: null}", Protocol::Tcp, Ports::All),
    ] {
        let text = with_spec(&format!(
            "{{podSelector: {{}}, ingress: [{{ports: [{port}]}}]}}"
        ));
        let file = parse("a.yaml", &text);
        assert!(file.is_accepted(), "{:?}", file.diagnostics);
        let Value::NetworkPolicy(policy) = &file.documents[0].value else {
            panic!("{file:?}")
        };
        let found = &policy.ingress.as_ref().unwrap()[0].ports;
        assert_eq!(found, &[Port { protocol, ports }], "{port}");
    }
}

#[test]
fn an_egress_rule_has_to() {
    let policy = policy(
        "{podSelector: {}, egress: [{to: [{podSelector: {}}], ports: [{port: 53, protocol: UDP}]}]}",
    );
    let rules = policy.egress.unwrap();
    assert_eq!((rules[0].peers.len(), rules[0].ports.len()), (1, 1));
}
