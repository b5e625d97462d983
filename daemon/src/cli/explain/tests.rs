//! Whole answers, as users read them: one typical situation each.

#![allow(clippy::unwrap_used)]

use netpol_engine::manifest;
use netpol_engine::policy::Mode;
use netpol_engine::world::World;

use netpol_engine::explain::explain;

use super::*;

/// Who is there in every situation.
const PODS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: web, labels: {env: staging}}
---
apiVersion: v1
kind: Pod
metadata: {name: frontend, namespace: web, labels: {app: frontend, tier: web}}
status: {podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: frontend-2, namespace: web, labels: {app: frontend, tier: web}}
status: {podIPs: [{ip: 10.0.0.7}]}
---
apiVersion: v1
kind: Pod
metadata: {name: report, namespace: web, labels: {app: reports}}
status: {podIPs: [{ip: 10.0.0.8}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db, app.kubernetes.io/part-of: shop}}
spec: {containers: [{name: c, image: i, ports: [{name: sql, containerPort: 5432}]}]}
status: {podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: api, namespace: shop, labels: {app: api}}
spec: {containers: [{name: c, image: i, ports: [{name: web, containerPort: 8080}]}]}
status: {podIPs: [{ip: 10.0.0.3}]}
---
apiVersion: v1
kind: Pod
metadata: {name: bare, namespace: shop}
status: {podIPs: [{ip: 10.1.0.4}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: shop, labels: {app: agent}}
spec: {hostNetwork: true, containers: [{name: c, image: i}]}
status: {podIPs: [{ip: 192.0.2.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: dns, namespace: kube-system, labels: {k8s-app: kube-dns}, annotations: {netpold.io/external: 'true'}}
status: {podIPs: [{ip: 10.0.0.53}]}
";

/// The policies of a situation: name, and `spec` in one line, all in `shop`.
fn world(policies: &[(&str, &str)]) -> World {
    let mut text = PODS.to_owned();
    for (name, spec) in policies {
        let (namespace, name) = name.split_once('/').unwrap_or(("shop", name));
        text.push_str(&format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
             metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
        ));
    }
    let file = manifest::parse("situation.yaml", &text);
    assert!(file.diagnostics.is_empty(), "{:?}", file.diagnostics);
    World::from_objects(&file.documents)
}

/// What is said of `FROM TO PORT[/PROTOCOL]`, without colour.
fn answer(world: &World, question: &str) -> String {
    let words: Vec<&str> = question.split(' ').collect();
    let (port, protocol) = words[2].split_once('/').unwrap_or((words[2], "TCP"));
    let explanation = explain(
        world,
        &words[0].parse().unwrap(),
        &words[1].parse().unwrap(),
        protocol.parse().unwrap(),
        port.parse().unwrap(),
    )
    .unwrap();
    let mut out = Vec::new();
    text::write(&mut out, &explanation).unwrap();
    let text = anstream::adapter::strip_str(&String::from_utf8(out).unwrap()).to_string();
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "too wide: {line}");
        assert_eq!(line, line.trim_end(), "ends in a space");
    }
    text
}

macro_rules! situation {
    ($name:ident, $question:literal, [$(($policy:literal, $spec:literal)),* $(,)?]) => {
        #[test]
        fn $name() {
            let world = world(&[$(($policy, $spec)),*]);
            insta::assert_snapshot!(stringify!($name), answer(&world, $question));
        }
    };
}

situation!(nothing_is_isolated, "web/frontend shop/db 5432", []);

situation!(
    allowed_by_two_rules,
    "web/frontend shop/db 5432",
    [
        ("closed", "{podSelector: {}}"),
        (
            "db",
            "{podSelector: {matchLabels: {app: db}}, ingress: [
               {from: [{podSelector: {}}], ports: [{port: 1}]},
               {from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: sql}]}]}"
        ),
        (
            "web",
            "{podSelector: {matchLabels: {app: db}}, ingress: [
               {from: [{namespaceSelector: {}, podSelector: {matchLabels: {tier: web}}}]}]}"
        ),
    ]
);

situation!(
    a_slip_in_the_rule,
    "web/frontend shop/db 5432",
    [(
        "db",
        "{podSelector: {matchLabels: {app: db}}, ingress: [
           {from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: fronted}}}],
            ports: [{port: 5432}]}]}"
    )]
);

situation!(
    a_slip_in_the_label,
    "web/report shop/db 5432",
    [(
        "db",
        "{podSelector: {matchLabels: {app: db}}, ingress: [
           {from: [{namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {app: report}}}]},
           {from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: report}}}],
            ports: [{port: 5432}]}]}"
    )]
);

