//! Reports of the programs, from the ring buffer.
//!
//! The kernel wakes the reader when it had read everything, so an idle host sleeps
//! and a busy one is read in batches. A record that this build does not understand
//! is counted and skipped.

use std::io;
use std::sync::Arc;

use aya::maps::{MapData, RingBuf};
use netpol_abi::event::Event;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zerocopy::FromBytes as _;

use super::pins::Lock;
use crate::async_fd::ready_when;

/// Records taken in one turn, so that a flood does not keep the task from its other work.
const BATCH: usize = 1024;

/// The ring, before a reader listens.
pub struct EventRing {
    ring: RingBuf<MapData>,
    lock: Arc<Lock>,
}

impl EventRing {
    pub(super) const fn new(ring: RingBuf<MapData>, lock: Arc<Lock>) -> Self {
        Self { ring, lock }
    }

    /// Registers with the tokio runtime that this is called in.
    ///
    /// # Errors
    /// epoll refuses the descriptor.
    pub fn listen(self) -> io::Result<Events> {
        Ok(Events {
            ring: ready_when(self.ring, Interest::READABLE)?,
            unknown: 0,
            _lock: self.lock,
        })
    }
}

/// The ring's one reader.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    unknown: u64,
    _lock: Arc<Lock>,
}

impl Events {
    /// Appends at least one report to `into`, waiting for it where there is none. May be
    /// dropped at any await without losing a report.
    ///
    /// # Errors
    /// epoll fails.
    pub async fn next(&mut self, into: &mut Vec<Event>) -> io::Result<()> {
        let before = into.len();
        loop {
            let mut ready = self.ring.readable_mut().await?;
            let mut drained = false;
            while into.len() - before < BATCH {
                let Some(record) = ready.get_inner_mut().next() else {
                    drained = true;
                    break;
                };
                match decode(&record) {
                    Some(event) => into.push(event),
                    None => self.unknown += 1,
                }
            }
            // Readiness is cleared only when nothing is left: the kernel wakes on a record
            // that comes after that.
            if drained {
                ready.clear_ready();
            }
            if into.len() > before {
                return Ok(());
            }
        }
    }

    /// Records that were not understood, ever.
    #[must_use]
    pub const fn unknown(&self) -> u64 {
        self.unknown
    }
}

/// A report from a record. Programs of a later build may append fields.
fn decode(record: &[u8]) -> Option<Event> {
    let (event, _) = Event::read_from_prefix(record).ok()?;
    Some(event)
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes as _;

    use super::*;

    #[test]
    fn a_record_is_read_and_a_short_one_is_not() {
        let event = Event {
            policy_set: 7,
            ..Event::default()
        };
        let mut record = event.as_bytes().to_vec();
        assert_eq!(decode(&record), Some(event));
        record.extend([1, 2, 3]);
        assert_eq!(decode(&record), Some(event));
        assert_eq!(decode(&event.as_bytes()[1..]), None);
        assert_eq!(decode(&[]), None);
    }
}
