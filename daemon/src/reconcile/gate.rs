//! Keeps the gate in the kernel as [`Admission`] decides, and keeps it there.
//!
//! `netpol gate install` installs the gate. Here it is only restored after something else has removed it, and removed
//! where the configuration has no gate.

use std::collections::BTreeSet;
use std::sync::Mutex;

use super::control::Admission;
use crate::api::GateMeter;
use crate::api::wire::{GateDrops, GateStatus};
use crate::config::{Config, Enabled};
use crate::gate::rules::is_engines;
use crate::gate::{self, GateError, GateSnapshot, GateState, Kernel, Listener, Scope};

/// Keeps the gate, as the module says.
pub struct GateController {
    table: String,
    kept: GateState,
    /// `[gate] enabled = true`: its absence is said as a warning.
    required: bool,
    /// Why there is to be none.
    why_not: Option<&'static str>,
    kernel: Option<Kernel>,
    listener: Option<Listener>,
    /// As it is in the kernel, after all that was done here.
    found: Option<GateSnapshot>,
    /// What should be in it.
    admission: Admission,
    /// The state directory says that the gate is installed, or said so since this netpold runs: where that is gone, the
    /// gate was released.
    is_kept: bool,
    /// Why the state directory can't say so.
    persist_error: Option<String>,
    problem: Option<String>,
    /// The problem that was logged last.
    said: Option<String>,
}

impl GateController {
    /// To be called inside a tokio runtime, in the host's network namespace.
    pub fn open(config: &Config) -> Self {
        let table = config.gate.table.clone();
        let kept = GateState::at(&config.state.directory);
        let mut gate_controller = Self {
            why_not: gate::why_not(config),
            required: config.gate.enabled == Enabled::Yes,
            kernel: None,
            listener: None,
            found: None,
            admission: Admission::remembered(kept.bridges_by_engine(), kept.namings()),
            is_kept: false,
            persist_error: None,
            problem: None,
            said: None,
            table,
            kept,
        };
        let opened = Listener::open(&gate_controller.table)
            .and_then(|listener| Ok((listener, Kernel::open(&gate_controller.table)?)));
        match opened {
            Ok((listener, kernel)) => {
                gate_controller.listener = Some(listener);
                gate_controller.kernel = Some(kernel);
            }
            // A kernel without nftables has no gate.
            Err(error) => gate_controller.failed(&error),
        }
        gate_controller.found = gate_controller.find();
        if gate_controller.why_not.is_some() && gate_controller.found.is_some() {
            gate_controller.release();
        }
        gate_controller
    }

    /// Shuts the interfaces that an earlier netpold admitted, because nothing of it is pinned any more: its
    /// programs ended with it. To be called first: it may take long until other programs are there.
    pub fn shut_all(&mut self) {
        // The interfaces that pass were there before netpold, and have lost nothing.
        if !self.kept.is_followed() {
            return;
        }
        let Some(found) = &self.found else {
            tracing::error!(
                "what an earlier netpold enforced is gone: was the BPF file system unmounted? containers are open until they have programs again"
            );
            return;
        };
        let passing = found.contents.ready.clone();
        if !passing.is_empty() {
            tracing::error!(
                interfaces = passing.len(),
                "what an earlier netpold enforced is gone: was the BPF file system unmounted? the gate is shut until its programs are back"
            );
            self.shut(&passing);
        }
    }

    /// Shuts these interfaces. False: there is no gate, or it can't be changed.
    pub fn shut(&mut self, interfaces: &BTreeSet<u32>) -> bool {
        let (Some(found), Some(kernel)) = (&mut self.found, &mut self.kernel) else {
            return false;
        };
        let mut target = found.contents.clone();
        target.ready.retain(|ifindex| !interfaces.contains(ifindex));
        match kernel.change(&found.contents, &target) {
            Ok(done) => {
                if done {
                    found.contents = target;
                }
                done
            }
            Err(error) => {
                self.failed(&error);
                false
            }
        }
    }

