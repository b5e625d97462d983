//! From maps that a plan was not carried out on to its end to maps in which both banks say
//! what the one that is read says, and nothing else is left. Decides nothing about policy:
//! every packet keeps its verdict.

use std::collections::BTreeSet;

use netpol_abi::tables::{Address, CLASS_UNLISTED, Endpoint, Leave, Prefix, Published};

use super::step::Step;
use crate::model::MapImage;

/// The steps. None, where the last plan was carried out to its end.
#[must_use]
pub fn recover(banks: &MapImage) -> Vec<Step> {
    let bank = banks.control.bank();
    let mut steps = Vec::new();
    // Nothing to judge by: on hold, before anything that such an interface could still read changes.
    for (ifindex, interface) in &banks.interfaces {
        let endpoint = banks.endpoints.get(&interface.endpoint);
        if endpoint.is_none_or(|endpoint| endpoint.banks[bank].revision == 0) {
            steps.push(Step::DeleteInterface { ifindex: *ifindex });
        }
    }
    let mut settle = Vec::new();
    let flags = [banks.control.flags[bank]; 2];
    if banks.control.flags != flags {
        settle.push(Step::PutFlags { flags });
    }
    for (slot, endpoint) in &banks.endpoints {
        let value = match endpoint.banks[bank] {
            gone if gone.revision == 0 => Endpoint::default(),
            read => Endpoint {
                banks: [read; 2],
                ..*endpoint
            },
        };
        if value != *endpoint {
            settle.push(Step::PutEndpoint { slot: *slot, value });
        }
    }
    for (address, found) in &banks.addresses {
        let (address, class) = (*address, found.class[bank]);
        let value = Address {
            class: [class; 2],
            owner: [found.owner[bank]; 2],
            slot: [found.slot[bank]; 2],
        };
        if class == CLASS_UNLISTED {
            settle.push(Step::DeleteAddress { address });
        } else if value != *found {
            settle.push(Step::PutAddress { address, value });
        }
    }
    let redundant: BTreeSet<_> = banks.redundant_prefixes(bank).collect();
    for (net, found) in &banks.prefixes {
        let (net, class) = (*net, [found.class[bank]; 2]);
        if redundant.contains(&net) {
            settle.push(Step::DeletePrefix { net });
        } else if found.class != class {
            let value = Prefix { class };
            settle.push(Step::PutPrefix { net, value });
        }
    }
    let redundant: BTreeSet<_> = banks.redundant_leaves(bank).collect();
    for (key, found) in &banks.leaves {
        let ((slot, net), words) = (*key, [found.words[bank]; 2]);
        if redundant.contains(key) {
            settle.push(Step::DeleteLeave { slot, net });
        } else if found.words != words {
            let value = Leave { words };
            settle.push(Step::PutLeave { slot, net, value });
        }
    }
    for (at, found) in &banks.published {
        let (at, bank) = (*at, found.banks[bank]);
        let value = Published { banks: [bank; 2] };
        if bank.flags == 0 {
            settle.push(Step::DeletePublished { at });
        } else if *found != value {
            settle.push(Step::PutPublished { at, value });
        }
    }
    let chained = chained(banks);
    for key in banks.port_blocks.keys() {
        if !chained.contains(key) {
            settle.push(Step::DeletePortBlock { key: *key });
        }
    }
    if !settle.is_empty() {
        // The commit may have been the last that was done.
        steps.push(Step::WaitGracePeriod);
    }
    steps.append(&mut settle);
    steps
}

/// The blocks that some verdict chains.
fn chained(banks: &MapImage) -> BTreeSet<u64> {
    let mut chained = BTreeSet::new();
    for verdict in banks.verdicts.values() {
        let mut next = verdict.spill;
        // A block that is known has its tail known.
        while next != 0 && chained.insert(next) {
            next = banks.port_blocks.get(&next).map_or(0, |block| block.next);
        }
    }
    chained
}
