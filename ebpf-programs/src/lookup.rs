//! The look-ups of `netpol_abi::judge` over the maps.

use core::cell::Cell;

use aya_ebpf::{
    bindings::BPF_NOEXIST, helpers::generated::bpf_ktime_get_coarse_ns, maps::lpm_trie::Key,
};
use netpol_abi::{
    connection::TICK_SHIFT,
    judge::{Tables, search_blocks},
    limits::INTERFACE_SLOTS,
    tables::{
        Address, Control, Endpoint, Flow, FlowKey4, FlowKey6, Fragment, FragmentKey, Interface,
        PortBlock, Prefix, Usage, Verdict, VerdictKey,
    },
};

use crate::maps;

/// The maps of this host.
pub struct Maps;

/// The coarse monotonic clock: 3 ns where the exact one costs 28.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// A map value that is read and written whole. The kernel frees no element before an RCU
/// grace period, and the program runs inside one.
#[inline(always)]
fn cell<'a, T>(pointer: Option<*mut T>) -> Option<&'a Cell<T>> {
    // SAFETY: the map hands out valid, aligned elements; `Cell` has the layout of `T`.
    pointer.map(|pointer| unsafe { &*pointer.cast::<Cell<T>>() })
}

impl Tables for Maps {
    #[inline(always)]
    fn control(&self) -> Option<&Control> {
        maps::CONTROL.get(0)
    }

    #[inline(always)]
    fn interface(&self, ifindex: u32) -> Option<&Interface> {
        let direct = maps::INTERFACES.get(ifindex % INTERFACE_SLOTS)?;
        if direct.ifindex == ifindex {
            return Some(direct);
        }
        // SAFETY (here and below): elements are read while the RCU grace period holds them.
        unsafe { maps::INTERFACE_OVERFLOW.get(ifindex) }
    }

    #[inline(always)]
    fn endpoint(&self, slot: u32) -> Option<&Endpoint> {
        maps::ENDPOINTS.get(slot)
    }

    #[inline(always)]
    fn address4(&self, address: &[u8; 4]) -> Option<&Address> {
        unsafe { maps::ADDRESSES4.get(address) }
    }

    #[inline(always)]
    fn address6(&self, address: &[u8; 16]) -> Option<&Address> {
        unsafe { maps::ADDRESSES6.get(address) }
    }

    #[inline(always)]
    fn prefix4(&self, address: &[u8; 4]) -> Option<&Prefix> {
        maps::PREFIXES4.get(Key::new(32, *address))
    }

    #[inline(always)]
    fn prefix6(&self, address: &[u8; 16]) -> Option<&Prefix> {
        maps::PREFIXES6.get(Key::new(128, *address))
    }

    #[inline(always)]
    fn verdict(&self, key: &VerdictKey) -> Option<&Verdict> {
        unsafe { maps::VERDICTS.get(key) }
    }

    #[inline(always)]
    fn port_block(&self, id: u64) -> Option<&PortBlock> {
        unsafe { maps::PORT_BLOCKS.get(id) }
    }

    #[inline(always)]
    fn search_blocks(&self, spill: u64, protocol: u8, port: u16) -> u32 {
        netpold_blocks(spill, protocol.into(), port.into())
    }

    #[inline(always)]
    fn flow4(&self, key: &FlowKey4) -> Option<&Cell<Flow>> {
        cell(maps::FLOWS4.get_ptr_mut(key))
    }

    #[inline(always)]
    fn flow6(&self, key: &FlowKey6) -> Option<&Cell<Flow>> {
        cell(maps::FLOWS6.get_ptr_mut(key))
    }

    #[inline(always)]
    fn enter4(&self, key: &FlowKey4, flow: &Flow) -> bool {
        maps::FLOWS4.insert(key, flow, BPF_NOEXIST.into()).is_ok()
    }

    #[inline(always)]
    fn enter6(&self, key: &FlowKey6, flow: &Flow) -> bool {
        maps::FLOWS6.insert(key, flow, BPF_NOEXIST.into()).is_ok()
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        unsafe { maps::FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn remember_fragment(&self, key: &FragmentKey, fragment: &Fragment) {
        // An LRU always has room; if the kernel refuses all the same, the datagram is lost.
        let _ = maps::FRAGMENTS.insert(key, fragment, 0);
    }

    #[inline(always)]
    fn usage(&self, slot: u32) -> Option<&Cell<Usage>> {
        cell(maps::USAGE.get_ptr_mut(slot))
    }

    #[inline(always)]
    fn collected(&self, slot: u32) -> u32 {
        maps::COLLECTED.get(slot).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn tick(&self) -> u32 {
        (now_ns() >> TICK_SHIFT) as u32
    }
}

/// A global function: the verifier looks at it once, with any arguments. `extern "C"` and
/// plain integers are what it takes for that.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn netpold_blocks(spill: u64, protocol: u32, port: u32) -> u32 {
    search_blocks(&Maps, spill, protocol as u8, port as u16)
}