    /// Reads what the gate has dropped, on request.
    pub fn meter(&self) -> GateMeter {
        let kernel = match Kernel::open(&self.table) {
            Ok(kernel) => Mutex::new(kernel),
            Err(_) => return GateMeter::default(),
        };
        GateMeter::new(move || {
            // No code panics with the lock in hand.
            let drops = kernel.lock().map(|mut kernel| kernel.drops());
            let drops = drops.ok().and_then(Result::ok).unwrap_or_default();
            GateDrops {
                from: drops.from,
                to: drops.to,
            }
        })
    }

    /// Returns when it is time to [`GateController::check`]. Dropping the future loses nothing.
    pub async fn turned(&mut self) {
        match &mut self.listener {
            Some(listener) => {
                if let Err(error) = listener.turned().await {
                    tracing::error!(%error, "changes of nftables are not noticed: the gate is looked at when interfaces change");
                    self.listener = None;
                }
            }
            None => std::future::pending().await,
        }
    }

    /// Tries once more what has failed, and looks where no event tells of changes. To be called from time to
    /// time.
    pub fn try_again(&mut self) {
        if self.listener.is_none() {
            self.listener = Listener::open(&self.table).ok();
        }
        if self.kernel.is_none() {
            self.kernel = Kernel::open(&self.table).ok();
        }
        if self.problem.is_some() || self.listener.is_none() {
            self.check();
        }
        if self.persist_error.is_some() {
            self.persist();
        }
    }

    /// Keeps what a later start has to know. A disk that is full keeps nothing, and takes nothing away.
    fn persist(&mut self) {
        if self.found.is_none() {
            return;
        }
        let installed = match self.is_kept || self.kept.is_installed() {
            true => Ok(()),
            // `netpol gate install` could not.
            false => self.kept.installed(),
        };
        self.is_kept = installed.is_ok();
        let followed = match !self.admission.admits_any() || self.kept.is_followed() {
            true => Ok(()),
            false => self.kept.followed(),
        };
        self.persist_error = installed.and(followed).err().map(|error| error.to_string());
    }

    /// Lets through the interfaces that are admitted now, and no interface that is gone.
    pub fn admit(&mut self, admission: Admission) {
        let before = std::mem::replace(&mut self.admission, admission);
        let bridges = self.admission.bridges();
        if bridges != before.bridges()
            && let Err(error) = self.kept.keep_bridges(bridges)
        {
            tracing::warn!(%error, "the gate's bridges can't be kept for the next boot");
        }
        let namings = self.admission.namings();
        if namings != before.namings()
            && let Err(error) = self.kept.keep_namings(namings)
        {
            tracing::warn!(%error, "the gate's names of interfaces can't be kept for the next boot");
        }
        self.apply();
        self.persist();
    }

    fn apply(&mut self) {
        let Some(found) = &self.found else {
            return;
        };
        let (scope, before) = (found.scope, found.contents.clone());
        let target = self.admission.contents_of(scope, &before);
        if target == before {
            return;
        }
        let Some(kernel) = &mut self.kernel else {
            return;
        };
        match kernel.change(&before, &target) {
            Ok(true) => {
                if let Some(found) = &mut self.found {
                    found.contents = target;
                }
            }
            // The kernel has other contents: other software has changed the gate.
            Ok(false) => self.restore_if_changed(),
            Err(error) => self.failed(&error),
        }
    }

    /// Looks whether it is as it should be, and brings it back where it is not.
    pub fn check(&mut self) {
        self.restore_if_changed();
        if self.problem.is_none() {
            self.said = None;
        }
    }

    fn restore_if_changed(&mut self) {
        let before = self.found.take();
        self.found = self.find();
        if self.why_not.is_some() {
            if self.found.is_some() {
                self.release();
            }
            return;
        }
        match &self.found {
            Some(found) if found.whole => self.apply(),
            Some(_) => self.restore(before, "its rules were flushed"),
            None if self.should_exist(before.is_some()) => {
                self.restore(before, "its table was removed");
            }
            None => {
                self.is_kept = false;
                if before.is_some() {
                    tracing::info!("the gate was released");
                }
            }
        }
    }

