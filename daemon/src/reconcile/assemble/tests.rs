//! What becomes of listings, by hand-made engines; what each file holds is its name.

#![allow(clippy::unwrap_used)]

mod addresses;
mod containers;
mod declared;
mod holds;
mod naming;
mod resolvers;
mod subinterfaces;
mod tasks;

use std::sync::Arc;
use std::time::SystemTime;

use netpol_engine::manifest;
use netpol_engine::world::Place;

use super::*;
use crate::links::{Inside, Snapshot, Veth};
use crate::reconcile::observed::{Declared, Engine, Namespace, Rights};
use crate::runtime::container::{self, Attachment, Container, Runtime, State};
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
            link_local: Vec::new(),
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
        rights: Rights::default(),
    }
}

/// An engine that has listed these; container N is in namespace N, on veth 10 + N.
fn engine(containers: Vec<Container>) -> Observed {
    let numbers: Vec<i32> = (1..).take(containers.len()).collect();
    Observed {
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
            broadcasts: ["192.0.2.255".parse().unwrap()].into(),
        },
        docker: vec![Engine {
            label: "docker".to_owned(),
            followed: true,
            socket: true,
            listed: true,
            snapshot: Arc::new(container::Snapshot {
                containers,
                connected: true,
                ..container::Snapshot::default()
            }),
            ..Engine::default()
        }],
        ..Observed::default()
    }
}

fn go(observed: &Observed, register: &mut Register) -> Desired {
    let programmed = register.interfaces().collect();
    assemble(observed, &Settings::default(), &programmed, register)
}

/// As [`go`], with the resolvers as a peer: its addresses.
fn kube_dns(observed: &Observed, register: &mut Register) -> (Desired, BTreeSet<IpAddr>) {
    let settings = Settings {
        kube_dns: true,
        ..Settings::default()
    };
    let programmed = register.interfaces().collect();
    let found = assemble(observed, &settings, &programmed, register);
    let dns = &found.world.pods[&"kube-system/kube-dns".parse().unwrap()];
    assert_eq!(dns.place, Place::External);
    let addresses = dns.addresses.clone();
    (found, addresses)
}

fn attached(desired: &Desired, name: &str) -> world::Attached {
    match &desired.world.pods[&name.parse().unwrap()].place {
        Place::Attached(attached) => attached.clone(),
        other => panic!("{name} is {other:?}"),
    }
}

/// containerd with these containers; container N is in the namespace `of(N)`, on veth 10 + that,
/// at 10.88.0.that.
fn containerd(containers: Vec<Container>, of: impl Fn(usize) -> i32) -> Observed {
    let mut observed = Observed::default();
    observed.links.bridges = [(BRIDGE, "lab0".to_owned())].into();
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
            ..Inside::default()
        };
        let found = Namespace {
            inside: vec![inside],
            looked_running: one.is_running(),
            ..namespace(Some(nsid))
        };
        observed.containers.insert(one.id.clone(), found);
        let end = Veth {
            name: format!("veth{number:08x}"),
            ..veth(10 + number, Some(nsid), Some(BRIDGE))
        };
        if !observed.links.veths.contains(&end) {
            observed.links.veths.push(end);
        }
    }
    observed.docker = vec![Engine::default()];
    observed.containerd = Engine {
        runtime: Runtime::Containerd,
        label: "containerd".to_owned(),
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
    observed
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

fn names(found: &Desired) -> Vec<String> {
    found.world.pods.keys().map(ToString::to_string).collect()
}
