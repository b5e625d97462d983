//! Layout of the kernel tables: keys and values, and the look-ups over them.
//!
//! # Generations
//!
//! What policy says is kept twice, in two *banks*: the active one is chosen by the lowest bit of
//! [`Control::generation`]. An update writes the standby bank, adds
//! the verdicts it needs, and then bumps the generation with one write of
//! [`Control`]: from then on every packet, of every endpoint, is judged wholly by
//! the new state. Before it, wholly by the old. There is no packet in between.
//!
//! # Numbers
//!
//! PolicySets and classes are 64-bit hashes, under a secret key, of what they stand for, so a verdict
//! entry never changes its meaning. The compiler and the plan compare contents wherever a number
//! is met again, and refuse what would give a number to something else. Port blocks have
//! ids that the plan gives out, one for each content.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    bytes::spread,
    connection::{TIMEOUTS, Timeout},
    limits::{BLOCK_RANGES, FRAGMENTS_EACH, INLINE_RANGES},
};

/// The policy set of an endpoint that no policy selects for a direction.
pub const NOT_ISOLATED: u64 = 0;
/// The class of an address that this bank does not list (a stranger: the prefixes decide).
pub const CLASS_UNLISTED: u64 = 0;
/// The class of strangers that no `ipBlock` covers; also the second key of the
/// entry that holds the rules for *any* peer.
pub const CLASS_ANY: u64 = 1;
/// The class of an address whose entry was replaced while it was read: one that no rule names, so that those for any peer
/// decide.
pub const CLASS_UNREAD: u64 = 2;
/// The policy set of a published port whose entry was replaced while it was read: it allows nothing.
pub const POLICY_SET_UNREAD: u64 = 2;
/// The first number that a hash may have; smaller ones are reserved.
pub const FIRST_HASHED: u64 = 16;

/// The [`Address::owner`] of the host's own addresses. Where the flag of the direction at
/// hand is set ([`control_flags`]) they always pass; else their class decides, like any peer's.
pub const OWNER_HOST: u32 = u32::MAX;

/// The rule number of what passes because no policy that isolates has a say in it (a
/// policy set of higher tiers alone). NetworkPolicy by itself never makes it.
pub const RULE_DEFAULT: u32 = u32::MAX;

/// Bits of [`Control::flags`].
pub mod control_flags {
    /// Nothing is dropped; would-be drops are reported as audited.
    pub const AUDIT: u32 = 1 << 0;
    /// The host may always open connections to its containers.
    pub const HOST_INGRESS: u32 = 1 << 1;
    /// A container may always open connections to its host.
    pub const HOST_EGRESS: u32 = 1 << 2;
    /// Connections keep the verdict that they were opened with.
    pub const KEEP_ESTABLISHED: u32 = 1 << 3;
    /// Unidentified interfaces pass traffic.
    pub const UNIDENTIFIED_PASS: u32 = 1 << 4;
    /// There are entries in `PUBLISHED`.
    pub const PUBLISHES: u32 = 1 << 5;
}

/// The one element of `CONTROL`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Control {
    /// Counts policy changes; its lowest bit is the bank that is read.
    pub generation: u64,
    /// [`control_flags`], per bank.
    pub flags: [u32; 2],
    /// Connections that one endpoint may have opened, in each of the two tables.
    pub flow_share: u32,
    /// [`crate::limits::LAYOUT_VERSION`] of the writer.
    pub layout: u32,
    /// Entries that `FLOWS4` and `FLOWS6` have room for.
    pub flow_rooms: [u32; 2],
    /// The tick in which these tables were made: connections may be older.
    pub since: u32,
    /// By what a sender's stamp is multiplied on its way ([`Control::stamp_on_wire`]): an odd number
    /// in the lower half, its inverse modulo 2^16 in the upper one. 0 stands for one.
    pub stamp_key: u32,
    /// Ticks that an idle connection is kept, by [`crate::connection::Timeout`].
    pub timeouts: [u32; TIMEOUTS],
}

