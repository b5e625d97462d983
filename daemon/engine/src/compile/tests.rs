//! The tables' form on worlds built by hand; their meaning is held against the oracle in
//! `tests/properties.rs`.
#![allow(clippy::unwrap_used)]

mod collisions;

use std::collections::BTreeSet;

use netpol_abi::tables::{
    CLASS_ANY, FIRST_HASHED, NOT_ISOLATED, OWNER_HOST, VerdictKey, endpoint_flags,
};

use super::*;
use crate::labels::{Requirement, Selector};
use crate::policy::{
    Action, IpBlock, Mode, Namespaces, Peer, PodPeer, Policy, Port, Ports, Protocol, Rule, Tier,
};
use crate::world::{Attached, NamedPort, Pod};

fn pod(world: &mut World, id: u8, app: &str) {
    let pod = Pod {
        labels: [("app".to_owned(), app.to_owned())].into(),
        addresses: BTreeSet::from([[10, 0, 0, id].into()]),
        place: Place::Attached(Attached {
            slot: u32::from(id),
            id: u32::from(id),
            interfaces: [(u32::from(id) + 40, [2, 0, 0, 0, 0, id])].into(),
            bridges: [].into(),
            on_wire: false,
            netns: Some(u32::from(id)),
            asks: None,
        }),
        ..Pod::default()
    };
    world
        .pods
        .insert(ObjectName::new("shop", format!("{app}-{id}")), pod);
}

fn app(name: &str) -> Selector {
    Selector::new([Requirement::equals("app", name)])
}

fn pods(name: &str) -> Peer {
    Peer::Pods(PodPeer {
        namespaces: Namespaces::Own("shop".to_owned()),
        pods: app(name),
    })
}

fn block(cidr: &str, except: &[&str]) -> Peer {
    Peer::Block(IpBlock {
        cidr: cidr.parse().unwrap(),
        except: except.iter().map(|net| net.parse().unwrap()).collect(),
    })
}

fn tcp(ports: Ports) -> Port {
    Port {
        protocol: Protocol::Tcp,
        ports,
    }
}

fn select(
    world: &mut World,
    name: &str,
    subject: &str,
    direction: Direction,
    rules: &[(&[Peer], &[Port])],
) {
    let rules = rules
        .iter()
        .map(|(peers, ports)| Rule {
            action: Action::Allow,
            peers: peers.to_vec(),
            ports: ports.to_vec(),
        })
        .collect();
    let (ingress, egress) = match direction {
        Direction::Ingress => (Some(rules), None),
        Direction::Egress => (None, Some(rules)),
    };
    let policy = Policy {
        name: ObjectName::new("shop", name),
        tier: Tier::NetworkPolicy,
        mode: Mode::Enforce,
        subject: app(subject),
        ingress,
        egress,
    };
    world.policies.insert(policy.name.clone(), policy.into());
}

fn shop() -> World {
    let mut world = World::default();
    for (id, app) in [(1, "web"), (2, "web"), (3, "db"), (4, "job")] {
        pod(&mut world, id, app);
    }
    world
}

#[test]
fn without_policies_there_is_nothing_to_tell_apart() {
    let Compiled { tables, names } = compile(&shop()).unwrap();
    assert_eq!(names, Names::default());
    assert!(tables.verdicts.is_empty() && tables.prefixes.is_empty());
    assert!(
        tables
            .addresses
            .values()
            .all(|entry| entry.class == CLASS_ANY)
    );
    assert!(
        tables
            .endpoints
            .values()
            .all(|entry| (entry.ingress, entry.egress) == (NOT_ISOLATED, NOT_ISOLATED))
    );
    assert_eq!(tables.interfaces[&43].endpoint, 3);
    assert_eq!(
        tables.flags,
        control_flags::HOST_INGRESS | control_flags::HOST_EGRESS
    );
}

#[test]
fn replicas_share_policy_set_and_class() {
    let mut world = shop();
    select(
        &mut world,
        "web",
        "web",
        Direction::Egress,
        &[(&[pods("db")], &[])],
    );
    select(
        &mut world,
        "db",
        "db",
        Direction::Ingress,
        &[(&[pods("web")], &[])],
    );
    let Compiled { tables, names } = compile(&world).unwrap();
    assert_eq!(tables.endpoints[&1].egress, tables.endpoints[&2].egress);
    assert_eq!(names.policy_sets.len(), 2);
    assert_eq!(tables.verdicts.len(), 2);
    let classes: BTreeSet<u64> = tables.addresses.values().map(|entry| entry.class).collect();
    assert_eq!(classes.len(), 3, "web, db and any peer");
    assert!(
        classes
            .iter()
            .all(|class| *class == CLASS_ANY || *class >= FIRST_HASHED)
    );
    let rule = names.rule(tables.endpoints[&3].ingress, 1).unwrap();
    assert_eq!(
        (rule.policy.to_string().as_str(), rule.rule),
        ("shop/db", 0)
    );
}