situation!(
    the_key_is_spelled_otherwise,
    "web/frontend shop/db 5432",
    [(
        "db",
        "{podSelector: {matchLabels: {App: db}}, ingress: [
           {from: [{namespaceSelector: {}, podSelector: {matchLabels: {app.kubernetes.io/name: frontend}}}]}]}"
    ), (
        "closed",
        "{podSelector: {matchLabels: {app: db}}, ingress: [
           {from: [{namespaceSelector: {}, podSelector: {matchLabels: {app.kubernetes.io/name: frontend}}}]}]}"
    )]
);

situation!(
    the_namespace_selector_is_left_out,
    "web/frontend shop/db 5432",
    [(
        "db",
        "{podSelector: {matchLabels: {app: db}}, ingress: [
           {from: [{podSelector: {matchLabels: {app: frontend}}}], ports: [{port: 5432}]}]}"
    )]
);

situation!(
    two_entries_are_either,
    "web/report shop/db 5432",
    [(
        "db",
        "{podSelector: {matchLabels: {app: db}}, ingress: [
           {from: [{podSelector: {matchLabels: {app: frontend}}}, {namespaceSelector: {matchLabels: {env: staging}}}]}]}"
    )]
);

situation!(
    one_entry_is_both,
    "web/frontend shop/db 5432",
    [(
        "db",
        "{podSelector: {matchLabels: {app: db}}, ingress: [
           {from: [{namespaceSelector: {matchLabels: {env: prod}}, podSelector: {matchLabels: {app: frontend}}}]}]}"
    )]
);

situation!(
    the_wrong_protocol,
    "web/frontend shop/api 8080/UDP",
    [(
        "api",
        "{podSelector: {matchLabels: {app: api}}, ingress: [
           {from: [{namespaceSelector: {}}], ports: [{port: 8080}, {port: 9000, endPort: 9010, protocol: UDP}]}]}"
    )]
);

situation!(
    a_port_s_name,
    "web/frontend shop/api 8080",
    [(
        "api",
        "{podSelector: {matchLabels: {app: api}}, ingress: [
           {from: [{namespaceSelector: {}}], ports: [{port: http}]}]}"
    )]
);

situation!(
    egress_is_closed_and_dns_with_it,
    "shop/api kube-system/dns 53/UDP",
    [
        ("closed", "{podSelector: {}, policyTypes: [Egress]}"),
        (
            "db",
            "{podSelector: {matchLabels: {app: api}}, policyTypes: [Egress], egress: [
               {to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}]}]}"
        ),
    ]
);

situation!(
    dns_was_forgotten,
    "shop/api shop/db 5432",
    [(
        "db",
        "{podSelector: {matchLabels: {app: api}}, policyTypes: [Egress], egress: [
           {to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}]}]}"
    )]
);

situation!(
    an_address_in_an_except,
    "shop/bare ip:10.1.2.3 443",
    [(
        "inside",
        "{podSelector: {}, policyTypes: [Egress], egress: [
           {to: [{ipBlock: {cidr: 192.0.2.0/24}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}"
    )]
);

situation!(
    the_host_always_passes,
    "shop/agent shop/db 5432",
    [("closed", "{podSelector: {}}")]
);

situation!(
    both_sides_deny,
    "web/frontend shop/bare 80",
    [
        ("closed", "{podSelector: {}}"),
        (
            "web/closed",
            "{podSelector: {matchExpressions: [{key: tier, operator: Exists}]}, policyTypes: [Egress]}"
        ),
    ]
);

situation!(
    the_policy_is_for_another_label,
    "web/frontend shop/db 5432",
    [
        ("closed", "{podSelector: {}}"),
        (
            "db",
            "{podSelector: {matchLabels: {app.kubernetes.io/name: db}}, ingress: [
               {from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: web}}}]}]}"
        ),
    ]
);

situation!(
    nearly_isolated,
    "web/frontend shop/db 5432",
    [(
        "db",
        "{podSelector: {matchLabels: {app: bd, app.kubernetes.io/part-of: shop}}}"
    )]
);

situation!(
    a_stranger_and_labels,
    "ip:203.0.113.7 shop/api 8080",
    [(
        "api",
        "{podSelector: {matchLabels: {app: api}}, ingress: [
           {from: [{podSelector: {}}, {ipBlock: {cidr: 198.51.100.0/24}}], ports: [{port: web}]},
           {from: [{ipBlock: {cidr: 203.0.113.0/30}}], ports: [{port: web}]}]}"
    )]
);

situation!(
    an_endpoint_and_itself,
    "shop/db ip:10.0.0.2 1",
    [("closed", "{podSelector: {}}")]
);

