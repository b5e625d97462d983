//! `netpol gate`: the rule set that shuts containers' interfaces until netpold's programs are on them.
//! Asks no daemon: it is for the time in which there is none.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;

use super::Exit;
use crate::config::{self, Config, Enabled};
use crate::datapath::pins::Layout;
use crate::gate::{self, Contents, GateError, GateState, Kernel, Scope, rules};
use crate::links::Links;
use crate::printable::printable;
use crate::telemetry::systemd;

/// Shut containers' interfaces until netpold's programs are on them
///
/// A static nftables rule set drops the frames of every veth on a container engine's bridge that
/// netpold has not let through: netpold does so once its programs are on the interface. So
/// nothing passes before policy is in force, also while netpold is stopped, or has not started yet. Bridges
/// of others (libvirt, LXC, your own) are left alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 1 where the configuration has no gate, or it is not installed.

Examples:
  netpol gate status
  systemctl status netpold-gate        # its unit runs install and release
  nft list table bridge netpold        # what is in force, with counters")]
pub struct Gate {
    #[command(subcommand)]
    verb: Verb,
    /// The daemon's configuration
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install it, or replace what is there
    ///
    /// Interfaces that pass already go on passing. Where it was not installed since this host
    /// has booted, those are all that are there.
    Install,
    /// Take it away: what netpold does not enforce passes
    Release,
    /// Say what is installed, and what it dropped
    Status,
    /// Print the rules that `install` would load
    Rules {
        /// Those for a kernel that can't tell bridges (no `CONFIG_NFT_BRIDGE_META`)
        #[arg(long)]
        by_name: bool,
    },
}

impl Gate {
    pub(super) fn run(&self, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let config = match config::load(self.config.as_deref()) {
            Ok(config) => config,
            Err(error) if matches!(self.verb, Verb::Install) => {
                return as_before(&error.into(), out);
            }
            Err(error) => return Err(error.into()),
        };
        match self.verb {
            Verb::Install => install(&config, out),
            Verb::Release => release(&config, out),
            Verb::Status => status(&config, out),
            Verb::Rules { by_name } => {
                let scope = if by_name {
                    Scope::Names
                } else {
                    Scope::Bridges
                };
                let kept = GateState::at(&config.state.directory);
                let contents = Contents {
                    bridges: kept.bridges(),
                    namings: kept.namings(),
                    ..Contents::default()
                };
                let text = rules::render(&config.gate.table, scope, &contents);
                write!(out, "{text}")?;
                Ok(Exit::Done)
            }
        }
    }
}

/// The configuration can't be read. Where the gate was there before, it is installed as by default, so that
/// nothing starts open because of a slip; it is a failure all the same, for the operator to see.
fn as_before(error: &anyhow::Error, out: &mut dyn Write) -> anyhow::Result<Exit> {
    anstream::eprintln!("error: {}", printable(&format!("{error:#}")));
    let config = Config::default();
    if GateState::at(&config.state.directory).was_in_use() {
        anstream::eprintln!("help: the gate is installed as by default meanwhile");
        install(&config, out)?;
    }
    Ok(Exit::Failed)
}

