//! Which interfaces have the programs, which are to get them and which to lose them. Pure.
//!
//! ```text
//!                request                 attached
//!   (unknown) ───────────▶ Pending ────────────────────▶ On
//!                           ▲   │ refused                 │ found without its programs
//!                   request │   ▼                         │
//!                          Failed ◀───────────────────────┘
//!   any of them ── gone, or no longer wanted ──▶ (unknown)
//! ```

use std::collections::{BTreeMap, BTreeSet};

use crate::datapath::Within;
use crate::reconcile::assemble::Desired;
use crate::reconcile::attacher::{Answer, Order};
use crate::reconcile::program::Program;

/// What follows from an answer of the attacher.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// It told where the programs are.
    pub looked: bool,
    /// This interface has its programs again, which other software had taken off.
    pub restored: Option<u32>,
    /// Nothing could be seen, and so nothing follows.
    pub is_blind: bool,
}

/// What is known of the programs, by the interface's number in the tables.
#[derive(Debug, Default)]
pub struct Attachments {
    programs: BTreeMap<u32, Program>,
    /// Interfaces that were found without their programs. Interfaces that no longer exist may be among them: whether
    /// other software took the programs off shows when they are put back.
    lost: BTreeSet<u32>,
    /// Where interfaces inside other namespaces are, as the attacher was told last.
    located: BTreeMap<u32, Within>,
    /// How often the attacher was asked where the programs are, and which of these questions it has answered last.
    looks: u64,
    looked: u64,
    /// Answers of the attacher so far.
    answers: u64,
    /// Why enforcement would end with the daemon: something is not pinned.
    unpinned: Option<String>,
}

impl Attachments {
    /// Begins with what was found at the start.
    pub fn new(programs: BTreeMap<u32, Program>) -> Self {
        Self {
            programs,
            ..Self::default()
        }
    }

    /// Every interface that has programs, or is to have them.
    pub const fn programs(&self) -> &BTreeMap<u32, Program> {
        &self.programs
    }

    /// The numbers of those interfaces.
    pub fn interfaces(&self) -> BTreeSet<u32> {
        self.programs.keys().copied().collect()
    }

    /// Why enforcement would end with the daemon.
    pub fn unpinned(&self) -> Option<&str> {
        self.unpinned.as_deref()
    }

    /// Has the attacher something to answer?
    pub fn is_attaching(&self) -> bool {
        let mut programs = self.programs.values();
        self.looks != self.looked || programs.any(|program| *program == Program::Pending)
    }

    /// The piece of work that the attacher owes, by the number of the next answer.
    pub fn owed(&self) -> Option<u64> {
        self.is_attaching().then_some(self.answers)
    }

    /// Has the attacher say where the programs are.
    pub const fn look(&mut self) -> Order {
        self.looks += 1;
        Order::Look(self.looks)
    }

    /// Has the attacher answered every question of where the programs are?
    pub const fn has_looked(&self) -> bool {
        self.looks == self.looked
    }

    /// Takes the programs off interfaces that are not to have them.
    pub fn release(&mut self, desired: &Desired) -> Vec<Order> {
        let mut orders = Vec::new();
        self.programs.retain(|ifindex, _| {
            let is_wanted = desired.interfaces.contains_key(ifindex);
            if !is_wanted {
                orders.push(Order::Detach(*ifindex));
            }
            is_wanted
        });
        let programs = &self.programs;
        self.lost.retain(|ifindex| programs.contains_key(ifindex));
        self.located
            .retain(|ifindex, _| programs.contains_key(ifindex));
        orders
    }

