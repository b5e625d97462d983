//! Which ends reach which, on which ports, for all ends at once.
//!
//! ```text
//!  World ─▶ numbers for local Pods ─▶ compile ─▶ Tables ─▶ groups of equal ends ─▶ ports(from, to)
//! ```
//!
//! [`Reach`] asks the compiler's tables, so what it says is what the kernel would do; by
//! [`crate::evaluate`]'s conventions (which addresses two Pods speak by, itself, the host), so
//! both say the same. Ends that policy treats alike are one [`Group`]: a thousand replicas cost
//! what one does, and code that compares worlds or looks for contradictions walks pairs of
//! groups, never pairs of Pods. An end without an address is covered by no block.
//!
//! For `netpol matrix` and `diff`, and for lints that look at pairs. A function of the
//! world: no clock, no I/O.

pub(crate) mod cover;
mod ports;
mod regions;
mod stand_in;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netpol_abi::tables::{CLASS_ANY, NOT_ISOLATED, VerdictKey, endpoint_flags};

pub use self::ports::PortSet;
pub use self::regions::Region;
use self::regions::{class_in, partition};
use crate::compile::{Collision, MAX_VERDICTS, compile};
use crate::evaluate::{End, EndpointSpec, meet};
use crate::policy::ObjectName;
use crate::tables::AddressEntry;
use crate::world::{Settings, World};

/// The reachability of a world.
#[derive(Clone, Debug)]
pub struct Reach<'w> {
    world: &'w World,
    groups: Vec<Group<'w>>,
    /// By Pod: its group.
    pods: HashMap<&'w ObjectName, usize>,
    /// PolicySets of the enforced Pods, ingress and egress, as far as they are in force.
    policy_sets: HashMap<&'w ObjectName, [u64; 2]>,
    /// Addresses lent to Pods that have none.
    lent: HashMap<&'w ObjectName, IpAddr>,
    addresses: BTreeMap<IpAddr, AddressEntry>,
    prefixes: Arc<BTreeMap<IpNet, u64>>,
    /// Every different answer once.
    sets: Vec<PortSet>,
    /// Which of them a policy set and class get.
    verdicts: HashMap<VerdictKey, usize>,
}

/// Index of the answer that allows nothing.
const NOTHING: usize = 0;
/// Index of the answer that allows everything.
const ALL: usize = 1;

/// Why a world is never in force, so that no end reaches another by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NeverInForce {
    /// No kernel table is made so large.
    #[error(
        "these policies make more than {MAX_VERDICTS} verdicts: they are refused as a whole\n  \
         Pods that share labels, and rules that share peers, share verdicts"
    )]
    TooManyVerdicts,
    /// Two things have one number.
    #[error(transparent)]
    Collision(#[from] Collision),
}

/// Ends that policy treats alike, as senders and as receivers.
#[derive(Clone, Debug)]
pub struct Group<'w> {
    /// The members.
    pub members: Members<'w>,
    /// What policy sees of each.
    pub profile: Profile,
}

/// The members of a [`Group`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members<'w> {
    /// Pods by name, sorted, at least one. Those on the host's network are among them, and act as
    /// the host.
    Pods(Vec<&'w ObjectName>),
    /// The host, at these of its addresses; none where no address of it is known.
    Host(Vec<IpAddr>),
    /// Addresses that neither the host nor a Pod has.
    Strangers(Region),
}

/// What policy sees of an end: two ends with equal profiles get the same answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Profile {
    host: bool,
    ingress: u64,
    egress: u64,
    /// Class of the address that it is spoken to at, for IPv4 and for IPv6.
    classes: [Option<u64>; 2],
    /// Class without an address.
    bare: u64,
    /// Is it spoken to over both families?
    dual: bool,
}

/// What both sides allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports<'r> {
    /// What the sender's policies let out.
    pub egress: &'r PortSet,
    /// What the receiver's policies let in.
    pub ingress: &'r PortSet,
    /// Which of the world's answers these are.
    key: [usize; 2],
}

impl Members<'_> {
    /// How many Pods, blocks of addresses, or addresses of the host (one, where none is known).
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Pods(pods) => pods.len(),
            Self::Host(addresses) => addresses.len().max(1),
            Self::Strangers(region) => region.0.len(),
        }
    }
}

impl Ports<'_> {
    /// What passes: what both sides allow.
    #[must_use]
    pub fn reachable(&self) -> PortSet {
        self.egress.intersection(self.ingress)
    }

    /// Within one world, equal keys are equal answers: for callers that compute something of them once.
    pub(crate) const fn key(&self) -> [usize; 2] {
        self.key
    }

    /// Does this port pass?
    #[must_use]
    pub fn allow(&self, protocol: crate::policy::Protocol, port: u16) -> bool {
        self.egress.contains(protocol, port) && self.ingress.contains(protocol, port)
    }
}

