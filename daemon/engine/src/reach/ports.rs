//! Sets of ports: what one side of a connection allows, as a value that can be compared, cut and
//! shown to people.
//!
//! A set says for each port of TCP, UDP and SCTP whether it is in, and whether all protocols
//! that have no ports (ICMP and the rest) are: no rule can name one of those alone. Ports are
//! host order. Nothing here knows of policies.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::policy::Protocol;
use crate::tables::VerdictEntry;

/// A set of destination ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortSet {
    /// By protocol, in the order of [`Protocol::ALL`]: first and last port of each range, ascending,
    /// with a gap between two.
    ranges: [Vec<(u16, u16)>; 3],
    /// All other protocols.
    others: bool,
}

impl PortSet {
    /// No port of any protocol.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Every port of every protocol, and the protocols without ports.
    #[must_use]
    pub fn all() -> Self {
        Self {
            ranges: std::array::from_fn(|_| vec![(0, u16::MAX)]),
            others: true,
        }
    }

    /// From … to, inclusive, of one protocol.
    #[must_use]
    pub fn range(protocol: Protocol, first: u16, last: u16) -> Self {
        let mut set = Self::nothing();
        if first <= last {
            set.ranges[index(protocol)].push((first, last));
        }
        set
    }

    /// What a verdict of the tables lets pass.
    pub(super) fn allowed_by(entry: &VerdictEntry) -> Self {
        let base = if entry.other == 0 {
            Self::nothing()
        } else {
            Self::all()
        };
        let ranges = |deny: bool| {
            let mut set = Self::nothing();
            for range in &entry.ranges {
                let protocol = Protocol::ALL
                    .into_iter()
                    .find(|protocol| protocol.number() == range.protocol);
                if let Some(protocol) = protocol.filter(|_| deny == (range.deny != 0)) {
                    set.ranges[index(protocol)].push((range.first, range.last));
                }
            }
            set
        };
        // The ranges are disjoint, so their order does not matter.
        base.difference(&ranges(true)).union(&ranges(false))
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.combine(other, |one, two| one || two)
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.combine(other, |one, two| one && two)
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.combine(other, |one, two| one && !two)
    }

    /// What is not in it.
    #[must_use]
    pub fn complement(&self) -> Self {
        Self::all().difference(self)
    }

    /// Is nothing in both?
    #[must_use]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        let apart = |one: &[(u16, u16)], two: &[(u16, u16)]| {
            one.iter().all(|(first, last)| {
                // Of those that begin before this one ends the last reaches furthest.
                let after = two.partition_point(|(from, _)| from <= last);
                after == 0 || two[after - 1].1 < *first
            })
        };
        let mut pairs = self.ranges.iter().zip(&other.ranges);
        !(self.others && other.others) && pairs.all(|(one, two)| apart(one, two))
    }

    /// Is nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.others && self.ranges.iter().all(Vec::is_empty)
    }

    /// Is everything in it?
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.others && self.ranges.iter().all(|ranges| **ranges == [(0, u16::MAX)])
    }

    /// Is this port in it?
    #[must_use]
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        let ranges = &self.ranges[index(protocol)];
        let after = ranges.partition_point(|(first, _)| *first <= port);
        after > 0 && port <= ranges[after - 1].1
    }

    /// Are the protocols without ports in it?
    #[must_use]
    pub const fn has_others(&self) -> bool {
        self.others
    }

    /// Its ranges, by protocol and then ascending: first and last port, inclusive.
    pub fn ranges(&self) -> impl Iterator<Item = (Protocol, u16, u16)> {
        Protocol::ALL
            .into_iter()
            .zip(&self.ranges)
            .flat_map(|(protocol, ranges)| {
                ranges
                    .iter()
                    .map(move |(first, last)| (protocol, *first, *last))
            })
    }

    fn combine(&self, other: &Self, keep: fn(bool, bool) -> bool) -> Self {
        Self {
            ranges: std::array::from_fn(|protocol| {
                combine(&self.ranges[protocol], &other.ranges[protocol], keep)
            }),
            others: keep(self.others, other.others),
        }
    }
}

