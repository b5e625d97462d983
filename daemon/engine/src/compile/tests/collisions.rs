//! Two contents of one number, made by hand and searched for: nowhere does the one become the other.

use std::collections::HashMap;
use std::hash::Hash;

use siphasher::sip128::{Hasher128, SipHasher24};

use super::*;

/// All digests, and all numbers, are the same.
fn no_bits() -> NumberKey {
    NumberKey::default().narrowed(0)
}

fn labelled(world: &mut World, id: u8, labels: &[(&str, &str)]) {
    pod(world, id, "any");
    let name = ObjectName::new("shop", format!("any-{id}"));
    let pod = world.pods.get_mut(&name).unwrap();
    pod.labels = labels
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
}

fn port(port: u16) -> Port {
    tcp(Ports::Range(port, port))
}

/// Refused by a fresh compiler, and by one that knows a world before; then that one compiles what it
/// should again.
fn refused(world: &World, key: NumberKey) -> Collision {
    let collision = compile_with(key, world).unwrap_err();
    let mut compiler = Compiler::new(key);
    let empty = Arc::new(World::default());
    let nothing = compiler.next(&empty).unwrap();
    let next = compiler.next(&Arc::new(world.clone()));
    assert_eq!(next.unwrap_err(), collision);
    assert_eq!(compiler.next(&empty).unwrap(), nothing);
    collision
}

#[test]
fn two_policy_sets_of_one_number_are_refused() {
    let mut world = shop();
    select(&mut world, "db", "db", Direction::Ingress, &[]);
    assert!(compile_with(no_bits(), &world).is_ok());
    select(&mut world, "web", "web", Direction::Ingress, &[]);
    let message = refused(&world, no_bits()).to_string();
    for thing in ["policy set 0x0000000000000010", "shop/db", "shop/web"] {
        assert!(message.contains(thing), "{message}");
    }
}

#[test]
fn the_ports_that_names_stand_for_tell_policy_sets_apart() {
    let mut world = shop();
    for (name, port) in [("web-1", 80), ("web-2", 8080)] {
        let pod = world.pods.get_mut(&ObjectName::new("shop", name)).unwrap();
        pod.ports.push(NamedPort {
            name: "http".to_owned(),
            port,
            protocol: Protocol::Tcp,
        });
    }
    let named = [tcp(Ports::Named("http".to_owned()))];
    select(
        &mut world,
        "web",
        "web",
        Direction::Ingress,
        &[(&[], &named)],
    );
    let message = refused(&world, no_bits()).to_string();
    assert!(
        message.contains("http=80/TCP") && message.contains("http=8080/TCP"),
        "{message}"
    );
}

#[test]
fn two_classes_of_one_number_are_refused() {
    let mut world = shop();
    let rules: &[(&[Peer], &[Port])] = &[(&[pods("web")], &[port(1)])];
    select(&mut world, "db", "db", Direction::Ingress, rules);
    assert!(compile_with(no_bits(), &world).is_ok());
    let more: [(&[Peer], &str); 2] = [
        (&[pods("job")], "app=job"),
        (
            &[
                block("10.0.0.4/32", &["10.0.0.4/32"]),
                block("192.0.2.0/24", &[]),
            ],
            "192.0.2.0/24",
        ),
    ];
    for (peers, named) in more {
        let rules: &[(&[Peer], &[Port])] = &[(&[pods("web")], &[port(1)]), (peers, &[port(2)])];
        select(&mut world, "db", "db", Direction::Ingress, rules);
        let message = refused(&world, no_bits()).to_string();
        for thing in [
            "class 0x0000000000000010",
            "app=web",
            named,
            "Namespace shop",
        ] {
            assert!(message.contains(thing), "{message}");
        }
    }
}

#[test]
fn the_ports_that_names_stand_for_tell_classes_apart() {
    let mut world = shop();
    for (name, port) in [("web-1", 80), ("web-2", 8080)] {
        let pod = world.pods.get_mut(&ObjectName::new("shop", name)).unwrap();
        pod.ports.push(NamedPort {
            name: "http".to_owned(),
            port,
            protocol: Protocol::Tcp,
        });
    }
    let named = [tcp(Ports::Named("http".to_owned()))];
    select(
        &mut world,
        "job",
        "job",
        Direction::Egress,
        &[(&[], &named)],
    );
    let message = refused(&world, no_bits()).to_string();
    assert!(
        message.contains("http=80/TCP") && message.contains("http=8080/TCP"),
        "{message}"
    );
}

