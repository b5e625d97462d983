//! The pages: each is documentation and test. What stands below *Before* is found by the rule that
//! the page is of, and nothing is found in what stands below *After*.
#![allow(clippy::unwrap_used)]

use super::rules::{ALL, READING, every, page};
use super::*;
use crate::diagnostic::{Diagnostic, render};
use crate::manifest::parse;

/// The manifests below a heading.
fn manifests<'p>(page: &'p str, heading: &str) -> &'p str {
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let (_, rest) = rest.split_once("```yaml\n").unwrap();
    rest.split_once("```\n").unwrap().0
}

fn checked(text: &str) -> Vec<Diagnostic> {
    check(&[parse("policies.yaml", text)], |_| Some(text))
}

fn codes(text: &str) -> Vec<&'static str> {
    checked(text).iter().map(|found| found.rule).collect()
}

/// All codes that have a page, with it.
fn pages() -> impl Iterator<Item = (&'static str, &'static str)> {
    let codes = READING.iter().map(|(code, _)| *code);
    codes
        .chain(ALL.iter().map(|rule| rule.code))
        .map(|code| (code, page(code).unwrap()))
}

#[test]
fn every_page_shows_what_its_rule_finds_and_what_it_does_not() {
    let mut wrong = Vec::new();
    for (code, page) in pages() {
        if !page.starts_with(&format!("# {code}\n\n")) || !page.contains("\n## Why\n\n") {
            wrong.push(format!("{code}: the page has no title, or no `Why`"));
        }
        let before = checked(manifests(page, "Before"));
        if !before.iter().any(|found| found.rule == code) {
            wrong.push(format!("{code}: not found in `Before`: {before:#?}"));
        }
        if before.iter().any(Diagnostic::is_error) {
            wrong.push(format!("{code}: `Before` is not even valid: {before:#?}"));
        }
        let after = checked(manifests(page, "After"));
        if !after.is_empty() {
            wrong.push(format!("{code}: found in `After`: {after:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_warning_has_a_page() {
    for rule in every() {
        let is_warning = rule.severity == crate::diagnostic::Severity::Warning;
        assert_eq!(page(rule.code).is_some(), is_warning, "{}", rule.code);
    }
}

#[test]
fn what_a_person_sees() {
    let mut seen = String::new();
    for (_, page) in pages() {
        let text = manifests(page, "Before");
        for found in checked(text) {
            seen.push_str(&render(&found, text, false));
            seen.push_str("\n\n");
        }
    }
    insta::assert_snapshot!(seen);
}

#[test]
fn every_finding_is_placed_at_its_field() {
    for rule in ALL {
        let text = manifests(page(rule.code).unwrap(), "Before");
        for found in checked(text).iter().filter(|found| found.rule == rule.code) {
            assert!(found.length > 0 && found.line > 1, "{found}");
        }
    }
}

#[test]
fn an_annotation_silences_a_rule_on_its_object_alone() {
    for rule in ALL {
        let text = manifests(page(rule.code).unwrap(), "Before");
        let name = checked(text)
            .iter()
            .find_map(|found| {
                (found.rule == rule.code)
                    .then(|| found.name.clone())
                    .flatten()
            })
            .unwrap();
        let silenced = text.replace(
            &format!("metadata: {{name: {name}, namespace: shop}}\nspec:"),
            &format!(
                "metadata: {{name: {name}, namespace: shop, annotations: {{{ANNOTATION}: \"other, {}\"}}}}\nspec:",
                rule.code
            ),
        );
        assert_ne!(silenced, text);
        let found = checked(&silenced);
        let again =
            |found: &Diagnostic| found.rule == rule.code && found.name.as_ref() == Some(&name);
        assert!(!found.iter().any(again), "{}: {found:?}", rule.code);
        assert!(
            found.iter().any(|found| found.rule == "unknown-rule"),
            "`other` is no rule"
        );
    }
}

/// Policies of Namespace `shop`, each as its spec in flow style, beside Pods `web`, `db` and, in
/// `jobs`, `batch`.
fn shop(specs: &[&str]) -> String {
    let pods = [("web", "shop", 1), ("db", "shop", 2), ("batch", "jobs", 3)].map(
        |(name, namespace, last)| {
            format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}}}}}, \
                 spec: {{containers: [{{name: c, ports: [{{name: http, containerPort: 80}}]}}]}}, \
                 status: {{podIP: 10.0.0.{last}}}}}\n---\n"
            )
        },
    );
    let policies = specs.iter().enumerate().map(|(number, spec)| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, \
             metadata: {{name: p{number}, namespace: shop}}, spec: {{{spec}}}}}\n---\n"
        )
    });
    pods.into_iter().chain(policies).collect()
}

