//! Whatever the bytes: no panic, bounded findings, and no object out of an errant document.

use proptest::prelude::*;

use super::*;
use crate::diagnostic::render;

const SEED: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: ns, labels: &l {app: a}}
spec:
  podSelector: {matchLabels: *l, matchExpressions: [{key: a, operator: In, values: [b]}]}
  ingress:
    - from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {podSelector: {}}]
      ports: [{port: 80, endPort: 90, protocol: TCP}]
---
apiVersion: v1
kind: Pod
metadata: {name: a, annotations: {netpold.io/netns: /run/netns/a}}
spec: {containers: [{name: m, ports: [{name: http, containerPort: 80}]}]}
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}
---
{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Namespace, metadata: {name: n}}]}
";

fn hold(text: &str) {
    let file = parse("a.yaml", text);
    assert!(file.diagnostics.len() <= 1000);
    for found in file.diagnostics.iter().take(20) {
        assert!(found.line >= 1 && found.column >= 1, "{found:?}");
        assert!(!render(found, text, false).is_empty());
    }
    let _ = assemble([&file]).world();
}

/// Pieces that mean something to YAML or to us.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ": ",
            "- ",
            "\n",
            "\n  ",
            "\n    - ",
            "---\n",
            "...\n",
            "&a ",
            "*a",
            "<<: ",
            "!!str ",
            "!x ",
            "'",
            "\"",
            "|\n",
            ">\n",
            "#",
            "\t",
            "\r\n",
            "\r",
            "\0",
            "\u{feff}",
            "%YAML 1.1\n",
            "? ",
            "on",
            "080",
            "null",
            "~",
            "spec",
            "kind",
            "Pod",
            "apiVersion: v1\n",
            "kind: Pod\n",
            "metadata",
            "ingress",
            "\u{1b}[2J",
            "é",
            "\u{2028}",
        ])
        .prop_map(str::to_owned),
        any::<char>().prop_map(String::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read(text in any::<String>()) {
        hold(&text);
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let file = parse_bytes("a.yaml", &bytes);
        prop_assert!(std::str::from_utf8(&bytes).is_ok() || !file.is_accepted());
    }

    #[test]
    fn any_heap_of_yaml_is_read(pieces in prop::collection::vec(piece(), 0..60)) {
        hold(&pieces.concat());
    }

    #[test]
    fn a_mutated_manifest_is_read(
        edits in prop::collection::vec((0..SEED.len(), 0..12usize, piece()), 1..6),
    ) {
        let mut text = SEED.to_owned();
        for (at, removed, added) in edits {
            let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            let end = (at + removed).min(text.len());
            let end = (end..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap();
            text.replace_range(at..end, &added);
        }
        hold(&text);
    }

    #[test]
    fn a_broken_document_hides_no_other(
        pieces in prop::collection::vec(piece(), 0..30),
    ) {
        // Between markers anything may stand; what follows is read all the same.
        let broken = pieces.concat().replace("...", "").replace("---", "").replace('%', "");
        let text = format!("{broken}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: last}}\n");
        let file = parse("a.yaml", &text);
        let last = file.documents.last().map(|object| object.id().name.name);
        prop_assert_eq!(last.as_deref(), Some("last"), "{:?}", file.diagnostics);
    }
}
