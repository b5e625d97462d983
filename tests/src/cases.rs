//! The conformance cases: the format of `expect.yaml`, and what a case expects as a flat list.
//!
//! Reads `tests/conformance` and nothing else; a case that can't be read is a panic with its path.
//! Used by the live suite, and by the engine's offline one, which includes this file: so it
//! needs no crate but the engine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use netpol_engine::policy::{ObjectName, Protocol};
use serde::Deserialize;

/// `expect.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    #[serde(rename = "title")]
    _title: String,
    #[serde(rename = "why")]
    _why: String,
    #[serde(rename = "tests")]
    _tests: String,
    /// Single connections.
    #[serde(default)]
    pub probes: Vec<Probe>,
    /// As `probes`, where the API leaves the answer open.
    #[serde(default)]
    pub implementation_defined: Vec<Probe>,
    /// All pairs on one port.
    pub matrix: Option<Table>,
    /// The same for more than one port.
    #[serde(default)]
    pub matrices: Vec<Table>,
    /// Of invalid cases: the policies that are refused.
    #[serde(default)]
    pub rejected: Vec<String>,
}

/// One connection and its verdict.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Who opens it.
    pub from: String,
    /// Whom it is for.
    pub to: String,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The destination's port.
    pub port: u16,
    /// Does it get there?
    pub allow: bool,
}

/// Every ordered pair of different Pods on one port.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The destination's port.
    pub port: u16,
    /// The verdict of all pairs but those below.
    pub default: bool,
    /// Pairs with the opposite verdict.
    pub except: Vec<(ObjectName, ObjectName)>,
}

impl Expected {
    /// What the case in this folder expects.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        let path = folder.join("expect.yaml");
        serde_saphyr::from_str(&text(&path))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// All tables.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.matrices.iter().chain(&self.matrix)
    }

    /// Every single expectation, those of the tables among these Pods.
    #[must_use]
    pub fn expectations(&self, pods: &BTreeSet<ObjectName>) -> Vec<Probe> {
        let mut all = self.probes.clone();
        all.extend(self.implementation_defined.clone());
        for table in self.tables() {
            all.extend(
                table
                    .pairs(pods)
                    .into_iter()
                    .map(|(from, to, allow)| Probe {
                        from: from.to_string(),
                        to: to.to_string(),
                        protocol: table.protocol,
                        port: table.port,
                        allow,
                    }),
            );
        }
        all
    }
}

impl Table {
    /// The verdict of every pair among these Pods, sorted.
    #[must_use]
    pub fn pairs(&self, pods: &BTreeSet<ObjectName>) -> Vec<(ObjectName, ObjectName, bool)> {
        let except: BTreeSet<_> = self.except.iter().cloned().collect();
        assert_eq!(except.len(), self.except.len(), "an exception stands twice");
        let mut pairs = Vec::new();
        for from in pods {
            for to in pods.iter().filter(|to| *to != from) {
                let opposite = except.contains(&(from.clone(), to.clone()));
                pairs.push((from.clone(), to.clone(), self.default != opposite));
            }
        }
        pairs
    }
}

/// The folders of a kind (`cases`, `invalid`), sorted.
#[must_use]
pub fn folders(conformance: &Path, kind: &str) -> Vec<PathBuf> {
    let folder = conformance.join(kind);
    let mut folders: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap_or_else(|error| panic!("{error}")).path())
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "{}: no cases", folder.display());
    folders
}

/// The text of a file of a case.
#[must_use]
pub fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