#[test]
fn an_audited_policy_is_asked_beside_what_is_in_force() {
    let mut world = shop();
    let rules: &[(&[Peer], &[Port])] = &[(&[pods("web")], &[])];
    select(&mut world, "db", "db", Direction::Ingress, rules);
    let alone = compile(&world).unwrap().tables.endpoints[&3];
    select(&mut world, "tried", "db", Direction::Ingress, &[]);
    let both = compile(&world).unwrap();
    let tried = ObjectName::new("shop", "tried");
    let audit = |world: &mut World| {
        let policy = world.policies.get_mut(&tried).unwrap();
        Arc::make_mut(policy).mode = Mode::Audit;
    };
    audit(&mut world);
    let audited = compile(&world).unwrap();
    let entry = audited.tables.endpoints[&3];
    assert_eq!(entry.ingress, alone.ingress, "as if it were not there");
    assert_eq!(
        entry.audited_ingress, both.tables.endpoints[&3].ingress,
        "as if it were enforced"
    );
    assert_eq!(entry.flags, 0);
    // Its end changes no entry but the endpoint's own.
    let (before, after) = (&audited.tables.verdicts, &both.tables.verdicts);
    for (key, verdict) in after.iter() {
        assert_eq!(before.get(&key), Some(verdict));
    }
    assert_eq!(
        audited.names.policy_sets[&entry.audited_ingress].policies,
        [ObjectName::new("shop", "db"), tried]
    );
}

#[test]
fn an_audited_namespace_marks_its_endpoints_alone() {
    let mut world = shop();
    select(&mut world, "db", "db", Direction::Ingress, &[]);
    let enforced = compile(&world).unwrap().tables;
    world.audited.insert("shop".to_owned());
    let mut audited = compile(&world).unwrap().tables;
    for entry in audited.endpoints.values_mut() {
        assert_eq!(std::mem::take(&mut entry.flags), endpoint_flags::AUDIT);
    }
    assert_eq!(audited, enforced);
    world.audited = ["elsewhere".to_owned()].into();
    assert_eq!(compile(&world).unwrap().tables, enforced);
}

/// A change of what is hashed also changes `numbers::VERSION`, and this.
#[test]
fn numbers_are_the_same_after_a_restart() {
    let mut world = shop();
    select(
        &mut world,
        "db",
        "db",
        Direction::Ingress,
        &[(&[pods("web")], &[tcp(Ports::Named("sql".to_owned()))])],
    );
    let tables = compile(&world).unwrap().tables;
    let numbers = (
        tables.endpoints[&3].ingress,
        tables.addresses[&[10, 0, 0, 1].into()].class,
    );
    assert_eq!(
        numbers,
        (5_162_400_032_179_655_658, 11_583_141_591_002_930_639)
    );
}

#[test]
fn a_policy_that_selects_no_pod_here_changes_nothing() {
    let mut world = shop();
    select(
        &mut world,
        "db",
        "db",
        Direction::Ingress,
        &[(&[pods("web")], &[])],
    );
    let before = compile(&world).unwrap();
    select(
        &mut world,
        "gone",
        "gone",
        Direction::Egress,
        &[(&[pods("job"), block("10.0.0.0/8", &[])], &[])],
    );
    assert_eq!(compile(&world).unwrap(), before);
}

#[test]
fn what_any_peer_s_rules_say_already_is_not_said_again() {
    let mut world = shop();
    let port = [tcp(Ports::Range(80, 80))];
    select(
        &mut world,
        "db",
        "db",
        Direction::Ingress,
        &[(&[], &port), (&[pods("web")], &port)],
    );
    let tables = compile(&world).unwrap().tables;
    let key = VerdictKey {
        policy_set: tables.endpoints[&3].ingress,
        class: CLASS_ANY,
    };
    let keys: Vec<_> = tables.verdicts.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, [key]);

    select(
        &mut world,
        "db",
        "db",
        Direction::Ingress,
        &[(&[pods("web")], &[]), (&[], &[])],
    );
    assert_eq!(compile(&world).unwrap().tables.verdicts.len(), 1);
}

#[test]
fn prefixes_that_say_what_their_parent_says_are_left_out() {
    let mut world = shop();
    let peers = [
        block("10.0.0.0/8", &["10.1.0.0/16"]),
        block("10.2.0.0/16", &["10.2.3.0/24"]),
        block("10.1.9.0/24", &[]),
        block("0.0.0.0/0", &["0.0.0.0/0"]),
    ];
    select(&mut world, "db", "db", Direction::Egress, &[(&peers, &[])]);
    let tables = compile(&world).unwrap().tables;
    let nets: Vec<String> = tables.prefixes.keys().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.0.0.0/8", "10.1.0.0/16", "10.1.9.0/24"]);
    assert_eq!(tables.prefixes[&"10.1.0.0/16".parse().unwrap()], CLASS_ANY);
    assert_eq!(
        tables.addresses[&[10, 0, 0, 1].into()].class,
        tables.prefixes[&"10.0.0.0/8".parse().unwrap()],
        "a block covers a Pod's address too"
    );
}

