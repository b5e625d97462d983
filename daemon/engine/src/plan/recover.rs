//! From maps that a plan was not carried out on to its end to maps in which both lanes say
//! what the one that is read says, and nothing else is left. Decides nothing about policy:
//! every packet keeps its verdict.

use std::collections::BTreeSet;

use netpol_abi::tables::{Address, CLASS_UNLISTED, Endpoint, Leave, Prefix, Published};

use super::step::Step;
use crate::model::Lanes;

/// The steps. None, where the last plan was carried out to its end.
#[must_use]
pub fn recover(lanes: &Lanes) -> Vec<Step> {
    let lane = lanes.control.lane();
    let mut steps = Vec::new();
    // Nothing to judge by: on hold, before anything that such an interface could still read changes.
    for (ifindex, interface) in &lanes.interfaces {
        let endpoint = lanes.endpoints.get(&interface.endpoint);
        if endpoint.is_none_or(|endpoint| endpoint.lanes[lane].revision == 0) {
            steps.push(Step::DeleteInterface { ifindex: *ifindex });
        }
    }
    let mut settle = Vec::new();
    let flags = [lanes.control.flags[lane]; 2];
    if lanes.control.flags != flags {
        settle.push(Step::PutFlags { flags });
    }
    for (slot, endpoint) in &lanes.endpoints {
        let value = match endpoint.lanes[lane] {
            gone if gone.revision == 0 => Endpoint::default(),
            read => Endpoint {
                lanes: [read; 2],
                ..*endpoint
            },
        };
        if value != *endpoint {
            settle.push(Step::PutEndpoint { slot: *slot, value });
        }
    }
    for (address, found) in &lanes.addresses {
        let (address, class) = (*address, found.class[lane]);
        let value = Address {
            class: [class; 2],
            owner: [found.owner[lane]; 2],
            slot: [found.slot[lane]; 2],
        };
        if class == CLASS_UNLISTED {
            settle.push(Step::DeleteAddress { address });
        } else if value != *found {
            settle.push(Step::PutAddress { address, value });
        }
    }
    let redundant: BTreeSet<_> = lanes.redundant_prefixes(lane).collect();
    for (net, found) in &lanes.prefixes {
        let (net, class) = (*net, [found.class[lane]; 2]);
        if redundant.contains(&net) {
            settle.push(Step::DeletePrefix { net });
        } else if found.class != class {
            let value = Prefix { class };
            settle.push(Step::PutPrefix { net, value });
        }
    }
    let redundant: BTreeSet<_> = lanes.redundant_leaves(lane).collect();
    for (key, found) in &lanes.leaves {
        let ((slot, net), words) = (*key, [found.words[lane]; 2]);
        if redundant.contains(key) {
            settle.push(Step::DeleteLeave { slot, net });
        } else if found.words != words {
            let value = Leave { words };
            settle.push(Step::PutLeave { slot, net, value });
        }
    }
    for (at, found) in &lanes.published {
        let (at, said) = (*at, found.lanes[lane]);
        let value = Published { lanes: [said; 2] };
        if said.flags == 0 {
            settle.push(Step::DeletePublished { at });
        } else if *found != value {
            settle.push(Step::PutPublished { at, value });
        }
    }
    let chained = chained(lanes);
    for key in lanes.port_blocks.keys() {
        if !chained.contains(key) {
            settle.push(Step::DeletePortBlock { key: *key });
        }
    }
    if !settle.is_empty() {
        // The flip may have been the last that was done.
        steps.push(Step::Fence);
    }
    steps.append(&mut settle);
    steps
}

/// The blocks that some verdict chains.
fn chained(lanes: &Lanes) -> BTreeSet<u64> {
    let mut chained = BTreeSet::new();
    for verdict in lanes.verdicts.values() {
        let mut next = verdict.spill;
        // A block that is known has its tail known.
        while next != 0 && chained.insert(next) {
            next = lanes.port_blocks.get(&next).map_or(0, |block| block.next);
        }
    }
    chained
}
