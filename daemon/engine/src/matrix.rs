//! Which Pods reach which on one port: every ordered pair of different Pods, and the same by groups.
//!
//! Pods that reach, and are reached by, the same ones are a group: that is what people read,
//! and it costs what there is of groups. The pairs are written out only for callers that ask for
//! each. By [`crate::reach`], so by the compiled tables. Pods with IPv4 and IPv6 are told by
//! their IPv4, and where IPv6 gets another answer stands apart. Called by `netpol matrix`
//! and the API.

use std::collections::{BTreeMap, HashMap};

use serde::{Serialize, Serializer};

use crate::policy::{ObjectName, Protocol};
use crate::reach::cover::{Rectangle, cover, lines};
use crate::reach::{Group, Members, NeverInForce, Reach};
use crate::world::World;

#[cfg(test)]
mod tests;

/// The reachability of one protocol and port. Serialized it is `{port, protocol, pairs}`.
#[derive(Clone, Debug)]
pub struct Matrix<'w> {
    /// Destination port.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
    /// Sorted by their first member; the members are sorted.
    groups: Vec<Vec<&'w ObjectName>>,
    /// May a member of the one open a connection to (another) one of the other?
    allowed: Vec<Vec<bool>>,
    /// Every Pod with its group, sorted.
    pods: Vec<(&'w ObjectName, usize)>,
    /// By group: is it one of those that are asked about?
    meant: Vec<bool>,
    /// Pairs for which IPv6 gets another answer.
    over_ipv6: Vec<OverIpv6<'w>>,
}

/// Pods with IPv4 and IPv6: what is said of them is about IPv4, and this over IPv6.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OverIpv6<'w> {
    /// Senders, sorted.
    pub from: Vec<&'w ObjectName>,
    /// Receivers, sorted; a receiver that is a sender as well makes no pair with itself.
    pub to: Vec<&'w ObjectName>,
    /// May each of the senders open a connection to each of the receivers?
    pub allowed: bool,
}

/// One ordered pair of different Pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Pair<'w> {
    /// The Pod that opens the connection.
    pub from: &'w ObjectName,
    /// The Pod that is dialled.
    pub to: &'w ObjectName,
    /// May it be opened?
    pub allowed: bool,
}

/// The verdict of every pair.
///
/// # Examples
/// ```
/// # use netpol_engine::manifest::{assemble, parse};
/// # let file = parse("shop.yaml", "
/// # {apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, status: {podIP: 10.0.0.1}}
/// # ---
/// # {apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}}, status: {podIP: 10.0.0.2}}
/// # ---
/// # apiVersion: networking.k8s.io/v1
/// # kind: NetworkPolicy
/// # metadata: {name: db, namespace: shop}
/// # spec:
/// #   podSelector: {matchLabels: {app: db}}
/// #   ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
/// # ");
/// # let world = assemble([&file]).world();
/// use netpol_engine::matrix::matrix;
/// use netpol_engine::policy::Protocol;
///
/// let matrix = matrix(&world, Protocol::Tcp, 5432)?;
/// let pairs: Vec<String> = matrix
///     .pairs()
///     .map(|pair| format!("{} -> {}: {}", pair.from, pair.to, pair.allowed))
///     .collect();
/// assert_eq!(pairs, ["shop/db -> shop/web: true", "shop/web -> shop/db: true"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// The policies make more verdicts than any kernel table holds, or can't be numbered.
pub fn matrix(world: &World, protocol: Protocol, port: u16) -> Result<Matrix<'_>, NeverInForce> {
    let reach = Reach::compute(world)?;
    let profiles: Vec<(&Group, &Vec<&ObjectName>)> = reach
        .groups()
        .iter()
        .filter_map(|group| match &group.members {
            Members::Pods(pods) => Some((group, pods)),
            Members::Host(_) | Members::Strangers(_) => None,
        })
        .collect();
    let by_family: Vec<Vec<[bool; 2]>> = profiles
        .iter()
        .map(|(from, _)| {
            profiles
                .iter()
                .map(|(to, _)| {
                    let ports = reach.by_family(from.profile, to.profile);
                    ports.map(|ports| ports.allow(protocol, port))
                })
                .collect()
        })
        .collect();
    let first = |row: &Vec<[bool; 2]>| row.iter().map(|[first, _]| *first).collect();
    let allowed: Vec<Vec<bool>> = by_family.iter().map(first).collect();
    let sizes: Vec<usize> = profiles.iter().map(|(_, pods)| pods.len()).collect();
    let mut groups: Vec<(Vec<&ObjectName>, Vec<usize>, bool)> = merge(&allowed, &sizes)
        .into_iter()
        .map(|(members, within)| {
            let pods = members.iter().flat_map(|member| profiles[*member].1);
            let mut pods: Vec<&ObjectName> = pods.copied().collect();
            pods.sort_unstable();
            (pods, members, within)
        })
        .collect();
    groups.sort_unstable();
    let mut matrix = Matrix {
        port,
        protocol,
        allowed: groups
            .iter()
            .enumerate()
            .map(|(from, (_, senders, within))| {
                groups
                    .iter()
                    .enumerate()
                    .map(|(to, (_, receivers, _))| {
                        if from == to {
                            *within
                        } else {
                            allowed[senders[0]][receivers[0]]
                        }
                    })
                    .collect()
            })
            .collect(),
        meant: vec![true; groups.len()],
        groups: groups.into_iter().map(|(pods, ..)| pods).collect(),
        pods: Vec::new(),
        over_ipv6: over_ipv6(&by_family, &profiles),
    };
    matrix.index();
    Ok(matrix)
}

