//! A [`Store`] on a thread of its own.
//!
//! What is in the manifests directory decides how long a look at it takes; a network's file system
//! may not answer at all. The reconcile loop takes what the last look gave, and goes on. Owned by
//! the loop's sources.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::runtime;
use tokio::sync::{mpsc, oneshot, watch};

use super::{Parse, Store, StoreView, rule, scan, warning};
use crate::watch::WatchError;

/// How long a look may take before it is said that there is no answer.
const LATE: Duration = scan::Bounds::DEFAULT.time.saturating_mul(2);

/// The thread has ended, which it does not do by itself.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the reader of the manifests has ended")]
pub struct Ended;

/// The thread's other end.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    orders: mpsc::UnboundedSender<oneshot::Sender<()>>,
    views: watch::Receiver<Arc<StoreView>>,
    /// Since when a look is under way.
    begun: watch::Receiver<Option<Instant>>,
    /// It was said that it takes long.
    is_late: bool,
}

impl Reader {
    /// Starts the thread, and waits for its first look at the directory, but not for long. The
    /// arguments are those of [`Store::open`].
    ///
    /// # Errors
    /// The kernel gives no inotify instance, or no thread.
    pub fn spawn(
        directory: PathBuf,
        follow: Vec<PathBuf>,
        state: PathBuf,
        parse: Parse,
    ) -> Result<Self, WatchError> {
        let (orders, inbox) = mpsc::unbounded_channel();
        let (outbox, views) = watch::channel(Arc::<StoreView>::default());
        let (begin, begun) = watch::channel(None);
        let (opened, first) = channel();
        let shown = directory.clone();
        thread::Builder::new()
            .name("manifests".to_owned())
            .spawn(move || {
                let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _ = opened.send(Err(WatchError::Instance(error)));
                        return;
                    }
                };
                runtime.block_on(async move {
                    let mut store = match Store::open(&directory, &follow, &state, parse) {
                        Ok(store) => store,
                        Err(error) => {
                            let _ = opened.send(Err(error));
                            return;
                        }
                    };
                    outbox.send_replace(store.view());
                    // What was in force before: the first look follows.
                    let _ = opened.send(Ok(()));
                    let look = |store: &mut Store| {
                        begin.send_replace(Some(Instant::now()));
                        let view = store.reload();
                        begin.send_replace(None);
                        outbox.send_if_modified(|known| {
                            let is_new = **known != *view;
                            if is_new {
                                *known = view;
                            }
                            is_new
                        });
                    };
                    look(&mut store);
                    let _ = opened.send(Ok(()));
                    work(store, inbox, look).await;
                });
            })
            .map_err(WatchError::Instance)?;
        let gone = || WatchError::Instance(std::io::Error::other(Ended));
        first.recv().map_err(|_| gone())??;
        match first.recv_timeout(LATE) {
            Ok(looked) => looked?,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(gone()),
        }
        Ok(Self {
            directory: shown,
            orders,
            views,
            begun,
            is_late: false,
        })
    }

    /// What is in force, as of the last look that is complete.
    pub fn view(&mut self) -> Arc<StoreView> {
        let view = Arc::clone(&self.views.borrow_and_update());
        if !self.is_late {
            return view;
        }
        let mut late = StoreView::clone(&view);
        late.settled = false;
        late.warnings.push(warning(
            &self.directory,
            rule::UNREADABLE,
            &format!(
                "a look at it takes longer than {LATE:?}: what was in force stays until it is done"
            ),
        ));
        Arc::new(late)
    }

    /// Has it look now. The receiver gets its answer, or an error, when a look that began after
    /// this is complete.
    pub fn look(&self) -> oneshot::Receiver<()> {
        let (reply, done) = oneshot::channel();
        // Where the thread has ended the reply is dropped, and `changed` tells.
        let _ = self.orders.send(reply);
        done
    }

    /// Returns when there is something new to [`Reader::view`]. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// There will be nothing new.
    pub async fn changed(&mut self) -> Result<(), Ended> {
        let begun = *self.begun.borrow();
        let is_late = begun.is_some_and(|begun| begun.elapsed() >= LATE);
        if is_late != self.is_late {
            self.is_late = is_late;
            return Ok(());
        }
        // The loop asks again every few seconds: a look that begins later is seen then.
        let late = async {
            match begun.filter(|_| !is_late) {
                Some(begun) => tokio::time::sleep_until((begun + LATE).into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.views.changed() => changed.map_err(|_| Ended),
            () = late => Ok(()),
        }
    }
}

async fn work(
    mut store: Store,
    mut inbox: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    mut look: impl FnMut(&mut Store),
) {
    loop {
        let mut asked = Vec::new();
        tokio::select! {
            () = store.changed() => {}
            order = inbox.recv() => match order {
                Some(reply) => asked.push(reply),
                None => return,
            },
        }
        while let Ok(reply) = inbox.try_recv() {
            asked.push(reply);
        }
        look(&mut store);
        for reply in asked {
            // The client may have gone.
            let _ = reply.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use netpol_engine::manifest::{self, File};

    use super::*;

    /// While it is set, no file is read to its end.
    static HELD: AtomicBool = AtomicBool::new(false);

    fn slow(path: &str, text: &str) -> File {
        while text.contains("slow") && HELD.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        manifest::parse(path, text)
    }

    const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n";

    /// However long a look takes, the loop that takes its results goes on.
    #[tokio::test]
    async fn a_look_that_takes_long_keeps_no_one_waiting() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("m")).unwrap();
        std::fs::write(at("m/a.yaml"), NAMESPACE).unwrap();
        let mut reader = Reader::spawn(at("m"), Vec::new(), at("s"), slow).unwrap();
        let first = reader.view();
        assert_eq!(first.accepted.len(), 1);
        HELD.store(true, Ordering::SeqCst);
        std::fs::write(
            at("m/b.yaml"),
            format!("# slow\n{}", NAMESPACE.replace("a}", "b}")),
        )
        .unwrap();
        let mut looked = reader.look();
        let beats = async {
            for _ in 0..20 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = beats => {}
            done = &mut looked => panic!("{done:?}"),
        }
        assert_eq!(reader.view().accepted.len(), 1);
        HELD.store(false, Ordering::SeqCst);
        looked.await.unwrap();
        while reader.view().accepted.len() < 2 {
            let change = tokio::time::timeout(Duration::from_secs(10), reader.changed());
            change.await.unwrap().unwrap();
        }
        // Nothing new: no news.
        reader.look().await.unwrap();
        let _ = reader.view();
        reader.look().await.unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(100), reader.changed());
        assert!(quiet.await.is_err());
    }
}
