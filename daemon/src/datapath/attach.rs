//! The two programs on the two hooks of each interface.
//!
//! TCX links (Linux 6.6) are pinned, and replaced by updating the link: no packet
//! passes between the old program and the new one. Below 6.6 a clsact filter with a
//! fixed priority and handle does the same (`tc filter replace` swaps under RCU), and
//! an empty directory marks that it is ours.
//!
//! Attaching waits for RCU (8-16 ms a hook); call it off the event loop, the isolated
//! first. Replacing takes microseconds. Nothing is detached on drop. Interfaces are those of
//! the calling thread's network namespace, but for those that are [`within`] another one: a thread goes
//! there for as long as attaching takes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use aya::pin::PinError;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttach, TcError, TcHandle, qdisc_add_clsact,
};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier};
use netpol_abi::limits::FIRST_LOOPBACK;
use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use thiserror::Error;

use self::inside::Inside;
use super::hook::Hook;
use super::owned_links::{OwnedLinks, RestoreError};
use super::pins::{self, Layout, Lock, PinsError, Stage};
use super::programs::{LoadError, Programs};
use super::within::{Spot, is_inside};
use crate::netns::NamespaceError;

mod inside;

/// Before the filters of other software.
const PRIORITY: u16 = 1;
/// `np`: no other tool's automatic numbering gets there.
const HANDLE: TcHandle = TcHandle::new(0, 0x6e70);

/// The kernel detaches an unpinned link from a work queue, some RCU grace periods later;
/// until then the same program is refused on that hook (EEXIST).
pub(super) const DETACH_TIMEOUT: Duration = Duration::from_secs(2);
/// How often to look meanwhile.
pub(super) const DETACH_POLL: Duration = Duration::from_millis(2);

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Links (6.6 and later).
    Tcx,
    /// Filters of the clsact qdisc.
    Clsact,
}

/// Why a program is not on a hook.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The programs could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The maps of further programs are not pinned, and can't be.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The namespace that the interface is in.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel refused.
    #[error("{spot}, {}: {source}", hook.label())]
    Attach {
        /// The interface.
        spot: Spot,
        /// The hook.
        hook: Hook,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
    /// The link could not be pinned, and was taken back.
    #[error("{spot}, {}: the link could not be pinned: {source}", hook.label())]
    Pin {
        /// The interface.
        spot: Spot,
        /// The hook.
        hook: Hook,
        /// What the kernel said.
        source: PinError,
    },
    /// The pin directory.
    #[error(transparent)]
    Pins(#[from] PinsError),
}

/// What [`Attachments::attach`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Both hooks have this daemon's programs.
    Yes,
    /// The interface vanished meanwhile; nothing is left of it.
    Gone,
}

/// What [`Attachments::adopt`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Hooks whose program was replaced by this daemon's.
    pub swapped: Vec<(u32, Hook)>,
    /// Pins of interfaces that are no more, removed.
    pub stale: Vec<(u32, Hook)>,
}

/// Which hooks of an interface really have this daemon's programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Towards the container.
    pub ingress: bool,
    /// From the container.
    pub egress: bool,
}

impl Hooks {
    /// Is the interface enforced in both directions?
    #[must_use]
    pub const fn complete(self) -> bool {
        self.ingress && self.egress
    }

    fn set(&mut self, hook: Hook, value: bool) {
        match hook {
            Hook::Ingress => self.ingress = value,
            Hook::Egress => self.egress = value,
        }
    }
}

/// The programs of this daemon, and where they are attached.
pub struct Attachments {
    programs: Programs,
    layout: Layout,
    mechanism: Mechanism,
    held: OwnedLinks,
    within: Inside,
    _lock: Arc<Lock>,
}

impl Attachments {
    /// Takes loaded programs.
    pub(super) fn new(
        programs: Programs,
        layout: Layout,
        mechanism: Mechanism,
        lock: Arc<Lock>,
    ) -> Self {
        Self {
            programs,
            layout,
            mechanism,
            held: OwnedLinks::default(),
            within: Inside::default(),
            _lock: lock,
        }
    }

    /// How programs are attached on this kernel.
    #[must_use]
    pub const fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Puts its programs on an interface, or replaces what is there by them.
    ///
    /// # Errors
    /// Where the kernel refuses one: the other may be on. An interface that vanishes
    /// meanwhile is no error.
    pub fn attach(&mut self, ifindex: u32) -> Result<Attached, AttachError> {
        self.attach_to(Spot::here(ifindex))
    }

