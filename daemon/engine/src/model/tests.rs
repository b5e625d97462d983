//! The model's own look-ups, on maps filled by hand.
#![allow(clippy::unwrap_used)]

use netpol_abi::tables::{EndpointBank, PortRange};

use super::*;

const PEER: &str = "198.51.100.7";

fn banks() -> MapImage {
    let mut banks = MapImage::default();
    banks.endpoints.insert(
        0,
        Endpoint {
            id: 9,
            banks: [EndpointBank {
                ingress: 100,
                egress: NOT_ISOLATED,
                revision: 1,
                ..EndpointBank::default()
            }; 2],
            ..Endpoint::default()
        },
    );
    banks
}

fn allow(banks: &mut MapImage, class: u64, rule: u32) {
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
        policy_set: 100,
        class,
    };
    banks.apply(&Step::PutVerdict { key, value });
}

fn judge(banks: &MapImage, direction: Direction, port: u16) -> (Reason, u32) {
    let ruling = banks
        .judge(9, direction, PEER.parse().unwrap(), 6, port)
        .unwrap();
    (ruling.reason, ruling.rule)
}

#[test]
fn a_miss_is_denied_once_isolated() {
    let banks = banks();
    assert_eq!(
        judge(&banks, Direction::Ingress, 80),
        (Reason::PolicyDenied, 0)
    );
    assert_eq!(
        judge(&banks, Direction::Egress, 80),
        (Reason::NotIsolated, 0)
    );
    assert_eq!(
        banks.judge(8, Direction::Egress, PEER.parse().unwrap(), 6, 80),
        None
    );
}

#[test]
fn the_longest_prefix_names_a_stranger_s_class() {
    let mut banks = banks();
    allow(&mut banks, 50, 1);
    allow(&mut banks, 51, 2);
    for (net, class) in [("0.0.0.0/0", 50), ("198.51.100.0/24", 51)] {
        banks.apply(&Step::PutPrefix {
            net: net.parse().unwrap(),
            value: Prefix { class: [class; 2] },
        });
    }
    assert_eq!(
        judge(&banks, Direction::Ingress, 80),
        (Reason::RuleAllowed, 2)
    );
    assert_eq!(
        judge(&banks, Direction::Ingress, 91),
        (Reason::PolicyDenied, 0)
    );

    banks.apply(&Step::PutAddress {
        address: PEER.parse().unwrap(),
        value: Address {
            class: [50, CLASS_UNLISTED],
            ..Address::default()
        },
    });
    assert_eq!(
        judge(&banks, Direction::Ingress, 80),
        (Reason::RuleAllowed, 1)
    );
    banks.apply(&Step::Commit {
        generation: 1,
        flags: [0; 2],
    });
    assert_eq!(
        judge(&banks, Direction::Ingress, 80),
        (Reason::RuleAllowed, 2),
        "an unlisted address is a stranger"
    );
}

#[test]
fn the_rules_for_any_peer_are_the_fallback() {
    let mut banks = banks();
    allow(&mut banks, CLASS_ANY, 7);
    assert_eq!(
        judge(&banks, Direction::Ingress, 90),
        (Reason::RuleAllowed, 7)
    );
}

#[test]
fn the_host_passes_where_its_flag_is_set_and_is_judged_where_not() {
    let mut banks = banks();
    banks.apply(&Step::PutAddress {
        address: PEER.parse().unwrap(),
        value: Address {
            class: [CLASS_ANY; 2],
            owner: [OWNER_HOST; 2],
            ..Address::default()
        },
    });
    assert_eq!(
        judge(&banks, Direction::Ingress, 80),
        (Reason::PolicyDenied, 0)
    );
    banks.apply(&Step::PutFlags {
        flags: [control_flags::HOST_INGRESS, 0],
    });
    assert_eq!(judge(&banks, Direction::Ingress, 80), (Reason::Host, 0));
}

#[test]
fn an_endpoint_without_a_revision_is_not_in_the_bank() {
    let mut banks = banks();
    banks.endpoints.get_mut(&0).unwrap().banks[0].revision = 0;
    assert_eq!(banks.read_back().endpoints, BTreeMap::new());
}
