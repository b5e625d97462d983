//! From a world to the kernel's tables.
//!
//! ```text
//!  pods ──▶ kinds ──▶ subjects (which policies select an endpoint) ──┐
//!            │           │ peers of their rules                      ├─▶ verdicts
//!            │           ▼                                           │
//!            └───▶ atoms and blocks ──▶ classes (what matches an address)
//! ```
//!
//! Numbers are content-addressed (see [`netpol_abi::tables`]): a subject's is a hash of
//! its direction, its policies' names and rules and what their names of ports stand for
//! at the endpoint; a class's of the peer selectors and blocks that match the address and
//! what names of ports in egress rules stand for there. A verdict follows from those
//! two contents alone, so its entry is the same in every world that has it, and rule numbers,
//! relative to their subject, are the same after a restart.
//!
//! Only what some endpoint's rules ask counts: a policy that selects nobody here changes
//! nothing. A function of the world, without clock or I/O; called by the daemon's loop.

mod blocks;
mod classes;
mod digest;
mod flatten;
mod peers;
mod subjects;
mod verdicts;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use netpol_abi::tables::control_flags;
use serde::Serialize;

use self::classes::Classes;
use self::subjects::Subjects;
pub use self::verdicts::MAX_VERDICTS;
use crate::kinds::Kinds;
use crate::policy::{Direction, ObjectName};
use crate::tables::{InterfaceEntry, Tables};
use crate::world::{Place, Settings, World};

/// What a world compiles to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// What the kernel is to hold. More than [`MAX_VERDICTS`] verdicts are not all of them.
    pub tables: Tables,
    /// What the numbers in it stand for.
    pub names: Names,
}

/// What the numbers in reports stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// By subject.
    pub subjects: BTreeMap<u64, SubjectNames>,
}

/// What a subject stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SubjectNames {
    /// The direction that it is asked for.
    pub direction: Direction,
    /// The policies that isolate the endpoint in this direction, in the order in which they are
    /// asked.
    pub policies: Vec<ObjectName>,
    /// Rule number N in a verdict of this subject is element N - 1.
    pub rules: Vec<RuleName>,
}

/// One rule of one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleName {
    /// Whose.
    pub policy: ObjectName,
    /// Of its `ingress` or its `egress`.
    pub direction: Direction,
    /// Index in that list, from 0.
    pub rule: usize,
}

impl Names {
    /// The rule with this number in verdicts of this subject; `None` for 0, for
    /// [`netpol_abi::tables::RULE_DEFAULT`] and for what another world's numbers name.
    #[must_use]
    pub fn rule(&self, subject: u64, number: u32) -> Option<&RuleName> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.subjects.get(&subject)?.rules.get(index)
    }
}

/// Compiles a world.
#[must_use]
pub fn compile(world: &World) -> Compiled {
    let kinds = Kinds::of(world);
    let subjects = Subjects::of(world, &kinds);
    let classes = Classes::of(world, &kinds, &subjects);
    let names = subjects.names();
    let mut tables = Tables {
        flags: flags(world.settings),
        verdicts: verdicts::verdicts(&subjects, &classes),
        addresses: classes.addresses,
        prefixes: classes.prefixes,
        endpoints: subjects.endpoints,
        interfaces: BTreeMap::new(),
    };
    for pod in world.pods.values() {
        let Place::Attached(attached) = &pod.place else {
            continue;
        };
        for (ifindex, mac) in &attached.interfaces {
            let interface = InterfaceEntry {
                endpoint: attached.slot,
                mac: *mac,
            };
            tables.interfaces.insert(*ifindex, interface);
        }
    }
    Compiled { tables, names }
}

/// The flags that policy decides; the daemon adds its own.
fn flags(settings: Settings) -> u32 {
    let mut flags = 0;
    if settings.host_ingress {
        flags |= control_flags::HOST_INGRESS;
    }
    if settings.host_egress {
        flags |= control_flags::HOST_EGRESS;
    }
    flags
}
