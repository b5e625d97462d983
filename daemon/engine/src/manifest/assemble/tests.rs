//! Objects given twice, addresses stated twice, and what becomes of a Pod.

use std::collections::BTreeSet;

use super::*;
use crate::policy::{Mode, ObjectName};

fn pod(name: &str, line: usize, edit: impl FnOnce(&mut PodManifest)) -> Object {
    let mut manifest = PodManifest {
        name: ObjectName::new("ns", name),
        ..PodManifest::default()
    };
    edit(&mut manifest);
    Object {
        position: Position { line, column: 1 },
        labels: manifest.labels.clone(),
        annotations: BTreeMap::new(),
        created: None,
        value: Value::Pod(manifest),
    }
}

fn at(address: [u8; 4]) -> impl FnOnce(&mut PodManifest) {
    move |pod| pod.pod_ips.push(address.into())
}

fn file(path: &str, documents: Vec<Object>) -> File {
    File {
        path: path.to_owned(),
        documents,
        ..File::default()
    }
}

#[test]
fn the_first_of_two_stays_and_both_places_are_named() {
    let files = [
        file("a.yaml", vec![pod("one", 4, at([10, 0, 0, 1]))]),
        file("b.yaml", vec![pod("one", 9, at([10, 0, 0, 2]))]),
    ];
    let assembled = assemble(&files);
    assert_eq!(assembled.objects.len(), 1);
    assert_eq!(assembled.objects[0].0, "a.yaml");
    insta::assert_snapshot!(assembled.diagnostics[0], @"b.yaml:9:1: error[duplicate-object]: Pod ns/one: metadata.name: Pod ns/one is given twice: first at a.yaml:4:1; remove one of the two, or give one another name or namespace");
}

#[test]
fn one_name_of_two_kinds_is_two_objects() {
    let namespace = Object {
        value: Value::Namespace {
            name: "one".into(),
            mode: Mode::Enforce,
        },
        ..pod("one", 1, |_| ())
    };
    let files = [file("a.yaml", vec![pod("one", 1, |_| ()), namespace])];
    assert!(assemble(&files).diagnostics.is_empty());
}

#[test]
fn an_address_belongs_to_the_first() {
    let files = [file(
        "a.yaml",
        vec![
            pod("one", 1, at([10, 0, 0, 1])),
            pod("two", 9, at([10, 0, 0, 1])),
        ],
    )];
    let assembled = assemble(&files);
    insta::assert_snapshot!(assembled.diagnostics[0], @"a.yaml:9:1: warning[address-conflict]: Pod ns/two: status.podIPs: 10.0.0.1 belongs to the Pod at a.yaml:1:1 already, and counts for that one; give each Pod an address of its own");
    let world = assembled.world();
    assert_eq!(world.pods[&ObjectName::new("ns", "one")].addresses.len(), 1);
    assert_eq!(world.pods[&ObjectName::new("ns", "two")].addresses.len(), 0);
}

#[test]
fn pods_on_the_host_network_share_the_hosts_address() {
    let host = |pod: &mut PodManifest| {
        pod.host_network = true;
        pod.pod_ips.push([10, 0, 0, 1].into());
    };
    let files = [file(
        "a.yaml",
        vec![pod("one", 1, host), pod("two", 2, host)],
    )];
    let assembled = assemble(&files);
    assert!(assembled.diagnostics.is_empty());
    let world = assembled.world();
    assert_eq!(world.host, BTreeSet::from([[10, 0, 0, 1].into()]));
    for pod in world.pods.values() {
        assert_eq!(pod.place, Place::HostNetwork);
        assert_eq!(pod.addresses, world.host);
    }
}

#[test]
fn external_wins_over_the_host_network() {
    let object = pod("one", 1, |pod| {
        pod.external = true;
        pod.host_network = true;
        pod.pod_ips.push([10, 0, 0, 1].into());
    });
    let world = World::from_objects([&object]);
    assert_eq!(
        world.pods[&ObjectName::new("ns", "one")].place,
        Place::External
    );
    assert!(world.host.is_empty());
}
