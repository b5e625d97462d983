//! Random worlds from a small vocabulary, so that selectors, blocks and names meet often,
//! and the probes that tell them apart.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netpol_engine::evaluate::{EndpointSpec, Family};
use netpol_engine::labels::{Labels, Operator, Requirement, Selector};
use netpol_engine::policy::{
    Action, IpBlock, Mode, Namespaces, ObjectName, Peer, PodPeer, Policy, Port, Ports, Protocol,
    Rule, Tier,
};
use netpol_engine::world::{Attached, NamedPort, Place, Pod, PublishedPort, Settings, World};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

const NAMESPACES: [&str; 3] = ["east", "north", "west"];
const NETS: [&str; 14] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.0.0.0/24",
    "10.0.0.0/29",
    "10.0.0.4/30",
    "10.0.0.5/32",
    "10.1.0.0/16",
    "192.0.2.0/24",
    "203.0.113.0/24",
    "203.0.113.64/26",
    "::/0",
    "fd00::/16",
    "fd00::/125",
    "fd00::5/128",
];

/// Strangers at the edges of those nets, and the host.
pub const STRANGERS: [&str; 10] = [
    "10.0.0.200",
    "10.1.0.1",
    "10.2.0.1",
    "192.0.2.1",
    "203.0.113.63",
    "203.0.113.64",
    "198.51.100.1",
    "fd00::4000",
    "fd00:1::1",
    "2001:db8::1",
];

/// Ports at the edges of what rules name.
pub const PORTS: [u16; 8] = [0, 53, 79, 80, 81, 90, 8080, 65535];

fn labels() -> impl Strategy<Value = Labels> {
    let value = |values: &'static [&'static str]| select(values).prop_map(str::to_owned);
    (
        option::weighted(0.8, value(&["db", "web"])),
        option::of(value(&["", "1", "2"])),
    )
        .prop_map(|(app, tier)| {
            let app = app.map(|value| ("app".to_owned(), value));
            let tier = tier.map(|value| ("tier".to_owned(), value));
            app.into_iter().chain(tier).collect()
        })
}

fn selector() -> impl Strategy<Value = Selector> {
    let requirement = prop_oneof![
        (
            select(&["app", "tier"][..]),
            subsequence(vec!["1", "2", "", "db", "web"], 1..3),
            0..2
        )
            .prop_map(|(key, values, not)| {
                let values: BTreeSet<String> = values.into_iter().map(str::to_owned).collect();
                let operator = if not == 1 {
                    Operator::NotIn(values)
                } else {
                    Operator::In(values)
                };
                (key, operator)
            }),
        (select(&["app", "tier"][..]), any::<bool>()).prop_map(|(key, exists)| {
            (
                key,
                if exists {
                    Operator::Exists
                } else {
                    Operator::DoesNotExist
                },
            )
        }),
    ];
    vec(requirement, 0..3).prop_map(|requirements| {
        Selector::new(requirements.into_iter().map(|(key, operator)| Requirement {
            key: key.to_owned(),
            operator,
        }))
    })
}

fn namespaces(own: &'static str) -> impl Strategy<Value = Namespaces> {
    prop_oneof![
        Just(Namespaces::Own(own.to_owned())),
        selector().prop_map(Namespaces::Matching),
        select(&NAMESPACES[..]).prop_map(|name| {
            Namespaces::Matching(Selector::new([Requirement::equals(
                "kubernetes.io/metadata.name",
                name,
            )]))
        }),
    ]
}

fn block() -> impl Strategy<Value = IpBlock> {
    (select(&NETS[..]), subsequence(NETS.to_vec(), 0..4)).prop_map(|(cidr, except)| {
        let cidr: IpNet = cidr.parse().unwrap();
        // Also what validation would not let through: the engine must not mind.
        let except = except.into_iter().map(|net| net.parse().unwrap()).collect();
        IpBlock { cidr, except }
    })
}

fn peer(own: &'static str) -> impl Strategy<Value = Peer> {
    prop_oneof![
        (namespaces(own), selector())
            .prop_map(|(namespaces, pods)| Peer::Pods(PodPeer { namespaces, pods })),
        block().prop_map(Peer::Block),
    ]
}

