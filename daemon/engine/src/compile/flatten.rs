//! From rules that match a pair of policy set and class to disjoint port ranges.
//!
//! Here the tiers are resolved: rules come numbered in the order in which they are asked
//! (admin tier, NetworkPolicy, baseline), and for every port the first that decides does.
//! Within NetworkPolicy each rule allows, so the lowest number that matches is named.

use std::collections::BTreeMap;

use netpol_abi::tables::{PortRange, RULE_DEFAULT};

use crate::policy::{Action, Protocol, Tier};
use crate::tables::VerdictEntry;

/// A rule whose peers match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause<'a> {
    /// Its number in the policy set.
    pub number: u32,
    pub tier: Tier,
    pub action: Action,
    pub extent: Extent<'a>,
}

/// The ports of a rule, names resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Extent<'a> {
    /// Every protocol, with ports or without.
    Everything,
    /// Those that the rule states, and those that its names stand for. Nothing, where no name
    /// stands for anything: never everything.
    Ranges(&'a [Range], Vec<Range>),
}

/// First and last port, inclusive.
pub(super) type Range = (Protocol, u16, u16);

/// What holds for a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decision {
    rule: u32,
    allow: bool,
}

/// The verdict of these clauses, sorted by number. `isolating`: a NetworkPolicy selects the
/// endpoint, so what none of its rules allows is denied; else it is allowed by default.
pub(super) fn flatten(clauses: &[Clause], isolating: bool) -> VerdictEntry {
    let everything: Vec<usize> = clauses
        .iter()
        .enumerate()
        .filter(|(_, clause)| clause.extent == Extent::Everything)
        .map(|(index, _)| index)
        .collect();
    let base = decide(clauses, everything.iter().copied(), isolating);
    let mut entry = VerdictEntry {
        other: if base.allow { base.rule } else { 0 },
        ranges: Vec::new(),
    };
    if base.allow && clauses.iter().all(|clause| clause.action == Action::Allow) {
        return entry;
    }
    for protocol in Protocol::ALL {
        let changes = changes(clauses, protocol);
        // How many ranges of each clause hold the port at hand.
        let mut open: BTreeMap<usize, u32> = everything.iter().map(|index| (*index, 1)).collect();
        let mut changes = changes.as_slice();
        while let Some((from, ..)) = changes.first() {
            let here = changes.partition_point(|(at, ..)| at == from);
            for (_, index, opens) in &changes[..here] {
                let count = open.entry(*index).or_default();
                if *opens {
                    *count += 1;
                } else if *count > 1 {
                    *count -= 1;
                } else {
                    open.remove(index);
                }
            }
            let from = *from;
            changes = &changes[here..];
            let Some((to, ..)) = changes.first() else {
                break;
            };
            let decision = decide(clauses, open.keys().copied(), isolating);
            add(&mut entry, base, protocol, (from, *to), decision);
        }
    }
    entry
}

/// Where ranges of a protocol begin and end (one past the last port), sorted.
fn changes(clauses: &[Clause], protocol: Protocol) -> Vec<(u32, usize, bool)> {
    let mut changes = Vec::new();
    for (index, clause) in clauses.iter().enumerate() {
        let Extent::Ranges(stated, named) = &clause.extent else {
            continue;
        };
        for (of, first, last) in stated.iter().chain(named) {
            if *of == protocol && first <= last {
                changes.push((u32::from(*first), index, true));
                changes.push((u32::from(*last) + 1, index, false));
            }
        }
    }
    changes.sort_unstable();
    changes
}

/// What the clauses that match say, in their order.
fn decide(clauses: &[Clause], matching: impl Iterator<Item = usize>, isolating: bool) -> Decision {
    let mut passed = None;
    for clause in matching.map(|index| &clauses[index]) {
        if clause.tier == Tier::Baseline && isolating {
            break;
        }
        if passed == Some(clause.tier) {
            continue;
        }
        match clause.action {
            Action::Allow => {
                return Decision {
                    rule: clause.number,
                    allow: true,
                };
            }
            Action::Deny => {
                return Decision {
                    rule: clause.number,
                    allow: false,
                };
            }
            Action::Pass => passed = Some(clause.tier),
        }
    }
    if isolating {
        Decision {
            rule: 0,
            allow: false,
        }
    } else {
        Decision {
            rule: RULE_DEFAULT,
            allow: true,
        }
    }
}

