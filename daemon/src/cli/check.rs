//! `netpol check`: are these files valid?
//!
//! Every file by itself, as the daemon would read it, and then all together:
//! objects that are given twice.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use netpol_engine::diagnostic::{Diagnostic, Severity};
use netpol_engine::manifest;

use super::output::{Columns, Form, Output};
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
  netpol check -o json manifests/ | jq -r '.[] | \"\\(.file):\\(.line): \\(.message)\"'")]
pub struct Check {
    /// Files and directories; `-` is stdin
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Exit with 1 on warnings too
    #[arg(long)]
    deny_warnings: bool,
    #[command(flatten)]
    form: Form,
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
        if !self.form.output.value(out, &diagnostics)? {
            self.write(out, &texts, &diagnostics)?;
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
        let mut seen: BTreeMap<PathBuf, ()> = BTreeMap::new();
        let mut texts = Vec::new();
        for path in &self.paths {
            let found = if path != Path::new("-") && path.is_dir() {
                source::manifests(path)?
            } else {
                vec![path.clone()]
            };
            for path in found {
                let identity = if path == Path::new("-") {
                    path.clone()
                } else {
                    path.canonicalize()
                        .with_context(|| format!("can't open `{}`", path.display()))?
                };
                if seen.insert(identity, ()).is_none() {
                    texts.push(source::read(&path)?);
                }
            }
        }
        Ok(texts)
    }

    fn write(
        &self,
        out: &mut dyn Write,
        texts: &[Text],
        diagnostics: &[Diagnostic],
    ) -> anyhow::Result<()> {
        if self.form.output == Output::Wide {
            let mut columns =
                Columns::new(&["SEVERITY", "RULE", "FILE", "OBJECT", "FIELD", "MESSAGE"]);
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
            return Ok(());
        }
        for found in diagnostics {
            if let Some(text) = texts.iter().find(|text| text.name == found.path) {
                writeln!(out, "{}\n", text.render(found, stdout_has_color()))?;
            }
        }
        Ok(())
    }
}

fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
