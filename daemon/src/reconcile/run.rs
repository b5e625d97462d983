//! The loop: hears one event at a time, has [`Control`] decide what follows, and carries that out.

use super::announcer::Announcer;
use super::assemble::{self, Settings};
use super::clients::Clients;
use super::control::{Control, Effect};
use super::events::{Event, Events};
use super::outcome::{End, StartError};
use super::publication::Publication;
use super::records::Records;
use super::report::{EnforcementInfo, StatusInput};
use super::sources;
use super::traffic::{Claim, PacketNames, Waker};
use super::{attacher, installer, unreached};
use crate::printable::printable;
use crate::runtime::container::Runtime;
use crate::telemetry::systemd;

/// The loop, and everything that it acts on.
pub struct Loop {
    pub events: Events,
    pub control: Control,
    pub clients: Clients,
    pub settings: Settings,
    pub records: Records,
    pub unreached: unreached::Watch,
    pub announcer: Announcer,
    pub packet_names: PacketNames,
    pub sweeper: Waker,
    pub publication: Publication,
    pub info: EnforcementInfo,
    /// Unidentified interfaces pass.
    pub holds_pass: bool,
}

impl Loop {
    /// Runs until the daemon is to end. `has_new_configuration`: does the configuration differ from the one in use?
    ///
    /// # Errors
    /// A thread has ended, without which nothing goes on.
    pub async fn run(
        &mut self,
        has_new_configuration: impl Fn() -> bool,
    ) -> Result<End, StartError> {
        loop {
            match self.events.next(self.unreached.due()).await? {
                Event::Stop => return Ok(End::Stopped),
                Event::Reload if has_new_configuration() => {
                    match self.control.attachments().unpinned() {
                        None => return Ok(End::Reexec),
                        // The next start would take everything off, to begin with.
                        Some(why) => tracing::error!(
                            "the configuration stays as it was, as what is in force is not pinned: {why}"
                        ),
                    }
                    self.look_at_everything();
                }
                Event::Reload => self.look_at_everything(),
                Event::Changed { links } => {
                    self.reconcile();
                    if links {
                        self.look_at_programs();
                    }
                }
                Event::Installed(answer) => {
                    let effects = self.control.installer_answered(answer);
                    self.carry_out(effects);
                }
                Event::Attached(answer) => self.attached(answer),
                Event::Linted(answer) => self.events.inputs.lints.found(answer),
                Event::ConnectionsCounted => self.publish(),
                Event::Claimed(claim) => self.claimed(claim),
                Event::GateChanged => {
                    self.events.inputs.gate.check();
                    self.publish();
                }
                Event::ReadyRequested(request) => {
                    self.clients
                        .add_start(request, &mut self.events.inputs.sources);
                    self.reconcile();
                }
                Event::SyncRequested(request) => {
                    self.events.inputs.sources.mark_all_stale();
                    self.clients.add_sync(request, &self.control);
                    self.reconcile();
                    self.look_at_programs();
                }
                Event::UnclaimedOverdue => {
                    let namespaces = self.unreached.begin(std::time::Instant::now());
                    self.events.ask_engines(namespaces);
                }
                Event::EnginesAsked(namespaces) => {
                    let sources = &mut self.events.inputs.sources;
                    sources.mark_all_stale();
                    self.reconcile();
                    let sources = &mut self.events.inputs.sources;
                    let (behind, sockets) = sources.look_behind(&namespaces);
                    self.unreached.end(&behind, sockets);
                    self.publish();
                }
                Event::PinsChanged => self.look_at_programs(),
                Event::Round => self.round(),
                Event::Beat(now) => match self.control.stuck_thread(now) {
                    // systemd hears nothing, ends the daemon, and starts another one.
                    Some(thread) => tracing::error!("the {thread} is stuck"),
                    None => systemd::alive(),
                },
            }
            self.clients.answer(&self.control, &mut self.events.inputs);
        }
    }

    /// Brings about what follows from the first state. `answer`: of the writer of the tables, which has written it.
    pub fn begin(&mut self, answer: installer::Answer) {
        self.review();
        let observed = self.events.inputs.sources.observed();
        let seen = &self.records.register.seen;
        let effects = self.control.begin(observed, seen);
        self.carry_out(effects);
        // The gate may have been flushed while no netpold ran.
        self.events.inputs.gate.check();
        let effects = self.control.installer_answered(answer);
        self.carry_out(effects);
    }

