//! What is said of worlds written as manifests: hints, what comes closest, what is suggested.
//! That matches are the verdict's, and that suggestions work, is held on random worlds in
//! `tests/explanations.rs`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use super::*;
use crate::manifest;

/// A world of lines: `pod NAMESPACE/NAME ADDRESS LABELS [PORTS]`, `policy NAMESPACE/NAME SPEC`,
/// `namespace NAME LABELS`; labels, ports and specs in YAML's flow style.
fn world(lines: &str) -> World {
    let document = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let (kind, name) = (words.next().unwrap(), words.next().unwrap());
        let rest = words.next().unwrap_or_default();
        let named = |name: &str| {
            let (namespace, name) = name.split_once('/').unwrap();
            format!("name: {name}, namespace: {namespace}")
        };
        match kind {
            "namespace" => {
                format!(
                    "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {rest}}}"
                )
            }
            "pod" => {
                let (address, rest) = rest.split_once(' ').unwrap();
                let (labels, ports) = rest.split_once(" [").unwrap_or((rest, "]"));
                format!(
                    "apiVersion: v1\nkind: Pod\nmetadata: {{{}, labels: {labels}}}\n\
                     spec: {{containers: [{{name: c, image: i, ports: [{ports}}}]}}\n\
                     status: {{podIPs: [{{ip: '{address}'}}]}}",
                    named(name)
                )
            }
            _ => format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{{}}}\nspec: {rest}",
                named(name)
            ),
        }
    };
    let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
    let documents: Vec<String> = lines.map(document).collect();
    let file = manifest::parse("world.yaml", &documents.join("\n---\n"));
    assert!(file.diagnostics.is_empty(), "{:?}", file.diagnostics);
    World::from_objects(&file.documents)
}

/// What is said of a TCP connection.
fn explanation(world: &World, from: &str, to: &str, port: u16) -> Explanation {
    let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
    explain(world, &from, &to, Protocol::Tcp, port).unwrap()
}

const SHOP: &str = "
    pod shop/db 10.0.0.2 {app: db}
    pod web/front 10.0.0.1 {app: front, track: stable}
    pod web/front-2 10.0.0.3 {app: front, track: canary}
";

/// `shop/db` with one rule for ingress, asked about by `web/front`.
fn ruled(rule: &str) -> Side {
    let policy = format!("policy shop/db {{podSelector: {{}}, ingress: [{rule}]}}");
    explanation(
        &world(&format!("{SHOP}{policy}")),
        "web/front",
        "shop/db",
        80,
    )
    .ingress
}

fn fix(side: &Side) -> String {
    let fix = side
        .nearest
        .as_ref()
        .and_then(|nearest| nearest.fix.clone());
    fix.map_or_else(String::new, |fix| {
        let old = fix.instead_of.unwrap_or_default();
        format!(
            "{}|{}|{:?}|{}|{old}",
            fix.object, fix.field, fix.change, fix.write
        )
    })
}

#[test]
fn the_data_has_every_condition() {
    let side = ruled(
        "{from: [{podSelector: {matchLabels: {app: fronts}}}], ports: [{port: http}, {port: 81, protocol: UDP}]}",
    );
    insta::assert_snapshot!(serde_json::to_string_pretty(&side).unwrap());
}

#[test]
fn a_label_is_read_for_what_was_meant() {
    let labels = |text: &[(&str, &str)]| {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        text.iter().map(own).collect()
    };
    for (wanted, has, slip, like) in [
        (("app", "front"), ("app", "fornt"), true, None),
        (("app", "front"), ("app", "Front"), true, None),
        (("app", "front"), ("app", "back"), false, None),
        (("app", "front"), ("App", "front"), false, Some("App")),
        (
            ("app", "x"),
            ("app.kubernetes.io/name", "x"),
            false,
            Some("app.kubernetes.io/name"),
        ),
        (
            ("app", "x"),
            ("example.com/app", "y"),
            false,
            Some("example.com/app"),
        ),
        (("run", "front"), ("app", "front"), false, Some("app")),
        (("run", "true"), ("debug", "true"), false, None),
        (("run", "1"), ("shard", "1"), false, None),
    ] {
        let requirement = crate::labels::Requirement::equals(wanted.0, wanted.1);
        let missed = LabelMissed::compare(&requirement, &labels(&[has]));
        assert_eq!(missed.slip, slip, "{wanted:?} {has:?}");
        let found = missed.like.as_ref().map(|like| like.key.as_str());
        assert_eq!(found, like, "{wanted:?} {has:?}");
    }
}

