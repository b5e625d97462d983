//! The kernel's side: programs, maps, links, and where they are pinned.
//!
//! ```text
//!                 ┌─ tables       steps of a plan ─▶ maps; read back after a restart
//!  Kernel::open ──┼─ attachments  programs ─▶ interfaces (blocks 8-16 ms each: own thread)
//!   (lock, pins,  ├─ events       ring buffer ─▶ reports
//!    load)        ├─ flows        sweeps what timed out
//!                 └─ counters     per-CPU sums
//! ```
//!
//! The parts are independent (each has its own descriptors), so that the reconcile
//! loop can give each its own thread or task. Nothing here is undone on drop: what
//! is pinned goes on enforcing when the daemon is gone. Only [`uninstall()`] takes it off.
//!
//! This module never reads policy or runtimes, and never imports `links`, `store`,
//! `runtime` or `api`.

pub mod attach;
mod by_reference;
pub mod counters;
pub mod events;
pub mod flows;
pub mod grace_period;
pub mod hook;
pub mod kernel;
pub mod maps;
pub mod options;
pub mod owned_links;
pub mod pins;
pub mod programs;
pub mod requirements;
pub mod tables;
pub mod uninstall;
pub mod wire;
pub mod within;
mod write;

pub use attach::{AttachError, Attached, Attachments, Mechanism};
pub use hook::Hook;
pub use kernel::{Kernel, OpenError, Origin};
pub use options::{Options, Sizes};
pub use programs::LoadError;
pub use tables::KernelTables;
pub use uninstall::{Removed, uninstall};
pub use within::{Location, Within, is_inside, is_loopback};

/// The eBPF programs, as the build script made them.
pub static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netpol"));

/// Those that lead to them from interfaces inside other namespaces (`ebpf-programs/src/bin/inside.rs`).
pub static INSIDE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/inside"));

/// What benchmarks measure the programs against (`ebpf-programs/src/bin/floor.rs`). Not linked
/// into a binary that does not name it.
pub static FLOOR: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/floor"));

/// The program that gives a test run's packet a sender's stamp. For tests.
#[doc(hidden)]
pub static ARRIVED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/arrived"));
