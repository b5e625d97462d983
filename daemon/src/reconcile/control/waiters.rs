//! Clients that wait: for a full sync, and for a container to be in force. Pure, but for the channels of the answers.
//!
//! A client that has gone by the time of its answer gets none.

use std::collections::BTreeSet;
use std::fs::File;

use tokio::sync::oneshot;

use crate::api::wire::{Readiness, Synced};
use crate::api::{ReadyRequest, SyncRequest};
use crate::reconcile::readiness::Asked;

/// A client waits for a full sync.
struct WaitingSync {
    /// The newest version when everything was about to be listed: a later version has everything.
    since: u64,
    reply: oneshot::Sender<Synced>,
}

/// A client waits for a network namespace to be in force.
struct WaitingStart {
    request: ReadyRequest,
    asked: Result<Asked, String>,
    /// How often interfaces had changed when the namespace was inspected.
    inspected: u64,
}

/// Clients that wait.
#[derive(Default)]
pub struct Waiters {
    syncs: Vec<WaitingSync>,
    starts: Vec<WaitingStart>,
}

impl Waiters {
    /// A client waits for what is listed from now on, after the version `since`.
    pub fn add_sync(&mut self, since: u64, request: SyncRequest) {
        let reply = request.reply;
        self.syncs.push(WaitingSync { since, reply });
    }

    /// Does a client wait for what this version has?
    pub fn has_sync(&self, version: u64) -> bool {
        self.syncs.iter().any(|waiting| waiting.since < version)
    }

    /// Answers the clients that wait for what this version has.
    pub fn answer_syncs(&mut self, version: u64, synced: &Synced) {
        for waiting in self.syncs.extract_if(.., |waiting| waiting.since < version) {
            // The client may have gone.
            let _ = waiting.reply.send(synced.clone());
        }
    }

    /// A client waits for a network namespace, which was inspected when interfaces had changed so often.
    pub fn add_start(
        &mut self,
        request: ReadyRequest,
        asked: Result<Asked, String>,
        inspected: u64,
    ) {
        self.starts.push(WaitingStart {
            request,
            asked,
            inspected,
        });
    }

    /// Inspects the network namespaces again in which interfaces may have changed. `changes`: how often interfaces have changed by now.
    pub fn inspect(
        &mut self,
        changes: u64,
        mut inspect: impl FnMut(&File) -> Result<Asked, String>,
    ) {
        let outdated = self.starts.iter_mut();
        for waiting in outdated.filter(|waiting| waiting.inspected != changes) {
            waiting.asked = inspect(&waiting.request.netns);
            waiting.inspected = changes;
        }
    }

    /// Answers the clients whose network namespace is in force, and those that wait for nothing.
    pub fn answer_starts(&mut self, decide: impl Fn(&Asked) -> Readiness) {
        for waiting in std::mem::take(&mut self.starts) {
            if waiting.request.reply.is_closed() {
                continue;
            }
            let readiness = waiting.asked.as_ref().map(&decide);
            let is_ready = readiness.as_ref().map_or(true, |readiness| readiness.ready);
            if waiting.request.wait && !is_ready {
                self.starts.push(waiting);
            } else {
                // The client may have gone.
                let _ = waiting.request.reply.send(readiness.map_err(Clone::clone));
            }
        }
    }

    /// The network namespaces, by their ids here, in which containers wait to be in force.
    pub fn awaited(&self) -> BTreeSet<i32> {
        let waiting = self.starts.iter().filter(|waiting| waiting.request.wait);
        let asked = waiting.filter_map(|waiting| waiting.asked.as_ref().ok());
        asked.filter_map(|asked| asked.nsid).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn start(wait: bool) -> (ReadyRequest, oneshot::Receiver<Result<Readiness, String>>) {
        let (reply, answer) = oneshot::channel();
        let netns = Arc::new(File::open("/dev/null").unwrap());
        (ReadyRequest { netns, wait, reply }, answer)
    }

    fn asked(nsid: i32) -> Asked {
        Asked {
            nsid: Some(nsid),
            ..Asked::default()
        }
    }

    fn readiness(ready: bool) -> Readiness {
        Readiness {
            ready,
            reason: String::new(),
        }
    }

    #[test]
    fn a_sync_is_answered_by_a_later_version_than_that_of_its_listing() {
        let mut waiters = Waiters::default();
        let mut answers = Vec::new();
        for since in [3, 4] {
            let (reply, answer) = oneshot::channel();
            waiters.add_sync(since, SyncRequest { reply });
            answers.push(answer);
        }
        assert!(!waiters.has_sync(3));
        assert!(waiters.has_sync(4));
        waiters.answer_syncs(4, &Synced::default());
        assert!(answers[0].try_recv().is_ok());
        assert_eq!(answers[1].try_recv().unwrap_err(), TryRecvError::Empty);
        drop(answers);
        waiters.answer_syncs(5, &Synced::default());
        assert!(!waiters.has_sync(6));
    }

    #[test]
    fn a_namespace_is_inspected_only_when_interfaces_have_changed() {
        let mut waiters = Waiters::default();
        let (request, mut answer) = start(true);
        waiters.add_start(request, Ok(asked(7)), 1);
        assert_eq!(waiters.awaited(), [7].into());
        waiters.inspect(1, |_| panic!("nothing has changed"));
        waiters.answer_starts(|_| readiness(false));
        assert!(answer.try_recv().is_err());
        let mut inspections = 0;
        for changes in [2, 2, 3] {
            waiters.inspect(changes, |_| {
                inspections += 1;
                Ok(asked(8))
            });
        }
        assert_eq!(inspections, 2);
        waiters.answer_starts(|asked| readiness(asked.nsid == Some(8)));
        assert_eq!(answer.try_recv().unwrap(), Ok(readiness(true)));
        assert_eq!(waiters.awaited(), [].into());
    }

    #[test]
    fn only_a_client_that_waits_is_kept_waiting() {
        let mut waiters = Waiters::default();
        let (request, mut at_once) = start(false);
        waiters.add_start(request, Ok(asked(1)), 1);
        let (request, mut refused) = start(true);
        waiters.add_start(request, Err("no namespace".to_owned()), 1);
        let (request, gone) = start(true);
        waiters.add_start(request, Ok(asked(2)), 1);
        drop(gone);
        assert_eq!(waiters.awaited(), [2].into());
        waiters.answer_starts(|_| readiness(false));
        assert_eq!(at_once.try_recv().unwrap(), Ok(readiness(false)));
        let refusal = Err("no namespace".to_owned());
        assert_eq!(refused.try_recv().unwrap(), refusal);
        assert_eq!(waiters.awaited(), [].into());
    }
}
