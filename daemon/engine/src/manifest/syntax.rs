//! What a text that is no tree is told: which rule it breaks, and what its author may have
//! overlooked: a template that was not filled in, a merge that was not finished, a tab.

use super::finding::Finding;
use super::node::{Flaw, Problem, Span};
use crate::diagnostic::{line_of, rule};

const TEMPLATE: &str =
    "is this a template, not yet filled in? check what it makes, as `helm template` prints it";

/// What is known from the flaw alone.
pub(super) fn finding(problem: &Problem) -> Finding {
    let rule = if problem.what.is_limit() {
        rule::LIMIT
    } else {
        rule::SYNTAX
    };
    let finding = Finding::new(rule, problem.what.to_string());
    match &problem.what {
        Flaw::Syntax {
            advice: Some(advice),
            ..
        } => finding.help(*advice),
        Flaw::Key("a mapping") => finding.help(format!(
            "a text that begins with `{{` needs quotes; {TEMPLATE}"
        )),
        Flaw::Key(_) => finding.help("write the key in quotes"),
        Flaw::Tag(_) => finding.help("remove the tag, or put the text in quotes"),
        _ => finding,
    }
}

/// As [`finding`], with a look at the line; the place is the one to look at.
pub(super) fn with_text(problem: &Problem, text: &str) -> (Span, Finding) {
    let (mut span, finding) = (problem.span, finding(problem));
    let Flaw::Syntax { words, .. } = &problem.what else {
        return (span, finding);
    };
    let line = |number: u32| line_of(text, number as usize).unwrap_or_default();
    let marked = line(span.line);
    let before = line(span.line.saturating_sub(1).max(1));
    if is_conflict(marked) || is_conflict(before) {
        return (
            span,
            finding.help("finish the merge: its marks are still in the file"),
        );
    }
    if marked.contains("{{") || before.contains("{{") {
        return (span, finding.help(TEMPLATE));
    }
    // A text that goes on in the next line is marked where it begins.
    if words.contains("tab")
        && let Some((number, column)) = (span.line..span.line + 3)
            .find_map(|number| Some((number, tab_in_indent(line(number))?)))
    {
        span = Span {
            line: number,
            column,
            length: 1,
        };
    }
    (span, finding)
}

/// Git's marks of the sides of a merge.
fn is_conflict(line: &str) -> bool {
    ["<<<<<<< ", ">>>>>>> "]
        .iter()
        .any(|mark| line.starts_with(mark))
        || line == "======="
}

/// The column of a tab before the first letter.
fn tab_in_indent(line: &str) -> Option<u32> {
    let indent = line.bytes().take_while(|byte| matches!(byte, b' ' | b'\t'));
    let at = indent.enumerate().find(|(_, byte)| *byte == b'\t')?.0;
    u32::try_from(at + 1).ok()
}
