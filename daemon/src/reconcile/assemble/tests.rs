//! What becomes of listings: endpoints, holds, names, addresses, restarts.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::SystemTime;

use netpol_engine::manifest;

use super::*;
use crate::links::{Inside, Snapshot, Veth};
use crate::reconcile::facts::Engine;
use crate::runtime::container::{self, Attachment, State};
use crate::store::{Accepted, StoreView};

const BRIDGE: u32 = 100;

fn veth(ifindex: u32, nsid: Option<i32>, master: Option<u32>) -> Veth {
    Veth {
        ifindex,
        name: format!("veth{ifindex:07x}"),
        mac: [0xaa; 6],
        master,
        peer_nsid: nsid,
        peer_ifindex: Some(2),
        up: true,
    }
}

fn manifests(text: &str) -> Arc<StoreView> {
    let file = manifest::parse("m.yaml", text);
    assert!(file.is_accepted(), "{:?}", file.diagnostics);
    let accepted = Accepted {
        key: "m.yaml".to_owned(),
        path: "/etc/m.yaml".to_owned(),
        order: 1,
        since: vec![SystemTime::UNIX_EPOCH; file.documents.len()],
        text: text.to_owned(),
        file,
    };
    Arc::new(StoreView {
        accepted: vec![Arc::new(accepted)],
        ..StoreView::default()
    })
}

fn container(number: u8, labels: &[(&str, &str)]) -> Container {
    Container {
        id: format!("{number:064x}"),
        name: format!("c{number}"),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        pid: 1000 + u32::from(number),
        networks: vec![Attachment {
            name: "bridge".to_owned(),
            driver: "bridge".to_owned(),
            bridge: Some("docker0".to_owned()),
            mac: Some([2, 0x42, 0, 0, 0, number]),
            ipv4: Some([172, 17, 0, number].into()),
            ipv6: None,
        }],
        state: State::Running,
        created: i64::from(number),
        ..Container::default()
    }
}

fn namespace(nsid: Option<i32>) -> Namespace {
    Namespace {
        path: PathBuf::from(format!("/proc/{nsid:?}/ns/net")),
        identity: (4, u64::from(nsid.unwrap_or(0).unsigned_abs())),
        nsid,
        inside: Vec::new(),
        looked_running: false,
    }
}

/// An engine that has listed these; container N is in namespace N, on veth 10 + N.
fn engine(containers: Vec<Container>) -> Facts {
    let numbers: Vec<i32> = (1..).take(containers.len()).collect();
    Facts {
        containers: containers
            .iter()
            .zip(&numbers)
            .map(|(container, number)| (container.id.clone(), namespace(Some(*number))))
            .collect(),
        links: Snapshot {
            veths: numbers
                .iter()
                .map(|number| veth(10 + number.unsigned_abs(), Some(*number), Some(BRIDGE)))
                .collect(),
            bridges: [(BRIDGE, "docker0".to_owned())].into(),
            host_addresses: ["192.0.2.1".parse().unwrap()].into(),
        },
        docker: Engine {
            followed: true,
            socket: true,
            listed: true,
            snapshot: Arc::new(container::Snapshot {
                containers,
                connected: true,
                ..container::Snapshot::default()
            }),
            ..Engine::default()
        },
        ..Facts::default()
    }
}

fn go(facts: &Facts, register: &mut Register) -> Assembled {
    let programmed = register
        .records
        .values()
        .flat_map(|record| record.interfaces.keys().copied())
        .collect();
    assemble(facts, &Settings::default(), &programmed, register)
}