    /// Gathers what may have changed, and brings about what follows from it.
    fn reconcile(&mut self) {
        let programmed = self.control.attachments().interfaces();
        let observed = self.events.inputs.sources.gather();
        let register = &mut self.records.register;
        let desired = assemble::assemble(observed, &self.settings, &programmed, register);
        let effects = self.control.desire(desired, observed, &register.seen);
        self.review();
        self.carry_out(effects);
    }

    /// Has what is told of the desired state, and changes nothing in force, brought up to date.
    fn review(&mut self) {
        let inputs = &mut self.events.inputs;
        let (observed, desired) = (inputs.sources.observed(), self.control.desired());
        self.unreached
            .look(observed, desired, std::time::Instant::now());
        inputs.lints.look(desired, &observed.store);
    }

    /// Carries out what was decided.
    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Attacher(order) => self.events.inputs.attacher.order(order),
                Effect::Admit(admission) => self.events.inputs.gate.admit(admission),
                Effect::TellRestored(ifindex) => {
                    let names = &self.control.desired().interface_names;
                    let name = names.get(&ifindex).map_or("", String::as_str);
                    tracing::warn!(
                        interface = %printable(name),
                        "programs were taken off interfaces by somebody else, and are back"
                    );
                }
                Effect::Announce => self.announce(),
                Effect::Install(order) => self.events.inputs.installer.order(order),
                Effect::SweepConnections => self.sweeper.now(),
                Effect::NamePackets => self.packet_names.change(self.control.rollout().applied()),
                Effect::Save => self.records.save(),
                Effect::Publish => self.publish(),
            }
        }
    }

    /// Takes up an answer of the attacher.
    pub fn attached(&mut self, answer: attacher::Answer) {
        let observed = self.events.inputs.sources.observed();
        let seen = &self.records.register.seen;
        let effects = self.control.attacher_answered(answer, observed, seen);
        self.carry_out(effects);
    }

    fn look_at_everything(&mut self) {
        tracing::info!("looking at everything again");
        let sources = &mut self.events.inputs.sources;
        // The manifests that the look finds come as an event.
        drop(sources.look_at_manifests());
        sources.mark_all_stale();
        self.reconcile();
        self.look_at_programs();
    }

    /// Has the attacher say where the programs are.
    pub fn look_at_programs(&mut self) {
        let effect = self.control.look_at_programs();
        self.carry_out(vec![effect]);
    }

    fn round(&mut self) {
        self.events.inputs.gate.try_again();
        if self.records.save_error().is_some() {
            self.records.save();
            self.publish();
        }
        let effects = self.control.round();
        self.carry_out(effects);
        let unseen = self.unreached.unseen();
        if !unseen.is_empty() {
            let (behind, _) = self.events.inputs.sources.look_behind(&unseen);
            if self.unreached.see(&behind) {
                self.publish();
            }
        }
    }

    /// Has the engine asked whether an address is an endpoint's own that its packets claimed.
    fn claimed(&mut self, claim: Claim) {
        let Some((key, record)) = self.records.register.find(claim.endpoint) else {
            return;
        };
        // The report is older than what is known by now.
        if let Some(address) = claim.address.filter(|it| record.addresses.contains(it)) {
            return sources::tell_own_address(&record.name.to_string(), address);
        }
        if let Some((Runtime::Docker, id)) = key.container() {
            self.events.inputs.sources.claimed(id, claim.address);
        }
    }

    fn announce(&mut self) {
        let observed = self.events.inputs.sources.observed();
        let register = &self.records.register;
        let world = &self.control.rollout().applied().world;
        let programs = self.control.attachments().programs();
        self.announcer
            .announce(world, programs, |id| register.namespace(id, observed));
    }

    fn publish(&mut self) {
        let inputs = &mut self.events.inputs;
        let observed = inputs.sources.observed();
        let is_shut = |number, bridge: &str| inputs.gate.shuts(number, bridge);
        let unreached = self.unreached.said(observed, self.holds_pass, is_shut);
        let input = StatusInput {
            observed,
            desired: self.control.desired(),
            applied: self.control.rollout().applied(),
            programs: self.control.attachments().programs(),
            unpinned: self.control.attachments().unpinned(),
            unsaved: self.records.save_error(),
            info: &self.info,
            connections: &inputs.connections.borrow_and_update(),
            gate: &inputs.gate,
            unreached,
        };
        self.publication.publish(&input, self.control.is_done());
    }
}