// The first suggestion must not open a port to every peer.
situation!(
    the_rule_for_dns_is_all_there_is,
    "web/frontend shop/db 5432",
    [(
        "web/dns",
        "{podSelector: {}, policyTypes: [Egress], egress: [
           {ports: [{port: 53, protocol: UDP}, {port: 53}]}]}"
    )]
);

situation!(
    both_sides_deny_and_one_has_a_slip,
    "web/frontend shop/db 5432",
    [
        ("web/closed", "{podSelector: {}, policyTypes: [Egress]}"),
        (
            "db",
            "{podSelector: {matchLabels: {app: db}}, ingress: [
               {from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: fronted}}}]}]}"
        ),
    ]
);

situation!(
    the_policy_is_in_another_namespace,
    "web/frontend shop/db 5432",
    [
        ("closed", "{podSelector: {}}"),
        (
            "default/db",
            "{podSelector: {matchLabels: {app: db}}, ingress: [
               {from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: frontend}}}]}]}"
        ),
    ]
);

#[test]
fn of_many_policies_the_nearest_are_shown() {
    let far = |index: usize| {
        let spec = format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: x{index}}}}}}}], \
             ports: [{{port: 1}}]}}]}}"
        );
        (format!("p{index}"), spec)
    };
    let mut policies: Vec<(String, String)> = (1..=39).map(far).collect();
    policies.push((
        "written-last".to_owned(),
        "{podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: \
         {app: fronted}}}]}]}"
            .to_owned(),
    ));
    let policies: Vec<(&str, &str)> = policies
        .iter()
        .map(|(name, spec)| (name.as_str(), spec.as_str()))
        .collect();
    insta::assert_snapshot!(answer(&world(&policies), "web/frontend shop/db 5432"));
}

#[test]
fn the_host_is_named_by_a_block_where_policy_decides() {
    let mut world = world(&[("closed", "{podSelector: {}}")]);
    world.settings.host_ingress = false;
    insta::assert_snapshot!(answer(&world, "shop/agent shop/db 5432"));
}

/// As if the policy, or `shop`, were annotated.
fn audited(policy: Option<&str>, policies: &[(&str, &str)]) -> World {
    let mut world = world(policies);
    match policy {
        Some(name) => {
            let name = format!("shop/{name}").parse().unwrap();
            let policy = world.policies.get_mut(&name).unwrap();
            std::sync::Arc::make_mut(policy).mode = Mode::Audit;
        }
        None => {
            world.audited.insert("shop".to_owned());
        }
    }
    world
}

const FROM_API: (&str, &str) = (
    "from-api",
    "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: api}}}]}]}",
);

#[test]
fn an_audited_policy_would_deny_it() {
    let world = audited(Some("from-api"), &[FROM_API]);
    insta::assert_snapshot!(answer(&world, "web/frontend shop/db 5432"));
}

#[test]
fn an_audited_policy_stands_beside_one_that_denies() {
    let closed = ("closed", "{podSelector: {}}");
    let world = audited(Some("from-api"), &[FROM_API, closed]);
    insta::assert_snapshot!(answer(&world, "shop/api shop/db 5432"));
}

#[test]
fn in_an_audited_namespace_nothing_is_denied() {
    let closed = ("closed", "{podSelector: {}}");
    insta::assert_snapshot!(answer(
        &audited(None, &[closed]),
        "web/frontend shop/db 5432"
    ));
}

#[test]
fn the_host_passes_what_is_audited_too() {
    let world = audited(Some("from-api"), &[FROM_API]);
    insta::assert_snapshot!(answer(&world, "shop/agent shop/db 5432"));
}

#[test]
fn families_that_do_not_meet() {
    let mut world = world(&[("closed", "{podSelector: {matchLabels: {app: db}}}")]);
    let six = ["fd00::1".parse().unwrap()].into();
    let frontend = "web/frontend".parse().unwrap();
    world.pods.get_mut(&frontend).unwrap().addresses = six;
    insta::assert_snapshot!(answer(&world, "web/frontend shop/db 5432"));
}

#[test]
fn what_is_hostile_stays_on_its_line() {
    let mut world = world(&[(
        "db",
        "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: api}}}]}]}",
    )]);
    let api = world.pods.get_mut(&"shop/api".parse().unwrap()).unwrap();
    api.labels
        .insert("app".to_owned(), "a\x1b[2J\nb".to_owned());
    let text = answer(&world, "shop/api shop/db 5432");
    assert!(text.contains(r"has app=a\u{1b}[2J\u{a}b"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}
