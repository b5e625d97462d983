//! A file of connections and what is expected of each: `netpol test FILE` tries them, `netpol verdict --expect FILE` asks
//! the policies.

use std::path::Path;

use anyhow::{Context as _, ensure};
use netpol_engine::policy::Protocol;
use serde::Deserialize;

use crate::cli::reference::Reference;
use crate::cli::source;

/// Bytes of a file.
const LARGEST: usize = 16 << 20;

/// The file. Cases of the conformance suite carry more beside `probes`; what
/// stands in one probe is checked.
#[derive(Debug, Deserialize)]
struct File {
    probes: Vec<Written>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    from: String,
    to: String,
    #[serde(default = "tcp")]
    protocol: String,
    port: u16,
    allow: bool,
}

fn tcp() -> String {
    Protocol::Tcp.to_string()
}

/// One of them.
#[derive(Debug)]
pub struct Expectation {
    /// Where it stands: `` `FILE`: probes[3] ``.
    pub place: String,
    /// The end that opens the connection.
    pub from: Reference,
    /// The end that is asked.
    pub to: Reference,
    /// By which protocol.
    pub protocol: Protocol,
    /// The destination port.
    pub port: u16,
    /// Is it to arrive?
    pub allow: bool,
}

/// Reads a file; `-` is stdin.
///
/// # Errors
/// It can't be read, or says something that is no expectation.
pub fn read(path: &Path) -> anyhow::Result<Vec<Expectation>> {
    let text = source::read(path)?;
    let shown = text.name.clone();
    let text = text
        .as_str()
        .with_context(|| format!("`{shown}` is not UTF-8"))?;
    ensure!(text.len() <= LARGEST, "`{shown}` is too large");
    let file: File = serde_saphyr::from_str(text)
        .map_err(|error| anyhow::anyhow!("`{shown}` is no list of probes: {error}"))?;
    let numbered = file.probes.into_iter().enumerate();
    numbered
        .map(|(number, written)| {
            let place = format!("`{shown}`: probes[{number}]");
            let end = |text: &str| {
                let end = text.parse::<Reference>();
                end.map_err(|why| anyhow::anyhow!("{place}: {why}"))
            };
            Ok(Expectation {
                from: end(&written.from)?,
                to: end(&written.to)?,
                protocol: written.protocol.parse().with_context(|| place.clone())?,
                port: written.port,
                allow: written.allow,
                place,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_of_probes_may_be_a_conformance_case() {
        let text =
            "title: x\nprobes:\n  - {from: a/b, to: 'ip:192.0.2.1', port: 80, allow: false}\n";
        let file: File = serde_saphyr::from_str(text).unwrap();
        assert_eq!(file.probes[0].protocol, "TCP");
        let typo = "probes:\n  - {from: a/b, to: c/d, port: 80, alow: false, allow: true}\n";
        assert!(serde_saphyr::from_str::<File>(typo).is_err());
    }
}
