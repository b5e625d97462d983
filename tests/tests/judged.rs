//! Policy as the loaded programs judge it, under BPF_PROG_TEST_RUN: the conformance cases
//! against what they expect, random manifests and random changes of random worlds against the
//! reference. Each connection's first packet is run at both of its ends.
//!
//! Needs root, and fails without it.
#![allow(
    clippy::unwrap_used,
    reason = "the engine's test support, included here, does"
)]

#[path = "../../daemon/engine/tests/support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::{Arguments, Trial};
use netpol_abi::packet::{Direction, tcp};
use netpol_abi::tables::Interface;
use netpol_engine::compile::compile;
use netpol_engine::manifest::{assemble, parse};
use netpol_engine::plan::{Step, plan};
use netpol_engine::policy::{ObjectName, Protocol};
use netpol_engine::tables::Tables;
use netpol_engine::world::{Attached, Place, World};
use netpold_tests::cases::{Expected, folders, text};
use netpold_tests::frames;
use netpold_tests::kernel::InKernel;
use netpold_tests::time_scale::tries;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

use support::reference::{Answer, Connection, Direction as Theirs};
use support::tiers::Tiers;
use support::{manifests, readings, worlds, written};

/// Changes of random worlds that are tried.
const CHANGES: usize = 150;
/// Random manifests that are tried.
const MANIFESTS: usize = 200;
const PROBED: [(Protocol, u16); 4] = [
    (Protocol::Tcp, 80),
    (Protocol::Udp, 53),
    (Protocol::Tcp, 8080),
    (Protocol::Sctp, 81),
];
const OTHER_MAC: frames::Mac = [2, 0xff, 0, 0, 0, 9];