#[test]
fn the_smallest_mistake_comes_closest() {
    // Each rule is closer than those before it.
    let rules = [
        "{from: [{podSelector: {matchLabels: {app: x}}}], ports: [{port: 1, protocol: UDP}]}",
        "{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}",
        "{from: [{ipBlock: {cidr: 10.0.0.128/25}}]}",
        "{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/24]}}]}",
        "{from: [{namespaceSelector: {}}], ports: [{port: 81}]}",
        "{from: [{podSelector: {matchLabels: {app: front}}}]}",
        "{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: fornt}}}]}",
    ];
    for last in 0..rules.len() {
        let nearest = ruled(&rules[..=last].join(", ")).nearest.unwrap();
        assert_eq!(nearest.rule, last, "{}", rules[last]);
    }
}

#[test]
fn a_policy_that_all_but_selects_comes_close() {
    let policies = "
        policy shop/closed {podSelector: {}}
        policy shop/bd {podSelector: {matchLabels: {app: bd}}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 80}]}]}
        policy shop/other {podSelector: {matchLabels: {app: cache}}, ingress: [{}]}
    ";
    let side = explanation(
        &world(&format!("{SHOP}{policies}")),
        "web/front",
        "shop/db",
        80,
    )
    .ingress;
    let almost: Vec<&str> = side
        .almost
        .iter()
        .map(|almost| almost.policy.name.as_str())
        .collect();
    assert_eq!(almost, ["bd"]);
    assert_eq!(side.almost[0].rule, Some(0));
    assert!(side.nearest.as_ref().unwrap().not_selected.is_some());
    assert_eq!(
        fix(&side),
        "NetworkPolicy shop/bd|spec.podSelector|Replace|app: db|app: bd"
    );
}

#[test]
fn of_a_rule_and_a_label_the_one_that_stands_alone_is_mended() {
    let slip = "{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: fornt}}}]}";
    assert_eq!(
        fix(&ruled(slip)),
        "NetworkPolicy shop/db|spec.ingress[0].from[0].podSelector|Replace|app: front|app: fornt"
    );
    let another = format!(
        "{SHOP}pod web/meant 10.0.0.4 {{app: fornt}}
        policy shop/db {{podSelector: {{}}, ingress: [{slip}]}}"
    );
    let side = explanation(&world(&another), "web/front", "shop/db", 80).ingress;
    assert_eq!(
        fix(&side),
        "Pod web/front|metadata.labels|Replace|app: fornt|app: front"
    );
}

#[test]
fn a_mend_takes_nothing_from_others() {
    let own = "{from: [{podSelector: {matchLabels: {app: front}}}]}";
    assert_eq!(
        fix(&ruled(own)),
        "NetworkPolicy shop/db|spec.ingress[0].from[0]|Add|namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: web}}|"
    );
    // It selects a Pod in its own Namespace, which would be shut out.
    assert_eq!(
        fix(&ruled("{from: [{podSelector: {}, }], ports: [{port: 80}]}")),
        ""
    );
    // Two things off are no change of a word.
    assert_eq!(
        fix(&ruled(
            "{from: [{podSelector: {matchLabels: {app: front}}}], ports: [{port: 81}]}"
        )),
        ""
    );
}

/// What the ingress of `shop/db` is mended by, for TCP at 80.
fn mended(policy: &str) -> Option<Fix> {
    let world = world(&format!(
        "{SHOP}pod shop/api 10.0.0.4 {{app: api}}\npolicy shop/db {policy}"
    ));
    let side = explanation(&world, "web/front", "shop/db", 80).ingress;
    let nearest = side.nearest?;
    // The field's name in JSON is older than its name here, and scripts read it.
    let json = serde_json::to_value(&nearest).unwrap();
    assert_eq!(json.get("mend").is_some(), nearest.fix.is_some());
    nearest.fix
}