fn port() -> impl Strategy<Value = Port> {
    let ports = prop_oneof![
        Just(Ports::All),
        (select(&PORTS[1..]), 0..20_u16)
            .prop_map(|(first, more)| Ports::Range(first, first.saturating_add(more))),
        select(&["http", "dns"][..]).prop_map(|name| Ports::Named(name.to_owned())),
    ];
    (select(&Protocol::ALL[..2]), ports).prop_map(|(protocol, ports)| Port { protocol, ports })
}

fn rules(own: &'static str) -> impl Strategy<Value = Vec<Rule>> {
    let rule = (vec(peer(own), 0..3), vec(port(), 0..3)).prop_map(|(peers, ports)| Rule {
        action: Action::Allow,
        peers,
        ports,
    });
    vec(rule, 0..3)
}

fn policy() -> impl Strategy<Value = (&'static str, Policy)> {
    (
        select(&NAMESPACES[..]),
        prop_oneof![6 => Just(Tier::NetworkPolicy), 1 => Just(Tier::Admin), 1 => Just(Tier::Baseline)],
        vec(select(&[Action::Allow, Action::Deny, Action::Pass][..]), 6),
        prop_oneof![3 => Just(Mode::Enforce), 1 => Just(Mode::Audit)],
        selector(),
    )
        .prop_flat_map(|(namespace, tier, actions, mode, subject)| {
            (option::weighted(0.7, rules(namespace)), option::weighted(0.7, rules(namespace))).prop_map(
                move |(mut ingress, mut egress)| {
                    let all = ingress.iter_mut().chain(&mut egress).flatten();
                    for (rule, action) in all.zip(&actions) {
                        if tier != Tier::NetworkPolicy {
                            rule.action = *action;
                        }
                    }
                    let policy = Policy {
                        name: ObjectName::new(namespace, ""),
                        tier,
                        mode,
                        subject: subject.clone(),
                        ingress,
                        egress,
                    };
                    (namespace, policy)
                },
            )
        })
}

fn pod() -> impl Strategy<Value = (&'static str, Pod, u8)> {
    let ports = subsequence(
        vec![
            ("http", 80, Protocol::Tcp),
            ("http", 8080, Protocol::Tcp),
            ("http", 90, Protocol::Udp),
            ("dns", 53, Protocol::Udp),
            ("dns", 53, Protocol::Tcp),
        ],
        0..4,
    );
    (select(&NAMESPACES[..]), labels(), ports, 0..12_u8).prop_map(
        |(namespace, labels, ports, kind)| {
            let ports = ports
                .into_iter()
                .map(|(name, port, protocol)| NamedPort {
                    name: name.to_owned(),
                    port,
                    protocol,
                })
                .collect();
            let pod = Pod {
                labels,
                ports,
                ..Pod::default()
            };
            (namespace, pod, kind)
        },
    )
}

/// A world whose local Pods all have a number.
pub fn world() -> impl Strategy<Value = World> {
    (
        btree_map(
            select(&NAMESPACES[..]).prop_map(str::to_owned),
            labels(),
            0..3,
        ),
        option::weighted(0.2, select(&NAMESPACES[..]).prop_map(str::to_owned)),
        vec(option::weighted(0.9, pod()), 1..7),
        vec(option::weighted(0.9, policy()), 0..7),
        any::<(bool, bool)>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(namespaces, audited, pods, policies, settings, host, tiers)| {
                let pods: BTreeMap<ObjectName, Pod> = pods
                    .into_iter()
                    .enumerate()
                    .filter_map(|(index, pod)| placed(index as u8 + 1, pod?))
                    .collect();
                World {
                    host: if host {
                        host_addresses(&pods)
                    } else {
                        BTreeSet::new()
                    },
                    broadcasts: [BROADCAST.parse().unwrap()].into(),
                    namespaces,
                    audited: audited.into_iter().collect(),
                    pods,
                    policies: policies
                        .into_iter()
                        .enumerate()
                        .filter_map(|(index, policy)| {
                            let (namespace, mut policy) = policy?;
                            if !tiers {
                                one_tier(&mut policy);
                            }
                            policy.name = ObjectName::new(namespace, format!("policy-{index}"));
                            Some((policy.name.clone(), policy.into()))
                        })
                        .collect(),
                    settings: Settings {
                        host_ingress: settings.0,
                        host_egress: settings.1,
                    },
                }
            },
        )
}

