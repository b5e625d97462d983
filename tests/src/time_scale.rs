//! What the suites allow for on emulated machines, where everything takes many times as long:
//! `NPD_TIME_SCALE` is the factor there (`tests/kernels/init`).
//!
//! What must happen may take longer, and of what is tried at random less is tried. What must
//! *not* happen is waited for as long as everywhere: no scale hides a packet that got
//! through.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// The time that is to be given to what takes at most this on a machine of its own.
#[must_use]
pub fn scaled(usual: Duration) -> Duration {
    usual * factor()
}

/// Waits until it is so, as long as anything may take.
///
/// # Errors
/// It is not in time, or asking fails.
pub fn within(what: &str, done: impl FnMut() -> Result<bool>) -> Result<()> {
    within_time(Duration::from_secs(20), what, done)
}

/// As [`within`], where it matters how long it takes at most on a machine of its own.
///
/// # Errors
/// See [`within`].
pub fn within_time(
    usual: Duration,
    what: &str,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + scaled(usual);
    while !done()? {
        ensure!(Instant::now() < deadline, "{what}: not in time");
        sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// How many of so many random attempts are made.
#[must_use]
pub fn tries(usual: usize) -> usize {
    usual.div_ceil(factor() as usize)
}

/// A suite must not run with another factor than was meant: what is no number is a panic.
fn factor() -> u32 {
    let Ok(factor) = std::env::var("NPD_TIME_SCALE") else {
        return 1;
    };
    factor
        .parse()
        .ok()
        .filter(|factor| *factor > 0)
        .unwrap_or_else(|| panic!("NPD_TIME_SCALE is a whole number, not `{factor}`"))
}
