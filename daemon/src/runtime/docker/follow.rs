//! Following one engine, for as long as the daemon lives.
//!
//! Owns the loop: wait for the socket, list, inspect, publish; list again on events;
//! begin anew when the connection breaks. Started by `netpold` as one task.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};

use super::engine::{Engine, EngineError, Events};
use super::model::{self, wire};
use super::{Attachment, Container, Snapshot, State};
use crate::config::{Docker, Enabled};
use crate::watch::{Wanted, WatchError, Watcher};

/// The first wait after a connection broke, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// Inspections under way at once.
const INSPECTIONS: usize = 16;

/// What is followed. A clone asks and hears on its own.
#[derive(Clone, Debug)]
pub struct Follower {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    ask: mpsc::Sender<oneshot::Sender<()>>,
}

impl Follower {
    /// What the engine says, as of now.
    #[must_use]
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow_and_update())
    }

    /// Returns when the engine says something that [`Follower::snapshot`] has not given yet:
    /// never, where none is to be followed. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        if self.snapshot.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns when the snapshot is at least as new as this call: everything that the engine
    /// had done before it is in it. At once where there is no engine.
    pub async fn sync(&self) {
        let (done, answered) = oneshot::channel();
        if self.ask.send(done).await.is_ok() {
            // An error means that the task has ended: then there is nothing to wait for.
            let _ = answered.await;
        }
    }
}

/// Begins to follow the engine. To be called inside a tokio runtime; the task ends when the
/// [`Follower`] and its receivers are dropped.
///
/// # Errors
/// The kernel gives no inotify instance.
pub fn follow(settings: &Docker) -> Result<Follower, WatchError> {
    let (publish, snapshot) = watch::channel(Arc::new(Snapshot::default()));
    let (ask, asked) = mpsc::channel(8);
    let task = Task {
        settings: settings.clone(),
        watcher: Watcher::new()?,
        publish,
        asked,
        waiting: Vec::new(),
    };
    if settings.enabled != Enabled::No {
        tokio::spawn(task.run());
    }
    Ok(Follower { snapshot, ask })
}

struct Task {
    settings: Docker,
    watcher: Watcher,
    publish: watch::Sender<Arc<Snapshot>>,
    asked: mpsc::Receiver<oneshot::Sender<()>>,
    waiting: Vec<oneshot::Sender<()>>,
}

/// The follower was dropped.
struct Dropped;