/// The host's addresses. Of Pods on a host's network every other one is on this host's.
fn host_addresses(pods: &BTreeMap<ObjectName, Pod>) -> BTreeSet<IpAddr> {
    let own = ["192.0.2.1", "fd00::4000"].map(|text| text.parse().unwrap());
    let on_host = pods
        .values()
        .filter(|pod| pod.place == Place::HostNetwork)
        .step_by(2)
        .flat_map(|pod| &pod.addresses);
    on_host.copied().chain(own).collect()
}

/// A world and one to follow it: another one, or one with other policies, or other Pods.
pub fn change() -> impl Strategy<Value = (World, World)> {
    (world(), world(), 0..6).prop_map(|(before, mut after, kind)| {
        match kind {
            0 => {}
            4 | 5 => {
                // The engine leads ports elsewhere, and all else stays.
                let leads: Vec<_> = after.pods.into_values().map(|pod| pod.published).collect();
                after = before.clone();
                let pods = after.pods.values_mut().skip(usize::from(kind == 5));
                for (pod, published) in pods.zip(leads.into_iter().rev()) {
                    if matches!(pod.place, Place::Attached(_)) {
                        pod.published = published;
                    }
                }
            }
            1 => after.policies.clone_from(&before.policies),
            2 => after.pods.clone_from(&before.pods),
            _ => {
                let mut policies = before.policies.clone();
                policies.extend(after.policies.into_iter().take(1));
                after = World {
                    policies,
                    ..before.clone()
                };
            }
        }
        settle(&mut after);
        (before, after)
    })
}

/// An address that the host and a Pod would have is the Pod's here: a filled world lets one of both have it.
fn settle(world: &mut World) {
    let pods = world.pods.values();
    let taken: BTreeSet<IpAddr> = pods
        .filter(|pod| pod.place != Place::HostNetwork)
        .flat_map(|pod| pod.addresses.iter().copied())
        .collect();
    world.host.retain(|address| !taken.contains(address));
}

/// What becomes of a world in one step.
#[derive(Clone, Debug)]
pub struct Step {
    kind: u8,
    index: usize,
    /// What is new comes from here.
    other: World,
}

/// Steps from one world to the next: policies, Pods, Namespaces, the host, the settings.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..15_u8, any::<usize>(), world());
    vec(
        step.prop_map(|(kind, index, other)| Step { kind, index, other }),
        1..8,
    )
}

impl Step {
    /// Takes it.
    pub fn take(self, world: &mut World) {
        let Self { kind, index, other } = self;
        match kind {
            // A policy comes, or is another one now.
            0..=2 => world.policies.extend(nth(&other.policies, index)),
            3 => {
                if let Some((name, _)) = nth(&world.policies, index) {
                    world.policies.remove(&name);
                }
            }
            4 => world.pods.extend(nth(&other.pods, index)),
            5 => {
                if let Some((name, _)) = nth(&world.pods, index) {
                    world.pods.remove(&name);
                }
            }
            6 => relabel(world, &other, index),
            7 => {
                world.namespaces = other.namespaces;
                world.audited = other.audited;
            }
            8 => {
                world.host = other.host;
                world.settings = other.settings;
            }
            // One rule's list of blocks, longer or shorter than what is known by what it says.
            9..=11 => many_blocks(world, index),
            12 => toggle(world, index),
            13 => {}
            _ => *world = other,
        }
        settle(world);
    }
}

fn nth<K: Clone, V: Clone>(map: &BTreeMap<K, V>, index: usize) -> Option<(K, V)> {
    let index = index.checked_rem(map.len())?;
    let (key, value) = map.iter().nth(index)?;
    Some((key.clone(), value.clone()))
}