fn attached(assembled: &Assembled, name: &str) -> world::Attached {
    match &assembled.world.pods[&name.parse().unwrap()].place {
        Place::Attached(attached) => attached.clone(),
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn containers_become_endpoints_with_what_the_engine_gave_them() {
    let labels = [
        ("com.docker.compose.project", "shop"),
        ("com.docker.compose.service", "web"),
    ];
    let facts = engine(vec![container(1, &labels), container(2, &[])]);
    let mut register = Register::default();
    let found = go(&facts, &mut register);
    let web = &found.world.pods[&"shop/c1".parse().unwrap()];
    assert_eq!(web.labels["app"], "web");
    let addresses: Vec<String> = web.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["172.17.0.1", "fe80::42:ff:fe00:1"]);
    assert_eq!(
        attached(&found, "shop/c1").interfaces,
        [(11, [2, 0x42, 0, 0, 0, 1])].into()
    );
    assert_ne!(
        attached(&found, "shop/c1").id,
        attached(&found, "default/c2").id
    );
    assert!(found.unidentified.is_empty() && found.unprotected.is_empty());
    // Nothing changed: nothing changes.
    assert_eq!(go(&facts, &mut register), found);
}

#[test]
fn what_looks_like_a_containers_is_on_hold_and_the_rest_is_left_alone() {
    let mut facts = engine(vec![]);
    facts.links.bridges.insert(101, "br0".to_owned());
    facts.links.veths = vec![
        veth(11, Some(1), Some(BRIDGE)),
        veth(12, Some(2), None),
        veth(13, Some(3), Some(101)),
        // Both ends here: the other one may still move, and must not take a program along.
        veth(14, None, None),
    ];
    let found = go(&facts, &mut Register::default());
    assert_eq!(found.interfaces, [(11, None), (12, None)].into());
    assert_eq!(found.unidentified.len(), 2);
    facts.docker.followed = false;
    assert!(go(&facts, &mut Register::default()).interfaces.is_empty());
    facts.docker.followed = true;
    (facts.docker.socket, facts.docker.listed) = (false, false);
    assert!(go(&facts, &mut Register::default()).interfaces.is_empty());
}

#[test]
fn another_container_never_gets_the_number_of_the_one_before() {
    let facts = engine(vec![container(1, &[])]);
    let mut register = Register::default();
    let before = attached(&go(&facts, &mut register), "default/c1");
    // The same address, interface and namespace; another container.
    let mut other = container(9, &[]);
    other.networks = container(1, &[]).networks;
    let after = attached(&go(&engine(vec![other]), &mut register), "default/c9");
    assert_eq!(before.interfaces, after.interfaces);
    assert_ne!(before.id, after.id);
    assert_ne!(before.slot, after.slot);
    // The same container in a namespace of its next life.
    let mut facts = engine(vec![container(9, &[])]);
    facts.containers.values_mut().next().unwrap().identity = (4, 99);
    let again = attached(&go(&facts, &mut register), "default/c9");
    assert_ne!(again.id, after.id);
}

#[test]
fn until_the_engine_has_listed_its_endpoints_stay() {
    let listed = engine(vec![container(1, &[("app", "x")]), container(2, &[])]);
    let mut register = Register::default();
    let before = go(&listed, &mut register);
    let mut silent = listed.clone();
    silent.containers.clear();
    silent.docker = Engine {
        followed: true,
        ..Engine::default()
    };
    // The second one's interface has gone, and its number is another's.
    silent.links.veths[1].peer_nsid = Some(7);
    let now = go(&silent, &mut register);
    assert_eq!(
        attached(&now, "default/c1"),
        attached(&before, "default/c1")
    );
    assert_eq!(
        now.world.pods[&"default/c1".parse().unwrap()],
        before.world.pods[&"default/c1".parse().unwrap()]
    );
    assert!(!now.world.pods.contains_key(&"default/c2".parse().unwrap()));
    // What was enforced and is nobody's now is on hold, not open.
    assert_eq!(now.interfaces[&12], None);
    // The engine knows nothing of the first one: it goes.
    let gone = go(&engine(vec![]), &mut register);
    assert!(gone.world.pods.is_empty() && register.records.is_empty());
}

#[test]
fn an_enforced_interface_is_held_and_not_opened_while_the_engine_is_silent() {
    let mut facts = engine(vec![]);
    facts.docker = Engine {
        followed: true,
        ..Engine::default()
    };
    facts.links.veths = vec![veth(11, Some(1), None)];
    let found = assemble(
        &facts,
        &Settings::default(),
        &[11].into(),
        &mut Register::default(),
    );
    assert_eq!(found.interfaces, [(11, None)].into());
}

#[test]
fn containers_that_policy_cannot_reach_are_reported() {
    let mut hosty = container(1, &[]);
    hosty.host_network = true;
    let mut lan = container(2, &[]);
    lan.networks[0].driver = "macvlan".to_owned();
    let mut lonely = container(3, &[]);
    lonely.networks.clear();
    let mut joined = container(4, &[]);
    joined.joined = Some(lonely.id.clone());
    let mut facts = engine(vec![hosty, lan, lonely, joined]);
    facts.links.veths.clear();
    let found = go(&facts, &mut Register::default());
    let names: Vec<&str> = found
        .unprotected
        .iter()
        .map(|one| one.container.as_str())
        .collect();
    assert_eq!(names, ["default/c1", "default/c2"]);
    assert_eq!(found.world.pods.len(), 3);
}

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
fn a_declared_pod_is_read_from_inside() {
    let mut facts = Facts {
        store: manifests(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: x, annotations: {netpold.io/netns: /run/netns/a}}\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata: {name: b, annotations: {netpold.io/netns: /run/netns/b}}\n\
             ---\napiVersion: v1\nkind: Pod\nmetadata: {name: c}\nstatus: {podIPs: [{ip: 10.0.0.9}]}\n",
        ),
        ..Facts::default()
    };
    let inside = Inside {
        ifindex: 2,
        name: "eth0".to_owned(),
        kind: Some("veth".to_owned()),
        mac: Some([2, 0, 0, 0, 0, 7]),
        iflink: Some(11),
        addresses: vec!["10.0.0.7".parse().unwrap(), "fe80::7".parse().unwrap()],
        up: true,
    };
    let lo = Inside {
        addresses: vec!["127.0.0.1".parse().unwrap()],
        ..inside.clone()
    };
    facts.declared = vec![
        Declared {
            name: "x/a".parse().unwrap(),
            path: PathBuf::from("/run/netns/a"),
            namespace: Ok(Namespace {
                inside: vec![lo, inside],
                ..namespace(Some(1))
            }),
        },
        Declared {
            name: "default/b".parse().unwrap(),
            path: PathBuf::from("/run/netns/b"),
            namespace: Err("is not there".to_owned()),
        },
    ];
    facts.links.veths = vec![veth(11, Some(1), None), veth(12, Some(2), None)];
    let mut register = Register::default();
    let found = go(&facts, &mut register);
    assert_eq!(
        attached(&found, "x/a").interfaces,
        [(11, [2, 0, 0, 0, 0, 7])].into()
    );
    let addresses = &found.world.pods[&"x/a".parse().unwrap()].addresses;
    assert_eq!(addresses.len(), 2);
    let absent = &found.world.pods[&"default/b".parse().unwrap()];
    assert!(absent.addresses.is_empty() && absent.place == Place::Local);
    assert!(
        found.warnings[0].contains("/run/netns/b"),
        "{:?}",
        found.warnings
    );
    let peer = &found.world.pods[&"default/c".parse().unwrap()];
    assert_eq!(peer.place, Place::External);
    assert_eq!(
        found.interfaces.len(),
        1,
        "the other veth is nobody's business"
    );
    // No longer declared: it is let go, not held, though no engine has answered.
    facts.store = Arc::default();
    facts.declared.clear();
    facts.docker.followed = true;
    assert!(go(&facts, &mut register).interfaces.is_empty());
}

