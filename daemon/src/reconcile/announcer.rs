//! Announces endpoints to their neighbours, on a thread of its own, when their hold ends.
//!
//! A hold drops what a container says of itself when it starts, while its neighbours may remember another MAC address
//! for the same address: engines draw one at each start. So what was held is announced once it is in force.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use netpol_engine::world::{Place, World};

use super::observed::Namespace;
use super::program::Program;
use crate::datapath::is_inside;
use crate::links::{Announcement, Inside, announce};
use crate::netns::Netns;

/// What is known to neighbours.
pub struct Announcer {
    /// By interface: the addresses under which it was announced, or was in force before the daemon started.
    known: BTreeMap<u32, BTreeSet<IpAddr>>,
    errands: Sender<Announcement>,
}

impl Announcer {
    /// Starts the thread. `known`: interfaces whose neighbours know their addresses.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn(known: BTreeMap<u32, BTreeSet<IpAddr>>) -> std::io::Result<Self> {
        let (errands, inbox) = channel();
        thread::Builder::new()
            .name("announcements".to_owned())
            .spawn(move || work(&inbox))?;
        Ok(Self { known, errands })
    }

    /// Announces what has come into force since. `place` finds an endpoint's namespace by its number.
    pub fn announce<'a>(
        &mut self,
        world: &World,
        programs: &BTreeMap<u32, Program>,
        place: impl Fn(u32) -> Option<&'a Namespace>,
    ) {
        for (id, ifindex, addresses) in due(&mut self.known, world, programs, &place) {
            if let Some(namespace) = place(id) {
                // The thread ends with the daemon alone.
                let _ = self.errands.send(Announcement {
                    netns: Netns::Path(namespace.path.clone()),
                    identity: namespace.identity,
                    ifindex,
                    addresses,
                });
            }
        }
    }
}

/// Which endpoints have to be announced, by their number, on which interface and under which addresses. Those are
/// known from then on. An engine may name an address before it has set it: it is announced once it is there.
fn due<'a>(
    known: &mut BTreeMap<u32, BTreeSet<IpAddr>>,
    world: &World,
    programs: &BTreeMap<u32, Program>,
    place: impl Fn(u32) -> Option<&'a Namespace>,
) -> Vec<(u32, u32, BTreeSet<IpAddr>)> {
    let mut before = std::mem::take(known);
    let mut due = Vec::new();
    for pod in world.pods.values() {
        let Place::Attached(attached) = &pod.place else {
            continue;
        };
        // One inside has no bridge that could have held it.
        let interfaces = attached.interfaces.keys();
        for ifindex in interfaces.filter(|ifindex| !is_inside(**ifindex)) {
            let mut was = before.remove(ifindex).unwrap_or_default();
            if was != pod.addresses && programs.get(ifindex) == Some(&Program::On) {
                was.retain(|address| pod.addresses.contains(address));
                let inside = place(attached.id).into_iter().flat_map(|one| &one.inside);
                let own = inside.filter(|one| one.iflink == Some(*ifindex) && one.up);
                let new: BTreeSet<IpAddr> = own
                    .flat_map(Inside::usable)
                    .filter(|address| pod.addresses.contains(address) && !was.contains(address))
                    .collect();
                was.extend(&new);
                if !new.is_empty() {
                    due.push((attached.id, *ifindex, new));
                }
            }
            known.insert(*ifindex, was);
        }
    }
    due
}

fn work(inbox: &Receiver<Announcement>) {
    for errand in inbox {
        let ifindex = errand.ifindex;
        match announce(&errand) {
            Ok(addresses) => tracing::debug!(ifindex, addresses, "announced to its neighbours"),
            // It has ended since, or goes down: a neighbour that needs its address asks for it.
            Err(error) => tracing::debug!(ifindex, %error, "can't be announced"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use netpol_engine::world::{Attached, Pod};

    use super::*;

    #[test]
    fn what_comes_into_force_is_announced_once() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let pod = |id, ifindex: u32, addresses: &[&str]| Pod {
            addresses: addresses.iter().map(|text| address(text)).collect(),
            place: Place::Attached(Attached {
                id,
                interfaces: [(ifindex, [2; 6])].into(),
                ..Attached::default()
            }),
            ..Pod::default()
        };
        let mut world = World::default();
        let name = |text: &str| text.parse().unwrap();
        world.pods.insert(name("a/old"), pod(1, 11, &["10.0.0.1"]));
        world.pods.insert(name("a/new"), pod(2, 12, &["10.0.0.2"]));
        let mut known = BTreeMap::from([
            (11, [address("10.0.0.1")].into()),
            // Gone meanwhile.
            (10, [address("10.0.0.9")].into()),
        ]);
        let namespace = |ifindex, up, addresses: &[&str]| Namespace {
            inside: vec![Inside {
                iflink: Some(ifindex),
                addresses: addresses.iter().map(|text| address(text)).collect(),
                up,
                ..Inside::default()
            }],
            ..Namespace::default()
        };
        let mut places = BTreeMap::from([
            (1, namespace(11, true, &["10.0.0.1", "10.6.6.6"])),
            (2, namespace(12, true, &[])),
        ]);
        let mut programs = BTreeMap::from([(11, Program::On), (12, Program::Pending)]);
        let mut now_due = |world: &World, programs: &_, places: &BTreeMap<u32, Namespace>| {
            due(&mut known, world, programs, |id| places.get(&id))
        };
        assert_eq!(now_due(&world, &programs, &places), []);
        programs.insert(12, Program::On);
        // Its address is not there yet, then its interface is not up.
        assert_eq!(now_due(&world, &programs, &places), []);
        places.insert(2, namespace(12, false, &["10.0.0.2"]));
        assert_eq!(now_due(&world, &programs, &places), []);
        places.insert(2, namespace(12, true, &["10.0.0.2"]));
        let expected = [(2, 12, [address("10.0.0.2")].into())];
        assert_eq!(now_due(&world, &programs, &places), expected);
        assert_eq!(now_due(&world, &programs, &places), []);
        // A further address alone; what is not its own is not announced.
        world
            .pods
            .insert(name("a/old"), pod(1, 11, &["10.0.0.1", "fd00::1"]));
        places.insert(1, namespace(11, true, &["10.0.0.1", "10.6.6.6", "fd00::1"]));
        let expected = [(1, 11, [address("fd00::1")].into())];
        assert_eq!(now_due(&world, &programs, &places), expected);
        // Restarted, it has another interface.
        world.pods.insert(name("a/old"), pod(1, 13, &["10.0.0.1"]));
        places.insert(1, namespace(13, true, &["10.0.0.1"]));
        programs.insert(13, Program::On);
        let expected = [(1, 13, [address("10.0.0.1")].into())];
        assert_eq!(now_due(&world, &programs, &places), expected);
        assert_eq!(known.keys().copied().collect::<Vec<u32>>(), [12, 13]);
    }
}
