//! The verdict of every pair of subject and class that some rule tells from any peer's.

use std::collections::{BTreeMap, HashMap};

use netpol_abi::limits::VERDICTS;
use netpol_abi::tables::{CLASS_ANY, VerdictKey};

use super::classes::{Class, Classes};
use super::flatten::{Clause, Extent, flatten};
use super::subjects::{PartRule, PortName, Resolved, Subject, Subjects};
use crate::policy::{Direction, Tier};
use crate::tables::VerdictEntry;

/// Verdicts at which the compiler stops. No kernel table is made so large, so what it has got
/// until there is refused for its size; going on would only take the memory.
pub const MAX_VERDICTS: usize = 4 * VERDICTS as usize;

/// All verdicts; a pair that is not in it has that of the subject and any peer, and without
/// that one is denied.
pub(super) fn verdicts(
    subjects: &Subjects,
    classes: &Classes,
) -> BTreeMap<VerdictKey, VerdictEntry> {
    let index = Index::of(subjects);
    let mut found: Vec<(VerdictKey, VerdictEntry)> = Vec::new();
    let any: Vec<VerdictEntry> = subjects
        .all
        .iter()
        .zip(&index.any_peer)
        .map(|(subject, rules)| index.entry(subject, rules, &[], &Resolved::new()))
        .collect();
    for (subject, entry) in subjects.all.iter().zip(&any) {
        if *entry != VerdictEntry::default() {
            let key = VerdictKey {
                subject: subject.number,
                class: CLASS_ANY,
            };
            found.push((key, entry.clone()));
        }
    }
    // Most classes that a subject knows differ in nothing that it asks for.
    let mut memo: HashMap<(usize, Vec<Place>), VerdictEntry> = HashMap::new();
    for (class, what) in &classes.all {
        let matches = index.matches(what);
        for of_subject in matches.chunk_by(|(one, _), (two, _)| one == two) {
            let number = of_subject[0].0;
            let subject = &subjects.all[number];
            let fresh = || index.entry(subject, &index.any_peer[number], of_subject, &what.ports);
            let entry = if what.ports.is_empty() || subject.direction == Direction::Ingress {
                memo.entry((number, of_subject.to_vec()))
                    .or_insert_with(fresh)
                    .clone()
            } else {
                fresh()
            };
            if entry != any[number] && !(allows_all(&entry) && allows_all(&any[number])) {
                let key = VerdictKey {
                    subject: subject.number,
                    class: *class,
                };
                found.push((key, entry));
            }
        }
        if found.len() > MAX_VERDICTS {
            break;
        }
    }
    found.into_iter().collect()
}

fn allows_all(entry: &VerdictEntry) -> bool {
    entry.other != 0 && entry.ranges.is_empty()
}

/// A rule of a subject: the subject's index, and the rule's number in it.
type Place = (usize, u32);

/// Who uses what.
struct Index<'s, 'w> {
    subjects: &'s Subjects<'w>,
    /// By atom: the rules (part and index) that have it as a peer.
    users: Vec<Vec<(usize, usize)>>,
    /// By part: the subjects that it is in, with the number before its first rule.
    within: Vec<Vec<Place>>,
    /// By subject: the rules for any peer whose ports are the same for all peers.
    any_peer: Vec<Vec<Place>>,
    /// Rules for any peer with names of ports that are looked up at the peer.
    named: HashMap<PortName<'w>, Vec<(usize, usize)>>,
}

impl<'s, 'w> Index<'s, 'w> {
    fn of(subjects: &'s Subjects<'w>) -> Self {
        let mut index = Self {
            subjects,
            users: vec![Vec::new(); subjects.atoms.len()],
            within: vec![Vec::new(); subjects.parts.len()],
            any_peer: vec![Vec::new(); subjects.all.len()],
            named: HashMap::new(),
        };
        for (part, found) in subjects.parts.iter().enumerate() {
            for (rule, what) in found.rules.iter().enumerate() {
                for atom in &what.atoms {
                    index.users[*atom].push((part, rule));
                }
                if what.any_peer && found.direction == Direction::Egress {
                    for name in &what.names {
                        index.named.entry(*name).or_default().push((part, rule));
                    }
                }
            }
        }
        for (number, subject) in subjects.all.iter().enumerate() {
            for (part, before) in &subject.parts {
                index.within[*part].push((number, *before));
                let rules = subjects.parts[*part].rules.iter().zip(*before + 1..);
                let any = rules.filter(|(rule, _)| rule.any_peer);
                index.any_peer[number].extend(any.map(|(_, rule)| (number, rule)));
            }
        }
        index
    }

    /// The rules that match a class for what it is, by subject and number.
    fn matches(&self, class: &Class<'w>) -> Vec<Place> {
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
                within.map(move |(subject, before)| (*subject, before + number))
            })
            .collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// The verdict of a subject's rules for any peer and of those that match besides.
    fn entry(
        &self,
        subject: &Subject<'w>,
        any_peer: &[Place],
        matches: &[Place],
        peer_ports: &Resolved<'w>,
    ) -> VerdictEntry {
        let ports = match subject.direction {
            Direction::Ingress => &subject.ports,
            Direction::Egress => peer_ports,
        };
        let mut numbers: Vec<u32> = any_peer
            .iter()
            .chain(matches)
            .map(|(_, rule)| *rule)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        let clauses: Vec<Clause> = numbers
            .into_iter()
            .map(|number| {
                let (tier, rule) = self.rule(subject, number);
                let extent = if rule.any_port {
                    Extent::Everything
                } else {
                    let named = |name| {
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
        flatten(&clauses, subject.isolating)
    }

    fn rule(&self, subject: &Subject<'w>, number: u32) -> (Tier, &'s PartRule<'w>) {
        let position = subject
            .parts
            .partition_point(|(_, before)| *before < number)
            - 1;
        let (part, before) = subject.parts[position];
        let part = &self.subjects.parts[part];
        (
            part.policy.tier,
            &part.rules[(number - before - 1) as usize],
        )
    }
}