#[test]
fn what_is_meant_is_not_found_and_what_is_not_is() {
    let dns = "podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 53}, {port: 53, protocol: UDP}]}]";
    let db = "podSelector: {matchLabels: {app: db}}";
    let web = "podSelector: {matchLabels: {app: web}}";
    let both = "podSelector: {}, policyTypes: [Ingress, Egress]";
    let denies_ingress = "podSelector: {}, policyTypes: [Ingress]";
    let spec = |subject: &str, rest: &str| format!("{subject}, {rest}");
    for (why, specs, expected) in [
        (
            "the usual pair",
            vec![both.to_owned(), dns.to_owned()],
            &[][..],
        ),
        (
            "another policy names the other direction",
            vec![denies_ingress.to_owned(), dns.to_owned()],
            &[],
        ),
        (
            "what is for some Pods is no default",
            vec![spec(db, "policyTypes: [Ingress]")],
            &[],
        ),
        (
            "no policy does",
            vec![denies_ingress.to_owned()],
            &["one-direction"],
        ),
        (
            "a policy of fewer Pods does not",
            vec![
                denies_ingress.to_owned(),
                dns.replacen("podSelector: {}", db, 1),
            ],
            &["one-direction"],
        ),
        (
            "said once, where most is isolated",
            vec![
                spec(db, "policyTypes: [Egress]"),
                both.to_owned(),
                spec(web, "policyTypes: [Egress]"),
            ],
            &["dns-missing"],
        ),
        (
            "DNS by UDP alone",
            vec![spec(
                db,
                "policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}]}]",
            )],
            &["dns-missing"],
        ),
        (
            "every port of a Pod is not DNS",
            vec![spec(
                db,
                "policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: web}}}]}]",
            )],
            &["dns-missing"],
        ),
        (
            "every port of any Namespace may be",
            vec![spec(
                db,
                "policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{protocol: UDP}, {protocol: TCP}]}]",
            )],
            &[],
        ),
        (
            "DNS from a policy with other labels for the same Pods",
            vec![
                spec(db, "policyTypes: [Egress], egress: [{ports: [{port: 80}]}]"),
                dns.replacen(
                    "podSelector: {}",
                    "podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}",
                    1,
                ),
            ],
            &[],
        ),
        (
            "a rule for ports alone",
            vec![spec(db, "ingress: [{ports: [{port: 80}]}]")],
            &[],
        ),
        (
            "everything",
            vec![spec(db, "ingress: [{}]")],
            &["opens-everything"],
        ),
        (
            "every Pod there is",
            vec![spec(db, "ingress: [{from: [{namespaceSelector: {}}]}]")],
            &["opens-everything"],
        ),
        (
            "every Pod of the Namespace",
            vec![spec(db, "ingress: [{from: [{podSelector: {}}]}]")],
            &[],
        ),
        (
            "two peers, and nobody for both at once",
            vec![spec(
                db,
                "ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: jobs}}}, {podSelector: {matchLabels: {app: web}}}]}]",
            )],
            &[],
        ),
        (
            "the order of the two does not matter",
            vec![spec(
                db,
                "ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [batch, web]}]}}, {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: jobs}}}]}]",
            )],
            &["or-not-and"],
        ),
        (
            "a resolver without its Namespace",
            vec![spec(
                db,
                "policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}]",
            )],
            &["dns-missing", "peer-matches-nobody"],
        ),
        (
            "DNS to everybody but a resolver",
            vec![spec(
                db,
                "policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}]",
            )],
            &["dns-missing"],
        ),
        (
            "a resolver of one's own",
            vec![spec(
                db,
                "policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}]",
            )],
            &[],
        ),
        (
            "every Namespace, and a Pod by itself",
            vec![spec(
                db,
                "policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}, {podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}]",
            )],
            &["or-not-and"],
        ),
        (
            "the two stand apart",
            vec![spec(
                db,
                "ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: jobs}}}, {ipBlock: {cidr: 192.0.2.0/24}}, {podSelector: {matchLabels: {app: batch}}}]}]",
            )],
            &["or-not-and"],
        ),
        (
            "the host's resolvers are there",
            vec![spec(
                db,
                "policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: dns, protocol: UDP}, {port: dns-tcp}]}]",
            )],
            &[],
        ),
        (
            "the later of two that say the same",
            vec![
                spec(
                    db,
                    "ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]",
                ),
                spec(
                    db,
                    "ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]",
                ),
            ],
            &["changes-nothing"],
        ),
        (
            "a rule within another of its policy",
            vec![spec(
                db,
                "ingress: [{from: [{podSelector: {}}]}, {from: [{podSelector: {matchLabels: {app: web}}}]}]",
            )],
            &["changes-nothing"],
        ),
        (
            "a net without rules is there to isolate",
            vec![
                both.to_owned(),
                dns.to_owned(),
                spec(db, "policyTypes: [Ingress]"),
            ],
            &[],
        ),
        (
            "a rule of the same Pods for other ports",
            vec![
                spec(db, "ingress: [{ports: [{port: 80}]}]"),
                spec(db, "ingress: [{ports: [{port: 81}]}]"),
            ],
            &[],
        ),
        (
            "a wide rule beside narrow ones of the other side",
            vec![
                spec(
                    web,
                    "policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}, {ports: [{port: 53}, {port: 53, protocol: UDP}]}]",
                ),
                spec(
                    db,
                    "ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]",
                ),
            ],
            &[],
        ),
        (
            "a wide rule that opens nothing, and a narrow one that does not either",
            vec![
                spec(
                    web,
                    "policyTypes: [Egress], egress: [{to: [{podSelector: {matchExpressions: []}}], ports: [{port: 81}]}, {ports: [{port: 53}, {port: 53, protocol: UDP}]}]",
                ),
                spec(
                    db,
                    "ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}]",
                ),
            ],
            &["one-sided", "one-sided"],
        ),
        (
            "a block without a Pod in it",
            vec![spec(
                db,
                "ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]",
            )],
            &[],
        ),
        (
            "one Pod's address",
            vec![spec(
                db,
                "ingress: [{from: [{ipBlock: {cidr: 10.0.0.3/32}}]}]",
            )],
            &["block-covers-pods"],
        ),
        (
            "a name that the Pods have",
            vec![spec(db, "ingress: [{ports: [{port: http}]}]")],
            &[],
        ),
        (
            "a policy for nobody",
            vec![
                "podSelector: {matchLabels: {app: bd}}, ingress: [{ports: [{port: http}]}]"
                    .to_owned(),
            ],
            &["selects-nobody"],
        ),
    ] {
        let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
        assert_eq!(codes(&shop(&specs)), expected, "{why}: {specs:?}");
    }
}

