//! `netpol status`: what is enforced, and everything that is not.

use std::io::Write;

use netpol_engine::policy::Mode;

use super::Exit;
use super::output::{Columns, Form, Output};
use crate::api::Client;
use crate::api::wire::{EndpointStatus, GateStatus, Status as Known, Unidentified};
use crate::printable::printable;

/// Show what is enforced, and what is not
///
/// Endpoints, policies, what is only audited, rejected files, containers that can't be
/// protected, how it is attached, and how full the tables are.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 1 where a file is rejected, a container is unprotected, or no engine has claimed a
container's interface for ten seconds.

Examples:
  netpol status
  netpol status -o json | jq '.rejected'")]
pub struct Status {
    #[command(flatten)]
    form: Form,
}

impl Status {
    pub(super) fn run(&self, client: Client, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let status = super::wait_for(client.status())?;
        if !self.form.output.value(out, &status)? {
            write(out, &status, self.form.output == Output::Wide)?;
        }
        Ok(Exit::answer(!status.falls_short()))
    }
}

/// What is wrong stands first: it is why people look.
fn write(out: &mut dyn Write, status: &Known, wide: bool) -> std::io::Result<()> {
    let datapath = &status.datapath;
    writeln!(
        out,
        "netpold {}: {} endpoints, {} policies, mode {}, attached by {}, generation {}",
        printable(&status.version),
        status.endpoints.len(),
        status.policies.len(),
        printable(&datapath.mode),
        printable(&datapath.attach),
        datapath.generation
    )?;
    for lack in &datapath.lacks {
        writeln!(out, "this kernel has {}", printable(lack))?;
    }
    write_gate(out, &status.gate)?;
    for runtime in &status.runtimes {
        let state = match (&runtime.error, runtime.connected) {
            (None, true) => "connected".to_owned(),
            (Some(problem), true) => format!("connected; {problem}"),
            (Some(error), false) => format!("not connected: {error}"),
            (None, false) => "not connected".to_owned(),
        };
        let engine = match runtime.socket.as_os_str().is_empty() {
            // A netpold of before says no socket.
            true => runtime.name.clone(),
            false => format!("{} at {}", runtime.name, runtime.socket.display()),
        };
        writeln!(out, "{}: {}", printable(&engine), printable(&state))?;
    }
    if !status.rejected.is_empty() {
        writeln!(out, "\nRejected files:")?;
        for rejected in &status.rejected {
            writeln!(
                out,
                "  {} ({})",
                printable(&rejected.file.display().to_string()),
                if rejected.previous_in_force {
                    "its last accepted version stays in force"
                } else {
                    "nothing of it is in force"
                }
            )?;
            for problem in &rejected.diagnostics {
                let field = problem.field.as_ref().map(|field| format!("{field}: "));
                writeln!(
                    out,
                    "    {}",
                    printable(&format!(
                        "{}:{}: {}: {}{}",
                        problem.line,
                        problem.column,
                        problem.severity,
                        field.unwrap_or_default(),
                        problem.message
                    ))
                )?;
            }
        }
    }
    section(
        out,
        "Unprotected containers",
        &["CONTAINER", "REASON"],
        status
            .unprotected
            .iter()
            .map(|found| vec![found.container.clone(), found.reason.clone()]),
    )?;
    write_unreached(out, status)?;
    let is_young = |found: &&Unidentified| {
        let mut old = status.unreached.iter();
        !old.any(|old| old.ifindex == found.ifindex && old.interface == found.interface)
    };
    section(
        out,
        "Interfaces that nobody has claimed yet",
        &["INTERFACE", "INDEX", "REASON"],
        status.unidentified.iter().filter(is_young).map(|found| {
            vec![
                found.interface.clone(),
                found.ifindex.to_string(),
                found.reason.clone(),
            ]
        }),
    )?;
    section(
        out,
        "Addresses claimed twice",
        &["ADDRESS", "HOLDER", "CANNOT-USE-IT"],
        status.conflicts.iter().map(|found| {
            vec![
                found.address.to_string(),
                found.holder.to_string(),
                found.other.to_string(),
            ]
        }),
    )?;
    section(
        out,
        "Only audited: what these would drop passes, and is reported",
        &["KIND", "NAME"],
        audited(status),
    )?;
    if !status.warnings.is_empty() {
        writeln!(out, "\nWarnings:")?;
        for warning in &status.warnings {
            writeln!(out, "  {}", printable(warning))?;
        }
    }
    let mut header = vec![
        "NAMESPACE",
        "NAME",
        "ISOLATED",
        "IP",
        "INTERFACES",
        "POLICIES",
    ];
    if wide {
        header.extend(["ID", "SLOT", "NETNS"]);
    }
    section(
        out,
        "Endpoints",
        &header,
        status.endpoints.iter().map(|endpoint| row(endpoint, wide)),
    )?;
    section(
        out,
        "Policies",
        &["NAME", "MODE", "SELECTS", "FILE"],
        status.policies.iter().map(|policy| {
            vec![
                policy.name.to_string(),
                policy.mode.name().to_owned(),
                policy.selects.to_string(),
                policy
                    .file
                    .as_ref()
                    .map_or_else(String::new, |file| file.display().to_string()),
            ]
        }),
    )?;
    section(
        out,
        "Tables",
        &["NAME", "USED", "LIMIT", "FULL"],
        status.tables.iter().map(|table| {
            vec![
                table.name.clone(),
                table.used.to_string(),
                table.limit.to_string(),
                percent(table.used, table.limit),
            ]
        }),
    )
}

