//! A plan on the model of the maps: after every single step each packet is judged by the old
//! state or by the new one, and from every step there is a way back, and a way on.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use netpol_engine::compile::compile;
use netpol_engine::model::{MapImage, Ruling};
use netpol_engine::plan::{Plan, Step, plan, recover};
use netpol_engine::policy::Direction;
use netpol_engine::tables::Tables;
use proptest::prelude::*;

use support::worlds;

const GENERATION: u64 = 41;

/// Every answer for one endpoint.
type Rulings = Vec<Ruling>;

fn rulings(banks: &MapImage, peers: &[IpAddr], endpoint: u32) -> Rulings {
    let mut rulings = Vec::new();
    for direction in [Direction::Ingress, Direction::Egress] {
        for peer in peers {
            for (protocol, port) in [(1, 0), (6, 80), (6, 8080), (17, 53)] {
                rulings.push(
                    banks
                        .judge(endpoint, direction, *peer, protocol, port)
                        .unwrap(),
                );
            }
        }
    }
    rulings
}

/// What is said behind published ports, to a client that dials from each of these addresses.
fn behind(banks: &MapImage, peers: &[IpAddr]) -> Vec<Option<Ruling>> {
    let hosts = [
        "192.0.2.1",
        worlds::BROADCAST,
        "224.0.0.1",
        "fd00::4000",
        "203.0.113.63",
    ];
    let hosts = hosts.map(|text| text.parse::<IpAddr>().unwrap());
    let mut rulings = Vec::new();
    for (from, to) in peers.iter().flat_map(|from| hosts.map(|to| (*from, to))) {
        if from.is_ipv4() == to.is_ipv4() {
            for port in worlds::PUBLISHED {
                rulings.extend([6, 17, 132].map(|protocol| banks.behind(from, to, protocol, port)));
            }
        }
    }
    rulings
}

/// By endpoint number.
fn all_rulings(banks: &MapImage, peers: &[IpAddr]) -> BTreeMap<u32, Rulings> {
    let endpoints = banks.read_back().endpoints;
    let ids = endpoints.values().map(|endpoint| endpoint.id);
    ids.map(|id| (id, rulings(banks, peers, id))).collect()
}

/// Installed from nothing, so that it has revisions.
fn installed(tables: &Tables) -> Tables {
    plan(&Tables::default(), tables, GENERATION - 1).installed(tables.clone())
}

fn carry_out(banks: &mut MapImage, plan: &Plan) {
    for step in &plan.steps {
        banks.apply(step);
    }
}

fn without_revisions(mut tables: Tables) -> Tables {
    for endpoint in tables.endpoints.values_mut() {
        endpoint.revision = 0;
    }
    tables
}

