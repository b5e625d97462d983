//! Whose an address is.

use super::*;

#[test]
fn an_address_stays_with_who_had_it_first() {
    let mut register = Register::default();
    let first = engine(vec![container(2, &[])]);
    go(&first, &mut register);
    let mut younger = container(1, &[]);
    younger.networks[0].ipv4 = Some([172, 17, 0, 2].into());
    let mut facts = engine(vec![younger, container(2, &[])]);
    let second = namespace(Some(1)).identity;
    facts
        .containers
        .get_mut(&container(2, &[]).id)
        .unwrap()
        .identity = second;
    let found = go(&facts, &mut register);
    let [conflict] = &found.conflicts[..] else {
        panic!("{:?}", found.conflicts);
    };
    assert_eq!(conflict.holder.to_string(), "default/c2");
    assert_eq!(conflict.other.to_string(), "default/c1");
    let loser = &found.world.pods[&"default/c1".parse().unwrap()];
    assert!(loser.addresses.iter().all(IpAddr::is_ipv6));
}

#[test]
fn nobody_gets_an_address_of_the_host() {
    let mut thief = container(1, &[]);
    thief.networks[0].ipv4 = Some([192, 0, 2, 1].into());
    let found = go(&engine(vec![thief]), &mut Register::default());
    let pod = &found.world.pods[&"default/c1".parse().unwrap()];
    assert!(pod.addresses.iter().all(IpAddr::is_ipv6));
    assert!(
        found.warnings[0].contains("192.0.2.1"),
        "{:?}",
        found.warnings
    );
}

#[test]
fn a_resolver_that_is_a_container_stays_that_container() {
    let mut facts = engine(vec![container(5, &[])]);
    facts.resolvers = Some(["172.17.0.5".parse().unwrap(), "10.0.0.53".parse().unwrap()].into());
    let found = go(&facts, &mut Register::default());
    let dns = &found.world.pods[&"kube-system/kube-dns".parse().unwrap()];
    assert_eq!(dns.addresses, ["10.0.0.53".parse().unwrap()].into());
    assert!(found.conflicts.is_empty());
}
