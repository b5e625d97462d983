//! The local API: HTTP and JSON on a Unix socket, read-only.
//!
//! ```text
//!  reconcile ─▶ published (watch) ─▶ server ─▶ socket ─▶ client ─▶ netpol
//!            ◀── requests ─────────┘
//! ```
//!
//! [`published`] is what the reconcile loop hands over, [`wire`] what goes over
//! the socket. Nothing here changes policy: that only ever comes from files.

pub mod client;
pub mod listener;
pub mod published;
pub mod server;
pub mod wire;

pub use client::Client;
pub use published::{GateMeter, Published, ReadyRequest, State, SyncRequest};
