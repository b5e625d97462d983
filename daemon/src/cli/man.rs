//! `netpol man`: the manual pages, from the same source as `--help`.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;

use super::{Cli, Exit};

/// Write the manual pages to a directory
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
        page(&command, "netpol", &self.directory)?;
        for verb in command.get_subcommands() {
            let name = format!("netpol-{}", verb.get_name());
            page(verb, &name, &self.directory)?;
        }
        writeln!(out, "{shown}")?;
        Ok(Exit::Done)
    }
}

fn page(command: &clap::Command, name: &str, directory: &std::path::Path) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name)
        .render(&mut text)?;
    let path = directory.join(format!("{name}.1"));
    fs::write(&path, text).with_context(|| format!("can't write `{}`", path.display()))
}