#[test]
fn a_container_cannot_take_the_name_of_the_resolvers_or_of_a_declared_pod() {
    let labels = [("netpold.io/namespace", "kube-system")];
    let mut fake = container(1, &labels);
    fake.name = "kube-dns".to_owned();
    let mut facts = engine(vec![fake]);
    facts.resolvers = Some(["10.0.0.53".parse().unwrap()].into());
    let found = go(&facts, &mut Register::default());
    let dns = &found.world.pods[&"kube-system/kube-dns".parse().unwrap()];
    assert_eq!(dns.place, Place::External);
    assert!(
        found
            .world
            .pods
            .contains_key(&"kube-system/kube-dns-000000000000".parse().unwrap())
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

/// A manifest that names a container.
fn naming(name: &str, container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: lab\n  \
         labels: {{app: named}}\n  annotations: {{netpold.io/container: '{container}'}}\n\
         spec: {{containers: [{{ports: [{{name: http, containerPort: 8080}}]}}]}}\n---\n"
    )
}

#[test]
fn a_manifest_completes_the_container_that_it_names() {
    let mut facts = engine(vec![container(1, &[("app", "own"), ("tier", "back")])]);
    let mut register = Register::default();
    let before = go(&facts, &mut register);
    let own = ObjectName::new("default", "c1");
    let place = before.world.pods[&own].place.clone();
    assert!(matches!(place, Place::Attached(_)));

    for text in ["c1".to_owned(), container(1, &[]).id] {
        facts.store = manifests(&naming("db", &text));
        let out = go(&facts, &mut register);
        let name = ObjectName::new("lab", "db");
        let pod = &out.world.pods[&name];
        let labels: Vec<&str> = pod.labels.values().map(String::as_str).collect();
        assert_eq!((labels, pod.ports.len()), (vec!["named", "back"], 1));
        // It is the endpoint that it was, at its addresses.
        assert_eq!(pod.place, place);
        assert!(!out.world.pods.contains_key(&own) && out.warnings.is_empty());
        let origin = &out.origins.pods[&name];
        assert!(origin.file.is_some());
        let reported = origin.container.as_ref().unwrap();
        assert_eq!((&reported.pod, reported.name.as_str()), (&own, "c1"));
        assert_eq!(reported.labels["app"], "own");
    }
    // Without the manifest it is what it was.
    facts.store = Arc::default();
    assert_eq!(go(&facts, &mut register).world, before.world);
}

#[test]
fn a_manifest_that_names_nobody_is_said_and_gives_nobody_anything() {
    let mut sidecar = container(3, &[]);
    sidecar.joined = Some(container(1, &[]).id);
    let mut facts = engine(vec![container(1, &[]), container(2, &[])]);
    let docker = Arc::make_mut(&mut facts.docker.snapshot);
    docker.containers.push(sidecar);
    facts.store = manifests(
        &[("a", "c9"), ("b", "c2"), ("c", "c2"), ("d", "c3")]
            .map(|(name, container)| naming(name, container))
            .concat(),
    );
    let out = go(&facts, &mut Register::default());
    let place = |name: &str| out.world.pods[&ObjectName::new("lab", name)].place.clone();
    assert_eq!((place("a"), place("c")), (Place::Local, Place::Local));
    assert!(matches!(place("b"), Place::Attached(_)));
    // Who shares a namespace is the endpoint whose namespace it is.
    assert!(matches!(place("d"), Place::Attached(_)));
    assert_eq!(
        out.warnings,
        [
            "Pod lab/c: container `c2` is Pod lab/b already: its labels and ports are not added",
            "Pod lab/a: `c9`: no container of that name or ID runs: nothing is enforced for it until one does",
        ]
    );
}

/// Whoever may start containers may name them as he likes.
#[test]
fn a_newcomer_takes_no_manifest_from_whom_it_means() {
    let victim = container(1, &[]);
    let short = victim.id[..12].to_owned();
    for text in [victim.name.clone(), short.clone()] {
        let mut thief = container(2, &[]);
        thief.name = text.clone();
        let mut facts = engine(vec![victim.clone()]);
        facts.store = manifests(&naming("db", &text));
        let mut register = Register::default();
        let before = attached(&go(&facts, &mut register), "lab/db").id;
        // Even one that says that it is older.
        thief.created = -1;
        let mut facts = engine(vec![victim.clone(), thief]);
        facts.store = manifests(&naming("db", &text));
        let out = go(&facts, &mut register);
        assert_eq!(attached(&out, "lab/db").id, before, "{text}");
        assert!(
            out.warnings[0].contains("means 2 containers"),
            "{:?}",
            out.warnings
        );
    }
}

#[test]
fn a_renamed_container_has_its_new_name() {
    let mut facts = engine(vec![container(1, &[])]);
    let mut register = Register::default();
    go(&facts, &mut register);
    let docker = Arc::make_mut(&mut facts.docker.snapshot);
    docker.containers[0].name = "renamed".to_owned();
    let out = go(&facts, &mut register);
    let names: Vec<String> = out.world.pods.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["default/renamed"]);
}