impl Control {
    /// The bank that packets are judged by.
    #[must_use]
    pub const fn bank(&self) -> usize {
        (self.generation & 1) as usize
    }

    /// One of the time-outs.
    #[must_use]
    #[inline(always)]
    pub const fn timeout(&self, timeout: Timeout) -> u32 {
        // Masked, so that indexing by it needs no bounds check: the kernel has no panic.
        self.timeouts[timeout as usize & (TIMEOUTS - 1)]
    }

    /// A [`stamp()`] as it stands in an skb's `tc_index`. Each set of tables has a key of its own, so that
    /// the stamps of two daemons on one host are seldom taken for one another. 0 stays 0: no stamp.
    #[must_use]
    #[inline(always)]
    pub const fn stamp_on_wire(&self, stamp: u32) -> u32 {
        stamp.wrapping_mul((self.stamp_key | 1) & 0xffff) & 0xffff
    }

    /// The [`stamp()`] that stands in an skb's `tc_index`; 0: none.
    #[must_use]
    #[inline(always)]
    pub const fn stamp_of_wire(&self, tc_index: u32) -> u32 {
        tc_index.wrapping_mul(self.stamp_key >> 16 | 1) & 0xffff
    }
}

/// Bits of a stamp that tell an endpoint's addresses apart.
const STAMP_ADDRESS_BITS: u32 = 4;

/// What an endpoint's packets carry in `tc_index` from the hook where they leave it to the hook where they
/// arrive at another endpoint of the same host: its slot, and four bits of the source address that the packet
/// left with. Network address translation changes the address on the way, and not this. 1 ..= 0xffff.
#[must_use]
#[inline(always)]
pub const fn stamp(slot: u32, source: &[u8; 16]) -> u32 {
    let folded = spread(source) >> (32 - STAMP_ADDRESS_BITS);
    (slot << STAMP_ADDRESS_BITS | folded) & 0xffff
}

/// The slot in a [`stamp()`]; 0: there is none.
#[must_use]
#[inline(always)]
pub const fn stamped_slot(stamp: u32) -> u32 {
    (stamp & 0xffff) >> STAMP_ADDRESS_BITS
}

/// Key of `SENDERS`: a [`stamp()`], and 4 or 6 above it.
#[must_use]
#[inline(always)]
pub const fn sender_key(stamp: u32, version: u8) -> u32 {
    stamp & 0xffff | (version as u32) << 16
}

/// Value of `SENDERS`: the address that packets with this stamp left their endpoint with, in network order,
/// IPv4 in the first four octets. Of several addresses that share a stamp it is the lowest.
pub type SenderAddress = [u8; 16];

/// The odd number and its inverse for [`Control::stamp_key`], from any number.
#[must_use]
pub const fn stamp_key(random: u16) -> u32 {
    let odd = random | 1;
    // Newton's iteration: an odd number is its own inverse modulo 8, and each step doubles the bits.
    let mut inverse = odd;
    let mut step = 0;
    while step < 3 {
        inverse = inverse.wrapping_mul(2u16.wrapping_sub(odd.wrapping_mul(inverse)));
        step += 1;
    }
    odd as u32 | (inverse as u32) << 16
}

/// Element of `INTERFACES` (at `ifindex % INTERFACE_SLOTS`) and value of
/// `INTERFACE_OVERFLOW` (at `ifindex`). An interface without one is on hold.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Interface {
    /// Which interface this is, by its index, or its number where it is inside another namespace
    /// ([`crate::limits::FIRST_INSIDE`]); 0: the slot is free.
    pub ifindex: u32,
    /// Slot in `ENDPOINTS`.
    pub endpoint: u32,
    /// MAC address of the container's end.
    pub mac: [u8; 6],
    /// Reserved, zero.
    pub reserved: u16,
    /// The id by which the host's network namespace knows the container's, plus one; 0: it is not
    /// known, and nothing is looked up there. Programs inside don't ask.
    pub netns: u32,
}

