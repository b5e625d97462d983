//! `netpol status`: what is enforced, and everything that is not.

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;

use super::Exit;
use super::findings::plural;
use super::output::{Columns, Form, Output, paint, width};
use super::page::Page;
use crate::api::Client;
use crate::api::client::ClientError;
use crate::api::wire::{EndpointStatus, GateStatus, HealthItem, Severity, Status as Known};
use crate::config;
use crate::datapath::pins::Layout;
use crate::health;
use crate::printable::printable;

/// Show what is enforced, and what is not
///
/// The verdict first, then each problem with its code and what to do, the worst first; then
/// endpoints, policies, how it is attached, and how full the tables are. Without a daemon: what
/// the kernel still enforces.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 1 where a problem is an error: a file is rejected, a container is unprotected, an
engine does not answer, an interface has been unidentified for 30 seconds, and so on. Exit code
2 where there is no daemon.

Examples:
  netpol status
  netpol status -o json | jq -r '.problems[] | [.severity, .code, .subject] | @tsv'")]
pub struct Status {
    /// The daemon's configuration: it names the pins that are looked at where no daemon answers
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

impl Status {
    pub(super) fn run(&self, client: Client, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let status = match super::wait_for(client.status()) {
            Ok(status) => status,
            Err(error) => return self.without_daemon(error, out),
        };
        if !self.form.output.value(out, &status)? {
            write(out, &status, self.form.output == Output::Wide)?;
        }
        Ok(Exit::answer(!status.falls_short()))
    }

    /// What the kernel still enforces, where no daemon answers; the error, where that is another one.
    fn without_daemon(&self, error: anyhow::Error, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let Some(ClientError::NoDaemon { path, .. } | ClientError::Silent { path }) =
            error.downcast_ref::<ClientError>()
        else {
            return Err(error);
        };
        let config = config::load(self.config.as_deref())?;
        let directory = &config.datapath.pin_directory;
        let pins = directory.display();
        let layout = Layout::new(directory)?;
        let interfaces = layout.enforced();
        let text = if !nix::unistd::geteuid().is_root() {
            "only root can see whether policy stays in force".to_owned()
        } else if layout.is_empty() {
            format!("nothing is enforced: nothing is pinned at `{pins}`")
        } else {
            format!(
                "policy stays in force as it was on {}, pinned at `{pins}`; changes of manifests and containers are not \
                 taken up, and new containers wait behind the gate",
                plural(interfaces.len(), "interface")
            )
        };
        let item = health::NO_DAEMON.about(
            format!("no netpold answers on {}", path.display()),
            text,
            "`systemctl start netpold`; `journalctl -u netpold` says why it stopped",
        );
        let known = Known {
            problems: vec![item.clone()],
            ..Known::default()
        };
        if !self.form.output.value(out, &known)? {
            writeln!(out, "{}", paint("NOT RUNNING", false))?;
            write_item(out, &item)?;
        }
        Ok(Exit::Failed)
    }
}

/// The verdict stands first, then what is wrong and what to do: it is why people look.
fn write(out: &mut dyn Write, status: &Known, wide: bool) -> std::io::Result<()> {
    let datapath = &status.datapath;
    writeln!(
        out,
        "{}: netpold {}, {}, {}",
        verdict(status),
        printable(&status.version),
        plural(status.endpoints.len(), "endpoint"),
        match status.policies.len() {
            1 => "1 policy".to_owned(),
            count => format!("{count} policies"),
        }
    )?;
    for item in &status.problems {
        write_item(out, item)?;
    }
    if !status.problems.is_empty() {
        writeln!(out)?;
    }
    writeln!(
        out,
        "mode {}, attached by {}, generation {}",
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
    section(
        out,
        "Unidentified interfaces (nothing passes yet)",
        &["INTERFACE", "INDEX", "REASON"],
        status.unidentified.iter().map(|found| {
            vec![
                found.interface.clone(),
                found.ifindex.to_string(),
                found.reason.clone(),
            ]
        }),
    )?;
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

/// `enforcing`, or how many problems there are.
fn verdict(status: &Known) -> String {
    let count = |severity| {
        let items = status.problems.iter();
        items.filter(|item| item.severity == severity).count()
    };
    let counted = [Severity::Error, Severity::Warning, Severity::Note].map(|severity| {
        let count = count(severity);
        (count > 0).then(|| plural(count, severity.name()))
    });
    let counted: Vec<String> = counted.into_iter().flatten().collect();
    let is_sound = !status.falls_short();
    let verdict = match (is_sound, status.datapath.mode == "audit") {
        (false, _) => "FALLS SHORT",
        (true, true) => "AUDITING",
        (true, false) => "ENFORCING",
    };
    let verdict = paint(verdict, is_sound);
    match counted.is_empty() {
        true => verdict,
        false => format!("{verdict} ({})", counted.join(", ")),
    }
}

/// A problem, in lines that fit a terminal.
pub(super) fn write_item(out: &mut dyn Write, item: &HealthItem) -> std::io::Result<()> {
    let start = format!("{} [{}]", item.severity.name(), item.code);
    let text = match item.subject.is_empty() {
        true => item.text.clone(),
        false => format!("{}: {}", item.subject, item.text),
    };
    // A line is one line for grep(1).
    let columns = match std::io::stdout().is_terminal() {
        true => width(),
        false => usize::MAX,
    };
    let mut page = Page { out, columns };
    page.problem(item.severity, &start, &text)?;
    if !item.remedy.is_empty() {
        page.line(1, &format!("help: {}", item.remedy))?;
    }
    Ok(())
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
