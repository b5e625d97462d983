//! What any stateful filter has to pay: bounds, five-tuple, one look-up in a table of
//! connections, the coarse clock. `make bench` states netpold's cost as a multiple of it.
//!
//! Measured against, never attached. IPv4 without options, TCP or UDP.
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", allow(unsafe_code, missing_docs))]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        bindings::TC_ACT_UNSPEC,
        helpers::generated::bpf_ktime_get_coarse_ns,
        macros::{classifier, map},
        maps::LruHashMap,
        programs::TcContext,
    };

    /// IPv4 addresses, ports, protocol.
    #[repr(C)]
    #[derive(Clone, Copy)]
    pub struct Key {
        source: u32,
        destination: u32,
        ports: u32,
        protocol: u32,
    }

    #[map]
    pub static FLOOR_FLOWS: LruHashMap<Key, u64> = LruHashMap::with_max_entries(131_072, 0);

    #[classifier]
    pub fn floor(context: TcContext) -> i32 {
        let (start, end) = (context.data(), context.data_end());
        if start + 14 + 20 + 4 > end {
            return TC_ACT_UNSPEC;
        }
        // SAFETY: compared with the end just above.
        let read = |offset: usize| unsafe { ((start + offset) as *const u32).read_unaligned() };
        let protocol = unsafe { *((start + 14 + 9) as *const u8) };
        let key = Key {
            source: read(14 + 12),
            destination: read(14 + 16),
            ports: read(14 + 20),
            protocol: u32::from(protocol),
        };
        // SAFETY: no arguments.
        let now = unsafe { bpf_ktime_get_coarse_ns() } >> 30;
        match FLOOR_FLOWS.get_ptr_mut(&key) {
            // SAFETY: the map's element.
            Some(seen) => unsafe {
                if *seen != now {
                    *seen = now;
                }
            },
            None => {
                let _ = FLOOR_FLOWS.insert(&key, &now, 0);
            }
        }
        TC_ACT_UNSPEC
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