/// containerd with these containers; container N is in the namespace `of(N)`, on veth 10 + that,
/// at 10.88.0.that.
fn containerd(containers: Vec<Container>, of: impl Fn(usize) -> i32) -> Facts {
    let mut facts = Facts::default();
    facts.links.bridges = [(BRIDGE, "lab0".to_owned())].into();
    for (index, one) in containers.iter().enumerate() {
        let nsid = of(index + 1);
        let number = nsid.unsigned_abs();
        let inside = Inside {
            ifindex: 2,
            name: "eth0".to_owned(),
            kind: Some("veth".to_owned()),
            mac: Some([2, 0, 0, 0, 0, number as u8]),
            iflink: Some(10 + number),
            addresses: vec![[10, 88, 0, number as u8].into()],
            up: true,
        };
        let found = Namespace {
            inside: vec![inside],
            looked_running: one.is_running(),
            ..namespace(Some(nsid))
        };
        facts.containers.insert(one.id.clone(), found);
        let end = Veth {
            name: format!("veth{number:08x}"),
            ..veth(10 + number, Some(nsid), Some(BRIDGE))
        };
        if !facts.links.veths.contains(&end) {
            facts.links.veths.push(end);
        }
    }
    facts.containerd = Engine {
        followed: true,
        socket: true,
        listed: true,
        snapshot: Arc::new(container::Snapshot {
            containers,
            connected: true,
            ..container::Snapshot::default()
        }),
        ..Engine::default()
    };
    facts
}

