//! `netpol man`: the manual pages, from the same sources as `--help`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::roff::{Roff, roman};

use super::{Cli, Exit};
use crate::args::NetpoldArguments;
use crate::{cni, oci};

/// Write the manual pages to a directory
///
/// `netpol.1`, one page for each verb, and those of section 8: `netpold`, `netpold-oci`, `netpold-cni`.
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
        for help in [oci::HELP, cni::HELP] {
            plain(help, &self.directory)?;
        }
        writeln!(out, "{shown}")?;
        Ok(Exit::Done)
    }
}

fn page(
    command: &clap::Command,
    name: &str,
    section: &str,
    directory: &Path,
) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name)
        .section(section)
        .render(&mut text)?;
    write(&text, name, section, directory)
}

/// The page of a program that others call, which has no command line of people's: the text that it prints itself.
fn plain(help: &str, directory: &Path) -> anyhow::Result<()> {
    let (title, text) = help.split_once("\n\n").unwrap_or((help, ""));
    let name = title.split(':').next().unwrap_or_default();
    let mut roff = Roff::new();
    roff.control("TH", [name, "8"])
        .control("SH", ["NAME"])
        .text([roman(title.replacen(": ", " - ", 1))])
        .control("SH", ["DESCRIPTION"])
        .control("nf", []);
    for line in text.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    write(roff.render().as_bytes(), name, "8", directory)
}

fn write(text: &[u8], name: &str, section: &str, directory: &Path) -> anyhow::Result<()> {
    let path = directory.join(format!("{name}.{section}"));
    fs::write(&path, text).with_context(|| format!("can't write `{}`", path.display()))
}
