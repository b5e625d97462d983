//! Verdicts on worlds built by hand: the forms of an answer, specs, the host.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::*;
use crate::labels::{Requirement, Selector};
use crate::policy::{Action, IpBlock, Mode, Namespaces, Peer, PodPeer, Port, Ports, Rule, Tier};
use crate::world::{NamedPort, Place, Pod};

fn pod(app: &str, addresses: &[&str], place: Place) -> Pod {
    Pod {
        labels: [("app".to_owned(), app.to_owned())].into(),
        ports: Vec::new(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        place,
        ..Pod::default()
    }
}

fn app(name: &str) -> Selector {
    Selector::new([Requirement::equals("app", name)])
}

fn pods(name: &str) -> Peer {
    Peer::Pods(PodPeer {
        namespaces: Namespaces::Own("shop".to_owned()),
        pods: app(name),
    })
}

fn policy(name: &str, subject: Selector, ingress: Vec<Rule>) -> Policy {
    Policy {
        name: ObjectName::new("shop", name),
        tier: Tier::NetworkPolicy,
        mode: Mode::Enforce,
        subject,
        ingress: Some(ingress),
        egress: None,
    }
}

fn allow(peers: Vec<Peer>, ports: Vec<Port>) -> Rule {
    Rule {
        action: Action::Allow,
        peers,
        ports,
    }
}

/// shop/web may reach shop/db on its port `sql`; shop/agent is on the host's network.
fn world() -> World {
    let mut world = World {
        host: ["192.0.2.1".parse().unwrap()].into(),
        ..World::default()
    };
    let mut db = pod("db", &["10.0.0.2", "fd00::2"], Place::Local);
    db.ports.push(NamedPort {
        name: "sql".to_owned(),
        port: 5432,
        protocol: Protocol::Tcp,
    });
    for (name, pod) in [
        (
            "web",
            pod("web", &["10.0.0.1", "fe80::1", "fd00::1"], Place::Local),
        ),
        ("db", db),
        ("agent", pod("agent", &["192.0.2.1"], Place::HostNetwork)),
        ("away", pod("web", &["10.9.0.1"], Place::External)),
    ] {
        world.pods.insert(ObjectName::new("shop", name), pod);
    }
    let sql = Port {
        protocol: Protocol::Tcp,
        ports: Ports::Named("sql".to_owned()),
    };
    for policy in [
        policy("closed", Selector::everything(), Vec::new()),
        policy(
            "db",
            app("db"),
            vec![allow(vec![pods("nobody"), pods("web")], vec![sql])],
        ),
    ] {
        world.policies.insert(policy.name.clone(), policy.into());
    }
    world
}

fn ask(world: &World, from: &str, to: &str, port: u16) -> Verdict {
    evaluate(
        world,
        &from.parse().unwrap(),
        &to.parse().unwrap(),
        Protocol::Tcp,
        port,
    )
    .unwrap()
}

#[test]
fn names_rule_and_peer_that_allow() {
    let verdict = ask(&world(), "shop/web", "shop/db", 5432);
    assert_eq!(
        serde_json::to_value(&verdict).unwrap(),
        serde_json::json!({
            "allowed": true,
            "egress": {"allowed": true, "isolated": false, "reason": "not-isolated", "by": [], "isolated_by": []},
            "ingress": {
                "allowed": true,
                "isolated": true,
                "reason": "rule-allowed",
                "by": [{"policy": "shop/db", "rule": 0, "peer": 1}],
                "isolated_by": ["shop/closed", "shop/db"],
            },
        })
    );
}

#[test]
fn names_the_policies_that_isolate_where_denied() {
    let verdict = ask(&world(), "shop/web", "shop/db", 5433);
    assert!(!verdict.allowed);
    assert_eq!(
        serde_json::to_value(&verdict.ingress).unwrap(),
        serde_json::json!({
            "allowed": false,
            "isolated": true,
            "reason": "policy-denied",
            "by": [{"policy": "shop/closed"}, {"policy": "shop/db"}],
            "isolated_by": ["shop/closed", "shop/db"],
        })
    );
}

#[test]
fn an_address_stands_for_its_owner() {
    let world = world();
    assert!(ask(&world, "ip:10.0.0.1", "ip:10.0.0.2", 5432).allowed);
    assert!(ask(&world, "ip:10.9.0.1", "shop/db", 5432).allowed);
    assert!(!ask(&world, "ip:10.0.0.9", "shop/db", 5432).allowed);
    assert_eq!(
        ask(&world, "ip:192.0.2.1", "shop/db", 1).ingress.reason,
        Reason::Host
    );
}

#[test]
fn the_host_s_side_is_not_policed_and_its_traffic_can_be() {
    let mut world = world();
    assert!(ask(&world, "shop/agent", "shop/db", 1).allowed);
    let to_host = ask(&world, "shop/db", "shop/agent", 1);
    assert!(to_host.allowed && !to_host.ingress.isolated);

    world.settings.host_ingress = false;
    let denied = ask(&world, "shop/agent", "shop/db", 1);
    assert_eq!(denied.ingress.reason, Reason::PolicyDenied);

    let block = IpBlock {
        cidr: "192.0.2.0/24".parse().unwrap(),
        except: Vec::new(),
    };
    let closed = world
        .policies
        .get_mut(&ObjectName::new("shop", "closed"))
        .map(Arc::make_mut)
        .unwrap();
    closed.ingress = Some(vec![allow(vec![Peer::Block(block)], Vec::new())]);
    assert!(ask(&world, "shop/agent", "shop/db", 1).allowed);
}

/// What a manifest states makes no address the host's: neither a stranger's nor a container's.
#[test]
fn a_pod_on_another_host_s_network_is_a_stranger_at_its_addresses() {
    let mut world = world();
    world.pods.insert(
        ObjectName::new("shop", "node"),
        pod("web", &["192.0.2.9", "10.0.0.1"], Place::HostNetwork),
    );
    for from in ["shop/node", "ip:192.0.2.9"] {
        let verdict = ask(&world, from, "shop/db", 5432);
        assert_eq!(verdict.ingress.reason, Reason::PolicyDenied, "{from}");
    }
    // The container keeps its own address, and what policy allows it.
    assert!(ask(&world, "ip:10.0.0.1", "shop/db", 5432).allowed);
    assert!(!ask(&world, "ip:10.0.0.1", "shop/db", 5433).allowed);
    // With one of the host's own it is the host, at the host's addresses alone.
    let node = world.pods.get_mut(&ObjectName::new("shop", "node"));
    node.unwrap().addresses.extend(&world.host);
    let verdict = ask(&world, "shop/node", "shop/db", 1);
    assert_eq!(verdict.ingress.reason, Reason::Host);
    assert!(!ask(&world, "ip:192.0.2.9", "shop/db", 1).allowed);
}

#[test]
fn an_endpoint_reaches_itself() {
    let verdict = ask(&world(), "shop/db", "ip:fd00::2", 1);
    assert_eq!(verdict.ingress.reason, Reason::Itself);
}

#[test]
fn nothing_is_enforced_for_an_external_pod() {
    let verdict = ask(&world(), "shop/db", "shop/away", 1);
    assert!(verdict.allowed && !verdict.ingress.isolated);
}

#[test]
fn pods_are_asked_in_a_family_that_both_have() {
    let world = world();
    let ends = |from: &str, to: &str| -> (Option<IpAddr>, Option<IpAddr>) {
        addresses(
            &End::resolve(&world, &from.parse().unwrap()).unwrap(),
            &End::resolve(&world, &to.parse().unwrap()).unwrap(),
        )
    };
    let found = |from: &str, to: &str| (from.parse().ok(), to.parse().ok());
    assert_eq!(ends("shop/web", "shop/db"), found("10.0.0.1", "10.0.0.2"));
    assert_eq!(ends("shop/web", "ip:fd00::2"), found("fd00::1", "fd00::2"));
    assert_eq!(
        ends("shop/away", "ip:fd00::9"),
        found("10.9.0.1", "fd00::9")
    );
}

#[test]
fn the_admin_tier_goes_first_and_may_pass() {
    let mut world = world();
    let mut admin = policy("admin", app("db"), Vec::new());
    admin.tier = Tier::Admin;
    let mut rule = allow(vec![pods("web")], Vec::new());
    for (action, allowed) in [
        (Action::Allow, true),
        (Action::Deny, false),
        (Action::Pass, false),
    ] {
        rule.action = action;
        admin.ingress = Some(vec![rule.clone(), allow(Vec::new(), Vec::new())]);
        world
            .policies
            .insert(admin.name.clone(), admin.clone().into());
        let verdict = ask(&world, "shop/web", "shop/db", 1);
        assert_eq!(verdict.allowed, allowed, "{action:?}");
    }
}

#[test]
fn the_baseline_tier_is_asked_where_nothing_isolates() {
    let mut world = world();
    world.policies.clear();
    let mut base = policy(
        "base",
        app("db"),
        vec![allow(vec![pods("web")], Vec::new())],
    );
    base.tier = Tier::Baseline;
    base.ingress.as_mut().unwrap()[0].action = Action::Deny;
    world.policies.insert(base.name.clone(), base.into());
    assert!(!ask(&world, "shop/web", "shop/db", 1).allowed);
    assert!(ask(&world, "ip:203.0.113.1", "shop/db", 1).allowed);
}

#[test]
fn suggests_the_pod_that_was_meant() {
    for (asked, meant) in [
        ("default/db", Some("shop/db")),
        ("shop/wbe", None),
        ("shop/weg", Some("shop/web")),
        ("shop/agnet", Some("shop/agent")),
        ("elsewhere/nothing", None),
    ] {
        let error = evaluate(
            &world(),
            &asked.parse().unwrap(),
            &"shop/db".parse().unwrap(),
            Protocol::Tcp,
            1,
        )
        .unwrap_err();
        let EvaluateError::UnknownPod { nearest, .. } = &error;
        assert_eq!(
            nearest.as_ref().map(ToString::to_string).as_deref(),
            meant,
            "{asked}"
        );
        assert_eq!(error.to_string().contains("did you mean"), meant.is_some());
    }
}

#[test]
fn parties_have_two_forms() {
    assert_eq!(
        "ip:::ffff:10.0.0.1".parse(),
        Ok(EndpointSpec::Address("10.0.0.1".parse().unwrap()))
    );
    assert_eq!(
        "web".parse::<EndpointSpec>(),
        Err(EndpointSpecError::Form("web".to_owned()))
    );
    assert_eq!(
        "ip:web".parse::<EndpointSpec>(),
        Err(EndpointSpecError::Address("web".to_owned()))
    );
    assert_eq!("a/b".parse::<EndpointSpec>().unwrap().to_string(), "a/b");
}

#[test]
fn the_matrix_has_every_pair_once() {
    let world = world();
    let matrix = crate::matrix::matrix(&world, Protocol::Tcp, 5432).unwrap();
    assert_eq!(matrix.pairs().count(), 4 * 3);
    let distinct: BTreeSet<_> = matrix.pairs().collect();
    assert_eq!(distinct.len(), 4 * 3);
    let allowed = |from: &str, to: &str| {
        let (from, to) = (ObjectName::new("shop", from), ObjectName::new("shop", to));
        matrix
            .pairs()
            .find(|pair| *pair.from == from && *pair.to == to)
            .unwrap()
            .allowed
    };
    assert!(allowed("web", "db") && !allowed("db", "web"));
}
