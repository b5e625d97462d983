//! Takes all enforcement of one pin directory off the host, without a daemon.
//!
//! What is ours is what is pinned there (TCX links, marks of clsact filters): nothing is
//! recognised by name, so another netpold's interfaces stay as they are. The clsact
//! qdisc itself stays where we used one: others may have filters on it, and without a filter
//! it does nothing.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use aya::programs::SchedClassifier;
use aya::programs::links::{FdLink, PinnedLink};
use thiserror::Error;

use super::attach::{AttachError, DETACH_POLL, DETACH_TIMEOUT, interface_name, remove_filter};
use super::hook::Hook;
use super::kernel::remove_maps;
use super::pins::{self, Layout, Lock, PinsError, Stage};

/// Why not everything could be taken off.
#[derive(Debug, Error)]
pub enum UninstallError {
    /// The pin directory: absent, of another daemon, no right.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// A filter.
    #[error(transparent)]
    Filter(#[from] AttachError),
}

/// A hook that was enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedHook {
    /// The interface's index.
    pub ifindex: u32,
    /// Its name; `None`: it was no more.
    pub interface: Option<String>,
    /// Which hook.
    pub hook: Hook,
}

/// What was taken off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Hooks without our program now.
    pub hooks: Vec<RemovedHook>,
    /// Hooks on which the kernel still showed our program when the wait for it ended.
    pub lingering: Vec<RemovedHook>,
    /// Pins and directories that were removed.
    pub paths: Vec<PathBuf>,
}

/// Detaches every program pinned below `pin_directory` and removes all that is there.
///
/// # Errors
/// Refuses while a daemon holds the directory. What was removed before an error stays
/// removed; calling again goes on.
pub fn uninstall(pin_directory: &Path) -> Result<Removed, UninstallError> {
    let layout = Layout::new(pin_directory)?;
    let _lock = Lock::take(&layout)?;
    let mut removed = Removed::default();
    let mut detaching = Vec::new();
    for (ifindex, hook) in Layout::hooks(&layout.links())? {
        let path = layout.link(ifindex, hook);
        let program = PinnedLink::from_pin(&path)
            .ok()
            .and_then(|link| FdLink::from(link).info().ok())
            .map(|info| info.program_id());
        if pins::remove(&path)? {
            removed.paths.push(path);
        }
        let found = RemovedHook {
            ifindex,
            interface: interface_name(ifindex),
            hook,
        };
        detaching.push((found, program));
    }
    for (ifindex, hook) in Layout::hooks(&layout.marks())? {
        let interface = interface_name(ifindex);
        remove_filter(ifindex, hook)?;
        let path = layout.mark(ifindex, hook);
        if pins::remove(&path)? {
            removed.paths.push(path);
        }
        removed.hooks.push(RemovedHook {
            ifindex,
            interface,
            hook,
        });
    }
    let deadline = Instant::now() + DETACH_TIMEOUT;
    for (found, program) in detaching {
        if is_detached(&found, program, deadline) {
            removed.hooks.push(found);
        } else {
            removed.lingering.push(found);
        }
    }
    for stage in [Stage::Current, Stage::Next] {
        removed.paths.extend(remove_maps(&layout, stage)?);
    }
    for directory in [layout.links(), layout.marks(), layout.root().to_owned()] {
        if pins::remove(&directory)? {
            removed.paths.push(directory);
        }
    }
    Ok(removed)
}

/// Waits until the kernel no longer shows a program on its hook.
fn is_detached(found: &RemovedHook, program: Option<u32>, deadline: Instant) -> bool {
    let (Some(name), Some(program)) = (&found.interface, program) else {
        return true;
    };
    loop {
        let shown = SchedClassifier::query_tcx(name, found.hook.tc())
            .is_ok_and(|(_, programs)| programs.iter().any(|shown| shown.id() == program));
        if !shown {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(DETACH_POLL);
    }
}
