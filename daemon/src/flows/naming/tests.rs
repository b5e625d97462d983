//! Reports by hand, and what they are called.

#![allow(clippy::unwrap_used)]

use netpol_engine::compile::{PolicySetNames, RuleName};
use netpol_engine::policy::Direction;
use netpol_engine::world::{Attached, Pod, PublishedPort};

use super::*;

fn namer() -> Namer {
    let pod = |address: &str, id| Pod {
        labels: [("app".to_owned(), "api".to_owned())].into(),
        addresses: [address.parse().unwrap()].into(),
        place: Place::Attached(Attached {
            slot: id,
            id,
            ..Attached::default()
        }),
        published: [PublishedPort {
            protocol: policy::Protocol::Tcp,
            address: "0.0.0.0".parse().unwrap(),
            port: 8000 + id as u16,
            target: 80,
        }]
        .into(),
        ..Pod::default()
    };
    let world = World {
        pods: [
            (ObjectName::new("payments", "api"), pod("10.0.0.2", 7)),
            (ObjectName::new("payments", "db"), pod("10.0.0.3", 8)),
        ]
        .into(),
        host: ["10.0.0.1".parse().unwrap()].into(),
        ..World::default()
    };
    let names = Names {
        policy_sets: [(
            99,
            Arc::new(PolicySetNames {
                direction: Direction::Ingress,
                policies: vec![
                    ObjectName::new("payments", "allow"),
                    ObjectName::new("payments", "deny"),
                ],
                rules: vec![RuleName {
                    policy: ObjectName::new("payments", "allow"),
                    direction: Direction::Ingress,
                    rule: 3,
                }],
            }),
        )]
        .into(),
    };
    Namer::new("edge-1", Arc::new(world), Arc::new(names))
}

fn event(kind: Kind, reason: Reason) -> Event {
    let mut event = Event {
        time_ns: 1_000_000_005,
        generation: 4,
        policy_set: 99,
        endpoint: 8,
        ifindex: 12,
        source_port: 40000,
        destination_port: 5432,
        ethertype: 0x0800,
        version: 4,
        protocol: 6,
        direction: 0,
        kind: kind as u8,
        reason: reason as u8,
        tcp_flags: 2,
        source_mac: [2, 0, 0, 0, 0, 1],
        ..Event::default()
    };
    event.source[..4].copy_from_slice(&[10, 0, 0, 2]);
    event.destination[..4].copy_from_slice(&[10, 0, 0, 3]);
    event
}

fn clock() -> Clock {
    Clock::new("2026-01-02T03:04:05Z".parse().unwrap(), 1_000_000_000)
}

#[test]
fn a_denial_names_both_ends_and_those_that_isolate() {
    let flow = namer()
        .flow(&event(Kind::Dropped, Reason::PolicyDenied), clock())
        .unwrap();
    assert_eq!(flow.time.to_string(), "2026-01-02T03:04:05.000000005Z");
    assert_eq!(flow.verdict, Verdict::Dropped);
    assert_eq!((flow.source.pod_name.as_str(), flow.source.id), ("api", 7));
    assert_eq!(
        (flow.destination.pod_name.as_str(), flow.destination.id),
        ("db", 8)
    );
    assert_eq!(
        flow.source.labels,
        ["k8s:app=api", "k8s:io.kubernetes.pod.namespace=payments"]
    );
    assert_eq!(flow.source.identity, flow.destination.identity);
    assert_eq!((flow.drop_reason, flow.event_type.kind), (Some(133), 1));
    let names: Vec<_> = flow
        .ingress_denied_by
        .iter()
        .map(|by| by.name.as_str())
        .collect();
    assert_eq!(names, ["allow", "deny"]);
    assert_eq!(flow.ingress_denied_by[0].revision, "4");
    assert_eq!(flow.summary, "TCP Flags: SYN");
}

#[test]
fn an_allowance_names_its_rule() {
    let mut event = event(Kind::Opened, Reason::RuleAllowed);
    event.rule = 1;
    let flow = namer().flow(&event, clock()).unwrap();
    assert_eq!(flow.verdict, Verdict::Forwarded);
    assert_eq!(flow.ingress_allowed_by.len(), 1);
    assert_eq!(flow.ingress_allowed_by[0].name, "allow");
    assert_eq!(flow.extensions.unwrap().value.rule, Some(3));
    assert_eq!(flow.drop_reason, None);
}

#[test]
fn a_spoofed_source_is_still_the_one_who_sent_it() {
    let mut event = event(Kind::Dropped, Reason::SpoofedAddress);
    event.direction = 1;
    event.endpoint = 7;
    event.source[..4].copy_from_slice(&[192, 0, 2, 9]);
    let flow = namer().flow(&event, clock()).unwrap();
    assert_eq!(flow.source.pod_name, "api");
    assert_eq!(flow.ip.unwrap().source.to_string(), "192.0.2.9");
    assert!(flow.egress_denied_by.is_empty());
}

