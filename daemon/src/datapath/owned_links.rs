//! What is pinned, held by this process as well: a pin that other software removes, or a BPF file system
//! that is unmounted, takes nothing off while the daemon runs, and what is missing is pinned again
//! before it ends.
//!
//! Owns the daemon's own descriptors of links. Called by `attach`.

use std::collections::BTreeMap;

use aya::maps::MapData;
use aya::programs::links::FdLink;
use thiserror::Error;

use super::hook::Hook;
use super::maps::MAPS;
use super::pins::{Layout, Lock, PinsError, Stage};

/// Why something is not pinned. It is in force, and ends with the daemon.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The pin directory.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The kernel.
    #[error("`{path}` can't be pinned: {why}")]
    Pin {
        /// Where to.
        path: String,
        /// What the kernel said.
        why: String,
    },
}

/// The BPF links that this daemon holds open, by interface and hook.
#[derive(Default)]
pub(super) struct OwnedLinks {
    links: BTreeMap<(u32, Hook), FdLink>,
    /// Of a pin directory that was made again; dropped with the daemon.
    lock: Option<Lock>,
}

impl OwnedLinks {
    /// Holds a pinned link, in the place of what was held for that hook.
    pub(super) fn keep(&mut self, ifindex: u32, hook: Hook, link: FdLink) {
        self.links.insert((ifindex, hook), link);
    }

    /// Lets go of what was held for a hook: without its pin it ends.
    pub(super) fn release(&mut self, ifindex: u32, hook: Hook) {
        self.links.remove(&(ifindex, hook));
    }

    /// Is the link of that hook held?
    pub(super) fn has(&self, ifindex: u32, hook: Hook) -> bool {
        self.links.contains_key(&(ifindex, hook))
    }

    /// The hooks whose links are held.
    pub(super) fn hooks(&self) -> impl Iterator<Item = (u32, Hook)> {
        self.links.keys().copied()
    }

    /// Pins what is missing: links, and the maps with these numbers. True: something was.
    ///
    /// # Errors
    /// The first that could not be pinned.
    pub(super) fn restore(&mut self, layout: &Layout, maps: &[u32]) -> Result<bool, RestoreError> {
        let links: Vec<(u32, Hook)> = self
            .links
            .keys()
            .filter(|(ifindex, hook)| !layout.link(*ifindex, *hook).exists())
            .copied()
            .collect();
        let has_maps = MAPS
            .iter()
            .all(|map| layout.map(Stage::Current, map.name).exists());
        if links.is_empty() && has_maps {
            return Ok(false);
        }
        let is_new = !layout.root().exists();
        layout.create()?;
        if is_new {
            self.lock = Some(Lock::take(layout)?);
        }
        for (ifindex, hook) in links {
            let path = layout.link(ifindex, hook);
            let Some(link) = self.links.remove(&(ifindex, hook)) else {
                continue;
            };
            // A link that can't be pinned is closed by that, and attached again.
            let pinned = link.pin(&path).map_err(|error| failed(&path, &error))?;
            self.links.insert((ifindex, hook), FdLink::from(pinned));
        }
        for id in maps {
            let Ok(map) = MapData::from_id(*id) else {
                continue;
            };
            let Ok(info) = map.info() else { continue };
            let Some(name) = MAPS.iter().map(|map| map.name).find(|name| is(name, &info)) else {
                continue;
            };
            let path = layout.map(Stage::Current, name);
            if !path.exists() {
                map.pin(&path).map_err(|error| failed(&path, &error))?;
            }
        }
        Ok(true)
    }
}

/// The kernel keeps fifteen letters of a name (`BPF_OBJ_NAME_LEN`).
fn is(name: &str, info: &aya::maps::MapInfo) -> bool {
    const KEPT: usize = 15;
    info.name_as_str() == Some(&name[..name.len().min(KEPT)])
}

fn failed(path: &std::path::Path, error: &dyn std::fmt::Display) -> RestoreError {
    RestoreError::Pin {
        path: path.display().to_string(),
        why: error.to_string(),
    }
}
