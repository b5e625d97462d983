//! Interfaces that have no owner yet.

use super::*;

#[test]
fn what_looks_like_a_containers_is_on_hold_and_the_rest_is_left_alone() {
    let mut observed = engine(vec![]);
    observed.links.bridges.insert(101, "br0".to_owned());
    observed.links.veths = vec![
        veth(11, Some(1), Some(BRIDGE)),
        // It may still move, and must not take a program along: to a container, from which an overlay's bridge is at the
        // other end already, or with that one still here.
        veth(12, Some(2), None),
        veth(14, None, None),
        veth(13, Some(3), Some(101)),
    ];
    let found = go(&observed, &mut Register::default());
    assert_eq!(found.interfaces, [(11, None)].into());
    assert_eq!(found.unidentified.len(), 1);
    observed.docker[0].followed = false;
    assert!(
        go(&observed, &mut Register::default())
            .interfaces
            .is_empty()
    );
    observed.docker[0].followed = true;
    (observed.docker[0].socket, observed.docker[0].listed) = (false, false);
    assert!(
        go(&observed, &mut Register::default())
            .interfaces
            .is_empty()
    );
}

#[test]
fn an_enforced_interface_is_held_and_not_opened_while_the_engine_is_silent() {
    let mut observed = engine(vec![]);
    observed.docker[0] = Engine {
        followed: true,
        ..Engine::default()
    };
    observed.links.veths = vec![veth(11, Some(1), None)];
    let found = assemble(
        &observed,
        &Settings::default(),
        &[11].into(),
        &mut Register::default(),
    );
    assert_eq!(found.interfaces, [(11, None)].into());
}

#[test]
fn where_containerds_containers_were_the_next_one_is_on_hold() {
    let mut register = Register::default();
    let mut observed = containerd(vec![task("web", "web")], |number| number as i32);
    let stranger = |ifindex, name: &str| Veth {
        name: name.to_owned(),
        ..veth(ifindex, Some(9), Some(BRIDGE))
    };
    let strangers = [
        stranger(31, "veth0123abcd"),
        // Another container's, on the same bridge.
        stranger(32, "vethAbCdEf"),
    ];
    // No container has been there yet: it may be any bridge.
    let mut empty = containerd(vec![], |_| 0);
    empty.links.veths = strangers.to_vec();
    assert!(go(&empty, &mut register).interfaces.is_empty());
    observed.links.veths.extend(strangers.clone());
    let found = go(&observed, &mut register);
    assert_eq!(found.interfaces[&31], None);
    assert!(!found.interfaces.contains_key(&32));
    // The last one is gone, and it is still known where they are.
    assert_eq!(go(&empty, &mut register).interfaces, [(31, None)].into());
    empty.containerd.followed = false;
    assert!(go(&empty, &mut register).interfaces.is_empty());
}

#[test]
fn bridges_of_a_docker_that_is_not_followed_are_not_containerds() {
    let mut observed = containerd(vec![], |_| 0);
    observed.links.bridges = [(BRIDGE, "br-0123456789ab".to_owned())].into();
    observed.links.veths = vec![Veth {
        name: "veth0123abcd".to_owned(),
        ..veth(31, Some(9), Some(BRIDGE))
    }];
    let on_hold =
        |observed: &Observed| !go(observed, &mut Register::default()).interfaces.is_empty();
    // nerdctl's.
    assert!(on_hold(&observed));
    observed.docker[0].socket = true;
    assert!(!on_hold(&observed));
    observed.docker[0].followed = true;
    assert!(on_hold(&observed));
}

/// Programs and the engine's word go at different times: an exit is no alarm.
#[test]
fn an_interface_whose_endpoint_is_gone_is_shut_and_said_to_be_just_that() {
    let mut register = Register::default();
    let mut observed = engine(vec![container(1, &[]), container(2, &[])]);
    go(&observed, &mut register);
    // The process has ended, of which the engine has not told; its interface is there still.
    observed.containers.remove(&container(1, &[]).id);
    observed.links.veths[0].peer_nsid = None;
    let gone = go(&observed, &mut register);
    let reasons = |found: &Desired| -> Vec<String> {
        let held = found.unidentified.iter();
        held.map(|one| one.reason.clone()).collect()
    };
    assert_eq!(reasons(&gone), [ENDED]);
    assert_eq!(gone.interfaces[&11], None);
    // Also when all is looked at once more, and the engine has told.
    Arc::make_mut(&mut observed.docker[0].snapshot)
        .containers
        .remove(0);
    assert_eq!(reasons(&go(&observed, &mut register)), [ENDED]);
    // A number that another interface has is not the endpoint's.
    observed.links.veths.remove(0);
    assert!(reasons(&go(&observed, &mut register)).is_empty());
    observed.links.veths.push(veth(11, Some(9), Some(BRIDGE)));
    let new = go(&observed, &mut register);
    assert_eq!(
        reasons(&new),
        ["the container behind it is not known yet".to_owned()]
    );
}

