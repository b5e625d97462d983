//! Whose an address is.

use super::*;

#[test]
fn an_address_stays_with_who_had_it_first() {
    let mut register = Register::default();
    let first = engine(vec![container(2, &[])]);
    go(&first, &mut register);
    let mut younger = container(1, &[]);
    younger.networks[0].ipv4 = Some([172, 17, 0, 2].into());
    let mut observed = engine(vec![younger, container(2, &[])]);
    let second = namespace(Some(1)).identity;
    observed
        .containers
        .get_mut(&container(2, &[]).id)
        .unwrap()
        .identity = second;
    let found = go(&observed, &mut register);
    let [conflict] = &found.conflicts[..] else {
        panic!("{:?}", found.conflicts);
    };
    assert_eq!(conflict.holder.to_string(), "default/c2");
    assert_eq!(conflict.other.to_string(), "default/c1");
    let loser = &found.world.pods[&"default/c1".parse().unwrap()];
    assert!(loser.addresses.iter().all(IpAddr::is_ipv6));
}

#[test]
fn no_endpoint_gets_an_address_of_the_host() {
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

/// Netlink alone says which addresses are the host's: a manifest's word adds none, and takes none
/// from a container.
#[test]
fn a_pod_on_the_host_s_network_makes_no_address_the_host_s() {
    let text = |name: &str, address: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{hostNetwork: true}}\n\
             status: {{podIPs: [{{ip: {address}}}]}}\n"
        )
    };
    let mut observed = engine(vec![container(2, &[])]);
    let without = go(&observed, &mut Register::default());
    let all = [
        text("here", "192.0.2.1"),
        text("node", "198.51.100.7"),
        text("other", "198.51.100.8"),
        text("thief", "172.17.0.2"),
    ];
    observed.store = manifests(&all.join("---\n"));
    let found = go(&observed, &mut Register::default());
    assert_eq!(found.world.host, without.world.host);
    let pod = |name: &str| &found.world.pods[&name.parse().unwrap()];
    assert_eq!(
        pod("default/c2"),
        &without.world.pods[&"default/c2".parse().unwrap()]
    );
    assert!(pod("default/thief").addresses.is_empty());
    let [conflict] = &found.conflicts[..] else {
        panic!("{:?}", found.conflicts);
    };
    assert_eq!(conflict.holder.to_string(), "default/c2");
    assert_eq!(
        found.warnings,
        [
            "Pod default/node is on the host's network, but its address 198.51.100.7 is not this \
          host's: it is taken for a host elsewhere (so is one more Pod)"
        ]
    );
}

#[test]
fn a_resolver_that_is_a_container_stays_that_container() {
    let mut observed = engine(vec![container(5, &[])]);
    observed.resolvers.addresses =
        ["172.17.0.5".parse().unwrap(), "10.0.0.53".parse().unwrap()].into();
    let (found, dns) = kube_dns(&observed, &mut Register::default());
    assert_eq!(dns, ["10.0.0.53".parse().unwrap()].into());
    assert!(found.conflicts.is_empty());
}
