//! The loaded programs: one set for the host's interfaces, and one for those that are inside other network
//! namespaces, with a small pair before it for each of them. Those know by a constant which interface they are
//! for, as its index there may be another one's here, and go on to the set by a table of programs.
//!
//! Both sets use the same pinned maps. Verifying one takes a processor some hundred milliseconds; the second is
//! loaded with the first interface that needs it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use aya::maps::{MapError, ProgramArray};
use aya::pin::PinError;
use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfError, EbpfLoader};
use netpol_abi::limits::{FIRST_INSIDE, FIRST_LOOPBACK};
use thiserror::Error;

use super::hook::Hook;
use super::maps::{self, MAPS};
use super::pins::{Layout, Stage};
use super::requirements;
use super::{INSIDE, PROGRAMS};

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
        /// The program's name.
        program: &'static str,
        /// The end of what was said; a verifier's log can have millions of lines.
        end: String,
    },
    /// The object lacks a program: a broken build.
    #[error("the program `{0}` is missing")]
    NoProgram(&'static str),
    /// Likewise, the table.
    #[error("the table `{0}` is missing")]
    NoTable(&'static str),
}

/// Entries of maps by name: to make, or as they are.
pub(super) type Entries = Vec<(&'static str, u32)>;

/// The table by which the pairs go on. Pinned beside the maps: the kernel empties it when no process holds it.
const SHARED: &str = "SHARED";

/// The sets of programs of one daemon.
pub(super) struct Programs {
    here: Ebpf,
    /// For interfaces inside, once there is one.
    shared: Option<Ebpf>,
    /// What leads there, by the interface's number.
    inside: BTreeMap<u32, Ebpf>,
    layout: Layout,
    stage: Stage,
    sizes: Entries,
}

impl Programs {
    /// Loads the set for the host's interfaces, over these maps, which are made where they are not there.
    pub(super) fn load(layout: Layout, stage: Stage, sizes: Entries) -> Result<Self, LoadError> {
        Ok(Self {
            here: load(&layout, stage, &sizes, false)?,
            shared: None,
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
        let names = MAPS.iter().map(|map| map.name);
        names
            .chain((!self.inside.is_empty()).then_some(SHARED))
            .all(|name| self.layout.map(self.stage, name).exists())
    }

    /// Pins the table once more, if other software unpinned it. True: it was unpinned.
    pub(super) fn restore(&self) -> Result<bool, PinError> {
        let path = self.layout.map(self.stage, SHARED);
        let held = self.inside.values().next();
        let table = held.and_then(|pair| pair.map(SHARED));
        let Some(table) = table.filter(|_| !path.exists()) else {
            return Ok(false);
        };
        table.pin(&path)?;
        Ok(true)
    }

    /// The program that judges at a hook of an interface, by its number.
    pub(super) fn judge(
        &mut self,
        number: u32,
        hook: Hook,
    ) -> Result<&mut SchedClassifier, LoadError> {
        let judges = if number < FIRST_INSIDE {
            &mut self.here
        } else {
            shared(&mut self.shared, &self.layout, self.stage, &self.sizes)?
        };
        classifier(judges, number, hook)
    }

    /// The program of a hook of an interface, by its number.
    pub(super) fn program(
        &mut self,
        number: u32,
        hook: Hook,
    ) -> Result<&mut SchedClassifier, LoadError> {
        if number < FIRST_INSIDE {
            return classifier(&mut self.here, number, hook);
        }
        let shared = shared(&mut self.shared, &self.layout, self.stage, &self.sizes)?;
        let pair = match self.inside.entry(number) {
            Entry::Occupied(pair) => pair.into_mut(),
            Entry::Vacant(place) => {
                let path = self.layout.map(self.stage, SHARED);
                place.insert(lead(&path, number, shared)?)
            }
        };
        classifier(pair, number, hook)
    }

    /// Lets go of the pair of an interface inside; what is attached stays.
    pub(super) fn forget(&mut self, number: u32) {
        self.inside.remove(&number);
    }
}

/// The program for a hook of the interface with this number.
fn classifier(
    programs: &mut Ebpf,
    number: u32,
    hook: Hook,
) -> Result<&mut SchedClassifier, LoadError> {
    let name = hook.program(number);
    programs
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(LoadError::NoProgram(name))
}

/// What a set for interfaces inside has: a program for each hook of any of them, each by a number of such an interface
/// and its place in the table by which they are gone on to.
const INSIDE_HOOKS: [(u32, Hook, u32); 3] = [
    (FIRST_INSIDE, Hook::Egress, Hook::Egress.number()),
    (FIRST_INSIDE, Hook::Ingress, Hook::Ingress.number()),
    // `ASKS` in `ebpf-programs/src/bin/inside.rs`.
    (FIRST_LOOPBACK, Hook::Egress, 2),
];

/// The set for interfaces inside, loaded with the first of them.
fn shared<'s>(
    known: &'s mut Option<Ebpf>,
    layout: &Layout,
    stage: Stage,
    sizes: &[(&'static str, u32)],
) -> Result<&'s mut Ebpf, LoadError> {
    match known {
        Some(shared) => Ok(shared),
        none => Ok(none.insert(load(layout, stage, sizes, true)?)),
    }
}

/// Loads the pair of an interface inside, and has it go on to this set.
fn lead(path: &Path, number: u32, shared: &mut Ebpf) -> Result<Ebpf, LoadError> {
    let mut loader = EbpfLoader::new();
    loader.map_pin_path(SHARED, path);
    loader.override_global("INTERFACE", &number, true);
    let mut pair = loader.load(INSIDE).map_err(load_error)?;
    let failed = |error| load_error(EbpfError::MapError(error));
    let table = pair.map_mut(SHARED).ok_or(LoadError::NoTable(SHARED))?;
    let mut table = ProgramArray::try_from(table).map_err(failed)?;
    for (of_number, hook, index) in INSIDE_HOOKS {
        let program = classifier(shared, of_number, hook)?.fd();
        let program = program.map_err(|source| program_error(of_number, hook, source))?;
        table.set(index, program, 0).map_err(failed)?;
    }
    for hook in Hook::for_interface(number) {
        verify(&mut pair, number, *hook)?;
    }
    Ok(pair)
}

/// Loads a set, for the host's interfaces or for those inside.
fn load(
    layout: &Layout,
    stage: Stage,
    sizes: &[(&'static str, u32)],
    inside: bool,
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
    let number = u32::from(inside);
    loader.override_global("INSIDE", &number, true);
    let mut programs = loader.load(PROGRAMS).map_err(load_error)?;
    if inside {
        for (number, hook, _) in INSIDE_HOOKS {
            verify(&mut programs, number, hook)?;
        }
    } else {
        for hook in Hook::BOTH {
            verify(&mut programs, 0, hook)?;
        }
    }
    Ok(programs)
}

/// Has the kernel verify a program.
fn verify(programs: &mut Ebpf, number: u32, hook: Hook) -> Result<(), LoadError> {
    let loaded = classifier(programs, number, hook)?.load();
    loaded.map_err(|source| program_error(number, hook, source))
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

fn program_error(number: u32, hook: Hook, error: ProgramError) -> LoadError {
    if no_right(&error) {
        LoadError::NoRight
    } else {
        LoadError::Program {
            program: hook.program(number),
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
