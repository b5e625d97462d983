//! The entry points: the fast path, else the slow one; then the packet passes or is dropped.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use netpol_abi::packet::Direction;

use crate::{
    skb::raw,
    subprograms::{netpold_fast, netpold_judge, netpold_question, netpold_report},
};

/// From the container: TC ingress of the host's end, or TC egress inside.
#[classifier]
pub fn netpold_egress(context: TcContext) -> i32 {
    run(&context, Direction::Egress)
}

/// To the container: TC egress of the host's end, or TC ingress inside.
#[classifier]
pub fn netpold_ingress(context: TcContext) -> i32 {
    run(&context, Direction::Ingress)
}

/// To the engine's resolver: TC ingress of the container's own loopback interface.
#[classifier]
pub fn netpold_asks(context: TcContext) -> i32 {
    let skb = raw(&context);
    let passes = netpold_question(skb) != 0;
    netpold_report(skb, Direction::Egress as u32);
    if passes { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

#[inline(always)]
fn run(context: &TcContext, direction: Direction) -> i32 {
    let (skb, direction) = (raw(context), direction as u32);
    // UNSPEC, not OK: other programs on the interface still have their say.
    if netpold_fast(skb, direction) != 0 {
        return TC_ACT_UNSPEC;
    }
    let passes = netpold_judge(skb, direction) != 0;
    netpold_report(skb, direction);
    if passes { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
