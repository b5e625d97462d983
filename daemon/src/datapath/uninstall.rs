//! Takes all enforcement of one pin directory off the host, without a daemon.
//!
//! What is ours is what is pinned there (TCX links, marks of clsact filters): nothing is
//! recognised by name, so another netpold's interfaces stay as they are. The clsact
//! qdisc itself stays where we used one: others may have filters on it, and without a filter
//! it does nothing. Interfaces inside containers are found by what is kept of them there.

use std::collections::BTreeMap;
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
use super::within::{Location, Spot, is_inside};

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
    /// The interface's index, in the namespace that it is in.
    pub ifindex: u32,
    /// Its name; `None`: it was no more.
    pub interface: Option<String>,
    /// The inode of its network namespace, where that is not this one.
    pub namespace: Option<u64>,
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
    let spots = Spots::read(&layout)?;
    for (number, hook) in Layout::hooks(&layout.links())? {
        let path = layout.link(number, hook);
        let program = PinnedLink::from_pin(&path)
            .ok()
            .and_then(|link| FdLink::from(link).info().ok())
            .map(|info| info.program_id());
        if pins::remove(&path)? {
            removed.paths.push(path);
        }
        detaching.push((number, spots.hook(number, hook), program));
    }
    for (number, hook) in Layout::hooks(&layout.marks())? {
        let found = spots.hook(number, hook);
        spots
            .at(number, |spot| remove_filter(spot, hook))?
            .transpose()?;
        let path = layout.mark(number, hook);
        if pins::remove(&path)? {
            removed.paths.push(path);
        }
        removed.hooks.push(found);
    }
    let deadline = Instant::now() + DETACH_TIMEOUT;
    for (number, found, program) in detaching {
        let is_detached = spots.at(number, |spot| {
            is_detached(spot, found.hook, program, deadline)
        });
        if is_detached?.unwrap_or(true) {
            removed.hooks.push(found);
        } else {
            removed.lingering.push(found);
        }
    }
    for path in spots.paths(&layout) {
        if pins::remove(&path)? {
            removed.paths.push(path);
        }
    }
    for stage in [Stage::Current, Stage::Next] {
        removed.paths.extend(remove_maps(&layout, stage)?);
    }
    let directories = [
        layout.links(),
        layout.marks(),
        layout.inside(),
        layout.root().to_owned(),
    ];
    for directory in directories {
        if pins::remove(&directory)? {
            removed.paths.push(directory);
        }
    }
    Ok(removed)
}

/// Where interfaces are.
struct Spots(BTreeMap<u32, (Location, Option<PathBuf>)>);

impl Spots {
    fn read(layout: &Layout) -> Result<Self, PinsError> {
        let locations = layout.locations()?.into_iter();
        Ok(Self(
            locations
                .map(|(number, location)| (number, (location, location.find())))
                .collect(),
        ))
    }

    /// Does something where the interface with this number is; `None`: that is no more.
    fn at<T: Send>(
        &self,
        number: u32,
        act: impl FnOnce(Spot) -> T + Send,
    ) -> Result<Option<T>, AttachError> {
        if !is_inside(number) {
            return Ok(Some(act(Spot::here(number))));
        }
        let Some((location, Some(file))) = self.0.get(&number) else {
            return Ok(None);
        };
        let ifindex = location.ifindex;
        Ok(location.inside(file, || act(Spot { number, ifindex }))?)
    }

    fn hook(&self, number: u32, hook: Hook) -> RemovedHook {
        let location = self.0.get(&number).map(|(location, _)| location);
        RemovedHook {
            ifindex: location.map_or(number, |location| location.ifindex),
            interface: self
                .at(number, |spot| interface_name(spot.ifindex))
                .ok()
                .flatten()
                .flatten(),
            namespace: location.map(|location| location.namespace),
            hook,
        }
    }

    fn paths(&self, layout: &Layout) -> impl Iterator<Item = PathBuf> {
        let locations = self.0.iter();
        locations.map(|(number, (location, _))| layout.location(*number, *location))
    }
}

/// Waits until the kernel no longer shows a program on its hook.
fn is_detached(spot: Spot, hook: Hook, program: Option<u32>, deadline: Instant) -> bool {
    let Some(program) = program else {
        return true;
    };
    loop {
        // An interface that is no more can't be asked.
        let shown = SchedClassifier::query_tcx(spot.ifindex, hook.tc(spot.number))
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
