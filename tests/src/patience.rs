//! How long something that must happen may take.
//!
//! The suites also run on emulated machines, where everything takes many times as long:
//! `NPD_PATIENCE` is the factor there. What must *not* happen is waited for as long as
//! everywhere, so patience never hides a packet that got through.

use std::time::Duration;

/// The time that is to be given to what takes at most this on a machine of its own.
///
/// # Panics
/// When the factor is no number: a suite must not run with another than was meant.
#[must_use]
pub fn patience(usual: Duration) -> Duration {
    let factor = std::env::var("NPD_PATIENCE").map_or(1, |factor| {
        factor
            .parse()
            .unwrap_or_else(|_| panic!("NPD_PATIENCE is a whole number, not `{factor}`"))
    });
    usual * factor
}