impl<'w> Reach<'w> {
    /// Compiles a world. Local Pods need not have numbers.
    ///
    /// # Errors
    /// The policies make more verdicts than any kernel table holds, or can't be numbered.
    pub fn compute(world: &'w World) -> Result<Self, NeverInForce> {
        let stand_in = stand_in::build_stand_in(world);
        let mut tables = compile(&stand_in.world)?.tables;
        if tables.verdicts.len() > MAX_VERDICTS {
            return Err(NeverInForce::TooManyVerdicts);
        }
        if let Some(hole) = stand_in.hole {
            Arc::make_mut(&mut tables.prefixes).remove(&hole);
        }
        let mut reach = Self {
            world,
            groups: Vec::new(),
            pods: HashMap::new(),
            policy_sets: HashMap::new(),
            lent: stand_in.addresses,
            addresses: tables.addresses,
            prefixes: tables.prefixes,
            sets: vec![PortSet::nothing(), PortSet::all()],
            verdicts: HashMap::new(),
        };
        let mut known: HashMap<PortSet, usize> = reach.sets.iter().cloned().zip(0..).collect();
        for (key, entry) in tables.verdicts.iter() {
            let set = *known
                .entry(PortSet::allowed_by(entry))
                .or_insert_with_key(|set| {
                    reach.sets.push(set.clone());
                    reach.sets.len() - 1
                });
            reach.verdicts.insert(key, set);
        }
        for (name, slot) in world.pods.keys().zip(0..) {
            if let Some(entry) = tables.endpoints.get(&slot) {
                let policy_sets = if entry.flags & endpoint_flags::AUDIT == 0 {
                    [entry.ingress, entry.egress]
                } else {
                    [NOT_ISOLATED; 2]
                };
                reach.policy_sets.insert(name, policy_sets);
            }
        }
        reach.group();
        Ok(reach)
    }

    /// All ends, each in one group: first Pods (by their first name), then the host, then
    /// strangers by region.
    #[must_use]
    pub fn groups(&self) -> &[Group<'w>] {
        &self.groups
    }