/// What is known by a small number of its own is found by its content: equal digests are no
/// collision, and each policy, peer and list of blocks stays what it is.
#[test]
fn parts_and_atoms_of_one_digest_stay_apart() {
    let mut world = World::default();
    pod(&mut world, 3, "db");
    labelled(&mut world, 1, &[("app", "web"), ("tier", "front")]);
    let of_tier = Peer::Pods(PodPeer {
        namespaces: Namespaces::Own("shop".to_owned()),
        pods: Selector::new([Requirement::equals("tier", "front")]),
    });
    let everything = block("0.0.0.0/0", &[]);
    let many: Vec<Peer> = (0..40_u8)
        .map(|n| block(&format!("10.0.{n}.0/24"), &[]))
        .collect();
    select(
        &mut world,
        "one",
        "db",
        Direction::Ingress,
        &[(&[pods("web")], &[port(1)]), (&[of_tier], &[port(2)])],
    );
    select(
        &mut world,
        "two",
        "db",
        Direction::Ingress,
        &[(&[pods("web")], &[port(3)]), (&[pods("db")], &[port(9)])],
    );
    // All of it in one class: what the blocks cover is what the Pods have.
    world
        .pods
        .retain(|_, pod| pod.labels.contains_key("tier") || pod.labels["app"] == "db");
    for key in [no_bits(), NumberKey::default()] {
        let mut compiler = Compiler::new(key);
        let allowed = |compiled: Compiled, from: u8| {
            let tables = compiled.tables;
            let key = VerdictKey {
                policy_set: tables.endpoints[&3].ingress,
                class: tables.addresses[&[10, 0, 0, from].into()].class,
            };
            let ranges = &tables.verdicts[&key].ranges;
            ranges.iter().map(|range| range.first).collect::<Vec<u16>>()
        };
        let mut alone = world.clone();
        alone
            .pods
            .get_mut(&ObjectName::new("shop", "db-3"))
            .unwrap()
            .addresses
            .clear();
        assert_eq!(
            allowed(compiler.next(&Arc::new(alone.clone())).unwrap(), 1),
            [1, 2, 3]
        );
        if key != no_bits() {
            continue;
        }
        // Lists of blocks, known by what they say and by their place; all cover the Pod.
        let mut blocks = alone.clone();
        for (name, rules) in [
            (
                "one",
                [(&[everything.clone()][..], port(4)), (&many[..], port(5))],
            ),
            (
                "two",
                [
                    (&many[1..], port(6)),
                    (&[block("10.0.0.0/8", &[])][..], port(7)),
                ],
            ),
        ] {
            let rules = rules.map(|(peers, port)| (peers.to_vec(), [port]));
            let rules: Vec<(&[Peer], &[Port])> = rules
                .iter()
                .map(|(peers, ports)| (&peers[..], &ports[..]))
                .collect();
            select(&mut blocks, name, "db", Direction::Ingress, &rules);
        }
        let collision = compile_with(key, &blocks).unwrap_err();
        assert_eq!(collision.sort, "class", "prefixes have many classes");
        let wide = compile(&blocks).unwrap();
        assert_eq!(allowed(wide, 1), [4, 5, 7]);
    }
}

/// The world before had the number for something else: the compiler starts from nothing, and the
/// plan's look at what is in force decides.
#[test]
fn what_the_world_before_had_is_no_part_of_the_next() {
    let mut compiler = Compiler::new(no_bits());
    for (name, subject) in [("db", "db"), ("web", "web"), ("db", "db")] {
        for peer in ["web", "job"] {
            let mut world = shop();
            let rules: &[(&[Peer], &[Port])] = &[(&[pods(peer)], &[port(1)])];
            select(&mut world, name, subject, Direction::Ingress, rules);
            let next = compiler.next(&Arc::new(world.clone())).unwrap();
            assert_eq!(next, compile_with(no_bits(), &world).unwrap());
        }
    }
}

/// Digests and lists that the search below takes for each label key.
const LISTS: usize = 16;
const LIST: u32 = 12_000;
/// Bits that a step of it makes zero; the last one has the rest.
const STEP: u32 = 13;

/// The digest of a peer as an earlier version of this crate took it, under its public key: of 128
/// bits, of which these are the lower ones, and added to that of the others.
fn added_once(peer: &PodPeer) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(1, 0x7061_7274);
    "pods".hash(&mut hasher);
    peer.hash(&mut hasher);
    hasher.finish128().as_u128() as u64
}

fn peer(namespace: &str, key: &str, value: &str) -> PodPeer {
    PodPeer {
        namespaces: Namespaces::Own(namespace.to_owned()),
        pods: Selector::new([Requirement::equals(key, value)]),
    }
}

/// One value for each label key, so that these peers' digests sum to the target: a generalised
/// birthday search (Wagner, "A Generalized Birthday Problem", CRYPTO 2002).
fn search(target: u64) -> Vec<u32> {
    type Sums = Vec<(u64, Vec<u32>)>;
    let mut lists: Vec<Sums> = (0..LISTS)
        .map(|list| {
            let key = format!("l{list}");
            let less = if list == 0 { target } else { 0 };
            (0..LIST)
                .map(|value| {
                    let digest = added_once(&peer("evil", &key, &value.to_string()));
                    (digest.wrapping_sub(less), vec![value])
                })
                .collect()
        })
        .collect();
    let mut zero = 0;
    while lists.len() > 1 {
        let bits = if lists.len() == 2 { 64 - zero } else { STEP };
        let mask = (1_u64 << bits) - 1;
        let merge = |pair: &[Sums]| -> Sums {
            let mut by_bits: HashMap<u64, Vec<usize>> = HashMap::new();
            for (index, (sum, _)) in pair[1].iter().enumerate() {
                by_bits
                    .entry(sum.wrapping_neg() >> zero & mask)
                    .or_default()
                    .push(index);
            }
            pair[0]
                .iter()
                .flat_map(|one| {
                    let others = by_bits.get(&(one.0 >> zero & mask)).into_iter().flatten();
                    others.map(move |other| (one, &pair[1][*other]))
                })
                .map(|((one, left), (other, right))| {
                    (one.wrapping_add(*other), [&left[..], right].concat())
                })
                .take(LIST as usize * 2)
                .collect()
        };
        lists = lists.chunks(2).map(merge).collect();
        zero += bits;
    }
    lists.swap_remove(0).swap_remove(0).1
}

