//! The maps. Names and layouts are contracts with the daemon (`netpol_abi::tables`).
//!
//! Hashes are not preallocated: an idle host pays for what it uses. The sizes are
//! defaults; the daemon may set others when it creates the maps.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf},
};
use netpol_abi::{
    judge::{Outcome, ParsedFrame},
    limits,
    link::{LINK_RATES as LINK_RATE_SLOTS, LinkRate, NEIGHBOURS as NEIGHBOUR_SLOTS, Neighbour},
    tables::{
        Address, COUNTERS as COUNTER_SLOTS, Collected, Control, Counter, Endpoint, Entered, Flow,
        FlowKey4, FlowKey6, FragmentCursor, FragmentSet, Interface, Leave, LeaveKey4, LeaveKey6,
        PortBlock, Prefix, Published, PublishedKey, SenderAddress, Usage, Verdict, VerdictKey,
    },
};

#[map]
pub static CONTROL: Array<Control> = Array::with_max_entries(1, 0);
#[map]
pub static INTERFACES: Array<Interface> = Array::with_max_entries(limits::INTERFACE_SLOTS, 0);
#[map]
pub static INTERFACE_OVERFLOW: HashMap<u32, Interface> =
    HashMap::with_max_entries(limits::INTERFACE_OVERFLOW, BPF_F_NO_PREALLOC);
#[map]
pub static ENDPOINTS: Array<Endpoint> = Array::with_max_entries(limits::ENDPOINTS, 0);
#[map]
pub static ADDRESSES4: HashMap<[u8; 4], Address> =
    HashMap::with_max_entries(limits::ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
pub static ADDRESSES6: HashMap<[u8; 16], Address> =
    HashMap::with_max_entries(limits::ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
pub static SENDERS: HashMap<u32, SenderAddress> =
    HashMap::with_max_entries(limits::SENDERS, BPF_F_NO_PREALLOC);
#[map]
pub static LEAVES4: LpmTrie<LeaveKey4, Leave> =
    LpmTrie::with_max_entries(limits::LEAVES, BPF_F_NO_PREALLOC);
#[map]
pub static LEAVES6: LpmTrie<LeaveKey6, Leave> =
    LpmTrie::with_max_entries(limits::LEAVES, BPF_F_NO_PREALLOC);
#[map]
pub static PUBLISHED: HashMap<PublishedKey, Published> =
    HashMap::with_max_entries(limits::PUBLISHED, BPF_F_NO_PREALLOC);
#[map]
pub static PREFIXES4: LpmTrie<[u8; 4], Prefix> =
    LpmTrie::with_max_entries(limits::PREFIXES, BPF_F_NO_PREALLOC);
#[map]
pub static PREFIXES6: LpmTrie<[u8; 16], Prefix> =
    LpmTrie::with_max_entries(limits::PREFIXES, BPF_F_NO_PREALLOC);
#[map]
pub static VERDICTS: HashMap<VerdictKey, Verdict> =
    HashMap::with_max_entries(limits::VERDICTS, BPF_F_NO_PREALLOC);
#[map]
pub static PORT_BLOCKS: HashMap<u64, PortBlock> =
    HashMap::with_max_entries(limits::PORT_BLOCKS, BPF_F_NO_PREALLOC);
#[map]
pub static FLOWS4: HashMap<FlowKey4, Flow> =
    HashMap::with_max_entries(limits::FLOWS4, BPF_F_NO_PREALLOC);
#[map]
pub static FLOWS6: HashMap<FlowKey6, Flow> =
    HashMap::with_max_entries(limits::FLOWS6, BPF_F_NO_PREALLOC);
#[map]
pub static FRAGMENTS: Array<FragmentSet> = Array::with_max_entries(limits::FRAGMENT_SETS, 0);
#[map]
pub static FRAGMENT_CURSORS: Array<FragmentCursor> =
    Array::with_max_entries(limits::FRAGMENT_SETS, 0);
#[map]
pub static LINK_RATES: Array<LinkRate> = Array::with_max_entries(LINK_RATE_SLOTS, 0);
#[map]
pub static NEIGHBOURS: Array<Neighbour> = Array::with_max_entries(NEIGHBOUR_SLOTS, 0);
#[map]
pub static USAGE: Array<Usage> = Array::with_max_entries(limits::ENDPOINTS, 0);
#[map]
pub static ENTERED: Array<Entered> = Array::with_max_entries(limits::ACCOUNTS, 0);
#[map]
pub static COLLECTED: Array<Collected> = Array::with_max_entries(limits::ACCOUNTS, 0);
#[map]
pub static COUNTERS: PerCpuArray<Counter> = PerCpuArray::with_max_entries(COUNTER_SLOTS, 0);
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(limits::EVENT_RING_BYTES, 0);
#[map]
pub static SCRATCH: PerCpuArray<ParsedFrame> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static QUOTED: PerCpuArray<ParsedFrame> = PerCpuArray::with_max_entries(1, 0);
/// A key of `PUBLISHED` while it is looked up.
#[map]
pub static DIALLED: PerCpuArray<[u64; 3]> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub static OUTCOME: PerCpuArray<MaybeUninit<Outcome>> = PerCpuArray::with_max_entries(1, 0);
