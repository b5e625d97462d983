//! From a world to the kernel's tables.
//!
//! ```text
//!  pods ──▶ groups ──▶ policy sets (which policies select an endpoint) ──┐
//!             │           │ peers of their rules                       ├─▶ verdicts
//!             │           ▼                                            │
//!             └───▶ atoms and blocks ──▶ classes (what matches an address)
//! ```
//!
//! Numbers are content-addressed (see [`netpol_abi::tables`]): a policy set's is a keyed hash of
//! its direction, its policies' names and rules and what their names of ports stand for
//! at the endpoint; a class's of the peer selectors and blocks that match the address and
//! what names of ports in egress rules stand for there. A verdict follows from those
//! two contents alone, so its entry is the same in every world that has it, and rule numbers,
//! relative to their policy set, are the same after a restart. Where a number is met again, its content is
//! compared: two contents of one number are a [`Collision`], and the world is refused.
//!
//! An endpoint that audited policies select has two policy sets a direction: that of the policies in
//! force, and the one that it would have if all were. A policy's mode is no part of its
//! content, so when audit ends, that second one is the endpoint's, with its number and verdicts.
//!
//! # From one world to the next
//!
//! Because every piece is known by its content, a [`Compiler`] keeps the pieces of the last world
//! and looks them up for the next one. A step makes only what it does not find, and drops
//! what nothing refers to any more, so no step has to know what has happened in the world:
//!
//! ```text
//!  group ─── by what selectors see ────▶ kept, fresh or gone
//!  policy ── is it as before? ─────────▶ its parts, and the groups that it selects: only fresh
//!                                        ones are asked
//!  of a group ─────────────────────────▶ its policy sets, if the same parts select it; its atoms,
//!                                        less those gone, and only fresh ones asked
//!  blocks ── does any rule's differ? ──▶ prefixes, what covers an address
//!  policy set, class ── by number; the contents are compared ─▶ fresh, kept or gone
//!                                               │
//!  verdicts: rows of gone policy sets and entries of gone classes go; only pairs with a fresh
//!  policy set or class are flattened. Rows are shared with the tables that were given out.
//! ```
//!
//! [`compile()`] is the first step of a `Compiler` that knows nothing: there is one way through
//! this module.
//!
//! Only what some endpoint's rules ask counts: a policy that selects no Pod here changes
//! nothing. A function of the worlds, without clock or I/O; called by the daemon's loop.

mod asks;
mod blocks;
mod classes;
mod flatten;
mod group_delta;
mod interned;
mod leaves;
mod numbers;
mod parts;
mod peers;
mod policy_sets;
mod ports;
mod published;
mod sets;
mod verdicts;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use netpol_abi::tables::{control_flags, sender_key, stamp};
use serde::Serialize;

use self::classes::Classes;
use self::group_delta::GroupDelta;
pub use self::numbers::{Collision, NumberKey};
use self::parts::Parts;
use self::peers::Atoms;
use self::policy_sets::{PolicySet, PolicySets};
pub use self::verdicts::MAX_VERDICTS;
use self::verdicts::TooMany;
use crate::plan::both_banks;
use crate::pod_groups::PodGroups;
use crate::policy::{Direction, ObjectName};
use crate::tables::{InterfaceEntry, PortBlocks, Tables, Verdicts};
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
    /// By policy set.
    pub policy_sets: BTreeMap<u64, Arc<PolicySetNames>>,
}

/// What a policy set stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicySetNames {
    /// The direction that it is asked for.
    pub direction: Direction,
    /// The policies that isolate the endpoint in this direction, in the order in which they are
    /// asked.
    pub policies: Vec<ObjectName>,
    /// Rule number N in a verdict of this policy set is element N - 1.
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
    /// The rule with this number in verdicts of this policy set; `None` for 0, for
    /// [`netpol_abi::tables::RULE_DEFAULT`] and for what another world's numbers name.
    #[must_use]
    pub fn rule(&self, policy_set: u64, number: u32) -> Option<&RuleName> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.policy_sets.get(&policy_set)?.rules.get(index)
    }
}

/// Compiles a world, with the numbers of the public key.
///
/// # Errors
/// Two things have one number.
pub fn compile(world: &World) -> Result<Compiled, Collision> {
    compile_with(NumberKey::default(), world)
}

/// Compiles a world, with the numbers of a key.
///
/// # Errors
/// Two things have one number.
pub fn compile_with(key: NumberKey, world: &World) -> Result<Compiled, Collision> {
    let mut known = Known::new(key);
    match known.update(&World::default(), world, MAX_VERDICTS) {
        // What is cut off is told by its size.
        Ok(()) | Err(Stop::TooMany) => Ok(known.compiled(world)),
        Err(Stop::Collision(collision)) => Err(collision),
    }
}

/// Compiles one world after the other, each from what is known of the one before.
#[derive(Debug)]
pub struct Compiler {
    key: NumberKey,
    /// The last one.
    world: Arc<World>,
    known: Known,
    /// [`MAX_VERDICTS`]
    most: usize,
    /// The last update stopped: what is known is not whole.
    stopped: bool,
}

impl Default for Compiler {
    fn default() -> Self {
        Self::new(NumberKey::default())
    }
}

