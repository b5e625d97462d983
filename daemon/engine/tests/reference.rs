//! The engine against the reference, from the text of manifests on: rules, matrix and compiled
//! tables say of every connection what the API's text says, in random worlds as people write them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use netpol_engine::compile::compile;
use netpol_engine::evaluate::{Party, evaluate};
use netpol_engine::matrix::matrix;
use netpol_engine::model::Lanes;
use netpol_engine::policy::{Direction, Protocol};
use netpol_engine::world::{Place, World};
use proptest::prelude::*;

use support::manifests::{self, PORTS};
use support::readings;
use support::reference::{self, Cluster, Connection};

fn endpoint(world: &World, address: IpAddr) -> Option<u32> {
    if world.host.contains(&address) {
        return None;
    }
    world.pods.values().find_map(|pod| match &pod.place {
        Place::Attached(attached) if pod.addresses.contains(&address) => Some(attached.id),
        _ => None,
    })
}

/// What both ends' tables say.
fn tables_allow(world: &World, lanes: &Lanes, probe: Connection, protocol: Protocol) -> bool {
    let sides = [
        (Direction::Egress, probe.from, probe.to),
        (Direction::Ingress, probe.to, probe.from),
    ];
    sides.into_iter().all(|(direction, own, peer)| {
        endpoint(world, own).is_none_or(|id| {
            let ruling = lanes.judge(id, direction, peer, protocol.number(), probe.port);
            ruling.unwrap().reason.allows()
        })
    })
}

fn addresses(world: &World) -> BTreeSet<IpAddr> {
    let pods = world.pods.values().flat_map(|pod| &pod.addresses);
    pods.chain(&world.host)
        .copied()
        .chain(manifests::strangers())
        .collect()
}

proptest! {
    #[test]
    fn rules_and_tables_say_what_the_text_says(manifests in manifests::manifests()) {
        let (world, cluster) = (readings::world(&manifests, 0), readings::cluster(&manifests));
        let lanes = Lanes::steady(&compile(&world).tables, 7);
        let addresses = addresses(&world);
        for from in addresses.iter().copied() {
            for to in addresses.iter().copied().filter(|to| to.is_ipv4() == from.is_ipv4()) {
                if endpoint(&world, from).is_none() && endpoint(&world, to).is_none() {
                    continue;
                }
                for (protocol, name) in Protocol::ALL.into_iter().zip(["TCP", "UDP", "SCTP"]) {
                    for port in PORTS {
                        let probe = Connection { from, to, protocol: name, port };
                        let expected = cluster.allows(probe);
                        let verdict =
                            evaluate(&world, &Party::Address(from), &Party::Address(to), protocol, port).unwrap();
                        prop_assert_eq!(verdict.allowed, expected, "rules, {:?} in\n{}", probe, manifests.files.join("\n"));
                        let tables = tables_allow(&world, &lanes, probe, protocol);
                        prop_assert_eq!(tables, expected, "tables, {:?} in\n{}", probe, manifests.files.join("\n"));
                    }
                }
            }
        }
    }

    #[test]
    fn the_matrix_says_what_the_text_says(manifests in manifests::manifests()) {
        let (world, cluster) = (readings::world(&manifests, 0), readings::cluster(&manifests));
        for (protocol, name, port) in [(Protocol::Tcp, "TCP", 80), (Protocol::Udp, "UDP", 53)] {
            for pair in matrix(&world, protocol, port).pairs {
                // Pods speak the first family that both have.
                let common = [true, false].into_iter().find_map(|v4| {
                    let of = |name| world.pods[name].addresses.iter().find(|one| one.is_ipv4() == v4);
                    Some((*of(&pair.from)?, *of(&pair.to)?))
                });
                let Some((from, to)) = common else { continue };
                let expected = cluster.allows(Connection { from, to, protocol: name, port });
                prop_assert_eq!(pair.allowed, expected, "{:?} in\n{}", pair, manifests.files.join("\n"));
            }
        }
    }
}

/// Neither the reference nor what it reads with may know the engine.
#[test]
fn the_reference_shares_nothing_with_the_engine() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/reference");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for foreign in ["netpol_", "ipnet", "super::super", "crate::"] {
            assert!(!text.contains(foreign), "{}: {foreign}", path.display());
        }
        files += 1;
    }
    assert_eq!(files, 3);
    // And it is there to be asked.
    let nobody = Cluster::read([], reference::Host::default()).unwrap();
    let address = "10.0.0.1".parse().unwrap();
    assert!(nobody.allows(Connection {
        from: address,
        to: address,
        protocol: "TCP",
        port: 1
    }));
}