    /// Puts the programs on interfaces that are to have them. An interface inside another namespace may have been found
    /// elsewhere, or only now: its programs are put on it there.
    pub fn request(&mut self, desired: &Desired) -> Vec<Order> {
        let mut orders = Vec::new();
        for (ifindex, owner) in &desired.interfaces {
            let within = desired.inside.get(ifindex).map(|child| &child.within);
            let is_located = within.is_some() && self.located.get(ifindex) != within;
            let program = self.programs.get(ifindex);
            if !is_located && matches!(program, Some(Program::On | Program::Pending)) {
                continue;
            }
            if let Some(within) = within {
                self.located.insert(*ifindex, within.clone());
            }
            // Urgent: a policy may isolate the endpoint, or the endpoint is not known.
            let urgent = owner.as_ref().is_none_or(|name| {
                let mut policies = desired.world.policies.keys();
                policies.any(|policy| policy.namespace == name.namespace)
            });
            self.programs.insert(*ifindex, Program::Pending);
            orders.push(Order::Attach {
                ifindex: *ifindex,
                within: within.cloned(),
                urgent,
            });
        }
        orders
    }

    /// Takes up an answer of the attacher.
    pub fn answered(&mut self, answer: Answer) -> Answered {
        self.answers += 1;
        let mut answered = Answered::default();
        match answer {
            Answer::On(ifindex) => {
                self.set(ifindex, Program::On);
                answered.restored = self.lost.remove(&ifindex).then_some(ifindex);
            }
            Answer::Gone(ifindex) => {
                self.lost.remove(&ifindex);
                self.programs.remove(&ifindex);
                self.located.remove(&ifindex);
            }
            // The status tells of it, once: it is tried again in each round.
            Answer::Failed(ifindex, why) => self.set(ifindex, Program::Failed(why)),
            Answer::Found { look, on, unpinned } => {
                self.looked = look;
                self.unpinned = unpinned;
                answered.looked = true;
                answered.is_blind = on.is_none();
                self.lose(on);
            }
        }
        answered
    }

    /// Marks the interfaces that have lost their programs. `found`: those that have them.
    fn lose(&mut self, found: Option<BTreeSet<u32>>) {
        let Some(found) = found else { return };
        for (ifindex, program) in &mut self.programs {
            if *program == Program::On && !found.contains(ifindex) {
                *program = Program::Failed("its programs were taken off".to_owned());
                self.lost.insert(*ifindex);
            }
        }
    }

