//! From what was gathered to the world: which endpoints there are, which interfaces and addresses are
//! theirs, and what has to be said about the rest.
//!
//! Pure, but for the register, which it brings up to date. Decides:
//! - whose an interface is: by the namespace that its other end is in, never by a name;
//! - which interfaces have no end here, and are enforced inside;
//! - which interfaces are on hold: what looks like a container's and has no owner yet;
//! - which of the containers that share a network namespace is its endpoint: the one that was, then a
//!   Pod's sandbox, then the oldest;
//! - the owner of an address: the endpoint that had it, then manifests, then the runtimes'
//!   containers by age, then declared endpoints in order. The host's own are the host's.

mod containers;
mod holds;
mod manifests;
mod naming;
mod places;
mod resolvers;
mod subinterfaces;
mod translations;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use netpol_engine::labels::Labels;
use netpol_engine::manifest::PodManifest;
use netpol_engine::policy::ObjectName;
use netpol_engine::world::{self, NamedPort, PublishedPort, World};

use self::holds::released;
pub(super) use self::holds::{ENDED, UNKNOWN};
pub use self::resolvers::AskedFromHost;
pub use self::subinterfaces::Child;
use self::subinterfaces::Numbers;
pub(super) use self::subinterfaces::has_no_veth;
use super::observed::Observed;
use super::register::{Interface, Key, Register};
use crate::config::{LabelSettings, Namespaces};
use crate::datapath::Location;
use crate::origin::Origins;
use crate::runtime::named::NotNamed;

#[cfg(test)]
mod tests;

/// What the configuration says about it.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `[labels]`
    pub labels: LabelSettings,
    /// `[namespaces]`
    pub namespaces: Namespaces,
    /// `[host]`
    pub host: world::Settings,
    /// `[dns] kube-dns`
    pub kube_dns: bool,
}

/// The world, and what goes with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Everything that decides a verdict.
    pub world: World,
    /// Where its objects come from.
    pub origins: Origins,
    /// Network namespaces of endpoints.
    pub namespaces: BTreeMap<ObjectName, PathBuf>,
    /// Interfaces that are to have programs, and whose they are; `None`: on hold.
    pub interfaces: BTreeMap<u32, Option<ObjectName>>,
    /// Names of those interfaces.
    pub interface_names: BTreeMap<u32, String>,
    /// Those of them that are inside other namespaces, where that is known.
    pub inside: BTreeMap<u32, Child>,
    /// Interfaces inside that are not enforced, as their addresses have another owner here.
    pub yielded: Vec<Location>,
    /// Containers that no policy reaches.
    pub unprotected: Vec<Unprotected>,
    /// Endpoints whose engine asks for them, from the host's network namespace.
    pub asked_from_host: BTreeMap<ObjectName, AskedFromHost>,
    /// Interfaces on hold.
    pub unidentified: Vec<Unidentified>,
    /// Addresses that are claimed twice.
    pub conflicts: Vec<Conflict>,
    /// Rules of the host that replace the address of senders to a container from beyond the host.
    pub hiding: Vec<String>,
    /// Everything else.
    pub warnings: Vec<String>,
}

/// A container that no policy reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unprotected {
    /// Its name.
    pub container: String,
    /// Why no policy reaches the container.
    pub reason: String,
}

/// An interface that is on hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unidentified {
    /// Its name on the host.
    pub interface: String,
    /// Its number.
    pub ifindex: u32,
    /// What is known about it.
    pub reason: String,
}

/// An address that two endpoints claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// The endpoint that has it.
    pub holder: ObjectName,
    /// The endpoint that can't use it.
    pub other: ObjectName,
}

/// An endpoint before its addresses and its number are settled.
#[derive(Clone, Debug)]
struct Candidate {
    key: Key,
    name: ObjectName,
    labels: Labels,
    ports: Vec<NamedPort>,
    netns: (u64, u64),
    path: Option<PathBuf>,
    claims: BTreeSet<IpAddr>,
    leaves: BTreeSet<IpNet>,
    published: BTreeSet<PublishedPort>,
    interfaces: BTreeMap<u32, Interface>,
    hidden: BTreeSet<u32>,
    /// Its addresses are those of an engine with a network namespace of its own: they say nothing of their owners here.
    apart: bool,
    given: BTreeMap<u32, BTreeSet<IpAddr>>,
    /// See [`world::Attached::asks`].
    asks: Option<BTreeSet<IpAddr>>,
}

