//! May what is in a network namespace start: is all in force there that policy can reach? Pure.
//!
//! Each veth that leads to it, and each interface inside that has no end here, has both programs, and an owner
//! that the kernel's tables know by now. An interface on hold is shut: a container that starts behind it loses its
//! first packets.

use std::collections::BTreeMap;

use netpol_abi::limits::FIRST_LOOPBACK;
use netpol_engine::world::{Place, World};

use super::assemble::Desired;
use super::observed::{Engine, Observed};
use super::program::Program;
use crate::api::wire::Readiness;
use crate::datapath::Location;

/// The namespace that is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Its id; `None`: it is the host's own.
    pub nsid: Option<i32>,
    /// Its interfaces that have no end on the host, with their names.
    pub subinterfaces: Vec<(Location, String)>,
    /// Those of them that are veths whose other ends are in hidden namespaces.
    pub hidden: Vec<Location>,
    /// Its inode.
    pub inode: u64,
}

/// What a readiness answer depends on.
pub struct ReadinessInput<'a> {
    /// What there is.
    pub observed: &'a Observed,
    /// What follows from it.
    pub desired: &'a Desired,
    /// What is in force.
    pub world: &'a World,
    /// Where programs are.
    pub programs: &'a BTreeMap<u32, Program>,
}

/// May what is in this network namespace start?
pub fn decide(asked: &Asked, input: &ReadinessInput<'_>) -> Readiness {
    let ready = |reason: String| Readiness {
        ready: true,
        reason,
    };
    let Some(nsid) = asked.nsid else {
        return ready("the host's own network namespace".to_owned());
    };
    let veths = input.observed.links.veths.iter();
    let veths = veths.filter(|veth| veth.peer_nsid == Some(nsid));
    let veths = veths.map(|veth| (Some(veth.ifindex), veth.name.as_str()));
    // Of a container that runs those are known that its engine gave it: what else leads to hidden namespaces is for
    // containers within it, and none of the business of one that starts beside it.
    let mut containers = input.observed.all_containers();
    let runs = containers.any(|container| {
        let namespace = input.observed.containers.get(&container.id);
        container.is_running() && namespace.is_some_and(|found| found.nsid == Some(nsid))
    });
    let subinterfaces = asked.subinterfaces.iter().filter_map(|(location, name)| {
        let mut known = input.desired.inside.iter();
        let known = known.find(|(_, child)| child.within.location == *location);
        let is_left_alone =
            input.desired.yielded.contains(location) || (runs && asked.hidden.contains(location));
        if known.is_none() && is_left_alone {
            return None;
        }
        Some((known.map(|(number, _)| *number), name.as_str()))
    });
    // Where an engine asks for it, what it asks has to be judged from the beginning, too.
    let loopback = input.desired.inside.range(FIRST_LOOPBACK..);
    let loopback = loopback.filter(|(_, child)| child.within.location.namespace == asked.inode);
    let loopback = loopback.map(|(number, child)| (Some(*number), child.name.as_str()));
    let mut owners = Vec::new();
    for (number, name) in veths.chain(subinterfaces).chain(loopback) {
        match owner(number, name, input) {
            Ok(owner) => owners.extend(owner),
            Err(reason) => {
                return Readiness {
                    ready: false,
                    reason,
                };
            }
        }
    }
    owners.dedup();
    ready(if owners.is_empty() {
        "no interface of it is netpold's".to_owned()
    } else {
        format!("{} is in force", owners.join(", "))
    })
}

