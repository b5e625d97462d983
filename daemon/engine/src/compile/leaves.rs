//! What an endpoint may use by leave, as entries of its slot.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use netpol_abi::tables::LEAVE_CLAIMS;

use crate::leave::is_wide;
use crate::plan::leaves::longest;
use crate::world::Attached;

/// The entries of an endpoint.
pub(super) fn leave_entries(
    attached: &Attached,
    leaves: &BTreeSet<IpNet>,
) -> impl Iterator<Item = ((u32, IpNet), u32)> {
    let word = |net: &IpNet| attached.id | if is_wide(net) { 0 } else { LEAVE_CLAIMS };
    leaves
        .iter()
        .map(move |net| ((attached.slot, *net), word(net)))
}

/// All entries, without those that say what the next shorter one of their slot says.
pub(super) fn without_repetitions(
    all: &BTreeMap<(u32, IpNet), u32>,
) -> BTreeMap<(u32, IpNet), u32> {
    let mut by_slot: BTreeMap<u32, Vec<(&IpNet, u32)>> = BTreeMap::new();
    for ((slot, net), word) in all {
        by_slot.entry(*slot).or_default().push((net, *word));
    }
    let says_more = |((slot, net), word): &(&(u32, IpNet), &u32)| {
        let of_slot = by_slot.get(slot).into_iter().flatten().copied();
        let shorter = of_slot.filter(|(other, _)| *other != net);
        longest(shorter, net) != Some(**word)
    };
    let all = all.iter().filter(says_more);
    all.map(|(key, word)| (*key, *word)).collect()
}
