//! The way in for interfaces inside other network namespaces: one pair for each, which says by a constant
//! which interface it is, and goes on to the programs that all of them share.
//!
//! Those are large, and a kernel takes long to verify them; these take it no time. The number is handed over in
//! the skb's control block, which is written here in the same run and so has no other owner.
//!
//! The program for a container's loopback interface goes on with what its engine's resolver may get, and lets all else
//! pass by itself.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", allow(unsafe_code, missing_docs))]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        EbpfContext as _,
        bindings::{__sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC},
        macros::{classifier, map},
        maps::ProgramArray,
        programs::TcContext,
    };
    use netpol_abi::{
        judge::RESOLVER,
        packet::{Direction, ETHERNET, ethertype, protocol},
    };

    /// The number of the interface; set before the programs are loaded.
    #[unsafe(no_mangle)]
    static INTERFACE: u32 = 0;

    /// The programs that go on from here: by direction, and the one for questions.
    #[map]
    pub static SHARED: ProgramArray = ProgramArray::with_max_entries(3, 0);

    /// Where the one for questions stands there.
    const ASKS: u32 = 2;

    /// From the container: TC egress inside.
    #[classifier]
    pub fn netpold_egress(context: TcContext) -> i32 {
        go_on(&context, Direction::Egress as u32)
    }

    /// To the container: TC ingress inside.
    #[classifier]
    pub fn netpold_ingress(context: TcContext) -> i32 {
        go_on(&context, Direction::Ingress as u32)
    }

    /// On the container's loopback interface: TC ingress, which all that is sent there comes by.
    #[classifier]
    pub fn netpold_asks(context: TcContext) -> i32 {
        if may_ask(&context) {
            go_on(&context, ASKS)
        } else {
            TC_ACT_UNSPEC
        }
    }

    /// May the engine's resolver get it as a question? Everything else is the container's own business.
    #[inline(always)]
    fn may_ask(context: &TcContext) -> bool {
        const KIND: usize = ETHERNET - 2;
        // In IPv4's header (RFC 791, 3.1).
        const PROTOCOL: usize = ETHERNET + 9;
        const DESTINATION: usize = ETHERNET + 16;
        let Ok(kind) = context.load::<u16>(KIND).map(u16::from_be) else {
            return false;
        };
        match kind {
            ethertype::IPV4 => {
                let protocol = context.load::<u8>(PROTOCOL);
                matches!(protocol, Ok(protocol::TCP | protocol::UDP))
                    && context.load::<u32>(DESTINATION) == Ok(u32::from_ne_bytes(RESOLVER))
            }
            // Of two tags for VLAN 0 the kernel takes off the inner one behind this hook.
            ethertype::VLAN | ethertype::QINQ => true,
            _ => false,
        }
    }

    #[inline(always)]
    fn go_on(context: &TcContext, shared: u32) -> i32 {
        // SAFETY: a static, volatile as the loader changes what the compiler has seen; the context is valid
        // for the whole run; what is jumped to does not come back.
        unsafe {
            (*context.as_ptr().cast::<__sk_buff>()).cb[0] =
                core::ptr::read_volatile(&raw const INTERFACE);
            SHARED.tail_call(context, shared);
        }
        // Without them no program judges.
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
