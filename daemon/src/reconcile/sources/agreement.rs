//! Where the kernel and the engine do not agree about a container, and which interfaces have no known owner:
//! what the engine is to be asked about again.
//!
//! An engine tells of a change before it has saved it, and answers whenever it likes. The kernel shows at once what is
//! there. It does not say what is allowed, though: with NET_ADMIN a container can give itself any address. So nothing
//! becomes an endpoint's own because it is seen here; it is only asked about. Pure. Called by `sources`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::links;
use crate::reconcile::observed::Namespace;
use crate::runtime::container::{Attachment, Container};

/// Addresses on a container's ways out of which its engine has not said anything, and those that it has said and that
/// are not there.
pub fn disputed(container: &Container, namespace: &Namespace) -> BTreeSet<IpAddr> {
    let said: BTreeSet<IpAddr> = container
        .networks
        .iter()
        .flat_map(Attachment::addresses)
        .collect();
    if namespace.inside.is_empty() {
        // Not looked at.
        return BTreeSet::new();
    }
    let all = namespace.inside.iter();
    let there: BTreeSet<IpAddr> = all.flat_map(links::Inside::usable).collect();
    let ways_out = namespace.inside.iter().filter(|one| one.leads_out);
    let shown = ways_out.flat_map(|one| {
        // No engine knows what a router's advertisement or a lease gave.
        let lasting = one.usable().filter(|it| !one.leased.contains(it));
        lasting.filter(|it| !is_link_local(it))
    });
    let unsaid = shown.filter(|address| !said.contains(address));
    unsaid.chain(said.difference(&there).copied()).collect()
}

/// By bridge of the engine's: interfaces on it that lead into none of these namespaces.
pub fn unknown(
    links: &links::Snapshot,
    bridges: &BTreeSet<String>,
    known: &BTreeSet<i32>,
) -> BTreeMap<String, BTreeSet<u32>> {
    let mut unknown: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for veth in &links.veths {
        let bridge = veth.master.and_then(|master| links.bridges.get(&master));
        let Some(bridge) = bridge.filter(|bridge| bridges.contains(*bridge)) else {
            continue;
        };
        if veth.peer_nsid.is_none_or(|nsid| !known.contains(&nsid)) {
            let on_it = unknown.entry(bridge.clone()).or_default();
            on_it.insert(veth.ifindex);
        }
    }
    unknown
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::links::{Inside, Snapshot, Veth};

    fn addresses(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn disputed_with(said: &[&str], shown: &[&str], leased: &[&str]) -> Vec<String> {
        let networks = addresses(said).into_iter().map(|address| {
            let mut network = Attachment::default();
            match address {
                IpAddr::V4(address) => network.ipv4 = Some(address),
                IpAddr::V6(address) => network.ipv6 = Some(address),
            }
            network
        });
        let container = Container {
            networks: networks.collect(),
            ..Container::default()
        };
        let eth0 = Inside {
            leads_out: true,
            addresses: addresses(shown),
            leased: addresses(leased),
            ..Inside::default()
        };
        let lo = Inside {
            addresses: addresses(&["127.0.0.1", "::1", "10.9.9.9"]),
            ..Inside::default()
        };
        let namespace = Namespace {
            inside: vec![lo, eth0],
            ..Namespace::default()
        };
        let disputed = disputed(&container, &namespace);
        disputed.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_one_has_and_the_other_has_not_is_disputed() {
        let both = ["10.0.0.2", "fd00::2"];
        let rows: [[&[&str]; 4]; 5] = [
            [&both, &both, &[], &[]],
            [
                &both,
                &["10.0.0.2", "10.0.0.3", "fd00::2"],
                &[],
                &["10.0.0.3"],
            ],
            [&both, &["10.0.0.2"], &[], &["fd00::2"]],
            // The kernel's own, and a router's.
            [
                &["10.0.0.2"],
                &["10.0.0.2", "169.254.0.1", "fe80::1", "2001:db8::5"],
                &["2001:db8::5"],
                &[],
            ],
            // An address that the engine gave may be anywhere inside.
            [&["10.9.9.9"], &[], &[], &[]],
        ];
        for [said, shown, leased, expected] in rows {
            let found = disputed_with(said, shown, leased);
            assert_eq!(found, expected, "{said:?} {shown:?}");
        }
        let not_looked_at = disputed(&Container::default(), &Namespace::default());
        assert!(not_looked_at.is_empty());
    }

    #[test]
    fn an_interface_on_a_bridge_of_an_engine_belongs_to_a_container() {
        let veth = |ifindex, master, peer_nsid| Veth {
            ifindex,
            name: String::new(),
            mac: [0; 6],
            master,
            peer_nsid,
            peer_ifindex: None,
            up: true,
        };
        let links = Snapshot {
            veths: vec![
                veth(5, Some(1), Some(10)),
                veth(6, Some(1), Some(11)),
                // Not yet where it will be.
                veth(7, Some(1), None),
                veth(8, Some(2), Some(12)),
                veth(9, None, Some(13)),
            ],
            bridges: [(1, "docker0".to_owned()), (2, "virbr0".to_owned())].into(),
            ..Snapshot::default()
        };
        let found = unknown(&links, &["docker0".to_owned()].into(), &[10].into());
        let expected = BTreeMap::from([("docker0".to_owned(), BTreeSet::from([6, 7]))]);
        assert_eq!(found, expected);
    }
}
