//! The recent flows, and the clients that want to hear of new ones.
//!
//! The reconcile loop records; the API's streams read. A slow reader loses flows
//! and is told how many; it never holds up the writer. The lock is held for a
//! push or a copy of pointers, never across an await.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use super::Flow;

/// Flows that are kept for readers that come later.
pub const KEPT: usize = 4096;

/// Flows that a reader may be behind before it loses some.
const BEHIND: usize = 4096;

/// The recent flows.
#[derive(Debug)]
pub struct Recorder {
    recent: Mutex<VecDeque<Arc<Flow>>>,
    news: broadcast::Sender<Arc<Flow>>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            recent: Mutex::default(),
            news: broadcast::Sender::new(BEHIND),
        }
    }
}

impl Recorder {
    /// Keeps the flow and sends it to the clients that listen.
    pub fn record(&self, flow: Flow) {
        let flow = Arc::new(flow);
        let mut recent = self.lock();
        if recent.len() >= KEPT {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&flow));
        // A lack of listeners is no failure. Under the lock, so that `subscribe`
        // neither misses a flow nor gets it twice.
        let _ = self.news.send(flow);
    }

    /// Those kept, oldest first, and all that come after them.
    #[must_use]
    pub fn subscribe(&self) -> (Vec<Arc<Flow>>, broadcast::Receiver<Arc<Flow>>) {
        let recent = self.lock();
        (recent.iter().cloned().collect(), self.news.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Flow>>> {
        // Nothing that runs under the lock leaves the queue in halves.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn numbered(number: usize) -> Flow {
        Flow {
            uuid: number.to_string(),
            ..Flow::default()
        }
    }

    #[test]
    fn the_oldest_go_first() {
        let recorder = Recorder::default();
        for number in 0..KEPT + 2 {
            recorder.record(numbered(number));
        }
        let (recent, _) = recorder.subscribe();
        assert_eq!(recent.len(), KEPT);
        assert_eq!(recent[0].uuid, "2");
    }

    #[test]
    fn a_reader_gets_the_old_and_the_new_once_each() {
        let recorder = Recorder::default();
        recorder.record(numbered(1));
        let (recent, mut news) = recorder.subscribe();
        recorder.record(numbered(2));
        assert_eq!(recent.len(), 1);
        assert_eq!(news.try_recv().unwrap().uuid, "2");
        assert!(news.try_recv().is_err());
    }
}
