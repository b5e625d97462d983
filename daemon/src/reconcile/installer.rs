//! Puts worlds in force: compile, plan, write. One after the other, on a thread of its own: a plan
//! waits for RCU, and a large world takes its time to compile.
//!
//! Policies that do not fit are refused whole; those that were in force stay.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use netpol_abi::tables::VerdictKey;
use netpol_engine::compile::{Collision, Compiler, Names};
use netpol_engine::plan;
use netpol_engine::tables::{EndpointEntry, Tables};
use netpol_engine::world::World;
use thiserror::Error;

use super::number_key::KeyFile;
use super::worker::Worker;
use crate::datapath::KernelTables;
use crate::datapath::tables::{Fill, StepError};

/// Why a world is not in force.
#[derive(Debug, Error)]
pub enum InstallError {
    /// It has no room.
    #[error("{0}: what was in force before still is")]
    NoRoom(#[source] StepError),
    /// Some rules have more ports than a verdict can hold.
    #[error(
        "{0} pairs of endpoints and peers have more than {max} ranges of ports between them: what was in force before still is",
        max = plan::spread::MAX_RANGES
    )]
    TooManyRanges(usize),
    /// Two things of it have one number.
    #[error("{0}: what was in force before still is; {OTHER_NUMBERS}")]
    Collision(#[source] Collision),
    /// Something of it has the number of something else that is in force.
    #[error(
        "policy set {policy_set:#018x} and peer class {class:#018x} would stand for something else than they do in force, \
         so these policies are refused as a whole: {was} and {will}: what was in force before still is; {OTHER_NUMBERS}"
    )]
    Clash {
        /// The policy set's number.
        policy_set: u64,
        /// The class's number.
        class: u64,
        /// What the policy set stands for.
        was: String,
        /// What it would stand for.
        will: String,
    },
    /// Writing failed before the new world was in force.
    #[error("{0}: what was in force before still is")]
    NotBegun(#[source] StepError),
    /// Writing failed afterwards.
    #[error("{0}: the new state is in force, and old entries are left over")]
    NotCleaned(#[source] StepError),
}

/// What helps where numbers stand in the way.
const OTHER_NUMBERS: &str =
    "without `numbers.key` in its state directory, netpold takes other numbers at its next start";

/// A world to put in force.
#[derive(Clone, Debug)]
pub struct Order {
    /// The caller's number for it.
    pub version: u64,
    /// The world.
    pub world: Arc<World>,
}

/// What became of an order.
#[derive(Debug)]
pub struct Answer {
    /// The order's number.
    pub version: u64,
    /// The world that was asked for.
    pub asked: Arc<World>,
    /// What is in force now; `None`: what was before.
    pub installed: Option<Installed>,
    /// The generation that is in force.
    pub generation: u64,
    /// How full the tables are.
    pub fill: Vec<Fill>,
    /// An endpoint was removed.
    pub removed: bool,
    /// Why what was asked for is not in force, or not without leftovers.
    pub error: Option<InstallError>,
    /// The key of the numbers is not kept for a restart, and why.
    pub unkept_key: Option<String>,
}

/// A world in force.
#[derive(Clone, Debug)]
pub struct Installed {
    /// The world.
    pub world: Arc<World>,
    /// What its numbers stand for.
    pub names: Arc<Names>,
    /// The endpoints as they were compiled, by slot.
    pub endpoints: Arc<BTreeMap<u32, EndpointEntry>>,
}

/// The writer of the tables.
pub struct Installer {
    /// What is installed, as it was read back or planned.
    installed: Tables,
    /// It was read back: what its numbers stand for is only what they should.
    is_read_back: bool,
    /// Flags that policy does not decide.
    flags: u32,
    /// The world whose policies are in force.
    policies: Option<Arc<World>>,
    /// What the numbers in force stand for, as far as this daemon has given them.
    names: Arc<Names>,
    key: KeyFile,
    compiler: Compiler,
}

impl Installer {
    /// A writer for tables that may be those of an earlier daemon. `flags` are set whatever
    /// the world says; by `key` things are numbered.
    ///
    /// # Errors
    /// What a daemon left half done can't be undone.
    pub fn new(tables: &mut KernelTables, flags: u32, key: KeyFile) -> Result<Self, StepError> {
        Ok(Self {
            installed: recover(tables)?,
            is_read_back: true,
            flags,
            policies: None,
            names: Arc::default(),
            compiler: Compiler::new(key.key()),
            key,
        })
    }

    /// What is in force.
    #[must_use]
    pub const fn installed(&self) -> &Tables {
        &self.installed
    }

    /// Puts a world in force; where its policies do not fit, its endpoints with the policies of
    /// before: a container that starts must not wait on hold until a file is mended.
    pub fn install(&mut self, tables: &mut KernelTables, order: Order) -> Answer {
        let before: BTreeSet<u32> = self.ids();
        self.key.keep();
        let (mut installed, error) = self.attempt(tables, &order.world);
        if installed.is_none()
            && let Some(policies) = &self.policies
            && policies.policies != order.world.policies
        {
            let fallback = World {
                policies: policies.policies.clone(),
                namespaces: policies.namespaces.clone(),
                audited: policies.audited.clone(),
                ..World::clone(&order.world)
            };
            installed = self.attempt(tables, &Arc::new(fallback)).0;
        }
        if let Some(installed) = &installed {
            self.policies = Some(Arc::clone(&installed.world));
            self.names = Arc::clone(&installed.names);
        }
        let after = self.ids();
        Answer {
            version: order.version,
            asked: order.world,
            installed,
            generation: tables.installed().control.generation,
            fill: tables.fill(),
            removed: before.difference(&after).next().is_some(),
            error,
            unkept_key: self.key.warning(),
        }
    }

    fn ids(&self) -> BTreeSet<u32> {
        let endpoints = self.installed.endpoints.values();
        endpoints.map(|entry| entry.id).collect()
    }

    fn attempt(
        &mut self,
        tables: &mut KernelTables,
        world: &Arc<World>,
    ) -> (Option<Installed>, Option<InstallError>) {
        let attempted = self.attempt_once(tables, world);
        match &attempted.1 {
            // Tables that an earlier netpold of the same key left, or that other software has written to: no
            // number of another key is in them, so they are replaced as a whole.
            Some(clash @ InstallError::Clash { .. }) if self.is_read_back => {
                tracing::warn!("{clash}: all tables are written once more, with other numbers");
                if let Err(error) = self.key.renew() {
                    tracing::error!(%error, "there is no other key for the tables' numbers");
                    return attempted;
                }
                self.compiler = Compiler::new(self.key.key());
                self.attempt_once(tables, world)
            }
            _ => attempted,
        }
    }

    fn attempt_once(
        &mut self,
        tables: &mut KernelTables,
        world: &Arc<World>,
    ) -> (Option<Installed>, Option<InstallError>) {
        let compiled = match self.compiler.next(world) {
            Ok(compiled) => compiled,
            Err(collision) => return (None, Some(InstallError::Collision(collision))),
        };
        let mut desired = compiled.tables;
        desired.flags |= self.flags;
        let installed = Installed {
            world: Arc::clone(world),
            names: Arc::new(compiled.names),
            endpoints: Arc::new(desired.endpoints.clone()),
        };
        match self.carry_out(tables, desired, &installed.names) {
            Ok(()) => (Some(installed), None),
            Err(error @ InstallError::NotCleaned(_)) => (Some(installed), Some(error)),
            Err(error) => (None, Some(error)),
        }
    }

    fn carry_out(
        &mut self,
        tables: &mut KernelTables,
        desired: Tables,
        names: &Names,
    ) -> Result<(), InstallError> {
        let generation = tables.installed().control.generation;
        let plan = plan::plan(&self.installed, &desired, generation);
        if plan.is_empty() {
            return Ok(());
        }
        if !plan.demand.too_many_ranges.is_empty() {
            return Err(InstallError::TooManyRanges(
                plan.demand.too_many_ranges.len(),
            ));
        }
        if let Some(clash) = plan.clashes.first() {
            return Err(self.clash(*clash, names));
        }
        tables.check(&plan.demand).map_err(InstallError::NoRoom)?;
        match tables.apply(&plan.steps) {
            Ok(()) => {
                self.installed = plan.installed(desired);
                self.is_read_back = false;
                Ok(())
            }
            Err(failed) => {
                self.is_read_back = true;
                match recover(tables) {
                    Ok(installed) => self.installed = installed,
                    Err(error) => {
                        tracing::error!(%error, "the kernel's tables could not be tidied up");
                        self.installed = tables.installed().read_back();
                    }
                }
                Err(if failed.committed {
                    InstallError::NotCleaned(failed.cause)
                } else {
                    InstallError::NotBegun(failed.cause)
                })
            }
        }
    }

    fn clash(&self, VerdictKey { policy_set, class }: VerdictKey, names: &Names) -> InstallError {
        let describe = |names: &Names| match names.policy_sets.get(&policy_set) {
            Some(found) => {
                let policies = found.policies.iter().map(ToString::to_string);
                let policies = policies.collect::<Vec<_>>().join(", ");
                format!("{} by the policies {policies}", found.direction)
            }
            None => "what an earlier netpold left in force".to_owned(),
        };
        InstallError::Clash {
            policy_set,
            class,
            was: describe(&self.names),
            will: describe(names),
        }
    }

    /// Goes on in a thread of its own, for as long as there are orders. Of orders that
    /// wait, only the last one counts: each is a whole world.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn(mut self, mut tables: KernelTables) -> io::Result<Worker<Order, Answer>> {
        Worker::spawn("installer", move |inbox, outbox| {
            while let Ok(mut order) = inbox.recv() {
                while let Ok(newer) = inbox.try_recv() {
                    order = newer;
                }
                if outbox.send(self.install(&mut tables, order)).is_err() {
                    break;
                }
            }
        })
    }
}

/// Brings half done plans to an end, and says what is installed then.
fn recover(tables: &mut KernelTables) -> Result<Tables, StepError> {
    if let Err(error) = tables.resync() {
        tracing::error!(%error, "the kernel's tables can't be read");
    }
    let steps = plan::recover(tables.installed());
    tables.apply(&steps).map_err(|failed| failed.cause)?;
    Ok(tables.installed().read_back())
}
