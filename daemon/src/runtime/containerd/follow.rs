//! Following one containerd, for as long as the daemon lives.
//!
//! Owns the loop: list every namespace, hand in; list a namespace again when an event is about
//! it; start over when the connection breaks. Started by `netpold` as one task.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::stream::{self, StreamExt as _};
use tokio::time::{Instant, MissedTickBehavior};

use super::client::{Client, ClientError, LARGEST, Namespace};
use super::model::{self, Hint};
use super::{DOCKERS, wire};
use crate::config::{Containerd, Enabled};
use crate::printable::printable;
use crate::runtime::container::{Container, Runtime, Snapshot, State};
use crate::runtime::follow::{self, Dropped, Follower, Publisher};
use crate::watch::WatchError;

/// Everything is listed again so often, hints or not: should one have been lost, that is what it
/// costs.
const RELIST: Duration = Duration::from_secs(60);
/// After so long containerd surely sends events. It does not say when it begins to: all is listed
/// once more then.
const LISTENING: Duration = Duration::from_secs(1);
/// Questions about single tasks under way at once.
const QUESTIONS: usize = 16;

/// Begins to follow containerd. To be called inside a tokio runtime; the task ends when the
/// [`Follower`] and its clones are dropped.
///
/// # Errors
/// The kernel gives no inotify instance.
pub fn follow(settings: &Containerd) -> Result<Follower, WatchError> {
    let (publisher, follower) =
        follow::open(Runtime::Containerd, settings.enabled, &settings.socket)?;
    if settings.enabled != Enabled::No {
        tokio::spawn(run(publisher, settings.namespaces.clone()));
    }
    Ok(follower)
}

async fn run(mut publisher: Publisher, namespaces: Vec<String>) {
    // It outlives sessions: what containerd does not say is as it was.
    let mut world = World::new(namespaces);
    loop {
        let error = match session(&mut publisher, &mut world).await {
            Ok(Dropped) => return,
            Err(error) => error,
        };
        if publisher.lost(&error, error.is_absent()).await.is_err() {
            return;
        }
    }
}

/// One connection: from the first listing to the end of the events.
async fn session(publisher: &mut Publisher, world: &mut World) -> Result<Dropped, ClientError> {
    let (client, version) = Client::connect(publisher.socket()).await?;
    // Events first: what happens while the listings are made is listed again.
    let mut events = client.events(&model::TOPICS);
    let mut stale = Stale::All;
    let mut relist = tokio::time::interval_at(Instant::now() + LISTENING, RELIST);
    relist.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tracing::info!(socket = %publisher.socket().display(), version = %printable(&version), "following containerd");
    loop {
        match std::mem::take(&mut stale) {
            Stale::All => world.list_all(&client).await?,
            Stale::Namespaces(names) => {
                for name in names {
                    world.list(&client, &name).await?;
                }
            }
        }
        publisher.say(Snapshot {
            containers: world.containers(),
            error: world.too_large(),
            ..Snapshot::default()
        });
        let event = tokio::select! {
            event = events.next() => event?,
            asked = publisher.asked() => match asked {
                Err(dropped) => return Ok(dropped),
                Ok(()) => {
                    stale = Stale::All;
                    continue;
                }
            },
            _ = relist.tick() => {
                stale = Stale::All;
                continue;
            }
        };
        stale.add(event);
        // A burst of events is one listing.
        while let Some(event) = events.next().now_or_never() {
            stale.add(event?);
        }
    }
}

/// What is to be listed again.
#[derive(Debug, PartialEq, Eq)]
enum Stale {
    All,
    Namespaces(BTreeSet<String>),
}

impl Default for Stale {
    fn default() -> Self {
        Self::Namespaces(BTreeSet::new())
    }
}

impl Stale {
    fn add(&mut self, event: wire::Envelope) {
        match (model::hint(event), self) {
            (Hint::Nothing, _) | (_, Self::All) => {}
            (Hint::Namespaces, stale) => *stale = Self::All,
            (Hint::Namespace(name), Self::Namespaces(names)) => {
                names.insert(name);
            }
        }
    }
}

/// What is known.
#[derive(Debug, Default)]
struct World {
    /// Those that are followed; none: all but Docker's.
    wanted: Vec<String>,
    /// Containers by namespace and their ID in it.
    namespaces: BTreeMap<String, BTreeMap<String, Known>>,
    /// Those of each namespace whose labels are too large to be known.
    too_large: BTreeMap<String, BTreeSet<String>>,
}

/// A container, and when it was made: to the nanosecond, as containers that share a network namespace
/// may be of one second.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    container: Container,
    nanos: i32,
}

impl World {
    fn new(wanted: Vec<String>) -> Self {
        Self {
            wanted,
            namespaces: BTreeMap::new(),
            too_large: BTreeMap::new(),
        }
    }