#[test]
fn a_policy_by_itself_is_held_against_no_pods() {
    let text = shop(&[
        "podSelector: {matchLabels: {app: gone}}, ingress: [{from: [{podSelector: {matchLabels: {app: gone}}}]}]",
    ]);
    let (_, alone) = text.split_once("{apiVersion: networking").unwrap();
    assert_eq!(codes(&format!("{{apiVersion: networking{alone}")), [""; 0]);
    assert_eq!(codes(&text), ["selects-nobody", "peer-matches-nobody"]);
}

#[test]
fn codes_are_sorted_and_unique() {
    for codes in [
        ALL.iter().map(|rule| rule.code).collect::<Vec<_>>(),
        every().iter().map(|rule| rule.code).collect(),
    ] {
        assert!(codes.is_sorted_by(|one, two| one < two), "{codes:?}");
    }
}

#[test]
fn an_applications_policies_are_held_against_its_workloads() {
    let policy = |app: &str, port: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: web, namespace: shop}}\n\
             spec: {{podSelector: {{matchLabels: {{app: {app}}}}}, ingress: [{{ports: [{{port: {port}}}]}}]}}\n---\n\
             apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: front, namespace: shop}}\n\
             spec:\n  template:\n    metadata: {{labels: {{app: frontend}}}}\n    \
             spec: {{containers: [{{name: c, ports: [{{name: http, containerPort: 80}}]}}]}}\n"
        )
    };
    for (app, port, expected) in [
        ("frontend", "http", &[][..]),
        ("fronted", "http", &["selects-nobody"]),
        // Some operator may make such Pods.
        ("database", "sql", &[]),
        ("frontend", "https", &["port-name-unknown"]),
    ] {
        assert_eq!(codes(&policy(app, port)), expected, "{app} {port}");
    }
}
