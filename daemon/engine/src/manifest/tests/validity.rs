//! Documents beside what the API server says of them: the tables in `validity/`.
//!
//! A case gives a fragment and all that is said of it, to the letter, or as far as the `…`;
//! `~` stands for the fragment's own path. What stands in a rule is tried in both directions.

use serde::Deserialize;

use super::*;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    within: Within,
    cases: Vec<Case>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Within {
    Document,
    Metadata,
    Spec,
    Selector,
    Peer,
    Port,
    Block,
    Pod,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The rule that it is about.
    #[serde(default)]
    rule: Option<String>,
    #[serde(default)]
    given: Option<String>,
    /// Fragments of which nothing is said.
    #[serde(default)]
    accepted: Vec<String>,
    #[serde(default)]
    said: Vec<String>,
    #[serde(default)]
    warned: Vec<String>,
}

/// The fragment in a document, and its path there.
fn placed(within: Within, fragment: &str) -> Vec<(String, &'static str)> {
    let rule = |ingress: &'static str, egress: &'static str, field: &str| {
        ["ingress", "egress"]
            .map(|direction| {
                let peers = if direction == "ingress" { "from" } else { "to" };
                let field = field.replace("PEERS", peers);
                let spec =
                    format!("{{podSelector: {{}}, {direction}: [{{{field}: [{fragment}]}}]}}");
                (
                    with_spec(&spec),
                    if direction == "ingress" {
                        ingress
                    } else {
                        egress
                    },
                )
            })
            .to_vec()
    };
    match within {
        Within::Document => vec![(fragment.to_owned(), "")],
        Within::Metadata => vec![(
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {fragment}\nspec: {{podSelector: {{}}}}\n"
            ),
            "metadata",
        )],
        Within::Spec => vec![(with_spec(fragment), "spec")],
        Within::Selector => vec![
            (
                with_spec(&format!("{{podSelector: {fragment}}}")),
                "spec.podSelector",
            ),
            (
                with_spec(&format!(
                    "{{podSelector: {{}}, ingress: [{{from: [{{namespaceSelector: {fragment}}}]}}]}}"
                )),
                "spec.ingress[0].from[0].namespaceSelector",
            ),
        ],
        Within::Peer => rule("spec.ingress[0].from[0]", "spec.egress[0].to[0]", "PEERS"),
        Within::Port => rule(
            "spec.ingress[0].ports[0]",
            "spec.egress[0].ports[0]",
            "ports",
        ),
        Within::Block => [("ingress", "from"), ("egress", "to")]
            .map(|(direction, peers)| {
                let spec = format!(
                    "{{podSelector: {{}}, {direction}: [{{{peers}: [{{ipBlock: {fragment}}}]}}]}}"
                );
                let path = match direction {
                    "ingress" => "spec.ingress[0].from[0].ipBlock",
                    _ => "spec.egress[0].to[0].ipBlock",
                };
                (with_spec(&spec), path)
            })
            .to_vec(),
        Within::Pod => {
            let rest = fragment.strip_prefix('{').unwrap();
            vec![(
                format!("{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, {rest}"),
                "",
            )]
        }
    }
}

/// `field: message`, as the API server prints it.
fn told(file: &File, severity: Severity) -> Vec<String> {
    let found = file.diagnostics.iter();
    let mut told: Vec<_> = found
        .filter(|found| found.severity == severity)
        .map(|found| match &found.field {
            Some(field) => format!("{field}: {}", found.message),
            None => found.message.clone(),
        })
        .collect();
    told.sort();
    told
}

fn hold(text: &str, path: &str, severity: Severity, file: &File, expected: &[String]) {
    let mut expected: Vec<_> = expected
        .iter()
        .map(|line| match path {
            "" => line.replace("~.", ""),
            path => line.replace('~', path),
        })
        .collect();
    expected.sort();
    let found = told(file, severity);
    let same = expected.len() == found.len()
        && expected
            .iter()
            .zip(&found)
            .all(|(expected, found)| match expected.strip_suffix('…') {
                Some(begin) => found.starts_with(begin),
                None => expected == found,
            });
    assert!(same, "{text}\nexpected {expected:#?}\nfound {found:#?}");
}

fn try_table(text: &str) {
    let table: Table = serde_saphyr::from_str(text).unwrap();
    for case in &table.cases {
        let about = case.rule.as_deref().unwrap_or("the rule above");
        assert!(case.given.is_some() || !case.accepted.is_empty(), "{about}");
        let given = case.given.iter().map(|given| (given, true));
        let accepted = case.accepted.iter().map(|given| (given, false));
        for (fragment, is_given) in given.chain(accepted) {
            for (text, path) in placed(table.within, fragment) {
                let file = parse("a.yaml", &text);
                let about = format!("{about}:\n{text}");
                let (said, warned) = match is_given {
                    true => (&case.said[..], &case.warned[..]),
                    false => (&[][..], &[][..]),
                };
                hold(&about, path, Severity::Error, &file, said);
                hold(&about, path, Severity::Warning, &file, warned);
                assert_eq!(file.is_accepted(), said.is_empty(), "{about}");
                for found in &file.diagnostics {
                    assert!(found.line > 0 && found.column > 0, "{about}: {found}");
                }
            }
        }
    }
}

macro_rules! tables {
    ($($name:ident),+) => {
        $(
            #[test]
            fn $name() {
                try_table(include_str!(concat!("validity/", stringify!($name), ".yaml")));
            }
        )+
    };
}

tables!(
    documents, metadata, specs, selectors, peers, ports, blocks, pods
);
