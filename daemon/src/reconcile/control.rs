//! Decides what follows from what the loop hears. Pure: events come in as method calls, and effects go out as values, which
//! [`super::run`] carries out in their order.
//!
//! ```text
//!  desired state ───────▶ ┌ rollout      which world the tables' writer gets          ┐
//!  writer's answers ────▶ │ attachments  which interfaces get and lose the programs   │ ───▶ effects
//!  attacher's answers ──▶ └ admission    which interfaces the gate lets through       ┘
//!  syncs, starts ───────▶   waiters      which clients wait ──────────────────────────────▶ answers
//! ```
//!
//! # Order of the effects
//! The programs are taken off unwanted interfaces, then the gate shuts the interfaces that lost their programs, and only
//! then are programs ordered: attaching them takes time. A world is written last. What is written and attached is
//! announced, saved and published.

mod admission;
mod attachments;
mod rollout;
mod waiters;

use std::sync::Arc;

pub use admission::Admission;
pub use attachments::Attachments;
pub use rollout::{Applied, Rollout};
pub use waiters::Waiters;

use super::assemble::Desired;
use super::observed::Observed;
use super::program::Program;
use super::progress::Progress;
use super::{attacher, installer};
use crate::gate::Seen;
use rollout::Next;
use tokio::time::Instant;

/// What the loop is to do.
#[derive(Debug)]
pub enum Effect {
    /// Give an order to the attacher of programs.
    Attacher(attacher::Order),
    /// Have the gate let through these interfaces.
    Admit(Admission),
    /// Tell that an interface has its programs again, which other software had taken off.
    TellRestored(u32),
    /// Announce the endpoints that have come into force to their neighbours.
    Announce,
    /// Give a world to the writer of the kernel's tables.
    Install(installer::Order),
    /// Sweep the connections: an endpoint is gone.
    SweepConnections,
    /// Name packets from now on by what is in force.
    NamePackets,
    /// Write the register to the disk.
    Save,
    /// Publish the state.
    Publish,
}

/// The desired state, and the owners of what becomes of it.
pub struct Control {
    desired: Arc<Desired>,
    rollout: Rollout,
    attachments: Attachments,
    installer: Progress,
    attacher: Progress,
}

impl Control {
    /// Begins with the first desired state, which the writer of the tables has at hand, and with the programs that were
    /// found.
    pub fn new(desired: Desired, attachments: Attachments) -> Self {
        Self {
            rollout: Rollout::new(Arc::new(desired.world.clone())),
            desired: Arc::new(desired),
            attachments,
            installer: Progress::default(),
            attacher: Progress::default(),
        }
    }

    /// The newest desired state.
    pub const fn desired(&self) -> &Arc<Desired> {
        &self.desired
    }

    /// Which world is in force.
    pub const fn rollout(&self) -> &Rollout {
        &self.rollout
    }

    /// Where the programs are.
    pub const fn attachments(&self) -> &Attachments {
        &self.attachments
    }

    /// Is the newest desired state in force, as far as it can be?
    pub fn is_done(&self) -> bool {
        self.rollout.is_settled() && !self.attachments.is_attaching()
    }

    /// Why not everything is in force that should be.
    pub fn failures(&self, observed: &Observed) -> Vec<String> {
        let not_written = self.rollout.applied().failure.iter();
        let not_seen = observed.problems.iter();
        let programs = self.attachments.programs().values();
        let not_attached = programs.filter_map(|program| match program {
            Program::Failed(why) => Some(why),
            Program::Pending | Program::On => None,
        });
        let failures = not_written.chain(not_seen).chain(not_attached);
        failures.cloned().collect()
    }