fn index(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
        Protocol::Sctp => 2,
    }
}

/// `keep` says of each port whether it stays, by whether it is in the one and in the two; what is
/// in neither never stays.
fn combine(
    one: &[(u16, u16)],
    two: &[(u16, u16)],
    keep: fn(bool, bool) -> bool,
) -> Vec<(u16, u16)> {
    // Where membership changes: the first port of a range, and the one after its last.
    let edges = |ranges: &[(u16, u16)]| -> Vec<u32> {
        ranges
            .iter()
            .flat_map(|(first, last)| [u32::from(*first), u32::from(*last) + 1])
            .collect()
    };
    let (one, two) = (edges(one), edges(two));
    let mut places: Vec<u32> = [&one[..], &two[..]].concat();
    places.sort_unstable();
    places.dedup();
    // An odd number of edges up to a place: it is inside.
    let inside = |edges: &[u32], place| edges.partition_point(|edge| *edge <= place) % 2 == 1;
    let mut found: Vec<(u16, u16)> = Vec::new();
    let mut open: Option<u32> = None;
    for place in places {
        let here = keep(inside(&one, place), inside(&two, place));
        match open {
            None if here => open = Some(place),
            Some(first) if !here => {
                found.push((first as u16, (place - 1) as u16));
                open = None;
            }
            _ => {}
        }
    }
    found
}

/// For people: `80/TCP, 8000-8080/TCP, all UDP`; `all`, `nothing`; and, where little is missing,
/// `all but 80/TCP`.
impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_all() {
            return f.write_str("all");
        }
        if self.is_empty() {
            return f.write_str("nothing");
        }
        // The protocols without ports come only with a rule for everything, so what is told from
        // it is short.
        if self.others {
            return write!(f, "all but {}", self.complement());
        }
        for (position, (protocol, first, last)) in self.ranges().enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            match (first, last) {
                (0, u16::MAX) => write!(f, "all {protocol}")?,
                _ if first == last => write!(f, "{first}/{protocol}")?,
                _ => write!(f, "{first}-{last}/{protocol}")?,
            }
        }
        Ok(())
    }
}

/// As a list like a rule's `ports`: `{protocol, port, endPort}`, without `port` where it is all of
/// the protocol; the protocols without ports are `{"protocol": "other"}`.
impl Serialize for PortSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ranges = self.ranges().map(|(protocol, first, last)| {
            let whole = (first, last) == (0, u16::MAX);
            Entry {
                protocol: Named::Protocol(protocol),
                port: (!whole).then_some(first),
                end_port: (!whole && first != last).then_some(last),
            }
        });
        let others = self.others.then_some(Entry {
            protocol: Named::Other,
            port: None,
            end_port: None,
        });
        serializer.collect_seq(ranges.chain(others))
    }
}

#[derive(Serialize)]
struct Entry {
    protocol: Named,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(rename = "endPort", skip_serializing_if = "Option::is_none")]
    end_port: Option<u16>,
}

