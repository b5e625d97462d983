//! The model's own look-ups, on maps filled by hand.
#![allow(clippy::unwrap_used)]

use netpol_abi::tables::{EndpointLane, PortRange};

use super::*;

const PEER: &str = "198.51.100.7";

fn lanes() -> Lanes {
    let mut lanes = Lanes::default();
    lanes.endpoints.insert(
        0,
        Endpoint {
            id: 9,
            lanes: [EndpointLane {
                ingress: 100,
                egress: SUBJECT_NOT_ISOLATED,
                revision: 1,
                ..EndpointLane::default()
            }; 2],
            ..Endpoint::default()
        },
    );
    lanes
}

fn allow(lanes: &mut Lanes, class: u64, rule: u32) {
    let value = Verdict {
        len: 1,
        ranges: [PortRange {
            first: 80,
            last: 90,
            protocol: 6,
            rule,
            ..PortRange::default()
        }; 4],
        ..Verdict::default()
    };
    let key = VerdictKey {
        subject: 100,
        class,
    };
    lanes.apply(&Step::PutVerdict { key, value });
}

fn judge(lanes: &Lanes, direction: Direction, port: u16) -> (Reason, u32) {
    let ruling = lanes
        .judge(9, direction, PEER.parse().unwrap(), 6, port)
        .unwrap();
    (ruling.reason, ruling.rule)
}

#[test]
fn a_miss_is_denied_once_isolated() {
    let lanes = lanes();
    assert_eq!(
        judge(&lanes, Direction::Ingress, 80),
        (Reason::PolicyDenied, 0)
    );
    assert_eq!(
        judge(&lanes, Direction::Egress, 80),
        (Reason::NotIsolated, 0)
    );
    assert_eq!(
        lanes.judge(8, Direction::Egress, PEER.parse().unwrap(), 6, 80),
        None
    );
}

#[test]
fn the_longest_prefix_names_a_stranger_s_class() {
    let mut lanes = lanes();
    allow(&mut lanes, 50, 1);
    allow(&mut lanes, 51, 2);
    for (net, class) in [("0.0.0.0/0", 50), ("198.51.100.0/24", 51)] {
        lanes.apply(&Step::PutPrefix {
            net: net.parse().unwrap(),
            value: Prefix { class: [class; 2] },
        });
    }
    assert_eq!(
        judge(&lanes, Direction::Ingress, 80),
        (Reason::RuleAllowed, 2)
    );
    assert_eq!(
        judge(&lanes, Direction::Ingress, 91),
        (Reason::PolicyDenied, 0)
    );

    lanes.apply(&Step::PutAddress {
        address: PEER.parse().unwrap(),
        value: Address {
            class: [50, CLASS_UNLISTED],
            ..Address::default()
        },
    });
    assert_eq!(
        judge(&lanes, Direction::Ingress, 80),
        (Reason::RuleAllowed, 1)
    );
    lanes.apply(&Step::Flip {
        generation: 1,
        flags: [0; 2],
    });
    assert_eq!(
        judge(&lanes, Direction::Ingress, 80),
        (Reason::RuleAllowed, 2),
        "an unlisted address is a stranger"
    );
}

#[test]
fn the_rules_for_any_peer_are_the_fallback() {
    let mut lanes = lanes();
    allow(&mut lanes, CLASS_ANY, 7);
    assert_eq!(
        judge(&lanes, Direction::Ingress, 90),
        (Reason::RuleAllowed, 7)
    );
}

#[test]
fn the_host_passes_where_its_flag_is_set_and_is_judged_where_not() {
    let mut lanes = lanes();
    lanes.apply(&Step::PutAddress {
        address: PEER.parse().unwrap(),
        value: Address {
            class: [CLASS_ANY; 2],
            owner: [OWNER_HOST; 2],
            ..Address::default()
        },
    });
    assert_eq!(
        judge(&lanes, Direction::Ingress, 80),
        (Reason::PolicyDenied, 0)
    );
    lanes.apply(&Step::PutFlags {
        flags: [control_flags::HOST_INGRESS, 0],
    });
    assert_eq!(judge(&lanes, Direction::Ingress, 80), (Reason::Host, 0));
}

#[test]
fn an_endpoint_without_a_revision_is_not_in_the_lane() {
    let mut lanes = lanes();
    lanes.endpoints.get_mut(&0).unwrap().lanes[0].revision = 0;
    assert_eq!(lanes.read_back().endpoints, BTreeMap::new());
}