#[test]
fn many_blocks_in_one_rule_are_one_class() {
    let mut world = shop();
    let blocks: Vec<Peer> = (0..1000_u32)
        .map(|n| block(&format!("198.{}.{}.0/25", 18 + n / 256, n % 256), &[]))
        .collect();
    select(&mut world, "db", "db", Direction::Egress, &[(&blocks, &[])]);
    let tables = compile(&world).unwrap().tables;
    assert_eq!((tables.prefixes.len(), tables.verdicts.len()), (1000, 1));

    select(
        &mut world,
        "db",
        "db",
        Direction::Egress,
        &[(&blocks[1..], &[])],
    );
    let fewer = compile(&world).unwrap().tables;
    let kept = fewer
        .prefixes
        .iter()
        .filter(|(net, class)| tables.prefixes.get(net) == Some(class));
    assert_eq!(kept.count(), 999, "the others keep their class");
}

#[test]
fn names_of_ports_make_a_class_where_an_egress_rule_gives_them() {
    let mut world = shop();
    for (name, port) in [("web-1", 80), ("web-2", 8080)] {
        let pod = world.pods.get_mut(&ObjectName::new("shop", name)).unwrap();
        for name in ["http", "unused"] {
            pod.ports.push(NamedPort {
                name: name.to_owned(),
                port,
                protocol: Protocol::Tcp,
            });
        }
    }
    let named = [tcp(Ports::Named("http".to_owned()))];
    select(
        &mut world,
        "job",
        "job",
        Direction::Egress,
        &[(&[], &named)],
    );
    let tables = compile(&world).unwrap().tables;
    let class = |id: u8| tables.addresses[&[10, 0, 0, id].into()].class;
    assert!(class(1) != class(2) && class(3) == CLASS_ANY);
    let key = VerdictKey {
        policy_set: tables.endpoints[&4].egress,
        class: class(2),
    };
    let ranges: Vec<_> = tables.verdicts[&key]
        .ranges
        .iter()
        .map(|range| (range.first, range.last))
        .collect();
    assert_eq!(ranges, [(8080, 8080)]);
    assert_eq!(tables.verdicts.len(), 2, "none for those without the name");

    select(
        &mut world,
        "job",
        "web",
        Direction::Ingress,
        &[(&[], &named)],
    );
    let tables = compile(&world).unwrap().tables;
    assert_ne!(tables.endpoints[&1].ingress, tables.endpoints[&2].ingress);
    assert_eq!(tables.addresses[&[10, 0, 0, 1].into()].class, CLASS_ANY);
}

/// A Pod on the host's network has no labels for policy, and what it states makes no address the
/// host's: neither a stranger's nor that of a container that runs.
#[test]
fn the_host_owns_its_own_addresses_alone_and_its_pods_have_no_labels() {
    let mut world = shop();
    world.host.insert([192, 0, 2, 1].into());
    let agent = Pod {
        labels: [("app".to_owned(), "web".to_owned())].into(),
        addresses: BTreeSet::from([
            [192, 0, 2, 1].into(),
            [192, 0, 2, 2].into(),
            [10, 0, 0, 1].into(),
        ]),
        place: Place::HostNetwork,
        ..Pod::default()
    };
    let without = compile(&world).unwrap().tables.addresses[&[10, 0, 0, 1].into()];
    assert_ne!(without.owner, OWNER_HOST);
    world.pods.insert(ObjectName::new("shop", "agent"), agent);
    select(
        &mut world,
        "db",
        "db",
        Direction::Ingress,
        &[(&[pods("web"), block("192.0.2.0/30", &[])], &[])],
    );
    let tables = compile(&world).unwrap().tables;
    let host = tables.addresses[&[192, 0, 2, 1].into()];
    assert_eq!(host.owner, OWNER_HOST);
    assert_eq!(
        host.class,
        tables.prefixes[&"192.0.2.0/30".parse().unwrap()]
    );
    assert_eq!(tables.addresses.get(&[192, 0, 2, 2].into()), None);
    let container = tables.addresses[&[10, 0, 0, 1].into()];
    assert_eq!(
        (container.owner, container.slot),
        (without.owner, without.slot)
    );
}

/// What is there when there are too many is the same, whatever was known before; and once there
/// are fewer again, all of them are there.
#[test]
fn too_many_verdicts_are_cut_where_a_fresh_compiler_cuts_them() {
    let most = || Compiler {
        most: 3,
        ..Compiler::default()
    };
    let peers: Vec<[Peer; 1]> = ["web", "db", "job"].map(|app| [pods(app)]).into();
    let rules: Vec<(&[Peer], &[Port])> = peers.iter().map(|peer| (&peer[..], &[][..])).collect();
    let mut compiler = most();
    for (subjects, verdicts) in [(&["db"][..], 3), (&["db", "web"], 4), (&["db"], 3)] {
        let mut world = shop();
        for subject in subjects {
            select(&mut world, subject, subject, Direction::Ingress, &rules);
        }
        let world = Arc::new(world);
        let next = compiler.next(&world).unwrap();
        assert_eq!(next, most().next(&world).unwrap(), "{subjects:?}");
        assert_eq!(next.tables.verdicts.len(), verdicts, "{subjects:?}");
    }
}