    fn too_large(&self) -> Option<String> {
        let all = self.too_large.iter();
        let ids: Vec<String> = all
            .flat_map(|(namespace, ids)| ids.iter().map(move |id| format!("{namespace}/{id}")))
            .collect();
        (!ids.is_empty()).then(|| {
            format!(
                "containers with labels of more than {} KiB, or many large ones, are on hold: {}",
                LARGEST >> 10,
                printable(&ids.join(", "))
            )
        })
    }

    fn is_followed(&self, namespace: &str) -> bool {
        if self.wanted.is_empty() {
            namespace != DOCKERS
        } else {
            self.wanted.iter().any(|wanted| wanted == namespace)
        }
    }

    /// All of them, the oldest first.
    fn containers(&self) -> Vec<Container> {
        let mut all: Vec<&Known> = self
            .namespaces
            .values()
            .flat_map(BTreeMap::values)
            .collect();
        all.sort_by_key(|known| (known.container.created, known.nanos, &known.container.id));
        all.into_iter()
            .map(|known| known.container.clone())
            .collect()
    }

    async fn list_all(&mut self, client: &Client) -> Result<(), ClientError> {
        let names = client.namespaces().await?;
        self.namespaces.retain(|name, _| names.contains(name));
        self.too_large.retain(|name, _| names.contains(name));
        for name in names {
            self.list(client, &name).await?;
        }
        Ok(())
    }

    async fn list(&mut self, client: &Client, name: &str) -> Result<(), ClientError> {
        if !self.is_followed(name) {
            return Ok(());
        }
        let Some(namespace) = Namespace::new(name) else {
            return Ok(());
        };
        // Containers first: a task without its container could not be matched, and its event
        // lists again.
        let listing = client.containers(&namespace).await?;
        let known = self.too_large.remove(name).unwrap_or_default();
        for id in listing.too_large.difference(&known) {
            tracing::warn!(
                id = %printable(id),
                "the labels of a container are too large to be known: it is on hold"
            );
        }
        if !listing.too_large.is_empty() {
            self.too_large.insert(name.to_owned(), listing.too_large);
        }
        let containers = listing.containers;
        let tasks = client.tasks(&namespace).await?;
        let before = self.namespaces.remove(name).unwrap_or_default();
        let (listed, unsaid) = listed(name, containers, &tasks, before);
        self.namespaces.insert(name.to_owned(), listed);
        let mut answers = stream::iter(unsaid)
            .map(|id| {
                let namespace = &namespace;
                async move { (client.task(namespace, &id).await, id) }
            })
            .buffer_unordered(QUESTIONS);
        let listed = self.namespaces.entry(name.to_owned()).or_default();
        while let Some((answer, id)) = answers.next().await {
            if let Some(known) = listed.get_mut(&id) {
                answered(&mut known.container, answer)?;
            }
        }
        Ok(())
    }
}

/// A namespace's containers, and those whose tasks are to be asked for: a task that is not in
/// the listing has ended, or does not answer. Who has none may be about to get one.
fn listed(
    namespace: &str,
    containers: Vec<wire::Container>,
    tasks: &[wire::Process],
    mut before: BTreeMap<String, Known>,
) -> (BTreeMap<String, Known>, Vec<String>) {
    let tasks: BTreeMap<&str, &wire::Process> = tasks
        .iter()
        .map(|task| (model::container_of(task), task))
        .collect();
    let mut unsaid = Vec::new();
    let listed = containers
        .into_iter()
        .map(|listed| {
            let id = listed.id.clone();
            let nanos = listed
                .created_at
                .as_ref()
                .map_or(0, |created| created.nanos);
            let mut container = model::container(namespace, listed);
            match (tasks.get(id.as_str()), before.remove(&id)) {
                (Some(task), _) => model::with_task(&mut container, task),
                (None, Some(known))
                    if known.container.pid == 0 && !known.container.is_running() => {}
                (None, known) => {
                    // As it was, until there is an answer.
                    container.state = State::Running;
                    if let Some(known) = known {
                        container.state = known.container.state;
                        container.pid = known.container.pid;
                    }
                    unsaid.push(id.clone());
                }
            }
            (id, Known { container, nanos })
        })
        .collect();
    (listed, unsaid)
}

/// What was asked about one task.
fn answered(
    container: &mut Container,
    answer: Result<wire::Process, ClientError>,
) -> Result<(), ClientError> {
    match answer {
        Ok(task) => model::with_task(container, &task),
        Err(error) if error.is_gone() => {
            container.state = State::Created;
            container.pid = 0;
        }
        // One that does not answer must not take the others down with it, and least of all
        // itself out of enforcement.
        Err(error) if error.is_of_the_call() => {
            tracing::warn!(id = %printable(&container.id), %error, "containerd does not say whether a container runs: it is as it was");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
