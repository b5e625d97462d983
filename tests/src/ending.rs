//! How a program that a suite has started is ended.

use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends it by this signal. False: not within that time, and it was killed.
///
/// # Errors
/// What the system says.
pub fn end(mut child: Child, signal: Signal, time: Duration) -> Result<bool> {
    kill(Pid::from_raw(child.id().try_into()?), signal)?;
    let deadline = Instant::now() + time;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(true)
}
