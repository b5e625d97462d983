//! Opens the kernel's side: checks, lock, maps made or adopted, programs loaded.
//!
//! A pinned set of maps with this build's layout is adopted as it is, connections
//! included. One of another layout goes on enforcing through the programs that are attached,
//! while a new set is filled beside it (`maps-next`); [`Kernel::settle`] replaces it
//! once every link has moved. There is no moment at which an attached interface is
//! without a program, and fresh maps know no interface: they hold everything.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::PathBuf;
use std::sync::Arc;

use netpol_abi::connection::{TICK_SHIFT, TIMEOUTS, default_timeouts};
use netpol_abi::limits;
use netpol_abi::tables::{Control, stamp_key};
use thiserror::Error;

use super::attach::{Adopted, AttachError, Attachments, Mechanism};
use super::counters::CounterTable;
use super::events::EventRing;
use super::flows::{FlowTables, coarse_clock};
use super::maps::{self, MapsError, Opener};
use super::pins::{self, Layout, Lock, PinsError, Stage};
use super::programs::{Entries, LoadError, Programs};
use super::requirements::{self, Lack, Requirement};
use super::tables::KernelTables;
use super::wire::Wire;

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
    const fn by_name(&self) -> [(&'static str, u32); 8] {
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

/// Why the kernel's side could not be opened. What was attached before still is.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The pin directory.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The kernel is too old, or built without something.
    #[error("the kernel lacks {}: Linux {} or later is needed", .0.feature, .0.since)]
    Missing(Requirement),
    /// Programs are preempted by one another.
    #[error(
        "this is a PREEMPT_RT kernel (/sys/kernel/realtime): two packets' programs may run on one processor at once, which netpold can't do with yet"
    )]
    Realtime,
    /// The programs.
    #[error(transparent)]
    Programs(#[from] LoadError),
    /// A map.
    #[error(transparent)]
    Maps(#[from] MapsError),
}

/// Where the tables come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was pinned: the tables are empty.
    Fresh,
    /// An earlier daemon's tables, with what they hold.
    Adopted,
    /// Empty tables beside an earlier daemon's of another layout, which still enforce.
    Replacing,
}

/// The kernel's side, in parts that can be moved to threads of their own. All of them
/// together hold the lock on the pin directory.
pub struct Kernel {
    /// Where the tables came from.
    pub origin: Origin,
    /// What the kernel lacks, and is done without.
    pub lacks: Vec<Lack>,
    /// Policy: written by plans, read back after a restart.
    pub tables: KernelTables,
    /// Programs on interfaces.
    pub attachments: Attachments,
    /// Reports.
    pub events: EventRing,
    /// Connections.
    pub flows: FlowTables,
    /// Packet counters.
    pub counters: CounterTable,
    layout: Layout,
}

