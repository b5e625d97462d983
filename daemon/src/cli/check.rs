//! `netpol check`: are these files valid?
//!
//! Every file by itself, as the daemon would read it, and then all together:
//! objects that are given twice.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use netpol_engine::diagnostic::{Diagnostic, Severity, rule, sarif};
use netpol_engine::manifest;

use super::output::{Columns, Output};
use super::source::{self, Text};
use super::{Exit, stdout_has_color};

/// Validate manifests as a strict API server would
///
/// Reads files, directories with their sub-folders (*.yaml, *.yml, *.json), or
/// stdin (`-`). Nothing is asked of the daemon, and nothing is changed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 1 where anything is an error.

Examples:
  netpol check policy.yaml
  netpol check --deny-warnings manifests/
  kubectl get netpol -A -o yaml | netpol check -
  netpol check <(helm template my-chart)
  netpol check -o sarif manifests/ > netpol.sarif
  netpol check -o json manifests/ | jq -r '.[] | \"\\(.file):\\(.line): \\(.message)\"'")]
pub struct Check {
    /// Files and directories; `-` is stdin
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Exit with 1 on warnings too
    #[arg(long)]
    deny_warnings: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Report,
}

/// The forms of a report: those of every list, and one for code review tools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Report {
    /// For people, with the lines that are meant
    #[default]
    Table,
    /// For people with a wide terminal: a line each
    Wide,
    /// For programs
    Json,
    /// For programs and people
    Yaml,
    /// SARIF 2.1.0, for code review tools
    Sarif,
}

impl Check {
    pub(super) fn run(&self, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let texts = self.texts()?;
        let files: Vec<_> = texts.iter().map(Text::parse).collect();
        let mut diagnostics = manifest::assemble(&files).diagnostics;
        diagnostics.extend(
            files
                .iter()
                .flat_map(|file| file.diagnostics.iter().cloned()),
        );
        diagnostics.sort_by(|a, b| {
            (&a.path, a.line, a.column, a.severity).cmp(&(&b.path, b.line, b.column, b.severity))
        });
        match self.output {
            Report::Table => write_lines(out, &texts, &diagnostics)?,
            Report::Wide => write_columns(out, &diagnostics)?,
            Report::Json => {
                Output::Json.value(out, &diagnostics)?;
            }
            Report::Yaml => {
                Output::Yaml.value(out, &diagnostics)?;
            }
            Report::Sarif => {
                let log = sarif::log(env!("CARGO_PKG_VERSION"), rule::ALL, &diagnostics);
                Output::Json.value(out, &log)?;
            }
        }
        let count = |severity| {
            diagnostics
                .iter()
                .filter(|diagnostic| diagnostic.severity == severity)
                .count()
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        anstream::eprintln!(
            "{} in {}",
            match (errors, warnings) {
                (0, 0) => "nothing to complain about".to_owned(),
                (errors, 0) => plural(errors, "error"),
                (0, warnings) => plural(warnings, "warning"),
                (errors, warnings) => format!(
                    "{}, {}",
                    plural(errors, "error"),
                    plural(warnings, "warning")
                ),
            },
            plural(texts.len(), "file")
        );
        Ok(Exit::answer(
            errors == 0 && !(self.deny_warnings && warnings > 0),
        ))
    }

    /// Each file once, however often it is named.
    fn texts(&self) -> anyhow::Result<Vec<Text>> {
        let mut seen = BTreeSet::new();
        let mut texts = Vec::new();
        for path in &self.paths {
            let found = if path != Path::new("-") && path.is_dir() {
                source::manifests(path)?
            } else {
                vec![path.clone()]
            };
            if found.is_empty() {
                // Most often it is the wrong folder, and a check that passes would hide that.
                bail!(
                    "no manifests in `{}`: they are named *.yaml, *.yml or *.json",
                    path.display()
                );
            }
            for path in found {
                // What is no file of its own, as a pipe of the shell's, is what it is named.
                let identity = path.canonicalize().unwrap_or_else(|_| path.clone());
                if seen.insert(identity) {
                    texts.push(source::read(&path)?);
                }
            }
        }
        Ok(texts)
    }
}

/// A line each.
fn write_columns(out: &mut dyn Write, diagnostics: &[Diagnostic]) -> anyhow::Result<()> {
    let header = ["SEVERITY", "RULE", "FILE", "OBJECT", "FIELD", "MESSAGE"];
    let mut columns = Columns::new(&header);
    for found in diagnostics {
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
    Ok(())
}

/// Each with the line that it is about. What helps against several findings of one place is
/// said once, with the last.
fn write_lines(
    out: &mut dyn Write,
    texts: &[Text],
    diagnostics: &[Diagnostic],
) -> anyhow::Result<()> {
    let named: BTreeMap<&str, &Text> = texts.iter().map(|text| (&*text.name, text)).collect();
    for (index, found) in diagnostics.iter().enumerate() {
        let place = |found: &Diagnostic| (found.line, found.column);
        let is_said_next = diagnostics.get(index + 1).is_some_and(|next| {
            (&next.path, place(next), &next.help) == (&found.path, place(found), &found.help)
        });
        let found = &Diagnostic {
            help: found.help.clone().filter(|_| !is_said_next),
            ..found.clone()
        };
        if let Some(text) = named.get(&*found.path) {
            writeln!(out, "{}\n", text.render(found, stdout_has_color()))?;
        }
    }
    Ok(())
}

fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
