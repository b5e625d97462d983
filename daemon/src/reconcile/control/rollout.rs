//! Which desired state the writer of the kernel's tables gets, and which one is in force. Pure.
//!
//! Every desired state has a version, counted from 1. The writer works on one world at a time; a newer world waits until
//! the writer has answered.
//!
//! ```text
//!            desired                 answered, nothing newer
//!  settled ──────────▶ in flight ─────────────────────────────▶ settled
//!                       │      ▲
//!                       └──────┘ answered, a newer world waits
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use netpol_engine::compile::Names;
use netpol_engine::tables::EndpointEntry;
use netpol_engine::world::World;

use crate::datapath::tables::Fill;
use crate::reconcile::installer::{Answer, Order};

/// The state that is in force: what the last applied plan made of a [`World`].
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The world.
    pub world: Arc<World>,
    /// The policies and peers that its numbers stand for.
    pub names: Arc<Names>,
    /// Its endpoints as they were compiled, by slot.
    pub endpoints: Arc<BTreeMap<u32, EndpointEntry>>,
    /// The generation of the kernel's tables.
    pub generation: u64,
    /// How full the tables are.
    pub fill: Vec<Fill>,
    /// Why a newer world is not in force.
    pub failure: Option<String>,
    /// Why the key of its numbers will be lost with a restart; `None`: the key is on disk.
    pub unkept_key: Option<String>,
}

/// What follows from a newer desired state.
#[derive(Debug)]
pub enum Next {
    /// The writer gets this world.
    Install(Order),
    /// The writer is at work on an older world.
    Wait,
    /// The world is the one that is in force.
    Settled,
}

/// What follows from an answer of the writer.
#[derive(Debug)]
pub struct Answered {
    /// Another world is in force.
    pub is_new: bool,
    /// An endpoint was removed, and its connections with it.
    pub removed: bool,
    /// The next world for the writer.
    pub next: Option<Order>,
}

/// The versions, and what is in force.
#[derive(Debug)]
pub struct Rollout {
    /// The newest desired world.
    desired: Arc<World>,
    /// Its version.
    newest: u64,
    /// The version that the writer works on.
    in_flight: Option<u64>,
    /// The newest version that is in force, or was refused.
    settled: u64,
    applied: Applied,
}

impl Rollout {
    /// Begins with the first desired state, which the writer has at hand.
    pub fn new(desired: Arc<World>) -> Self {
        Self {
            desired,
            newest: 1,
            in_flight: Some(1),
            settled: 0,
            applied: Applied::default(),
        }
    }

    /// What is in force.
    pub const fn applied(&self) -> &Applied {
        &self.applied
    }

    /// The version of the newest desired state.
    pub const fn newest(&self) -> u64 {
        self.newest
    }

    /// The newest version that is in force, or was refused.
    pub const fn settled(&self) -> u64 {
        self.settled
    }

    /// The version that the writer works on.
    pub const fn in_flight(&self) -> Option<u64> {
        self.in_flight
    }

    /// Is the newest desired state in force, or refused?
    pub fn is_settled(&self) -> bool {
        self.in_flight.is_none() && self.settled == self.newest
    }

    /// Takes up a newer desired state.
    pub fn desire(&mut self, world: &World) -> Next {
        self.newest += 1;
        let is_same = *world == *self.desired;
        if !is_same {
            self.desired = Arc::new(world.clone());
        }
        if self.in_flight.is_some() {
            return Next::Wait;
        }
        if is_same && self.applied.failure.is_none() {
            self.settled = self.newest;
            return Next::Settled;
        }
        Next::Install(self.begin())
    }

    /// Gives the newest world to the writer once more; `None`: the writer is at work.
    pub fn retry(&mut self) -> Option<Order> {
        self.in_flight.is_none().then(|| self.begin())
    }

    fn begin(&mut self) -> Order {
        self.in_flight = Some(self.newest);
        Order {
            version: self.newest,
            world: Arc::clone(&self.desired),
        }
    }