    /// The thread that has worked on one thing for too long.
    pub fn stuck_thread(&mut self, now: Instant) -> Option<&'static str> {
        let installer = self.installer.is_stuck(self.rollout.in_flight(), now);
        let attacher = self.attacher.is_stuck(self.attachments.owed(), now);
        (installer.then_some("writer of the kernel's tables"))
            .or(attacher.then_some("attacher of programs"))
    }

    /// The first effects: programs and gate, for the desired state that the control began with.
    pub fn begin(&mut self, observed: &Observed, seen: &Seen) -> Vec<Effect> {
        self.place_programs(observed, seen)
    }

    /// There is a newer desired state. `seen`: where containers were seen.
    pub fn desire(&mut self, desired: Desired, observed: &Observed, seen: &Seen) -> Vec<Effect> {
        self.desired = Arc::new(desired);
        let mut effects = self.place_programs(observed, seen);
        effects.push(Effect::Announce);
        match self.rollout.desire(&self.desired.world) {
            Next::Install(order) => effects.push(Effect::Install(order)),
            Next::Settled => effects.extend([Effect::Save, Effect::Publish]),
            Next::Wait => {}
        }
        effects
    }

    fn place_programs(&mut self, observed: &Observed, seen: &Seen) -> Vec<Effect> {
        let released = self.attachments.release(&self.desired);
        let mut effects: Vec<Effect> = released.into_iter().map(Effect::Attacher).collect();
        effects.push(self.admit(observed, seen));
        let requested = self.attachments.request(&self.desired);
        effects.extend(requested.into_iter().map(Effect::Attacher));
        effects
    }

    fn admit(&self, observed: &Observed, seen: &Seen) -> Effect {
        let programs = self.attachments.programs();
        Effect::Admit(Admission::decide(observed, &self.desired, programs, seen))
    }

    /// The attacher has answered.
    pub fn attacher_answered(
        &mut self,
        answer: attacher::Answer,
        observed: &Observed,
        seen: &Seen,
    ) -> Vec<Effect> {
        let answered = self.attachments.answered(answer);
        if answered.is_blind {
            return Vec::new();
        }
        let mut effects = Vec::new();
        effects.extend(answered.restored.map(Effect::TellRestored));
        effects.push(self.admit(observed, seen));
        effects.push(Effect::Announce);
        if answered.looked {
            let requested = self.attachments.request(&self.desired);
            effects.extend(requested.into_iter().map(Effect::Attacher));
        }
        if !self.attachments.is_attaching() {
            effects.push(Effect::Publish);
        }
        effects
    }

    /// The writer of the tables has answered.
    pub fn installer_answered(&mut self, answer: installer::Answer) -> Vec<Effect> {
        let answered = self.rollout.answered(answer);
        let mut effects = Vec::new();
        if answered.removed {
            effects.push(Effect::SweepConnections);
        }
        if answered.is_new {
            effects.push(Effect::NamePackets);
        }
        effects.push(Effect::Announce);
        effects.extend(answered.next.map(Effect::Install));
        effects.extend([Effect::Save, Effect::Publish]);
        effects
    }

    /// Has the attacher say where the programs are.
    pub fn look_at_programs(&mut self) -> Effect {
        Effect::Attacher(self.attachments.look())
    }

    /// It is time to look whether all is as it was left.
    pub fn round(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.rollout.applied().unkept_key.is_some() {
            // The writer tries to save its key with every world.
            effects.extend(self.rollout.retry().map(Effect::Install));
        }
        if !self.attachments.programs().is_empty() {
            effects.push(self.look_at_programs());
        }
        effects
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use std::collections::BTreeMap;

    use super::*;

    /// An effect in one word, and the interface that it is about.
    fn words(effects: &[Effect]) -> Vec<String> {
        let word = |effect: &Effect| match effect {
            Effect::Attacher(attacher::Order::Attach { ifindex, .. }) => {
                format!("attach {ifindex}")
            }
            Effect::Attacher(attacher::Order::Detach(ifindex)) => format!("detach {ifindex}"),
            Effect::Attacher(attacher::Order::Look(_)) => "look".to_owned(),
            Effect::Admit(_) => "admit".to_owned(),
            Effect::TellRestored(ifindex) => format!("restored {ifindex}"),
            Effect::Announce => "announce".to_owned(),
            Effect::Install(order) => format!("install {}", order.version),
            Effect::SweepConnections => "sweep".to_owned(),
            Effect::NamePackets => "name".to_owned(),
            Effect::Save => "save".to_owned(),
            Effect::Publish => "publish".to_owned(),
        };
        effects.iter().map(word).collect()
    }

    fn desired(interfaces: &[u32]) -> Desired {
        let mut desired = Desired::default();
        for ifindex in interfaces {
            let name = netpol_engine::policy::ObjectName::new("shop", format!("pod-{ifindex}"));
            desired.world.pods.insert(name.clone(), Default::default());
            desired.interfaces.insert(*ifindex, Some(name));
        }
        desired
    }

    fn installed(control: &Control, version: u64) -> installer::Answer {
        let world = Arc::new(control.desired().world.clone());
        installer::Answer {
            version,
            installed: Some(installer::Installed {
                world: Arc::clone(&world),
                names: Arc::default(),
                endpoints: Arc::default(),
            }),
            asked: world,
            generation: version,
            fill: Vec::new(),
            removed: false,
            error: None,
            unkept_key: None,
        }
    }

    #[test]
    fn a_container_that_starts_gets_programs_and_then_its_entry_and_is_published_when_both_are_there()
     {
        let (observed, seen) = (Observed::default(), Seen::default());
        let mut control = Control::new(desired(&[]), Attachments::default());
        assert_eq!(words(&control.begin(&observed, &seen)), ["admit"]);
        let answer = installed(&control, 1);
        let effects = control.installer_answered(answer);
        assert_eq!(words(&effects), ["name", "announce", "save", "publish"]);
        assert!(control.is_done());
        let effects = control.desire(desired(&[3]), &observed, &seen);
        let expected = ["admit", "attach 3", "announce", "install 2"];
        assert_eq!(words(&effects), expected);
        assert!(!control.is_done());
        let answer = attacher::Answer::On(3);
        let effects = control.attacher_answered(answer, &observed, &seen);
        assert_eq!(words(&effects), ["admit", "announce", "publish"]);
        assert!(!control.is_done(), "its entry is not written");
        let answer = installed(&control, 2);
        let effects = control.installer_answered(answer);
        assert_eq!(words(&effects), ["name", "announce", "save", "publish"]);
        assert!(control.is_done());
        // Nothing has changed.
        let effects = control.desire(desired(&[3]), &observed, &seen);
        assert_eq!(words(&effects), ["admit", "announce", "save", "publish"]);
    }

    #[test]
    fn the_gate_is_told_of_lost_programs_before_they_are_attached_again() {
        let (observed, seen) = (Observed::default(), Seen::default());
        let programs = BTreeMap::from([(3, Program::On), (4, Program::On)]);
        let mut control = Control::new(desired(&[3]), Attachments::new(programs));
        let effects = control.begin(&observed, &seen);
        assert_eq!(words(&effects), ["detach 4", "admit"]);
        let answer = installed(&control, 1);
        control.installer_answered(answer);
        assert_eq!(words(&control.round()), ["look"]);
        let found = attacher::Answer::Found {
            look: 1,
            on: Some(BTreeSet::new()),
            unpinned: None,
        };
        let effects = control.attacher_answered(found, &observed, &seen);
        assert_eq!(words(&effects), ["admit", "announce", "attach 3"]);
        let answer = attacher::Answer::On(3);
        let effects = control.attacher_answered(answer, &observed, &seen);
        let expected = ["restored 3", "admit", "announce", "publish"];
        assert_eq!(words(&effects), expected);
        // What could not be seen changes nothing.
        let blind = attacher::Answer::Found {
            look: 1,
            on: None,
            unpinned: None,
        };
        let effects = control.attacher_answered(blind, &observed, &seen);
        assert_eq!(words(&effects), [""; 0]);
    }

    #[test]
    fn a_key_that_could_not_be_saved_is_tried_again_in_every_round() {
        let mut control = Control::new(desired(&[]), Attachments::default());
        let answer = installer::Answer {
            unkept_key: Some("no space".to_owned()),
            ..installed(&control, 1)
        };
        control.installer_answered(answer);
        assert_eq!(words(&control.round()), ["install 1"]);
        assert_eq!(words(&control.round()), [""; 0], "the writer is at work");
        let answer = installed(&control, 1);
        control.installer_answered(answer);
        assert_eq!(words(&control.round()), [""; 0]);
    }
}
