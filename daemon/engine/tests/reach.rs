//! What is said of all ends at once is what the rules say of each connection, in random worlds.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;

use netpol_engine::evaluate::{EndpointSpec, Family, evaluate};
use netpol_engine::matrix::matrix;
use netpol_engine::policy::{IpBlock, ObjectName, Protocol};
use netpol_engine::reach::{Members, Ports, Reach};
use netpol_engine::world::{Place, World};
use proptest::prelude::*;

use support::worlds;

/// As manifests state it: local Pods without numbers, and some Pods without addresses.
fn stated() -> impl Strategy<Value = World> {
    (worlds::world(), any::<u8>()).prop_map(|(mut world, bare)| {
        for (index, pod) in world.pods.values_mut().enumerate() {
            if matches!(pod.place, Place::Attached(_)) {
                pod.place = Place::Local;
            }
            if bare & (1 << index) != 0 {
                pod.addresses.clear();
            }
        }
        world
    })
}

/// Both sides of a pair, held against the rules for every port worth asking about.
fn agree(
    world: &World,
    from: &EndpointSpec,
    to: &EndpointSpec,
    ports: Ports,
) -> Result<(), TestCaseError> {
    for protocol in Protocol::ALL {
        for port in worlds::PORTS {
            let verdict = evaluate(world, from, to, protocol, port).unwrap();
            let found = [ports.egress, ports.ingress].map(|set| set.contains(protocol, port));
            let expected = [verdict.egress.allowed, verdict.ingress.allowed];
            prop_assert_eq!(found, expected, "{} -> {} {}/{}", from, to, port, protocol);
            prop_assert_eq!(ports.allow(protocol, port), verdict.allowed);
        }
    }
    Ok(())
}

fn specs(world: &World) -> Vec<EndpointSpec> {
    let pods = world.pods.keys().cloned().map(EndpointSpec::Pod);
    let addresses = worlds::addresses(world)
        .into_iter()
        .map(EndpointSpec::Address);
    pods.chain(addresses).collect()
}

fn covers(block: &IpBlock, address: IpAddr) -> bool {
    block.cidr.contains(&address) && !block.except.iter().any(|net| net.contains(&address))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn reach_says_what_the_rules_say(world in stated()) {
        let reach = Reach::compute(&world).unwrap();
        for from in specs(&world) {
            for to in specs(&world) {
                agree(&world, &from, &to, reach.between(&from, &to).unwrap())?;
            }
        }
    }

    #[test]
    fn each_family_gets_what_the_rules_say_between_its_addresses(world in stated()) {
        let reach = Reach::compute(&world).unwrap();
        for from in world.pods.keys() {
            for to in world.pods.keys().filter(|to| *to != from) {
                let ends = [from, to].map(|name| EndpointSpec::Pod(name.clone()));
                let [one, two] = [from, to].map(|name| reach.pod(name).unwrap());
                for (family, ports) in Family::BOTH.into_iter().zip(reach.by_family(one, two)) {
                    let [from, to] = worlds::over(&world, family, ends.each_ref());
                    agree(&world, &from, &to, ports)?;
                }
            }
        }
    }

    #[test]
    fn a_matrix_names_every_pair_that_ipv6_answers_otherwise(world in stated()) {
        let asked = |port| world.pods.keys().map(Some).chain([None]).map(move |one| (port, one));
        for (port, one) in worlds::PORTS.into_iter().flat_map(asked) {
            let mut matrix = matrix(&world, Protocol::Tcp, port).unwrap();
            matrix.narrow(|name| one.is_none_or(|one| name == one));
            let mut listed = BTreeSet::new();
            for line in matrix.over_ipv6() {
                for from in &line.from {
                    for to in line.to.iter().filter(|to| *to != from) {
                        prop_assert!(listed.insert((*from, *to, line.allowed)), "in two lines");
                    }
                }
            }
            let mut expected = BTreeSet::new();
            for pair in matrix.pairs() {
                let ends = [pair.from, pair.to].map(|name| EndpointSpec::Pod(name.clone()));
                let [from, to] = worlds::over(&world, Family::V6, ends.each_ref());
                let allowed = evaluate(&world, &from, &to, Protocol::Tcp, port).unwrap().allowed;
                if allowed != pair.allowed {
                    expected.insert((pair.from, pair.to, allowed));
                }
            }
            prop_assert_eq!(listed, expected);
        }
    }

    #[test]
    fn a_group_speaks_for_each_of_its_members(world in stated()) {
        let reach = Reach::compute(&world).unwrap();
        let members = |members: &Members| -> Vec<EndpointSpec> {
            match members {
                Members::Pods(pods) => pods.iter().map(|name| EndpointSpec::Pod((*name).clone())).collect(),
                Members::Host(addresses) => addresses.iter().copied().map(EndpointSpec::Address).collect(),
                Members::Strangers(region) => worlds::STRANGERS
                    .iter()
                    .map(|text| text.parse().unwrap())
                    .filter(|address| region.0.iter().any(|block| covers(block, *address)))
                    .filter(|address| !worlds::known_addresses(&world).contains(address))
                    .map(EndpointSpec::Address)
                    .collect(),
            }
        };
        let mut seen: BTreeSet<EndpointSpec> = BTreeSet::new();
        for from in reach.groups() {
            for one in members(&from.members) {
                prop_assert!(seen.insert(one), "in two groups");
            }
            for to in reach.groups() {
                let ports = reach.ports(from.profile, to.profile);
                for one in members(&from.members) {
                    for two in members(&to.members).iter().filter(|two| **two != one) {
                        let strangers = [&from, &to].iter().all(|group| !matches!(group.members, Members::Pods(_)));
                        if !strangers {
                            agree(&world, &one, two, ports)?;
                        }
                    }
                }
            }
        }
        let every_spec = specs(&world).into_iter().filter(|spec| match spec {
            EndpointSpec::Pod(_) => true,
            EndpointSpec::Address(address) => {
                world.host.contains(address)
                    || !world.pods.values().any(|pod| pod.addresses.contains(address))
            }
        });
        prop_assert_eq!(seen, every_spec.collect::<BTreeSet<_>>());
    }
}

#[test]
fn an_unknown_name_has_no_answer() {
    let world = World::default();
    let reach = Reach::compute(&world).unwrap();
    let unknown = ObjectName::new("a", "b");
    assert!(reach.pod(&unknown).is_none());
    assert!(
        reach
            .between(
                &EndpointSpec::Pod(unknown),
                &EndpointSpec::Address([10, 0, 0, 1].into())
            )
            .is_none()
    );
}
