//! The steps of small plans, spelled out; that they are right on every way is tried in
//! `tests/transitions.rs`.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use netpol_abi::tables::{CLASS_ANY, OWNER_HOST, PortRange, control_flags};

use super::*;
use crate::model::MapImage;
use crate::tables::{InterfaceEntry, VerdictEntry};

const GENERATION: u64 = 6;

fn endpoint(tables: &mut Tables, id: u32, ingress: u64) {
    let entry = EndpointEntry {
        id,
        ingress,
        audited_ingress: ingress,
        revision: 3,
        ..EndpointEntry::default()
    };
    tables.endpoints.insert(id, entry);
    let interface = InterfaceEntry {
        endpoint: id,
        mac: [2, 0, 0, 0, 0, id as u8],
        netns: 0,
    };
    tables.interfaces.insert(id + 10, interface);
    address(tables, id as u8, CLASS_ANY, id);
}

fn address(tables: &mut Tables, last: u8, class: u64, owner: u32) {
    let entry = AddressEntry {
        class,
        owner,
        slot: 0,
    };
    tables.addresses.insert([10, 0, 0, last].into(), entry);
}

fn allow(tables: &mut Tables, policy_set: u64, class: u64, rule: u32) {
    let entry = VerdictEntry {
        other: rule,
        ranges: Vec::new(),
    };
    tables
        .verdicts
        .insert(VerdictKey { policy_set, class }, entry);
}

/// Endpoints 1 and 2 with policy sets 100 and 200; 100 lets class 50 in.
fn tables() -> Tables {
    let mut tables = Tables::default();
    endpoint(&mut tables, 1, 100);
    endpoint(&mut tables, 2, 200);
    allow(&mut tables, 100, 50, 1);
    tables
}

fn revisions(before: &Tables, after: &Tables) -> Vec<u32> {
    plan(before, after, GENERATION)
        .endpoints
        .values()
        .map(|endpoint| endpoint.revision)
        .collect()
}

/// The names of the steps, in order.
fn kinds(plan: &Plan) -> Vec<String> {
    let name = |step: &Step| {
        format!("{step:?}")
            .split([' ', '{'])
            .next()
            .unwrap()
            .to_owned()
    };
    plan.steps.iter().map(name).collect()
}

#[test]
fn nothing_to_do_is_no_step_and_no_commit() {
    let plan = plan(&tables(), &tables(), GENERATION);
    assert!(plan.is_empty());
    assert_eq!(
        (plan.generation, plan.endpoints),
        (GENERATION, tables().endpoints)
    );
}

#[test]
fn a_new_endpoint_is_released_after_the_commit() {
    let mut after = tables();
    endpoint(&mut after, 3, 100);
    let plan = plan(&tables(), &after, GENERATION);
    assert_eq!(
        kinds(&plan),
        [
            "PutEndpoint",
            "PutAddress",
            "Commit",
            "PutInterface",
            "WaitGracePeriod",
            "PutEndpoint",
            "PutAddress"
        ]
    );
    assert_eq!(plan.generation, 7);
    let Step::PutEndpoint { value, .. } = &plan.steps[0] else {
        panic!("{:?}", plan.steps[0]);
    };
    let revisions = value.banks.map(|bank| bank.revision);
    assert_eq!(revisions, [0, 7], "it is not in the bank that is read");
    assert_eq!(value.banks[0].ingress, 100, "and denied there all the same");
}

#[test]
fn an_endpoint_that_goes_is_on_hold_first() {
    let mut after = tables();
    after.endpoints.remove(&2);
    after.interfaces.remove(&12);
    after.addresses.remove(&IpAddr::from([10, 0, 0, 2]));
    let plan = plan(&tables(), &after, GENERATION);
    assert_eq!(
        kinds(&plan),
        [
            "DeleteInterface",
            "PutEndpoint",
            "PutAddress",
            "Commit",
            "WaitGracePeriod",
            "PutEndpoint",
            "DeleteAddress"
        ]
    );
    let freed = Step::PutEndpoint {
        slot: 2,
        value: Endpoint::default(),
    };
    assert_eq!(plan.steps[5], freed);
}

#[test]
fn a_slot_changes_hands_after_a_grace_period() {
    let mut after = tables();
    after.endpoints.get_mut(&2).unwrap().id = 9;
    let plan = plan(&tables(), &after, GENERATION);
    assert_eq!(
        kinds(&plan),
        [
            "DeleteInterface",
            "WaitGracePeriod",
            "PutEndpoint",
            "Commit",
            "PutInterface",
            "WaitGracePeriod",
            "PutEndpoint"
        ]
    );
}

#[test]
fn another_mac_address_needs_no_commit() {
    let mut after = tables();
    after.interfaces.get_mut(&12).unwrap().mac[5] = 9;
    let plan = plan(&tables(), &after, GENERATION);
    assert_eq!(
        (kinds(&plan), plan.generation),
        (vec!["PutInterface".to_owned()], GENERATION)
    );
}

