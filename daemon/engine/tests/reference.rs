//! The engine against the reference, from the text of manifests on: rules, matrix and compiled
//! tables say of every connection what the API's text says, in random worlds as people write them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use netpol_engine::compile::compile;
use netpol_engine::evaluate::{EndpointSpec, evaluate};
use netpol_engine::matrix::matrix;
use netpol_engine::model::MapImage;
use netpol_engine::policy::{Direction, ObjectName, Protocol};
use proptest::prelude::*;

use support::manifests::{self, PORTS};
use support::readings;
use support::reference::{self, Answer, Cluster, Connection};

proptest! {
    #[test]
    fn rules_and_tables_say_what_the_text_says(manifests in manifests::manifests()) {
        let (world, cluster) = (readings::world(&manifests, 0), readings::cluster(&manifests));
        let banks = MapImage::steady(&compile(&world).unwrap().tables, 7);
        // Not the engine's: an address that it overlooks is asked about too.
        let held: BTreeSet<IpAddr> = cluster.addresses().collect();
        let addresses: BTreeSet<IpAddr> = held.iter().copied().chain(manifests::strangers()).collect();
        for from in addresses.iter().copied() {
            for to in addresses.iter().copied().filter(|to| to.is_ipv4() == from.is_ipv4()) {
                if !held.contains(&from) && !held.contains(&to) {
                    continue;
                }
                for (protocol, name) in Protocol::ALL.into_iter().zip(["TCP", "UDP", "SCTP"]) {
                    for port in PORTS {
                        let probe = Connection { from, to, protocol: name, port };
                        let expected = [
                            cluster.side(reference::Direction::Egress, probe),
                            cluster.side(reference::Direction::Ingress, probe),
                        ];
                        let ends = [from, to].map(EndpointSpec::Address);
                        let verdict = evaluate(&world, &ends[0], &ends[1], protocol, port).unwrap();
                        prop_assert_eq!(verdict.allowed, !expected.contains(&Answer::Dropped));
                        let rules = [&verdict.egress, &verdict.ingress].map(readings::rules_answer);
                        prop_assert_eq!(rules, expected, "rules, {:?} in\n{}", probe, manifests.files.join("\n"));
                        let tables = [Direction::Egress, Direction::Ingress]
                            .map(|one| readings::tables_answer(&world, &banks, one, probe, protocol));
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
            for pair in matrix(&world, protocol, port).unwrap().pairs() {
                // Pods speak the first family that both have.
                let common = [true, false].into_iter().find_map(|v4| {
                    let address = |name: &ObjectName| {
                        let mut all = cluster.addresses_of(&name.namespace, &name.name).into_iter();
                        all.find(|one| one.is_ipv4() == v4)
                    };
                    Some((address(pair.from)?, address(pair.to)?))
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
    let empty = Cluster::read([], reference::Host::default()).unwrap();
    let address = "10.0.0.1".parse().unwrap();
    assert!(empty.allows(Connection {
        from: address,
        to: address,
        protocol: "TCP",
        port: 1
    }));
}
