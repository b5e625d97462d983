//! Attaching to interfaces inside other network namespaces.
//!
//! A TCX link is replaced, looked after and taken off from here, as it knows its interface by itself; only to
//! make one, and for filters, a thread goes there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{AttachError, Attached, Attachments, Hook, pins, remove_filter};
use crate::datapath::pins::{Layout, PinsError};
use crate::datapath::within::{Location, Spot, Within};

/// What is known of interfaces inside other namespaces.
#[derive(Default)]
pub(super) struct Inside {
    /// By number: where each is.
    locations: BTreeMap<u32, Location>,
    /// By number: a file of the namespace, as it was told last.
    files: BTreeMap<u32, PathBuf>,
}

impl Inside {
    /// What an earlier daemon left.
    pub(super) fn read(layout: &Layout) -> Result<Self, PinsError> {
        Ok(Self {
            locations: layout.locations()?,
            files: BTreeMap::new(),
        })
    }

    /// Writes it down again.
    pub(super) fn restore(&self, layout: &Layout) -> Result<(), PinsError> {
        let mut locations = self.locations.iter();
        locations.try_for_each(|(number, location)| {
            pins::make_directory(&layout.location(*number, *location))
        })
    }

    fn remember(&mut self, layout: &Layout, number: u32, within: &Within) -> Result<(), PinsError> {
        let before = self.locations.insert(number, within.location);
        if let Some(before) = before.filter(|before| *before != within.location) {
            pins::remove(&layout.location(number, before))?;
        }
        self.files.insert(number, within.namespace.clone());
        pins::make_directory(&layout.location(number, within.location))
    }

    fn forget(&mut self, layout: &Layout, number: u32) -> Result<(), PinsError> {
        self.files.remove(&number);
        if let Some(location) = self.locations.remove(&number) {
            pins::remove(&layout.location(number, location))?;
        }
        Ok(())
    }
}

impl Attachments {
    /// Puts its programs on the interface with this number, or replaces what is there by them.
    /// `within`: where it is; without it, what is there already is all that can be seen to.
    ///
    /// # Errors
    /// As of [`Attachments::attach`].
    pub fn attach_within(
        &mut self,
        number: u32,
        within: Option<&Within>,
    ) -> Result<Attached, AttachError> {
        let before = self.within.locations.get(&number).copied();
        let is_there = within.is_none_or(|within| before == Some(within.location));
        if let Some(within) = within {
            self.within.remember(&self.layout, number, within)?;
        }
        if is_there
            && Hook::for_interface(number)
                .iter()
                .all(|hook| self.is_alive(number, *hook))
        {
            return Ok(Attached::Yes);
        }
        let Some(within) = within else {
            let is_marked = |hook: &Hook| self.layout.mark(number, *hook).exists();
            if Hook::for_interface(number).iter().all(is_marked) {
                return Ok(Attached::Yes);
            }
            self.forget(number)?;
            return Ok(Attached::Gone);
        };
        let spot = self.spot(number);
        let Within {
            namespace,
            location,
        } = within;
        match location.inside(namespace, || self.attach_to(spot))? {
            Some(done) => done,
            None => {
                self.forget(number)?;
                Ok(Attached::Gone)
            }
        }
    }

    /// The interface with this number.
    pub(super) fn spot(&self, number: u32) -> Spot {
        let inside = self.within.locations.get(&number);
        Spot {
            number,
            ifindex: inside.map_or(number, |location| location.ifindex),
        }
    }

    /// Is the link of this daemon's on its interface? Asked by replacing its program by itself.
    pub(super) fn is_alive(&mut self, number: u32, hook: Hook) -> bool {
        self.held.has(number, hook) && self.update_link(self.spot(number), hook).unwrap_or(false)
    }

    /// Puts a filter back where it was; `false`: it can't be. One whose container has not been found since
    /// the daemon started counts as there.
    pub(super) fn put_back_within(&mut self, number: u32, hook: Hook) -> bool {
        let spot = self.spot(number);
        let Some(file) = self.within.files.get(&number).cloned() else {
            return self.within.locations.contains_key(&number);
        };
        let Some(location) = self.within.locations.get(&number).copied() else {
            return false;
        };
        let put = location.inside(&file, || self.attach_clsact(spot, hook).is_ok());
        matches!(put, Ok(Some(true)))
    }

    /// Takes a filter off, if its namespace is still there.
    pub(super) fn remove_filter_within(&self, number: u32, hook: Hook) -> Result<(), AttachError> {
        let Some(location) = self.within.locations.get(&number) else {
            return Ok(());
        };
        let spot = self.spot(number);
        let told = self.within.files.get(&number).cloned();
        if let Some(file) = told.or_else(|| location.find()) {
            location
                .inside(&file, || remove_filter(spot, hook))?
                .transpose()?;
        }
        Ok(())
    }

    /// Forgets where an interface inside is.
    pub(super) fn forget_within(&mut self, number: u32) -> Result<(), AttachError> {
        self.programs.forget(number);
        Ok(self.within.forget(&self.layout, number)?)
    }
}