/// In few lines, where the second answer is not the first.
fn over_ipv6<'w>(
    by_family: &[Vec<[bool; 2]>],
    profiles: &[(&Group, &Vec<&'w ObjectName>)],
) -> Vec<OverIpv6<'w>> {
    let alone = |group: usize| profiles[group].1.len() == 1;
    let pods = |groups: &[usize]| {
        let pods = groups.iter().flat_map(|group| profiles[*group].1);
        let mut pods: Vec<&ObjectName> = pods.copied().collect();
        pods.sort_unstable();
        pods
    };
    let mut found = Vec::new();
    for allowed in [true, false] {
        let mut pairs = Vec::new();
        for (from, row) in by_family.iter().enumerate() {
            let turned = row.iter().enumerate().filter(|(to, answers)| {
                **answers == [!allowed, allowed] && !(from == *to && alone(from))
            });
            pairs.extend(turned.map(|(to, _)| (from, to)));
        }
        let lines = cover(&pairs, alone);
        found.extend(lines.into_iter().map(|Rectangle { from, to }| OverIpv6 {
            from: pods(&from),
            to: pods(&to),
            allowed,
        }));
    }
    found.sort_unstable();
    found
}

/// Those of equal rows and columns together, with what holds between two of the same. One of size
/// one makes no pair with itself, so what stands there may be taken for either.
fn merge(allowed: &[Vec<bool>], sizes: &[usize]) -> Vec<(Vec<usize>, bool)> {
    let signature = |one: usize, within: bool| -> Vec<bool> {
        let mut row = allowed[one].clone();
        row[one] = within;
        let mut column: Vec<bool> = allowed.iter().map(|row| row[one]).collect();
        column[one] = within;
        row.append(&mut column);
        row
    };
    let readings = |one: usize| -> Vec<bool> {
        match sizes[one] {
            1 => vec![true, false],
            _ => vec![allowed[one][one]],
        }
    };
    let mut shared: HashMap<Vec<bool>, usize> = HashMap::new();
    for one in 0..sizes.len() {
        for within in readings(one) {
            *shared.entry(signature(one, within)).or_default() += 1;
        }
    }
    let mut merged: BTreeMap<(Vec<bool>, bool), Vec<usize>> = BTreeMap::new();
    for one in 0..sizes.len() {
        let chosen = readings(one)
            .into_iter()
            .max_by_key(|within| shared[&signature(one, *within)])
            .unwrap_or_default();
        let key = (signature(one, chosen), chosen);
        merged.entry(key).or_default().push(one);
    }
    merged
        .into_iter()
        .map(|((_, within), members)| (members, within))
        .collect()
}

