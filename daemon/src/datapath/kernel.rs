//! Opens the kernel's side: checks, lock, maps made or adopted, programs loaded.
//!
//! A pinned set of maps with this build's layout is adopted as it is, connections
//! included. One of another layout goes on enforcing through the programs that are attached,
//! while a new set is filled beside it (`maps-next`); [`Kernel::settle`] replaces it
//! once every link has moved. There is no moment at which an attached interface is
//! without a program, and fresh maps know no interface: they hold everything.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use netpol_abi::connection::TICK_SHIFT;
use netpol_abi::limits;
use netpol_abi::tables::{Control, stamp_key};
use thiserror::Error;

use super::attach::{Adopted, AttachError, Attachments, Mechanism};
use super::counters::CounterTable;
use super::events::EventRing;
use super::flows::{FlowTables, coarse_clock};
use super::maps::{self, MapsError, Opener};
use super::options::Options;
use super::pins::{self, Layout, Lock, PinsError, Stage};
use super::programs::{Entries, LoadError, Programs};
use super::requirements::{self, Lack, Requirement};
use super::tables::KernelTables;
use super::wire::Wire;

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

/// What fresh maps say before they are filled: no interface is known, so every packet of
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
        .set(0, &Wire(control), 0)
        .map_err(|source| MapsError::Access {
            name: "CONTROL",
            source,
        })?;
    Ok(())
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
