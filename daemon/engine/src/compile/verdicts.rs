//! The verdict of every pair of policy set and class that some rule tells from any peer's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use netpol_abi::limits::VERDICTS;
use netpol_abi::tables::{CLASS_ANY, VerdictKey};

use super::classes::{Class, Classes};
use super::flatten::{Clause, Extent, flatten};
use super::parts::{PartRule, Parts};
use super::policy_sets::{PolicySet, PolicySets};
use super::ports::{PortName, Resolved};
use crate::policy::{Direction, Tier};
use crate::tables::{VerdictEntry, Verdicts};

/// Verdicts at which the compiler stops. No kernel table is made so large, so what it has got
/// until there is refused for its size; going on would only take the memory.
pub const MAX_VERDICTS: usize = 4 * VERDICTS as usize;

/// There are more than were allowed: those at hand are not all.
#[derive(Clone, Copy, Debug)]
pub(super) struct TooMany;

/// Brings the verdicts up to date; a pair that is not in it has that of the policy set and any
/// peer, and without that one is denied. What two numbers say does not change, so only pairs
/// with a number that was not there before are looked at.
pub(super) fn update(
    verdicts: &mut Verdicts,
    parts: &Parts,
    atoms: usize,
    policy_sets: &PolicySets,
    classes: &Classes,
    most: usize,
) -> Result<(), TooMany> {
    verdicts.retain_policy_sets(|policy_set| policy_sets.all.contains_key(&policy_set));
    verdicts.remove_classes(&classes.gone);
    let fresh = |number: &u64| (*number, &policy_sets.all[number]);
    let fresh: BTreeMap<u64, &PolicySet> = policy_sets.fresh.iter().map(fresh).collect();
    for (number, policy_set) in &fresh {
        if *policy_set.any != VerdictEntry::default() {
            let (policy_set, any) = (*number, Arc::clone(&policy_set.any));
            let class = CLASS_ANY;
            verdicts.insert(VerdictKey { policy_set, class }, any);
        }
    }
    let mut fresh_classes = classes.fresh.clone();
    fresh_classes.sort_unstable();
    if !fresh_classes.is_empty() {
        let all = policy_sets
            .all
            .iter()
            .map(|(number, policy_set)| (*number, policy_set));
        let mut index = Index::new(parts, atoms, all.collect());
        for class in &fresh_classes {
            index.add(*class, &classes.all[class], verdicts);
            enough(verdicts, most)?;
        }
    }
    if !fresh.is_empty() {
        let mut index = Index::new(parts, atoms, fresh.into_iter().collect());
        for (class, what) in &classes.all {
            if fresh_classes.binary_search(class).is_err() {
                index.add(*class, what, verdicts);
                enough(verdicts, most)?;
            }
        }
    }
    Ok(())
}

fn enough(verdicts: &Verdicts, most: usize) -> Result<(), TooMany> {
    if verdicts.len() > most {
        return Err(TooMany);
    }
    Ok(())
}

fn allows_all(entry: &VerdictEntry) -> bool {
    entry.other != 0 && entry.ranges.is_empty()
}

/// A rule of a policy set: the policy set's index, and the rule's number in it.
type Place = (usize, u32);

/// Which rules of these policy sets ask for what.
struct Index<'s> {
    parts: &'s Parts,
    /// By index, with their numbers.
    policy_sets: Vec<(u64, &'s PolicySet)>,
    /// By atom: the rules (part and index) that have it as a peer.
    users: Vec<Vec<(usize, usize)>>,
    /// By part: the policy sets that it is in, with the number before its first rule.
    within: Vec<Vec<Place>>,
    /// Rules for any peer with names of ports that are looked up at the peer.
    named: HashMap<&'s PortName, Vec<(usize, usize)>>,
    /// Most classes that a policy set knows differ in nothing that it asks for.
    memo: HashMap<Vec<Place>, Arc<VerdictEntry>>,
}

