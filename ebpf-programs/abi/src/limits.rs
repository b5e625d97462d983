//! Sizes of the kernel tables and other bounds, each with its why.
//!
//! The daemon may create a map smaller or larger than its default here (it says
//! so in `netpol status`); the numbers with "fixed" are part of the layout.

/// Version of every layout in this crate. A pinned map of another version is
/// not adopted but replaced: bump it with any change of a key, a value or a
/// meaning.
pub const LAYOUT_VERSION: u32 = 5;

/// Endpoints on one host; slots of the `ENDPOINTS` array. 1,000 is the aim, four
/// times that is the limit: 128 B each. A sender's stamp has twelve bits for a slot.
pub const ENDPOINTS: u32 = 4096;

/// Addresses of endpoints, as a sender's stamp tells them apart: 65,536 stamps in each family.
pub const SENDERS: u32 = 131_072;

/// Direct slots of `INTERFACES`, indexed by `ifindex % INTERFACE_SLOTS`; fixed, a
/// power of two. An interface whose slot is taken is found in a hash instead.
pub const INTERFACE_SLOTS: u32 = 16384;
/// Entries of that hash.
///
/// Interfaces inside other network namespaces stand here alone: a loopback interface for each endpoint, and as many
/// others.
pub const INTERFACE_OVERFLOW: u32 = 2 * ENDPOINTS;

/// The first of the numbers of interfaces that are inside other network namespaces, whose indices may be
/// those of the host's own interfaces. The kernel gives none from here on: they are positive `int`s.
/// They stand in the hash alone.
pub const FIRST_INSIDE: u32 = 1 << 31;
/// The first of those among them that are loopback interfaces: only questions for names are judged there
/// ([`crate::judge::question`]).
pub const FIRST_LOOPBACK: u32 = 3 << 30;

/// Exact addresses (endpoints, external Pods, the host) per family.
pub const ADDRESSES: u32 = 131_072;
/// Prefixes that one endpoint may use by leave (`netpold.io/addresses`), of both families together.
pub const LEAVES_EACH: usize = 64;
/// Such prefixes of all endpoints, per family.
pub const LEAVES: u32 = 65_536;
/// Ports of the host's that engines lead to containers which a policy isolates, each once for each address that it is
/// published at. Room for every port of TCP and UDP in both families.
pub const PUBLISHED: u32 = 262_144;
/// `ipBlock` prefixes with their `except`s per family.
pub const PREFIXES: u32 = 131_072;
/// Pairs of policy set and peer class for which some rule holds.
pub const VERDICTS: u32 = 1_048_576;
/// Spilled blocks of port ranges.
pub const PORT_BLOCKS: u32 = 131_072;
/// Tracked connections, IPv4.
pub const FLOWS4: u32 = 262_144;
/// Tracked connections, IPv6.
pub const FLOWS6: u32 = 131_072;
/// Datagrams of one sender whose fragments may be under way at once; fixed. A host sends the
/// fragments of a datagram one behind the other, so as many as it has processors would do.
pub const FRAGMENTS_EACH: usize = 16;
/// Sets for senders that are no endpoints of this host; a power of two.
pub const FRAGMENT_STRANGERS: u32 = 256;
/// Sets of datagrams under way: one for each slot, and those for strangers; fixed.
pub const FRAGMENT_SETS: u32 = ENDPOINTS + FRAGMENT_STRANGERS;
/// Accounts of connections, two for each slot ([`crate::tables::account`]); fixed.
pub const ACCOUNTS: u32 = ENDPOINTS * 2;
/// Bytes of the event ring; a power of two and a multiple of the page size.
pub const EVENT_RING_BYTES: u32 = 512 * 1024;

/// Port ranges held inside a verdict entry; fixed. Four covers what people write
/// (53 UDP and TCP, 80 and 443) with one look-up.
pub const INLINE_RANGES: usize = 4;
/// Port ranges in one spilled block; fixed.
pub const BLOCK_RANGES: usize = 20;
/// Spilled blocks that one verdict may chain; fixed, as the verifier must see an
/// end: 4 + 64 × 20 = 1,284 disjoint ranges for one pair of policy set and class.
pub const MAX_BLOCKS: usize = 64;

/// IPv6 extension headers walked before the packet counts as unparseable; fixed.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Reports per endpoint and tick (see [`crate::connection::TICK_SHIFT`]): first
/// packets of connections, and drops, each. What is over is counted, not queued.
pub const EVENTS_PER_TICK: u32 = 256;
