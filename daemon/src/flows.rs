//! Flows: what the kernel reported, with names on it.
//!
//! ```text
//!  ring buffer ─▶ event ─▶ naming ─▶ flow ─▶ recorder ─▶ filter ─▶ JSON | text
//! ```
//!
//! [`flow::Flow`] is the JSON form of Hubble's `flow.Flow`, so that what reads
//! Hubble's reads ours. Pure values but for the [`recorder`], which holds the
//! recent ones. Called by the reconcile loop (naming, recording), by the API
//! (filtering, streaming) and by `netpol observe` (text).

pub mod drop_reason;
pub mod filter;
pub mod flow;
pub mod naming;
pub mod recorder;
pub mod text;

pub use filter::Filter;
pub use flow::Flow;
pub use naming::{Clock, Namer};
pub use recorder::Recorder;