    /// Should the gate be there? A release removes the state directory's word first; where there could be none, the gate
    /// should be there.
    fn should_exist(&self, was_there: bool) -> bool {
        self.kept.is_installed() || (was_there && !self.is_kept)
    }

    fn restore(&mut self, before: Option<GateSnapshot>, why: &str) {
        let before = before.map(|found| found.contents).unwrap_or_default();
        let contents = self.admission.contents(&before);
        match gate::install(&self.table, &contents) {
            Ok(_) => {
                tracing::warn!("the gate was gone ({why}: `nft flush ruleset`?), and is back");
                self.found = self.find();
                self.persist();
            }
            Err(error) => self.failed(&error),
        }
    }

    fn release(&mut self) {
        let Some(kernel) = &mut self.kernel else {
            return;
        };
        match kernel.release() {
            Ok(_) => {
                self.found = None;
                if let Err(error) = self.kept.unwanted() {
                    tracing::warn!(%error, "what was kept of the gate can't be removed");
                }
                let why = self.why_not.unwrap_or_default();
                tracing::info!("the gate is released: {why}");
            }
            Err(error) => self.failed(&error),
        }
    }

    /// What there is. To a netpold that is to have no gate, and never had one with this state directory, a table of this
    /// name is another one's, and as if it were not there.
    fn find(&mut self) -> Option<GateSnapshot> {
        if self.why_not.is_some() && !self.kept.was_in_use() {
            return None;
        }
        match self.kernel.as_mut()?.look() {
            Ok(found) => {
                self.problem = None;
                found
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    fn failed(&mut self, error: &GateError) {
        let problem = error.to_string();
        if self.said.as_ref() != Some(&problem) {
            if self.matters() {
                tracing::error!("the gate: {problem}");
            } else {
                tracing::debug!("there is no gate: {problem}");
            }
            self.said = Some(problem.clone());
        }
        self.problem = Some(problem);
    }

    /// Does it shut an interface that is on this bridge?
    pub fn shuts(&self, ifindex: u32, bridge: &str) -> bool {
        self.found.as_ref().is_some_and(|found| {
            let contents = &found.contents;
            found.scope == Scope::Bridges
                && !contents.ready.contains(&ifindex)
                && (is_engines(bridge) || contents.bridges.contains(bridge))
        })
    }

    /// What is to be said of it.
    pub fn status(&self) -> GateStatus {
        let installed = self.found.is_some();
        GateStatus {
            installed,
            scope: self
                .found
                .as_ref()
                .map(|found| found.scope.label().to_owned()),
            ready: self
                .found
                .as_ref()
                .map_or(0, |found| found.contents.ready.len()),
            bridges: self
                .found
                .iter()
                .flat_map(|found| &found.contents.bridges)
                .cloned()
                .collect(),
            why_not: (!installed).then(|| match (self.why_not, &self.problem) {
                (Some(why), _) => why.to_owned(),
                (None, Some(problem)) => problem.clone(),
                (None, None) => "not installed: see `netpol gate install`".to_owned(),
            }),
            ..GateStatus::default()
        }
    }

    /// What the operator should know of the gate.
    pub fn warning(&self) -> Option<String> {
        let problem = match (&self.problem, &self.persist_error) {
            (Some(problem), _) => problem.clone(),
            (None, Some(why)) => format!(
                "that it is installed can't be kept ({why}): flushed while netpold does not run, it stays away"
            ),
            (None, None) if self.required && self.why_not.is_none() && self.found.is_none() => {
                "not installed, with `[gate] enabled = true`".to_owned()
            }
            (None, None) => return None,
        };
        self.matters().then(|| format!("the gate: {problem}"))
    }

    /// Does the operator count on the gate? Without it, a kernel without nftables is no trouble.
    fn matters(&self) -> bool {
        self.required || self.persist_error.is_some() || self.kept.is_installed()
    }
}