fn task(id: &str, app: &str) -> Container {
    Container {
        runtime: Runtime::Containerd,
        id: format!("default/{id}"),
        name: id.to_owned(),
        labels: [
            ("app".to_owned(), app.to_owned()),
            ("io.kubernetes.pod.name".to_owned(), "x".to_owned()),
        ]
        .into(),
        pid: 1000,
        state: State::Running,
        ..Container::default()
    }
}

fn part(id: &str, app: &str, sandbox: bool) -> Container {
    let mut container = task(id, app);
    let namespace = "io.kubernetes.pod.namespace".to_owned();
    container.labels.insert(namespace, "shop".to_owned());
    container.name = "store-0".to_owned();
    container.part = Some(container::Part {
        pod: "uid".to_owned(),
        sandbox,
    });
    container
}

fn names(found: &Assembled) -> Vec<String> {
    found.world.pods.keys().map(ToString::to_string).collect()
}

#[test]
fn a_task_has_the_addresses_that_are_inside() {
    let facts = containerd(vec![task("web", "web")], |number| number as i32);
    let found = go(&facts, &mut Register::default());
    let web = &found.world.pods[&"default/web".parse().unwrap()];
    assert_eq!(
        web.labels,
        Labels::from([("app".to_owned(), "web".to_owned())])
    );
    let addresses: Vec<String> = web.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.88.0.1", "fe80::ff:fe00:1"]);
    assert_eq!(
        attached(&found, "default/web").interfaces,
        [(11, [2, 0, 0, 0, 0, 1])].into()
    );
}

#[test]
fn what_a_task_gives_itself_once_it_runs_is_not_its_own() {
    let own: IpAddr = "10.88.0.1".parse().unwrap();
    let taken: IpAddr = "10.88.0.99".parse().unwrap();
    for runs in [false, true] {
        let mut web = task("web", "web");
        if !runs {
            web.state = State::Created;
        }
        let mut facts = containerd(vec![web], |number| number as i32);
        let mut register = Register::default();
        go(&facts, &mut register);
        let inside = facts.containers.values_mut().next().unwrap();
        inside.inside[0].addresses.push(taken);
        let found = go(&facts, &mut register);
        let addresses = &found.world.pods[&"default/web".parse().unwrap()].addresses;
        // While it is made ready, whoever does that may give it another one.
        assert_eq!(addresses.contains(&taken), !runs, "runs: {runs}");
        assert!(addresses.contains(&own));
    }
}

#[test]
fn a_network_that_a_running_task_gets_later_counts() {
    let mut facts = containerd(vec![task("web", "web")], |number| number as i32);
    let mut register = Register::default();
    let mut later = facts.containers.values().next().unwrap().inside[0].clone();
    go(&facts, &mut register);
    (later.ifindex, later.iflink) = (3, Some(50));
    later.addresses = vec!["10.99.0.1".parse().unwrap()];
    facts
        .containers
        .values_mut()
        .next()
        .unwrap()
        .inside
        .push(later);
    facts.links.veths.push(Veth {
        peer_ifindex: Some(3),
        ..veth(50, Some(1), None)
    });
    let found = go(&facts, &mut register);
    let addresses = &found.world.pods[&"default/web".parse().unwrap()].addresses;
    assert!(addresses.contains(&"10.99.0.1".parse().unwrap()));
    assert_eq!(attached(&found, "default/web").interfaces.len(), 2);
}

#[test]
fn of_those_in_one_namespace_the_sandbox_or_the_first_is_the_endpoint() {
    // The container was listed first.
    let pod = vec![part("main", "web", false), part("pause", "db", true)];
    let facts = containerd(pod, |_| 1);
    let mut register = Register::default();
    let found = go(&facts, &mut register);
    assert_eq!(names(&found), ["shop/store-0"]);
    assert_eq!(
        found.world.pods[&"shop/store-0".parse().unwrap()].labels["app"],
        "db"
    );
    // Whoever is it stays it, whatever joins.
    let both = vec![part("late", "x", true), task("first", "web")];
    let mut register = Register::default();
    go(&containerd(both[1..].to_vec(), |_| 1), &mut register);
    let found = go(&containerd(both, |_| 1), &mut register);
    assert_eq!(names(&found), ["default/first"]);
}

