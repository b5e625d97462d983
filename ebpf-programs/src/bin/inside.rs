//! The way in for interfaces inside other network namespaces: one pair for each, which says by a constant
//! which interface it is, and goes on to the programs that all of them share.
//!
//! Those are large, and a kernel takes long to verify them; these take it no time. The number is handed over in
//! the skb's control block, which is written here in the same run and so nobody else's.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", allow(unsafe_code, missing_docs))]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        bindings::TC_ACT_SHOT,
        macros::{classifier, map},
        maps::ProgramArray,
        programs::TcContext,
    };
    use netpol_abi::packet::Direction;

    /// The number of the interface; set before the programs are loaded.
    #[unsafe(no_mangle)]
    static INTERFACE: u32 = 0;

    /// The programs that go on from here, by direction.
    #[map]
    pub static SHARED: ProgramArray = ProgramArray::with_max_entries(2, 0);

    /// From the container: TC egress inside.
    #[classifier]
    pub fn netpold_egress(context: TcContext) -> i32 {
        go_on(&context, Direction::Egress)
    }

    /// To the container: TC ingress inside.
    #[classifier]
    pub fn netpold_ingress(context: TcContext) -> i32 {
        go_on(&context, Direction::Ingress)
    }

    #[inline(always)]
    fn go_on(context: &TcContext, direction: Direction) -> i32 {
        // SAFETY: a static, volatile as the loader changes what the compiler has seen; the context is valid
        // for the whole run; what is jumped to does not come back.
        unsafe {
            (*context.skb.skb).cb[0] = core::ptr::read_volatile(&raw const INTERFACE);
            SHARED.tail_call(context, direction as u32);
        }
        // Without them nobody judges.
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
