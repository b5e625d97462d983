//! The conformance cases offline: every expected verdict from the rules, from the matrix, from the
//! compiled tables and from the reference. The format is in `tests/conformance/README.md`.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/src/cases.rs"]
mod cases;
mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cases::Expected;
use netpol_engine::compile::compile;
use netpol_engine::evaluate::{EndpointSpec, evaluate};
use netpol_engine::manifest::{File, assemble, parse};
use netpol_engine::matrix::matrix;
use netpol_engine::model::MapImage;
use netpol_engine::plan::plan;
use netpol_engine::policy::{Direction, ObjectName, Protocol};
use netpol_engine::tables::Tables;
use netpol_engine::world::{Place, World};
use support::readings;
use support::reference::{Cluster, Connection, Host};
use support::written;

/// A case, its world twice: as it is, and with numbers for its local Pods.
struct Case {
    name: String,
    expected: Expected,
    world: World,
    tables: Tables,
    attached: World,
    cluster: Cluster,
}

fn folders(kind: &str) -> Vec<PathBuf> {
    cases::folders(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance"),
        kind,
    )
}

fn read(folder: &Path) -> (String, File, Expected) {
    let path = folder.join("manifests.yaml");
    let text = cases::text(&path);
    let file = parse(&path.to_string_lossy(), &text);
    (text, file, Expected::read(folder))
}

fn cases() -> Vec<Case> {
    let case = |folder: PathBuf| {
        let (text, file, expected) = read(&folder);
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        assert!(file.is_accepted(), "{name}: {:?}", file.diagnostics);
        let assembled = assemble([&file]);
        assert!(
            assembled.diagnostics.is_empty(),
            "{name}: {:?}",
            assembled.diagnostics
        );
        let world = assembled.world();
        let mut attached = world.clone();
        readings::number(&mut attached, 0);
        Case {
            name,
            expected,
            cluster: Cluster::read([text.as_str()], Host::default()).unwrap(),
            tables: compile(&attached).unwrap().tables,
            world,
            attached,
        }
    };
    folders("cases").into_iter().map(case).collect()
}

impl Case {
    fn pods(&self) -> BTreeSet<ObjectName> {
        self.world.pods.keys().cloned().collect()
    }

    /// The addresses between which two ends speak, in every family that both have.
    fn addresses(&self, from: &str, to: &str) -> Vec<(IpAddr, IpAddr)> {
        let addresses_of = |text: &str| match text.parse().unwrap() {
            EndpointSpec::Address(address) => vec![address],
            EndpointSpec::Pod(name) => self.world.pods[&name].addresses.iter().copied().collect(),
        };
        let mut pairs = Vec::new();
        for from in addresses_of(from) {
            pairs.extend(
                addresses_of(to)
                    .into_iter()
                    .filter(|to| to.is_ipv4() == from.is_ipv4())
                    .map(|to| (from, to)),
            );
        }
        assert!(
            !pairs.is_empty(),
            "{}: {from} and {to} have no family in common",
            self.name
        );
        pairs
    }

    /// What both ends' tables say.
    fn tables_allow(
        &self,
        banks: &MapImage,
        from: IpAddr,
        to: IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> bool {
        let side = |own: IpAddr, peer, direction| {
            let owner = self
                .attached
                .pods
                .values()
                .find(|pod| pod.addresses.contains(&own));
            let Some(Place::Attached(attached)) = owner.map(|pod| &pod.place) else {
                return true;
            };
            let ruling = banks.judge(attached.id, direction, peer, protocol.number(), port);
            ruling.unwrap().passes()
        };
        side(from, to, Direction::Egress) && side(to, from, Direction::Ingress)
    }
}

#[test]
fn rules_tables_and_reference_answer_as_expected() {
    let mut wrong = Vec::new();
    let mut asked = 0;
    for case in cases() {
        let banks = MapImage::steady(&case.tables, 1);
        for probe in case.expected.expectations(&case.pods()) {
            let cases::Probe {
                from,
                to,
                protocol,
                port,
                allow,
            } = probe;
            asked += 1;
            let mut answers = Vec::new();
            let verdict = evaluate(
                &case.world,
                &from.parse().unwrap(),
                &to.parse().unwrap(),
                protocol,
                port,
            );
            answers.push(("rules", verdict.unwrap().allowed));
            for (from, to) in case.addresses(&from, &to) {
                answers.push((
                    "tables",
                    case.tables_allow(&banks, from, to, protocol, port),
                ));
                let connection = Connection {
                    from,
                    to,
                    protocol: written::protocol(protocol),
                    port,
                };
                answers.push(("reference", case.cluster.allows(connection)));
            }
            for (who, answer) in answers {
                if answer != allow {
                    wrong.push(format!(
                        "{}: {from} to {to} {protocol} {port}: {allow} expected, {answer} by the {who}",
                        case.name
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(asked > 1000, "only {asked} expectations found");
}

#[test]
fn the_matrix_is_as_expected() {
    for case in cases() {
        for table in case.expected.tables() {
            let found = matrix(&case.world, table.protocol, table.port).unwrap();
            let found: Vec<_> = found
                .pairs()
                .map(|pair| (pair.from.clone(), pair.to.clone(), pair.allowed))
                .collect();
            assert_eq!(
                found,
                table.pairs(&case.pods()),
                "{} {} {}",
                case.name,
                table.protocol,
                table.port
            );
        }
    }
}

/// `NAME-step1`, `NAME-step2`, applied in turn.
#[test]
fn a_plan_leads_from_each_case_to_the_next() {
    let mut banks = MapImage::default();
    let mut installed = Tables::default();
    for case in cases() {
        let plan = plan(&installed, &case.tables, banks.control.generation);
        for step in &plan.steps {
            banks.apply(step);
        }
        installed = plan.installed(case.tables.clone());
        assert_eq!(banks.read_back(), installed, "{}", case.name);
        assert_eq!(
            banks,
            MapImage::steady(&installed, plan.generation),
            "{}",
            case.name
        );
    }
}

#[test]
fn what_an_api_server_refuses_is_refused() {
    for folder in folders("invalid") {
        let (_, file, expected) = read(&folder);
        assert!(!file.is_accepted(), "{}", folder.display());
        for name in &expected.rejected {
            let name: ObjectName = name.parse().unwrap();
            let is_rejected = file.diagnostics.iter().any(|found| {
                found.is_error()
                    && found.name.as_ref() == Some(&name.name)
                    && found.namespace.as_ref() == Some(&name.namespace)
            });
            assert!(is_rejected, "{}: {:?}", folder.display(), file.diagnostics);
        }
    }
}
