//! What the daemon tells of itself: its log, and its state to systemd.
//!
//! Owns no state of its own. Called by the `netpold` binary and by the reconcile loop.

pub mod journal;
pub mod log;
pub mod systemd;