/// One bank of an endpoint.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct EndpointBank {
    /// PolicySet for ingress, or [`NOT_ISOLATED`].
    pub ingress: u64,
    /// PolicySet for egress, or [`NOT_ISOLATED`].
    pub egress: u64,
    /// Changes whenever a connection of this endpoint may have to be judged again. 0: the
    /// endpoint is not in this bank (and no interface leads to it while the bank is read).
    pub revision: u32,
    /// [`endpoint_flags`].
    pub flags: u32,
    /// What [`EndpointBank::ingress`] would be if the policies that are only audited were
    /// enforced; the same where there are none.
    pub audited_ingress: u64,
    /// Likewise for egress.
    pub audited_egress: u64,
    /// What policy says of questions for names that the endpoint's engine asks for it, at [`asks_index`]: the number of
    /// the rule in the policy set that allows them, 0 where none does, or [`ASKS_PASS`] and a reason. 0 as well where the
    /// engine asks from the endpoint's own network namespace.
    pub asks: [u32; 4],
}

/// Where in [`EndpointBank::asks`] it stands what the policy set says of questions over this protocol: that of the policies
/// in force, or the one as if those that are audited were.
#[must_use]
#[inline(always)]
pub const fn asks_index(is_tcp: bool, audited: bool) -> usize {
    is_tcp as usize | (audited as usize) << 1
}

/// In a word of [`EndpointBank::asks`] that is not [`RULE_DEFAULT`]: no rule is needed, and the lowest byte is the number of
/// the reason why.
pub const ASKS_PASS: u32 = 0xffff_ff00;

/// Bits of [`EndpointBank::flags`].
pub mod endpoint_flags {
    /// Nothing of this endpoint is dropped; would-be drops are reported as audited.
    pub const AUDIT: u32 = 1 << 0;
    /// An interface of the endpoint stands on one of the host's (macvlan, ipvlan): its packets may come back to the
    /// host over the wire, where they lose their stamp, so their address has to do.
    pub const ON_WIRE: u32 = 1 << 1;
}

/// Bridges of one endpoint by which its packets are known without a stamp.
pub const BRIDGES: usize = 4;

/// Element of `ENDPOINTS`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Endpoint {
    /// The endpoint's number, 1 ..= 0xff_ffff, unique over the host's uptime; 0: the slot is free.
    pub id: u32,
    /// Reserved, zero.
    pub reserved: u32,
    /// The bridges that the host's ends of its interfaces are ports of, by ifindex; 0: no further one. What the
    /// host routes to another network has come in by one of them.
    pub bridges: [u32; BRIDGES],
    /// What policy says, per bank.
    pub banks: [EndpointBank; 2],
}

/// Value of `ADDRESSES4` (key: 4 octets) and `ADDRESSES6` (key: 16 octets), both in network order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Address {
    /// Peer class per bank, or [`CLASS_UNLISTED`].
    pub class: [u64; 2],
    /// Number of the endpoint that owns the address, or [`OWNER_HOST`], per bank; 0: neither.
    pub owner: [u32; 2],
    /// Slot of that endpoint, per bank; 0: no endpoint.
    pub slot: [u32; 2],
}

/// One bank of an [`Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressBank {
    /// [`Address::class`]
    pub class: u64,
    /// [`Address::owner`]
    pub owner: u32,
    /// [`Address::slot`]
    pub slot: u32,
}

impl AddressBank {
    /// What could not be read.
    pub const UNREAD: Self = Self {
        class: CLASS_UNREAD,
        owner: 0,
        slot: 0,
    };

    /// The owner, where the bank lists the address.
    #[must_use]
    #[inline(always)]
    pub const fn owner_if_listed(said: Option<Self>) -> Option<u32> {
        match said {
            Some(said) if said.class != CLASS_UNLISTED => Some(said.owner),
            _ => None,
        }
    }
}

