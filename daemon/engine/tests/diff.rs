//! What opens and closes is what the rules of the two worlds say apart, pair by pair, in random
//! worlds; and rows are the pairs and no others.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;

use netpol_engine::diff::{Diff, End, Turn};
use netpol_engine::evaluate::{EndpointSpec, Family, evaluate};
use netpol_engine::policy::Protocol;
use netpol_engine::reach::{Members, PortSet};
use netpol_engine::world::World;
use proptest::prelude::*;

use support::worlds;

/// Those that are compared: Pods of both worlds, the host at addresses of both, strangers to both.
fn compared(old: &World, new: &World) -> Vec<EndpointSpec> {
    let pods = old.pods.keys().filter(|name| new.pods.contains_key(name));
    let hosts = old.host.intersection(&new.host).copied();
    let known = [old, new].map(worlds::known_addresses);
    let strangers = worlds::STRANGERS
        .iter()
        .map(|text| text.parse::<IpAddr>().unwrap())
        .filter(|address| !known.iter().any(|known| known.contains(address)));
    pods.cloned()
        .map(EndpointSpec::Pod)
        .chain(hosts.chain(strangers).map(EndpointSpec::Address))
        .collect()
}

fn is(end: End, spec: &EndpointSpec, old: &World) -> bool {
    match (end, spec) {
        (End::Pod(name), EndpointSpec::Pod(wanted)) => name == wanted,
        (End::Host(None), EndpointSpec::Address(address)) => old.host.contains(address),
        (End::Host(Some(host)), EndpointSpec::Address(address)) => host == *address,
        (End::Block(block), EndpointSpec::Address(address)) => {
            !old.host.contains(address)
                && block.cidr.contains(address)
                && !block.except.iter().any(|net| net.contains(address))
        }
        _ => false,
    }
}

/// The ports that turn between two of them over a family.
fn found(
    diff: &Diff,
    turn: Turn,
    old: &World,
    ends: [&EndpointSpec; 2],
    family: Family,
) -> PortSet {
    let [from, to] = ends;
    let mut all = diff
        .pairs(turn)
        .filter(|(one, two, _)| is(*one, from, old) && is(*two, to, old))
        .filter(|(_, _, ports)| ports.family.is_none_or(|one| one == family));
    let ports = all.next().map(|(_, _, turned)| turned.ports.clone());
    assert_eq!(all.next(), None, "{from} -> {to} twice");
    ports.unwrap_or_default()
}

/// Members as texts, which tell all of them apart.
fn texts(members: &[&Members]) -> BTreeSet<String> {
    members
        .iter()
        .flat_map(|members| match members {
            Members::Pods(pods) => pods.iter().map(ToString::to_string).collect(),
            Members::Host(addresses) if addresses.is_empty() => vec!["host".to_owned()],
            Members::Host(addresses) => addresses.iter().map(|one| format!("host {one}")).collect(),
            Members::Strangers(region) => region.0.iter().map(ToString::to_string).collect(),
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_turns_is_what_the_rules_say_apart((old, new) in worlds::change()) {
        let diff = Diff::between(&old, &new).unwrap();
        let specs = compared(&old, &new);
        for from in &specs {
            for to in specs.iter().filter(|to| *to != from) {
                for family in Family::BOTH {
                    let turned = [Turn::Opened, Turn::Closed].map(|turn| found(&diff, turn, &old, [from, to], family));
                    for protocol in Protocol::ALL {
                        for port in worlds::PORTS {
                            let [before, after] = [&old, &new].map(|world| {
                                let [from, to] = worlds::over(world, family, [from, to]);
                                evaluate(world, &from, &to, protocol, port).unwrap().allowed
                            });
                            let expected = [!before && after, before && !after];
                            let says = [0, 1].map(|turn| turned[turn].contains(protocol, port));
                            prop_assert_eq!(says, expected, "{} -> {} {}/{} {}", from, to, port, protocol, family);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_are_the_pairs((old, new) in worlds::change()) {
        let diff = Diff::between(&old, &new).unwrap();
        for turn in [Turn::Opened, Turn::Closed] {
            let pairs: BTreeSet<(String, String, String)> = diff
                .pairs(turn)
                .map(|(from, to, ports)| (from.to_string(), to.to_string(), ports.to_string()))
                .collect();
            let ends: BTreeSet<_> = pairs.iter().map(|(from, to, _)| (from, to)).collect();
            prop_assert_eq!(diff.count(turn), ends.len());
            let mut in_rows = BTreeSet::new();
            for row in diff.rows().iter().filter(|row| row.turn == turn) {
                for from in texts(&row.from) {
                    for to in texts(&row.to).into_iter().filter(|to| *to != from) {
                        let pair = (from.clone(), to, row.ports.to_string());
                        prop_assert!(in_rows.insert(pair), "in two rows");
                    }
                }
            }
            prop_assert_eq!(in_rows, pairs);
        }
        prop_assert_eq!(diff.is_empty(), diff.rows().is_empty());
    }

    #[test]
    fn a_world_does_not_differ_from_itself(world in worlds::world()) {
        let diff = Diff::between(&world, &world).unwrap();
        prop_assert!(diff.is_empty() && diff.policies.is_empty());
        prop_assert!(diff.pods.is_empty() && diff.namespaces.is_empty());
    }
}
