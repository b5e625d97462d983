//! The resolvers that containers may have been given.

use netpol_abi::limits::FIRST_LOOPBACK;

use super::*;
use crate::runtime::container::{AskedFrom, Dns};

fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|text| text.parse().unwrap()).collect()
}

fn state(observed: &mut Observed, index: usize, change: impl Fn(&mut Container)) {
    let snapshot = Arc::make_mut(&mut observed.docker[0].snapshot);
    change(&mut snapshot.containers[index]);
}

#[test]
fn a_container_keeps_the_resolvers_of_its_start_and_a_restarted_daemon_knows_them() {
    let mut observed = engine(vec![container(1, &[]), container(2, &[])]);
    state(&mut observed, 1, |two| {
        two.state = State::Created;
        two.pid = 0;
    });
    observed.resolvers.addresses = set(&["10.0.0.1"]);
    let mut register = Register::default();
    assert_eq!(kube_dns(&observed, &mut register).1, set(&["10.0.0.1"]));

    observed.resolvers.addresses = set(&["10.0.0.2"]);
    state(&mut observed, 1, |two| {
        two.state = State::Running;
        two.pid = 1002;
    });
    let both = set(&["10.0.0.1", "10.0.0.2"]);
    assert_eq!(kube_dns(&observed, &mut register).1, both);
    observed.resolvers.addresses = set(&["10.0.0.3"]);
    let all = set(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(kube_dns(&observed, &mut register).1, all);

    // Another daemon, whose engine has not answered yet.
    let state_directory = tempfile::tempdir().unwrap();
    register.save(state_directory.path(), "boot").unwrap();
    let mut register = Register::read(state_directory.path(), "boot");
    let mut silent = observed.clone();
    silent.docker[0].listed = false;
    silent.docker[0].snapshot = Arc::default();
    assert_eq!(kube_dns(&silent, &mut register).1, all);
    assert_eq!(kube_dns(&observed, &mut register).1, all);

    // Restarted, the first has those of now, whether it was seen to be gone or not.
    let mut again = register.clone();
    state(&mut observed, 0, |one| one.pid = 5001);
    let younger = set(&["10.0.0.2", "10.0.0.3"]);
    assert_eq!(kube_dns(&observed, &mut again).1, younger);
    state(&mut observed, 0, |one| one.state = State::Ended);
    assert_eq!(kube_dns(&observed, &mut register).1, younger);
    state(&mut observed, 1, |two| two.state = State::Ended);
    assert_eq!(kube_dns(&observed, &mut register).1, set(&["10.0.0.3"]));
    assert!(register.started.is_empty());
}

#[test]
fn resolvers_of_one_container_are_a_peer_while_it_is_there() {
    let mut observed = engine(vec![container(1, &[]), container(2, &[])]);
    observed.resolvers.addresses = set(&["10.0.0.1"]);
    state(&mut observed, 0, |one| {
        // A container, the host, and a stranger.
        one.dns.servers = set(&["172.17.0.2", "192.0.2.1", "198.51.100.53"]);
        // Before its first packet.
        one.state = State::Created;
    });
    let mut register = Register::default();
    let (found, dns) = kube_dns(&observed, &mut register);
    assert_eq!(dns, set(&["10.0.0.1", "198.51.100.53"]));
    assert!(found.conflicts.is_empty() && found.warnings.is_empty());
    state(&mut observed, 0, |one| one.state = State::Ended);
    assert_eq!(kube_dns(&observed, &mut register).1, set(&["10.0.0.1"]));

    state(&mut observed, 0, |one| one.state = State::Running);
    let without = go(&observed, &mut register);
    let name = "kube-system/kube-dns".parse().unwrap();
    assert!(
        !without.world.pods.contains_key(&name),
        "it is switched off"
    );
}

#[test]
fn who_asks_from_the_hosts_network_depends_on_the_resolver_of_its_start() {
    let asked_from = [
        AskedFrom::Container,
        AskedFrom::HostIfLoopback,
        AskedFrom::Host,
    ];
    let mut observed = engine((1..=3).map(|number| container(number, &[])).collect());
    for (index, asked_from) in asked_from.into_iter().enumerate() {
        state(&mut observed, index, |one| {
            one.dns = Dns {
                asked_from,
                ..Dns::default()
            };
        });
    }
    let names = |found: &Desired| -> Vec<String> {
        found
            .asked_from_host
            .keys()
            .map(ToString::to_string)
            .collect()
    };
    observed.resolvers.addresses = set(&["10.0.0.1"]);
    let mut register = Register::default();
    assert_eq!(names(&go(&observed, &mut register)), ["default/c3"]);
    observed.resolvers.loopback = true;
    assert_eq!(names(&go(&observed, &mut register)), ["default/c3"]);
    let found = go(&observed, &mut Register::default());
    assert_eq!(names(&found), ["default/c2", "default/c3"]);
    let c2 = "default/c2".parse().unwrap();
    let asked = &found.asked_from_host[&c2];
    assert_eq!(asked.resolvers, set(&["10.0.0.1"]));
    assert_eq!(
        attached(&found, "default/c2").asks,
        Some(set(&["10.0.0.1"]))
    );
    assert_eq!(attached(&found, "default/c1").asks, None);
}

#[test]
fn what_asks_from_the_host_has_its_loopback_interface_among_its_own() {
    let mut observed = engine(vec![container(1, &[]), container(2, &[])]);
    state(&mut observed, 0, |one| {
        one.dns.asked_from = AskedFrom::Host;
        one.dns.servers = set(&["10.0.0.9"]);
    });
    observed.resolvers.addresses = set(&["10.0.0.1"]);
    let mut register = Register::default();
    let found = go(&observed, &mut register);
    let name: ObjectName = "default/c1".parse().unwrap();
    let number = FIRST_LOOPBACK;
    let asked = &found.asked_from_host[&name];
    assert_eq!(asked.loopback, Some(number));
    assert_eq!(asked.resolvers, set(&["10.0.0.1", "10.0.0.9"]));
    let own = attached(&found, "default/c1");
    assert_eq!(own.interfaces.get(&number), Some(&[0; 6]));
    assert_eq!(found.interfaces[&number], Some(name.clone()));
    let child = &found.inside[&number];
    assert_eq!((child.name.as_str(), child.kind), ("lo", "loopback"));
    let namespace = &observed.containers[&observed.docker[0].snapshot.containers[0].id];
    assert_eq!(child.within.namespace, namespace.path);
    assert_eq!(child.within.location.namespace, namespace.identity.1);
    assert_eq!(child.within.location.ifindex, 1);

    // The same number in the next look, and while another daemon waits for the engine; a new start gets another one.
    assert_eq!(attached(&go(&observed, &mut register), "default/c1"), own);
    let mut silent = observed.clone();
    silent.docker[0].listed = false;
    silent.docker[0].snapshot = Arc::default();
    let before = go(&silent, &mut register);
    assert_eq!(attached(&before, "default/c1"), own);
    assert_eq!(before.asked_from_host[&name].loopback, Some(number));
    let id = observed.docker[0].snapshot.containers[0].id.clone();
    observed.containers.get_mut(&id).unwrap().identity.1 += 1000;
    let again = attached(&go(&observed, &mut register), "default/c1");
    assert!(
        !again.interfaces.contains_key(&number) && again.interfaces.len() == own.interfaces.len()
    );

    // What asks by itself, or is on a network that is not in sight, has none.
    state(&mut observed, 0, |one| {
        one.dns.asked_from = AskedFrom::Container
    });
    let found = go(&observed, &mut register);
    assert!(found.inside.is_empty() && found.asked_from_host.is_empty());
}
