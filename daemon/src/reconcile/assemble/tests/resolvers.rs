//! The resolvers that containers may have been given.

use super::*;
use crate::runtime::container::{AskedFrom, Dns};

fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|text| text.parse().unwrap()).collect()
}

fn state(facts: &mut Facts, index: usize, change: impl Fn(&mut Container)) {
    let snapshot = Arc::make_mut(&mut facts.docker[0].snapshot);
    change(&mut snapshot.containers[index]);
}

#[test]
fn a_container_keeps_the_resolvers_of_its_start_and_a_restarted_daemon_knows_them() {
    let mut facts = engine(vec![container(1, &[]), container(2, &[])]);
    state(&mut facts, 1, |two| {
        two.state = State::Created;
        two.pid = 0;
    });
    facts.resolvers.addresses = set(&["10.0.0.1"]);
    let mut register = Register::default();
    assert_eq!(kube_dns(&facts, &mut register).1, set(&["10.0.0.1"]));

    facts.resolvers.addresses = set(&["10.0.0.2"]);
    state(&mut facts, 1, |two| {
        two.state = State::Running;
        two.pid = 1002;
    });
    let both = set(&["10.0.0.1", "10.0.0.2"]);
    assert_eq!(kube_dns(&facts, &mut register).1, both);
    facts.resolvers.addresses = set(&["10.0.0.3"]);
    let all = set(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(kube_dns(&facts, &mut register).1, all);

    // Another daemon, whose engine has not answered yet.
    let state_directory = tempfile::tempdir().unwrap();
    register.save(state_directory.path(), "boot").unwrap();
    let mut register = Register::read(state_directory.path(), "boot");
    let mut silent = facts.clone();
    silent.docker[0].listed = false;
    silent.docker[0].snapshot = Arc::default();
    assert_eq!(kube_dns(&silent, &mut register).1, all);
    assert_eq!(kube_dns(&facts, &mut register).1, all);

    // Restarted, the first has those of now, whether it was seen to be gone or not.
    let mut again = register.clone();
    state(&mut facts, 0, |one| one.pid = 5001);
    let younger = set(&["10.0.0.2", "10.0.0.3"]);
    assert_eq!(kube_dns(&facts, &mut again).1, younger);
    state(&mut facts, 0, |one| one.state = State::Ended);
    assert_eq!(kube_dns(&facts, &mut register).1, younger);
    state(&mut facts, 1, |two| two.state = State::Ended);
    assert_eq!(kube_dns(&facts, &mut register).1, set(&["10.0.0.3"]));
    assert!(register.started.is_empty());
}

#[test]
fn resolvers_of_one_container_are_a_peer_while_it_is_there() {
    let mut facts = engine(vec![container(1, &[]), container(2, &[])]);
    facts.resolvers.addresses = set(&["10.0.0.1"]);
    state(&mut facts, 0, |one| {
        // A container, the host, and a stranger.
        one.dns.servers = set(&["172.17.0.2", "192.0.2.1", "198.51.100.53"]);
        // Before its first packet.
        one.state = State::Created;
    });
    let mut register = Register::default();
    let (found, dns) = kube_dns(&facts, &mut register);
    assert_eq!(dns, set(&["10.0.0.1", "198.51.100.53"]));
    assert!(found.conflicts.is_empty() && found.warnings.is_empty());
    state(&mut facts, 0, |one| one.state = State::Ended);
    assert_eq!(kube_dns(&facts, &mut register).1, set(&["10.0.0.1"]));

    state(&mut facts, 0, |one| one.state = State::Running);
    let without = go(&facts, &mut register);
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
    let mut facts = engine((1..=3).map(|number| container(number, &[])).collect());
    for (index, asked_from) in asked_from.into_iter().enumerate() {
        state(&mut facts, index, |one| {
            one.dns = Dns {
                asked_from,
                ..Dns::default()
            };
        });
    }
    let names = |found: &Assembled| -> Vec<String> {
        found
            .asked_from_host
            .keys()
            .map(ToString::to_string)
            .collect()
    };
    facts.resolvers.addresses = set(&["10.0.0.1"]);
    let mut register = Register::default();
    assert_eq!(names(&go(&facts, &mut register)), ["default/c3"]);
    facts.resolvers.loopback = true;
    assert_eq!(names(&go(&facts, &mut register)), ["default/c3"]);
    let found = go(&facts, &mut Register::default());
    assert_eq!(names(&found), ["default/c2", "default/c3"]);
    let c2 = "default/c2".parse().unwrap();
    assert_eq!(found.asked_from_host[&c2], set(&["10.0.0.1"]));
}