#[test]
fn a_port_is_added_where_the_rule_is_for_this_pair() {
    let front = "{namespaceSelector: {}, podSelector: {matchLabels: {track: stable}}}";
    let fronts = "{namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}";
    let db = "podSelector: {matchLabels: {app: db}}";
    for (subject, peers, port, is_mended) in [
        (db, format!("from: [{front}], "), "{port: 81}", true),
        (db, format!("from: [{front}], "), "{port: x}", true),
        (db, String::new(), "{port: 81}", false),
        (db, String::new(), "{port: 80, protocol: UDP}", false),
        (
            "podSelector: {}",
            format!("from: [{front}], "),
            "{port: 81}",
            false,
        ),
        (
            db,
            "from: [{namespaceSelector: {}}], ".to_owned(),
            "{port: 81}",
            false,
        ),
        // Labels tell `web/front-2` apart.
        (db, format!("from: [{fronts}], "), "{port: 81}", false),
        // It would open to `shop/api`, too.
        (
            db,
            format!("from: [{front}, {{podSelector: {{matchLabels: {{app: api}}}}}}], "),
            "{port: 81}",
            false,
        ),
        (
            db,
            "from: [{ipBlock: {cidr: 10.0.0.0/30}}], ".to_owned(),
            "{port: 81}",
            false,
        ),
        (
            db,
            "from: [{ipBlock: {cidr: 10.0.0.1/32}}], ".to_owned(),
            "{port: 81}",
            true,
        ),
        // A protocol left out is a slip, whatever the peer is.
        (
            "podSelector: {}",
            "from: [{namespaceSelector: {}}], ".to_owned(),
            "{port: 80, protocol: UDP}",
            true,
        ),
    ] {
        let policy = format!("{{{subject}, ingress: [{{{peers}ports: [{port}]}}]}}");
        let expected = is_mended.then_some("{protocol: TCP, port: 80}");
        let fix = mended(&policy);
        assert_eq!(
            fix.as_ref().map(|fix| fix.write.as_str()),
            expected,
            "{policy}"
        );
    }
}

#[test]
fn a_peer_that_matches_every_end_is_not_fixed() {
    // The rule for DNS that many write first.
    let dns = "policy web/dns {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}, {port: 53}]}]}";
    let egress = explanation(
        &world(&format!("{SHOP}{dns}")),
        "web/front",
        "shop/db",
        5432,
    )
    .egress;
    assert_eq!(fix(&egress), "");
    assert!(egress.suggestion.is_some());
}

#[test]
fn a_mend_says_what_else_it_opens() {
    let also = |policy: &str| {
        let fix = mended(policy).unwrap();
        let names = |names: &BTreeSet<ObjectName>| -> Vec<String> {
            names.iter().map(ToString::to_string).collect()
        };
        (names(&fix.also_selects), names(&fix.also_peers))
    };
    let (selects, peers) = also(
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: 80, protocol: UDP}]}]}",
    );
    assert_eq!(selects, ["shop/api"]);
    assert_eq!(peers, ["shop/api", "shop/db", "web/front-2"]);
    let (selects, peers) = also(
        "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: fornt}}}]}]}",
    );
    assert!(selects.is_empty());
    assert_eq!(peers, ["web/front-2"]);
}

#[test]
fn a_policy_of_another_namespace_comes_close_where_it_selects_no_pod() {
    let elsewhere = |lines: &str| {
        let lines = format!("{SHOP}policy shop/closed {{podSelector: {{}}}}\n{lines}");
        let side = explanation(&world(&lines), "web/front", "shop/db", 80).ingress;
        let names = side.almost.iter().map(|almost| almost.policy.to_string());
        (names.collect::<Vec<_>>(), side.nearest)
    };
    let db = "{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 80}]}]}";
    let (names, nearest) = elsewhere(&format!("policy default/db {db}"));
    assert_eq!(names, ["default/db"]);
    let nearest = nearest.unwrap();
    assert_eq!(
        nearest.not_selected,
        Some(NotSelected::Namespace {
            namespace: "default".to_owned(),
            wants_namespace: "shop".to_owned(),
        })
    );
    assert_eq!(nearest.fix, None);
    // It selects a Pod in its own Namespace.
    let own = format!("policy default/db {db}\npod default/db 10.0.1.1 {{app: db}}");
    assert!(elsewhere(&own).0.is_empty());
    // A rule for its own Namespace would be for `shop`.
    let inside = "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}]}]}";
    assert!(elsewhere(&format!("policy web/db {inside}")).0.is_empty());
    // A policy for every Pod fits any Pod.
    assert!(
        elsewhere("policy default/all {podSelector: {}, ingress: [{}]}")
            .0
            .is_empty()
    );
    let many: String = (0..9).map(|n| format!("policy n{n}/db {db}\n")).collect();
    assert_eq!(elsewhere(&many).0.len(), MOST_ELSEWHERE);
}