impl Address {
    /// What one of the banks says.
    #[must_use]
    pub const fn bank(&self, bank: usize) -> AddressBank {
        AddressBank {
            class: self.class[bank],
            owner: self.owner[bank],
            slot: self.slot[bank],
        }
    }
}

/// Key of `LEAVES4` (an LPM trie): the endpoint's slot, then the address, both in network order. A
/// prefix of N bits of the address has 32 + N here.
pub type LeaveKey4 = [u8; 8];

/// Key of `LEAVES6`, likewise.
pub type LeaveKey6 = [u8; 20];

/// Value of `LEAVES4` and `LEAVES6`: the leave of an endpoint to use addresses that are not its own, per
/// bank; 0: none.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Leave {
    /// The endpoint's number, and [`LEAVE_CLAIMS`].
    pub words: [u32; 2],
}

/// In a word of [`Leave`]: the endpoint may claim each of the addresses in ARP and neighbour discovery, too.
pub const LEAVE_CLAIMS: u32 = 1 << 31;

/// The endpoint's number in a word of [`Leave`].
#[must_use]
#[inline(always)]
pub const fn leave_holder(word: u32) -> u32 {
    word & 0x00ff_ffff
}

/// Key of `PUBLISHED`: where an engine publishes a container's port. The address stands first: it is written by eight
/// bytes at a time, which the verifier wants aligned.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C, align(8))]
pub struct PublishedKey {
    /// An address of the host in network order, IPv4 in the first four octets; all zero: each that it has. With
    /// [`service`] of protocol and port 0 it is one for every host on a link of the host's.
    pub address: [u8; 16],
    /// See [`service`].
    pub service: u32,
    /// Reserved, zero.
    pub reserved: u32,
}

/// The rest of a [`PublishedKey`]: the port of the host's, the protocol's number above it, and 4 or 6 above that.
#[must_use]
#[inline(always)]
pub const fn service(version: u8, protocol: u8, port: u16) -> u32 {
    port as u32 | (protocol as u32) << 16 | (version as u32) << 24
}

/// One bank of a published port: what is asked of the container behind it when an endpoint of this host dials the port.
/// A process of the host may take the connection and dial the container itself (docker-proxy does), where nothing tells
/// any more which one it was.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PublishedBank {
    /// The container's policy set for ingress, or [`NOT_ISOLATED`].
    pub ingress: u64,
    /// What that would be if the policies that are only audited were enforced.
    pub audited_ingress: u64,
    /// The container's number.
    pub id: u32,
    /// The container's port.
    pub port: u16,
    /// [`published_flags`]; 0: this bank does not list it.
    pub flags: u16,
}

impl PublishedBank {
    /// What could not be read: a port of a container that takes nothing.
    pub const UNREAD: Self = Self {
        ingress: POLICY_SET_UNREAD,
        audited_ingress: POLICY_SET_UNREAD,
        id: 0,
        port: 0,
        flags: published_flags::LISTED,
    };
}

/// Bits of [`PublishedBank::flags`].
pub mod published_flags {
    /// The port is published here.
    pub const LISTED: u16 = 1 << 0;
    /// In the entry for all addresses: single addresses have entries of their own.
    pub const BY_ADDRESS: u16 = 1 << 1;
    /// Nothing of the container behind it is dropped; would-be drops are reported as audited.
    pub const AUDIT: u16 = 1 << 2;
}

/// Value of `PUBLISHED`, per bank.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Published {
    /// What each bank says.
    pub banks: [PublishedBank; 2],
}

/// Value of `PREFIXES4` and `PREFIXES6` (LPM tries): peer class per bank.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Prefix {
    /// Peer class per bank, never [`CLASS_UNLISTED`].
    pub class: [u64; 2],
}

