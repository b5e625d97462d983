//! Where engines publish ports of endpoints, and what is asked of the endpoint behind each.

use std::collections::BTreeMap;

use netpol_abi::packet::protocol;
use netpol_abi::tables::{NOT_ISOLATED, PublishedBank, endpoint_flags, published_flags};

use crate::tables::{EndpointEntry, PublishedAt};
use crate::world::{Place, World, published_where};

/// What stands in the table. An endpoint that no policy isolates lets every sender in: it has an entry only where another one
/// would be found instead.
pub(super) fn published_banks(
    world: &World,
    endpoints: &BTreeMap<u32, EndpointEntry>,
) -> BTreeMap<PublishedAt, PublishedBank> {
    let mut all = listed(world, endpoints);
    other_family(&mut all);
    let mut banks = by_address(&all);
    broadcasts(world, &mut banks);
    banks
}

/// What engines list. Of two that one port is said to lead to, as while it passes from one container to the next, the one
/// that is isolated: closed, until the engine says it.
fn listed(
    world: &World,
    endpoints: &BTreeMap<u32, EndpointEntry>,
) -> BTreeMap<PublishedAt, PublishedBank> {
    let mut all: BTreeMap<PublishedAt, PublishedBank> = BTreeMap::new();
    for pod in world.pods.values() {
        let Place::Attached(attached) = &pod.place else {
            continue;
        };
        let Some(endpoint) = endpoints.get(&attached.slot) else {
            continue;
        };
        let is_audited = endpoint.flags & endpoint_flags::AUDIT != 0;
        for published in &pod.published {
            let at = PublishedAt {
                port: published.port,
                protocol: published.protocol.number(),
                address: published.address,
            };
            let bank = PublishedBank {
                ingress: endpoint.ingress,
                audited_ingress: endpoint.audited_ingress,
                id: endpoint.id,
                port: published.target,
                flags: published_flags::LISTED
                    | if is_audited {
                        published_flags::AUDIT
                    } else {
                        0
                    },
            };
            let held = all.entry(at).or_insert(bank);
            if !is_isolated(held) && is_isolated(&bank) {
                *held = bank;
            }
        }
    }
    all
}

const fn is_isolated(bank: &PublishedBank) -> bool {
    bank.ingress != NOT_ISOLATED || bank.audited_ingress != NOT_ISOLATED
}

/// A socket that is bound to all addresses of one family may hear the other one as well, and engines before Docker 20.10.2
/// don't say so: where the engine names nothing for the other one, the same stands there.
fn other_family(all: &mut BTreeMap<PublishedAt, PublishedBank>) {
    let is_everywhere = |at: &PublishedAt| at.address.is_unspecified();
    let others: Vec<(PublishedAt, PublishedBank)> = all
        .iter()
        .filter(|(at, _)| is_everywhere(at))
        .map(|(at, bank)| {
            let [_, _, address] = published_where(at.address);
            (PublishedAt { address, ..*at }, *bank)
        })
        .collect();
    for (at, bank) in others {
        all.entry(at).or_insert(bank);
    }
}

/// Datagrams for every host on a link reach sockets that are bound to all addresses: where there are any, those addresses
/// are listed, too.
fn broadcasts(world: &World, banks: &mut BTreeMap<PublishedAt, PublishedBank>) {
    let hears = |(at, bank): (&PublishedAt, &PublishedBank)| {
        at.protocol == protocol::UDP
            && at.address.is_unspecified()
            && bank.flags & published_flags::LISTED != 0
    };
    if !banks.iter().any(hears) {
        return;
    }
    for address in &world.broadcasts {
        let at = PublishedAt {
            port: 0,
            protocol: 0,
            address: *address,
        };
        let bank = PublishedBank {
            flags: published_flags::LISTED,
            ..PublishedBank::default()
        };
        banks.insert(at, bank);
    }
}

