//! Groups and pairs of a matrix, on worlds written as manifests.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::manifest::{assemble, parse};

/// Three of web and two of db, where web reaches db and only db-0 reaches web; lab is apart.
fn world() -> World {
    let mut text = String::new();
    for (namespace, app, count) in [("shop", "web", 3), ("shop", "db", 2), ("lab", "lab", 2)] {
        for number in 0..count {
            text += &format!(
                "---\napiVersion: v1\nkind: Pod\n\
                 metadata: {{name: {app}-{number}, namespace: {namespace}, labels: {{app: {app}, number: \"{number}\"}}}}\n"
            );
        }
    }
    for (name, namespace, spec) in [
        (
            "db",
            "shop",
            "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}",
        ),
        (
            "web",
            "shop",
            "{podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: db, number: \"0\"}}}], ports: [{port: 80}]}]}",
        ),
        (
            "lab",
            "lab",
            "{podSelector: {}, policyTypes: [Ingress, Egress]}",
        ),
    ] {
        text += &format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
        );
    }
    let file = parse("x.yaml", &text);
    assert!(file.is_accepted(), "{:?}", file.diagnostics);
    assemble([&file]).world()
}

fn groups(matrix: &Matrix) -> Vec<String> {
    let names = |group: &Vec<&ObjectName>| {
        let names: Vec<&str> = group.iter().map(|pod| pod.name.as_str()).collect();
        names.join(" ")
    };
    matrix.groups().iter().map(names).collect()
}

#[test]
fn equal_rows_and_columns_are_one_group() {
    let world = world();
    let on_80 = matrix(&world, Protocol::Tcp, 80).unwrap();
    assert_eq!(
        groups(&on_80),
        ["lab-0 lab-1", "db-0", "db-1", "web-0 web-1 web-2"]
    );
    // On another port no Pod reaches web, so nothing tells the two of db apart.
    let on_81 = matrix(&world, Protocol::Tcp, 81).unwrap();
    assert_eq!(
        groups(&on_81),
        ["lab-0 lab-1", "db-0 db-1", "web-0 web-1 web-2"]
    );
    assert_eq!(on_81.allows(1, 1), Some(false));
    assert_eq!(on_81.allows(2, 1), Some(true));
}

#[test]
fn a_group_of_one_makes_no_pair_with_itself() {
    let world = world();
    let on_80 = matrix(&world, Protocol::Tcp, 80).unwrap();
    assert_eq!(on_80.allows(1, 1), None);
    assert_eq!(on_80.pairs().count(), 7 * 6);
    assert!(on_80.pairs().all(|pair| pair.from != pair.to));
    assert!(on_80.pairs().is_sorted());
}

#[test]
fn lines_name_every_sender_once() {
    let world = world();
    let on_80 = matrix(&world, Protocol::Tcp, 80).unwrap();
    let all = [0, 1, 2, 3];
    assert_eq!(
        on_80.lines(&all, &all),
        [
            (vec![1], vec![3]),
            (vec![3], vec![1, 2]),
            (vec![0, 2], vec![]),
        ]
    );
}

#[test]
fn a_narrow_matrix_has_the_pairs_with_an_end_that_is_meant() {
    let world = world();
    let mut narrow = matrix(&world, Protocol::Tcp, 80).unwrap();
    narrow.narrow(|name| name.name == "web-1");
    assert_eq!(
        groups(&narrow),
        ["lab-0 lab-1", "db-0", "db-1", "web-0 web-2", "web-1"]
    );
    assert!((0..4).all(|group| !narrow.is_meant(group)) && narrow.is_meant(4));
    assert_eq!(narrow.pairs().count(), 2 * 6);
    let value = serde_json::to_value(&narrow).unwrap();
    assert_eq!(
        (&value["port"], &value["protocol"], &value["pairs"][2]),
        (
            &serde_json::json!(80),
            &serde_json::json!("TCP"),
            &serde_json::json!({"from": "shop/db-0", "to": "shop/web-1", "allowed": true}),
        )
    );
}
