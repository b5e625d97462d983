//! What people read: every rendering held against its text.
#![allow(clippy::unwrap_used)]

use super::*;

fn sample() -> Diagnostic {
    Diagnostic {
        path: "a.yaml".into(),
        line: 3,
        column: 9,
        length: 2,
        also: None,
        severity: Severity::Error,
        rule: rule::INVALID,
        kind: Some("NetworkPolicy".into()),
        namespace: Some("ns1".into()),
        name: Some("bad".into()),
        field: Some("spec.ingress[0].ports[0].endPort".into()),
        message: "Invalid value: 80: must be greater than or equal to `port`".into(),
        help: Some("`endPort` is the last port of the range that begins at `port`".into()),
    }
}

#[test]
fn marks_the_place_and_helps() {
    let text = render(&sample(), "one\ntwo\nendPort 80 # é\n", false);
    insta::assert_snapshot!(text, @r"
    error[invalid]: spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`
     --> a.yaml:3:9
      |
    3 | endPort 80 # é
      |         ^^ NetworkPolicy ns1/bad
      |
      = help: `endPort` is the last port of the range that begins at `port`
    ");
}

#[test]
fn another_place_is_marked_too() {
    let also = |line, column| Diagnostic {
        also: Some(Mark {
            line,
            column,
            length: 3,
            label: "first here".into(),
        }),
        help: None,
        ..sample()
    };
    let source = "one\ntwo\nendPort 80\n";
    insta::assert_snapshot!(render(&also(1, 1), source, false));
    insta::assert_snapshot!(render(&also(3, 1), source, false));
    let text = render(&also(99, 1), source, false);
    assert!(text.contains("a.yaml:3:9"), "{text}");
}

#[test]
fn colour_adds_only_escapes() {
    let source = "one\ntwo\nendPort 80\n";
    let plain = render(&sample(), source, false);
    let colour = render(&sample(), source, true);
    assert_ne!(plain, colour);
    let stripped: String = colour
        .split('\u{1b}')
        .enumerate()
        .map(|(index, part)| {
            if index == 0 {
                part
            } else {
                part.split_once('m').unwrap().1
            }
        })
        .collect();
    assert_eq!(stripped, plain);
}

#[test]
fn a_line_that_is_gone_still_has_its_place() {
    for source in ["", "one", "one\ntwo\n"] {
        let text = render(&sample(), source, false);
        assert!(text.contains("a.yaml:3:9"), "{source:?}: {text}");
        assert!(text.contains("help: `endPort`"), "{source:?}: {text}");
    }
}

#[test]
fn lines_break_as_in_yaml() {
    for (source, expected) in [
        ("a\nb\nc", Some("c")),
        ("a\r\nb\r\nc\r\n", Some("c")),
        ("a\rb\rc\rd", Some("c")),
        ("a\nb\n", Some("")),
        ("a\nb", None),
    ] {
        assert_eq!(line_of(source, 3), expected, "{source:?}");
    }
}

#[test]
fn escapes_of_a_terminal_never_pass() {
    let evil = "\u{1b}[2J\u{7}\u{202e}";
    let diagnostic = Diagnostic {
        path: format!("a{evil}.yaml"),
        kind: Some(evil.into()),
        name: Some(evil.into()),
        field: Some(evil.into()),
        message: evil.into(),
        help: Some(evil.into()),
        ..sample()
    };
    for text in [
        render(&diagnostic, &format!("\n\n{evil}{evil}{evil}"), false),
        render(&diagnostic, "", false),
        diagnostic.to_string(),
    ] {
        for hostile in ['\u{1b}', '\u{7}', '\u{202e}'] {
            assert!(!text.contains(hostile), "{text:?}");
        }
    }
}

#[test]
fn one_line_for_the_log() {
    insta::assert_snapshot!(sample(), @"a.yaml:3:9: error[invalid]: NetworkPolicy ns1/bad: spec.ingress[0].ports[0].endPort: Invalid value: 80: must be greater than or equal to `port`; `endPort` is the last port of the range that begins at `port`");
}

#[test]
fn json_has_the_promised_fields() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&Diagnostic { namespace: None, ..sample() }).unwrap(), @r#"
    {
      "file": "a.yaml",
      "line": 3,
      "column": 9,
      "severity": "error",
      "rule": "invalid",
      "kind": "NetworkPolicy",
      "namespace": null,
      "name": "bad",
      "field": "spec.ingress[0].ports[0].endPort",
      "message": "Invalid value: 80: must be greater than or equal to `port`",
      "help": "`endPort` is the last port of the range that begins at `port`"
    }
    "#);
}