    /// Takes up an answer of the writer.
    pub fn answered(&mut self, answer: Answer) -> Answered {
        self.in_flight = None;
        self.settled = answer.version;
        let applied = &mut self.applied;
        applied.failure = answer.error.as_ref().map(ToString::to_string);
        applied.fill = answer.fill;
        applied.unkept_key = answer.unkept_key;
        applied.generation = answer.generation;
        let is_new = answer.installed.is_some();
        if let Some(installed) = answer.installed {
            applied.world = installed.world;
            applied.names = installed.names;
            applied.endpoints = installed.endpoints;
        }
        let is_outdated = self.newest > answer.version && *self.desired != *answer.asked;
        if !is_outdated {
            self.settled = self.newest;
        }
        Answered {
            is_new,
            removed: answer.removed,
            next: is_outdated.then(|| self.begin()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::reconcile::installer::Installed;

    fn world(pods: &[&str]) -> World {
        let mut world = World::default();
        for name in pods {
            world.pods.insert(name.parse().unwrap(), Default::default());
        }
        world
    }

    fn answer(version: u64, asked: &World, is_installed: bool) -> Answer {
        let asked = Arc::new(asked.clone());
        Answer {
            version,
            installed: is_installed.then(|| Installed {
                world: Arc::clone(&asked),
                names: Arc::default(),
                endpoints: Arc::default(),
            }),
            asked,
            generation: version,
            fill: Vec::new(),
            removed: false,
            error: None,
            unkept_key: None,
        }
    }

    fn installs(next: &Next) -> Option<u64> {
        match next {
            Next::Install(order) => Some(order.version),
            Next::Wait | Next::Settled => None,
        }
    }

    #[test]
    fn the_writer_has_one_world_at_a_time_and_gets_only_the_newest_that_waits() {
        let (one, two, three) = (world(&["a/a"]), world(&["a/b"]), world(&["a/c"]));
        let mut rollout = Rollout::new(Arc::new(one.clone()));
        assert!(!rollout.is_settled());
        for newer in [&two, &three] {
            assert!(matches!(rollout.desire(newer), Next::Wait));
        }
        assert!(rollout.retry().is_none(), "the writer is at work");
        let answered = rollout.answered(answer(1, &one, true));
        assert!(answered.is_new);
        let order = answered.next.unwrap();
        assert_eq!((order.version, &*order.world), (3, &three));
        assert!(!rollout.is_settled());
        let answered = rollout.answered(answer(3, &three, true));
        assert!(answered.next.is_none());
        assert!(rollout.is_settled());
        assert_eq!(*rollout.applied().world, three);
        assert_eq!((rollout.newest(), rollout.settled()), (3, 3));
    }

    #[test]
    fn a_world_that_is_in_force_is_not_written_again() {
        let one = world(&["a/a"]);
        let mut rollout = Rollout::new(Arc::new(one.clone()));
        // The same once more, while the writer is at work.
        assert!(matches!(rollout.desire(&one), Next::Wait));
        assert!(rollout.answered(answer(1, &one, true)).next.is_none());
        assert_eq!(rollout.settled(), 2);
        assert!(matches!(rollout.desire(&one), Next::Settled));
        assert_eq!(rollout.settled(), 3);
        assert!(rollout.is_settled());
        // On demand it is.
        assert_eq!(rollout.retry().map(|order| order.version), Some(3));
    }

    #[test]
    fn a_refused_world_is_tried_again_with_every_desired_state_and_leaves_the_applied_one() {
        let (one, two) = (world(&["a/a"]), world(&["a/b"]));
        let mut rollout = Rollout::new(Arc::new(one.clone()));
        rollout.answered(answer(1, &one, true));
        assert_eq!(installs(&rollout.desire(&two)), Some(2));
        let refused = Answer {
            error: Some(crate::reconcile::installer::InstallError::TooManyRanges(1)),
            generation: 1,
            ..answer(2, &two, false)
        };
        let answered = rollout.answered(refused);
        assert!(!answered.is_new && answered.next.is_none());
        assert_eq!(*rollout.applied().world, one);
        assert!(rollout.applied().failure.is_some());
        // A sync must not wait for ever: what can't be in force is answered for.
        assert!(rollout.is_settled());
        assert_eq!(installs(&rollout.desire(&two)), Some(3));
    }
}
