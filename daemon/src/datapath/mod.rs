//! The kernel's side: programs, maps, links, pins.

/// The eBPF programs, as the build script made them.
pub static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netpol"));
