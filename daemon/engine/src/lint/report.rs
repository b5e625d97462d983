//! From findings to diagnostics: each gets its place in the file that its object stands in.

use std::collections::{BTreeMap, HashMap};

use super::Finding;
use crate::diagnostic::{Diagnostic, Severity};
use crate::manifest::{Assembled, Mark, Position, locate};
use crate::object::ObjectId;

/// Findings as diagnostics. `text` gives a file's text by its path; a finding in a file
/// without one is placed at the beginning of its object, one of no object here at the
/// beginning of a file without a name.
#[must_use]
pub fn diagnostics<'t>(
    findings: Vec<Finding>,
    assembled: &Assembled<'_>,
    text: impl Fn(&str) -> Option<&'t str>,
) -> Vec<Diagnostic> {
    let places: HashMap<ObjectId, (&str, Position)> = assembled
        .objects
        .iter()
        .map(|(path, object)| (object.id(), (*path, object.position)))
        .collect();
    let mut by_file: BTreeMap<&str, Vec<(Position, Finding)>> = BTreeMap::new();
    for finding in findings {
        let (path, position) = places.get(&finding.object).copied().unwrap_or_default();
        by_file.entry(path).or_default().push((position, finding));
    }
    let mut diagnostics = Vec::new();
    for (path, findings) in by_file {
        let wanted: Vec<(Position, &str)> = findings
            .iter()
            .map(|(position, finding)| (*position, finding.field.as_str()))
            .collect();
        let marks = match text(path) {
            Some(text) => locate(text, &wanted),
            None => wanted
                .iter()
                .map(|(position, _)| Mark::at(*position))
                .collect(),
        };
        for ((_, finding), mark) in findings.into_iter().zip(marks) {
            diagnostics.push(diagnostic(path, finding, mark));
        }
    }
    diagnostics
}

fn diagnostic(path: &str, finding: Finding, mark: Mark) -> Diagnostic {
    let Finding {
        object,
        field,
        code,
        message,
        help,
    } = finding;
    Diagnostic {
        path: path.to_owned(),
        line: mark.line,
        column: mark.column,
        length: mark.length,
        severity: Severity::Warning,
        rule: code,
        kind: Some(object.kind.name().to_owned()),
        namespace: Some(object.name.namespace).filter(|namespace| !namespace.is_empty()),
        name: Some(object.name.name),
        field: Some(field),
        message,
        help,
        also: None,
    }
}
