//! Who reaches whom: every ordered pair of different Pods, by the same rules as
//! [`crate::evaluate`]. Called by `netpol matrix` and the API.

use serde::Serialize;

use crate::evaluate::{Connection, End, Policed};
use crate::policy::{Direction, ObjectName, Protocol};
use crate::world::World;

/// The reachability of one protocol and port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Matrix {
    /// Destination port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Sorted by (from, to).
    pub pairs: Vec<Pair>,
}

/// One ordered pair of different Pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pair {
    /// Who opens the connection.
    pub from: ObjectName,
    /// Who is asked.
    pub to: ObjectName,
    /// May it be opened?
    pub allowed: bool,
}

/// The verdict of every pair.
#[must_use]
pub fn matrix(world: &World, protocol: Protocol, port: u16) -> Matrix {
    let policed = |direction| -> Vec<(&ObjectName, Policed)> {
        world
            .pods
            .iter()
            .map(|(name, pod)| {
                let end = End::of_pod(world, name, pod);
                (name, Policed::of(world, end, direction))
            })
            .collect()
    };
    let (sources, destinations) = (policed(Direction::Egress), policed(Direction::Ingress));
    let mut pairs = Vec::with_capacity(sources.len() * sources.len().saturating_sub(1));
    for (from_name, from) in &sources {
        for (to_name, to) in &destinations {
            if from_name == to_name {
                continue;
            }
            let connection = Connection {
                settings: world.settings,
                from,
                to,
                protocol,
                port,
            };
            pairs.push(Pair {
                from: (*from_name).clone(),
                to: (*to_name).clone(),
                allowed: connection.is_allowed(),
            });
        }
    }
    Matrix {
        port,
        protocol,
        pairs,
    }
}