#[test]
fn a_container_that_says_it_is_of_a_pod_and_is_elsewhere_is_its_own_endpoint() {
    let pod = vec![part("pause", "db", true), part("liar", "web", false)];
    let facts = containerd(pod, |number| number as i32);
    let found = go(&facts, &mut Register::default());
    assert_eq!(names(&found), ["shop/store-0", "shop/store-0-liar"]);
}

#[test]
fn a_pod_on_the_host_is_reported_once() {
    let mut facts = containerd(
        vec![
            part("pause", "db", true),
            part("main", "db", false),
            task("plain", "x"),
        ],
        |_| 1,
    );
    for namespace in facts.containers.values_mut() {
        namespace.nsid = None;
    }
    facts.links.veths.clear();
    let found = go(&facts, &mut Register::default());
    let reported: Vec<&str> = found
        .unprotected
        .iter()
        .map(|one| one.container.as_str())
        .collect();
    assert_eq!(reported, ["shop/store-0", "default/plain"]);
}

#[test]
fn an_interface_without_a_veth_is_reported() {
    let mut facts = containerd(vec![task("web", "web")], |number| number as i32);
    let inside = &mut facts.containers.values_mut().next().unwrap().inside;
    let lo = Inside {
        kind: None,
        addresses: vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()],
        ..inside[0].clone()
    };
    let lan = Inside {
        name: "net1".to_owned(),
        kind: Some("macvlan".to_owned()),
        ..inside[0].clone()
    };
    inside.extend([lo, lan]);
    let found = go(&facts, &mut Register::default());
    assert_eq!(found.unprotected.len(), 1);
    assert!(found.unprotected[0].reason.contains("`net1`"));
}

#[test]
fn where_containerds_containers_were_the_next_one_is_on_hold() {
    let mut register = Register::default();
    let mut facts = containerd(vec![task("web", "web")], |number| number as i32);
    let stranger = |ifindex, name: &str| Veth {
        name: name.to_owned(),
        ..veth(ifindex, Some(9), Some(BRIDGE))
    };
    let strangers = [
        stranger(31, "veth0123abcd"),
        // Somebody else's, on the same bridge.
        stranger(32, "vethAbCdEf"),
    ];
    // Nobody has been there yet: it may be any bridge.
    let mut empty = containerd(vec![], |_| 0);
    empty.links.veths = strangers.to_vec();
    assert!(go(&empty, &mut register).interfaces.is_empty());
    facts.links.veths.extend(strangers.clone());
    let found = go(&facts, &mut register);
    assert_eq!(found.interfaces[&31], None);
    assert!(!found.interfaces.contains_key(&32));
    // The last one is gone, and it is still known where they are.
    assert_eq!(go(&empty, &mut register).interfaces, [(31, None)].into());
    empty.containerd.followed = false;
    assert!(go(&empty, &mut register).interfaces.is_empty());
}

#[test]
fn bridges_of_a_docker_that_nobody_follows_are_not_containerds() {
    let mut facts = containerd(vec![], |_| 0);
    facts.links.bridges = [(BRIDGE, "br-0123456789ab".to_owned())].into();
    facts.links.veths = vec![Veth {
        name: "veth0123abcd".to_owned(),
        ..veth(31, Some(9), Some(BRIDGE))
    }];
    let on_hold = |facts: &Facts| !go(facts, &mut Register::default()).interfaces.is_empty();
    // nerdctl's.
    assert!(on_hold(&facts));
    facts.docker.socket = true;
    assert!(!on_hold(&facts));
    facts.docker.followed = true;
    assert!(on_hold(&facts));
}

#[test]
fn until_containerd_has_listed_its_endpoints_stay_and_docker_has_no_say() {
    let listed = containerd(vec![task("web", "web")], |number| number as i32);
    let mut register = Register::default();
    let before = go(&listed, &mut register);
    let mut silent = listed.clone();
    silent.containers.clear();
    silent.containerd = Engine {
        followed: true,
        ..Engine::default()
    };
    silent.docker = Engine {
        followed: true,
        listed: true,
        ..Engine::default()
    };
    let now = go(&silent, &mut register);
    assert_eq!(
        attached(&now, "default/web"),
        attached(&before, "default/web")
    );
    silent.containerd.listed = true;
    assert!(go(&silent, &mut register).world.pods.is_empty());
}