    /// The same in the calling thread's namespace, wherever that is.
    fn attach_to(&mut self, spot: Spot) -> Result<Attached, AttachError> {
        if interface_name(spot.ifindex).is_none() {
            self.forget(spot.number)?;
            return Ok(Attached::Gone);
        }
        for hook in Hook::for_interface(spot.number).iter().copied() {
            let done = match self.mechanism {
                Mechanism::Tcx => self.attach_tcx(spot, hook),
                Mechanism::Clsact => self.attach_clsact(spot, hook),
            };
            if let Err(error) = done {
                if interface_name(spot.ifindex).is_none() {
                    self.forget(spot.number)?;
                    return Ok(Attached::Gone);
                }
                return Err(error);
            }
        }
        Ok(Attached::Yes)
    }

    /// Takes both programs off an interface that is no longer ours, or is no more.
    ///
    /// # Errors
    /// What the kernel or the file system says.
    pub fn detach(&mut self, number: u32) -> Result<(), AttachError> {
        for hook in Hook::BOTH {
            self.held.release(number, hook);
            pins::remove(&self.layout.link(number, hook))?;
            let mark = self.layout.mark(number, hook);
            if mark.exists() {
                if is_inside(number) {
                    self.remove_filter_within(number, hook)?;
                } else {
                    remove_filter(Spot::here(number), hook)?;
                }
                pins::remove(&mark)?;
            }
        }
        self.forget_within(number)
    }