fn check_demand(banks: &MapImage, plan: &Plan) {
    let v4 = |address: &&IpAddr| address.is_ipv4();
    let demand = &plan.demand;
    assert!(banks.addresses.keys().filter(v4).count() <= demand.addresses4);
    assert!(banks.addresses.keys().filter(|a| !v4(a)).count() <= demand.addresses6);
    let v4 = |net: &&IpNet| matches!(net, IpNet::V4(_));
    assert!(banks.prefixes.keys().filter(v4).count() <= demand.prefixes4);
    assert!(banks.prefixes.keys().filter(|n| !v4(n)).count() <= demand.prefixes6);
    let v4 = |key: &&(u32, IpNet)| matches!(key.1, IpNet::V4(_));
    assert!(banks.leaves.keys().filter(v4).count() <= demand.leaves4);
    assert!(banks.leaves.keys().filter(|key| !v4(key)).count() <= demand.leaves6);
    assert!(banks.published.len() <= demand.published);
    assert!(banks.verdicts.len() <= demand.verdicts);
    assert!(banks.port_blocks.len() <= demand.port_blocks);
    assert!(banks.endpoints.keys().all(|slot| *slot < demand.endpoints));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, ..ProptestConfig::default() })]

    #[test]
    fn every_prefix_of_a_plan_is_the_old_state_or_the_new((before, after) in worlds::change()) {
        let old = installed(&compile(&before).unwrap().tables);
        let desired = compile(&after).unwrap().tables;
        let plan = plan(&old, &desired, GENERATION);
        prop_assert_eq!(&plan.clashes, &[]);
        let new = plan.installed(desired.clone());
        let commit = plan.steps.iter().position(|step| matches!(step, Step::Commit { .. }));

        let mut peers = worlds::addresses(&before);
        peers.extend(worlds::addresses(&after));
        let peers: Vec<IpAddr> = peers.into_iter().collect();
        let start = MapImage::steady(&old, GENERATION);
        let end = MapImage::steady(&new, plan.generation);
        let (rulings_old, rulings_new) = (all_rulings(&start, &peers), all_rulings(&end, &peers));
        let (behind_old, behind_new) = (behind(&start, &peers), behind(&end, &peers));

        let mut banks = start.clone();
        let mut undo = Vec::new();
        for done in 0..=plan.steps.len() {
            let committed = commit.is_none_or(|commit| commit < done);
            let expected = if committed { &rulings_new } else { &rulings_old };
            for (ifindex, interface) in &banks.interfaces {
                let endpoint = banks.endpoints.get(&interface.endpoint);
                let endpoint = endpoint.expect("an interface leads to an endpoint");
                prop_assert!(endpoint.banks[banks.control.bank()].revision != 0, "{}", ifindex);
                let whole = if committed { &end } else { &start };
                for peer in &peers {
                    let slot = interface.endpoint;
                    prop_assert_eq!(banks.leave(slot, *peer), whole.leave(slot, *peer), "{} after {}", peer, done);
                }
                let rulings = rulings(&banks, &peers, endpoint.id);
                prop_assert_eq!(Some(&rulings), expected.get(&endpoint.id), "after {} steps", done);
            }
            for (ifindex, interface) in &old.interfaces {
                let same = |tables: &Tables| tables.endpoints.get(&interface.endpoint).map(|e| e.id);
                let stays = desired.interfaces.get(ifindex).is_some_and(|after| after.endpoint == interface.endpoint);
                if stays && same(&old) == same(&desired) {
                    prop_assert!(banks.interfaces.contains_key(ifindex), "on hold without need");
                }
            }
            let expected_behind = if committed { &behind_new } else { &behind_old };
            prop_assert_eq!(&behind(&banks, &peers), expected_behind, "after {} steps", done);
            check_demand(&banks, &plan);

            // Stopped here and started again: the same verdicts, tidy maps, and the goal within reach.
            let mut recovered = banks.clone();
            for step in recover(&banks) {
                recovered.apply(&step);
            }
            let found = recovered.read_back();
            prop_assert_eq!(&recovered.interfaces, &banks.interfaces);
            for (id, rulings) in all_rulings(&recovered, &peers) {
                prop_assert_eq!(Some(&rulings), expected.get(&id));
            }
            prop_assert_eq!(&behind(&recovered, &peers), expected_behind);
            prop_assert_eq!(&MapImage::steady(&found, banks.control.generation), &recovered);
            prop_assert_eq!(recover(&recovered), Vec::new());
            let again = netpol_engine::plan::plan(&found, &desired, banks.control.generation);
            prop_assert_eq!(&again.clashes, &[]);
            carry_out(&mut recovered, &again);
            prop_assert_eq!(without_revisions(recovered.read_back()), without_revisions(desired.clone()));

            // Failed here: all the way back.
            if !committed || done == 0 {
                let mut undone = banks.clone();
                for step in undo.iter().rev() {
                    undone.apply(step);
                }
                prop_assert_eq!(&undone, &start);
            }
            if let Some(step) = plan.steps.get(done) {
                undo.extend(banks.inverse(step));
                banks.apply(step);
            }
        }
        prop_assert_eq!(&banks, &end);
        prop_assert!(netpol_engine::plan::plan(&new, &desired, plan.generation).is_empty());
    }

    #[test]
    fn a_verdict_does_not_change_without_a_revision((before, after) in worlds::change()) {
        let old = installed(&compile(&before).unwrap().tables);
        let desired = compile(&after).unwrap().tables;
        let plan = plan(&old, &desired, GENERATION);
        let peers: Vec<IpAddr> = worlds::addresses(&before).union(&worlds::addresses(&after)).copied().collect();
        let start = MapImage::steady(&old, GENERATION);
        let end = MapImage::steady(&plan.installed(desired), plan.generation);
        for (slot, endpoint) in &plan.endpoints {
            let Some(was) = old.endpoints.get(slot).filter(|was| was.id == endpoint.id) else {
                prop_assert_eq!(endpoint.revision, plan.generation as u32);
                continue;
            };
            if was.revision == endpoint.revision {
                let own: Vec<IpAddr> = peers
                    .iter()
                    .filter(|peer| end.peer(**peer).owner == endpoint.id)
                    .copied()
                    .collect();
                let allows = |banks: &MapImage| -> Vec<_> {
                    let rulings = behind(banks, &own);
                    rulings.into_iter().map(|ruling| ruling.map(|ruling| ruling.passes())).collect()
                };
                prop_assert_eq!(allows(&start), allows(&end));
                for peer in &peers {
                    let owner = |banks: &MapImage| banks.peer(*peer).owner;
                    prop_assert_eq!(start.leave(*slot, *peer), end.leave(*slot, *peer), "{}", peer);
                    if end.leave(*slot, *peer) != 0 {
                        prop_assert_eq!(owner(&start), owner(&end), "{}", peer);
                    }
                }
                let now = rulings(&end, &peers, endpoint.id);
                for (before, now) in rulings(&start, &peers, endpoint.id).iter().zip(&now) {
                    // An address that becomes the endpoint's own has no connections yet.
                    prop_assert!(before.reason.allows() == now.reason.allows() || now.reason == netpol_abi::Reason::Itself);
                }
            }
        }
    }
}
