//! Interfaces without an end on the host: enforced inside, and what is said where that is not all.

use netpol_abi::limits::FIRST_INSIDE;

use super::*;
use crate::datapath::Location;

/// An interface on one of the host's, at 10.78.0.9.
fn lan(kind: &str) -> Inside {
    Inside {
        ifindex: 4,
        name: "eth0".to_owned(),
        kind: Some(kind.to_owned()),
        mac: Some([2, 0x42, 10, 78, 0, 9]),
        iflink: Some(2),
        leads_out: true,
        addresses: vec!["10.78.0.9".parse().unwrap()],
        ..Inside::default()
    }
}

/// Docker with one container, on a macvlan network, which was looked into.
fn docker_with(inside: Inside) -> Observed {
    let mut one = container(1, &[]);
    one.networks = vec![Attachment {
        name: "lan".to_owned(),
        driver: "macvlan".to_owned(),
        ipv4: Some([10, 78, 0, 9].into()),
        ..Attachment::default()
    }];
    let mut observed = engine(vec![one]);
    observed.links.veths.clear();
    let namespace = observed.containers.values_mut().next().unwrap();
    namespace.inside = vec![inside];
    namespace.looked_running = true;
    observed
}

fn reasons(found: &Desired) -> Vec<&str> {
    let all = found.unprotected.iter();
    all.map(|one| one.reason.as_str()).collect()
}

#[test]
fn it_is_enforced_inside_under_a_number_of_its_own() {
    for kind in ["macvlan", "ipvlan"] {
        let observed = docker_with(lan(kind));
        let mut register = Register::default();
        let found = go(&observed, &mut register);
        assert_eq!(reasons(&found), [""; 0]);
        let name = ObjectName::new("default", "c1");
        let mac = [2, 0x42, 10, 78, 0, 9];
        let own = attached(&found, "default/c1");
        assert_eq!(own.interfaces, [(FIRST_INSIDE, mac)].into());
        assert_eq!(found.interfaces, [(FIRST_INSIDE, Some(name))].into());
        assert_eq!(found.interface_names[&FIRST_INSIDE], "eth0");
        let child = &found.inside[&FIRST_INSIDE];
        assert_eq!((child.name.as_str(), child.kind), ("eth0", kind));
        let location = Location {
            namespace: 1,
            ifindex: 4,
        };
        assert_eq!(child.within.location, location);
        // It keeps the number; another interface gets another one.
        assert_eq!(go(&observed, &mut register), found);
        let mut other = lan(kind);
        other.mac = Some([2; 6]);
        let found = go(&docker_with(other), &mut register);
        assert_eq!(
            found.interfaces.keys().copied().collect::<Vec<_>>(),
            [FIRST_INSIDE + 1]
        );
    }
}

#[test]
fn both_a_veth_and_one_without_are_one_endpoints() {
    let mut observed = docker_with(lan("macvlan"));
    observed.links.veths = vec![veth(11, Some(1), Some(BRIDGE))];
    let docker = Arc::make_mut(&mut observed.docker[0].snapshot);
    docker.containers[0]
        .networks
        .extend(container(1, &[]).networks);
    let found = go(&observed, &mut Register::default());
    let interfaces = attached(&found, "default/c1").interfaces;
    assert_eq!(
        interfaces.keys().copied().collect::<Vec<_>>(),
        [11, FIRST_INSIDE]
    );
}

