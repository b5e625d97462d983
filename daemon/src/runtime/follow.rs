//! Following a runtime, for as long as the daemon lives: what all runtimes have in common.
//!
//! ```text
//!  a runtime's task ──▶ Publisher ──▶ Follower ──▶ reconcile
//!                        ▲ asked to be up to date ┘
//!                        ▲ open questions ────────┘
//! ```
//!
//! Owns what is published and to which listener, which clients wait, what the kernel shows and the runtime has not
//! explained, and when a lost connection is tried again. Knows nothing of what is spoken on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::container::{Runtime, Snapshot};
use crate::config::Enabled;
use crate::watch::{Wanted, WatchError, Watcher};

/// The first wait after a connection broke, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What the kernel shows and the runtime's answers do not explain. A runtime announces a change before it has saved
/// it, so no answer is final because an event came before it: the runtime is asked until nothing is left open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenQuestions {
    /// By container's ID: addresses that the runtime and the kernel do not agree about.
    pub containers: BTreeMap<String, BTreeSet<IpAddr>>,
    /// By bridge: interfaces on it that belong to no container.
    pub bridges: BTreeMap<String, BTreeSet<u32>>,
}

/// What is followed. A clone asks and hears on its own.
#[derive(Clone, Debug)]
pub struct Follower {
    pub(super) snapshot: watch::Receiver<Arc<Snapshot>>,
    ask: mpsc::Sender<oneshot::Sender<()>>,
    questions: watch::Sender<OpenQuestions>,
}

impl Follower {
    /// What the runtime says, as of now.
    #[must_use]
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow_and_update())
    }

    /// Returns when the runtime says something that [`Follower::snapshot`] has not given yet:
    /// never, where none is to be followed. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        if self.snapshot.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Says what the runtime's answers do not explain; in the place of what was said before.
    pub fn question(&self, questions: OpenQuestions) {
        self.questions.send_if_modified(|known| {
            let is_new = *known != questions;
            if is_new {
                *known = questions;
            }
            is_new
        });
    }

    /// Returns when the snapshot is at least as new as this call: everything that the runtime
    /// had done before it is in it. At once where there is no runtime.
    pub async fn sync(&self) {
        let (done, answered) = oneshot::channel();
        if self.ask.send(done).await.is_ok() {
            // An error means that the task has ended: then there is nothing to wait for.
            let _ = answered.await;
        }
    }
}

/// What a follower asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Everything is to be listed again.
    ListAgain,
    /// Other questions are open.
    Questions,
}

/// The follower was dropped.
pub(super) struct Dropped;

/// Where a runtime's task hands in what it hears. Dropping it ends the following.
pub(super) struct Publisher {
    runtime: Runtime,
    enabled: Enabled,
    socket: PathBuf,
    watcher: Watcher,
    publish: watch::Sender<Arc<Snapshot>>,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
    questions: watch::Receiver<OpenQuestions>,
    waiting: Vec<oneshot::Sender<()>>,
    wait: Duration,
}

/// A publisher, and the follower that hears of what is handed in there.
///
/// # Errors
/// The kernel gives no inotify instance.
pub(super) fn open(
    runtime: Runtime,
    enabled: Enabled,
    socket: &Path,
) -> Result<(Publisher, Follower), WatchError> {
    let (publish, snapshot) = watch::channel(Arc::new(Snapshot::default()));
    let (ask, asked) = mpsc::channel(8);
    let (questions, questioned) = watch::channel(OpenQuestions::default());
    let publisher = Publisher {
        runtime,
        enabled,
        socket: socket.to_owned(),
        watcher: Watcher::new()?,
        publish,
        asked,
        questions: questioned,
        waiting: Vec::new(),
        wait: BACKOFF.0,
    };
    let follower = Follower {
        snapshot,
        ask,
        questions,
    };
    Ok((publisher, follower))
}