impl<'w> Matrix<'w> {
    /// Only the pairs of which at least one end is meant.
    pub fn narrow(&mut self, meant: impl Fn(&ObjectName) -> bool) {
        let mut parts: Vec<(Vec<&ObjectName>, usize, bool)> = Vec::new();
        for (group, pods) in self.groups.iter().enumerate() {
            let (inside, outside): (Vec<_>, Vec<_>) = pods.iter().partition(|name| meant(name));
            parts.extend([(inside, group, true), (outside, group, false)]);
        }
        parts.retain(|(pods, ..)| !pods.is_empty());
        parts.sort_unstable();
        self.allowed = parts
            .iter()
            .map(|(_, from, _)| {
                let row = &self.allowed[*from];
                parts.iter().map(|(_, to, _)| row[*to]).collect()
            })
            .collect();
        self.meant = parts.iter().map(|(.., meant)| *meant).collect();
        self.groups = parts.into_iter().map(|(pods, ..)| pods).collect();
        let over_ipv6 = std::mem::take(&mut self.over_ipv6).into_iter();
        self.over_ipv6 = over_ipv6.flat_map(|line| line.narrow(&meant)).collect();
        self.index();
    }

    /// Where IPv6 gets another answer than IPv4, between Pods that have both.
    #[must_use]
    pub fn over_ipv6(&self) -> &[OverIpv6<'w>] {
        &self.over_ipv6
    }

    fn index(&mut self) {
        let groups = self.groups.iter().enumerate();
        self.pods = groups
            .flat_map(|(group, pods)| pods.iter().map(move |name| (*name, group)))
            .collect();
        self.pods.sort_unstable();
    }

    /// Every pair, sorted by (from, to).
    pub fn pairs(&self) -> impl Iterator<Item = Pair<'w>> {
        self.pods.iter().flat_map(move |(from, sender)| {
            self.pods
                .iter()
                .filter(move |(to, receiver)| {
                    from != to && (self.meant[*sender] || self.meant[*receiver])
                })
                .map(move |(to, receiver)| Pair {
                    from,
                    to,
                    allowed: self.allowed[*sender][*receiver],
                })
        })
    }

    /// Pods that reach, and are reached by, the same ones. After [`Matrix::narrow`], some are meant.
    #[must_use]
    pub fn groups(&self) -> &[Vec<&'w ObjectName>] {
        &self.groups
    }

    /// Is this group one of those that are asked about?
    #[must_use]
    pub fn is_meant(&self, group: usize) -> bool {
        self.meant[group]
    }

    /// What holds from each member of a group to each (other) one of another. `None`: there
    /// is no such pair, the group has one member alone.
    #[must_use]
    pub fn allows(&self, from: usize, to: usize) -> Option<bool> {
        (from != to || self.groups[from].len() > 1).then(|| self.allowed[from][to])
    }

    /// Senders by which of the receivers they reach, those that reach no receiver included; both by
    /// groups.
    #[must_use]
    pub fn lines(&self, senders: &[usize], receivers: &[usize]) -> Vec<(Vec<usize>, Vec<usize>)> {
        let mut pairs = Vec::new();
        let mut unconnected = Vec::new();
        for from in senders {
            let before = pairs.len();
            let reached = receivers
                .iter()
                .filter(|to| self.allows(*from, **to) == Some(true));
            pairs.extend(reached.map(|to| (*from, *to)));
            if pairs.len() == before {
                unconnected.push(*from);
            }
        }
        let alone = |group: usize| self.groups[group].len() == 1 && receivers.contains(&group);
        let mut found = lines(pairs.into_iter(), alone);
        if !unconnected.is_empty() {
            found.push((unconnected, Vec::new()));
        }
        found
    }
}

impl<'w> OverIpv6<'w> {
    /// From those that are meant to all, and from the others to those that are meant.
    fn narrow(self, meant: impl Fn(&ObjectName) -> bool) -> impl Iterator<Item = Self> {
        let Self { from, to, allowed } = self;
        let split = |pods: Vec<&'w ObjectName>| -> (Vec<_>, Vec<_>) {
            pods.into_iter().partition(|name| meant(name))
        };
        let (inside, outside) = split(from);
        let (receivers, _) = split(to.clone());
        [(inside, to), (outside, receivers)]
            .into_iter()
            .filter(|(from, to)| {
                !from.is_empty() && !to.is_empty() && (from.len() > 1 || from != to)
            })
            .map(move |(from, to)| Self { from, to, allowed })
    }
}

impl Serialize for Matrix<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Pairs<'m, 'w>(&'m Matrix<'w>);
        impl Serialize for Pairs<'_, '_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.pairs())
            }
        }
        #[derive(Serialize)]
        struct Written<'m, 'w> {
            port: u16,
            protocol: Protocol,
            pairs: Pairs<'m, 'w>,
        }
        let Self { port, protocol, .. } = *self;
        let pairs = Pairs(self);
        Written {
            port,
            protocol,
            pairs,
        }
        .serialize(serializer)
    }
}
