//! Gives a packet of BPF_PROG_TEST_RUN what a test run can't: the stamp of the endpoint that sent it. The tests put
//! the stamp into the skb's control block, which a test run may set, and reach the programs through this one.
//!
//! For tests alone, never attached.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", allow(unsafe_code, missing_docs))]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        EbpfContext as _,
        bindings::{__sk_buff, TC_ACT_SHOT},
        macros::{classifier, map},
        maps::ProgramArray,
        programs::TcContext,
    };

    /// The program that goes on from here, at index 0.
    #[map]
    pub static JUDGES: ProgramArray = ProgramArray::with_max_entries(1, 0);

    /// The stamp stands in word 1 of the control block.
    #[classifier]
    pub fn arrived(context: TcContext) -> i32 {
        let skb = context.as_ptr().cast::<__sk_buff>();
        // SAFETY: the context is valid for the whole run; what is jumped to does not come back.
        unsafe {
            (*skb).tc_index = core::ptr::read_volatile(&raw const (*skb).cb[1]);
            JUDGES.tail_call(&context, 0);
        }
        TC_ACT_SHOT
    }

    #[panic_handler]
    fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("this program runs in the kernel; daemon/build.rs builds it");
}