impl Publisher {
    /// The runtime's socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns when a client asks for all to be listed again. Dropping the future loses nothing.
    pub(super) async fn asked(&mut self) -> Result<(), Dropped> {
        let asked = self.asked.recv().await.ok_or(Dropped)?;
        self.waiting.push(asked);
        Ok(())
    }

    /// What is open now.
    pub(super) fn questions(&mut self) -> OpenQuestions {
        self.questions.borrow_and_update().clone()
    }

    /// Returns when a client asks for all to be listed again, or other questions are open than
    /// [`Publisher::questions`] has given. Dropping the future loses nothing.
    pub(super) async fn request(&mut self) -> Result<Request, Dropped> {
        tokio::select! {
            asked = self.asked.recv() => {
                self.waiting.push(asked.ok_or(Dropped)?);
                Ok(Request::ListAgain)
            }
            changed = self.questions.changed() => {
                changed.map_err(|_| Dropped)?;
                Ok(Request::Questions)
            }
        }
    }

    /// Publishes what the runtime says, and answers the clients, once nothing is missing.
    pub(super) fn say(&mut self, said: Snapshot) {
        let incomplete = said.incomplete;
        self.say_meanwhile(said);
        if !incomplete {
            self.answer();
        }
    }

    /// Publishes what the runtime says, while more has been asked.
    pub(super) fn say_meanwhile(&mut self, said: Snapshot) {
        self.wait = BACKOFF.0;
        self.put(Snapshot {
            connected: true,
            ..said
        });
    }

    /// Says that the runtime does not answer, and returns when it makes sense to try again.
    /// `absent`: there is no socket at all.
    pub(super) async fn lost(&mut self, error: &impl Display, absent: bool) -> Result<(), Dropped> {
        let expected = self.enabled == Enabled::Auto && absent;
        let old = Arc::clone(&self.publish.borrow());
        if old.connected || (!expected && old.error.is_none()) {
            tracing::warn!(%error, "{} at {} is not followed", self.runtime.name(), self.socket.display());
        }
        self.put(Snapshot {
            containers: old.containers.clone(),
            bridges: old.bridges.clone(),
            ingress: old.ingress.clone(),
            connected: false,
            incomplete: false,
            error: (!expected).then(|| error.to_string()),
        });
        self.answer();
        let wait = self.wait;
        self.wait = (wait * 2).min(BACKOFF.1);
        self.pause(absent, wait).await
    }

    fn put(&self, snapshot: Snapshot) {
        self.publish.send_if_modified(|known| {
            let new = **known != snapshot;
            if new {
                *known = Arc::new(snapshot);
            }
            new
        });
    }

    fn answer(&mut self) {
        for waiting in self.waiting.drain(..) {
            // The client may have stopped waiting.
            let _ = waiting.send(());
        }
    }

    /// Waits until the socket appears, or, where there is a socket that no process serves, some time has
    /// passed.
    async fn pause(&mut self, absent: bool, wait: Duration) -> Result<(), Dropped> {
        let mut wanted = Wanted::default();
        let there = wanted.path(&self.socket).is_some();
        let watched = self.watcher.watch(&wanted);
        if let Err(error) = &watched {
            tracing::warn!(%error, "{} is noticed late when it starts", self.runtime.name());
        }
        // It may have appeared before it was watched.
        let appeared = !there && self.socket.exists();
        let timed = there || appeared || !absent || watched.is_err();
        let timer = async {
            if timed {
                tokio::time::sleep(wait).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(timer);
        loop {
            tokio::select! {
                () = &mut timer => return Ok(()),
                hint = self.watcher.changed() => {
                    if hint.is_ok() {
                        return Ok(());
                    }
                    tokio::time::sleep(BACKOFF.1).await;
                    return Ok(());
                }
                asked = self.asked.recv() => match asked {
                    None => return Err(Dropped),
                    // There is nothing newer to be had.
                    Some(asked) => { let _ = asked.send(()); }
                },
            }
        }
    }
}