impl<'s> Index<'s> {
    fn new(parts: &'s Parts, atoms: usize, policy_sets: Vec<(u64, &'s PolicySet)>) -> Self {
        let mut within = vec![Vec::new(); parts.all.bound()];
        for (index, (_, policy_set)) in policy_sets.iter().enumerate() {
            for (part, before) in &policy_set.parts {
                within[*part].push((index, *before));
            }
        }
        let mut index = Self {
            parts,
            policy_sets,
            users: vec![Vec::new(); atoms],
            within,
            named: HashMap::new(),
            memo: HashMap::new(),
        };
        for (part, within) in index.within.iter().enumerate() {
            if within.is_empty() {
                continue;
            }
            let what = &parts.all[part];
            for (rule, found) in what.rules.iter().enumerate() {
                for atom in &found.atoms {
                    index.users[*atom].push((part, rule));
                }
                if found.any_peer && what.direction == Direction::Egress {
                    for name in &found.names {
                        index.named.entry(name).or_default().push((part, rule));
                    }
                }
            }
        }
        index
    }

    /// Adds the verdicts of a class with these policy sets.
    fn add(&mut self, class: u64, what: &Class, verdicts: &mut Verdicts) {
        let matches = self.matches(what);
        for of_policy_set in matches.chunk_by(|(one, _), (two, _)| one == two) {
            let (number, policy_set) = self.policy_sets[of_policy_set[0].0];
            let entry = if what.ports.is_empty() || policy_set.direction == Direction::Ingress {
                match self.memo.get(of_policy_set) {
                    Some(entry) => Arc::clone(entry),
                    None => {
                        let fresh = policy_set.entry(self.parts, of_policy_set, &what.ports);
                        let entry = Arc::new(fresh);
                        self.memo.insert(of_policy_set.to_vec(), Arc::clone(&entry));
                        entry
                    }
                }
            } else {
                Arc::new(policy_set.entry(self.parts, of_policy_set, &what.ports))
            };
            if entry != policy_set.any && !(allows_all(&entry) && allows_all(&policy_set.any)) {
                let policy_set = number;
                verdicts.insert(VerdictKey { policy_set, class }, entry);
            }
        }
    }

    /// The rules that match a class for what it is, by policy set and number.
    fn matches(&self, class: &Class) -> Vec<Place> {
        let by_atom = class.atoms.iter().flat_map(|atom| &self.users[*atom]);
        let by_name = class
            .ports
            .keys()
            .filter_map(|name| self.named.get(name))
            .flatten();
        let mut places: Vec<Place> = by_atom
            .chain(by_name)
            .flat_map(|(part, rule)| {
                let number = *rule as u32 + 1;
                let within = self.within[*part].iter();
                within.map(move |(policy_set, before)| (*policy_set, before + number))
            })
            .collect();
        places.sort_unstable();
        places.dedup();
        places
    }
}

impl PolicySet {
    /// The verdict of the rules for any peer and of those that match besides.
    pub(super) fn entry(
        &self,
        parts: &Parts,
        matches: &[Place],
        peer_ports: &Resolved,
    ) -> VerdictEntry {
        let ports = match self.direction {
            Direction::Ingress => &self.ports,
            Direction::Egress => peer_ports,
        };
        let matches = matches.iter().map(|(_, rule)| *rule);
        let mut numbers: Vec<u32> = self.any_peer.iter().copied().chain(matches).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let clauses: Vec<Clause> = numbers
            .into_iter()
            .map(|number| {
                let (tier, rule) = self.rule(parts, number);
                let extent = if rule.any_port {
                    Extent::Everything
                } else {
                    let named = |name: &PortName| {
                        let port = *ports.get(name)?;
                        Some((name.0, port, port))
                    };
                    Extent::Ranges(&rule.ranges, rule.names.iter().filter_map(named).collect())
                };
                Clause {
                    number,
                    tier,
                    action: rule.action,
                    extent,
                }
            })
            .collect();
        flatten(&clauses, self.isolating)
    }

    fn rule<'p>(&self, parts: &'p Parts, number: u32) -> (Tier, &'p PartRule) {
        let position = self.parts.partition_point(|(_, before)| *before < number) - 1;
        let (part, before) = self.parts[position];
        let part = &parts.all[part];
        (part.tier, &part.rules[(number - before - 1) as usize])
    }
}
