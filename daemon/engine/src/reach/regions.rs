//! The address space, cut where what policy sees of strangers changes.
//!
//! Longest-prefix tables of classes in, regions of one class each out: a region is blocks with
//! exceptions, as in an ipBlock. Several tables can be laid over one another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netpol_abi::tables::CLASS_ANY;

use crate::policy::IpBlock;

/// Addresses that no policy tells apart. An owner of one of them (a Pod, the host) is not a stranger.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region(pub Vec<IpBlock>);

impl Region {
    /// Regions as one: a block that fills an exception of another is told as part of that.
    #[must_use]
    pub fn join<'a>(regions: impl IntoIterator<Item = &'a Self>) -> Self {
        let all: BTreeMap<IpNet, &IpBlock> = regions
            .into_iter()
            .flat_map(|region| &region.0)
            .map(|block| (block.cidr, block))
            .collect();
        let mut filled: BTreeSet<IpNet> = BTreeSet::new();
        let mut joined = Vec::new();
        // An outer block comes before those inside it.
        for (cidr, block) in &all {
            if filled.contains(cidr) {
                continue;
            }
            let mut open: Vec<IpNet> = block.except.clone();
            let mut except = Vec::new();
            while let Some(net) = open.pop() {
                match all.get(&net) {
                    Some(inside) => {
                        filled.insert(net);
                        open.extend(&inside.except);
                    }
                    None => except.push(net),
                }
            }
            except.sort_unstable();
            joined.push(IpBlock {
                cidr: *cidr,
                except,
            });
        }
        Self(joined)
    }
}

/// `10.0.0.0/8 except 10.1.0.0/16 10.2.0.0/16, 192.0.2.0/24`.
impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, block) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            block.fmt(f)?;
        }
        Ok(())
    }
}

/// `10.0.0.0/8 except 10.1.0.0/16 10.2.0.0/16`.
impl fmt::Display for IpBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cidr.fmt(f)?;
        for (position, net) in self.except.iter().enumerate() {
            f.write_str(if position == 0 { " except " } else { " " })?;
            net.fmt(f)?;
        }
        Ok(())
    }
}

/// The class of the strangers in a network that no longer prefix divides, or at its first address.
pub(super) fn class_in(prefixes: &BTreeMap<IpNet, u64>, net: IpNet) -> u64 {
    let mut around = Some(net);
    while let Some(net) = around {
        if let Some(class) = prefixes.get(&net) {
            return *class;
        }
        around = net.supernet();
    }
    CLASS_ANY
}

/// The regions in which each of these tables has one class, by those classes. `known` addresses
/// belong to no stranger.
pub(super) fn partition<const N: usize>(
    tables: [&BTreeMap<IpNet, u64>; N],
    known: impl Fn(IpAddr) -> bool,
) -> BTreeMap<[u64; N], Region> {
    let roots: [IpNet; 2] = [
        Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0).into(),
        Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0).into(),
    ];
    let mut nets: Vec<IpNet> = tables
        .iter()
        .flat_map(|table| table.keys().copied())
        .chain(roots)
        .collect();
    // By address, then length: an outer one before those inside it.
    nets.sort_unstable();
    nets.dedup();

    let mut blocks: Vec<([u64; N], IpBlock)> = Vec::new();
    // Where each prefix that goes on around the current one is: its classes and its block.
    let mut around: Vec<(IpNet, [u64; N], usize)> = Vec::new();
    for net in nets {
        while around.pop_if(|(outer, ..)| !outer.contains(&net)).is_some() {}
        let outer = around.last().copied();
        let own: [Option<&u64>; N] = tables.map(|table| table.get(&net));
        let inherited = outer.map_or([CLASS_ANY; N], |(_, classes, _)| classes);
        let classes: [u64; N] =
            std::array::from_fn(|layer| own[layer].copied().unwrap_or(inherited[layer]));
        if let Some((_, _, block)) = outer {
            // Where a Pod or the host is, there is no stranger to make an exception for.
            if classes == inherited || (is_one_address(net) && known(net.addr())) {
                continue;
            }
            blocks[block].1.except.push(net);
        }
        around.push((net, classes, blocks.len()));
        let block = IpBlock {
            cidr: net,
            except: Vec::new(),
        };
        blocks.push((classes, block));
    }

    let mut regions: BTreeMap<[u64; N], Region> = BTreeMap::new();
    for (classes, block) in blocks {
        // What its exceptions leave nothing of is no region.
        if IpNet::aggregate(&block.except) != [block.cidr] {
            regions.entry(classes).or_default().0.push(block);
        }
    }
    regions
}