fn write_gate(out: &mut dyn Write, gate: &GateStatus) -> std::io::Result<()> {
    if !gate.installed {
        let why = gate.why_not.as_deref().unwrap_or("not installed");
        return writeln!(out, "gate: none: {}", printable(why));
    }
    write!(
        out,
        "gate: installed ({}), {} interfaces ready, dropped {} frames from others and {} to others",
        printable(gate.scope.as_deref().unwrap_or_default()),
        gate.ready,
        gate.dropped.from,
        gate.dropped.to
    )?;
    if !gate.bridges.is_empty() {
        let bridges = gate.bridges.join(", ");
        write!(out, "; further bridges: {}", printable(&bridges))?;
    }
    writeln!(out)
}

/// Interfaces of containers that no engine has claimed, each with what to do.
fn write_unreached(out: &mut dyn Write, status: &Known) -> std::io::Result<()> {
    if status.unreached.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nInterfaces that no policy reaches:")?;
    for one in &status.unreached {
        let on = one.bridge.as_ref().map(|bridge| format!(" on {bridge}"));
        let what = format!(
            "{}{}: {}: {}",
            one.interface,
            on.unwrap_or_default(),
            one.traffic(),
            one.reason
        );
        writeln!(out, "  {}", printable(&what))?;
        let leads_to = one.leads_to.as_deref().unwrap_or("nobody who can be seen");
        writeln!(out, "    leads to: {}", printable(leads_to))?;
        writeln!(out, "    help: {}", printable(&one.help))?;
    }
    Ok(())
}

/// Namespaces, and policies of others.
fn audited(status: &Known) -> impl Iterator<Item = Vec<String>> {
    let namespaces = &status.audited_namespaces;
    let policies = status.policies.iter().filter(|policy| {
        policy.mode == Mode::Audit && !namespaces.contains(&policy.name.namespace)
    });
    let namespaces = namespaces
        .iter()
        .map(|name| vec!["Namespace".to_owned(), name.clone()]);
    namespaces
        .chain(policies.map(|policy| vec!["NetworkPolicy".to_owned(), policy.name.to_string()]))
}

/// Policies that an endpoint's row names.
const POLICIES_SHOWN: usize = 8;

fn row(endpoint: &EndpointStatus, wide: bool) -> Vec<String> {
    let isolated = match (endpoint.isolated.ingress, endpoint.isolated.egress) {
        (true, true) => "ingress,egress",
        (true, false) => "ingress",
        (false, true) => "egress",
        (false, false) => "no",
    };
    let interfaces: Vec<String> = endpoint
        .interfaces
        .iter()
        .map(|interface| {
            let missing = if interface.attached {
                ""
            } else {
                " (not attached)"
            };
            format!("{}{missing}", interface.name)
        })
        .collect();
    let addresses: Vec<String> = endpoint.addresses.iter().map(ToString::to_string).collect();
    // A row stays a row: `-o wide` and the list of policies have them all.
    let shown = if wide { usize::MAX } else { POLICIES_SHOWN };
    let mut policies: Vec<String> = endpoint
        .policies
        .iter()
        .take(shown)
        .map(|name| name.name.clone())
        .collect();
    if let Some(more) = endpoint.policies.len().checked_sub(shown)
        && more > 0
    {
        policies.push(format!("… {more} more"));
    }
    let mut row = vec![
        endpoint.namespace.clone(),
        endpoint.name.clone(),
        isolated.to_owned(),
        addresses.join(","),
        interfaces.join(","),
        policies.join(","),
    ];
    if wide {
        row.extend([
            endpoint.id.to_string(),
            endpoint.slot.to_string(),
            endpoint
                .netns
                .as_ref()
                .map_or_else(String::new, |path| path.display().to_string()),
        ]);
    }
    row
}

fn section(
    out: &mut dyn Write,
    title: &str,
    header: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> std::io::Result<()> {
    let mut columns = Columns::new(header);
    let mut any = false;
    for row in rows {
        any = true;
        columns.row(row);
    }
    if any {
        writeln!(out, "\n{title}:")?;
        columns.write(out, "  ")?;
    }
    Ok(())
}

fn percent(used: u64, limit: u64) -> String {
    if limit == 0 {
        return "-".to_owned();
    }
    format!("{}%", used.saturating_mul(100) / limit)
}
