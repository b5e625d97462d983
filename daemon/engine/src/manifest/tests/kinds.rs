//! Kinds, Lists, and what a document may be.

use super::*;

fn ids(file: &File) -> Vec<String> {
    file.documents
        .iter()
        .map(|object| object.id().to_string())
        .collect()
}

#[test]
fn lists_of_every_kind() {
    for (text, expected) in [
        (
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n- {apiVersion: v1, kind: Pod, metadata: {name: b}}\n",
            &["Namespace a", "Pod default/b"][..],
        ),
        (
            "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems: []\n",
            &[],
        ),
        ("apiVersion: v1\nkind: List\nitems: null\n", &[]),
        (
            "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a}\n- metadata: {name: b, namespace: ns}\n",
            &["Pod default/a", "Pod ns/b"],
        ),
        (
            "apiVersion: v1\nkind: NamespaceList\nitems:\n- metadata: {name: a}\n",
            &["Namespace a"],
        ),
        (
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems:\n- metadata: {name: a}\n  spec: {podSelector: {}}\n",
            &["NetworkPolicy default/a"],
        ),
        (
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Namespace, metadata: {name: a}}]}\n",
            &["Namespace a"],
        ),
    ] {
        assert_eq!(ids(&clean(text)), expected, "{text}");
    }
}

#[test]
fn lists_in_lists_end_somewhere() {
    let mut text = String::from("{}");
    for _ in 0..20 {
        text = format!("{{apiVersion: v1, kind: List, items: [{text}]}}");
    }
    assert_eq!(parse("a.yaml", &text).diagnostics[0].rule, rule::LIMIT);
}

#[test]
fn an_item_that_is_wrong_leaves_its_neighbours() {
    let file = parse(
        "a.yaml",
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: A}}\n- {apiVersion: v1, kind: Namespace, metadata: {name: b}}\n",
    );
    assert_eq!(ids(&file), ["Namespace b"]);
    let found = &file.diagnostics[0];
    assert_eq!((found.line, found.name.as_deref()), (4, Some("A")));
    assert_eq!(found.field.as_deref(), Some("metadata.name"));
}

#[test]
fn other_kinds_are_named_and_passed_over() {
    let file = parse(
        "a.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {x: 1}\n",
    );
    assert!(file.is_accepted() && file.documents.is_empty() && !file.is_blank());
    let found = &file.diagnostics[0];
    assert_eq!(found.severity, Severity::Warning);
    assert_eq!(
        (
            found.kind.as_deref(),
            found.namespace.as_deref(),
            found.name.as_deref()
        ),
        (Some("Deployment"), Some("shop"), Some("web"))
    );
}

#[test]
fn an_old_network_policy_is_never_passed_over() {
    for version in [
        "extensions/v1beta1",
        "networking.k8s.io/v1beta1",
        "v1",
        "networking/v1",
    ] {
        let file = parse(
            "a.yaml",
            &format!("apiVersion: {version}\nkind: NetworkPolicy\nmetadata: {{name: a}}\n"),
        );
        assert!(!file.is_accepted(), "{version}");
    }
}

#[test]
fn positions_are_those_of_the_object() {
    let file = clean(
        "# a\n---\n# b\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\napiVersion: v1\nkind: List\nitems:\n  - kind: Namespace\n    apiVersion: v1\n    metadata: {name: b}\n",
    );
    let places: Vec<_> = file
        .documents
        .iter()
        .map(|o| (o.position.line, o.position.column))
        .collect();
    assert_eq!(places, [(4, 1), (11, 5)]);
}

#[test]
fn what_the_api_server_adds_is_accepted() {
    let file = clean(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: |
      {\"apiVersion\":\"networking.k8s.io/v1\"}
  creationTimestamp: 2024-05-01T10:00:00Z
  deletionGracePeriodSeconds: 30
  deletionTimestamp: null
  finalizers: [a.example/b]
  generation: 1
  labels:
    app.kubernetes.io/part-of: shop
  managedFields:
  - apiVersion: networking.k8s.io/v1
    fieldsType: FieldsV1
    fieldsV1:
      f:spec:
        f:podSelector: {}
        .: {}
        k:{\"name\":\"x\"}: {}
    manager: kubectl
    operation: Update
    time: 2024-05-01T10:00:00Z
  name: p
  namespace: shop
  ownerReferences: []
  resourceVersion: '123'
  selfLink: ''
  uid: 8e5f
spec:
  podSelector: {}
",
    );
    assert_eq!(
        file.documents[0].created.as_deref(),
        Some("2024-05-01T10:00:00Z")
    );
    assert_eq!(
        file.documents[0].labels["app.kubernetes.io/part-of"],
        "shop"
    );
    assert_eq!(file.documents[0].annotations.len(), 1);
}

#[test]
fn a_real_namespace() {
    let file = clean(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: {kubernetes.io/metadata.name: shop, team: a}\nspec:\n  finalizers: [kubernetes]\nstatus:\n  phase: Active\n",
    );
    assert_eq!(file.documents[0].id().to_string(), "Namespace shop");
    assert_eq!(file.documents[0].labels["team"], "a");
}
