//! YAML and JSON as such: streams, quirks, limits.

use std::time::{Duration, Instant};

use super::*;

fn names(file: &File) -> Vec<String> {
    file.documents
        .iter()
        .map(|object| object.id().to_string())
        .collect()
}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n")
}

#[test]
fn empty_documents_are_nothing() {
    for text in [
        "",
        "\n",
        "---\n",
        "---\n---\n",
        "# c\n---\n# d\n...\n",
        "null\n",
        "~\n---\n",
        "\u{feff}",
        "\u{feff}---\n",
    ] {
        assert!(clean(text).is_blank(), "{text:?}");
    }
}

#[test]
fn streams_of_every_form() {
    let (a, b) = (namespace("a"), namespace("b"));
    for text in [
        format!("{a}---\n{b}"),
        format!("---\n{a}---\n{b}---\n"),
        format!("{a}...\n---\n{b}...\n"),
        format!("%YAML 1.2\n---\n{a}...\n%YAML 1.2\n---\n{b}"),
        format!("\u{feff}{a}---\n{b}"),
        format!("{a}--- # next\n{b}"),
        format!("{a}---\n{b}").replace('\n', "\r\n"),
        format!("---\n---\n{a}---\n\n---\n# empty\n---\n{b}"),
        "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"a\"}}\n---\n{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Namespace\",\n\t\"metadata\": {\n\t\t\"name\": \"\\u0062\"\n\t}\n}\n".to_owned(),
    ] {
        assert_eq!(names(&clean(&text)), ["Namespace a", "Namespace b"], "{text}");
    }
}

#[test]
fn objects_of_json_may_follow_one_another() {
    let object = |name: &str| {
        format!(
            "{{\"apiVersion\": \"v1\", \"kind\": \"Namespace\",\n \"metadata\": {{\"name\": \"{name}\"}}}}"
        )
    };
    for between in ["", "\n", " ", "\r\n\n"] {
        let text = format!(
            "\n{}{between}{}{between}{}\n",
            object("a"),
            object("b"),
            object("c")
        );
        let names = names(&accepted(&text));
        assert_eq!(
            names,
            ["Namespace a", "Namespace b", "Namespace c"],
            "{text}"
        );
    }
    // Places are those of the file, also on a line that another object has begun.
    let text = format!("{} {}\n{}\n", object("a"), object("B"), object("C"));
    let file = parse("a.json", &text);
    let places: Vec<_> = file
        .diagnostics
        .iter()
        .map(|d| (d.line, d.column))
        .collect();
    assert_eq!(places, [(3, 23), (5, 23)]);
    let text = "{\"apiVersion\": \"v1\"} {\"kind\": \"Pod\"} {\"kind\"}";
    let file = parse("a.json", text);
    let places: Vec<_> = file
        .diagnostics
        .iter()
        .map(|d| (d.line, d.column))
        .collect();
    assert_eq!(places[..2], [(1, 1), (1, 22)], "{:?}", file.diagnostics);
}

#[test]
fn a_broken_document_hides_no_other() {
    for broken in [
        "a: [1, 2",
        "a: {b: c",
        "a: 'open",
        "a: \"open",
        "a: \"\\q\"",
        "a: b: c",
        "\ta: b",
        "a: b\n\tc: d",
        "a: *nobody",
        "a: @x",
        "a: `x`",
        "]",
        "}",
        "a: !<x",
        "? [",
        "{{ template }}",
        "a: b\n  c: d\n e",
        "- a\nb: c",
        "&a [*a]",
        "a: |\n  x\n b",
        "\u{1}",
        "a: \u{0}",
    ] {
        let text = format!(
            "{}---\n{broken}\n---\n{}",
            namespace("first"),
            namespace("last")
        );
        let file = parse("a.yaml", &text);
        assert!(!file.is_accepted(), "{broken:?}");
        assert_eq!(
            names(&file),
            ["Namespace first", "Namespace last"],
            "{broken:?}"
        );
        let line = file.diagnostics[0].line;
        assert!(
            (6..10).contains(&line),
            "{broken:?}: {}",
            file.diagnostics[0]
        );
    }
}

#[test]
fn aliases_and_merge_keys() {
    let file = clean(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  annotations: &x {k: v, l: w}\n  labels:\n    <<: *x\n    k: own\n",
    );
    let labels = &file.documents[0].labels;
    assert_eq!(labels["k"], "own");
    assert_eq!(labels["l"], "w");
}