/// Its owner, in force; none: it has no owner, and is no business of netpold's. `number`: what it has in the tables,
/// if it was seen.
fn owner(
    number: Option<u32>,
    name: &str,
    input: &ReadinessInput<'_>,
) -> Result<Option<String>, String> {
    let wanted = &input.desired.interfaces;
    let Some((ifindex, owner)) = number.and_then(|number| wanted.get_key_value(&number)) else {
        // The client starts a container: a runtime will tell the interface's owner.
        return if input.observed.engines().any(Engine::may_have_containers) {
            Err(format!("{name}: the container behind it is not known yet"))
        } else {
            Ok(None)
        };
    };
    let Some(owner) = owner else {
        let held = input.desired.unidentified.iter();
        let why = held
            .filter(|held| held.ifindex == *ifindex)
            .map(|held| held.reason.as_str())
            .next()
            .unwrap_or("the container behind it is not known yet");
        return Err(format!("{name} is on hold: {why}"));
    };
    match input.programs.get(ifindex) {
        Some(Program::On) => {}
        Some(Program::Failed(why)) => return Err(format!("{name} is not enforced: {why}")),
        Some(Program::Pending) | None => {
            return Err(format!("{name} does not have its programs yet"));
        }
    }
    match input.world.pods.get(owner).map(|pod| &pod.place) {
        Some(Place::Attached(attached)) if attached.interfaces.contains_key(ifindex) => {
            Ok(Some(owner.to_string()))
        }
        _ => Err(format!("the policies of {owner} are not in force yet")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use netpol_engine::policy::ObjectName;
    use netpol_engine::world::{Attached, Pod};

    use std::sync::Arc;

    use super::*;
    use crate::datapath::Within;
    use crate::links::Veth;
    use crate::reconcile::assemble::Child;
    use crate::reconcile::assemble::Unidentified;
    use crate::reconcile::observed::Namespace;
    use crate::runtime::container::{Container, Snapshot, State};

    fn veth(ifindex: u32, nsid: i32) -> Veth {
        Veth {
            ifindex,
            name: format!("veth{ifindex}"),
            mac: [0; 6],
            master: Some(2),
            peer_nsid: Some(nsid),
            peer_ifindex: Some(2),
            up: true,
        }
    }

    #[test]
    fn every_interface_has_programs_and_an_owner_in_force() {
        let mut observed = Observed::default();
        observed.links.veths = vec![veth(5, 1), veth(6, 1), veth(7, 2), veth(8, 3)];
        let web = ObjectName::new("shop", "web");
        let mut desired = Desired::default();
        for ifindex in [5, 6] {
            desired.interfaces.insert(ifindex, Some(web.clone()));
        }
        desired.interfaces.insert(7, None);
        desired.unidentified.push(Unidentified {
            interface: "veth7".to_owned(),
            ifindex: 7,
            reason: "it is unknown".to_owned(),
        });
        let mut programs = BTreeMap::from([(5, Program::On), (6, Program::Pending)]);
        let mut world = World::default();
        let say = |nsid, world: &World, programs: &BTreeMap<u32, Program>| {
            let input = ReadinessInput {
                observed: &observed,
                desired: &desired,
                world,
                programs,
            };
            let asked = Asked {
                nsid,
                subinterfaces: Vec::new(),
                hidden: Vec::new(),
                inode: 0,
            };
            let said = decide(&asked, &input);
            (said.ready, said.reason)
        };
        let no = |reason: &str| (false, reason.to_owned());
        let pending = "the policies of shop/web are not in force yet";
        assert_eq!(say(Some(1), &world, &programs), no(pending));
        let attached = Attached {
            interfaces: [(5, [2; 6]), (6, [2; 6])].into(),
            ..Attached::default()
        };
        let pod = Pod {
            place: Place::Attached(attached),
            ..Pod::default()
        };
        world.pods.insert(web, pod);
        let pending = "veth6 does not have its programs yet";
        assert_eq!(say(Some(1), &world, &programs), no(pending));
        programs.insert(6, Program::On);
        let yes = (true, "shop/web is in force".to_owned());
        assert_eq!(say(Some(1), &world, &programs), yes);
        let held = "veth7 is on hold: it is unknown";
        assert_eq!(say(Some(2), &world, &programs), no(held));
        // On a bridge of others; without a network; the host's.
        for nsid in [Some(3), Some(4), None] {
            assert!(say(nsid, &world, &programs).0, "{nsid:?}");
        }
    }

    #[test]
    fn an_interface_inside_has_programs_and_an_owner_in_force_too() {
        let number = netpol_abi::limits::FIRST_INSIDE;
        let location = Location {
            namespace: 7,
            ifindex: 2,
        };
        let asked = Asked {
            nsid: Some(1),
            subinterfaces: vec![(location, "eth0".to_owned())],
            hidden: Vec::new(),
            inode: 7,
        };
        let engine = Engine {
            followed: true,
            listed: true,
            ..Engine::default()
        };
        let observed = Observed {
            docker: vec![engine],
            ..Observed::default()
        };
        let web = ObjectName::new("shop", "web");
        let attached = Attached {
            interfaces: [(number, [2; 6])].into(),
            ..Attached::default()
        };
        let pod = Pod {
            place: Place::Attached(attached),
            ..Pod::default()
        };
        let mut world = World::default();
        world.pods.insert(web.clone(), pod);
        let say = |desired: &Desired, program: Program| {
            let input = ReadinessInput {
                observed: &observed,
                desired,
                world: &world,
                programs: &BTreeMap::from([(number, program)]),
            };
            let said = decide(&asked, &input);
            (said.ready, said.reason)
        };
        let no = |reason: &str| (false, reason.to_owned());
        let mut desired = Desired::default();
        let unknown = "eth0: the container behind it is not known yet";
        assert_eq!(say(&desired, Program::On), no(unknown));
        let child = Child {
            within: Within {
                namespace: "/proc/1/ns/net".into(),
                location,
            },
            name: "eth0".to_owned(),
            kind: "macvlan",
        };
        desired.inside.insert(number, child);
        desired.interfaces.insert(number, Some(web));
        let pending = "eth0 does not have its programs yet";
        assert_eq!(say(&desired, Program::Pending), no(pending));
        let yes = (true, "shop/web is in force".to_owned());
        assert_eq!(say(&desired, Program::On), yes);
        // What it asks its engine is judged as well, or it has to wait.
        let lo = FIRST_LOOPBACK + 1;
        let mut with_lo = desired.clone();
        let mut child = with_lo.inside[&number].clone();
        child.within.location.ifindex = 1;
        child.name = "lo".to_owned();
        with_lo.inside.insert(lo, child);
        with_lo
            .interfaces
            .insert(lo, with_lo.interfaces[&number].clone());
        let pending = "lo does not have its programs yet";
        assert_eq!(say(&with_lo, Program::On), no(pending));
        // Another one has come since.
        desired
            .inside
            .get_mut(&number)
            .unwrap()
            .within
            .location
            .ifindex = 3;
        assert_eq!(say(&desired, Program::On), no(unknown));
    }

    #[test]
    fn what_leads_to_containers_within_a_container_keeps_no_container_from_starting_beside_it() {
        let location = |ifindex| Location {
            namespace: 7,
            ifindex,
        };
        let asked = Asked {
            nsid: Some(1),
            subinterfaces: vec![(location(2), "eth0".to_owned())],
            hidden: vec![location(2)],
            inode: 7,
        };
        let container = Container {
            id: "1".to_owned(),
            pid: 4711,
            state: State::Created,
            ..Container::default()
        };
        let snapshot = Snapshot {
            containers: vec![container],
            ..Snapshot::default()
        };
        let mut observed = Observed {
            docker: vec![Engine {
                followed: true,
                listed: true,
                snapshot: Arc::new(snapshot),
                ..Engine::default()
            }],
            ..Observed::default()
        };
        let namespace = Namespace {
            nsid: Some(1),
            ..Namespace::default()
        };
        observed.containers.insert("1".to_owned(), namespace);
        let is_ready = |observed: &Observed, desired: &Desired, asked: &Asked| {
            let input = ReadinessInput {
                observed,
                desired,
                world: &World::default(),
                programs: &BTreeMap::new(),
            };
            decide(asked, &input).ready
        };
        let mut desired = Desired::default();
        // Its own, of which the engine has not told yet.
        assert!(!is_ready(&observed, &desired, &asked));
        let docker = Arc::make_mut(&mut observed.docker[0].snapshot);
        docker.containers[0].state = State::Running;
        assert!(is_ready(&observed, &desired, &asked));
        let macvlan = Asked {
            hidden: Vec::new(),
            ..asked.clone()
        };
        assert!(!is_ready(&observed, &desired, &macvlan));
        // It is known, and not enforced.
        desired.yielded.push(location(2));
        let docker = Arc::make_mut(&mut observed.docker[0].snapshot);
        docker.containers[0].state = State::Created;
        assert!(is_ready(&observed, &desired, &asked));
    }
}