fn is_one_address(net: IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn table(prefixes: &[(&str, u64)]) -> BTreeMap<IpNet, u64> {
        prefixes
            .iter()
            .map(|(net, class)| (net.parse().unwrap(), *class))
            .collect()
    }

    fn shown<const N: usize>(tables: [&BTreeMap<IpNet, u64>; N]) -> Vec<String> {
        let known = |address: IpAddr| address == IpAddr::from([10, 0, 0, 1]);
        partition(tables, known)
            .into_iter()
            .map(|(classes, region)| format!("{classes:?} {region}"))
            .collect()
    }

    #[test]
    fn without_a_prefix_there_is_one_region() {
        assert_eq!(shown([&table(&[])]), ["[1] 0.0.0.0/0, ::/0"]);
    }

    #[test]
    fn a_region_is_what_is_left_of_its_blocks() {
        let one = table(&[
            ("10.0.0.0/8", 20),
            ("10.1.0.0/16", 30),
            ("10.1.2.0/24", 20),
            // Only a Pod can have this one.
            ("10.0.0.1/32", 40),
            // Both halves say something else than the whole.
            ("192.0.2.0/24", 50),
            ("192.0.2.0/25", 20),
            ("192.0.2.128/25", 20),
        ]);
        assert_eq!(
            shown([&one]),
            [
                "[1] 0.0.0.0/0 except 10.0.0.0/8 192.0.2.0/24, ::/0",
                "[20] 10.0.0.0/8 except 10.1.0.0/16, 10.1.2.0/24, 192.0.2.0/25, 192.0.2.128/25",
                "[30] 10.1.0.0/16 except 10.1.2.0/24",
            ]
        );
    }

    #[test]
    fn regions_join_where_one_fills_the_other_s_exceptions() {
        let one = table(&[
            ("10.0.0.0/8", 20),
            ("10.1.0.0/16", 30),
            ("10.1.2.0/24", 40),
            ("fd00::/8", 30),
        ]);
        let regions = partition([&one], |_| false);
        let join = |classes: &[u64]| {
            let chosen = classes.iter().map(|class| &regions[&[*class]]);
            Region::join(chosen).to_string()
        };
        assert_eq!(join(&[CLASS_ANY, 20, 30, 40]), "0.0.0.0/0, ::/0");
        assert_eq!(
            join(&[20, 40]),
            "10.0.0.0/8 except 10.1.0.0/16, 10.1.2.0/24"
        );
        assert_eq!(
            join(&[CLASS_ANY, 20, 30]),
            "0.0.0.0/0 except 10.1.2.0/24, ::/0"
        );
        assert_eq!(join(&[]), "");
    }

    #[test]
    fn tables_lie_over_one_another() {
        let one = table(&[("10.0.0.0/8", 20)]);
        let two = table(&[("10.1.0.0/16", 30), ("::/0", 40)]);
        assert_eq!(
            shown([&one, &two]),
            [
                "[1, 1] 0.0.0.0/0 except 10.0.0.0/8",
                "[1, 40] ::/0",
                "[20, 1] 10.0.0.0/8 except 10.1.0.0/16",
                "[20, 30] 10.1.0.0/16",
            ]
        );
    }

    #[test]
    fn the_longest_prefix_decides() {
        let one = table(&[("10.0.0.0/8", 20), ("10.1.0.0/16", 30)]);
        for (net, class) in [
            ("10.1.2.3/32", 30),
            ("10.2.0.0/16", 20),
            ("10.0.0.0/7", CLASS_ANY),
            ("::1/128", CLASS_ANY),
        ] {
            assert_eq!(class_in(&one, net.parse().unwrap()), class, "{net}");
        }
    }
}
