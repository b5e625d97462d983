//! How findings are shown: each with the line of its file that it is about, or as columns.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use netpol_engine::diagnostic::{self, Diagnostic, rule};

use super::output::{Columns, Output};
use super::source::Text;
use super::stdout_has_color;

/// Objects that mean nothing here up to which each is shown.
const EACH: usize = 3;

/// Writes them for people. A finding whose file is not among the texts is one line.
pub fn write(
    out: &mut dyn Write,
    output: Output,
    texts: &[Text],
    findings: &[Diagnostic],
) -> anyhow::Result<()> {
    if output == Output::Wide {
        let mut columns = Columns::new(&["SEVERITY", "RULE", "FILE", "OBJECT", "FIELD", "MESSAGE"]);
        for found in findings {
            columns.row([
                found.severity.to_string(),
                found.rule.to_owned(),
                format!("{}:{}:{}", found.path, found.line, found.column),
                found.object().unwrap_or_default(),
                found.field.clone().unwrap_or_default(),
                found.message.clone(),
            ]);
        }
        columns.write(out, "")?;
        return Ok(());
    }
    let is_ignored = |found: &&Diagnostic| found.rule == rule::IGNORED_KIND;
    let counted = findings.iter().filter(is_ignored).count() > EACH;
    let (passed_over, shown): (Vec<&Diagnostic>, Vec<&Diagnostic>) = findings
        .iter()
        .partition(|found| counted && is_ignored(found));
    let named: HashMap<&str, &Text> = texts.iter().map(|text| (&*text.name, text)).collect();
    for (index, found) in shown.iter().enumerate() {
        // What helps against several findings of one place is said once, with the last.
        let is_said_next = shown.get(index + 1).is_some_and(|next| {
            let place = |found: &Diagnostic| (found.line, found.column);
            (&next.path, place(next), &next.help) == (&found.path, place(found), &found.help)
        });
        let found = &Diagnostic {
            help: found.help.clone().filter(|_| !is_said_next),
            ..(*found).clone()
        };
        let text = match named.get(&*found.path) {
            Some(text) => text.render(found, stdout_has_color()),
            None => diagnostic::render(found, "", stdout_has_color()),
        };
        writeln!(out, "{text}\n")?;
    }
    summary(out, &passed_over)
}

/// Objects that mean nothing here, counted: an application's manifests may be dropped in whole,
/// and what matters must not drown among them.
fn summary(out: &mut dyn Write, passed_over: &[&Diagnostic]) -> anyhow::Result<()> {
    let Some(first) = passed_over.first() else {
        return Ok(());
    };
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for found in passed_over {
        *kinds
            .entry(found.kind.as_deref().unwrap_or("?"))
            .or_default() += 1;
    }
    let kinds: Vec<String> = kinds
        .into_iter()
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    let whole = Diagnostic {
        path: String::new(),
        line: 0,
        length: 0,
        field: None,
        message: format!("passed over: {}", kinds.join(", ")),
        ..(*first).clone()
    };
    writeln!(
        out,
        "{}\n",
        diagnostic::render(&whole, "", stdout_has_color())
    )?;
    Ok(())
}

/// `3 errors`
pub fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