fn install(config: &Config, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let kept = GateState::at(&config.state.directory);
    if let Some(why) = gate::why_not(config) {
        // What an earlier configuration has installed must not go on dropping. Another netpold's is not this one's.
        if kept.was_in_use() {
            release(config, out)?;
        }
        kept.unwanted().map_err(GateError::GateState)?;
        writeln!(out, "there is to be no gate: {why}")?;
        return Ok(Exit::Done);
    }
    let contents = Contents {
        ready: passing(config, &kept)?,
        bridges: kept.bridges(),
        namings: kept.namings(),
    };
    let table = &config.gate.table;
    match gate::install(table, &contents) {
        Ok(scope) => {
            writeln!(
                out,
                "installed {} (table bridge {table}): {} interfaces pass, others as netpold lets them",
                scope.label(),
                contents.ready.len()
            )?;
            if scope == Scope::Names {
                anstream::eprintln!(
                    "note: this kernel can't tell bridges (no CONFIG_NFT_BRIDGE_META): interfaces named as Docker names them are shut, and those named as CNI's plugins and netavark name them once netpold has seen a container behind such a name"
                );
            }
            match kept.installed() {
                Ok(()) => Ok(Exit::Done),
                Err(error) => {
                    let state = &config.state.directory;
                    let help = systemd::read_only_help("netpold-gate", state, &error);
                    let help = help.unwrap_or_else(|| "help: make room there".to_owned());
                    anstream::eprintln!(
                        "error: that the gate is installed can't be kept: `{}`: {error}\n{help}\nhelp: until it is installed once more, netpold restores it after a flush only while it runs",
                        state.display()
                    );
                    Ok(Exit::Failed)
                }
            }
        }
        Err(error) if config.gate.enabled == Enabled::Auto => {
            anstream::eprintln!(
                "there is no gate: {}\nhelp: containers that start while netpold does not run are not shut; `[gate] enabled = true` makes this an error",
                printable(&error.to_string())
            );
            Ok(Exit::Done)
        }
        Err(error) => Err(error).context("the gate can't be installed"),
    }
}

/// The interfaces that pass: those of the gate that is there, or was; else every interface that is here.
fn passing(config: &Config, kept: &GateState) -> anyhow::Result<BTreeSet<u32>> {
    let veths = Links::open()?.dump()?.veths;
    let there: BTreeSet<u32> = veths.iter().map(|veth| veth.ifindex).collect();
    let found = Kernel::open(&config.gate.table).and_then(|mut kernel| kernel.look());
    let passing = match found {
        Ok(Some(found)) => found.contents.ready,
        // It was flushed, or released, and netpold is not there to see it: its programs are.
        _ => {
            let layout = Layout::new(&config.datapath.pin_directory);
            let enforced = layout.map(|layout| layout.enforced()).unwrap_or_default();
            if !kept.is_installed() && !kept.is_followed() && enforced.is_empty() {
                return Ok(there);
            }
            enforced
        }
    };
    Ok(passing.intersection(&there).copied().collect())
}

fn release(config: &Config, out: &mut dyn Write) -> anyhow::Result<Exit> {
    // First, or netpold would take it for a loss.
    let was = GateState::at(&config.state.directory)
        .released()
        .map_err(GateError::GateState)?;
    let table = &config.gate.table;
    let released = match Kernel::open(table).and_then(|mut kernel| kernel.release()) {
        Ok(released) => released,
        // A kernel without nftables has none.
        Err(_) if !was => false,
        Err(error) => return Err(error.into()),
    };
    if released {
        writeln!(out, "released (table bridge {table})")?;
    } else {
        writeln!(out, "there is no gate to release (table bridge {table})")?;
    }
    Ok(Exit::Done)
}

fn status(config: &Config, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let table = &config.gate.table;
    let Some(found) = Kernel::open(table)?.look()? else {
        match gate::why_not(config) {
            Some(why) => writeln!(out, "not installed: {why}")?,
            None => writeln!(out, "not installed (table bridge {table})")?,
        }
        return Ok(Exit::No);
    };
    writeln!(
        out,
        "installed {} (table bridge {table})",
        found.scope.label()
    )?;
    if !found.whole {
        writeln!(
            out,
            "its rules were flushed: it shuts nothing; `netpol gate install`"
        )?;
    }
    let ready: Vec<String> = found.contents.ready.iter().map(u32::to_string).collect();
    writeln!(out, "ready (interface indices): {}", ready.join(" "))?;
    if !found.contents.bridges.is_empty() {
        let bridges: Vec<&str> = found.contents.bridges.iter().map(String::as_str).collect();
        writeln!(out, "further bridges: {}", printable(&bridges.join(" ")))?;
    }
    writeln!(
        out,
        "dropped: {} frames from interfaces that were not ready, {} to them",
        found.drops.from, found.drops.to
    )?;
    Ok(Exit::answer(found.whole))
}
