//! Numbers of a few bits, so that random worlds are full of collisions: each world is refused, or
//! its tables say what they should, and so does every step of the way to them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use netpol_abi::Reason;
use netpol_engine::compile::{Compiler, NumberKey, compile, compile_with};
use netpol_engine::model::MapImage;
use netpol_engine::plan::{Step, plan, recover};
use netpol_engine::policy::{Direction, Protocol};
use netpol_engine::tables::Tables;
use netpol_engine::world::World;
use proptest::strategy::{Strategy, ValueTree as _};
use proptest::test_runner::TestRunner;

use support::tiers::Tiers;
use support::{readings, reference, worlds};

/// Worlds, or sequences of worlds, with numbers of each width.
const CASES: usize = 40;
/// From where most are refused to where few are.
const BITS: [u32; 5] = [1, 2, 3, 4, 7];

fn sample<T>(runner: &mut TestRunner, of: impl Strategy<Value = T>) -> T {
    of.new_tree(runner).unwrap().current()
}

/// What every pair of an endpoint and a peer gets, without the numbers.
type Rulings = BTreeMap<u32, Vec<(Reason, u32, bool)>>;

fn rulings(banks: &MapImage, peers: &[IpAddr]) -> Rulings {
    let bank = banks.control.bank();
    let endpoints = banks.endpoints.values();
    let there = endpoints.filter(|endpoint| endpoint.banks[bank].revision != 0);
    there
        .map(|endpoint| {
            let mut rulings = Vec::new();
            for direction in [Direction::Ingress, Direction::Egress] {
                for peer in peers {
                    for (protocol, port) in [(1, 0), (6, 80), (6, 8080), (17, 53)] {
                        let ruling = banks.judge(endpoint.id, direction, *peer, protocol, port);
                        let ruling = ruling.unwrap();
                        rulings.push((ruling.reason, ruling.rule, ruling.audited));
                    }
                }
            }
            (endpoint.id, rulings)
        })
        .collect()
}

/// The reference's answers to every connection, against the tables'.
fn check(world: &World, tables: &Tables) {
    let banks = MapImage::steady(tables, 7);
    let tiers = Tiers::new(world);
    let addresses = worlds::addresses(world);
    for (id, pod) in worlds::endpoints(world) {
        for own in pod
            .addresses
            .iter()
            .filter(|own| !world.host.contains(*own))
        {
            for peer in addresses
                .iter()
                .filter(|peer| peer.is_ipv4() == own.is_ipv4())
            {
                for port in worlds::PORTS {
                    for (direction, theirs, (from, to)) in [
                        (
                            Direction::Egress,
                            reference::Direction::Egress,
                            (*own, *peer),
                        ),
                        (
                            Direction::Ingress,
                            reference::Direction::Ingress,
                            (*peer, *own),
                        ),
                    ] {
                        if worlds::endpoints(world)
                            .any(|(other, pod)| other < id && pod.addresses.contains(own))
                        {
                            continue;
                        }
                        let ruling = banks
                            .judge(id, direction, *peer, Protocol::Tcp.number(), port)
                            .unwrap();
                        let expected = tiers.side(theirs, from, to, Protocol::Tcp, port);
                        assert_eq!(
                            readings::answer(&ruling),
                            expected,
                            "{from} {to} {port} in {world:#?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_world_is_refused_or_its_tables_are_right() {
    let mut runner = TestRunner::deterministic();
    let (mut refused, mut right) = (0, 0);
    for bits in BITS {
        let key = NumberKey::default().narrowed(bits);
        for _ in 0..CASES {
            let world = sample(&mut runner, worlds::world());
            match compile_with(key, &world) {
                Ok(compiled) => {
                    right += 1;
                    check(&world, &compiled.tables);
                }
                Err(collision) => {
                    refused += 1;
                    assert_ne!(collision.things[0], collision.things[1], "{collision}");
                }
            }
        }
    }
    assert!(
        refused >= CASES && right >= CASES,
        "{refused} refused, {right} right"
    );
}

#[test]
fn a_change_is_refused_or_no_packet_meets_anything_but_the_old_state_and_the_new() {
    let mut runner = TestRunner::deterministic();
    let (mut refused, mut clashed, mut changed) = (0, 0, 0);
    for bits in BITS {
        let key = NumberKey::default().narrowed(bits);
        for _ in 0..CASES {
            let mut world = sample(&mut runner, worlds::world());
            let mut compiler = Compiler::new(key);
            let mut banks = MapImage::default();
            let mut installed = Tables::default();
            let mut peers = worlds::addresses(&world);
            for step in sample(&mut runner, worlds::steps()) {
                step.take(&mut world);
                peers.extend(worlds::addresses(&world));
                let addresses: Vec<IpAddr> = peers.iter().copied().collect();
                let next = compiler.next(&Arc::new(world.clone()));
                assert_eq!(next, compile_with(key, &world));
                let Ok(compiled) = next else {
                    refused += 1;
                    continue;
                };
                let way = plan(&installed, &compiled.tables, banks.control.generation);
                if !way.clashes.is_empty() {
                    clashed += 1;
                    continue;
                }
                changed += 1;
                let old = rulings(&banks, &addresses);
                // The same world under numbers that do not collide.
                let wide = compile(&world).unwrap().tables;
                let wide = plan(&Tables::default(), &wide, 0).installed(wide);
                let new = rulings(&MapImage::steady(&wide, 0), &addresses);
                let mut committed = !way
                    .steps
                    .iter()
                    .any(|step| matches!(step, Step::Commit { .. }));
                for step in &way.steps {
                    banks.apply(step);
                    committed |= matches!(step, Step::Commit { .. });
                    let expected = if committed { &new } else { &old };
                    let actual = rulings(&banks, &addresses);
                    for interface in banks.interfaces.values() {
                        let id = banks.endpoints[&interface.endpoint].id;
                        assert_eq!(actual.get(&id), expected.get(&id), "at {step:?}");
                    }
                }
                installed = way.installed(compiled.tables);
                assert_eq!(banks.read_back(), installed);
                assert_eq!(recover(&banks), []);
                assert_eq!(rulings(&banks, &addresses), new);
            }
        }
    }
    assert!(
        refused > 0 && clashed > 0 && changed > 0,
        "{refused} refused, {clashed} clashed, {changed} changed"
    );
}