/// The entries that say something, and for each port with addresses of its own the mark that leads to them.
fn by_address(all: &BTreeMap<PublishedAt, PublishedBank>) -> BTreeMap<PublishedAt, PublishedBank> {
    let mut banks = BTreeMap::new();
    for (at, bank) in all {
        let everywhere = PublishedAt {
            address: published_where(at.address)[1],
            ..*at
        };
        let is_there = all.get(&everywhere).is_some_and(is_isolated);
        if !is_isolated(bank) && !is_there {
            continue;
        }
        if *at != everywhere {
            // Behind the entry for all addresses, which is the first of its family.
            let mark: &mut PublishedBank = banks.entry(everywhere).or_default();
            mark.flags |= published_flags::BY_ADDRESS;
        }
        banks.insert(*at, *bank);
    }
    banks
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::policy::{ObjectName, Protocol};
    use crate::world::{Attached, Pod, PublishedPort};

    const LISTED: u16 = published_flags::LISTED;
    const MARKED: u16 = published_flags::BY_ADDRESS;

    /// A world whose Pods publish these, and the endpoints: the policy set for ingress is 100 times the number, 0 for what
    /// is in `open`.
    fn world(pods: &[&[&str]], open: &[u32]) -> (World, BTreeMap<u32, EndpointEntry>) {
        let mut world = World {
            broadcasts: ["10.0.0.255".parse().unwrap()].into(),
            ..World::default()
        };
        let mut endpoints = BTreeMap::new();
        for (id, ports) in (1..).zip(pods) {
            let published = ports.iter().map(|text| {
                let (address, rest) = text.rsplit_once('#').unwrap();
                let (port, protocol) = rest.split_once('/').unwrap();
                PublishedPort {
                    protocol: protocol.parse().unwrap(),
                    address: address.parse().unwrap(),
                    port: port.parse().unwrap(),
                    target: 80,
                }
            });
            let pod = Pod {
                published: published.collect(),
                place: Place::Attached(Attached {
                    slot: id,
                    id,
                    ..Attached::default()
                }),
                ..Pod::default()
            };
            let ingress = if open.contains(&id) {
                0
            } else {
                u64::from(id) * 100
            };
            let entry = EndpointEntry {
                id,
                ingress,
                audited_ingress: ingress,
                ..EndpointEntry::default()
            };
            world
                .pods
                .insert(ObjectName::new("a", format!("p{id}")), pod);
            endpoints.insert(id, entry);
        }
        (world, endpoints)
    }

    /// `ADDRESS#PORT`: number of the endpoint, flags.
    fn found(pods: &[&[&str]], open: &[u32]) -> Vec<(String, u32, u16)> {
        let (world, endpoints) = world(pods, open);
        published_banks(&world, &endpoints)
            .iter()
            .map(|(at, bank)| (format!("{}#{}", at.address, at.port), bank.id, bank.flags))
            .collect()
    }

    fn entry(at: &str, id: u32, flags: u16) -> (String, u32, u16) {
        (at.to_owned(), id, flags)
    }

    #[test]
    fn what_is_published_everywhere_is_so_in_both_families() {
        let both = [
            entry("0.0.0.0#8080", 1, LISTED),
            entry("::#8080", 1, LISTED),
        ];
        assert_eq!(found(&[&["0.0.0.0#8080/TCP"]], &[]), both);
        assert_eq!(found(&[&["0.0.0.0#8080/TCP", "::#8080/TCP"]], &[]), both);
        // Unless the engine leads the other one elsewhere.
        assert_eq!(
            found(&[&["0.0.0.0#8080/TCP"], &["::#8080/TCP"]], &[]),
            [
                entry("0.0.0.0#8080", 1, LISTED),
                entry("::#8080", 2, LISTED)
            ]
        );
    }

    #[test]
    fn single_addresses_are_marked() {
        assert_eq!(
            found(&[&["10.0.0.1#80/TCP"], &["10.0.0.2#80/TCP"]], &[]),
            [
                entry("0.0.0.0#80", 0, MARKED),
                entry("10.0.0.1#80", 1, LISTED),
                entry("10.0.0.2#80", 2, LISTED),
            ]
        );
    }

    #[test]
    fn who_is_not_isolated_is_left_out_unless_another_would_be_found() {
        assert_eq!(found(&[&["0.0.0.0#80/TCP", "10.0.0.1#81/TCP"]], &[1]), []);
        assert_eq!(
            found(&[&["0.0.0.0#80/TCP"], &["10.0.0.1#80/TCP"]], &[2]),
            [
                entry("0.0.0.0#80", 1, LISTED | MARKED),
                entry("10.0.0.1#80", 2, LISTED),
                entry("::#80", 1, LISTED),
            ]
        );
        // A port that passes from one to another.
        for open in [1, 2] {
            let found = found(&[&["10.0.0.1#80/TCP"], &["10.0.0.1#80/TCP"]], &[open]);
            assert_eq!(found[1], entry("10.0.0.1#80", 3 - open, LISTED));
        }
    }

    #[test]
    fn broadcast_datagrams_reach_sockets_of_all_addresses() {
        assert_eq!(
            found(&[&["0.0.0.0#53/UDP"]], &[]),
            [
                entry("10.0.0.255#0", 0, LISTED),
                entry("0.0.0.0#53", 1, LISTED),
                entry("::#53", 1, LISTED),
            ]
        );
        assert_eq!(found(&[&["10.0.0.1#53/UDP"]], &[]).len(), 2);
        let tcp = found(&[&["0.0.0.0#53/TCP"]], &[]);
        assert_eq!(tcp.len(), 2, "{tcp:?}");
        assert_eq!(Protocol::Udp.number(), protocol::UDP);
    }
}
