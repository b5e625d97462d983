//! `netpol check`: are these files valid?
//!
//! Every file by itself, as the daemon would read it, then all together: objects that
//! are given twice, and what is valid and may not mean what it says.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::bail;
use netpol_engine::diagnostic::{Diagnostic, Severity, rule, sarif};
use netpol_engine::lint::{self, rules};
use netpol_engine::spelling;

use super::Exit;
use super::findings::{self, plural};
use super::output::{Columns, Output};
use super::source::{self, Text};

/// Validate manifests as a strict API server would, then lint them
///
/// Reads files, directories with their sub-folders (*.yaml, *.yml, *.json), or
/// stdin (`-`). Nothing is asked of the daemon, and nothing is changed.
///
/// Errors are what an API server refuses. Warnings are what it accepts and what may
/// not mean what its author thinks; policies are held against Pods and Namespaces
/// where there are Pods among the manifests. The annotation netpold.io/lint-ignore
/// on an object, with rules separated by commas, silences them there.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 1 where anything is an error.

Examples:
  netpol check policy.yaml
  netpol check --deny-warnings manifests/
  netpol check --explain dns-missing
  kubectl get netpol -A -o yaml | netpol check -
  netpol check <(helm template my-chart)
  netpol check -o sarif manifests/ > netpol.sarif
  netpol check -o json manifests/ | jq -r '.[] | \"\\(.file):\\(.line): \\(.message)\"'")]
pub struct Check {
    /// Files and directories; `-` is stdin
    #[arg(required_unless_present_any = ["explain", "rules"], value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Say what a rule finds and why, with manifests before and after
    #[arg(long, value_name = "RULE", exclusive = true)]
    explain: Option<String>,
    /// List the rules
    #[arg(long, exclusive = true)]
    rules: bool,
    /// Exit with 1 on warnings too, except for objects of other kinds (Deployment, Service, …)
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
        if let Some(code) = &self.explain {
            return explain(out, code);
        }
        if self.rules {
            return list(out);
        }
        let texts = self.texts()?;
        let files: Vec<_> = texts.iter().map(Text::parse).collect();
        let by_name: HashMap<&str, &Text> = texts
            .iter()
            .map(|text| (text.name.as_str(), text))
            .collect();
        let diagnostics = lint::check(&files, |path| by_name.get(path)?.as_str());
        match self.output {
            Report::Table => findings::write(out, Output::Table, &texts, &diagnostics)?,
            Report::Wide => findings::write(out, Output::Wide, &texts, &diagnostics)?,
            Report::Json => {
                Output::Json.value(out, &diagnostics)?;
            }
            Report::Yaml => {
                Output::Yaml.value(out, &diagnostics)?;
            }
            Report::Sarif => {
                let log = sarif::log(env!("CARGO_PKG_VERSION"), &rules::every(), &diagnostics);
                Output::Json.value(out, &log)?;
            }
        }
        // An application's folder has objects that are no policies: they are no mistake.
        let is_passed_over = |found: &&Diagnostic| {
            let kind = found.kind.as_deref().unwrap_or_default();
            found.rule == rule::IGNORED_KIND && !kind.ends_with("NetworkPolicy")
        };
        let passed_over = diagnostics.iter().filter(is_passed_over).count();
        let count = |severity| {
            let found = diagnostics.iter().filter(|found| !is_passed_over(found));
            found.filter(|found| found.severity == severity).count()
        };
        let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
        anstream::eprintln!(
            "{} in {}{}",
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
            plural(texts.len(), "file"),
            match passed_over {
                0 => String::new(),
                count => format!("; {} of other kinds passed over", plural(count, "object")),
            }
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

/// The page of a rule.
fn explain(out: &mut dyn Write, code: &str) -> anyhow::Result<Exit> {
    if let Some(page) = rules::page(code) {
        write!(out, "{page}")?;
        return Ok(Exit::Done);
    }
    let every = rules::every();
    if let Some(rule) = every.iter().find(|rule| rule.code == code) {
        // What an API server refuses says itself what would be right.
        writeln!(out, "# {code}\n\n{}", rule.summary)?;
        return Ok(Exit::Done);
    }
    let codes: Vec<&str> = every.iter().map(|rule| rule.code).collect();
    let hint = match spelling::nearest(code, &codes) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "`netpol check --rules` lists them".to_owned(),
    };
    bail!("there is no rule `{code}`\n  {hint}")
}

fn list(out: &mut dyn Write) -> anyhow::Result<Exit> {
    let mut columns = Columns::new(&["RULE", "SEVERITY", "FINDS"]);
    for rule in rules::every() {
        columns.row([
            rule.code.to_owned(),
            rule.severity.to_string(),
            rule.summary.to_owned(),
        ]);
    }
    columns.write(out, "")?;
    Ok(Exit::Done)
}