#[test]
fn what_its_processes_can_do_about_it_is_reported() {
    let mut observed = docker_with(lan("macvlan"));
    let id = container(1, &[]).id;
    for (rights, expected) in [
        ((false, false), vec![]),
        ((true, false), vec!["it has NET_ADMIN"]),
        ((false, true), vec!["it has NET_RAW"]),
        ((true, true), vec!["it has NET_ADMIN", "it has NET_RAW"]),
    ] {
        let (net_admin, net_raw) = rights;
        observed.containers.get_mut(&id).unwrap().rights = Rights { net_admin, net_raw };
        let found = go(&observed, &mut Register::default());
        let said: Vec<&str> = reasons(&found)
            .iter()
            .map(|reason| {
                reason
                    .split([',', ':'])
                    .next()
                    .unwrap()
                    .split(" in its")
                    .next()
                    .unwrap()
            })
            .collect();
        assert_eq!(said, expected);
        // Enforced all the same.
        assert_eq!(found.interfaces.len(), 1);
    }
    // Until it runs, its process is the runtime's.
    let docker = Arc::make_mut(&mut observed.docker[0].snapshot);
    docker.containers[0].state = State::Created;
    assert_eq!(reasons(&go(&observed, &mut Register::default())), [""; 0]);
}

#[test]
fn what_can_be_enforced_in_part_or_not_at_all_is_reported() {
    let l3s = Inside {
        mode: Some(2),
        ..lan("ipvlan")
    };
    let found = go(&docker_with(l3s), &mut Register::default());
    assert!(reasons(&found)[0].contains("`l3s`"), "{found:?}");
    assert_eq!((found.unprotected.len(), found.interfaces.len()), (1, 1));
    for kind in ["macvtap", "ipvtap"] {
        let found = go(&docker_with(lan(kind)), &mut Register::default());
        assert!(reasons(&found)[0].contains(kind), "{found:?}");
        assert_eq!((found.unprotected.len(), found.interfaces.len()), (1, 0));
    }
    // Not there; it was not looked for; of an unknown driver.
    let mut observed = docker_with(lan("macvlan"));
    observed
        .containers
        .values_mut()
        .next()
        .unwrap()
        .inside
        .clear();
    let found = go(&observed, &mut Register::default());
    assert!(reasons(&found)[0].contains("`lan`"), "{found:?}");
    // What stands on another one inside leaves by that.
    let own = Inside {
        leads_out: false,
        ..lan("macvlan")
    };
    let found = go(&containerd_with(own), &mut Register::default());
    assert_eq!((found.unprotected.len(), found.interfaces.len()), (0, 1));
}

/// containerd with one task that has a veth and this.
fn containerd_with(inside: Inside) -> Observed {
    let mut observed = containerd(vec![task("web", "web")], |number| number as i32);
    let namespace = observed.containers.values_mut().next().unwrap();
    namespace.inside.push(inside);
    observed
}

#[test]
fn a_task_has_the_addresses_of_both_and_none_that_it_gives_itself_later() {
    let mut observed = containerd_with(lan("macvlan"));
    let mut register = Register::default();
    go(&observed, &mut register);
    let namespace = observed.containers.values_mut().next().unwrap();
    namespace.inside[1]
        .addresses
        .push("10.78.0.99".parse().unwrap());
    let found = go(&observed, &mut register);
    let addresses = &found.world.pods[&"default/web".parse().unwrap()].addresses;
    let v4: Vec<String> = addresses
        .iter()
        .filter(|address| address.is_ipv4())
        .map(ToString::to_string)
        .collect();
    assert_eq!(v4, ["10.78.0.9", "10.88.0.1"]);
}

#[test]
fn it_outlives_a_restart_as_long_as_its_programs_do() {
    let mut observed = docker_with(lan("ipvlan"));
    let mut register = Register::default();
    let before = go(&observed, &mut register);
    observed.containers.clear();
    observed.docker[0] = Engine {
        followed: true,
        ..Engine::default()
    };
    let silent = go(&observed, &mut register);
    assert_eq!(
        attached(&silent, "default/c1"),
        attached(&before, "default/c1")
    );
    // Where no record tells its owner, it is held until the engine has answered.
    let programmed = BTreeSet::from([FIRST_INSIDE]);
    let settings = Settings::default();
    let held = assemble(&observed, &settings, &programmed, &mut Register::default());
    assert_eq!(held.interfaces, [(FIRST_INSIDE, None)].into());
    assert_eq!(held.unidentified[0].ifindex, 0, "a number is no index");
    observed.docker[0].listed = true;
    let free = assemble(&observed, &settings, &programmed, &mut Register::default());
    assert!(free.interfaces.is_empty());
    // And no other interface gets its number meanwhile.
    let mut observed = docker_with(lan("ipvlan"));
    observed.docker[0].listed = true;
    let found = assemble(&observed, &settings, &programmed, &mut Register::default());
    assert!(
        found.interfaces.contains_key(&(FIRST_INSIDE + 1)),
        "{found:?}"
    );
    // Its programs are gone, and so it is.
    let gone = assemble(&silent_facts(), &settings, &BTreeSet::new(), &mut register);
    assert!(gone.world.pods.is_empty());
}