    /// What passes from one end to another. Of two *different* ends: one and the same always
    /// reaches itself.
    #[must_use]
    pub fn ports(&self, from: Profile, to: Profile) -> Ports<'_> {
        self.at(from, to, meet(from.classes, to.classes))
    }

    /// What passes over IPv4 and over IPv6, where both ends are spoken to over both; else, twice,
    /// what passes by what they have in common.
    #[must_use]
    pub fn by_family(&self, from: Profile, to: Profile) -> [Ports<'_>; 2] {
        if from.dual && to.dual {
            return [0, 1]
                .map(|family| self.at(from, to, (from.classes[family], to.classes[family])));
        }
        [self.ports(from, to); 2]
    }

    /// What passes between addresses of these classes.
    fn at(
        &self,
        from: Profile,
        to: Profile,
        (from_class, to_class): (Option<u64>, Option<u64>),
    ) -> Ports<'_> {
        let Settings {
            host_ingress,
            host_egress,
        } = self.world.settings;
        self.answer([
            self.side(
                from.egress,
                to_class.unwrap_or(to.bare),
                to.host && host_egress,
            ),
            self.side(
                to.ingress,
                from_class.unwrap_or(from.bare),
                from.host && host_ingress,
            ),
        ])
    }

    /// What passes between two ends as people name them; an end reaches itself. `None`: there
    /// is no Pod of such a name.
    #[must_use]
    pub fn between(&self, from: &EndpointSpec, to: &EndpointSpec) -> Option<Ports<'_>> {
        let (one, two) = (
            End::resolve(self.world, from).ok()?,
            End::resolve(self.world, to).ok()?,
        );
        if one.is(&two) {
            return Some(self.answer([ALL; 2]));
        }
        Some(self.ports(self.profile_of(&one), self.profile_of(&two)))
    }

    /// What policy sees of a Pod.
    #[must_use]
    pub fn pod(&self, name: &ObjectName) -> Option<Profile> {
        Some(self.groups[*self.pods.get(name)?].profile)
    }

    /// Strangers by regions that neither this world nor the other divides, with what policy sees
    /// of them here and there.
    pub(crate) fn strangers_of_both(&self, other: &Reach) -> Vec<(Members<'w>, [Profile; 2])> {
        let known = |address: IpAddr| {
            self.addresses.contains_key(&address) || other.addresses.contains_key(&address)
        };
        partition([&self.prefixes, &other.prefixes], known)
            .into_iter()
            .map(|(classes, region)| (Members::Strangers(region), classes.map(Profile::outside)))
            .collect()
    }

    /// The host by addresses that neither this world nor the other tells apart, likewise.
    pub(crate) fn host_of_both(&self, other: &Reach) -> Vec<(Members<'w>, [Profile; 2])> {
        let mut by_profile: BTreeMap<[Profile; 2], Vec<IpAddr>> = BTreeMap::new();
        for address in self.world.host.intersection(&other.world.host) {
            let profiles = [self.host_at(Some(*address)), other.host_at(Some(*address))];
            by_profile.entry(profiles).or_default().push(*address);
        }
        if by_profile.is_empty() {
            by_profile.insert([self.host_at(None), other.host_at(None)], Vec::new());
        }
        by_profile
            .into_iter()
            .map(|(profiles, addresses)| (Members::Host(addresses), profiles))
            .collect()
    }

    fn answer(&self, key: [usize; 2]) -> Ports<'_> {
        Ports {
            egress: &self.sets[key[0]],
            ingress: &self.sets[key[1]],
            key,
        }
    }

    fn side(&self, policy_set: u64, class: u64, host: bool) -> usize {
        if policy_set == NOT_ISOLATED || host {
            return ALL;
        }
        [class, CLASS_ANY]
            .into_iter()
            .find_map(|class| self.verdicts.get(&VerdictKey { policy_set, class }))
            .copied()
            .unwrap_or(NOTHING)
    }

    fn class(&self, address: IpAddr) -> u64 {
        self.addresses.get(&address).map_or_else(
            || class_in(&self.prefixes, address.into()),
            |entry| entry.class,
        )
    }

    fn profile_of(&self, end: &End) -> Profile {
        let name = end.pod.map(|(name, _)| name);
        let policy_sets = name.and_then(|name| self.policy_sets.get(name));
        let [ingress, egress] = policy_sets.copied().unwrap_or([NOT_ISOLATED; 2]);
        let lent = name.and_then(|name| self.lent.get(name));
        Profile {
            host: end.host,
            ingress,
            egress,
            classes: end.by_family().map(|address| Some(self.class(address?))),
            bare: lent.map_or(CLASS_ANY, |address| self.class(*address)),
            dual: end.is_dual(),
        }
    }

    fn group(&mut self) {
        let world = self.world;
        let mut known: HashMap<Profile, usize> = HashMap::new();
        for (name, pod) in &world.pods {
            let profile = self.profile_of(&End::of_pod(world, name, pod));
            let next = self.groups.len();
            let group = *known.entry(profile).or_insert(next);
            if group == next {
                self.groups.push(Group {
                    members: Members::Pods(Vec::new()),
                    profile,
                });
            }
            if let Members::Pods(pods) = &mut self.groups[group].members {
                pods.push(name);
            }
            self.pods.insert(name, group);
        }
        self.group_the_host();
        let known = |address| self.addresses.contains_key(&address);
        let strangers = partition([&self.prefixes], known);
        self.groups
            .extend(strangers.into_iter().map(|([class], region)| Group {
                members: Members::Strangers(region),
                profile: Profile::outside(class),
            }));
    }

    fn group_the_host(&mut self) {
        let mut by_profile: BTreeMap<Profile, Vec<IpAddr>> = BTreeMap::new();
        for address in &self.world.host {
            let profile = self.host_at(Some(*address));
            by_profile.entry(profile).or_default().push(*address);
        }
        if by_profile.is_empty() {
            by_profile.insert(self.host_at(None), Vec::new());
        }
        self.groups
            .extend(by_profile.into_iter().map(|(profile, addresses)| Group {
                members: Members::Host(addresses),
                profile,
            }));
    }

    /// The host at one of its addresses: which one matters only where a rule is asked at all.
    fn host_at(&self, address: Option<IpAddr>) -> Profile {
        let Settings {
            host_ingress,
            host_egress,
        } = self.world.settings;
        let asked = address.filter(|_| !(host_ingress && host_egress));
        Profile {
            host: true,
            ..Profile::outside(asked.map_or(CLASS_ANY, |address| self.class(address)))
        }
    }
}

impl Profile {
    /// Of an end that is not enforced: its class is the same whatever address the other end is spoken to
    /// at, which has one family.
    const fn outside(class: u64) -> Self {
        Self {
            host: false,
            ingress: NOT_ISOLATED,
            egress: NOT_ISOLATED,
            classes: [Some(class); 2],
            bare: class,
            dual: false,
        }
    }

    /// Do policies select it for egress?
    #[must_use]
    pub const fn is_isolated_for_egress(&self) -> bool {
        self.egress != NOT_ISOLATED
    }

    /// Do policies select it for ingress?
    #[must_use]
    pub const fn is_isolated_for_ingress(&self) -> bool {
        self.ingress != NOT_ISOLATED
    }
}
