//! `netpol matrix`: who reaches whom.

use std::collections::BTreeSet;
use std::io::Write;

use anyhow::ensure;
use netpol_engine::matrix::{self, Matrix as Reachability, Pair};
use netpol_engine::policy::ObjectName;

use super::Exit;
use super::output::{Columns, Output, width};
use super::reference::PortArguments;
use super::scope::Scope;
use super::source::Source;
use crate::printable::printable;

mod graph;
mod table;

/// Who reaches whom, on one port
///
/// Every ordered pair of different Pods: rows open the connection, columns are
/// asked. Pods that reach, and are reached by, the same ones share a row. With -n
/// or -l, the pairs of which at least one end is meant.
///
/// Pods that have IPv4 and IPv6 are asked about IPv4; below the table stand those
/// between whom IPv6 gets another answer.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  netpol matrix --port 8080
  netpol matrix --port 53/UDP -n payments
  netpol matrix --manifests ./manifests --port 5432 -o json
  netpol matrix --port 443 -o dot | dot -Tsvg > reach.svg")]
pub struct Matrix {
    #[command(flatten)]
    port: PortArguments,
    #[command(flatten)]
    scope: Scope,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Form,
}

/// The form of a matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Form {
    /// For people: by groups of Pods that act alike.
    #[default]
    Table,
    /// For people: every pair.
    Wide,
    /// For programs: every pair.
    Json,
    /// For programs and people: every pair.
    Yaml,
    /// For spreadsheets: every pair.
    Csv,
    /// For Graphviz: by groups.
    Dot,
    /// For Markdown: a Mermaid flowchart, by groups.
    Mermaid,
}

impl Matrix {
    pub(super) fn run(&self, source: &Source, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let listing = match source.listing() {
            Ok(listing) => listing,
            Err(none) => return none.exit(),
        };
        let world = &listing.world;
        let (protocol, port) = self.port.resolve(world, |_| true)?;
        let mut matrix = matrix::matrix(world, protocol, port)?;
        if self.scope.is_narrow() {
            let meant: BTreeSet<&ObjectName> = world
                .pods
                .iter()
                .filter(|(name, pod)| {
                    let namespace = self.scope.named();
                    namespace.is_none_or(|wanted| name.namespace == wanted)
                        && self.scope.selects(&pod.labels)
                })
                .map(|(name, _)| name)
                .collect();
            matrix.narrow(|name| meant.contains(name));
        }
        let is_empty = matrix.pairs().next().is_none();
        match self.output {
            Form::Json => Output::Json.value(out, &matrix).map(|_| ())?,
            Form::Yaml => Output::Yaml.value(out, &matrix).map(|_| ())?,
            Form::Csv => csv(&matrix, out)?,
            Form::Dot => graph::dot(&matrix, out)?,
            Form::Mermaid => graph::mermaid(&matrix, out)?,
            Form::Table | Form::Wide if is_empty => {}
            Form::Table => {
                table::write(&matrix, width(), out)?;
                table::over_ipv6(&matrix, width(), out)?;
            }
            Form::Wide => {
                list(&matrix).write(out, "")?;
                table::over_ipv6(&matrix, width(), out)?;
            }
        }
        ensure!(
            !is_empty,
            "no pair of Pods to ask about\n  \
             offline, manifests of Pods or of workloads (Deployment and its like) stand for the containers"
        );
        Ok(Exit::Done)
    }
}

fn list(matrix: &Reachability) -> Columns {
    let mut columns = Columns::new(&["FROM", "TO", "PROTOCOL", "PORT", "ALLOWED"]);
    for Pair { from, to, allowed } in matrix.pairs() {
        columns.row([
            from.to_string(),
            to.to_string(),
            matrix.protocol.to_string(),
            matrix.port.to_string(),
            table::yes(allowed).to_owned(),
        ]);
    }
    columns
}

/// RFC 4180, less its line ends: what reads it here wants `\n`.
fn csv(matrix: &Reachability, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "from,to,protocol,port,allowed")?;
    for Pair { from, to, allowed } in matrix.pairs() {
        let (from, to) = (field(&from.to_string()), field(&to.to_string()));
        let Reachability { protocol, port, .. } = matrix;
        writeln!(out, "{from},{to},{protocol},{port},{allowed}")?;
    }
    Ok(())
}

/// A text as a field, of one line. A spreadsheet takes what begins with one of these signs for a
/// formula, unless a quote goes before it.
fn field(text: &str) -> String {
    let text = printable(text);
    let text = if text.starts_with(['=', '+', '-', '@']) {
        format!("'{text}")
    } else {
        text.into_owned()
    };
    if text.contains(['"', ',']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests;
