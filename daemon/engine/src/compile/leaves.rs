//! What an endpoint may use by leave, as entries of its slot.

use std::collections::BTreeSet;

use ipnet::IpNet;
use netpol_abi::tables::LEAVE_CLAIMS;

use crate::leave::is_wide;
use crate::plan::leaves::longest;
use crate::world::Attached;

/// The entries of an endpoint, without those that say what the next shorter one says.
pub(super) fn of(
    attached: &Attached,
    leaves: &BTreeSet<IpNet>,
) -> impl Iterator<Item = ((u32, IpNet), u32)> {
    let word = |net: &IpNet| attached.id | if is_wide(net) { 0 } else { LEAVE_CLAIMS };
    leaves.iter().filter_map(move |net| {
        let shorter = leaves.iter().filter(|other| *other != net);
        let above = longest(shorter.map(|other| (other, word(other))), net);
        (above != Some(word(net))).then_some(((attached.slot, *net), word(net)))
    })
}
