//! The worlds of the corpus and its addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use netpol_engine::labels::{Requirement, Selector};
use netpol_engine::policy::{
    Action, IpBlock, Namespaces, ObjectName, Peer, PodPeer, Policy, Port, Ports, Protocol, Rule,
    Tier,
};
use netpol_engine::world::{Attached, Place, Pod, World};
use netpold_tests::frames::{Mac, icmp, ipv6};

pub const BOX_MAC: Mac = [2, 0, 0, 0, 0, 2];
pub const OTHER_MAC: Mac = [2, 0, 0, 0, 0, 9];
pub const BOX: [u8; 4] = [10, 0, 0, 2];
pub const FRIEND: [u8; 4] = [10, 0, 0, 3];
pub const FOE: [u8; 4] = [10, 0, 0, 4];
pub const HOST: [u8; 4] = [10, 0, 0, 1];
pub const STRANGER: [u8; 4] = [198, 51, 100, 7];
pub const BLOCKED_IN: [u8; 4] = [203, 0, 113, 4];
pub const BLOCKED_EXCEPT: [u8; 4] = [203, 0, 113, 130];
pub const BOX6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
pub const BOX6_LINK: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
pub const FRIEND6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
pub const FOE6: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4];
pub const STRANGER6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
pub const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Neighbour discovery with a target and perhaps a link-layer option.
pub fn neighbour(
    kind: u8,
    source: [u8; 16],
    destination: [u8; 16],
    target: [u8; 16],
    option: Option<(u8, Mac)>,
) -> Vec<u8> {
    let mut body = target.to_vec();
    if let Some((number, mac)) = option {
        body.extend([number, 1]);
        body.extend(mac);
    }
    ipv6(source, destination, 58, 255, &icmp(kind, 0, [0; 4], &body))
}

fn pod(app: &str, slot: u32, addresses: &[IpAddr], interfaces: BTreeMap<u32, Mac>) -> Pod {
    Pod {
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
        addresses: addresses.iter().copied().collect(),
        place: Place::Attached(Attached {
            slot,
            id: slot + 4,
            interfaces,
            netns: None,
        }),
        ..Pod::default()
    }
}

/// No policies.
pub fn open() -> World {
    // Interface 1 is the loopback's number, which test runs have.
    let on_lo = BTreeMap::from([(1, BOX_MAC)]);
    World {
        pods: BTreeMap::from([
            (
                name("box"),
                pod(
                    "box",
                    3,
                    &[BOX.into(), BOX6.into(), BOX6_LINK.into()],
                    on_lo,
                ),
            ),
            (
                name("friend"),
                pod(
                    "friend",
                    4,
                    &[FRIEND.into(), FRIEND6.into()],
                    BTreeMap::new(),
                ),
            ),
            (
                name("foe"),
                pod("foe", 5, &[FOE.into(), FOE6.into()], BTreeMap::new()),
            ),
        ]),
        host: [IpAddr::from(HOST)].into(),
        ..World::default()
    }
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("lab", name)
}

fn app(value: &str) -> Selector {
    Selector::new([Requirement::equals("app", value)])
}

fn friends() -> Vec<Peer> {
    vec![Peer::Pods(PodPeer {
        namespaces: Namespaces::Own("lab".to_owned()),
        pods: app("friend"),
    })]
}

fn port(protocol: Protocol, first: u16, last: u16) -> Port {
    Port {
        protocol,
        ports: Ports::Range(first, last),
    }
}

fn rule(peers: Vec<Peer>, ports: Vec<Port>) -> Rule {
    Rule {
        action: Action::Allow,
        peers,
        ports,
    }
}

fn with(ingress: Vec<Rule>, egress: Vec<Rule>) -> World {
    let policy = Policy {
        name: name("guard"),
        tier: Tier::NetworkPolicy,
        subject: app("box"),
        ingress: Some(ingress),
        egress: Some(egress),
    };
    World {
        policies: BTreeMap::from([(name("guard"), policy.into())]),
        ..open()
    }
}

/// In: friends on 8080/TCP, 53/UDP, 3868/SCTP. Out: friends on 5432/TCP, a block on 443/TCP.
pub fn guarded() -> World {
    let block = IpBlock {
        cidr: "203.0.113.0/24".parse().expect("a prefix"),
        except: vec!["203.0.113.128/25".parse().expect("a prefix")],
    };
    with(
        vec![rule(
            friends(),
            vec![
                port(Protocol::Tcp, 8080, 8080),
                port(Protocol::Udp, 53, 53),
                port(Protocol::Sctp, 3868, 3868),
            ],
        )],
        vec![
            rule(friends(), vec![port(Protocol::Tcp, 5432, 5432)]),
            rule(
                vec![Peer::Block(block)],
                vec![port(Protocol::Tcp, 443, 443)],
            ),
        ],
    )
}

/// In: nothing. Out: friends, whatever the protocol.
pub fn pinging() -> World {
    with(vec![], vec![rule(friends(), vec![])])
}

/// In: friends on sixty ports, which do not fit one verdict entry.
pub fn many_ports() -> World {
    let ports = (0..60).map(|index| port(Protocol::Tcp, 1000 + index * 10, 1000 + index * 10));
    with(vec![rule(friends(), ports.collect())], vec![])
}
