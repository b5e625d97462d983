//! The entry points.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};

use crate::maps;

/// From the container.
#[classifier]
pub fn netpold_egress(context: TcContext) -> i32 {
    touch(&context)
}

/// To the container.
#[classifier]
pub fn netpold_ingress(context: TcContext) -> i32 {
    touch(&context)
}

fn touch(context: &TcContext) -> i32 {
    let key4 = Default::default();
    let key6 = Default::default();
    unsafe {
        let _ = maps::FLOWS4.get(&key4);
        let _ = maps::FLOWS6.get(&key6);
    }
    let _ = maps::CONTROL.get(0);
    let _ = context.len();
    TC_ACT_UNSPEC
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