/// A Pod gets the labels and ports of another one, and keeps its place.
fn relabel(world: &mut World, other: &World, index: usize) {
    let (Some((name, _)), Some((_, from))) = (nth(&world.pods, index), nth(&other.pods, index))
    else {
        return;
    };
    if let Some(pod) = world.pods.get_mut(&name) {
        pod.labels = from.labels;
        pod.ports = from.ports;
    }
}

/// A policy is audited now, or enforced.
fn toggle(world: &mut World, index: usize) {
    if let Some((name, mut policy)) = nth(&world.policies, index) {
        let mode = &mut std::sync::Arc::make_mut(&mut policy).mode;
        *mode = match *mode {
            Mode::Enforce => Mode::Audit,
            Mode::Audit => Mode::Enforce,
        };
        world.policies.insert(name, policy);
    }
}

fn many_blocks(world: &mut World, index: usize) {
    let blocks = (0..index % 60).map(|number| {
        let cidr = format!("10.0.{}.0/28", (number * 7 + index) % 64);
        Peer::Block(IpBlock {
            cidr: cidr.parse().unwrap(),
            except: Vec::new(),
        })
    });
    let rule = Rule {
        action: Action::Allow,
        peers: blocks.collect(),
        ports: Vec::new(),
    };
    let policy = Policy {
        name: ObjectName::new(NAMESPACES[index % 3], "blocks"),
        tier: Tier::NetworkPolicy,
        mode: Mode::Enforce,
        subject: Selector::everything(),
        ingress: Some(vec![rule]),
        egress: None,
    };
    world.policies.insert(policy.name.clone(), policy.into());
}

/// NetworkPolicy alone.
fn one_tier(policy: &mut Policy) {
    policy.tier = Tier::NetworkPolicy;
    let rules = policy.ingress.iter_mut().chain(&mut policy.egress);
    for rule in rules.flatten() {
        rule.action = Action::Allow;
    }
}

/// Slot, addresses and name follow from where it stands in the list, so that one
/// world and the next mostly mean the same endpoint by the same number.
fn placed(index: u8, (namespace, mut pod, kind): (&str, Pod, u8)) -> Option<(ObjectName, Pod)> {
    let v4 = format!("10.0.0.{index}");
    let v6 = format!("fd00::{index}");
    let addresses: &[&str] = match kind % 4 {
        0 => &[&v4],
        1 => &[&v6],
        _ => &[&v4, &v6],
    };
    pod.addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    pod.place = match kind {
        0 => Place::HostNetwork,
        1 | 2 => Place::External,
        _ => Place::Attached(Attached {
            slot: u32::from(index),
            // A slot, an interface and a MAC address may each be another's in the next world.
            id: u32::from(index) + if kind > 9 { 200 } else { 100 },
            interfaces: BTreeMap::from([(
                u32::from(index) + if kind == 5 { 40 } else { 20 },
                [2, 0, 0, 0, kind / 8, index],
            )]),
            bridges: (kind % 3 != 0)
                .then_some(60 + u32::from(kind % 4))
                .into_iter()
                .collect(),
            on_wire: false,
            netns: (kind != 7).then_some(u32::from(index)),
            asks: asks(kind),
        }),
    };
    if let Place::Attached(_) = pod.place {
        let leaves: &[&str] = match kind % 4 {
            0 => &[],
            1 => &["10.0.0.0/24", "fd00::/125"],
            2 => &["10.0.0.0/8", "10.0.0.5/32", "0.0.0.0/0"],
            _ => &["0.0.0.0/0", "10.0.0.0/29", "::/0", "fd00::/16"],
        };
        pod.leaves = leaves.iter().map(|text| text.parse().unwrap()).collect();
        pod.published = published(index, kind);
    }
    Some((ObjectName::new(namespace, format!("pod-{index}")), pod))
}

