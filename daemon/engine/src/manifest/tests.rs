//! Manifests as people write them, and what they are told.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::diagnostic::{Severity, rule};
use crate::policy::Policy;

#[path = "../../tests/support/alike.rs"]
mod alike;
mod corpus;
mod kinds;
mod messages;
mod mistakes;
mod modes;
mod pods;
mod policies;
mod properties;
#[path = "../../tests/support/reference/mod.rs"]
#[allow(dead_code, reason = "only its readings are compared here")]
mod reference;
mod validity;
mod yaml;

/// A file that has no finding at all.
fn accepted(text: &str) -> File {
    let file = parse("a.yaml", text);
    assert_eq!(file.diagnostics, [], "{text}");
    file
}

/// The same, read alike by another reader: for text on which YAML's readers agree.
fn clean(text: &str) -> File {
    let file = accepted(text);
    alike::compare(&file, text).unwrap_or_else(|error| panic!("{error}\nof\n{text}"));
    file
}

/// A NetworkPolicy `ns/p` with this spec, as flow YAML.
fn with_spec(spec: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: ns}}\nspec: {spec}\n"
    )
}

/// The policy of such a spec.
fn policy(spec: &str) -> Policy {
    let mut file = clean(&with_spec(spec));
    match file.documents.remove(0).value {
        Value::NetworkPolicy(policy) => Arc::unwrap_or_clone(policy),
        other => panic!("{other:?}"),
    }
}
