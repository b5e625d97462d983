//! Which endpoints' connections have to be judged again: those of an endpoint with a new
//! revision. Its own are kept while nothing that its verdicts depend on changes, so that a
//! policy for one does not cost all.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netpol_abi::tables::{CLASS_ANY, NOT_ISOLATED, OWNER_HOST, control_flags};

use super::changes;
use super::leaves;
use super::prefixes::Node;
use crate::policy::Direction;
use crate::tables::verdicts::find;
use crate::tables::{EndpointEntry, Tables, VerdictEntry};

/// What decides about a peer besides the policy set: its class, and whether it is the host.
type Peer = (u64, bool);

/// The desired endpoints, each with the revision that it has after the plan.
pub(super) fn revised(
    installed: &Tables,
    desired: &Tables,
    nodes: &[Node],
    generation: u64,
) -> BTreeMap<u32, EndpointEntry> {
    // 0 stands for an endpoint that is not there.
    let fresh = (generation as u32).max(1);
    let moved = Moved::between(installed, desired, nodes);
    let mut known: HashMap<(u64, Direction), bool> = HashMap::new();
    let mut affected = |policy_set, direction| {
        *known
            .entry((policy_set, direction))
            .or_insert_with(|| moved.affects(policy_set, direction, installed, desired))
    };
    // Any endpoint may have dialled a published port.
    let dialled = installed.published != desired.published
        || (moved.host && !desired.published.is_empty())
        || desired.published.values().any(|policy| {
            [policy.ingress, policy.audited_ingress]
                .into_iter()
                .any(|policy_set| affected(policy_set, Direction::Ingress))
        });
    let revise = |(slot, after): (&u32, &EndpointEntry)| {
        let kept = installed.endpoints.get(slot).filter(|before| {
            installed.flags == desired.flags
                && !dialled
                && **before
                    == EndpointEntry {
                        revision: before.revision,
                        ..*after
                    }
                && !moved.lost.contains(&after.id)
                && !moved.leaves.contains(slot)
                && [after.ingress, after.audited_ingress]
                    .into_iter()
                    .all(|policy_set| !affected(policy_set, Direction::Ingress))
                && [after.egress, after.audited_egress]
                    .into_iter()
                    .all(|policy_set| !affected(policy_set, Direction::Egress))
        });
        let revision = kept.map_or(fresh, |before| before.revision);
        (*slot, EndpointEntry { revision, ..*after })
    };
    desired.endpoints.iter().map(revise).collect()
}

/// How peers changed.
struct Moved {
    /// Each change that some address or prefix makes.
    pairs: Vec<(Peer, Peer)>,
    /// The same by what it was, and by what it will be.
    from: HashMap<u64, Vec<(Peer, Peer)>>,
    to: HashMap<u64, Vec<(Peer, Peer)>>,
    /// The host's addresses that came or went.
    host: bool,
    /// Endpoints that an address was taken from.
    lost: BTreeSet<u32>,
    /// Slots that got or lost leave for some address, also because another endpoint has it or had it.
    leaves: BTreeSet<u32>,
}

impl Moved {
    fn between(installed: &Tables, desired: &Tables, nodes: &[Node]) -> Self {
        let strangers = (
            Strangers::new(&installed.prefixes),
            Strangers::new(&desired.prefixes),
        );
        let mut pairs: HashSet<(Peer, Peer)> = nodes
            .iter()
            .filter(|node| node.was != node.will)
            .map(|node| ((node.was, false), (node.will, false)))
            .collect();
        let mut lost = BTreeSet::new();
        let mut leaves = leaves::changed(&installed.leaves, &desired.leaves);
        let has_leaves = !desired.leaves.is_empty();
        for (address, before, after) in changes(&installed.addresses, &desired.addresses) {
            let was = before.map_or_else(
                || (strangers.0.class(*address), false),
                |entry| (entry.class, entry.owner == OWNER_HOST),
            );
            let will = after.map_or_else(
                || (strangers.1.class(*address), false),
                |entry| (entry.class, entry.owner == OWNER_HOST),
            );
            pairs.insert((was, will));
            if has_leaves && before.map(|entry| entry.owner) != after.map(|entry| entry.owner) {
                leaves.extend(leaves::holders(&desired.leaves, &IpNet::from(*address)));
            }
            if let Some(before) = before
                && Some(before.owner) != after.map(|entry| entry.owner)
            {
                lost.insert(before.owner);
            }
        }
        pairs.retain(|(was, will)| was != will);
        let mut moved = Self {
            pairs: pairs.into_iter().collect(),
            from: HashMap::new(),
            to: HashMap::new(),
            host: false,
            lost,
            leaves,
        };
        for pair in &moved.pairs {
            let (was, will) = pair;
            moved.host |= was.1 != will.1;
            moved.from.entry(was.0).or_default().push(*pair);
            moved.to.entry(will.0).or_default().push(*pair);
        }
        moved
    }