/// Whom an engine asks for its container: strangers, Pods, the container itself, or an unknown end.
fn asks(kind: u8) -> Option<BTreeSet<IpAddr>> {
    let asked: &[&str] = match kind % 5 {
        0 => &["10.0.0.1", "198.51.100.1"],
        1 => &["10.0.0.5", "203.0.113.64", "fd00::4000"],
        2 => &[],
        3 => &["192.0.2.1"],
        _ => return None,
    };
    Some(asked.iter().map(|text| text.parse().unwrap()).collect())
}

/// What a Pod publishes: at each address of the host, of one family or both, or at one of them; some of it so that another
/// Pod publishes the same.
fn published(index: u8, kind: u8) -> BTreeSet<PublishedPort> {
    let port = 8000 + u16::from(index % 3);
    let at: &[(&str, Protocol, u16, u16)] = match kind {
        3 => &[("0.0.0.0", Protocol::Tcp, port, 80)],
        4 => &[
            ("0.0.0.0", Protocol::Udp, port, 53),
            ("::", Protocol::Udp, port, 53),
        ],
        5 => &[
            ("::", Protocol::Tcp, port, 8080),
            ("192.0.2.1", Protocol::Udp, port, 53),
        ],
        6 => &[
            ("192.0.2.1", Protocol::Tcp, port, 80),
            ("fd00::4000", Protocol::Tcp, port, 81),
        ],
        7 => &[
            ("192.0.2.1", Protocol::Tcp, 8000, 80),
            ("0.0.0.0", Protocol::Udp, port, 90),
        ],
        8 => &[
            ("0.0.0.0", Protocol::Tcp, 8000, 90),
            ("0.0.0.0", Protocol::Sctp, port, 53),
        ],
        _ => &[],
    };
    at.iter()
        .map(|(address, protocol, port, target)| PublishedPort {
            protocol: *protocol,
            address: address.parse().unwrap(),
            port: *port,
            target: *target,
        })
        .collect()
}

/// The ports of the host's that Pods publish.
pub const PUBLISHED: [u16; 3] = [8000, 8001, 8002];

/// An address for every host on a link of the host's.
pub const BROADCAST: &str = "192.0.2.255";

/// All addresses worth asking about.
pub fn addresses(world: &World) -> BTreeSet<IpAddr> {
    let mut addresses = known_addresses(world);
    addresses.extend(STRANGERS.iter().map(|text| text.parse::<IpAddr>().unwrap()));
    addresses
}

/// Those that a Pod or the host has.
pub fn known_addresses(world: &World) -> BTreeSet<IpAddr> {
    let pods = world
        .pods
        .values()
        .flat_map(|pod| pod.addresses.iter().copied());
    pods.chain(world.host.iter().copied()).collect()
}

/// Two ends by their addresses of a family, where both are Pods that have both; else as they are.
pub fn over(world: &World, family: Family, ends: [&EndpointSpec; 2]) -> [EndpointSpec; 2] {
    let address = |spec: &EndpointSpec, family: Family| -> Option<EndpointSpec> {
        let EndpointSpec::Pod(name) = spec else {
            return None;
        };
        let pod = &world.pods[name];
        let on_host = pod.place == Place::HostNetwork && !pod.is_on_another_host(&world.host);
        let host = world.host.iter().filter(|_| on_host);
        let own = pod
            .addresses
            .iter()
            .filter(|one| !on_host || world.host.contains(one));
        own.chain(host)
            .find(|address| address.is_ipv4() == (family == Family::V4))
            .map(|address| EndpointSpec::Address(*address))
    };
    let both = |spec: &&EndpointSpec| Family::BOTH.iter().all(|one| address(spec, *one).is_some());
    let dual = ends.iter().all(both);
    ends.map(|spec| {
        address(spec, family)
            .filter(|_| dual)
            .unwrap_or_else(|| spec.clone())
    })
}

/// The numbers of endpoints, with where they are.
pub fn endpoints(world: &World) -> impl Iterator<Item = (u32, &Pod)> {
    world.pods.values().filter_map(|pod| match &pod.place {
        Place::Attached(attached) => Some((attached.id, pod)),
        _ => None,
    })
}
