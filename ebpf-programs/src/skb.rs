//! Packet bytes from an skb: linear or not, cut by offload or not.

use core::mem::MaybeUninit;

use aya_ebpf::{EbpfContext as _, helpers::generated::bpf_skb_load_bytes, programs::TcContext};
use netpol_abi::packet::Frame;

/// An skb as a frame.
pub struct Skb<'a>(pub &'a TcContext);

impl Frame for Skb<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len() as usize
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper writes exactly N bytes or fails, and checks the offset itself.
        let failed = unsafe {
            bpf_skb_load_bytes(
                self.0.as_ptr(),
                offset as u32,
                bytes.as_mut_ptr().cast(),
                N as u32,
            )
        };
        // SAFETY: it did not fail, so all N bytes are written.
        (failed == 0).then(|| unsafe { bytes.assume_init() })
    }

    #[inline(always)]
    fn has_vlan_tag(&self) -> bool {
        // SAFETY: the context is valid for the whole run of the program.
        unsafe { (*self.0.skb.skb).vlan_present != 0 }
    }
}
