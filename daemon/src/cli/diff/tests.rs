//! `netpol diff` as people use it, and what NEW means against what is in force.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use clap::Parser as _;
use netpol_engine::world::Attached;

use super::*;
use crate::cli::{Cli, run};
use crate::origin::Origin;

const PODS: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: front, namespace: web, labels: {app: front}}
---
apiVersion: v1
kind: Pod
metadata: {name: api, namespace: shop, labels: {app: api}}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
---
";

const DENY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}}
---
";

const ALLOW: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: api}}}, {ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]
    ports: [{port: 5432}, {port: 53, protocol: UDP}]
---
";

/// What the arguments print, with `OLD` and `NEW` as directories of these texts.
fn diff(arguments: &str, old: &str, new: &str) -> (Exit, String) {
    let root = tempfile::tempdir().unwrap();
    let directory = |name: &str, text: &str| {
        let path = root.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("all.yaml"), text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (old, new) = (directory("old", old), directory("new", new));
    let words = arguments
        .split_whitespace()
        .map(|word| word.replace("OLD", &old).replace("NEW", &new));
    let cli = Cli::try_parse_from(
        ["netpol".to_owned(), "diff".to_owned()]
            .into_iter()
            .chain(words),
    )
    .unwrap();
    let mut out = Vec::new();
    let exit = run(&cli, &mut out).unwrap();
    let text = anstream::adapter::strip_str(&String::from_utf8(out).unwrap()).to_string();
    (exit, text)
}

#[test]
fn what_opens_and_what_closes_is_told_in_rows() {
    let (exit, text) = diff(
        "OLD NEW",
        &format!("{PODS}{DENY}"),
        &format!("{PODS}{ALLOW}"),
    );
    assert_eq!(exit, Exit::No);
    insta::assert_snapshot!(text, @r"
    ~ policy shop/db

    CHANGE    FROM                                 TO        PORTS
    + opens   shop/api,                            shop/db   5432/TCP,
              192.0.2.0/24 except 192.0.2.128/25             53/UDP
    ");
    let (exit, text) = diff("OLD NEW", &format!("{PODS}{ALLOW}"), PODS);
    assert_eq!(exit, Exit::No);
    insta::assert_snapshot!(text, @r"
    - policy shop/db

    CHANGE    FROM                                 TO        PORTS
    + opens   shop/api,                            shop/db   all but 5432/TCP,
              192.0.2.0/24 except 192.0.2.128/25             53/UDP
    + opens   web/front,                           shop/db   all
              0.0.0.0/0 except 192.0.2.0/24,
              192.0.2.128/25, ::/0
    ");
}

#[test]
fn wide_is_every_pair() {
    let (_, text) = diff("OLD NEW -o wide", PODS, &format!("{PODS}{DENY}"));
    insta::assert_snapshot!(text, @r"
    + policy shop/db

    CHANGE     FROM        TO        PORTS
    - closes   shop/api    shop/db   all
    - closes   web/front   shop/db   all
    - closes   0.0.0.0/0   shop/db   all
    - closes   ::/0        shop/db   all
    ");
}

#[test]
fn the_old_side_may_be_the_manifests_option() {
    let (exit, text) = diff("--manifests OLD NEW", PODS, &format!("{PODS}{DENY}"));
    assert_eq!(exit, Exit::No);
    assert!(text.starts_with("+ policy shop/db\n"), "{text}");
    let cli = Cli::try_parse_from(["netpol", "--manifests", "a", "diff", "b", "c"]).unwrap();
    assert!(run(&cli, &mut Vec::new()).is_err());
}

#[test]
fn nothing_changes_where_only_names_do() {
    let renamed = DENY.replace("name: db", "name: other");
    let (exit, text) = diff(
        "OLD NEW",
        &format!("{PODS}{DENY}"),
        &format!("{PODS}{renamed}"),
    );
    assert_eq!(
        (exit, text.as_str()),
        (Exit::Done, "+ policy shop/other\n- policy shop/db\n")
    );
    assert_eq!(diff("OLD NEW", PODS, PODS), (Exit::Done, String::new()));
}

#[test]
fn many_objects_are_counted() {
    let many: String = (0..30)
        .map(|number| DENY.replace("name: db", &format!("name: p{number:02}")))
        .collect();
    let (_, text) = diff(
        "OLD NEW",
        &format!("{PODS}{DENY}"),
        &format!("{PODS}{DENY}{many}"),
    );
    assert_eq!(text.lines().count(), 10);
    assert!(text.ends_with("+ 21 more policies\n"), "{text}");
}

#[test]
fn what_cannot_be_compared_is_no_difference() {
    let (exit, text) = diff("OLD NEW", PODS, "kind: [");
    assert_eq!((exit, text.as_str()), (Exit::Failed, ""));
}

#[test]
fn programs_get_every_pair_and_object() {
    let (exit, text) = diff(
        "OLD NEW -o json",
        &format!("{PODS}{DENY}"),
        &format!("{PODS}{ALLOW}"),
    );
    assert_eq!(exit, Exit::No);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        value["opened"][0],
        serde_json::json!({
            "from": "shop/api",
            "to": "shop/db",
            "ports": [{"protocol": "TCP", "port": 5432}, {"protocol": "UDP", "port": 53}],
        })
    );
    assert_eq!(value["closed"], serde_json::json!([]));
    assert_eq!(value["policies"]["changed"], serde_json::json!(["shop/db"]));
}

fn manifests(text: &str) -> Manifests {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("new.yaml"), text).unwrap();
    Manifests::read(root.path()).unwrap()
}

/// A container, a Pod in a network namespace and one elsewhere, under one policy and namespace.
fn in_force() -> Listing {
    let mut listing = Listing::default();
    let attached = Place::Attached(Attached {
        slot: 3,
        id: 7,
        ..Attached::default()
    });
    for (name, place, file) in [
        ("container", attached.clone(), None),
        ("declared", attached, Some("a.yaml")),
        ("away", Place::External, Some("a.yaml")),
        ("gone", Place::External, Some("a.yaml")),
    ] {
        let name = ObjectName::new("lab", name);
        let pod = Pod {
            labels: [("app".to_owned(), "old".to_owned())].into(),
            addresses: [[10, 0, 0, 1].into()].into(),
            place,
            ..Pod::default()
        };
        let origin = Origin {
            file: file.map(|file| Path::new(file).to_owned()),
            ..Origin::default()
        };
        listing.world.pods.insert(name.clone(), pod);
        listing.origins.pods.insert(name, origin);
    }
    // The host's resolvers have no origin.
    let dns = ObjectName::new("kube-system", "kube-dns");
    listing.world.pods.insert(dns, Pod::default());
    listing.world.host = [[192, 0, 2, 1].into()].into();
    listing.world.settings.host_ingress = false;
    listing
        .world
        .namespaces
        .insert("lab".to_owned(), [("a".to_owned(), "b".to_owned())].into());
    listing
}

#[test]
fn new_manifests_take_the_place_of_the_old_and_containers_stay() {
    let in_force = in_force();
    let new = manifests(
        "apiVersion: v1\nkind: Pod\n\
         metadata: {name: declared, namespace: lab, labels: {app: new}, annotations: {netpold.io/netns: /run/netns/x}}\n\
         ---\napiVersion: v1\nkind: Pod\n\
         metadata: {name: away, namespace: lab, labels: {app: new}}\n\
         status: {podIPs: [{ip: 10.0.0.9}]}\n\
         ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {name: p, namespace: lab}\nspec: {podSelector: {}}\n",
    );
    let after = in_place_of_manifests(&in_force, &new);
    let names: Vec<String> = after.pods.keys().map(ToString::to_string).collect();
    assert_eq!(
        names,
        [
            "kube-system/kube-dns",
            "lab/away",
            "lab/container",
            "lab/declared"
        ]
    );
    let pod = |name: &str| &after.pods[&ObjectName::new("lab", name)];
    let before = |name: &str| &in_force.world.pods[&ObjectName::new("lab", name)];
    assert_eq!(pod("container"), before("container"));
    // A namespace's addresses are read from it, so they are what they were.
    assert_eq!(pod("declared").place, before("declared").place);
    assert_eq!(pod("declared").addresses, before("declared").addresses);
    assert_eq!(pod("declared").labels["app"], "new");
    // As the daemon would have it: not enforced here.
    assert_eq!(pod("away").place, Place::External);
    assert_eq!(pod("away").addresses, [[10, 0, 0, 9].into()].into());
    assert_eq!(
        (after.host, after.settings),
        (in_force.world.host, in_force.world.settings)
    );
    assert!(after.namespaces.is_empty());
    assert_eq!(after.policies.len(), 1);
}

#[test]
fn manifests_that_name_a_container_complete_it() {
    let mut in_force = in_force();
    let name = ObjectName::new("lab", "container");
    let origin = in_force.origins.pods.get_mut(&name).unwrap();
    origin.container = Some(Reported {
        id: "0123456789abcdef".to_owned(),
        name: "shop-db-1".to_owned(),
        pod: name.clone(),
        labels: [("tier".to_owned(), "back".to_owned())].into(),
        ..Reported::default()
    });
    let new = manifests(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: db, namespace: shop, labels: {app: db}, \
         annotations: {netpold.io/container: shop-db-1}}\n",
    );
    let after = in_place_of_manifests(&in_force, &new);
    let db = ObjectName::new("shop", "db");
    let pod = &after.pods[&db];
    let labels: Vec<&str> = pod.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["app", "tier"]);
    assert_eq!(pod.place, in_force.world.pods[&name].place);
    assert!(!after.pods.contains_key(&name), "one container, one Pod");

    // And back: the manifest is in force, and would go.
    let mut origin = in_force.origins.pods.remove(&name).unwrap();
    origin.file = Some("b.yaml".into());
    in_force.origins.pods.insert(db.clone(), origin);
    in_force.world.pods.remove(&name);
    in_force.world.pods.insert(db.clone(), pod.clone());
    let after = in_place_of_manifests(&in_force, &manifests(""));
    let labels: Vec<&str> = after.pods[&name]
        .labels
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(labels, ["tier"]);
    assert!(!after.pods.contains_key(&db));
}