impl Compiler {
    /// A compiler that knows nothing yet.
    #[must_use]
    pub fn new(key: NumberKey) -> Self {
        Self {
            key,
            world: Arc::default(),
            known: Known::new(key),
            most: MAX_VERDICTS,
            stopped: false,
        }
    }

    /// The same as [`compile_with`] this key, at the cost of what this world does not have in common
    /// with the one before.
    ///
    /// # Errors
    /// Two things have one number.
    pub fn next(&mut self, world: &Arc<World>) -> Result<Compiled, Collision> {
        let before = std::mem::replace(&mut self.world, Arc::clone(world));
        if !self.stopped {
            self.stopped = self.known.update(&before, world, self.most).is_err();
        }
        if self.stopped {
            // What this world compiles to must not depend on what was known: neither which verdicts
            // are there, nor a collision with what the world before had.
            self.known = Known::new(self.key);
            let whole = self.known.update(&World::default(), world, self.most);
            self.stopped = whole.is_err();
            if let Err(Stop::Collision(collision)) = whole {
                return Err(collision);
            }
        }
        Ok(self.known.compiled(world))
    }
}

/// Why an update came to no end.
#[derive(Debug)]
enum Stop {
    /// There are more verdicts than were allowed: those at hand are not all.
    TooMany,
    /// Two things have one number.
    Collision(Collision),
}

impl From<TooMany> for Stop {
    fn from(_: TooMany) -> Self {
        Self::TooMany
    }
}

impl From<Collision> for Stop {
    fn from(collision: Collision) -> Self {
        Self::Collision(collision)
    }
}

/// What is derived from a world: all of it known by its content, and kept while it is in use.
#[derive(Debug, Default)]
struct Known {
    groups: Vec<group_delta::GroupKey>,
    parts: Parts,
    atoms: Atoms,
    policy_sets: PolicySets,
    classes: Classes,
    verdicts: Verdicts,
}

impl Known {
    fn new(key: NumberKey) -> Self {
        let mut known = Self::default();
        known.parts.key = key;
        known.atoms.key = key;
        known
    }

    /// `before`: the world of the last time.
    fn update(&mut self, before: &World, world: &World, most: usize) -> Result<(), Stop> {
        let all = PodGroups::group(world);
        let Self {
            groups,
            parts,
            atoms,
            policy_sets,
            classes,
            verdicts,
        } = self;
        let delta = GroupDelta::between(&all, groups);
        parts.update(before, world, &delta, atoms);
        policy_sets.update(world, parts, &delta)?;
        atoms.update(&delta);
        classes.update(world, &all, parts, atoms)?;
        groups.clone_from(&delta.known);
        verdicts::update(verdicts, parts, atoms.bound(), policy_sets, classes, most)?;
        asks::update(world, classes, verdicts, &mut policy_sets.endpoints);
        Ok(())
    }

    fn compiled(&self, world: &World) -> Compiled {
        Compiled {
            tables: self.tables(world),
            names: self.names(),
        }
    }

    fn tables(&self, world: &World) -> Tables {
        let mut interfaces = BTreeMap::new();
        let mut senders = BTreeMap::new();
        let mut leaves = BTreeMap::new();
        for pod in world.pods.values() {
            let Place::Attached(attached) = &pod.place else {
                continue;
            };
            for (ifindex, mac) in &attached.interfaces {
                let interface = InterfaceEntry {
                    endpoint: attached.slot,
                    mac: *mac,
                    netns: attached.netns.map_or(0, |nsid| nsid.saturating_add(1)),
                };
                interfaces.insert(*ifindex, interface);
            }
            leaves.extend(leaves::leave_entries(attached, &pod.leaves));
            for address in &pod.addresses {
                let (key, is_translated) = sender(attached.slot, *address);
                if is_translated {
                    // In the order of addresses: of several with one stamp the lowest.
                    senders.entry(key).or_insert(*address);
                }
            }
        }
        let published = published::published_banks(world, &self.policy_sets.endpoints);
        let publishes = match published.is_empty() {
            true => 0,
            false => control_flags::PUBLISHES,
        };
        Tables {
            flags: flags(world.settings) | publishes,
            endpoints: self.policy_sets.endpoints.clone(),
            interfaces,
            addresses: self.classes.addresses.clone(),
            senders,
            leaves: leaves::without_repetitions(&leaves),
            published,
            prefixes: Arc::clone(&self.classes.prefixes),
            verdicts: self.verdicts.clone(),
            port_blocks: PortBlocks::default(),
        }
    }

    fn names(&self) -> Names {
        let policy_sets = self.policy_sets.all.iter();
        let names =
            |(number, policy_set): (&u64, &PolicySet)| (*number, Arc::clone(&policy_set.names));
        Names {
            policy_sets: policy_sets.map(names).collect(),
        }
    }
}

/// The key of an address in the table of senders, and whether network address translation may hide it: a link-local
/// address never leaves its link.
fn sender(slot: u32, address: IpAddr) -> (u32, bool) {
    let (version, is_translated) = match address {
        IpAddr::V4(_) => (4, true),
        IpAddr::V6(address) => (6, !address.is_unicast_link_local()),
    };
    let stamp = stamp(slot, &both_banks::sender(address));
    (sender_key(stamp, version), is_translated)
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