#[test]
fn a_port_s_name_is_mended_where_the_destination_has_one_like_it() {
    let world = world(
        "pod shop/api 10.0.0.2 {app: api} [{name: http-web, containerPort: 80}]
        pod web/front 10.0.0.1 {app: front}
        policy shop/api {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}], ports: [{port: https-web}]}]}",
    );
    let side = explanation(&world, "web/front", "shop/api", 80).ingress;
    assert_eq!(
        fix(&side),
        "NetworkPolicy shop/api|spec.ingress[0].ports[0].port|Replace|http-web|https-web"
    );
}

#[test]
fn or_and_and_are_told_apart_where_it_matters() {
    let namespaces = "
        namespace web {env: staging}
        namespace shop {env: prod}
    ";
    for (from, reading) in [
        (
            "{podSelector: {matchLabels: {app: x}}}, {namespaceSelector: {matchLabels: {env: staging}}}",
            Some(Reading::Either {
                pods: 0,
                namespaces: 1,
            }),
        ),
        (
            "{namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {app: front}}}",
            Some(Reading::Both { peer: 0 }),
        ),
        (
            "{namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {app: x}}}",
            None,
        ),
        (
            "{namespaceSelector: {matchLabels: {env: staging}}, podSelector: {matchLabels: {app: front}}}",
            None,
        ),
        (
            "{podSelector: {matchLabels: {app: x}}}, {ipBlock: {cidr: 10.0.0.0/8}}",
            None,
        ),
    ] {
        let policy = format!("policy shop/db {{podSelector: {{}}, ingress: [{{from: [{from}]}}]}}");
        let world = world(&format!("{SHOP}{namespaces}{policy}"));
        let side = explanation(&world, "web/front", "shop/db", 80).ingress;
        assert_eq!(side.policies[0].rules[0].reading, reading, "{from}");
    }
}

/// The suggested manifest for a Pod with these labels beside others in its Namespace.
fn suggested(labels: &str, others: &[&str], policy: &str) -> Suggestion {
    let mut lines = format!(
        "pod web/front 10.0.0.1 {{app: front}}
        pod shop/one 10.0.1.1 {labels}\n"
    );
    for (index, labels) in others.iter().enumerate() {
        lines.push_str(&format!("pod shop/other-{index} 10.0.2.{index} {labels}\n"));
    }
    lines.push_str(&format!("policy shop/closed {policy}"));
    let explanation = explanation(&world(&lines), "web/front", "shop/one", 80);
    explanation.ingress.suggestion.unwrap()
}

/// What its podSelector holds.
fn selector(labels: &str, others: &[&str], policy: &str) -> String {
    let yaml = suggested(labels, others, policy).yaml;
    let file = manifest::parse("suggested.yaml", &yaml);
    let manifest::Value::NetworkPolicy(policy) = &file.documents[0].value else {
        panic!("{yaml}");
    };
    policy.subject.to_string()
}

#[test]
fn a_pod_is_selected_by_as_few_labels_as_tell_it_apart() {
    const ALL: &str = "{podSelector: {}}";
    for (labels, others, chosen) in [
        ("{app: a, zone: z}", &["{app: b, zone: z}"][..], "app=a"),
        (
            "{zone: z, app.kubernetes.io/name: a}",
            &[],
            "app.kubernetes.io/name=a",
        ),
        ("{app: a, zone: z}", &["{app: a, zone: w}"], "app=a,zone=z"),
        // Replicas have the same labels: what tells them apart changes with the next rollout.
        (
            "{app: a, pod-template-hash: x1}",
            &["{app: a, pod-template-hash: x2}"],
            "app=a",
        ),
        ("{pod-template-hash: x1}", &["{}"], "pod-template-hash=x1"),
        ("{}", &["{app: b}"], "<none>"),
        ("{flag: 'true', empty: ''}", &["{flag: 'true'}"], "empty="),
    ] {
        assert_eq!(selector(labels, others, ALL), chosen, "{labels}");
    }
}

