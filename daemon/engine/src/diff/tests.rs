//! The form of a diff, on worlds written as manifests.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::manifest::{assemble, parse};

fn world(text: &str) -> World {
    let file = parse("x.yaml", text);
    assert!(file.is_accepted(), "{:?}", file.diagnostics);
    assemble([&file]).world()
}

fn pods(namespace: &str, app: &str, count: usize) -> String {
    (0..count)
        .map(|number| {
            format!(
                "---\napiVersion: v1\nkind: Pod\n\
                 metadata: {{name: {app}-{number}, namespace: {namespace}, labels: {{app: {app}, number: \"{number}\"}}}}\n"
            )
        })
        .collect()
}

fn policy(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// `- from, from => to, to: ports`.
fn rows(diff: &Diff) -> Vec<String> {
    let names = |members: &[&Members]| {
        let text = |members: &&Members| match members {
            Members::Pods(pods) if pods.len() == 1 => pods[0].name.clone(),
            Members::Pods(pods) => format!("{} and {} more", pods[0].name, pods.len() - 1),
            Members::Host(_) => "host".to_owned(),
            Members::Strangers(region) => region.to_string(),
        };
        members.iter().map(text).collect::<Vec<_>>().join(" | ")
    };
    diff.rows()
        .iter()
        .map(|row| {
            let sign = if row.turn == Turn::Opened { '+' } else { '-' };
            format!(
                "{sign} {} => {}: {}",
                names(&row.from),
                names(&row.to),
                row.ports
            )
        })
        .collect()
}

#[test]
fn a_default_deny_is_one_row() {
    let cast = pods("shop", "web", 3) + &pods("shop", "db", 4);
    // Each Pod of db is told from the others by some rule, so each is a group of its own.
    let tells = |kind: &str| -> String {
        (0..4)
            .map(|number| {
                policy(
                    "shop",
                    &format!("tells-{number}"),
                    &format!("{{podSelector: {{matchLabels: {{app: {kind}, number: \"{number}\"}}}}, ingress: [{{}}]}}"),
                )
            })
            .collect()
    };
    let old = world(&(cast.clone() + &tells("db")));
    let closed = tells("db").replace("ingress: [{}]", "ingress: []");
    let new = world(&(cast + &closed));
    let diff = Diff::between(&old, &new).unwrap();
    assert_eq!(
        rows(&diff),
        [
            "- db-0 | db-1 | db-2 | db-3 | web-0 and 2 more | 0.0.0.0/0, ::/0 => db-0 | db-1 | db-2 | db-3: all"
        ]
    );
    assert_eq!(diff.count(Turn::Closed), 4 * 3 + 3 * 4 + 2 * 4);
    assert_eq!(diff.policies.changed.len(), 4);
}

#[test]
fn strangers_are_told_apart_where_either_world_does() {
    let cast = pods("shop", "db", 1);
    let spec = |cidr: &str| {
        format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: {cidr}}}}}], ports: [{{port: 5432}}]}}]}}"
        )
    };
    let old = world(&(cast.clone() + &policy("shop", "a", &spec("10.0.0.0/8"))));
    let new = world(&(cast + &policy("shop", "a", &spec("10.1.0.0/16"))));
    let diff = Diff::between(&old, &new).unwrap();
    assert_eq!(
        rows(&diff),
        ["- 10.0.0.0/8 except 10.1.0.0/16 => db-0: 5432/TCP"]
    );
    assert_eq!(
        serde_json::to_value(&diff).unwrap(),
        serde_json::json!({
            "opened": [],
            "closed": [{
                "from": "10.0.0.0/8 except 10.1.0.0/16",
                "to": "shop/db-0",
                "ports": [{"protocol": "TCP", "port": 5432}],
            }],
            "policies": {"added": [], "removed": [], "changed": ["shop/a"]},
            "pods": {"added": [], "removed": [], "changed": []},
            "namespaces": {"added": [], "removed": [], "changed": []},
            "compared_pods": 1,
        })
    );
}

