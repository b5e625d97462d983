//! `netpol uninstall`: takes all enforcement off the host.

use std::io::Write;
use std::path::PathBuf;

use super::Exit;
use crate::config::{self, Config};
use crate::datapath::pins::PinsError;
use crate::datapath::uninstall::{RemovedHook, UninstallError, uninstall};
use crate::gate::{self, GateState};
use crate::printable::printable;

/// Take all enforcement and everything pinned off this host
///
/// netpold must be stopped: it would put it all back. The gate is released too. Manifests,
/// configuration and state stay. From then on every container can reach everything again.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  systemctl disable --now netpold && netpol uninstall")]
pub struct Uninstall {
    /// The daemon's configuration, for its pin directory
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The pin directory itself, whatever the configuration says
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pin_directory: Option<PathBuf>,
}

impl Uninstall {
    pub(super) fn run(&self, out: &mut dyn Write) -> anyhow::Result<Exit> {
        // A pin directory of its own says nothing of a gate.
        let (directory, config) = match &self.pin_directory {
            Some(directory) => (directory.clone(), None),
            None => {
                let config = config::load(self.config.as_deref())?;
                (config.datapath.pin_directory.clone(), Some(config))
            }
        };
        let shown = directory.display().to_string();
        let removed = match uninstall(&directory) {
            Ok(removed) => removed,
            Err(UninstallError::Pins(PinsError::Absent(_))) => {
                writeln!(
                    out,
                    "nothing to remove: nothing is pinned at `{}`",
                    printable(&shown)
                )?;
                remove_gate(out, config.as_ref())?;
                return Ok(Exit::Done);
            }
            Err(error) => return Err(error.into()),
        };
        for hook in &removed.hooks {
            writeln!(out, "detached {}", named(hook))?;
        }
        for path in &removed.paths {
            writeln!(out, "removed {}", printable(&path.display().to_string()))?;
        }
        remove_gate(out, config.as_ref())?;
        for hook in &removed.lingering {
            anstream::eprintln!("the kernel still shows our program: {}", named(hook));
        }
        // What lingers is unpinned: the kernel is taking it off.
        Ok(Exit::answer(removed.lingering.is_empty()))
    }
}

/// The gate's table, and what it keeps in the state directory.
fn remove_gate(out: &mut dyn Write, config: Option<&Config>) -> anyhow::Result<()> {
    let Some(config) = config else {
        return Ok(());
    };
    let table = &config.gate.table;
    let released = match gate::Kernel::open(table).and_then(|mut kernel| kernel.release()) {
        Ok(released) => released,
        // A kernel without nftables has none.
        Err(_) if !GateState::at(&config.state.directory).is_installed() => false,
        Err(error) => return Err(error.into()),
    };
    if released {
        writeln!(out, "removed the gate (table bridge {table})")?;
    }
    for path in GateState::at(&config.state.directory).forget()? {
        writeln!(out, "removed {}", printable(&path.display().to_string()))?;
    }
    Ok(())
}

fn named(hook: &RemovedHook) -> String {
    let name = match &hook.interface {
        Some(name) => printable(name).into_owned(),
        None => format!("interface {} (gone)", hook.ifindex),
    };
    let inside = match hook.namespace {
        Some(inode) => format!(" in the network namespace net:[{inode}]"),
        None => String::new(),
    };
    format!("{name} {}{inside}", hook.hook.label())
}