    /// Puts this daemon's programs where an earlier daemon's are, and drops the pins of
    /// interfaces that are no more. To be called once the tables are filled: from then
    /// on it is this daemon's programs and maps that decide.
    ///
    /// # Errors
    /// The first interface whose program could not be replaced; the others were tried. What
    /// was on that one is still on.
    pub fn adopt(&mut self) -> Result<Adopted, AttachError> {
        let mut adopted = Adopted::default();
        let mut first_error = None;
        self.within = Inside::read(&self.layout)?;
        for (number, hook) in Layout::hooks(&self.layout.links())? {
            match self.update_link(self.spot(number), hook) {
                Ok(true) => adopted.swapped.push((number, hook)),
                Ok(false) => {
                    self.held.release(number, hook);
                    pins::remove(&self.layout.link(number, hook))?;
                    adopted.stale.push((number, hook));
                }
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        for (ifindex, hook) in Layout::hooks(&self.layout.marks())? {
            // The place of an interface inside may be another interface's by now: its container tells, and until then
            // what is there stays.
            if is_inside(ifindex) {
                continue;
            }
            if interface_name(ifindex).is_none() {
                pins::remove(&self.layout.mark(ifindex, hook))?;
                adopted.stale.push((ifindex, hook));
                continue;
            }
            match self.attach_clsact(Spot::here(ifindex), hook) {
                Ok(()) => adopted.swapped.push((ifindex, hook)),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        first_error.map_or(Ok(adopted), Err)
    }

    /// Pins again what other software unpinned. True: something was. To be called from time to time: an
    /// unmounted file system gives no event.
    ///
    /// # Errors
    /// It can't be pinned. It is in force all the same, until the daemon ends.
    pub fn restore(&mut self) -> Result<bool, RestoreError> {
        let maps = self
            .program(Hook::Ingress)
            .ok()
            .and_then(|program| program.info().ok()?.map_ids().ok()?)
            .unwrap_or_default();
        let mut restored = self.held.restore(&self.layout, &maps)?;
        if restored {
            self.within.restore(&self.layout)?;
        }
        restored |= self.programs.restore().map_err(|error| RestoreError::Pin {
            path: self.layout.maps(Stage::Current).display().to_string(),
            why: error.to_string(),
        })?;
        Ok(restored)
    }

    /// The maps are the current ones from now on.
    pub(super) const fn settled(&mut self) {
        self.programs.settled();
    }

    /// The directories whose entries are pins.
    #[must_use]
    pub fn pinned(&self) -> [PathBuf; 2] {
        [self.layout.maps(Stage::Current), self.layout.links()]
    }

    /// Asks the kernel which interfaces have this daemon's programs now. With clsact the
    /// only way to ask is to attach, so a filter that other software removed is back afterwards.
    ///
    /// # Errors
    /// What the file system says about the pins.
    pub fn attached(&mut self) -> Result<BTreeMap<u32, Hooks>, AttachError> {
        let mut found = BTreeMap::<u32, Hooks>::new();
        let mut links: BTreeSet<_> = Layout::hooks(&self.layout.links())?.into_iter().collect();
        links.extend(self.held.hooks());
        for (number, hook) in links {
            let on = if is_inside(number) {
                self.is_alive(number, hook)
            } else {
                self.runs(Spot::here(number), hook)
            };
            found.entry(number).or_default().set(hook, on);
        }
        for (number, hook) in Layout::hooks(&self.layout.marks())? {
            let on = if is_inside(number) {
                self.put_back_within(number, hook)
            } else {
                self.attach_clsact(Spot::here(number), hook).is_ok()
            };
            found.entry(number).or_default().set(hook, on);
        }
        for hooks in found.range_mut(FIRST_LOOPBACK..) {
            // It has one hook alone.
            hooks.1.ingress = hooks.1.egress;
        }
        Ok(found)
    }

    /// The loaded program of a hook; public for test runs in the kernel (`BPF_PROG_TEST_RUN`).
    ///
    /// # Errors
    /// When the programs do not have it.
    pub fn program(&mut self, hook: Hook) -> Result<&mut SchedClassifier, AttachError> {
        Ok(self.programs.program(0, hook)?)
    }

    /// The program that judges at a hook of the interface with this number: those inside have all of them one. For
    /// tests.
    ///
    /// # Errors
    /// The kernel refuses it.
    #[doc(hidden)]
    pub fn judge(&mut self, number: u32, hook: Hook) -> Result<&mut SchedClassifier, AttachError> {
        Ok(self.programs.judge(number, hook)?)
    }

    /// The program of a hook of one interface, loaded for it if it is inside; public for test runs.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn program_of(
        &mut self,
        number: u32,
        hook: Hook,
    ) -> Result<&mut SchedClassifier, AttachError> {
        if is_inside(number) && !self.programs.has_maps() {
            // Or it would make others, and pin those.
            self.restore()?;
        }
        Ok(self.programs.program(number, hook)?)
    }

    /// Does the TCX hook of this interface run this daemon's program?
    fn runs(&mut self, spot: Spot, hook: Hook) -> bool {
        let Ok(program) = self.program_of(spot.number, hook) else {
            return false;
        };
        let Ok(own) = program.info().map(|info| info.id()) else {
            return false;
        };
        SchedClassifier::query_tcx(spot.ifindex, hook.tc(spot.number))
            .is_ok_and(|(_, programs)| programs.iter().any(|program| program.id() == own))
    }

    fn attach_tcx(&mut self, spot: Spot, hook: Hook) -> Result<(), AttachError> {
        // Pinned or not: that is for `restore`.
        if self.held.has(spot.number, hook) && self.runs(spot, hook) {
            return Ok(());
        }
        // A link that was updated but does not run here is for another interface (this index
        // was reused), or was detached by force: it is replaced.
        if self.update_link(spot, hook)? && self.runs(spot, hook) {
            return Ok(());
        }
        let path = self.layout.link(spot.number, hook);
        self.held.release(spot.number, hook);
        pins::remove(&path)?;
        let refused = |source| refused(spot, hook, source);
        let program = self.program_of(spot.number, hook)?;
        let deadline = Instant::now() + DETACH_TIMEOUT;
        let id = loop {
            let first = TcAttach::Tcx {
                attach_type: hook.tc(spot.number),
                order: LinkOrder::first(),
            };
            match program.attach(spot.ifindex, first) {
                Ok(id) => break id,
                Err(error)
                    if kernel_error(&error) == Some(Errno::EEXIST) && Instant::now() < deadline =>
                {
                    thread::sleep(DETACH_POLL);
                }
                Err(error) => return Err(refused(error)),
            }
        };
        let link = program.take_link(id).map_err(refused)?;
        let link = FdLink::try_from(link).map_err(|error| refused(error.into()))?;
        let pinned = link
            .pin(&path)
            .map_err(|source| AttachError::Pin { spot, hook, source })?;
        self.held.keep(spot.number, hook, FdLink::from(pinned));
        Ok(())
    }

    /// Swaps the program of a pinned link; `false` where there is no link, or its
    /// interface is no more.
    fn update_link(&mut self, spot: Spot, hook: Hook) -> Result<bool, AttachError> {
        let path = self.layout.link(spot.number, hook);
        let Some(link) = open_link(&path).map_err(|source| refused(spot, hook, source))? else {
            return Ok(false);
        };
        let program = self.program_of(spot.number, hook)?;
        let id = match program.attach_to_link(link) {
            Ok(id) => id,
            // ENOLINK: the interface went and took the attachment with it (tcx_link_update).
            Err(error) if kernel_error(&error) == Some(Errno::ENOLINK) => return Ok(false),
            Err(source) => return Err(refused(spot, hook, source)),
        };
        let refused = |source| refused(spot, hook, source);
        let link = program.take_link(id).map_err(refused)?;
        let link = FdLink::try_from(link).map_err(|error| refused(error.into()))?;
        self.held.keep(spot.number, hook, link);
        Ok(true)
    }

    fn attach_clsact(&mut self, spot: Spot, hook: Hook) -> Result<(), AttachError> {
        let refused = |source| refused(spot, hook, source);
        match qdisc_add_clsact(spot.ifindex) {
            Ok(()) => {}
            Err(error) if tc_errno(&error) == Some(Errno::EEXIST) => {}
            Err(error) => return Err(refused(error.into())),
        }
        // The mark comes first: a crash in between leaves a mark without a filter,
        // which is harmless, and not a filter that would stay for ever.
        pins::make_directory(&self.layout.mark(spot.number, hook))?;
        let program = self.program_of(spot.number, hook)?;
        let filtering = TcAttach::Netlink {
            parent: hook.tc(spot.number).into(),
            options: NlOptions {
                priority: PRIORITY,
                handle: HANDLE,
                classid: None,
            },
        };
        let created = program.attach(spot.ifindex, filtering);
        let id = match created {
            Ok(id) => id,
            Err(error) if kernel_error(&error) == Some(Errno::EEXIST) => {
                let there = filter(spot, hook).map_err(|error| refused(error.into()))?;
                program.attach_to_link(there).map_err(refused)?
            }
            Err(error) => return Err(refused(error)),
        };
        // A filter's link removes the filter when it is dropped, and enforcement must
        // outlive this process: it is forgotten on purpose (it holds no descriptor).
        mem::forget(program.take_link(id).map_err(refused)?);
        Ok(())
    }

    /// Removes what is pinned for an interface that is no more.
    fn forget(&mut self, number: u32) -> Result<(), AttachError> {
        for hook in Hook::BOTH {
            self.held.release(number, hook);
            pins::remove(&self.layout.link(number, hook))?;
            pins::remove(&self.layout.mark(number, hook))?;
        }
        self.forget_within(number)
    }
}

/// The name of an interface in this thread's network namespace.
pub(super) fn interface_name(ifindex: u32) -> Option<String> {
    let name = if_indextoname(ifindex).ok()?.into_string().ok()?;
    // nix 0.31 takes the null pointer of a failure for success, and gives an empty name.
    (!name.is_empty()).then_some(name)
}

/// Removes a clsact filter of ours; `false` where there is none (any more).
pub(super) fn remove_filter(spot: Spot, hook: Hook) -> Result<bool, AttachError> {
    use aya::programs::links::Link as _;
    let refused = |source| refused(spot, hook, source);
    let link = filter(spot, hook).map_err(|error| refused(error.into()))?;
    match link.detach() {
        Ok(()) => Ok(true),
        Err(error)
            if matches!(
                kernel_error(&error),
                Some(Errno::ENOENT | Errno::ENODEV | Errno::EINVAL)
            ) =>
        {
            Ok(false)
        }
        Err(source) => Err(refused(source)),
    }
}

fn filter(spot: Spot, hook: Hook) -> Result<SchedClassifierLink, io::Error> {
    let parent = hook.tc(spot.number).into();
    SchedClassifierLink::attached(spot.ifindex, parent, PRIORITY, HANDLE, None)
}

fn open_link(path: &Path) -> Result<Option<SchedClassifierLink>, ProgramError> {
    let pinned = match PinnedLink::from_pin(path) {
        Ok(pinned) => pinned,
        Err(LinkError::SyscallError(call)) if call.io_error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Some(SchedClassifierLink::try_from(FdLink::from(pinned))?))
}

fn refused(spot: Spot, hook: Hook, source: ProgramError) -> AttachError {
    AttachError::Attach {
        spot,
        hook,
        source: Box::new(source),
    }
}

fn tc_errno(error: &TcError) -> Option<Errno> {
    match error {
        TcError::NetlinkError(error) => error.raw_os_error(),
        TcError::IoError(error) => error.raw_os_error(),
        _ => None,
    }
    .map(Errno::from_raw)
}

/// What the kernel said, where it was the kernel.
fn kernel_error(error: &ProgramError) -> Option<Errno> {
    match error {
        ProgramError::SyscallError(call) => call.io_error.raw_os_error().map(Errno::from_raw),
        ProgramError::TcError(error) => tc_errno(error),
        ProgramError::NetlinkError(error) => error.raw_os_error().map(Errno::from_raw),
        ProgramError::IOError(error) => error.raw_os_error().map(Errno::from_raw),
        _ => None,
    }
}
