//! The log as a whole, and what the schema (OASIS sarif-schema-2.1.0) requires of one.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::diagnostic::rule;
use crate::manifest;

fn found(text: &str) -> Vec<Diagnostic> {
    manifest::parse("some folder/a:b.yaml", text).diagnostics
}

#[test]
fn a_log() {
    let text = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop, name: other}
spec:
  podSelector:
  policyTypes: [ingress]
---
apiVersion: apps/v1
kind: Deployment
---
a: [
";
    let log = log("1.2.3", rule::ALL, &found(text));
    insta::assert_snapshot!(serde_json::to_string_pretty(&log).unwrap());
}

#[test]
fn nothing_found_is_a_run_without_results() {
    let log = log("1.2.3", rule::ALL, &[]);
    assert_eq!(log["runs"][0]["results"], json!([]));
    assert_eq!(log["runs"][0]["tool"]["driver"]["rules"], json!([]));
}

/// What the schema names as required, and the values that it allows.
fn hold_to_schema(log: &Value) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    assert_eq!(log["version"], "2.1.0");
    for run in log["runs"].as_array().unwrap() {
        let driver = &run["tool"]["driver"];
        assert!(!text(&driver["name"]).is_empty());
        assert!(["utf16CodeUnits", "unicodeCodePoints"].contains(&&*text(&run["columnKind"])));
        let rules = driver["rules"].as_array().unwrap();
        let ids: Vec<_> = rules.iter().map(|rule| text(&rule["id"])).collect();
        let mut once = ids.clone();
        once.dedup();
        assert_eq!(ids, once);
        for rule in rules {
            assert!(!text(&rule["shortDescription"]["text"]).is_empty());
            let level = text(&rule["defaultConfiguration"]["level"]);
            assert!(["none", "note", "warning", "error"].contains(&&*level));
        }
        for result in run["results"].as_array().unwrap() {
            assert!(!text(&result["message"]["text"]).is_empty());
            let level = text(&result["level"]);
            assert!(["none", "note", "warning", "error"].contains(&&*level));
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(ids[index], text(&result["ruleId"]));
            let related = result["relatedLocations"].as_array();
            for location in result["locations"]
                .as_array()
                .unwrap()
                .iter()
                .chain(related.into_iter().flatten())
            {
                let physical = &location["physicalLocation"];
                let uri = text(&physical["artifactLocation"]["uri"]);
                assert_eq!(uri, "some%20folder/a%3Ab.yaml");
                let region = &physical["region"];
                let number = |name: &str| region[name].as_u64().unwrap();
                assert!(number("startLine") >= 1 && number("startColumn") >= 1);
                assert!(number("endColumn") >= number("startColumn"));
                for logical in location["logicalLocations"]
                    .as_array()
                    .into_iter()
                    .flatten()
                {
                    assert!(!text(&logical["fullyQualifiedName"]).is_empty());
                    assert!(["object", "member"].contains(&&*text(&logical["kind"])));
                }
            }
        }
    }
}

#[test]
fn every_log_holds_to_the_schema() {
    for text in [
        "",
        "a: [",
        "a: b\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: A, é: b}\nspec: 1\n",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\n",
        "apiVersion: apps/v1\nkind: Deployment\n--- x\n",
    ] {
        hold_to_schema(&log("0", rule::ALL, &found(text)));
    }
}

#[test]
fn columns_count_characters_and_end_behind_the_last() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: é, name: b}\n";
    let log = log("0", rule::ALL, &found(text));
    let results = &log["runs"][0]["results"];
    let twice = results
        .as_array()
        .unwrap()
        .iter()
        .find(|result| result["ruleId"] == rule::DUPLICATE_KEY)
        .unwrap();
    assert_eq!(
        twice["locations"][0]["physicalLocation"]["region"],
        json!({ "startLine": 3, "startColumn": 21, "endColumn": 25 })
    );
    assert_eq!(
        twice["relatedLocations"][0]["physicalLocation"]["region"],
        json!({ "startLine": 3, "startColumn": 12, "endColumn": 16 })
    );
}

#[test]
fn a_code_that_no_table_has_is_still_told() {
    let found = Diagnostic::new("a.yaml", (1, 1), Severity::Error, "new", "x");
    let log = log("0", rule::ALL, &[found]);
    let result = &log["runs"][0]["results"][0];
    assert_eq!(result["ruleId"], "new");
    assert_eq!(result.get("ruleIndex"), None);
}

#[test]
fn paths_are_uris() {
    for (path, expected) in [
        ("a/b-1.yaml", "a/b-1.yaml"),
        ("./a.yaml", "./a.yaml"),
        ("/etc/netpold/a.yaml", "file:///etc/netpold/a.yaml"),
        ("a b%é.yaml", "a%20b%25%C3%A9.yaml"),
        ("c:d", "c%3Ad"),
        ("<stdin>", "%3Cstdin%3E"),
    ] {
        assert_eq!(uri(path), expected);
    }
}
