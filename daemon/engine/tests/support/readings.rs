//! The two readings of one set of manifests: the engine's and the reference's.

use std::net::IpAddr;

use netpol_engine::evaluate::Side;
use netpol_engine::manifest::{File, assemble, parse};
use netpol_engine::model::{MapImage, Ruling};
use netpol_engine::policy::{Direction, Protocol};
use netpol_engine::world::{Attached, Place, World};

use super::manifests::Manifests;
use super::reference::{Answer, Cluster, Connection};

/// The world that the engine reads, its local Pods numbered from `base` as [`number`] does.
pub fn world(manifests: &Manifests, base: u32) -> World {
    let files: Vec<File> = (0..)
        .zip(&manifests.files)
        .map(|(number, text)| {
            let file = parse(&format!("{number}.yaml"), text);
            assert!(file.is_accepted(), "{:#?}\n{text}", file.diagnostics);
            file
        })
        .collect();
    let assembled = assemble(&files);
    let diagnostics = assembled.diagnostics.as_slice();
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    let mut world = assembled.world();
    world.host.extend(&manifests.host.addresses);
    world.settings.host_ingress = manifests.host.reaches_pods;
    world.settings.host_egress = manifests.host.reached_by_pods;
    number(&mut world, base);
    world
}

/// Gives local Pods numbers and interfaces, which no two worlds of other `base`s share.
pub fn number(world: &mut World, base: u32) {
    for (index, pod) in (1..).zip(world.pods.values_mut()) {
        if pod.place == Place::Local {
            pod.place = Place::Attached(Attached {
                slot: index,
                id: base * 256 + index,
                interfaces: [(1000 + index, [2, 0, 0, 0, 0, index as u8])].into(),
                bridges: [].into(),
                on_wire: false,
                netns: None,
                asks: None,
            });
        }
    }
}

/// The number of the endpoint that has an address.
pub fn endpoint(world: &World, address: IpAddr) -> Option<u32> {
    if world.host.contains(&address) {
        return None;
    }
    world.pods.values().find_map(|pod| match &pod.place {
        Place::Attached(attached) if pod.addresses.contains(&address) => Some(attached.id),
        _ => None,
    })
}

/// What the tables of one end say; it passes where policy is not asked.
pub fn tables_answer(
    world: &World,
    banks: &MapImage,
    direction: Direction,
    probe: Connection,
    protocol: Protocol,
) -> Answer {
    let (own, peer) = match direction {
        Direction::Egress => (probe.from, probe.to),
        Direction::Ingress => (probe.to, probe.from),
    };
    let Some(id) = endpoint(world, own) else {
        return Answer::Passes;
    };
    let ruling = banks.judge(id, direction, peer, protocol.number(), probe.port);
    answer(&ruling.expect("every endpoint is in the tables"))
}

/// A ruling in the reference's words.
pub fn answer(ruling: &Ruling) -> Answer {
    match (ruling.passes(), ruling.audited) {
        (false, _) => Answer::Dropped,
        (true, true) => Answer::Reported,
        (true, false) => Answer::Passes,
    }
}

/// What the rules say of one end, likewise.
pub fn rules_answer(side: &Side) -> Answer {
    match (side.allowed, side.audited.is_empty()) {
        (false, _) => Answer::Dropped,
        (true, false) => Answer::Reported,
        (true, true) => Answer::Passes,
    }
}

/// What the reference reads.
pub fn cluster(manifests: &Manifests) -> Cluster {
    let texts = manifests.files.iter().map(String::as_str);
    Cluster::read(texts, manifests.host.clone())
        .unwrap_or_else(|error| panic!("{error}\n{}", manifests.files.join("\n--- file\n")))
}