#[test]
fn flags_are_in_place_before_the_commit() {
    let mut after = tables();
    after.flags = control_flags::HOST_INGRESS;
    let plan = plan(&tables(), &after, GENERATION);
    let flags = [0, control_flags::HOST_INGRESS];
    assert_eq!(plan.steps[0], Step::PutFlags { flags });
    let commit = Step::Commit {
        generation: 7,
        flags,
    };
    assert!(plan.steps.contains(&commit));
    assert_eq!(revisions(&tables(), &after), [7, 7]);
}

#[test]
fn long_verdicts_chain_blocks_that_are_there_before_them() {
    let ranges = |count: u16| VerdictEntry {
        other: 0,
        ranges: (0..count)
            .map(|port| PortRange {
                first: port * 2,
                last: port * 2,
                protocol: 6,
                rule: 1,
                ..PortRange::default()
            })
            .collect(),
    };
    let mut after = tables();
    let (one, two) = (
        VerdictKey {
            policy_set: 100,
            class: 51,
        },
        VerdictKey {
            policy_set: 100,
            class: 52,
        },
    );
    after.verdicts.insert(one, ranges(40));
    after.verdicts.insert(two, ranges(40));
    let there = plan(&tables(), &after, GENERATION);
    assert_eq!(
        kinds(&there),
        ["PutPortBlock", "PutPortBlock", "PutVerdict", "PutVerdict"]
    );
    assert_eq!((there.demand.verdicts, there.demand.port_blocks), (3, 2));
    let mut after = there.installed(after);

    let mut fewer = after.clone();
    fewer.verdicts.remove(&one);
    let back = plan(&after, &fewer, GENERATION);
    assert_eq!(
        kinds(&back),
        ["WaitGracePeriod", "DeleteVerdict"],
        "the other still chains them"
    );
    let back = plan(&after, &tables(), GENERATION);
    assert_eq!(
        kinds(&back),
        [
            "WaitGracePeriod",
            "DeleteVerdict",
            "DeleteVerdict",
            "DeletePortBlock",
            "DeletePortBlock"
        ]
    );
    assert_eq!(back.installed(tables()).port_blocks.ids().count(), 0);

    // Of blocks that are not where they should be, none is taken for granted.
    let lost = Tables {
        port_blocks: PortBlocks::default(),
        ..after.clone()
    };
    assert_eq!(
        kinds(&plan(&lost, &fewer, GENERATION)),
        [
            "PutPortBlock",
            "PutPortBlock",
            "PutVerdict",
            "WaitGracePeriod",
            "DeleteVerdict"
        ]
    );

    after.verdicts.insert(two, ranges(2000));
    assert_eq!(
        plan(&tables(), &after, GENERATION).demand.too_many_ranges,
        [two]
    );
}

/// Blocks are told apart by what they hold, and found under whatever id they have.
#[test]
fn blocks_that_another_netpold_numbered_are_kept() {
    let mut tables = tables();
    let ports = |first: u16| VerdictEntry {
        other: 0,
        ranges: (0..30)
            .map(|port| PortRange {
                first: first + port * 2,
                last: first + port * 2,
                protocol: 6,
                rule: 1,
                ..PortRange::default()
            })
            .collect(),
    };
    let key = VerdictKey {
        policy_set: 100,
        class: 51,
    };
    tables.verdicts.insert(key, ports(0));
    let mut banks = MapImage::steady(&tables, GENERATION);
    let ids: Vec<u64> = banks.port_blocks.keys().copied().collect();
    assert_eq!(ids, [1, 2]);
    // As hashes were: anywhere.
    for block in banks
        .port_blocks
        .values_mut()
        .filter(|block| block.next != 0)
    {
        block.next = u64::MAX;
    }
    let [head, tail] = [2, 1].map(|id| banks.port_blocks.remove(&id).unwrap());
    banks.port_blocks.extend([(77, head), (u64::MAX, tail)]);
    banks.verdicts.get_mut(&key).unwrap().spill = 77;
    let found = banks.read_back();
    assert_eq!(found, tables);
    assert!(plan(&found, &tables, GENERATION).is_empty());

    let mut after = tables.clone();
    allow(&mut after, 100, 53, 1);
    let other = VerdictKey { class: 52, ..key };
    after.verdicts.insert(other, ports(1000));
    let there = plan(&found, &after, GENERATION);
    for step in &there.steps {
        banks.apply(step);
    }
    assert_eq!(banks.entry(key), Some(ports(0)));
    assert_eq!(banks.entry(other), Some(ports(1000)));
    assert_eq!(banks.read_back(), there.installed(after));
}

