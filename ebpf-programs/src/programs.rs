//! The entry points: judge, count, report, and let on or shoot.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use netpol_abi::{
    judge::{View, judge},
    packet::Direction,
};

use crate::{
    lookup::Maps,
    maps,
    report::{count, report},
    skb::Skb,
};

/// From the container: TC ingress of the host's end.
#[classifier]
pub fn netpold_egress(context: TcContext) -> i32 {
    run(&context, Direction::Egress)
}

/// To the container: TC egress of the host's end.
#[classifier]
pub fn netpold_ingress(context: TcContext) -> i32 {
    run(&context, Direction::Ingress)
}

#[inline(always)]
fn run(context: &TcContext, direction: Direction) -> i32 {
    // SAFETY: the context is valid for the whole run of the program.
    let ifindex = unsafe { (*context.skb.skb).ifindex };
    // Parsed headers do not fit the stack beside the rest. There is no frame without this
    // element, and nothing passes without it.
    let Some(view) = maps::SCRATCH.get_ptr_mut(0) else {
        return TC_ACT_SHOT;
    };
    // SAFETY: the element is this processor's own, and a TC program is not entered again
    // on the same processor while it runs.
    let view: &mut View = unsafe { &mut *view };
    let outcome = judge(&Maps, &Skb::new(context), direction, ifindex, view);
    count(&outcome, direction, context.len());
    if outcome.opened || !outcome.reason.allows() {
        report(&outcome, view, direction, ifindex, context.len());
    }
    // UNSPEC, not OK: other programs on the interface still have their say.
    if outcome.passes {
        TC_ACT_UNSPEC
    } else {
        TC_ACT_SHOT
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