fn silent_facts() -> Observed {
    Observed {
        docker: vec![Engine {
            followed: true,
            ..Engine::default()
        }],
        ..Observed::default()
    }
}

/// Docker with one container on an overlay, of whose veth the other end is in a hidden namespace.
fn overlay() -> Observed {
    let mut observed = docker_with(Inside {
        is_hidden: true,
        ..lan("veth")
    });
    let docker = Arc::make_mut(&mut observed.docker[0].snapshot);
    docker.containers[0].networks[0] = Attachment {
        name: "ov".to_owned(),
        driver: "overlay".to_owned(),
        mac: Some([2, 0x42, 10, 78, 0, 9]),
        ipv4: Some([10, 78, 0, 9].into()),
        ..Attachment::default()
    };
    observed
}

#[test]
fn a_veth_to_a_hidden_namespace_is_enforced_inside_where_the_engine_names_it() {
    let mut observed = overlay();
    let mut register = Register::default();
    let found = go(&observed, &mut register);
    assert_eq!(reasons(&found), [""; 0]);
    let mac = [2, 0x42, 10, 78, 0, 9];
    let own = attached(&found, "default/c1");
    assert_eq!(own.interfaces, [(FIRST_INSIDE, mac)].into());
    assert!(!own.on_wire, "stamps get through an overlay's bridge");
    assert_eq!(found.inside[&FIRST_INSIDE].kind, "veth");
    // One that leads to a container within the container is that one's business.
    let id = container(1, &[]).id;
    let namespace = observed.containers.get_mut(&id).unwrap();
    namespace.inside.push(Inside {
        ifindex: 5,
        mac: Some([6; 6]),
        addresses: vec!["10.78.0.9".parse().unwrap()],
        is_hidden: true,
        ..lan("veth")
    });
    assert_eq!(go(&observed, &mut register).interfaces, found.interfaces);
    // What has it cannot get out of it: neither by another MAC address, nor where the engine names it no more.
    observed.containers.get_mut(&id).unwrap().inside[0].mac = Some([7; 6]);
    let changed = go(&observed, &mut register);
    assert_eq!(attached(&changed, "default/c1").interfaces, own.interfaces);
    let docker = Arc::make_mut(&mut observed.docker[0].snapshot);
    docker.containers[0].networks.clear();
    let unnamed = go(&observed, &mut register);
    assert_eq!(attached(&unnamed, "default/c1").interfaces, own.interfaces);
    assert_eq!(reasons(&unnamed), [""; 0]);
    // What it can do about its programs is said for as long as they are meant to be on.
    observed.containers.get_mut(&id).unwrap().rights.net_raw = true;
    let unnamed = go(&observed, &mut register);
    let said = reasons(&unnamed);
    assert!(said.len() == 1 && said[0].contains("NET_RAW"), "{said:?}");
    // Nor by a restart, while the engine does not answer.
    let silent = go(&silent_facts_with(&observed), &mut register);
    assert!(!attached(&silent, "default/c1").on_wire);
    // The engine's word alone makes it so.
    let fresh = go(&observed, &mut Register::default());
    assert!(fresh.interfaces.is_empty());
    // A macvlan's frames come back over the wire, where stamps are lost.
    let macvlan = go(&docker_with(lan("macvlan")), &mut Register::default());
    assert!(attached(&macvlan, "default/c1").on_wire);
}