/// The desired state that follows from what was observed. `programmed`: the interfaces that have programs now.
pub fn assemble(
    observed: &Observed,
    settings: &Settings,
    programmed: &BTreeSet<u32>,
    register: &mut Register,
) -> Desired {
    Assembly::new(observed, settings, programmed, register)
        .collect(register)
        .address(register)
        .place(register)
        .finish(register)
}

/// Every endpoint is known, with the addresses that it claims and the interfaces that lead into it.
struct Collected<'a>(Assembly<'a>);

/// Every address has one owner.
struct Addressed<'a>(Assembly<'a>);

/// Every endpoint has its number, its slot and its interfaces in the kernel's tables, and the register has every endpoint.
struct Placed<'a> {
    assembly: Assembly<'a>,
    /// Interfaces that had an owner before, and have none now.
    released: BTreeSet<u32>,
}

impl<'a> Assembly<'a> {
    fn new(
        observed: &'a Observed,
        settings: &'a Settings,
        programmed: &'a BTreeSet<u32>,
        register: &Register,
    ) -> Self {
        let mut out = Desired::default();
        out.world.settings = settings.host;
        out.world.host.clone_from(&observed.links.host_addresses);
        out.world.broadcasts.clone_from(&observed.links.broadcasts);
        Self {
            observed,
            settings,
            programmed,
            numbers: Numbers::in_use(register, programmed),
            out,
            owners: BTreeMap::new(),
            candidates: Vec::new(),
            naming: Vec::new(),
            on_hold: BTreeMap::new(),
            yielded: BTreeSet::new(),
        }
    }

    /// Collects the endpoints: of manifests first, then of engines, then those of before that no engine has denied.
    fn collect(mut self, register: &mut Register) -> Collected<'a> {
        self.manifests(register);
        self.kube_dns(register);
        self.containers(register);
        self.remembered(register);
        self.absent();
        Collected(self)
    }
}

impl<'a> Collected<'a> {
    /// Gives each address to one endpoint.
    fn address(self, register: &Register) -> Addressed<'a> {
        let Self(mut assembly) = self;
        assembly.yield_addresses(register);
        assembly.addresses(register);
        assembly.asked_from_host();
        Addressed(assembly)
    }
}

impl<'a> Addressed<'a> {
    /// Places the endpoints in the kernel's tables.
    fn place(self, register: &mut Register) -> Placed<'a> {
        let Self(mut assembly) = self;
        // Before the register forgets the interfaces of before.
        let mut released = released(register);
        released.append(&mut assembly.yielded);
        assembly.places(register);
        assembly.remember_seen(register);
        Placed { assembly, released }
    }
}

impl Placed<'_> {
    /// Finds the interfaces that have no owner, and tells what remains to be told.
    fn finish(self, register: &mut Register) -> Desired {
        let Self {
            mut assembly,
            released,
        } = self;
        assembly.translations();
        assembly.holds_inside(&released);
        assembly.holds(&released, register);
        register.last_inside = assembly.numbers.last();
        let mut out = assembly.out;
        let problems = assembly.observed.problems.iter();
        out.warnings.extend(problems.cloned());
        out
    }
}

/// What the stages share.
struct Assembly<'a> {
    observed: &'a Observed,
    settings: &'a Settings,
    /// The interfaces that have programs now.
    programmed: &'a BTreeSet<u32>,
    numbers: Numbers,
    out: Desired,
    /// Whose a namespace is, by its id here.
    owners: BTreeMap<i32, ObjectName>,
    candidates: Vec<Candidate>,
    /// Manifests that name a container, and why none is meant where that is so.
    naming: Vec<(PodManifest, Option<NotNamed>)>,
    /// Interfaces with an owner that can't be judged yet, and why.
    on_hold: BTreeMap<u32, String>,
    /// The numbers of interfaces that are not enforced, as their addresses have another owner here.
    yielded: BTreeSet<u32>,
}

impl Assembly<'_> {
    fn is_taken(&self, name: &ObjectName) -> bool {
        self.out.world.pods.contains_key(name)
            || self
                .candidates
                .iter()
                .any(|candidate| candidate.name == *name)
    }

    fn unprotected(&mut self, name: &ObjectName, reason: String) {
        self.out.unprotected.push(Unprotected {
            container: name.to_string(),
            reason,
        });
    }
}
