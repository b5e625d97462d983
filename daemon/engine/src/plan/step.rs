//! One step of a plan: one write to one kernel map, or a wait. Values are the maps' own,
//! both banks in each, so the interpreter decides nothing. Made by [`crate::plan`] alone.

use std::net::IpAddr;

use ipnet::IpNet;
use netpol_abi::tables::{
    Address, Endpoint, Interface, Leave, PortBlock, Prefix, Published, Verdict, VerdictKey,
};

use crate::tables::PublishedAt;

/// One step. A `Put` overwrites; a `Delete` of what is not there is no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `PORT_BLOCKS`.
    PutPortBlock {
        /// An id that no other block has.
        key: u64,
        /// Its ranges.
        value: Box<PortBlock>,
    },
    /// `VERDICTS`; the blocks that it chains are there already.
    PutVerdict {
        /// Content-addressed.
        key: VerdictKey,
        /// The ranges of ports, with the rule that decides each.
        value: Verdict,
    },
    /// `ENDPOINTS`. All zero: the slot is free.
    PutEndpoint {
        /// Which slot.
        slot: u32,
        /// Both banks.
        value: Endpoint,
    },
    /// `ADDRESSES4` or `ADDRESSES6`.
    PutAddress {
        /// The key.
        address: IpAddr,
        /// Both banks.
        value: Address,
    },
    /// `SENDERS`.
    PutSender {
        /// See [`netpol_abi::tables::sender_key`].
        key: u32,
        /// Whose packets have this stamp.
        address: IpAddr,
    },
    /// `LEAVES4` or `LEAVES6`.
    PutLeave {
        /// The endpoint's.
        slot: u32,
        /// The rest of the key, host bits cleared.
        net: IpNet,
        /// Both banks.
        value: Leave,
    },
    /// `PUBLISHED`.
    PutPublished {
        /// The key.
        at: PublishedAt,
        /// Both banks.
        value: Published,
    },
    /// `PREFIXES4` or `PREFIXES6`.
    PutPrefix {
        /// The key, host bits cleared.
        net: IpNet,
        /// Both banks.
        value: Prefix,
    },
    /// `INTERFACES` or `INTERFACE_OVERFLOW`: the interface is judged from now on.
    PutInterface {
        /// The interface's number in the tables.
        ifindex: u32,
        /// What is behind it.
        value: Interface,
    },
    /// `CONTROL`, these fields; the others are the daemon's own and keep their values.
    /// The generation is the one in force: only the flags of the standby bank change.
    PutFlags {
        /// Per bank.
        flags: [u32; 2],
    },
    /// `CONTROL`, these fields: from now on every packet is judged by the other bank. The flags
    /// are there already, so that the generation is the only word that changes.
    Commit {
        /// The new generation.
        generation: u64,
        /// Per bank, as they are.
        flags: [u32; 2],
    },
    /// Waits until no packet is under way that read the maps before this step (an RCU
    /// grace period).
    WaitGracePeriod,
    /// The interface is on hold from now on.
    DeleteInterface {
        /// The interface's number in the tables.
        ifindex: u32,
    },
    /// No bank refers to it any more.
    DeleteVerdict {
        /// The key.
        key: VerdictKey,
    },
    /// No verdict chains it any more.
    DeletePortBlock {
        /// The key.
        key: u64,
    },
    /// Both banks say [`netpol_abi::tables::CLASS_UNLISTED`], or no packet reads the bank that does not.
    DeleteAddress {
        /// The key.
        address: IpAddr,
    },
    /// The bank that is read says the same as the next shorter prefix of the slot, or nothing where there is none.
    DeleteLeave {
        /// The endpoint's.
        slot: u32,
        /// The rest of the key.
        net: IpNet,
    },
    /// The bank that is read does not list it.
    DeletePublished {
        /// The key.
        at: PublishedAt,
    },
    /// No endpoint has this stamp any more.
    DeleteSender {
        /// The key.
        key: u32,
    },
    /// The bank that is read says the same as the next shorter prefix.
    DeletePrefix {
        /// The key.
        net: IpNet,
    },
}