#[test]
fn families_are_told_apart_where_they_differ() {
    let pod = |name: &str, addresses: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\n\
             metadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}\n\
             status: {{podIPs: [{addresses}]}}\n"
        )
    };
    let cast = pod("a", "{ip: 10.0.0.1}, {ip: 'fd00::1'}")
        + &pod("b", "{ip: 10.0.0.2}, {ip: 'fd00::2'}")
        // Its interface's own address is no second family.
        + &pod("c", "{ip: 10.0.0.3}, {ip: 'fe80::3'}");
    let from = |blocks: &[&str]| {
        let peers: Vec<String> = blocks
            .iter()
            .map(|block| format!("{{ipBlock: {{cidr: '{block}'}}}}"))
            .collect();
        let spec = format!(
            "{{podSelector: {{matchLabels: {{app: b}}}}, ingress: [{{from: [{}], ports: [{{port: 80}}]}}]}}",
            peers.join(", ")
        );
        world(&(cast.clone() + &policy("shop", "b", &spec)))
    };
    let v4 = from(&["10.0.0.1/32", "10.0.0.3/32"]);
    let both = from(&["10.0.0.1/32", "10.0.0.3/32", "fd00::1/128"]);
    let diff = Diff::between(&v4, &both).unwrap();
    assert_eq!(rows(&diff), ["+ a => b: IPv6: 80/TCP"]);
    assert_eq!(diff.count(Turn::Opened), 1);
    assert_eq!(
        serde_json::to_value(&diff).unwrap()["opened"],
        serde_json::json!([{
            "from": "shop/a",
            "to": "shop/b",
            "ports": [{"protocol": "TCP", "port": 80}],
            "family": "IPv6",
        }])
    );
    // A pair is counted once, and named once where both families say the same.
    let none = from(&["192.0.2.1/32"]);
    let diff = Diff::between(&both, &none).unwrap();
    assert_eq!(diff.count(Turn::Closed), 2);
    assert!(
        rows(&diff).contains(&"- a | c => b: 80/TCP".to_owned()),
        "{:?}",
        rows(&diff)
    );
}

#[test]
fn who_is_on_one_side_only_is_named_and_not_compared() {
    let old = world(&pods("shop", "web", 2));
    let new = world(
        &(pods("shop", "web", 1)
            + &pods("shop", "new", 1)
            + &policy("shop", "closed", "{podSelector: {matchLabels: {app: new}}}")
            + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {a: b}}\n\
               ---\napiVersion: v1\nkind: Namespace\nmetadata: {name: bare}\n"),
    );
    let diff = Diff::between(&old, &new).unwrap();
    assert!(diff.is_empty());
    let name = |name: &str| vec![ObjectName::new("shop", name)];
    assert_eq!(
        (diff.pods.added, diff.pods.removed, diff.policies.added),
        (name("new-0"), name("web-1"), name("closed"))
    );
    // A manifest that gives a namespace no label changes nothing of it.
    assert_eq!(diff.namespaces.added, ["shop"]);
}

#[test]
fn the_host_s_addresses_are_told_apart_where_rules_are_asked_about_it() {
    let spec = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.17.0.0/16}}]}]}";
    let mut old = world(&(pods("shop", "db", 1) + &policy("shop", "a", spec)));
    old.host = ["172.17.0.1", "192.0.2.1"]
        .map(|text| text.parse().unwrap())
        .into();
    old.settings.host_ingress = false;
    let mut new = old.clone();
    new.policies.clear();
    let diff = Diff::between(&old, &new).unwrap();
    let from: Vec<String> = diff
        .pairs(Turn::Opened)
        .map(|(from, ..)| from.to_string())
        .collect();
    assert_eq!(
        from,
        ["host 192.0.2.1", "0.0.0.0/0 except 172.17.0.0/16", "::/0"]
    );

    old.settings.host_ingress = true;
    new.settings.host_ingress = true;
    let diff = Diff::between(&old, &new).unwrap();
    assert!(
        diff.pairs(Turn::Opened)
            .all(|(from, ..)| matches!(from, End::Block(_)))
    );
}
