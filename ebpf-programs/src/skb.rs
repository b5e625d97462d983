//! Packet bytes from an skb: linear or not, cut by offload or not.

use core::{mem::MaybeUninit, ptr::NonNull};

use aya_ebpf::{
    EbpfContext as _, bindings::__sk_buff, helpers::generated::bpf_skb_load_bytes,
    programs::TcContext,
};
use netpol_abi::packet::{Arrival, Frame, source_route};
use zerocopy::FromBytes;

use crate::constants::is_inside;

/// An skb as a frame.
pub struct Skb<'a>(&'a TcContext);

/// Bytes that [`Frame::read_near`] may reach: Ethernet, IPv6 and TCP.
const NEAR: u32 = 14 + 40 + 20;

/// The verifier takes misaligned access to a packet, but not to the stack.
#[repr(C, align(8))]
struct Aligned<H>(MaybeUninit<H>);

impl<'a> Skb<'a> {
    /// Makes the headers' part linear, where it is not (a frame of page fragments alone).
    #[inline(always)]
    pub fn new(context: &'a TcContext) -> Self {
        let linear = context.data_end().wrapping_sub(context.data());
        let length = context.len();
        if linear < NEAR as usize && linear < length as usize {
            // If it fails, the headers count as truncated: dropped where a policy isolates.
            let _ = context.pull_data(if length < NEAR { length } else { NEAR });
        }
        Self(context)
    }
}

impl Frame for Skb<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len() as usize
    }

    #[inline(always)]
    fn read<H: FromBytes>(&self, offset: usize) -> Option<H> {
        let mut header = Aligned(MaybeUninit::<H>::uninit());
        // SAFETY: the helper writes all of the header or fails, and checks the offset itself.
        let failed = unsafe {
            bpf_skb_load_bytes(
                self.0.as_ptr(),
                offset as u32,
                header.0.as_mut_ptr().cast(),
                size_of::<H>() as u32,
            )
        };
        // SAFETY: it did not fail, so every byte is written, and any bytes are a header.
        (failed == 0).then(|| unsafe { header.0.assume_init() })
    }

    #[inline(always)]
    fn read_near<const AT: usize, H: FromBytes>(&self) -> Option<H> {
        const {
            assert!(
                AT + size_of::<H>() <= NEAR as usize,
                "beyond what is made linear"
            )
        };
        let start = self.0.data() + AT;
        // SAFETY: the header lies inside the packet's linear data, and any bytes are one.
        (start + size_of::<H>() <= self.0.data_end())
            .then(|| unsafe { core::ptr::read_unaligned(start as *const H) })
    }

    #[inline(always)]
    fn has_source_route(&self, offset: usize, length: usize) -> bool {
        netpold_source_route(raw(self.0), offset as u32, length as u32) != 0
    }

    #[inline(always)]
    fn has_vlan_tag(&self) -> bool {
        // SAFETY: the context is valid for the whole run of the program.
        unsafe { (*raw(self.0)).vlan_present != 0 }
    }

    #[inline(always)]
    fn tc_index(&self) -> u16 {
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(&raw const (*raw(self.0)).tc_index) as u16 }
    }

    #[inline(always)]
    fn arrival(&self) -> Arrival {
        let skb = raw(self.0);
        // SAFETY: as above. Volatile, so that each field is loaded from its own place: the verifier takes no
        // load at a computed one.
        let (ifindex, tc_index, socket) = unsafe {
            (
                core::ptr::read_volatile(&raw const (*skb).ingress_ifindex),
                core::ptr::read_volatile(&raw const (*skb).tc_index),
                core::ptr::read_volatile(&raw const (*skb).__bindgen_anon_2.sk),
            )
        };
        Arrival {
            // Inside another network namespace indices are not those of the host's tables.
            ifindex: if is_inside() {
                Arrival::UNKNOWN
            } else {
                ifindex
            },
            tc_index: tc_index as u16,
            has_socket: (!socket.is_null()).into(),
        }
    }
}

/// The context as global functions take it.
#[inline(always)]
pub fn raw(context: &TcContext) -> *mut __sk_buff {
    context.as_ptr().cast()
}

/// Leaves the sender's stamp on the packet ([`netpol_abi::tables::stamp`]), or none.
#[inline(always)]
pub fn set_stamp(skb: *mut __sk_buff, tc_index: u32) {
    // SAFETY: the context is valid for the whole run of the program, and the field may be written. Volatile, as
    // nothing in the program reads it.
    unsafe { core::ptr::write_volatile(&raw mut (*skb).tc_index, tc_index) }
}

/// The context that a subprogram was called with.
#[inline(always)]
pub fn context(skb: *mut __sk_buff) -> TcContext {
    // SAFETY: the programs hand on what the kernel gave them, which is never null.
    TcContext::new(unsafe { NonNull::new_unchecked(skb) })
}

/// Is there a source route among IPv4 options? Nonzero: yes.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn netpold_source_route(skb: *mut __sk_buff, offset: u32, length: u32) -> u32 {
    let context = context(skb);
    source_route(&Skb::new(&context), offset as usize, length as usize).into()
}