/// Key of `VERDICTS`.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct VerdictKey {
    /// PolicySet of the endpoint in the direction at hand.
    pub policy_set: u64,
    /// Class of the peer, or [`CLASS_ANY`] for the rules that hold for every peer.
    pub class: u64,
}

/// A range of destination ports of one protocol and the rule that decides it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, inclusive.
    pub last: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Nonzero: the rule denies.
    pub deny: u8,
    /// Reserved, zero.
    pub reserved: u16,
    /// Number of the deciding rule, for the report.
    pub rule: u32,
}

/// Value of `VERDICTS`. For the first of its ranges that holds protocol and port,
/// that range decides; else `other` does. A class's entry already includes the
/// rules of [`CLASS_ANY`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Verdict {
    /// Rule that allows every protocol and port not decided by a range; 0: none, denied.
    /// May be [`RULE_DEFAULT`].
    pub other: u32,
    /// Used elements of `ranges`.
    pub len: u16,
    /// Blocks chained from `spill`.
    pub blocks: u16,
    /// First spilled block in `PORT_BLOCKS`; 0: none.
    pub spill: u64,
    /// The ranges, disjoint, sorted by (protocol, first).
    pub ranges: [PortRange; INLINE_RANGES],
}

/// Value of `PORT_BLOCKS` (key: u64): further ranges of a verdict.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct PortBlock {
    /// The next block; 0: this is the last.
    pub next: u64,
    /// Used elements of `ranges`.
    pub len: u32,
    /// Reserved, zero.
    pub reserved: u32,
    /// As in [`Verdict::ranges`], going on.
    pub ranges: [PortRange; BLOCK_RANGES],
}

/// Key of `FLOWS4`: a connection as its endpoint sees it, one key for both directions.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C, align(8))]
pub struct FlowKey4 {
    /// `endpoint id << 8 | protocol`.
    pub owner: u32,
    /// The endpoint's address, in network order.
    pub local: [u8; 4],
    /// The peer's address, in network order.
    pub remote: [u8; 4],
    /// The endpoint's port (ICMP echo: the identifier).
    pub local_port: u16,
    /// The peer's port (ICMP echo: 8 when the endpoint asked, 0 when the peer did).
    pub remote_port: u16,
}

/// Key of `FLOWS6`. The addresses stand first: they are written by eight bytes at a time, which the
/// verifier wants aligned.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C, align(8))]
pub struct FlowKey6 {
    /// As in [`FlowKey4`].
    pub local: [u8; 16],
    /// As in [`FlowKey4`].
    pub remote: [u8; 16],
    /// `endpoint id << 8 | protocol`.
    pub owner: u32,
    /// As in [`FlowKey4`].
    pub local_port: u16,
    /// As in [`FlowKey4`].
    pub remote_port: u16,
}

/// Value of `FLOWS4` and `FLOWS6`: two words of eight bytes. What the verdict depends on is in the second one, so that
/// a processor that reads a connection while another one writes it sees all of that as it was before, or all as it is
/// afterwards ([`crate::judge::Tables::read_flow`]).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C, align(8))]
pub struct Flow {
    /// Tick of the last packet ([`crate::connection::TICK_SHIFT`]).
    pub seen: u32,
    /// The rule that allowed it; 0: not isolated, or no rule was needed.
    pub rule: u32,
    /// The endpoint's revision that allowed it.
    pub revision: u32,
    /// [`crate::connection::State`] as a number.
    pub state: u8,
    /// [`flow_flags`].
    pub flags: u8,
    /// [`stamp()`] of the endpoint whose share the entry is charged to: the one that opened the
    /// connection, where that is an endpoint of this host; else the entry's own.
    pub payer: u16,
}

impl Flow {
    /// Slot of the endpoint whose share the entry is charged to.
    #[must_use]
    #[inline(always)]
    pub const fn payer_slot(&self) -> u32 {
        stamped_slot(self.payer as u32)
    }
}

