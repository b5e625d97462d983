//! Worlds that no operator means to have: what a mistake, a generator or a hostile file makes.

use netpol_engine::labels::Selector;
use netpol_engine::policy::{
    Action, IpBlock, Mode, Namespaces, ObjectName, Peer, PodPeer, Policy, Rule, Tier,
};
use netpol_engine::world::{Place, Pod, World};

/// Policies of the synthetic cluster that they are made from.
pub const POLICIES: usize = 5_000;

type Shape = fn(&mut World);

/// Each changes the synthetic cluster.
pub const SHAPES: [(&str, Shape); 5] = [
    ("every Pod with labels of its own", own_labels),
    ("every Namespace open to all Pods", open_to_all),
    ("100,000 prefixes in one rule", prefixes),
    ("10,000 external peers", peers),
    ("all of these", all),
];

fn own_labels(world: &mut World) {
    for (name, pod) in &mut world.pods {
        pod.labels.insert("pod".to_owned(), name.name.clone());
    }
}

fn open_to_all(world: &mut World) {
    let namespaces: Vec<String> = world.namespaces.keys().cloned().collect();
    for namespace in namespaces {
        let every_pod = Peer::Pods(PodPeer {
            namespaces: Namespaces::Matching(Selector::everything()),
            pods: Selector::everything(),
        });
        add(world, &namespace, vec![every_pod]);
    }
}

fn prefixes(world: &mut World) {
    let block = |number: u32| {
        let cidr = format!(
            "{}.{}.{}.0/25",
            60 + number / 65536,
            number / 256 % 256,
            number % 256
        );
        Peer::Block(IpBlock {
            cidr: cidr.parse().expect("a block"),
            except: Vec::new(),
        })
    };
    let namespace = world.namespaces.keys().next().cloned();
    let namespace = namespace.expect("there are namespaces");
    add(world, &namespace, (0..100_000).map(block).collect());
}

fn peers(world: &mut World) {
    for number in 0_u32..10_000 {
        let [_, _, c, d] = number.to_be_bytes();
        let pod = Pod {
            labels: [("app".to_owned(), format!("machine-{}", number / 4))].into(),
            addresses: [[10, 150, c, d].into()].into(),
            place: Place::External,
            ..Pod::default()
        };
        let name = ObjectName::new("elsewhere", format!("machine-{number}"));
        world.pods.insert(name, pod);
    }
}

fn all(world: &mut World) {
    for shape in [own_labels, open_to_all, prefixes, peers] {
        shape(world);
    }
}

fn add(world: &mut World, namespace: &str, peers: Vec<Peer>) {
    let rule = Rule {
        action: Action::Allow,
        peers,
        ports: Vec::new(),
    };
    let policy = Policy {
        name: ObjectName::new(namespace, "misshapen"),
        tier: Tier::NetworkPolicy,
        mode: Mode::Enforce,
        subject: Selector::everything(),
        ingress: Some(vec![rule.clone()]),
        egress: Some(vec![rule]),
    };
    world.policies.insert(policy.name.clone(), policy.into());
}
