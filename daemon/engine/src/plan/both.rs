//! Map values that say the same in both lanes.

use netpol_abi::tables::{Address, Endpoint, EndpointLane, Interface};

use crate::tables::{AddressEntry, EndpointEntry, InterfaceEntry};

pub(crate) fn lane(entry: &EndpointEntry) -> EndpointLane {
    EndpointLane {
        ingress: entry.ingress,
        egress: entry.egress,
        revision: entry.revision,
        flags: entry.flags,
        audited_ingress: entry.audited_ingress,
        audited_egress: entry.audited_egress,
    }
}

pub(crate) fn endpoint(entry: &EndpointEntry) -> Endpoint {
    Endpoint {
        id: entry.id,
        reserved: 0,
        lanes: [lane(entry); 2],
    }
}

pub(crate) fn interface(ifindex: u32, entry: &InterfaceEntry) -> Interface {
    Interface {
        ifindex,
        endpoint: entry.endpoint,
        mac: entry.mac,
        reserved: 0,
        netns: entry.netns,
    }
}

pub(crate) fn address(entry: &AddressEntry) -> Address {
    Address {
        class: [entry.class; 2],
        owner: [entry.owner; 2],
        slot: [entry.slot; 2],
    }
}
