//! The loaded programs: one set for all of the host's interfaces, and one more for each that is inside
//! another network namespace. Those know by a constant which interface they are for, as its index
//! there may be another one's here.
//!
//! All sets use the same pinned maps. A set takes some milliseconds to load, and lives as long as it is
//! attached somewhere.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use aya::maps::MapError;
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader};
use netpol_abi::limits::FIRST_INSIDE;
use thiserror::Error;

use super::PROGRAMS;
use super::hook::Hook;
use super::maps::{self, MAPS};
use super::pins::{Layout, Stage};
use super::requirements;

/// Why programs could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
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
}

/// Entries of maps by name: to make, or as they are.
pub(super) type Entries = Vec<(&'static str, u32)>;

/// The sets of programs of one daemon.
pub(super) struct Programs {
    here: Ebpf,
    /// By the interface's number.
    inside: BTreeMap<u32, Ebpf>,
    layout: Layout,
    stage: Stage,
    sizes: Entries,
}

impl Programs {
    /// Loads the set for the host's interfaces, over these maps, which are made where they are not there.
    pub(super) fn load(layout: Layout, stage: Stage, sizes: Entries) -> Result<Self, LoadError> {
        Ok(Self {
            here: load(&layout, stage, &sizes, 0)?,
            inside: BTreeMap::new(),
            layout,
            stage,
            sizes,
        })
    }

    /// The maps are the current ones from now on.
    pub(super) const fn settled(&mut self) {
        self.stage = Stage::Current;
    }

    /// Are the maps pinned where a further set looks for them? It would make others.
    pub(super) fn has_maps(&self) -> bool {
        MAPS.iter()
            .all(|map| self.layout.map(self.stage, map.name).exists())
    }

    /// The program of a hook of an interface, by its number.
    pub(super) fn of(
        &mut self,
        number: u32,
        hook: Hook,
    ) -> Result<&mut SchedClassifier, LoadError> {
        if number < FIRST_INSIDE {
            return of(&mut self.here, hook);
        }
        let set = match self.inside.entry(number) {
            Entry::Occupied(set) => set.into_mut(),
            Entry::Vacant(place) => {
                place.insert(load(&self.layout, self.stage, &self.sizes, number)?)
            }
        };
        of(set, hook)
    }

    /// Lets go of the set of an interface inside; what is attached stays.
    pub(super) fn forget(&mut self, number: u32) {
        self.inside.remove(&number);
    }
}

fn of(programs: &mut Ebpf, hook: Hook) -> Result<&mut SchedClassifier, LoadError> {
    programs
        .program_mut(hook.program())
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::NoProgram(hook.program()))
}

/// Loads a set for one interface of another namespace, or, as 0, for all of the host's.
fn load(
    layout: &Layout,
    stage: Stage,
    sizes: &[(&'static str, u32)],
    interface: u32,
) -> Result<Ebpf, LoadError> {
    let mut loader = EbpfLoader::new();
    for spec in &MAPS {
        loader.map_pin_path(spec.name, layout.map(stage, spec.name));
    }
    for (name, entries) in sizes {
        loader.map_max_entries(name, *entries);
    }
    let coarse = u32::from(requirements::has_coarse_clock());
    loader.override_global("COARSE_CLOCK", &coarse, true);
    loader.override_global("INTERFACE", &interface, true);
    let mut programs = loader.load(PROGRAMS).map_err(load_error)?;
    for hook in Hook::BOTH {
        let loaded = of(&mut programs, hook)?.load();
        loaded.map_err(|source| program_error(hook, source))?;
    }
    Ok(programs)
}

fn load_error(error: EbpfError) -> LoadError {
    let refused = match &error {
        EbpfError::MapError(error) => is_no_right(maps::errno(error)),
        EbpfError::ProgramError(error) => no_right(error),
        _ => false,
    };
    if refused {
        LoadError::NoRight
    } else {
        LoadError::Load(Box::new(error))
    }
}

fn program_error(hook: Hook, error: ProgramError) -> LoadError {
    if no_right(&error) {
        LoadError::NoRight
    } else {
        LoadError::Program {
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
            LoadError::NoRight
        ));
        assert!(matches!(
            refused(nix::errno::Errno::ENOMEM),
            LoadError::Load(_)
        ));
    }
}
