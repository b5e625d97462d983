//! JUnit's XML form, as CI servers read it (the schema of Jenkins' xUnit plugin): one test case
//! for each policy that is as it should be, and one for each finding about the others.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::io::{self, Write};

use netpol_engine::diagnostic::Diagnostic;
use netpol_engine::policy::ObjectName;

use crate::printable::printable;

/// Writes a suite of all these policies.
pub fn write<'a>(
    out: &mut dyn Write,
    suite: &str,
    policies: impl Iterator<Item = &'a ObjectName>,
    findings: &[Diagnostic],
) -> io::Result<()> {
    let mut by_policy: BTreeMap<(&str, &str), Vec<&Diagnostic>> = policies
        .map(|name| ((name.namespace.as_str(), name.name.as_str()), Vec::new()))
        .collect();
    for found in findings {
        let namespace = found.namespace.as_deref().unwrap_or_default();
        let name = found.name.as_deref().unwrap_or_default();
        by_policy.entry((namespace, name)).or_default().push(found);
    }
    let failures = findings.len();
    let tests = failures + by_policy.values().filter(|found| found.is_empty()).count();
    begin(out, suite, tests, failures)?;
    for ((namespace, name), found) in &by_policy {
        let (class, name) = (Text(namespace), Text(name));
        if found.is_empty() {
            writeln!(out, r#"    <testcase classname="{class}" name="{name}"/>"#)?;
        }
        for found in found {
            let rule = found.rule;
            let field = Text(found.field.as_deref().unwrap_or_default());
            let message = Text(&found.message);
            writeln!(
                out,
                r#"    <testcase classname="{class}" name="{name} {rule} {field}">"#
            )?;
            writeln!(
                out,
                r#"      <failure type="{rule}" message="{message}">{}</failure>"#,
                Text(&found.to_string())
            )?;
            writeln!(out, "    </testcase>")?;
        }
    }
    end(out)
}

/// Writes a suite of these cases, each with whether it failed; its name says what was expected and what was found.
pub fn write_cases(
    out: &mut dyn Write,
    suite: &str,
    cases: impl Iterator<Item = (String, bool)> + Clone,
) -> io::Result<()> {
    let (tests, failures) = (
        cases.clone().count(),
        cases.clone().filter(|(_, is_failed)| *is_failed).count(),
    );
    begin(out, suite, tests, failures)?;
    let suite = Text(suite);
    for (name, is_failed) in cases {
        let name = Text(&name);
        if is_failed {
            writeln!(out, r#"    <testcase classname="{suite}" name="{name}">"#)?;
            writeln!(out, r#"      <failure type="missed" message="{name}"/>"#)?;
            writeln!(out, "    </testcase>")?;
        } else {
            writeln!(out, r#"    <testcase classname="{suite}" name="{name}"/>"#)?;
        }
    }
    end(out)
}

/// What stands before the cases of a suite.
fn begin(out: &mut dyn Write, suite: &str, tests: usize, failures: usize) -> io::Result<()> {
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    let suite = Text(suite);
    let counts = format!(r#"tests="{tests}" failures="{failures}" errors="0""#);
    writeln!(out, r#"<testsuites name="{suite}" {counts}>"#)?;
    writeln!(out, r#"  <testsuite name="{suite}" {counts} skipped="0">"#)?;
    Ok(())
}

/// What stands behind them.
fn end(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "  </testsuite>\n</testsuites>")
}

/// Text in an attribute or an element. XML 1.0 has no way to write most control characters.
struct Text<'t>(&'t str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for letter in printable(self.0).chars() {
            match letter {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                other => write!(f, "{other}")?,
            }
        }
        Ok(())
    }
}