#[test]
fn what_stands_later_wins_a_merge_too() {
    // go-yaml v2, which kubectl reads with, sets keys one after the other.
    for (labels, expected) in [
        ("{<<: {k: merged}, k: own}", "own"),
        ("{k: own, <<: {k: merged}}", "merged"),
        ("{k: own, <<: {k: first}, <<: {k: second}}", "second"),
        ("{<<: {k: first}, k: own, <<: {k: second}}", "second"),
        ("{k: own, <<: [{l: x}, {k: first}, {k: second}]}", "first"),
    ] {
        let text = format!("{}  labels: {labels}\n", namespace("a"));
        let file = accepted(&text);
        assert_eq!(file.documents[0].labels["k"], expected, "{labels}");
    }
    for labels in ["{k: a, k: b, <<: {l: c}}", "{<<: {k: a}, k: b, k: c}"] {
        let text = format!("{}  labels: {labels}\n", namespace("a"));
        let file = parse("a.yaml", &text);
        assert_eq!(file.diagnostics[0].rule, rule::DUPLICATE_KEY, "{labels}");
    }
}

#[test]
fn merged_lists_prefer_the_earlier() {
    let file = clean(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels:\n    <<: [{k: first}, {k: second, l: w}]\n",
    );
    let labels = &file.documents[0].labels;
    assert_eq!((labels["k"].as_str(), labels["l"].as_str()), ("first", "w"));
}

#[test]
fn repeated_keys_anywhere_are_errors() {
    for (text, line) in [
        (
            "apiVersion: v1\nkind: Namespace\nkind: Namespace\nmetadata: {name: a}\n",
            3,
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  name: b\n",
            5,
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels:\n    x: z\n    \"x\": z\n",
            7,
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  volumes:\n  - name: v\n    name: v\n",
            7,
        ),
        (
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels:\n    on: x\n    true: x\n",
            7,
        ),
    ] {
        let file = parse("a.yaml", text);
        let error = file.diagnostics.iter().find(|d| d.is_error()).unwrap();
        assert_eq!(
            (error.rule, error.line),
            (rule::DUPLICATE_KEY, line),
            "{text}"
        );
        assert!(file.documents.is_empty(), "{text}");
    }
    let many: String = (0..20).map(|n| format!("    k{n}: v\n")).collect();
    let text = format!("{}  labels:\n{many}    k3: w\n", namespace("a"));
    assert_eq!(
        parse("a.yaml", &text).diagnostics[0].rule,
        rule::DUPLICATE_KEY
    );
}

#[test]
fn a_repeated_key_of_a_kind_that_is_ignored_is_not_ours_to_refuse() {
    let file = parse(
        "a.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a, name: b}\nspec: !Ref x\n",
    );
    assert!(file.is_accepted());
    assert_eq!(file.diagnostics[0].rule, rule::IGNORED_KIND);
}

/// Refused, and before it has cost anything.
fn refused_for(text: &str, code: &str) {
    let begun = Instant::now();
    let file = parse("a.yaml", text);
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    let rules: Vec<_> = file.diagnostics.iter().map(|d| d.rule).collect();
    assert!(rules.contains(&code), "{rules:?}");
    assert!(file.diagnostics.len() <= 1000);
}

#[test]
fn a_billion_laughs_are_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for level in 1..30 {
        let last = format!("*a{}", level - 1);
        let items = [last.as_str(); 9].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    refused_for(&text, rule::LIMIT);
}

#[test]
fn aliases_do_not_stack_depth() {
    let mut text = String::from("a0: &a0 [x]\n");
    for level in 1..100 {
        text.push_str(&format!(
            "a{level}: &a{level} [[[[[[[[[[*a{}]]]]]]]]]]\n",
            level - 1
        ));
    }
    refused_for(&text, rule::LIMIT);
}

#[test]
fn deep_nesting_is_refused() {
    refused_for(&"[".repeat(100_000), rule::LIMIT);
    refused_for(&"{a: ".repeat(100_000), rule::LIMIT);
    refused_for(&"- ".repeat(100_000), rule::LIMIT);
    let block: String = (0..2000)
        .map(|n| format!("{}a:\n", " ".repeat(n)))
        .collect();
    refused_for(&block, rule::LIMIT);
}

#[test]
fn many_broken_documents_are_cut_short() {
    let file = parse("a.yaml", &"---\n[\n".repeat(5000));
    assert_eq!(file.diagnostics.len(), 1000);
    assert!(
        file.diagnostics
            .iter()
            .any(|d| d.message.contains("4000 more"))
    );
}