impl Kernel {
    /// Makes or adopts the maps, and loads the programs. Attaches nothing and changes no
    /// verdict: [`Kernel::settle`] does, once the tables are filled.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: &Options) -> Result<Self, OpenError> {
        let layout = Layout::new(&options.pin_directory)?;
        layout.create()?;
        let lock = Arc::new(Lock::take(&layout)?);
        if let Some(requirement) = requirements::missing() {
            return Err(OpenError::Missing(requirement));
        }
        if requirements::is_realtime() {
            return Err(OpenError::Realtime);
        }
        let (origin, stage, sizes) = choose(&layout, options)?;
        let programs = Programs::load(layout.clone(), stage, sizes)?;
        let opener = Opener {
            layout: &layout,
            stage,
        };
        if origin != Origin::Adopted {
            close(&opener, options)?;
        }
        let mechanism = options.mechanism.unwrap_or_else(|| {
            if requirements::has_tcx() {
                Mechanism::Tcx
            } else {
                Mechanism::Clsact
            }
        });
        Ok(Self {
            origin,
            lacks: requirements::lacks(),
            tables: KernelTables::open(&opener, options, Arc::clone(&lock))?,
            events: EventRing::new(opener.ring()?, Arc::clone(&lock)),
            flows: FlowTables::open(
                &opener,
                options.timeouts,
                options.flow_share,
                Arc::clone(&lock),
            )?,
            counters: CounterTable::new(opener.counters()?, Arc::clone(&lock)),
            attachments: Attachments::new(programs, layout.clone(), mechanism, lock),
            layout,
        })
    }

    /// Moves every attached hook to this daemon's programs, and makes the set of maps
    /// that they use the current one. To be called once, after the tables were filled.
    ///
    /// # Errors
    /// The first hook that could not be moved; the old maps stay then, for the programs
    /// that still use them, and a later call goes on.
    pub fn settle(&mut self) -> Result<Adopted, AttachError> {
        let adopted = self.attachments.adopt()?;
        let next = self.layout.maps(Stage::Next);
        if next.exists() {
            remove_maps(&self.layout, Stage::Current)?;
            let current = self.layout.maps(Stage::Current);
            fs::rename(&next, &current).map_err(|error| PinsError::io(&next, error))?;
        }
        self.attachments.settled();
        Ok(adopted)
    }
}

/// Which set of maps to use, and the sizes to make or expect.
fn choose(layout: &Layout, options: &Options) -> Result<(Origin, Stage, Entries), OpenError> {
    let wanted = || options.sizes.by_name().to_vec();
    let current = layout.maps(Stage::Current);
    let next = layout.maps(Stage::Next);
    if next.exists() {
        // An upgrade was cut short. Some links may already use the new set.
        if let Some(sizes) = maps::adoptable(layout, Stage::Next) {
            return Ok((Origin::Adopted, Stage::Next, sizes));
        }
        remove_maps(layout, Stage::Next)?;
    }
    if pins::entries(&current)?.is_empty() {
        return Ok((Origin::Fresh, Stage::Current, wanted()));
    }
    if let Some(sizes) = maps::adoptable(layout, Stage::Current) {
        return Ok((Origin::Adopted, Stage::Current, sizes));
    }
    pins::make_directory(&next)?;
    Ok((Origin::Replacing, Stage::Next, wanted()))
}

/// Unpins a set of maps and removes its directory; programs that use them keep them.
pub(super) fn remove_maps(layout: &Layout, stage: Stage) -> Result<Vec<PathBuf>, PinsError> {
    let directory = layout.maps(stage);
    let mut removed = Vec::new();
    for name in pins::entries(&directory)? {
        let path = directory.join(name);
        if pins::remove(&path)? {
            removed.push(path);
        }
    }
    if pins::remove(&directory)? {
        removed.push(directory);
    }
    Ok(removed)
}

/// What fresh maps say before anybody fills them: no interface is known, so every packet of
/// every attached one is held, whatever the flags.
fn close(opener: &Opener<'_>, options: &Options) -> Result<(), OpenError> {
    let control = Control {
        generation: 0,
        flags: [0, 0],
        flow_share: options.flow_share,
        layout: limits::LAYOUT_VERSION,
        since: (coarse_clock() >> TICK_SHIFT) as u32,
        stamp_key: stamp_key(options.stamp_key),
        ..Control::default()
    };
    opener
        .control()?
        .set(0, Wire(control), 0)
        .map_err(|source| MapsError::Access {
            name: "CONTROL",
            source,
        })?;
    Ok(())
}

/// Differs from one set of tables to the next. It is no secret: it keeps daemons apart that share a host.
fn random() -> u16 {
    RandomState::new().hash_one(std::process::id()) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::events::Events;

    #[test]
    fn the_parts_can_move_to_threads_of_their_own() {
        fn moves<T: Send + 'static>() {}
        moves::<KernelTables>();
        moves::<Attachments>();
        moves::<FlowTables>();
        moves::<CounterTable>();
        moves::<Events>();
        moves::<Kernel>();
    }
}