/// Bits of [`Flow::flags`].
pub mod flow_flags {
    /// The endpoint opened the connection (judged by its egress); else the peer did.
    pub const OPENED_BY_ENDPOINT: u8 = 1 << 0;
    /// Audit mode let it through; it is judged and reported again.
    pub const AUDITED: u8 = 1 << 1;
    /// Where in the flags it stands what the peer that opened the connection was found to be, a
    /// [`crate::judge::SenderKind`]; two bits.
    pub const SENDER_SHIFT: u32 = 2;
    /// Those bits.
    pub const SENDER: u8 = 3 << SENDER_SHIFT;
    /// The local address is not the endpoint's own, but one that it may use by leave: its packets
    /// carry no stamp.
    pub const BY_LEAVE: u8 = 1 << 4;
}

/// A datagram of which fragments are under way. IPv4 addresses stand in the first four octets.
///
/// Fragments belong together by addresses and identification (RFC 791, 3.2; RFC 8200, 4.5) and by
/// the protocol that the fragments' own header names.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct FragmentKey {
    /// `endpoint id << 8 | protocol`.
    pub owner: u32,
    /// Identification of the datagram.
    pub id: u32,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
    /// 4 or 6.
    pub version: u8,
    /// [`crate::packet::Direction`] as a number.
    pub direction: u8,
    /// Reserved, zero.
    pub reserved: u16,
}

/// What is remembered of a datagram's first fragment.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Fragment {
    /// Tick at which it came.
    pub seen: u32,
    /// Bytes of the datagram that were judged, headers included: no later fragment may
    /// begin before them.
    pub judged: u16,
    /// Nonzero: it passed, and the others may follow.
    pub allowed: u8,
    /// Reserved, zero.
    pub reserved: u8,
}

/// One place for a datagram.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FragmentSlot {
    /// Which datagram; owner 0: none.
    pub key: FragmentKey,
    /// Its first fragment.
    pub value: Fragment,
}

/// Element of `FRAGMENTS`: the datagrams of one sender, in the order in which they came, the
/// oldest making room. The set of an endpoint of this host has its slot's number; the
/// [`crate::limits::FRAGMENT_STRANGERS`] behind them are for all other senders, by their address.
pub type FragmentSet = [FragmentSlot; FRAGMENTS_EACH];

/// Element of `FRAGMENT_CURSORS`, by set: how many datagrams were entered, ever (wrapping), and so
/// where the next one goes.
pub type FragmentCursor = u32;

/// Element of `USAGE`, by endpoint slot: what the endpoint has used of its budgets. Written
/// by the programs alone, without locks: a race costs a report, never a verdict.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Usage {
    /// Tick that the counts below are for.
    pub tick: u32,
    /// Reports of drops in this tick.
    pub drops: u32,
    /// Reports of new connections in this tick.
    pub opens: u32,
    /// Reports that were over the budget, or did not fit the ring, ever.
    pub suppressed: u32,
}

/// Element of `ENTERED`, at [`account`]: connections that the programs entered at an account's
/// expense, ever. Added to atomically, which takes 64 bits; what counts is the lower half.
pub type Entered = u64;

/// Element of `COLLECTED`, at [`account`], written by the daemon alone: connections that it
/// removed, ever (wrapping). Who has opened what still is in the table holds `entered - collected`.
pub type Collected = u32;

/// Where the account of an endpoint's slot stands; that of slot 0, which no endpoint has, is the
/// whole table's. `family`: 0 for `FLOWS4`, 1 for `FLOWS6`.
#[must_use]
#[inline(always)]
pub const fn account(slot: u32, family: u32) -> u32 {
    slot * 2 + family
}

/// Element of the per-CPU `COUNTERS`, at `reason * 2 + direction`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, link-layer header included.
    pub bytes: u64,
}

/// Elements of `COUNTERS`.
pub const COUNTERS: u32 = 512;
