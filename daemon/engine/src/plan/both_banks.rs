//! Map values that say the same in both banks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netpol_abi::tables::{
    Address, Endpoint, EndpointBank, Interface, PublishedKey, SenderAddress, service,
};

use crate::tables::{AddressEntry, EndpointEntry, InterfaceEntry, PublishedAt};

pub(crate) fn bank(entry: &EndpointEntry) -> EndpointBank {
    EndpointBank {
        ingress: entry.ingress,
        egress: entry.egress,
        revision: entry.revision,
        flags: entry.flags,
        audited_ingress: entry.audited_ingress,
        audited_egress: entry.audited_egress,
        asks: entry.asks,
    }
}

pub(crate) fn endpoint(entry: &EndpointEntry) -> Endpoint {
    Endpoint {
        id: entry.id,
        reserved: 0,
        bridges: entry.bridges,
        banks: [bank(entry); 2],
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

/// A value of `SENDERS`: IPv4 in the first four octets.
#[must_use]
pub fn sender(address: IpAddr) -> SenderAddress {
    match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            octets
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// The address that [`sender`] made this of; the key tells its family.
pub(crate) fn address_of_sender(key: u32, octets: &SenderAddress) -> IpAddr {
    let [a, b, c, d, ..] = *octets;
    if key >> 16 == 4 {
        Ipv4Addr::new(a, b, c, d).into()
    } else {
        Ipv6Addr::from(*octets).into()
    }
}

/// A key of `PUBLISHED`.
#[must_use]
pub fn published_key(at: &PublishedAt) -> PublishedKey {
    let version = if at.address.is_ipv4() { 4 } else { 6 };
    PublishedKey {
        address: sender(at.address),
        service: service(version, at.protocol, at.port),
        reserved: 0,
    }
}

/// Where the port of this key is published.
#[must_use]
pub fn published_at(key: &PublishedKey) -> PublishedAt {
    let [a, b, c, d, ..] = key.address;
    PublishedAt {
        port: key.service as u16,
        protocol: (key.service >> 16) as u8,
        address: if key.service >> 24 == 4 {
            Ipv4Addr::new(a, b, c, d).into()
        } else {
            Ipv6Addr::from(key.address).into()
        },
    }
}