#[test]
fn a_denial_behind_a_published_port_is_the_containers() {
    let mut event = event(Kind::Dropped, Reason::PolicyDenied);
    (event.direction, event.endpoint) = (1, 7);
    event.destination[..4].copy_from_slice(&[10, 0, 0, 1]);
    event.destination_port = 8008;
    let flow = namer().flow(&event, clock()).unwrap();
    assert_eq!(
        (
            flow.source.pod_name.as_str(),
            flow.destination.pod_name.as_str()
        ),
        ("api", "db")
    );
    assert_eq!(flow.traffic_direction, TrafficDirection::Ingress);
    assert_eq!(flow.ingress_denied_by.len(), 2);
    assert_eq!(flow.extensions.unwrap().value.published, Some(80));

    // By a reply of a connection that is not allowed any more.
    (event.direction, event.reply) = (0, 1);
    std::mem::swap(&mut event.source, &mut event.destination);
    std::mem::swap(&mut event.source_port, &mut event.destination_port);
    let flow = namer().flow(&event, clock()).unwrap();
    assert_eq!(
        (
            flow.source.pod_name.as_str(),
            flow.destination.pod_name.as_str()
        ),
        ("db", "api")
    );
    assert_eq!(flow.ingress_denied_by.len(), 2);

    // The container's own report.
    (event.direction, event.reply, event.endpoint) = (0, 0, 8);
    let flow = namer().flow(&event, clock()).unwrap();
    assert_eq!(flow.extensions.unwrap().value.published, None);
}

#[test]
fn strangers_and_the_host_are_told_apart() {
    for (source, label) in [
        ([10, 0, 0, 1], "reserved:host"),
        ([192, 0, 2, 1], "reserved:world"),
    ] {
        let mut event = event(Kind::Opened, Reason::Host);
        event.source[..4].copy_from_slice(&source);
        let flow = namer().flow(&event, clock()).unwrap();
        assert_eq!(flow.source.labels, [label]);
    }
}

#[test]
fn what_is_no_ip_says_what_it_is() {
    let mut event = event(Kind::Dropped, Reason::EtherType);
    event.version = 0;
    event.ethertype = 0x88cc;
    let flow = namer().flow(&event, clock()).unwrap();
    assert_eq!((flow.ip, flow.l4), (None, None));
    assert_eq!(flow.extensions.unwrap().value.ethertype, "0x88cc");
}

/// Also of a probe, which names no sender.
#[test]
fn forged_arp_shows_the_address_that_it_claims() {
    for source in [[192, 0, 2, 9], [0; 4]] {
        let mut event = event(Kind::Dropped, Reason::ForgedArp);
        (event.version, event.ethertype, event.protocol) = (0, 0x0806, 0);
        (event.direction, event.endpoint) = (1, 7);
        event.source[..4].copy_from_slice(&source);
        event.destination[..4].copy_from_slice(&[192, 0, 2, 9]);
        let flow = namer().flow(&event, clock()).unwrap();
        assert_eq!(flow.source.pod_name, "api");
        let detail = &flow.extensions.as_ref().unwrap().value;
        assert_eq!(detail.claimed, Some([192, 0, 2, 9].into()));
        let line = crate::flows::text::line(&flow);
        assert!(
            line.contains(
                "api(192.0.2.9) -> 192.0.2.9  ethertype 0x0806  DROPPED  egress  forged-arp"
            ),
            "{line}"
        );
    }
}

#[test]
fn what_is_not_known_is_no_flow() {
    for spoil in [
        |event: &mut Event| event.kind = 0,
        |event: &mut Event| event.reason = 0,
        |event: &mut Event| event.direction = 2,
    ] {
        let mut event = event(Kind::Dropped, Reason::Vlan);
        spoil(&mut event);
        assert_eq!(namer().flow(&event, clock()), None);
    }
}

#[test]
fn no_two_flows_share_a_uuid() {
    let (first, second) = (uuid(), uuid());
    assert_ne!(first, second);
    assert_eq!(first.len(), 36);
    assert_eq!(first.as_bytes()[14], b'4');
}

#[test]
fn a_question_to_an_engine_is_one_to_the_resolvers_whatever_address_it_comes_from() {
    let mut event = event(Kind::Dropped, Reason::PolicyDenied);
    event.direction = 1;
    event.endpoint = 7;
    event.ifindex = FIRST_LOOPBACK + 3;
    event.source[..4].copy_from_slice(&[127, 0, 0, 1]);
    event.destination[..4].copy_from_slice(&[127, 0, 0, 11]);
    let without = namer().flow(&event, clock()).unwrap();
    assert_eq!(without.destination.labels, ["reserved:world"]);
    let mut namer = namer();
    let (name, dns) = resolver::kube_dns(["192.0.2.53".parse().unwrap()].into());
    let mut world = World::clone(&namer.world);
    world.pods.insert(name, dns);
    namer.world = Arc::new(world);
    let flow = namer.flow(&event, clock()).unwrap();
    assert_eq!(flow.source.pod_name, "api");
    assert_eq!(flow.destination.pod_name, "kube-dns");
    assert_eq!(flow.destination.namespace, "kube-system");
    let detail = flow.extensions.unwrap().value;
    assert_eq!((detail.claimed, detail.ifindex), (None, 0));
}
