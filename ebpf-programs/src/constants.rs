//! What the loader tells the programs before it loads them, and what depends on that alone.

use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

/// Does the kernel have the coarse clock (5.11)? Set before the programs are loaded
/// (`datapath::requirements`). The verifier takes it for the constant that it is, and never
/// looks at the call that it rules out: so a kernel that does not know the helper loads this.
#[unsafe(no_mangle)]
static COARSE_CLOCK: u32 = 1;

/// Are these the programs for interfaces inside other network namespaces, whose indices are not this one's?
/// A constant to the verifier, like the one above.
#[unsafe(no_mangle)]
static INSIDE: u32 = 0;

/// Is the packet at an interface inside another namespace?
#[inline(always)]
pub fn is_inside() -> bool {
    // SAFETY: as for the clock.
    unsafe { core::ptr::read_volatile(&raw const INSIDE) != 0 }
}

/// The monotonic clock, coarse where there is such a one: 3 ns where the exact one costs 28.
/// Both count from the same moment.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: a static; volatile, as the loader changes what the compiler has seen. The helpers
    // have no arguments.
    unsafe {
        if core::ptr::read_volatile(&raw const COARSE_CLOCK) != 0 {
            bpf_ktime_get_coarse_ns()
        } else {
            bpf_ktime_get_ns()
        }
    }
}