/// Numbers that stand for two things, made by hand: the states ask for the same pair, which says
/// something else in each.
#[test]
fn a_pair_that_would_say_something_else_is_a_clash() {
    let key = |class| VerdictKey {
        policy_set: 100,
        class,
    };
    let mut before = tables();
    address(&mut before, 9, 50, 0);
    address(&mut before, 8, 51, 0);
    let clashes = |before: &Tables, after: &Tables| plan(before, after, GENERATION).clashes;
    assert_eq!(clashes(&before, &before), []);
    let mut other = before.clone();
    allow(&mut other, 100, 50, 2);
    let mut more = before.clone();
    allow(&mut more, 100, 51, 1);
    let mut less = before.clone();
    less.verdicts.remove(&key(50));
    let mut any = before.clone();
    allow(&mut any, 100, CLASS_ANY, 1);
    for (after, class) in [(&other, 50), (&more, 51), (&less, 50), (&any, CLASS_ANY)] {
        assert_eq!(clashes(&before, after), [key(class)]);
        assert_eq!(clashes(after, &before), [key(class)]);
        // What only one of the states asks for may be anything.
        let mut unasked = before.clone();
        let endpoint = unasked.endpoints.get_mut(&1).unwrap();
        (endpoint.ingress, endpoint.audited_ingress) = (300, 300);
        assert_eq!(clashes(&unasked, after), []);
        assert_eq!(clashes(after, &unasked), []);
        // An audited policy set is asked too.
        unasked.endpoints.get_mut(&1).unwrap().audited_ingress = 100;
        assert_eq!(clashes(&unasked, after), [key(class)]);
        if class == CLASS_ANY {
            continue;
        }
        let mut unasked = before.clone();
        unasked.addresses.retain(|_, entry| entry.class != class);
        assert_eq!(clashes(&unasked, after), []);
        assert_eq!(clashes(after, &unasked), []);
        // Strangers have a class too.
        let net = "192.0.2.0/24".parse().unwrap();
        Arc::make_mut(&mut unasked.prefixes).insert(net, class);
        assert_eq!(clashes(&unasked, after), [key(class)]);
    }
}

#[test]
fn a_prefix_of_one_state_says_in_the_other_s_bank_what_is_around_it() {
    let net = |text: &str| -> IpNet { text.parse().unwrap() };
    let [outer, inner, apart] = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24"].map(net);
    let mut before = tables();
    Arc::make_mut(&mut before.prefixes).insert(outer, 50);
    let mut after = before.clone();
    Arc::make_mut(&mut after.prefixes).extend([(inner, 51), (apart, 52)]);
    let staged = |plan: &Plan, net: IpNet| {
        let first = plan.steps.iter().find_map(|step| match step {
            Step::PutPrefix { net: of, value } if *of == net => Some(value.class),
            _ => None,
        });
        first.unwrap()
    };
    let there = plan(&before, &after, GENERATION);
    assert_eq!(staged(&there, inner), [50, 51]);
    assert_eq!(staged(&there, apart), [CLASS_ANY, 52]);
    let back = plan(&after, &before, GENERATION);
    assert_eq!(staged(&back, inner), [51, 50]);
    assert_eq!(staged(&back, apart), [52, CLASS_ANY]);
}

#[test]
fn only_what_a_change_touches_is_judged_again() {
    let before = tables();
    let changed = |change: &dyn Fn(&mut Tables)| {
        let mut after = before.clone();
        change(&mut after);
        revisions(&before, &after)
    };
    assert_eq!(
        changed(&|after| endpoint(after, 3, 0)),
        [3, 3, 7],
        "a new endpoint"
    );
    assert_eq!(
        changed(&|after| address(after, 9, 50, 0)),
        [7, 3],
        "a stranger gets class 50"
    );
    assert_eq!(
        changed(&|after| address(after, 9, 51, 0)),
        [3, 3],
        "no rule knows class 51"
    );
    assert_eq!(
        changed(&|after| {
            Arc::make_mut(&mut after.prefixes).insert("10.0.0.0/8".parse().unwrap(), 50);
        }),
        [7, 3],
        "strangers get class 50"
    );
    assert_eq!(
        changed(&|after| {
            after.endpoints.get_mut(&2).unwrap().ingress = 201;
        }),
        [3, 7],
        "another policy set"
    );
    assert_eq!(
        changed(&|after| {
            after.addresses.remove(&IpAddr::from([10, 0, 0, 2]));
        }),
        [3, 7],
        "an address less"
    );
    assert_eq!(
        changed(&|after| {
            address(after, 9, 51, 0);
            allow(after, 100, 51, 1);
            allow(after, 200, 51, 1);
        }),
        [7, 7],
        "a class that both know"
    );
}

#[test]
fn a_class_of_another_number_that_says_the_same_costs_no_revision() {
    let mut before = tables();
    address(&mut before, 9, 50, 0);
    let mut after = before.clone();
    address(&mut after, 9, 51, 0);
    allow(&mut after, 100, 51, 1);
    after.verdicts.remove(&VerdictKey {
        policy_set: 100,
        class: 50,
    });
    assert_eq!(revisions(&before, &after), [3, 3]);
}

#[test]
fn an_address_of_the_host_matters_where_the_host_passes() {
    let mut before = tables();
    address(&mut before, 9, 51, 0);
    let mut after = before.clone();
    address(&mut after, 9, 51, OWNER_HOST);
    assert_eq!(
        revisions(&before, &after),
        [3, 3],
        "it is judged like any sender"
    );
    for tables in [&mut before, &mut after] {
        tables.flags = control_flags::HOST_INGRESS;
    }
    assert_eq!(revisions(&before, &after), [7, 7]);
}