impl Task {
    async fn run(mut self) {
        let mut wait = BACKOFF.0;
        loop {
            let error = match self.session(&mut wait).await {
                Ok(Dropped) => return,
                Err(error) => error,
            };
            self.lost(&error);
            if self.pause(&error, wait).await.is_err() {
                return;
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// One connection: from the first listing to the end of the events.
    async fn session(&mut self, wait: &mut Duration) -> Result<Dropped, EngineError> {
        let engine = Engine::connect(&self.settings.socket).await?;
        // Events first: what happens while the listing is made is listed again.
        let mut events = engine.events().await?;
        let mut world = World::default();
        world.list(&engine).await?;
        tracing::info!(socket = %self.settings.socket.display(), containers = world.containers.len(), "following the container engine");
        *wait = BACKOFF.0;
        let mut inspections = FuturesUnordered::new();
        let mut networks = FuturesUnordered::new();
        loop {
            while let Some(question) = world.next_to_meet() {
                let engine = &engine;
                networks.push(async move { (engine.members(&question.network).await, question) });
            }
            while inspections.len() < INSPECTIONS
                && let Some(id) = world.next_to_inspect()
            {
                let engine = &engine;
                inspections.push(async move { (engine.inspect(&id).await, id) });
            }
            self.say(&world);
            tokio::select! {
                event = events.next() => {
                    let Some(event) = event? else {
                        return Err(ended(&self.settings.socket));
                    };
                    if world.take(&event) {
                        // A burst of events is one listing.
                        while let Some(event) = ready(&mut events).await? {
                            world.take(&event);
                        }
                        world.list(&engine).await?;
                    }
                }
                Some((answer, id)) = inspections.next(), if !inspections.is_empty() => {
                    world.inspected(&id, answer)?;
                }
                Some((answer, question)) = networks.next(), if !networks.is_empty() => {
                    world.met(question, answer)?;
                }
                asked = self.asked.recv() => match asked {
                    None => return Ok(Dropped),
                    Some(asked) => {
                        self.waiting.push(asked);
                        world.doubt_all();
                        world.list(&engine).await?;
                    }
                },
            }
        }
    }

    /// Publishes what is new, and answers those who asked.
    fn say(&mut self, world: &World) {
        let incomplete = world.is_incomplete();
        let snapshot = Snapshot {
            containers: world.containers.values().cloned().collect(),
            connected: true,
            incomplete,
            error: None,
        };
        self.put(snapshot);
        if !incomplete {
            self.answer();
        }
    }

    fn lost(&mut self, error: &EngineError) {
        let expected = self.settings.enabled == Enabled::Auto && error.is_absent();
        let old = Arc::clone(&self.publish.borrow());
        if old.connected || (!expected && old.error.is_none()) {
            tracing::warn!(%error, "the container engine is not followed");
        }
        let snapshot = Snapshot {
            containers: old.containers.clone(),
            connected: false,
            incomplete: false,
            error: (!expected).then(|| error.to_string()),
        };
        self.put(snapshot);
        self.answer();
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
            // Whoever asked may have stopped waiting.
            let _ = waiting.send(());
        }
    }

    /// Waits until it makes sense to try again: the socket appears, or, where there is one
    /// that nobody serves, some time has passed.
    async fn pause(&mut self, error: &EngineError, wait: Duration) -> Result<(), Dropped> {
        let mut wanted = Wanted::default();
        let there = wanted.path(&self.settings.socket).is_some();
        let watched = self.watcher.watch(&wanted);
        if let Err(error) = &watched {
            tracing::warn!(%error, "a container engine that starts is noticed late");
        }
        // It may have appeared before it was watched.
        let appeared = !there && self.settings.socket.exists();
        let timed = there || appeared || !error.is_absent() || watched.is_err();
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

fn ended(socket: &Path) -> EngineError {
    EngineError::Connect {
        socket: socket.to_owned(),
        source: std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "the engine has closed the connection",
        ),
    }
}

/// Networks that somebody may be on who starts right now, and joined them before anybody listened.
fn starting(
    containers: &BTreeMap<String, Container>,
    networks: &[wire::Network],
) -> BTreeSet<String> {
    let names: BTreeSet<&str> = containers
        .values()
        .filter(|container| !container.is_running())
        .flat_map(|container| &container.networks)
        .map(|network| network.name.as_str())
        .collect();
    networks
        .iter()
        .filter(|network| names.contains(network.name.as_str()))
        .map(|network| network.id.clone())
        .collect()
}

/// An event that is there already.
async fn ready(events: &mut Events) -> Result<Option<wire::Event>, EngineError> {
    tokio::select! {
        biased;
        event = events.next() => event,
        () = std::future::ready(()) => Ok(None),
    }
}

/// What is known within one session.
#[derive(Debug, Default)]
struct World {
    containers: BTreeMap<String, Container>,
    /// Running, and not inspected since their process may have changed.
    uninspected: BTreeSet<String>,
    /// Being inspected, and whether an event came since: then the answer is not the last word.
    asked: BTreeMap<String, bool>,
    /// Networks that somebody has just joined.
    joined: BTreeSet<String>,
    /// What networks say of containers, by network's name: a listing has it later.
    members: BTreeMap<String, BTreeMap<String, Attachment>>,
    /// How often somebody has left a network, or ended.
    departures: u64,
    /// It was listed before.
    begun: bool,
}

/// Who is on this network? Asked after so many departures.
#[derive(Debug)]
struct Question {
    network: String,
    departures: u64,
}

impl World {
    async fn list(&mut self, engine: &Engine) -> Result<(), EngineError> {
        let listed = engine.containers().await?;
        let networks = engine.networks().await?;
        self.listed(listed, &networks);
        Ok(())
    }

    fn listed(&mut self, listed: Vec<wire::Summary>, networks: &[wire::Network]) {
        let mut containers = model::containers(listed, networks);
        for (id, container) in &mut containers {
            if !container.is_running() {
                self.uninspected.remove(id);
                continue;
            }
            let known = self.containers.get(id).filter(|known| known.pid != 0);
            let Some(known) = known else {
                self.uninspected.insert(id.clone());
                continue;
            };
            container.pid = known.pid;
            // Addresses that an inspection found before the listing has them.
            for (new, old) in container.networks.iter_mut().zip(&known.networks) {
                if new.name == old.name {
                    new.mac = new.mac.or(old.mac);
                    new.ipv4 = new.ipv4.or(old.ipv4);
                    new.ipv6 = new.ipv6.or(old.ipv6);
                }
            }
        }
        if !self.begun {
            self.begun = true;
            self.joined = starting(&containers, networks);
        }
        self.uninspected.retain(|id| containers.contains_key(id));
        self.members.retain(|id, _| containers.contains_key(id));
        self.containers = containers;
        self.fill();
    }

    /// Adds what networks say to what the listing does not.
    fn fill(&mut self) {
        for (id, members) in &self.members {
            if let Some(container) = self.containers.get_mut(id) {
                model::fill(container, members);
                // Whoever has ended, and is on a network, is being started again.
                if container.state == State::Ended && !members.is_empty() {
                    container.state = State::Created;
                }
            }
        }
    }

    fn next_to_meet(&mut self) -> Option<Question> {
        Some(Question {
            network: self.joined.pop_first()?,
            departures: self.departures,
        })
    }

    /// A network has named its members.
    fn met(
        &mut self,
        question: Question,
        answer: Result<wire::Members, EngineError>,
    ) -> Result<(), EngineError> {
        match answer {
            // Somebody left since: who is named may be the one.
            Ok(_) if question.departures != self.departures => {
                self.joined.insert(question.network);
            }
            Ok(network) => {
                for (id, member) in &network.containers {
                    let member = model::member(&network.name, member);
                    let known = self.members.entry(id.clone()).or_default();
                    known.insert(network.name.clone(), member);
                }
                self.fill();
            }
            // The start of the container tells the same a little later.
            Err(
                EngineError::Late { .. } | EngineError::Answer { .. } | EngineError::Refused { .. },
            ) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes an event in. True: it is a reason to list again.
    fn take(&mut self, event: &wire::Event) -> bool {
        if model::is_noise(event) {
            return false;
        }
        self.joined
            .extend(model::joined(event).map(ToOwned::to_owned));
        if let Some(id) = model::subject(event) {
            if event.action == "disconnect" || matches!(event.action.as_str(), "die" | "died") {
                self.members.remove(id);
                self.departures += 1;
            }
            if model::ends_process(event)
                && let Some(container) = self.containers.get_mut(id)
            {
                container.pid = 0;
                container.state = match event.action.as_str() {
                    "start" | "restart" => container.state,
                    _ => State::Ended,
                };
            }
            self.doubt(id.to_owned());
        }
        true
    }

    /// What is known of a container's process may be old.
    fn doubt(&mut self, id: String) {
        if let Some(doubted) = self.asked.get_mut(&id) {
            *doubted = true;
        }
        self.uninspected.insert(id);
    }

    fn doubt_all(&mut self) {
        let running = self
            .containers
            .values()
            .filter(|container| container.is_running());
        for id in running
            .map(|container| container.id.clone())
            .collect::<Vec<_>>()
        {
            self.doubt(id);
        }
    }

    fn next_to_inspect(&mut self) -> Option<String> {
        let id = self
            .uninspected
            .iter()
            .find(|id| !self.asked.contains_key(*id))?
            .clone();
        self.asked.insert(id.clone(), false);
        Some(id)
    }

    fn inspected(
        &mut self,
        id: &str,
        answer: Result<wire::Inspection, EngineError>,
    ) -> Result<(), EngineError> {
        let doubted = self.asked.remove(id).unwrap_or(false);
        match answer {
            Ok(inspection) => {
                // It has ended since it was asked about: the answer is of before.
                let stale = doubted && !self.uninspected.contains(id);
                if let Some(container) = self.containers.get_mut(id).filter(|_| !stale) {
                    model::inspected(container, &inspection);
                }
                if !doubted {
                    self.uninspected.remove(id);
                }
            }
            Err(error) if error.is_gone() => {
                self.uninspected.remove(id);
                self.containers.remove(id);
            }
            // One container that does not answer must not take the others down with it; its
            // next event asks again.
            Err(
                EngineError::Late { .. } | EngineError::Answer { .. } | EngineError::Refused { .. },
            ) => {
                tracing::warn!(id, "the engine does not describe a container");
                self.uninspected.remove(id);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn is_incomplete(&self) -> bool {
        !self.uninspected.is_empty()
    }
}

#[cfg(any(test, fuzzing))]
pub mod stream;
#[cfg(test)]
mod tests;
