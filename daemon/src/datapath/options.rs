//! What the kernel's side is opened with: the part of the configuration that it needs, as plain values.

use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;

use netpol_abi::connection::{TIMEOUTS, default_timeouts};
use netpol_abi::limits;

use super::attach::Mechanism;

/// How to open the kernel's side.
#[derive(Clone, Debug)]
pub struct Options {
    /// `[datapath] pin-directory`.
    pub pin_directory: PathBuf,
    /// Sizes of maps that are made; pinned ones keep theirs.
    pub sizes: Sizes,
    /// Connections that one endpoint may have opened, in each family.
    pub flow_share: u32,
    /// Ticks that idle connections are kept, by [`netpol_abi::connection::Timeout`].
    pub timeouts: [u32; TIMEOUTS],
    /// By what senders' stamps are multiplied in tables that are made ([`netpol_abi::tables::stamp_key`]).
    pub stamp_key: u16,
    /// How to attach; `None`: TCX where the kernel has it.
    pub mechanism: Option<Mechanism>,
}

impl Options {
    /// The defaults, for a pin directory.
    #[must_use]
    pub fn new(pin_directory: impl Into<PathBuf>) -> Self {
        Self {
            pin_directory: pin_directory.into(),
            sizes: Sizes::default(),
            flow_share: limits::FLOWS4 / 4,
            timeouts: default_timeouts(),
            stamp_key: random(),
            mechanism: None,
        }
    }
}

/// Entries of the maps whose size is a matter of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Exact addresses per family.
    pub addresses: u32,
    /// Prefixes per family.
    pub prefixes: u32,
    /// Verdicts.
    pub verdicts: u32,
    /// Spilled blocks of port ranges.
    pub port_blocks: u32,
    /// IPv4 connections.
    pub flows4: u32,
    /// IPv6 connections.
    pub flows6: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            addresses: limits::ADDRESSES,
            prefixes: limits::PREFIXES,
            verdicts: limits::VERDICTS,
            port_blocks: limits::PORT_BLOCKS,
            flows4: limits::FLOWS4,
            flows6: limits::FLOWS6,
        }
    }
}

impl Sizes {
    pub(super) const fn by_name(&self) -> [(&'static str, u32); 8] {
        [
            ("ADDRESSES4", self.addresses),
            ("ADDRESSES6", self.addresses),
            ("PREFIXES4", self.prefixes),
            ("PREFIXES6", self.prefixes),
            ("VERDICTS", self.verdicts),
            ("PORT_BLOCKS", self.port_blocks),
            ("FLOWS4", self.flows4),
            ("FLOWS6", self.flows6),
        ]
    }
}

/// Differs from one set of tables to the next. It is no secret: it keeps daemons apart that share a host.
fn random() -> u16 {
    RandomState::new().hash_one(std::process::id()) as u16
}