/// The same links, and an engine that has not answered.
fn silent_facts_with(observed: &Observed) -> Observed {
    Observed {
        links: observed.links.clone(),
        ..silent_facts()
    }
}

/// A container of an engine with a network namespace of its own, which gives the address that the host's engine gives, too;
/// and the host's engine with that one, where `is_there`.
fn two_engines(is_there: bool) -> Observed {
    let mut hidden = engine(vec![container(2, &[])]);
    let own = namespace(Some(7));
    let id = container(2, &[]).id.replace("000", "fff");
    let docker = Arc::make_mut(&mut hidden.docker[0].snapshot);
    docker.containers[0].id = id.clone();
    docker.containers[0].name = "hidden".to_owned();
    let inside = Inside {
        is_hidden: true,
        mac: Some([2, 0x42, 0, 0, 0, 2]),
        addresses: vec![[172, 17, 0, 2].into()],
        ..lan("veth")
    };
    let own = Namespace {
        inside: vec![inside],
        looked_running: true,
        ..own
    };
    let mut observed = engine(if is_there {
        vec![container(2, &[])]
    } else {
        vec![]
    });
    observed.containers.insert(id, own);
    observed.docker.insert(0, hidden.docker.remove(0));
    observed
}

#[test]
fn the_addresses_of_an_engine_in_another_network_namespace_take_none_here() {
    let mut register = Register::default();
    let alone = go(&two_engines(false), &mut register);
    assert_eq!(reasons(&alone), [""; 0]);
    assert_eq!(attached(&alone, "default/hidden").interfaces.len(), 1);
    // It had the address first.
    let both = go(&two_engines(true), &mut register);
    let address = "172.17.0.2".parse().unwrap();
    let addresses = |name: &str| &both.world.pods[&name.parse().unwrap()].addresses;
    assert!(addresses("default/c2").contains(&address), "{both:?}");
    assert!(addresses("default/hidden").is_empty());
    // It loses nothing by that but its enforcement, which is said.
    assert_eq!(
        both.world.pods[&"default/hidden".parse().unwrap()].place,
        Place::Local
    );
    assert!(both.inside.is_empty() && !both.interfaces.contains_key(&FIRST_INSIDE));
    // It may start as it is.
    assert_eq!(both.yielded, [alone.inside[&FIRST_INSIDE].within.location]);
    let [reason] = reasons(&both)[..] else {
        panic!("{:?}", both.unprotected);
    };
    assert!(
        reason.contains("172.17.0.2") && reason.contains("default/c2"),
        "{reason}"
    );
    assert!(both.conflicts.is_empty());
    // Also where it does not say it any more, and is remembered.
    let mut silent = two_engines(true);
    silent.docker[0] = Engine {
        followed: true,
        ..Engine::default()
    };
    let mut register = Register::default();
    go(&two_engines(false), &mut register);
    let found = go(&silent, &mut register);
    assert!(
        found.world.pods[&"default/c2".parse().unwrap()]
            .addresses
            .contains(&address)
    );
    // And it is enforced once more when the other one has gone.
    let again = go(&two_engines(false), &mut register);
    assert_eq!(attached(&again, "default/hidden").interfaces.len(), 1);
}

#[test]
fn an_overlay_whose_veth_is_not_there_yet_is_reported_as_not_enforced() {
    let mut observed = overlay();
    let namespace = observed.containers.values_mut().next().unwrap();
    namespace.inside.clear();
    let found = go(&observed, &mut Register::default());
    assert!(reasons(&found)[0].contains("`overlay`"), "{found:?}");
    // While it starts, it may still come.
    let docker = Arc::make_mut(&mut observed.docker[0].snapshot);
    docker.containers[0].state = State::Created;
    assert_eq!(reasons(&go(&observed, &mut Register::default())), [""; 0]);
    let mut observed = overlay();
    let rights = Rights {
        net_admin: false,
        net_raw: true,
    };
    observed.containers.values_mut().next().unwrap().rights = rights;
    let found = go(&observed, &mut Register::default());
    assert!(reasons(&found)[0].contains("NET_RAW"), "{found:?}");
}
