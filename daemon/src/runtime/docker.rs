//! The Docker engine, or what speaks its API: which containers there are.
//!
//! ```text
//!  events (hints) ─▶ follow ─▶ engine (HTTP) ─▶ model (listing → Snapshot) ─▶ watch channel
//! ```
//!
//! Owns the talk with one engine; each engine that is followed has a task of its own. Events only say when to ask, and come before the engine has saved what they tell of:
//! what its answers leave unexplained is asked about until nothing is (`recheck`). Must never ask for one container in the way of the others: the engine holds a
//! container's lock for as long as it starts, and an inspection waits for it. Started
//! by `netpold`; the [`Snapshot`](super::container::Snapshot) is read by `reconcile`.

mod dns;
mod elements;
mod engine;
mod follow;
mod model;
mod recheck;
mod resolv_conf;
mod wire;

pub(crate) use engine::{Engine, EngineError};
#[cfg(fuzzing)]
pub use follow::stream::hold;
pub use follow::{follow, same};
pub(crate) use wire::Network;
