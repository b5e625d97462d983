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

use aya::maps::MapError;
use aya::programs::{ProgramError, SchedClassifier};
use aya::{EbpfError, EbpfLoader};
use netpol_abi::connection::{TICK_SHIFT, TIMEOUTS, default_timeouts};
use netpol_abi::limits;
use netpol_abi::tables::Control;
use thiserror::Error;

use super::PROGRAMS;
use super::attach::{Adopted, AttachError, Attachments, Mechanism};
use super::counters::CounterTable;
use super::events::EventRing;
use super::flows::{FlowTables, coarse_clock};
use super::hook::Hook;
use super::maps::{self, MAPS, MapsError, Opener};
use super::pins::{self, Layout, Lock, PinsError, Stage};
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
    /// No right.
    #[error(
        "no right to load programs into the kernel: run as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_PERFMON"
    )]
    NoRight,
    /// The object could not be loaded.
    #[error("the programs could not be loaded: {0}")]
    Load(#[source] Box<EbpfError>),
    /// The verifier refused a program.
    #[error("the kernel refused the program `{program}`: {end}")]
    Program {
        /// Which one.
        program: &'static str,
        /// The end of what was said; a verifier's log can have millions of lines.
        end: String,
    },
    /// The object lacks a program: a broken build.
    #[error("the program `{0}` is missing")]
    NoProgram(&'static str),
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
        let mut programs = load(&layout, stage, &sizes)?;
        for hook in Hook::BOTH {
            let program: &mut SchedClassifier = programs
                .program_mut(hook.program())
                .and_then(|program| program.try_into().ok())
                .ok_or(OpenError::NoProgram(hook.program()))?;
            program
                .load()
                .map_err(|source| program_error(hook, source))?;
        }
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
            flows: FlowTables::open(&opener, options.timeouts, Arc::clone(&lock))?,
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
        Ok(adopted)
    }
}

/// Entries of maps by name: to make, or as they are.
type Entries = Vec<(&'static str, u32)>;

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

fn load(
    layout: &Layout,
    stage: Stage,
    sizes: &[(&'static str, u32)],
) -> Result<aya::Ebpf, OpenError> {
    let mut loader = EbpfLoader::new();
    for spec in &MAPS {
        loader.map_pin_path(spec.name, layout.map(stage, spec.name));
    }
    for (name, entries) in sizes {
        loader.map_max_entries(name, *entries);
    }
    let coarse = u32::from(requirements::has_coarse_clock());
    loader.override_global("COARSE_CLOCK", &coarse, true);
    loader.load(PROGRAMS).map_err(load_error)
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

fn load_error(error: EbpfError) -> OpenError {
    let refused = match &error {
        EbpfError::MapError(error) => is_no_right(maps::errno(error)),
        EbpfError::ProgramError(error) => no_right(error),
        _ => false,
    };
    if refused {
        OpenError::NoRight
    } else {
        OpenError::Load(Box::new(error))
    }
}

fn program_error(hook: Hook, error: ProgramError) -> OpenError {
    if no_right(&error) {
        OpenError::NoRight
    } else {
        OpenError::Program {
            program: hook.program(),
            end: end(&error.to_string()).to_owned(),
        }
    }
}

/// The last lines, as many as help.
fn end(text: &str) -> &str {
    const LINES: usize = 12;
    let text = text.trim_end();
    let start = text.rmatch_indices('\n').nth(LINES - 1);
    start.map_or(text, |(at, _)| &text[at + 1..])
}

fn no_right(error: &ProgramError) -> bool {
    match error {
        // A program that the verifier refuses gives EACCES and a log; a caller
        // without the right gets EPERM, and none.
        ProgramError::LoadError { io_error, .. } => is_no_right(io_error.raw_os_error()),
        ProgramError::SyscallError(call) => is_no_right(call.io_error.raw_os_error()),
        ProgramError::MapError(MapError::CreateError { io_error, .. }) => {
            is_no_right(io_error.raw_os_error())
        }
        _ => false,
    }
}

fn is_no_right(errno: Option<i32>) -> bool {
    errno.map(nix::errno::Errno::from_raw) == Some(nix::errno::Errno::EPERM)
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

    #[test]
    fn of_a_long_log_the_end_is_shown() {
        let log: String = (0..100).map(|line| format!("line {line}\n")).collect();
        assert_eq!(end(&log).lines().count(), 12);
        assert!(end(&log).starts_with("line 88\n") && end(&log).ends_with("line 99"));
        assert_eq!(end("short"), "short");
    }

    #[test]
    fn only_a_missing_right_is_called_one() {
        let refused = |errno: nix::errno::Errno| {
            load_error(EbpfError::MapError(MapError::CreateError {
                name: "CONTROL".to_owned(),
                io_error: errno.into(),
            }))
        };
        assert!(matches!(
            refused(nix::errno::Errno::EPERM),
            OpenError::NoRight
        ));
        assert!(matches!(
            refused(nix::errno::Errno::ENOMEM),
            OpenError::Load(_)
        ));
    }
}