enum Named {
    Protocol(Protocol),
    Other,
}

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Protocol(protocol) => protocol.serialize(serializer),
            Self::Other => serializer.serialize_str("other"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use netpol_abi::tables::PortRange;
    use proptest::prelude::*;

    use super::*;

    fn tcp(first: u16, last: u16) -> PortSet {
        PortSet::range(Protocol::Tcp, first, last)
    }

    fn udp(port: u16) -> PortSet {
        PortSet::range(Protocol::Udp, port, port)
    }

    #[test]
    fn people_read_it() {
        let some = tcp(80, 80).union(&tcp(8000, 8080)).union(&udp(53));
        assert_eq!(some.to_string(), "80/TCP, 8000-8080/TCP, 53/UDP");
        assert_eq!(tcp(0, 65535).to_string(), "all TCP");
        assert_eq!(tcp(1, 65535).to_string(), "1-65535/TCP");
        assert_eq!(PortSet::all().to_string(), "all");
        assert_eq!(PortSet::nothing().to_string(), "nothing");
        assert_eq!(
            some.complement().to_string(),
            "all but 80/TCP, 8000-8080/TCP, 53/UDP"
        );
        // A set without the protocols that have no ports is never everything but a few.
        let ports: PortSet = Protocol::ALL
            .into_iter()
            .map(|protocol| PortSet::range(protocol, 0, u16::MAX))
            .fold(PortSet::nothing(), |all, one| all.union(&one));
        assert_eq!(ports.to_string(), "all TCP, all UDP, all SCTP");
        assert!(!ports.is_all() && !ports.has_others());
    }

    #[test]
    fn programs_read_it_like_a_rule_s_ports() {
        let json = |set: &PortSet| serde_json::to_value(set).unwrap();
        assert_eq!(
            json(&tcp(80, 80).union(&tcp(8000, 8080))),
            serde_json::json!([
                {"protocol": "TCP", "port": 80},
                {"protocol": "TCP", "port": 8000, "endPort": 8080},
            ])
        );
        assert_eq!(
            json(&PortSet::all()),
            serde_json::json!([
                {"protocol": "TCP"}, {"protocol": "UDP"}, {"protocol": "SCTP"}, {"protocol": "other"},
            ])
        );
        assert_eq!(json(&PortSet::nothing()), serde_json::json!([]));
    }

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(tcp(1, 9).union(&tcp(10, 20)), tcp(1, 20));
        assert_eq!(tcp(0, 65535).difference(&tcp(0, 65535)), PortSet::nothing());
        assert_eq!(tcp(9, 1), PortSet::nothing());
    }

    #[test]
    fn a_verdict_s_ranges_add_and_take_away() {
        let range = |first, last, deny| PortRange {
            first,
            last,
            protocol: 6,
            deny,
            ..PortRange::default()
        };
        let closed = VerdictEntry {
            other: 0,
            ranges: vec![range(80, 81, 0), range(90, 90, 1)],
        };
        assert_eq!(PortSet::allowed_by(&closed), tcp(80, 81));
        let open = VerdictEntry { other: 3, ..closed };
        assert_eq!(PortSet::allowed_by(&open), tcp(90, 90).complement());
    }

    fn set() -> impl Strategy<Value = PortSet> {
        let edge = prop_oneof![0_u16..12, 65530..=u16::MAX];
        let range = (0..3_usize, edge.clone(), edge);
        (proptest::collection::vec(range, 0..6), any::<bool>()).prop_map(|(ranges, others)| {
            let mut set = PortSet {
                others,
                ..PortSet::nothing()
            };
            for (protocol, first, last) in ranges {
                set = set.union(&PortSet::range(Protocol::ALL[protocol], first, last));
            }
            set
        })
    }

    proptest! {
        #[test]
        fn sets_are_sets(one in set(), two in set()) {
            let (both, either, less) = (one.intersection(&two), one.union(&two), one.difference(&two));
            for protocol in Protocol::ALL {
                for port in (0..16).chain(65525..=u16::MAX) {
                    let (a, b) = (one.contains(protocol, port), two.contains(protocol, port));
                    prop_assert_eq!(both.contains(protocol, port), a && b);
                    prop_assert_eq!(either.contains(protocol, port), a || b);
                    prop_assert_eq!(less.contains(protocol, port), a && !b);
                    prop_assert_eq!(one.complement().contains(protocol, port), !a);
                }
            }
            // One form for each set.
            prop_assert_eq!(&less.union(&both), &one);
            prop_assert_eq!(less.is_empty(), either == two);
            prop_assert_eq!(one.is_disjoint(&two), both.is_empty());
            prop_assert_eq!(one.complement().is_empty(), one.is_all());
        }
    }
}
