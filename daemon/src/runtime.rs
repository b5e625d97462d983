//! What runs on this host, as plain values.
//!
//! ```text
//!  docker (engine's API) ───▶ Snapshot ─┐
//!  containerd (gRPC) ───────▶ Snapshot ─┤
//!  declared (Pod manifests) ────────────┼──▶ reconcile
//!  resolvers (resolv.conf) ─────────────┘        │
//!                      identity (labels → Pod) ◀─┘
//!                      cgroup (process → container) ◀─┘
//! ```
//!
//! Owns the talk with runtimes and the reading of what they say. Must never touch a
//! link or a policy. Everything that a runtime reports was chosen by the user who starts
//! containers: it is checked here, once. Called by `reconcile` only.

pub mod cgroup;
pub mod container;
pub mod containerd;
pub mod declared;
pub mod docker;
pub mod follow;
pub mod identity;
pub mod named;
pub mod resolvers;
