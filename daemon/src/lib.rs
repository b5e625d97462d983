//! The daemon as a library.
//!
//! ```text
//!  store (files) ──┐
//!  runtime ────────┼──▶ reconcile ──▶ engine ──▶ datapath ──▶ kernel
//!  links (netlink)─┘        │  └─▶ gate (nftables)   │
//!                          api ◀─── flows ◀─────────┘
//! ```
//!
//! `store`, `runtime`, `links`, `gate`, `datapath` and `api` never import one another; only
//! `reconcile` and the binaries join them.

pub mod api;
pub mod args;
mod async_fd;
pub mod bridges;
pub mod cli;
pub mod cni;
pub mod config;
pub mod datapath;
pub mod flows;
pub mod gate;
pub mod health;
pub mod links;
mod netlink;
pub mod netns;
pub mod nftables;
pub mod oci;
pub mod origin;
pub mod printable;
pub mod probe;
pub mod reconcile;
pub mod runtime;
pub mod store;
#[cfg(test)]
mod streams;
pub mod syntax;
pub mod telemetry;
pub mod translation;
mod unix_http;
pub mod watch;