/// Sixteen harmless peers of a Namespace of one's own, whose digests sum to that of "app=web in
/// shop": they were that class. They are one of their own now.
#[test]
fn peers_that_sum_to_another_class_are_none_of_it() {
    let web = peer("shop", "app", "web");
    let values = search(added_once(&web));
    let labels: Vec<(String, String)> = (0..LISTS)
        .map(|list| (format!("l{list}"), values[list].to_string()))
        .collect();
    let peers: Vec<PodPeer> = labels
        .iter()
        .map(|(key, value)| peer("evil", key, value))
        .collect();
    let sum = peers.iter().map(added_once).fold(0, u64::wrapping_add);
    assert_eq!(sum, added_once(&web), "the search has found nothing");

    let mut world = shop();
    select(
        &mut world,
        "db",
        "db",
        Direction::Ingress,
        &[(&[pods("web")], &[])],
    );
    let evil = Pod {
        labels: labels.iter().cloned().collect(),
        addresses: BTreeSet::from([[10, 6, 6, 6].into()]),
        place: Place::Attached(Attached {
            slot: 9,
            id: 9,
            ..Attached::default()
        }),
        ..Pod::default()
    };
    world.pods.insert(ObjectName::new("evil", "x"), evil);
    let harmless = Policy {
        name: ObjectName::new("evil", "harmless"),
        tier: Tier::NetworkPolicy,
        mode: Mode::Enforce,
        subject: Selector::everything(),
        ingress: Some(vec![Rule {
            action: Action::Allow,
            peers: peers.into_iter().map(Peer::Pods).collect(),
            ports: Vec::new(),
        }]),
        egress: None,
    };
    world
        .policies
        .insert(harmless.name.clone(), harmless.into());
    let tables = compile(&world).unwrap().tables;
    let [web, evil] =
        [[10, 0, 0, 1], [10, 6, 6, 6]].map(|address| tables.addresses[&address.into()].class);
    assert_ne!(web, evil);
    let policy_set = tables.endpoints[&3].ingress;
    let allows = |class| {
        tables
            .verdicts
            .get(&VerdictKey { policy_set, class })
            .is_some()
    };
    assert!(allows(web) && !allows(evil));
}

/// With a key that is known, and numbers so short that a search is quick, contents of one number
/// are found; what is found is refused.
#[test]
fn a_collision_that_is_found_is_refused() {
    let key = NumberKey::default().narrowed(16);
    let number = |peer: &PodPeer| {
        let atoms = key.digest("atoms", vec![key.digest("pods", peer)]);
        key.number("class", (atoms, 0_u128, &ports::Resolved::new()))
    };
    let web = number(&peer("shop", "app", "web"));
    let found = (0..1 << 20)
        .map(|value| format!("v{value}"))
        .find(|value| number(&peer("shop", "l", value)) == web)
        .unwrap();
    let mut world = shop();
    let evil = Peer::Pods(peer("shop", "l", &found));
    select(
        &mut world,
        "db",
        "db",
        Direction::Ingress,
        &[(&[pods("web")], &[])],
    );
    select(
        &mut world,
        "web",
        "web",
        Direction::Ingress,
        &[(&[evil], &[])],
    );
    let tables = compile_with(key, &world).unwrap().tables;
    assert_eq!(tables.addresses[&[10, 0, 0, 1].into()].class, web);
    labelled(&mut world, 9, &[("l", &found)]);
    let collision = refused(&world, key);
    assert_eq!((collision.sort, collision.number), ("class", web));
    let message = collision.to_string();
    assert!(
        message.contains("app=web") && message.contains(&format!("l={found}")),
        "{message}"
    );
    assert!(compile(&world).is_ok(), "whole numbers are others");
}

#[test]
fn another_key_gives_other_numbers() {
    let mut world = shop();
    select(
        &mut world,
        "db",
        "db",
        Direction::Ingress,
        &[(&[pods("web")], &[])],
    );
    let numbers = |key| {
        let tables = compile_with(key, &world).unwrap().tables;
        let class = tables.addresses[&[10, 0, 0, 1].into()].class;
        (tables.endpoints[&3].ingress, class)
    };
    let [one, again, other] = [7, 7, 8].map(|byte| numbers(NumberKey::new([byte; 16])));
    assert_eq!(one, again);
    assert!(one.0 != other.0 && one.1 != other.1);
    assert!(!format!("{:?}", NumberKey::new([7; 16])).contains('7'));
}
