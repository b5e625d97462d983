//! `netpol man`: the manual pages, from the same source as `--help`.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{Cli, Exit, NetpoldArguments};

/// Write the manual pages to a directory
///
/// `netpol.1`, one page for each verb, and `netpold.8`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  netpol man /usr/local/share/man/man1")]
pub struct Man {
    /// Where they go; made where it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Man {
    pub(super) fn run(&self, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let shown = self.directory.display();
        fs::create_dir_all(&self.directory).with_context(|| format!("can't make `{shown}`"))?;
        let mut command = Cli::command();
        command.build();
        page(&command, "netpol", "1", &self.directory)?;
        for verb in command.get_subcommands() {
            let name = format!("netpol-{}", verb.get_name());
            page(verb, &name, "1", &self.directory)?;
        }
        let daemon = NetpoldArguments::command();
        page(&daemon, "netpold", "8", &self.directory)?;
        writeln!(out, "{shown}")?;
        Ok(Exit::Done)
    }
}

fn page(
    command: &clap::Command,
    name: &str,
    section: &str,
    directory: &std::path::Path,
) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name)
        .section(section)
        .render(&mut text)?;
    let path = directory.join(format!("{name}.{section}"));
    fs::write(&path, text).with_context(|| format!("can't write `{}`", path.display()))
}
