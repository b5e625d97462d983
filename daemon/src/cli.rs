//! `netpol`: the command people type. One file a verb.
//!
//! stdout is data, stderr is talk; a broken pipe is success; [`Exit`] lists the
//! exit codes. Verbs get the world from a [`source`], and write through what
//! [`main`] hands them, never straight to stdout.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::api::client::DEFAULT_SOCKET;
use crate::printable::printable;

mod audit;
mod check;
mod completions;
mod diff;
mod doctor;
mod endpoints;
mod exit;
mod explain;
mod findings;
mod gate;
mod get;
mod junit;
mod man;
mod matrix;
mod object;
mod observe;
mod output;
mod page;
mod reference;
mod scope;
mod selector;
mod source;
mod status;
mod test;
mod uninstall;
mod verdict;
mod wait;

pub use doctor::CHECKS;
pub use exit::Exit;
use source::Source;

/// Kubernetes NetworkPolicy for hosts that are not Kubernetes.
///
/// netpol asks the netpold that runs on this host, or, with --manifests, works
/// offline and without root from a directory of manifests.
#[derive(Debug, Parser)]
#[command(
    name = "netpol",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    after_help = EXITS
)]
pub struct Cli {
    /// The socket of netpold
    #[arg(long, global = true, env = "NETPOLD_SOCKET", value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// Work offline, from the manifests in this directory, or from this one file
    #[arg(long, global = true, value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

const EXITS: &str = "\
Exit codes:
  0  as asked
  1  the answer is 'no': denied, invalid, falls short
  2  it could not be done: usage, no daemon, no right, nothing to answer from

Examples:
  netpol check /etc/netpold/manifests
  netpol verdict --from web/frontend --to payments/api-server --port 8080
  netpol matrix --manifests ./manifests --port 5432
  netpol diff ./manifests
  netpol observe -f --verdict dropped";

#[derive(Debug, Subcommand)]
enum Verb {
    Check(check::Check),
    Verdict(verdict::Verdict),
    Explain(explain::Explain),
    Matrix(matrix::Matrix),
    Diff(diff::Diff),
    Get(get::Get),
    Status(status::Status),
    Doctor(doctor::Doctor),
    Wait(wait::Wait),
    Observe(observe::Observe),
    Audit(audit::Audit),
    Test(test::Test),
    Gate(gate::Gate),
    Uninstall(uninstall::Uninstall),
    Completions(completions::Completions),
    Man(man::Man),
}

/// Runs what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() {
                Exit::Failed
            } else {
                Exit::Done
            };
            // A reader of the help that went away is no failure.
            let _ = error.print();
            return exit.into();
        }
    };
    let mut out = anstream::stdout().lock();
    let exit = run(&cli, &mut out).and_then(|exit| {
        out.flush()?;
        Ok(exit)
    });
    match exit {
        Ok(exit) => exit.into(),
        Err(error) if is_broken_pipe(&error) => Exit::Done.into(),
        Err(error) => {
            // The text may hold names that containers chose.
            for (number, line) in message(&error).lines().enumerate() {
                let label = if number == 0 { "error: " } else { "" };
                // Nowhere is left to say that stderr is gone.
                let _ = writeln!(anstream::stderr(), "{label}{}", printable(line));
            }
            Exit::Failed.into()
        }
    }
}

/// Runs one verb.
///
/// # Errors
/// When it could not be done.
pub fn run(cli: &Cli, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let source = Source::chosen(cli);
    match &cli.verb {
        Verb::Check(verb) => verb.run(out),
        Verb::Verdict(verb) => verb.run(&source, out),
        Verb::Explain(verb) => verb.run(&source, out),
        Verb::Audit(verb) => verb.run(&source, out),
        Verb::Matrix(verb) => verb.run(&source, out),
        Verb::Diff(verb) => verb.run(&source, out),
        Verb::Get(verb) => verb.run(&source, out),
        Verb::Status(verb) => verb.run(cli.client("status")?, out),
        Verb::Doctor(verb) => verb.run(&cli.client("doctor")?, out),
        Verb::Wait(verb) => verb.run(&cli.client("wait")?, out),
        Verb::Observe(verb) => verb.run(&cli.client("observe")?, out),
        Verb::Test(verb) => verb.run(cli, &cli.client("test")?, out),
        Verb::Gate(verb) => verb.run(out),
        Verb::Uninstall(verb) => verb.run(out),
        Verb::Completions(verb) => verb.run(out),
        Verb::Man(verb) => verb.run(out),
    }
}

impl Cli {
    /// The daemon, for the verbs that mean nothing without one.
    fn client(&self, verb: &str) -> anyhow::Result<crate::api::Client> {
        if self.manifests.is_some() {
            anyhow::bail!("`netpol {verb}` asks the daemon: it has no meaning with --manifests");
        }
        Ok(crate::api::Client::new(&self.socket))
    }
}

/// Waits for what the daemon answers.
fn wait_for<T, E>(answer: impl Future<Output = Result<T, E>>) -> anyhow::Result<T>
where
    anyhow::Error: From<E>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(answer)?)
}

/// The whole chain, less the causes that a message already quotes.
fn message(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match (text.is_empty(), text.contains(&cause)) {
            (true, _) => cause,
            (false, true) => text,
            (false, false) => format!("{text}: {cause}"),
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Colour goes to a terminal alone, and never where NO_COLOR is set.
fn stdout_has_color() -> bool {
    io::stdout().is_terminal()
        && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
}

fn stderr_has_color() -> bool {
    io::stderr().is_terminal()
        && anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never
}

#[cfg(test)]
mod tests;