#[test]
fn many_flaws_in_one_document_are_cut_short() {
    let bad: String = (0..5000).map(|n| format!("    k{n}: {n}\n")).collect();
    let file = parse("a.yaml", &format!("{}  labels:\n{bad}", namespace("a")));
    assert!(!file.is_accepted());
    assert!(file.diagnostics.len() <= 1000);
}

#[test]
fn warnings_never_push_out_the_error() {
    let odd: String = (0..3000).map(|n| format!("    k{n}:\n")).collect();
    let text = format!("{}  labels:\n{odd}  bad: 1\n", namespace("a"));
    let file = parse("a.yaml", &text);
    assert!(!file.is_accepted());
    assert!(file.documents.is_empty());
}

#[test]
fn a_huge_text_makes_a_small_finding() {
    let text = format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: \"{}\"}}\n",
        "A".repeat(1_000_000)
    );
    let file = parse("a.yaml", &text);
    assert!(!file.is_accepted());
    assert!(file.diagnostics[0].to_string().len() < 2000);
    let shown = crate::diagnostic::render(&file.diagnostics[0], &text, false);
    assert!(shown.len() < 2000, "{}", shown.len());
}

#[test]
fn control_characters_are_refused_even_where_the_parser_takes_them() {
    let text = format!("{}  annotations: {{a: \"x\0y\"}}\n", namespace("a"));
    let file = parse("a.yaml", &text);
    assert!(!file.is_accepted());
    assert_eq!(
        (file.diagnostics[0].line, file.diagnostics[0].column),
        (5, 22)
    );
}

#[test]
fn nothing_but_a_comment_stands_behind_three_dashes() {
    let (a, b) = (namespace("a"), namespace("b"));
    for (separator, column) in [("--- x", 5), ("---x", 4), ("---\t- x", 5), ("--- {}", 5)] {
        let file = parse("a.yaml", &format!("{a}{separator}\n{b}"));
        assert!(!file.is_accepted(), "{separator}");
        let found = file
            .diagnostics
            .iter()
            .find(|found| found.message.contains("document separator"))
            .unwrap();
        assert_eq!((found.line, found.column), (5, column), "{separator}");
    }
    clean(&format!("{a}--- \t# x\r\n{b}"));
    clean(&format!("{a}  annotations:\n    x: |\n      --- y\n"));
}

#[test]
fn text_that_is_not_utf_8() {
    let file = parse_bytes("a.yaml", b"a: b\n\xc3\xa9: \xff\n");
    assert_eq!(
        (file.diagnostics[0].line, file.diagnostics[0].column),
        (2, 4)
    );
    let utf16 = [0xff, 0xfe, b'a', 0, b':', 0];
    let file = parse_bytes("a.yaml", &utf16);
    assert!(
        file.diagnostics[0]
            .help
            .as_ref()
            .unwrap()
            .contains("UTF-16")
    );
    assert!(parse_bytes("a.yaml", namespace("a").as_bytes()).is_accepted());
}

#[test]
fn five_thousand_policies_are_read_in_a_blink() {
    let one = |n: usize| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: p{n}\n  namespace: ns{}\nspec:\n  podSelector:\n    matchLabels:\n      app: a{n}\n  policyTypes: [Ingress, Egress]\n  ingress:\n    - from:\n        - namespaceSelector:\n            matchLabels:\n              team: t{n}\n          podSelector:\n            matchExpressions:\n              - {{key: app, operator: In, values: [a, b, c]}}\n        - ipBlock:\n            cidr: 10.0.0.0/8\n            except: [10.{}.0.0/16]\n      ports:\n        - port: 80\n          endPort: 90\n        - port: http\n  egress:\n    - to:\n        - podSelector: {{}}\n",
            n % 50,
            n % 256,
        )
    };
    let text: String = (0..5000).map(one).collect();
    let begun = Instant::now();
    let file = clean(&text);
    // A release build takes well under a second; this only catches what is not linear.
    assert!(
        begun.elapsed() < Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(file.documents.len(), 5000);
}

#[test]
fn many_small_objects_are_read_in_a_blink() {
    for text in ["{}".repeat(20_000), "{}\n".repeat(20_000)] {
        let begun = Instant::now();
        let file = parse("a.json", &text);
        assert_eq!(file.diagnostics.len(), 1000);
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn a_file_beyond_all_measure() {
    let file = parse("a.yaml", &" ".repeat((64 << 20) + 1));
    assert_eq!(file.diagnostics[0].rule, rule::LIMIT);
    let mut cut = vec![b' '; 64 << 20];
    cut.push("é".as_bytes()[0]);
    let file = parse_bytes("a.yaml", &cut);
    assert_eq!(file.diagnostics[0].rule, rule::LIMIT);
}