/// Two engines: the one on docker0 has listed this container, the other one is on the bridge `shop`.
fn two_engines(other_listed: bool) -> Observed {
    let mut observed = engine(vec![container(1, &[])]);
    observed.docker[0].path = "/run/docker.sock".into();
    observed.docker[0].bridges = ["docker0".to_owned()].into();
    let snapshot = observed.docker[0]
        .snapshot
        .of_engine(&observed.docker[0].path);
    observed.docker[0].snapshot = Arc::new(snapshot);
    observed.containers = [(
        observed.docker[0].snapshot.containers[0].id.clone(),
        namespace(Some(1)),
    )]
    .into();
    observed.docker.push(Engine {
        path: "/run/other.sock".into(),
        label: "docker at /run/other.sock".to_owned(),
        followed: true,
        socket: true,
        listed: other_listed,
        bridges: ["shop".to_owned()].into(),
        ..Engine::default()
    });
    observed.links.bridges.insert(101, "shop".to_owned());
    observed.links.bridges.insert(102, "podman0".to_owned());
    observed
}

#[test]
fn an_engine_that_does_not_answer_holds_nothing_that_another_one_can_tell_of() {
    let mut observed = two_engines(false);
    observed.links.veths.extend([
        veth(21, Some(7), Some(BRIDGE)),
        veth(22, Some(8), Some(101)),
        veth(23, Some(9), Some(102)),
    ]);
    let found = go(&observed, &mut Register::default());
    assert_eq!(names(&found), ["default/c1"]);
    let reasons: BTreeMap<u32, &str> = found
        .unidentified
        .iter()
        .map(|one| (one.ifindex, one.reason.as_str()))
        .collect();
    let (silent, unknown) = (
        "docker at /run/other.sock has not answered yet",
        "the container behind it is not known yet",
    );
    assert_eq!(reasons, [(21, unknown), (22, silent), (23, silent)].into());
}

#[test]
fn containers_of_two_engines_with_one_id_and_one_name_are_two_endpoints() {
    let mut observed = two_engines(true);
    let twin = Container {
        networks: vec![Attachment {
            bridge: Some("shop".to_owned()),
            mac: Some([2, 0, 0, 0, 0, 9]),
            ipv4: Some([172, 18, 0, 9].into()),
            ..Attachment::default()
        }],
        ..container(1, &[])
    };
    let other = container::Snapshot {
        containers: vec![twin],
        connected: true,
        ..container::Snapshot::default()
    };
    observed.docker[1].snapshot = Arc::new(other.of_engine("/run/other.sock".as_ref()));
    let id = observed.docker[1].snapshot.containers[0].id.clone();
    observed.containers.insert(id.clone(), namespace(Some(2)));
    observed.links.veths.push(veth(22, Some(2), Some(101)));
    let mut register = Register::default();
    let found = go(&observed, &mut register);
    assert_eq!(names(&found).len(), 2, "{:?}", names(&found));
    let first = attached(&found, "default/c1");
    assert_eq!(first.interfaces.keys().collect::<Vec<_>>(), [&11]);
    let ids: Vec<&str> = found
        .origins
        .pods
        .values()
        .filter_map(|origin| Some(origin.container.as_ref()?.id.as_str()))
        .collect();
    assert!(
        ids.len() == 2 && ids[0] == ids[1] && ids[0].len() == 64,
        "{ids:?}"
    );
    // The one ends: the other stays what it was.
    observed.docker[1].snapshot = Arc::default();
    observed.containers.remove(&id);
    let found = go(&observed, &mut register);
    assert_eq!(names(&found), ["default/c1"]);
    assert_eq!(attached(&found, "default/c1"), first);
    // An engine that is no longer in the configuration is not waited for.
    observed.docker.remove(0);
    let found = go(&observed, &mut register);
    assert!(names(&found).is_empty());
}

/// By which a swarm's published ports come in.
#[test]
fn an_interface_of_the_engines_own_is_not_on_hold() {
    let mut observed = engine(vec![]);
    observed.links.veths = vec![veth(9, Some(3), Some(BRIDGE))];
    let held = go(&observed, &mut Register::default());
    assert_eq!(held.interfaces, [(9, None)].into());
    observed.engines_own.insert(3);
    let free = go(&observed, &mut Register::default());
    assert!(free.interfaces.is_empty() && free.unidentified.is_empty());
}
