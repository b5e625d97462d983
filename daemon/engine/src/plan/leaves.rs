//! Leaves: the entries that one of two states has, or both, and what each bank says there.
//!
//! As for prefixes: an entry that only one state has says in the other's bank what that one's next shorter prefix of the
//! same slot says, so the longest of all entries answers in each bank as that bank's own longest would.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use netpol_abi::tables::Leave;

use super::Planner;
use super::step::Step;

/// All entries, as they stand in the tables.
pub(crate) type Leaves = BTreeMap<(u32, IpNet), u32>;

/// What the longest of these prefixes that holds all of a network says.
pub(crate) fn longest<'a>(
    nets: impl Iterator<Item = (&'a IpNet, u32)>,
    net: &IpNet,
) -> Option<u32> {
    nets.filter(|(outer, _)| outer.contains(net))
        .max_by_key(|(outer, _)| outer.prefix_len())
        .map(|(_, word)| word)
}

/// The entries of a slot.
fn of_slot(leaves: &Leaves, slot: u32) -> impl Iterator<Item = (&IpNet, u32)> {
    leaves
        .range((slot, LOWEST)..)
        .take_while(move |((other, _), _)| *other == slot)
        .map(|((_, net), word)| (net, *word))
}

/// Before all others in the order of networks.
pub(crate) const LOWEST: IpNet = IpNet::V4(ipnet::Ipv4Net::new_assert(
    std::net::Ipv4Addr::UNSPECIFIED,
    0,
));

/// What these entries say of all addresses of a network; 0: nothing.
pub(crate) fn word(leaves: &Leaves, slot: u32, net: &IpNet) -> u32 {
    longest(of_slot(leaves, slot), net).unwrap_or(0)
}

/// The slots whose entries two states do not have alike.
pub(super) fn changed(installed: &Leaves, desired: &Leaves) -> BTreeSet<u32> {
    super::changes(installed, desired)
        .map(|((slot, _), _, _)| *slot)
        .collect()
}

/// The slots of the endpoints that have leave for an address.
pub(super) fn holders(leaves: &Leaves, net: &IpNet) -> BTreeSet<u32> {
    leaves
        .keys()
        .filter(|(_, outer)| outer.contains(net))
        .map(|(slot, _)| *slot)
        .collect()
}

impl Planner<'_> {
    pub(super) fn stage_leaves(&mut self, settle: &mut Vec<Step>) {
        let (before, after) = (&self.installed.leaves, &self.desired.leaves);
        for slot in changed(before, after) {
            let nets: BTreeSet<IpNet> = of_slot(before, slot)
                .chain(of_slot(after, slot))
                .map(|(net, _)| *net)
                .collect();
            for net in nets {
                let key = (slot, net);
                if before.get(&key) == after.get(&key) {
                    continue;
                }
                let words = self.banks(word(before, slot, &net), word(after, slot, &net));
                let value = Leave { words };
                self.steps.push(Step::PutLeave { slot, net, value });
                settle.push(match after.get(&key) {
                    Some(word) => Step::PutLeave {
                        slot,
                        net,
                        value: Leave { words: [*word; 2] },
                    },
                    None => Step::DeleteLeave { slot, net },
                });
            }
        }
    }
}
