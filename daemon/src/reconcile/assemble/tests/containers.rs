//! Endpoints that the Docker engine reports, and those of before.

use netpol_engine::policy::Protocol;
use netpol_engine::world::PublishedPort;

use super::*;

#[test]
fn containers_become_endpoints_with_what_the_engine_gave_them() {
    let labels = [
        ("com.docker.compose.project", "shop"),
        ("com.docker.compose.service", "web"),
    ];
    let observed = engine(vec![container(1, &labels), container(2, &[])]);
    let mut register = Register::default();
    let found = go(&observed, &mut register);
    let web = &found.world.pods[&"shop/c1".parse().unwrap()];
    assert_eq!(web.labels["app"], "web");
    let addresses: Vec<String> = web.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["172.17.0.1", "fe80::42:ff:fe00:1"]);
    assert_eq!(
        attached(&found, "shop/c1").interfaces,
        [(11, [2, 0x42, 0, 0, 0, 1])].into()
    );
    assert_ne!(
        attached(&found, "shop/c1").id,
        attached(&found, "default/c2").id
    );
    assert!(found.unidentified.is_empty() && found.unprotected.is_empty());
    // Nothing changed: nothing changes.
    assert_eq!(go(&observed, &mut register), found);
}

#[test]
fn published_ports_are_the_endpoints_and_stay_while_the_engine_is_silent() {
    let mut web = container(1, &[]);
    let port = PublishedPort {
        protocol: Protocol::Tcp,
        address: "0.0.0.0".parse().unwrap(),
        port: 8080,
        target: 80,
    };
    web.published.insert(port);
    let mut observed = engine(vec![web]);
    let mut register = Register::default();
    let found = go(&observed, &mut register);
    assert_eq!(
        found.world.broadcasts,
        ["192.0.2.255".parse().unwrap()].into()
    );
    let name = "default/c1".parse().unwrap();
    assert_eq!(found.world.pods[&name].published, [port].into());
    // The engine does not answer any more.
    observed.containers.clear();
    observed.docker[0] = Engine {
        followed: true,
        ..Engine::default()
    };
    let found = go(&observed, &mut register);
    assert_eq!(found.world.pods[&name].published, [port].into());
}

#[test]
fn another_container_never_gets_the_number_of_the_one_before() {
    let observed = engine(vec![container(1, &[])]);
    let mut register = Register::default();
    let before = attached(&go(&observed, &mut register), "default/c1");
    // The same address, interface and namespace; another container.
    let mut other = container(9, &[]);
    other.networks = container(1, &[]).networks;
    let after = attached(&go(&engine(vec![other]), &mut register), "default/c9");
    assert_eq!(before.interfaces, after.interfaces);
    assert_ne!(before.id, after.id);
    assert_ne!(before.slot, after.slot);
    // The same container in a namespace of its next life.
    let mut observed = engine(vec![container(9, &[])]);
    observed.containers.values_mut().next().unwrap().identity = (4, 99);
    let again = attached(&go(&observed, &mut register), "default/c9");
    assert_ne!(again.id, after.id);
}

#[test]
fn until_the_engine_has_listed_its_endpoints_stay() {
    let listed = engine(vec![container(1, &[("app", "x")]), container(2, &[])]);
    let mut register = Register::default();
    let before = go(&listed, &mut register);
    let mut silent = listed.clone();
    silent.containers.clear();
    silent.docker[0] = Engine {
        followed: true,
        ..Engine::default()
    };
    // The second one's interface has gone, and its number is another's.
    silent.links.veths[1].peer_nsid = Some(7);
    let now = go(&silent, &mut register);
    assert_eq!(
        attached(&now, "default/c1"),
        attached(&before, "default/c1")
    );
    assert_eq!(
        now.world.pods[&"default/c1".parse().unwrap()],
        before.world.pods[&"default/c1".parse().unwrap()]
    );
    assert!(!now.world.pods.contains_key(&"default/c2".parse().unwrap()));
    // An interface that was enforced and has no owner now is on hold, not open.
    assert_eq!(now.interfaces[&12], None);
    // The engine knows nothing of the first one: it goes.
    let gone = go(&engine(vec![]), &mut register);
    assert!(gone.world.pods.is_empty() && register.records.is_empty());
}

#[test]
fn containers_that_policy_cannot_reach_are_reported() {
    let mut hosty = container(1, &[]);
    hosty.host_network = true;
    let mut lan = container(2, &[]);
    lan.networks[0].driver = "macvlan".to_owned();
    let mut lonely = container(3, &[]);
    lonely.networks.clear();
    let mut joined = container(4, &[]);
    joined.joined = Some(lonely.id.clone());
    let mut observed = engine(vec![hosty, lan, lonely, joined]);
    observed.links.veths.clear();
    let found = go(&observed, &mut Register::default());
    let names: Vec<&str> = found
        .unprotected
        .iter()
        .map(|one| one.container.as_str())
        .collect();
    assert_eq!(names, ["default/c1", "default/c2"]);
    assert_eq!(found.world.pods.len(), 3);
}

/// Of a rootless engine, whose networks are in a namespace of its own.
#[test]
fn a_container_whose_network_is_out_of_sight_is_unprotected() {
    let mut observed = engine(vec![container(1, &[]), container(2, &[])]);
    observed.links.veths.remove(0);
    let id = container(1, &[]).id;
    let mut unprotected = |inside: Vec<Inside>| {
        observed.containers.get_mut(&id).unwrap().inside = inside;
        go(&observed, &mut Register::default())
    };
    let lo = Inside {
        addresses: vec!["127.0.0.1".parse().unwrap()],
        up: true,
        ..Inside::default()
    };
    let tap = Inside {
        name: "tap0".to_owned(),
        kind: Some("tun".to_owned()),
        addresses: vec!["172.17.0.1".parse().unwrap()],
        up: true,
        ..Inside::default()
    };
    // Without any network nothing is open.
    assert_eq!(unprotected(vec![lo.clone()]).unprotected, []);
    let found = unprotected(vec![lo, tap]);
    assert_eq!(found.unprotected.len(), 1);
    assert_eq!(found.unprotected[0].container, "default/c1");
    // Its address may be another one's on this host.
    let pod = &found.world.pods[&"default/c1".parse().unwrap()];
    assert!(pod.addresses.is_empty(), "{pod:?}");
}
