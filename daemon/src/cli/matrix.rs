//! `netpol matrix`: who reaches whom.

use std::collections::BTreeSet;
use std::io::Write;

use netpol_engine::matrix::{self, Matrix as Reachability, Pair};
use netpol_engine::policy::ObjectName;

use super::Exit;
use super::output::{Columns, Form, Output};
use super::scope::Scope;
use super::source::Source;
use super::verdict::Port;

/// Pods beyond which a square does not fit a terminal, and pairs are listed.
const SQUARE: usize = 12;

/// Who reaches whom, on one port
///
/// Every ordered pair of different Pods: rows open the connection, columns are
/// asked. With -n or -l, the pairs of which at least one end is meant.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  netpol matrix --port 8080
  netpol matrix --port 53 --protocol UDP -n payments
  netpol matrix --manifests ./manifests --port 5432 -o json")]
pub struct Matrix {
    #[command(flatten)]
    port: Port,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    form: Form,
}

impl Matrix {
    pub(super) fn run(&self, source: &Source, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let listing = match source.listing() {
            Ok(listing) => listing,
            Err(none) => return none.exit(),
        };
        let world = &listing.world;
        let mut matrix = matrix::matrix(world, self.port.protocol, self.port.port);
        if self.scope.is_narrow() {
            let meant: BTreeSet<&ObjectName> = world
                .pods
                .iter()
                .filter(|(name, pod)| {
                    let namespace = self.scope.namespace.as_ref();
                    namespace.is_none_or(|wanted| name.namespace == *wanted)
                        && self.scope.selects(&pod.labels)
                })
                .map(|(name, _)| name)
                .collect();
            matrix
                .pairs
                .retain(|pair| meant.contains(&pair.from) || meant.contains(&pair.to));
        }
        if self.form.output.value(out, &matrix)? {
            return Ok(Exit::Done);
        }
        let pods: BTreeSet<&ObjectName> = matrix.pairs.iter().map(|pair| &pair.from).collect();
        if pods.is_empty() {
            anstream::eprintln!("no pair of Pods");
        } else if self.form.output == Output::Wide || pods.len() > SQUARE || self.scope.is_narrow()
        {
            list(&matrix).write(out, "")?;
        } else {
            square(&matrix, &pods).write(out, "")?;
        }
        Ok(Exit::Done)
    }
}

fn list(matrix: &Reachability) -> Columns {
    let mut columns = Columns::new(&["FROM", "TO", "PROTOCOL", "PORT", "ALLOWED"]);
    for Pair { from, to, allowed } in &matrix.pairs {
        columns.row([
            from.to_string(),
            to.to_string(),
            matrix.protocol.to_string(),
            matrix.port.to_string(),
            yes(*allowed).to_owned(),
        ]);
    }
    columns
}

fn square(matrix: &Reachability, pods: &BTreeSet<&ObjectName>) -> Columns {
    let mut columns = Columns::default();
    let corner = format!("{}/{}", matrix.port, matrix.protocol);
    columns.row(std::iter::once(corner).chain(pods.iter().map(ToString::to_string)));
    // Pairs are sorted by (from, to), and a Pod with itself is left out.
    let mut pairs = matrix.pairs.iter();
    for from in pods {
        let cells: Vec<String> = pods
            .iter()
            .map(|to| {
                if to == from {
                    "-".to_owned()
                } else {
                    pairs
                        .next()
                        .map_or("?", |pair| yes(pair.allowed))
                        .to_owned()
                }
            })
            .collect();
        columns.row(std::iter::once(from.to_string()).chain(cells));
    }
    columns
}

const fn yes(allowed: bool) -> &'static str {
    if allowed { "yes" } else { "no" }
}
