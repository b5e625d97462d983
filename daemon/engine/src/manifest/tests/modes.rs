//! `netpold.io/mode`: what it says where it is read, and what a person reads where it is not.

use super::*;
use crate::policy::Mode;

fn object(kind: &str, annotations: &str) -> String {
    let (version, spec) = match kind {
        "NetworkPolicy" => ("networking.k8s.io/v1", "spec: {podSelector: {}}\n"),
        _ => ("v1", ""),
    };
    format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x, annotations: {annotations}}}\n{spec}"
    )
}

#[test]
fn a_mode_is_read_where_it_means_something() {
    for (annotations, mode) in [
        ("{}", Mode::Enforce),
        ("{netpold.io/mode: enforce}", Mode::Enforce),
        ("{netpold.io/mode: audit}", Mode::Audit),
        ("{example.com/mode: audit}", Mode::Enforce),
    ] {
        let text = [
            object("NetworkPolicy", annotations),
            object("Namespace", annotations),
        ];
        let file = clean(&text.join("---\n"));
        let world = assemble([&file]).world();
        let policy = world.policies.values().next().unwrap();
        assert_eq!(policy.mode, mode, "{annotations}");
        assert_eq!(world.audited.contains("x"), mode == Mode::Audit);
        assert_eq!(world.enforces(policy), mode == Mode::Enforce);
    }
}

#[test]
fn a_word_that_is_no_mode_is_told() {
    let cases = [
        (
            "a slip",
            object("NetworkPolicy", "{netpold.io/mode: audti}"),
        ),
        (
            "another word",
            object("Namespace", "{netpold.io/mode: dry-run}"),
        ),
        (
            "another case",
            object("Namespace", "{netpold.io/mode: Audit}"),
        ),
        ("nothing", object("NetworkPolicy", "{netpold.io/mode: ''}")),
        (
            "a truth",
            object("NetworkPolicy", "{netpold.io/mode: true}"),
        ),
        ("of a Pod", object("Pod", "{netpold.io/mode: audit}")),
    ];
    insta::assert_snapshot!(messages::report(&cases));
}
