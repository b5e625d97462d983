//! Findings as a SARIF 2.1.0 log (OASIS sarif-v2.1.0), for code review tools.
//!
//! One run, the rules that were broken in its driver, one result a finding. Columns count
//! characters, as everywhere here. Text is passed on as it is: the viewer of the log escapes it.

use serde_json::{Value, json};

use super::{Diagnostic, Mark, Rule, Severity};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// The log. `version` is netpold's; `rules` are those that findings may name, and those that
/// do become part of it.
#[must_use]
pub fn log<'r>(
    version: &str,
    rules: impl IntoIterator<Item = &'r Rule>,
    diagnostics: &[Diagnostic],
) -> Value {
    let mut used: Vec<&Rule> = rules
        .into_iter()
        .filter(|rule| diagnostics.iter().any(|found| found.rule == rule.code))
        .collect();
    used.sort_unstable();
    used.dedup_by_key(|rule| rule.code);
    let results: Vec<_> = diagnostics
        .iter()
        .map(|found| {
            let mut result = result(found);
            // A code without an entry has no index: the property is optional.
            if let Ok(index) = used.binary_search_by_key(&found.rule, |rule| rule.code) {
                result["ruleIndex"] = index.into();
            }
            result
        })
        .collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {
                "driver": {
                    "name": "netpol",
                    "version": version,
                    "rules": used.iter().map(|rule| descriptor(rule)).collect::<Vec<_>>(),
                },
            },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn descriptor(rule: &Rule) -> Value {
    json!({
        "id": rule.code,
        "shortDescription": { "text": rule.summary },
        "defaultConfiguration": { "level": level(rule.severity) },
    })
}

fn result(found: &Diagnostic) -> Value {
    let text = match &found.help {
        Some(help) => format!("{}\n{help}", found.title()),
        None => found.title(),
    };
    let place = region(found.line, found.column, found.length);
    let mut location = physical(&found.path, &place);
    let logical = logical(found);
    if !logical.is_empty() {
        location["logicalLocations"] = logical.into();
    }
    let mut result = json!({
        "ruleId": found.rule,
        "level": level(found.severity),
        "message": { "text": text },
        "locations": [location],
    });
    if let Some(Mark {
        line,
        column,
        length,
        label,
    }) = &found.also
    {
        let mut other = physical(&found.path, &region(*line, *column, *length));
        other["message"] = json!({ "text": label });
        result["relatedLocations"] = json!([other]);
    }
    result
}

/// `endColumn` is the column behind the last character.
fn region(line: usize, column: usize, length: usize) -> Value {
    json!({ "startLine": line, "startColumn": column, "endColumn": column + length })
}

fn physical(path: &str, region: &Value) -> Value {
    json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(path) },
            "region": region,
        },
    })
}

/// The object, and the field in it.
fn logical(found: &Diagnostic) -> Vec<Value> {
    let object = found.object();
    let member = found.field.as_ref().map(|field| {
        let owner = object.as_ref().map(|object| format!("{object} "));
        json!({
            "name": field,
            "fullyQualifiedName": owner.unwrap_or_default() + field,
            "kind": "member",
        })
    });
    let object = object.map(|object| json!({ "fullyQualifiedName": object, "kind": "object" }));
    object.into_iter().chain(member).collect()
}

/// A path as a URI, or, where it is relative, a reference (RFC 3986). Whatever is no path's
/// letter is escaped, a colon too, which could end a scheme.
fn uri(path: &str) -> String {
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => uri.push(byte.into()),
            byte if byte.is_ascii_alphanumeric() => uri.push(byte.into()),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests;
