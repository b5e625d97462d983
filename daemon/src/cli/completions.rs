//! `netpol completions`: what a shell needs to complete the command line.

use std::io::Write;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Exit};

/// Write the completions of a shell to stdout
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  netpol completions bash > /usr/share/bash-completion/completions/netpol
  netpol completions zsh > /usr/share/zsh/site-functions/_netpol")]
pub struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, out: &mut dyn Write) -> anyhow::Result<Exit> {
        // To memory first: the generator panics where a pipe is closed.
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "netpol", &mut text);
        out.write_all(&text)?;
        Ok(Exit::Done)
    }
}