    /// May a connection of an endpoint with this policy set get another verdict? Both states have
    /// the policy set.
    fn affects(
        &self,
        policy_set: u64,
        direction: Direction,
        installed: &Tables,
        desired: &Tables,
    ) -> bool {
        if policy_set == NOT_ISOLATED {
            return false;
        }
        let flag = match direction {
            Direction::Ingress => control_flags::HOST_INGRESS,
            Direction::Egress => control_flags::HOST_EGRESS,
        };
        let host_passes = desired.flags & flag != 0;
        if host_passes && self.host {
            return true;
        }
        let (old, new) = (
            Entries::for_policy_set(installed, policy_set),
            Entries::for_policy_set(desired, policy_set),
        );
        if old.any != new.any {
            return true;
        }
        // Also of the host's addresses, where the host itself passes: what is translated to one of them is judged
        // by the address.
        let changes = |((was, _), (will, _)): &(Peer, Peer)| old.entry(*was) != new.entry(*will);
        // A pair of classes without an entry of their own falls back to the same, so it does not
        // matter whether all pairs are looked at, or those alone that have one.
        if self.pairs.len() < old.own.len() + new.own.len() {
            return self.pairs.iter().any(changes);
        }
        let has_changed = |by: &'_ HashMap<u64, Vec<(Peer, Peer)>>, class: &u64| {
            by.get(class).is_some_and(|pairs| pairs.iter().any(changes))
        };
        old.own
            .iter()
            .any(|(class, _)| has_changed(&self.from, class))
            || new
                .own
                .iter()
                .any(|(class, _)| has_changed(&self.to, class))
    }
}

/// What one policy set says, by class.
struct Entries<'t> {
    own: &'t [(u64, Arc<VerdictEntry>)],
    any: Option<&'t VerdictEntry>,
}

impl<'t> Entries<'t> {
    fn for_policy_set(tables: &'t Tables, policy_set: u64) -> Self {
        let row = tables.verdicts.rows().get(&policy_set);
        let own = row.map_or(&[][..], |row| row);
        let any = find(own, CLASS_ANY);
        Self { own, any }
    }

    fn entry(&self, class: u64) -> Option<&VerdictEntry> {
        find(self.own, class).or(self.any)
    }
}

/// Longest prefixes of one state.
struct Strangers<'t> {
    prefixes: &'t BTreeMap<IpNet, u64>,
    /// Lengths that there are, the longest first.
    lengths: Vec<u8>,
}

impl<'t> Strangers<'t> {
    fn new(prefixes: &'t BTreeMap<IpNet, u64>) -> Self {
        let lengths: BTreeSet<u8> = prefixes.keys().map(IpNet::prefix_len).collect();
        Self {
            prefixes,
            lengths: lengths.into_iter().rev().collect(),
        }
    }

    fn class(&self, address: IpAddr) -> u64 {
        let find = |length: &u8| {
            let net = IpNet::new(address, *length).ok()?;
            self.prefixes.get(&net.trunc())
        };
        self.lengths
            .iter()
            .find_map(find)
            .copied()
            .unwrap_or(CLASS_ANY)
    }
}
