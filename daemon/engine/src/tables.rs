//! The kernel's tables as ordered maps: what the compiler makes, the plan compares,
//! the model datapath looks up, and the daemon reads back from pinned maps.
//!
//! This is one generation as a whole; banks are the business of [`crate::plan`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use netpol_abi::tables::{BRIDGES, PortRange, PublishedBank};

pub use self::blocks::PortBlocks;
pub use self::verdicts::Verdicts;

mod blocks;
pub(crate) mod verdicts;

/// All tables that policy decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// [`netpol_abi::tables::control_flags`].
    pub flags: u32,
    /// By slot.
    pub endpoints: BTreeMap<u32, EndpointEntry>,
    /// By ifindex.
    pub interfaces: BTreeMap<u32, InterfaceEntry>,
    /// Exact addresses.
    pub addresses: BTreeMap<IpAddr, AddressEntry>,
    /// By [`netpol_abi::tables::sender_key`]: the address that an endpoint's packets with this stamp have. The
    /// same in both banks.
    pub senders: BTreeMap<u32, IpAddr>,
    /// Prefixes that an endpoint may use by leave, by its slot: a word of [`netpol_abi::tables::Leave`]. None says
    /// what the next shorter one of the same slot says.
    pub leaves: BTreeMap<(u32, IpNet), u32>,
    /// Where engines publish ports of endpoints: what stands there in a bank.
    pub published: BTreeMap<PublishedAt, PublishedBank>,
    /// `ipBlock` prefixes and their `except`s: class of the strangers inside.
    pub prefixes: Arc<BTreeMap<IpNet, u64>>,
    /// Verdicts of (policy set, class). Content-addressed: a key's value never changes.
    pub verdicts: Verdicts,
    /// Of installed tables: the ids of the port blocks that verdicts chain. The compiler leaves it
    /// empty; the plan sets it.
    pub port_blocks: PortBlocks,
}

/// One slot of `ENDPOINTS`, one bank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointEntry {
    /// The endpoint's number.
    pub id: u32,
    /// PolicySet for ingress.
    pub ingress: u64,
    /// PolicySet for egress.
    pub egress: u64,
    /// What `ingress` would be if the policies that are only audited were enforced.
    pub audited_ingress: u64,
    /// What `egress` would be likewise.
    pub audited_egress: u64,
    /// [`netpol_abi::tables::endpoint_flags`].
    pub flags: u32,
    /// See [`netpol_abi::tables::Endpoint::bridges`].
    pub bridges: [u32; BRIDGES],
    /// See [`netpol_abi::tables::EndpointBank::asks`].
    pub asks: [u32; 4],
    /// See [`netpol_abi::tables::EndpointBank::revision`]. The compiler leaves it 0; the plan sets it.
    pub revision: u32,
}

/// One interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceEntry {
    /// Slot of its endpoint.
    pub endpoint: u32,
    /// MAC address of the container's end.
    pub mac: [u8; 6],
    /// See [`netpol_abi::tables::Interface::netns`].
    pub netns: u32,
}

/// One exact address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressEntry {
    /// Peer class.
    pub class: u64,
    /// Number of the owning endpoint, or [`netpol_abi::tables::OWNER_HOST`]; 0: neither.
    pub owner: u32,
    /// Slot of that endpoint; 0: no endpoint.
    pub slot: u32,
}

/// Where a port is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedAt {
    /// The host's port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The host's address; unspecified: each of the family.
    pub address: IpAddr,
}

/// A verdict, its ranges in one list (how they are spread over blocks is the writer's business).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerdictEntry {
    /// Rule that allows what no range decides; 0: denied.
    pub other: u32,
    /// Disjoint, sorted by (protocol, first).
    pub ranges: Vec<PortRange>,
}

impl VerdictEntry {
    /// What it says of a port: the rule that decides, 0 where none does, and whether that is a denial.
    #[must_use]
    pub fn decide(&self, protocol: u8, port: u16) -> (u32, bool) {
        let mut ranges = self.ranges.iter();
        let range = ranges
            .find(|range| range.protocol == protocol && (range.first..=range.last).contains(&port));
        range.map_or((self.other, self.other == 0), |range| {
            (range.rule, range.deny != 0)
        })
    }
}