#[test]
fn no_pod_is_isolated_that_was_not() {
    // The label alone would select the other one too, which no policy isolates.
    for (policy, chosen) in [
        ("{podSelector: {matchLabels: {tier: x}}}", "app=a,tier=x"),
        (
            "{podSelector: {matchExpressions: [{key: legacy, operator: DoesNotExist}]}}",
            "app=a,!legacy",
        ),
        (
            "{podSelector: {matchExpressions: [{key: app, operator: In, values: [a, b]}]}}",
            "app=a",
        ),
        (
            "{podSelector: {matchExpressions: [{key: app, operator: Exists}]}}",
            "app=a",
        ),
    ] {
        assert_eq!(
            selector("{app: a, tier: x}", &[], policy),
            chosen,
            "{policy}"
        );
    }
}

#[test]
fn a_suggestion_says_for_whom_else_it_is() {
    let suggestion = suggested("{}", &["{app: b}"], "{podSelector: {}}");
    assert!(suggestion.unlabelled && !suggestion.unlabelled_peer);
    let also: Vec<String> = suggestion
        .also_selects
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(also, ["shop/other-0"]);
    assert!(suggestion.also_peers.is_empty());
}

#[test]
fn a_name_that_is_taken_is_not_taken_again() {
    let more = "
        policy shop/closed {podSelector: {}}
        policy shop/allow-db-from-front {podSelector: {matchLabels: {app: x}}}
    ";
    let side = explanation(&world(&format!("{SHOP}{more}")), "web/front", "shop/db", 80).ingress;
    assert_eq!(side.suggestion.unwrap().name.name, "allow-db-from-front-2");
}

#[test]
fn no_manifest_names_port_0() {
    let world = world(&format!("{SHOP}policy shop/closed {{podSelector: {{}}}}"));
    assert!(
        explanation(&world, "web/front", "shop/db", 0)
            .ingress
            .suggestion
            .is_none()
    );
    assert!(
        explanation(&world, "web/front", "shop/db", 1)
            .ingress
            .suggestion
            .is_some()
    );
}

#[test]
fn hints_are_given_where_they_mean_something() {
    let closed = "policy web/closed {podSelector: {}, policyTypes: [Egress]}";
    let dns = "policy web/dns {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}]}]}";
    let hints = |more: &str, from: &str, to: &str, port| {
        explanation(&world(&format!("{SHOP}{more}")), from, to, port).hints
    };
    assert_eq!(hints("", "web/front", "shop/db", 80), []);
    assert_eq!(hints(closed, "web/front", "shop/db", 80), [Hint::NoDns]);
    assert_eq!(
        hints(closed, "web/front", "shop/db", 53),
        [Hint::ResolversNeedBoth]
    );
    assert_eq!(hints(closed, "web/front", "web/front", 80), []);
    let both = format!("{closed}\n{dns}");
    assert_eq!(hints(&both, "web/front", "shop/db", 80), []);
    assert_eq!(
        hints("", "web/front", "ip:2001:db8::1", 80),
        [Hint::NoCommonFamily]
    );

    let mut world = world(&format!(
        "{SHOP}{closed}\npolicy shop/closed {{podSelector: {{}}}}"
    ));
    let host = "192.0.2.1".parse().unwrap();
    world.host.insert(host);
    let ip = "ip:192.0.2.1";
    assert_eq!(explanation(&world, ip, "shop/db", 80).hints, []);
    world.settings.host_ingress = false;
    world.settings.host_egress = false;
    assert_eq!(
        explanation(&world, ip, "shop/db", 80).hints,
        [Hint::HostIngressSetting]
    );
    assert_eq!(
        explanation(&world, "web/front", ip, 80).hints,
        [Hint::HostEgressSetting, Hint::NoDns]
    );
}