/// Adds `from .. to`, unless `other` says as much, joining what belongs together.
fn add(
    entry: &mut VerdictEntry,
    base: Decision,
    protocol: Protocol,
    (from, to): (u32, u32),
    decision: Decision,
) {
    let is_base = decision.allow == base.allow && (decision.allow || decision.rule == base.rule);
    if is_base {
        return;
    }
    let range = PortRange {
        first: from as u16,
        last: (to - 1) as u16,
        protocol: protocol.number(),
        deny: u8::from(!decision.allow),
        reserved: 0,
        rule: decision.rule,
    };
    match entry.ranges.last_mut() {
        Some(before)
            if before.protocol == range.protocol
                && u32::from(before.last) + 1 == from
                && (before.rule, before.deny) == (range.rule, range.deny) =>
        {
            before.last = range.last;
        }
        _ => entry.ranges.push(range),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clause(number: u32, tier: Tier, action: Action, ranges: &[Range]) -> Clause<'_> {
        let extent = if ranges.is_empty() {
            Extent::Everything
        } else {
            Extent::Ranges(ranges, Vec::new())
        };
        Clause {
            number,
            tier,
            action,
            extent,
        }
    }

    fn allow(number: u32, ranges: &[Range]) -> Clause<'_> {
        clause(number, Tier::NetworkPolicy, Action::Allow, ranges)
    }

    fn shown(entry: &VerdictEntry) -> String {
        let ranges: Vec<String> = entry
            .ranges
            .iter()
            .map(|range| {
                let sign = if range.deny == 0 { '+' } else { '-' };
                let PortRange {
                    first,
                    last,
                    protocol,
                    rule,
                    ..
                } = range;
                format!("{protocol}:{first}-{last} {sign}{rule}")
            })
            .collect();
        format!("{} [{}]", entry.other, ranges.join(", "))
    }

    const TCP: Protocol = Protocol::Tcp;
    const UDP: Protocol = Protocol::Udp;

    #[test]
    fn disjoint_sorted_and_named_by_the_lowest_rule() {
        for (clauses, expected) in [
            (vec![], "0 []"),
            (vec![allow(2, &[])], "2 []"),
            (vec![allow(2, &[]), allow(3, &[(TCP, 1, 2)])], "2 []"),
            (
                vec![
                    allow(1, &[(TCP, 80, 90)]),
                    allow(4, &[(TCP, 85, 100), (UDP, 53, 53)]),
                ],
                "0 [6:80-90 +1, 6:91-100 +4, 17:53-53 +4]",
            ),
            (
                vec![allow(1, &[(TCP, 85, 86)]), allow(2, &[(TCP, 80, 90)])],
                "0 [6:80-84 +2, 6:85-86 +1, 6:87-90 +2]",
            ),
            (
                vec![allow(1, &[(TCP, 5, 6), (TCP, 7, 9), (TCP, 6, 8)])],
                "0 [6:5-9 +1]",
            ),
            (vec![allow(1, &[(UDP, 0, 65535)])], "0 [17:0-65535 +1]"),
            (vec![allow(1, &[(TCP, 9, 3)])], "0 []"),
        ] {
            assert_eq!(shown(&flatten(&clauses, true)), expected, "{clauses:?}");
        }
    }

    #[test]
    fn names_that_stand_for_nothing_allow_nothing() {
        let clause = Clause {
            extent: Extent::Ranges(&[], Vec::new()),
            ..allow(1, &[])
        };
        assert_eq!(shown(&flatten(&[clause], true)), "0 []");
    }

    #[test]
    fn the_first_tier_that_decides_does() {
        use Action::{Allow, Deny, Pass};
        use Tier::{Admin, Baseline};
        let web: &[Range] = &[(TCP, 80, 80)];
        let low: &[Range] = &[(TCP, 1, 1023)];
        for (clauses, isolating, expected) in [
            (
                vec![clause(1, Admin, Deny, web)],
                false,
                "4294967295 [6:80-80 -1]",
            ),
            (vec![clause(1, Admin, Deny, web)], true, "0 [6:80-80 -1]"),
            (
                vec![clause(1, Admin, Deny, web), allow(2, &[])],
                true,
                "2 [6:80-80 -1]",
            ),
            (
                vec![
                    clause(1, Admin, Pass, web),
                    clause(2, Admin, Deny, low),
                    allow(3, &[]),
                ],
                true,
                "3 [6:1-79 -2, 6:81-1023 -2]",
            ),
            (
                vec![clause(1, Admin, Allow, web), clause(2, Admin, Deny, &[])],
                true,
                "0 [6:80-80 +1]",
            ),
            (
                vec![allow(1, web), clause(2, Baseline, Allow, low)],
                true,
                "0 [6:80-80 +1]",
            ),
            (
                vec![clause(1, Baseline, Deny, low)],
                false,
                "4294967295 [6:1-1023 -1]",
            ),
        ] {
            assert_eq!(
                shown(&flatten(&clauses, isolating)),
                expected,
                "{clauses:?}"
            );
        }
    }
}