fn main() {
    let arguments = Arguments::from_args();
    let trial = |name: &str, run: fn() -> Result<()>| {
        Trial::test(name, move || {
            run().map_err(|error| format!("{error:#}").into())
        })
    };
    let trials = vec![
        trial("conformance_cases", conformance),
        trial("random_manifests", random_manifests),
        trial("changes_of_random_worlds", random_changes),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// The kernel's tables, and what is in them.
struct Site {
    kernel: InKernel,
    tables: Tables,
    generation: u64,
    port: u16,
}

impl Site {
    fn new(name: &str) -> Result<Self> {
        Ok(Self {
            kernel: InKernel::new(name, &|_| {})?,
            tables: Tables::default(),
            generation: 0,
            port: 1024,
        })
    }

    /// Moves on to another world, as the daemon would.
    fn install(&mut self, world: &World) -> Result<()> {
        let desired = compile(world)?.tables;
        let change = plan(&self.tables, &desired, self.generation);
        self.kernel.apply(&change.steps)?;
        self.tables = change.installed(desired);
        self.generation = change.generation;
        Ok(())
    }

    /// Tries every pair of these addresses.
    fn probe(
        &mut self,
        world: &World,
        addresses: &BTreeSet<IpAddr>,
        expected: impl Fn(Theirs, IpAddr, IpAddr, Protocol, u16) -> Answer,
    ) -> Result<()> {
        for from in addresses.iter().copied() {
            let same_family = |to: &IpAddr| to.is_ipv4() == from.is_ipv4();
            for to in addresses.iter().copied().filter(same_family) {
                for (protocol, port) in PROBED {
                    for (direction, said) in self.sides(world, from, to, protocol, port)? {
                        let expected = expected(direction, from, to, protocol, port);
                        ensure!(
                            said == expected,
                            "{from} to {to} {protocol} {port}: {direction:?}: the kernel says {said:?}, the reference {expected:?}"
                        );
                    }
                }
            }
        }
        Ok(())
    }

    /// What becomes of the first packet of this connection at both ends, as far as it gets. Ends
    /// that are not this host's endpoints let everything through.
    fn sides(
        &mut self,
        world: &World,
        from: IpAddr,
        to: IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> Result<Vec<(Theirs, Answer)>> {
        self.port = if self.port == u16::MAX {
            1024
        } else {
            self.port + 1
        };
        let source = self.port;
        let mut sides = Vec::new();
        for (direction, own) in [(Direction::Egress, from), (Direction::Ingress, to)] {
            let Some(attached) = attached(world, own) else {
                continue;
            };
            let mac = attached
                .interfaces
                .values()
                .next()
                .copied()
                .unwrap_or_default();
            let interface = Interface {
                ifindex: 1,
                endpoint: attached.slot,
                mac,
                ..Interface::default()
            };
            self.kernel.apply(&[Step::PutInterface {
                ifindex: 1,
                value: interface,
            }])?;
            let sender = if direction == Direction::Egress {
                mac
            } else {
                OTHER_MAC
            };
            let frame = opening(sender, from, to, protocol, source, port)?;
            let (reason, passes) = self.kernel.judge(&frame, direction)?;
            let theirs = match direction {
                Direction::Egress => Theirs::Egress,
                Direction::Ingress => Theirs::Ingress,
            };
            let answer = match (passes, reason.allows()) {
                (true, true) => Answer::Passes,
                (true, false) => Answer::Reported,
                (false, false) => Answer::Dropped,
                (false, true) => bail!("{reason:?}, and it is dropped"),
            };
            sides.push((theirs, answer));
            if !passes {
                break;
            }
        }
        Ok(sides)
    }
}

fn attached(world: &World, address: IpAddr) -> Option<&Attached> {
    world.pods.values().find_map(|pod| match &pod.place {
        Place::Attached(attached) if pod.addresses.contains(&address) => Some(attached),
        _ => None,
    })
}

/// The first frame of a connection.
fn opening(
    mac: frames::Mac,
    from: IpAddr,
    to: IpAddr,
    protocol: Protocol,
    source: u16,
    port: u16,
) -> Result<Vec<u8>> {
    let payload = match protocol {
        Protocol::Tcp => frames::tcp(source, port, tcp::SYN),
        Protocol::Udp => frames::udp(source, port, b"?"),
        Protocol::Sctp => frames::sctp(source, port),
    };
    Ok(match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let packet = frames::ipv4(from.octets(), to.octets(), protocol.number(), &payload);
            frames::ethernet(mac, OTHER_MAC, 0x0800, &packet)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let packet = frames::ipv6(from.octets(), to.octets(), protocol.number(), 64, &payload);
            frames::ethernet(mac, OTHER_MAC, 0x86dd, &packet)
        }
        _ => bail!("{from} and {to} are of two families"),
    })
}

fn conformance() -> Result<()> {
    let cases = folders(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance"),
        "cases",
    );
    let mut site = Site::new("conformance")?;
    let mut asked = 0;
    for (number, folder) in cases.iter().enumerate() {
        let name = folder.display();
        let manifests = folder.join("manifests.yaml");
        let file = parse(&manifests.display().to_string(), &text(&manifests));
        let mut world = assemble([&file]).world();
        // A connection of one case is no other's.
        readings::number(&mut world, u32::try_from(number)?);
        site.install(&world).with_context(|| name.to_string())?;
        let pods: BTreeSet<ObjectName> = world.pods.keys().cloned().collect();
        for probe in Expected::read(folder).expectations(&pods) {
            let (from, to) = (ends(&world, &probe.from)?, ends(&world, &probe.to)?);
            // A pair of Pods speaks the first family that both have.
            let pair = from.iter().find_map(|from| {
                to.iter()
                    .find(|to| to.is_ipv4() == from.is_ipv4())
                    .map(|to| (*from, *to))
            });
            let Some((from, to)) = pair else {
                ensure!(!probe.allow, "{name}: {probe:?} has no common family");
                continue;
            };
            let sides = site.sides(&world, from, to, probe.protocol, probe.port)?;
            let connects = sides.iter().all(|(_, side)| *side == Answer::Passes);
            ensure!(
                connects == probe.allow,
                "{name}: {probe:?}: the kernel says {connects}"
            );
            asked += 1;
        }
    }
    ensure!(asked > 5000, "the cases are many: {asked}");
    Ok(())
}

fn ends(world: &World, text: &str) -> Result<Vec<IpAddr>> {
    if let Some(address) = text.strip_prefix("ip:") {
        return Ok(vec![address.parse()?]);
    }
    let name: ObjectName = text
        .parse()
        .map_err(|_| anyhow::anyhow!("{text} names no end"))?;
    let pod = world
        .pods
        .get(&name)
        .with_context(|| format!("{text} is not in the world"))?;
    Ok(pod.addresses.iter().copied().collect())
}

fn random_changes() -> Result<()> {
    let mut runner = TestRunner::deterministic();
    let mut site = Site::new("random")?;
    for number in 0..tries(CHANGES) {
        let (before, after) = worlds::change()
            .new_tree(&mut runner)
            .map_err(|reason| anyhow::anyhow!("{reason}"))?
            .current();
        for world in [before, after] {
            site.install(&world)?;
            let tiers = Tiers::new(&world);
            let addresses = worlds::addresses(&world);
            let expected = |direction, from, to, protocol, port| {
                tiers.side(direction, from, to, protocol, port)
            };
            site.probe(&world, &addresses, expected)
                .with_context(|| format!("change {number}, in {world:#?}"))?;
        }
    }
    Ok(())
}

fn random_manifests() -> Result<()> {
    let mut runner = TestRunner::deterministic();
    let mut site = Site::new("manifests")?;
    for number in 0..tries(MANIFESTS) {
        let manifests = manifests::manifests()
            .new_tree(&mut runner)
            .map_err(|reason| anyhow::anyhow!("{reason}"))?
            .current();
        let world = readings::world(&manifests, u32::try_from(number)?);
        site.install(&world)?;
        let cluster = readings::cluster(&manifests);
        let addresses = cluster.addresses().chain(manifests::strangers());
        let addresses = addresses.collect();
        let expected = |direction, from, to, protocol, port| {
            let probe = Connection {
                from,
                to,
                protocol: written::protocol(protocol),
                port,
            };
            cluster.side(direction, probe)
        };
        site.probe(&world, &addresses, expected)
            .with_context(|| format!("world {number}, of\n{}", manifests.files.join("\n")))?;
    }
    Ok(())
}