    /// The interface may have been ordered off meanwhile.
    fn set(&mut self, ifindex: u32, program: Program) {
        if let Some(known) = self.programs.get_mut(&ifindex) {
            *known = program;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use netpol_engine::labels::Selector;
    use netpol_engine::policy::{Mode, ObjectName, Policy, Tier};

    use super::*;
    use crate::datapath::Location;
    use crate::reconcile::assemble::Child;

    fn desired(interfaces: &[u32]) -> Desired {
        let owner = ObjectName::new("shop", "web");
        Desired {
            interfaces: interfaces
                .iter()
                .map(|ifindex| (*ifindex, Some(owner.clone())))
                .collect(),
            ..Desired::default()
        }
    }

    fn attach(ifindex: u32, within: Option<Within>, urgent: bool) -> Order {
        Order::Attach {
            ifindex,
            within,
            urgent,
        }
    }

    #[test]
    fn wanted_interfaces_get_programs_once_and_unwanted_ones_lose_them() {
        let mut attachments = Attachments::default();
        assert!(!attachments.is_attaching());
        let wanted = desired(&[3, 4]);
        let orders = attachments.request(&wanted);
        assert_eq!(orders, [attach(3, None, false), attach(4, None, false)]);
        assert_eq!(attachments.owed(), Some(0));
        assert_eq!(attachments.request(&wanted), [], "they are pending");
        attachments.answered(Answer::On(3));
        attachments.answered(Answer::Failed(4, "no".to_owned()));
        assert!(!attachments.is_attaching());
        let retried = attachments.request(&wanted);
        assert_eq!(retried, [attach(4, None, false)], "what failed");
        let orders = attachments.release(&desired(&[4]));
        assert_eq!(orders, [Order::Detach(3)]);
        attachments.answered(Answer::On(3));
        assert!(
            !attachments.programs().contains_key(&3),
            "a late answer about an interface that is no longer wanted"
        );
        attachments.answered(Answer::Gone(4));
        assert!(attachments.programs().is_empty());
    }

    #[test]
    fn what_may_be_isolated_or_is_not_known_is_urgent() {
        let mut wanted = desired(&[3]);
        wanted.interfaces.insert(4, None);
        let orders = Attachments::default().request(&wanted);
        assert_eq!(orders, [attach(3, None, false), attach(4, None, true)]);
        let policy = Policy {
            name: ObjectName::new("shop", "deny"),
            tier: Tier::NetworkPolicy,
            mode: Mode::Enforce,
            subject: Selector::default(),
            ingress: Some(Vec::new()),
            egress: None,
        };
        wanted
            .world
            .policies
            .insert(policy.name.clone(), Arc::new(policy));
        let orders = Attachments::default().request(&wanted);
        assert_eq!(orders, [attach(3, None, true), attach(4, None, true)]);
    }

    #[test]
    fn an_interface_inside_is_attached_where_it_was_found_last() {
        let number = netpol_abi::limits::FIRST_INSIDE;
        let within = |namespace| Within {
            namespace: "/proc/1/ns/net".into(),
            location: Location {
                namespace,
                ifindex: 2,
            },
        };
        let child = |namespace| Child {
            within: within(namespace),
            name: "eth0".to_owned(),
            kind: "macvlan",
        };
        // It had its programs at the start, and was not found yet.
        let mut attachments = Attachments::new([(number, Program::On)].into());
        let mut wanted = desired(&[number]);
        assert_eq!(attachments.request(&wanted), []);
        for namespace in [7, 8] {
            wanted.inside.insert(number, child(namespace));
            let expected = [attach(number, Some(within(namespace)), false)];
            assert_eq!(attachments.request(&wanted), expected);
            attachments.answered(Answer::On(number));
            assert_eq!(attachments.request(&wanted), []);
        }
    }

    #[test]
    fn programs_that_were_taken_off_are_told_of_when_they_are_back() {
        let mut attachments = Attachments::new([(3, Program::On), (4, Program::On)].into());
        assert_eq!(attachments.look(), Order::Look(1));
        assert!(attachments.is_attaching());
        let found = |on: Option<&[u32]>| Answer::Found {
            look: 1,
            on: on.map(|on| on.iter().copied().collect()),
            unpinned: None,
        };
        let answered = attachments.answered(found(None));
        assert!(answered.looked && answered.is_blind);
        assert_eq!(attachments.programs()[&3], Program::On);
        let answered = attachments.answered(found(Some(&[4])));
        assert!(answered.looked && !answered.is_blind);
        assert!(matches!(attachments.programs()[&3], Program::Failed(_)));
        let orders = attachments.request(&desired(&[3, 4]));
        assert_eq!(orders, [attach(3, None, false)]);
        let restored = |answered: Answered| answered.restored;
        assert_eq!(restored(attachments.answered(Answer::On(3))), Some(3));
        assert_eq!(restored(attachments.answered(Answer::On(3))), None);
    }

    #[test]
    fn an_answer_to_an_earlier_question_is_not_the_last_word() {
        let mut attachments = Attachments::default();
        let found = |look, unpinned: Option<&str>| Answer::Found {
            look,
            on: None,
            unpinned: unpinned.map(str::to_owned),
        };
        assert_eq!(attachments.look(), Order::Look(1));
        assert_eq!(attachments.look(), Order::Look(2));
        attachments.answered(found(1, None));
        assert!(!attachments.has_looked() && attachments.is_attaching());
        attachments.answered(found(2, Some("unmounted")));
        assert!(attachments.has_looked() && !attachments.is_attaching());
        assert_eq!(attachments.unpinned(), Some("unmounted"));
    }
}
