//! Interfaces that are nobody's yet.

use super::*;

#[test]
fn what_looks_like_a_containers_is_on_hold_and_the_rest_is_left_alone() {
    let mut facts = engine(vec![]);
    facts.links.bridges.insert(101, "br0".to_owned());
    facts.links.veths = vec![
        veth(11, Some(1), Some(BRIDGE)),
        veth(12, Some(2), None),
        veth(13, Some(3), Some(101)),
        // Both ends here: the other one may still move, and must not take a program along.
        veth(14, None, None),
    ];
    let found = go(&facts, &mut Register::default());
    assert_eq!(found.interfaces, [(11, None), (12, None)].into());
    assert_eq!(found.unidentified.len(), 2);
    facts.docker.followed = false;
    assert!(go(&facts, &mut Register::default()).interfaces.is_empty());
    facts.docker.followed = true;
    (facts.docker.socket, facts.docker.listed) = (false, false);
    assert!(go(&facts, &mut Register::default()).interfaces.is_empty());
}

#[test]
fn an_enforced_interface_is_held_and_not_opened_while_the_engine_is_silent() {
    let mut facts = engine(vec![]);
    facts.docker = Engine {
        followed: true,
        ..Engine::default()
    };
    facts.links.veths = vec![veth(11, Some(1), None)];
    let found = assemble(
        &facts,
        &Settings::default(),
        &[11].into(),
        &mut Register::default(),
    );
    assert_eq!(found.interfaces, [(11, None)].into());
}

#[test]
fn where_containerds_containers_were_the_next_one_is_on_hold() {
    let mut register = Register::default();
    let mut facts = containerd(vec![task("web", "web")], |number| number as i32);
    let stranger = |ifindex, name: &str| Veth {
        name: name.to_owned(),
        ..veth(ifindex, Some(9), Some(BRIDGE))
    };
    let strangers = [
        stranger(31, "veth0123abcd"),
        // Somebody else's, on the same bridge.
        stranger(32, "vethAbCdEf"),
    ];
    // Nobody has been there yet: it may be any bridge.
    let mut empty = containerd(vec![], |_| 0);
    empty.links.veths = strangers.to_vec();
    assert!(go(&empty, &mut register).interfaces.is_empty());
    facts.links.veths.extend(strangers.clone());
    let found = go(&facts, &mut register);
    assert_eq!(found.interfaces[&31], None);
    assert!(!found.interfaces.contains_key(&32));
    // The last one is gone, and it is still known where they are.
    assert_eq!(go(&empty, &mut register).interfaces, [(31, None)].into());
    empty.containerd.followed = false;
    assert!(go(&empty, &mut register).interfaces.is_empty());
}

#[test]
fn bridges_of_a_docker_that_nobody_follows_are_not_containerds() {
    let mut facts = containerd(vec![], |_| 0);
    facts.links.bridges = [(BRIDGE, "br-0123456789ab".to_owned())].into();
    facts.links.veths = vec![Veth {
        name: "veth0123abcd".to_owned(),
        ..veth(31, Some(9), Some(BRIDGE))
    }];
    let on_hold = |facts: &Facts| !go(facts, &mut Register::default()).interfaces.is_empty();
    // nerdctl's.
    assert!(on_hold(&facts));
    facts.docker.socket = true;
    assert!(!on_hold(&facts));
    facts.docker.followed = true;
    assert!(on_hold(&facts));
}
