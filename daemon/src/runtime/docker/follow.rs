//! Following one engine, for as long as the daemon lives.
//!
//! Owns the loop: list, inspect, hand in; list again on events; begin anew when the connection
//! breaks. Started by `netpold` as one task.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::elements::LARGEST;
use super::engine::{Engine, EngineError, Events};
use super::model::{self, wire};
use crate::config::{Docker, Enabled};
use crate::runtime::container::{Attachment, Container, Runtime, Snapshot, State};
use crate::runtime::follow::{self, Desk, Dropped, Follower};
use crate::watch::WatchError;

/// Inspections under way at once.
const INSPECTIONS: usize = 16;

/// Begins to follow the engine. To be called inside a tokio runtime; the task ends when the
/// [`Follower`] and its clones are dropped.
///
/// # Errors
/// The kernel gives no inotify instance.
pub fn follow(settings: &Docker) -> Result<Follower, WatchError> {
    let (desk, follower) = follow::open(Runtime::Docker, settings.enabled, &settings.socket)?;
    if settings.enabled != Enabled::No {
        tokio::spawn(run(desk));
    }
    Ok(follower)
}

async fn run(mut desk: Desk) {
    loop {
        let error = match session(&mut desk).await {
            Ok(Dropped) => return,
            Err(error) => error,
        };
        if desk.lost(&error, error.is_absent()).await.is_err() {
            return;
        }
    }
}

/// One connection: from the first listing to the end of the events.
async fn session(desk: &mut Desk) -> Result<Dropped, EngineError> {
    let engine = Engine::connect(desk.socket()).await?;
    // Events first: what happens while the listing is made is listed again.
    let mut events = engine.events().await?;
    let mut world = World::default();
    world.list(&engine).await?;
    tracing::info!(socket = %desk.socket().display(), containers = world.containers.len(), "following the container engine");
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
        desk.say(Snapshot {
            containers: world.containers.values().cloned().collect(),
            bridges: world.bridges.clone(),
            incomplete: world.is_incomplete(),
            error: world.too_large(),
            ..Snapshot::default()
        });
        tokio::select! {
            event = events.next() => {
                let Some(event) = event? else {
                    return Err(ended(desk.socket()));
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
            asked = desk.asked() => match asked {
                Err(dropped) => return Ok(dropped),
                Ok(()) => {
                    world.doubt_all();
                    world.list(&engine).await?;
                }
            },
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
    /// IDs of those that say too much of themselves to be known.
    too_large: BTreeSet<String>,
    /// Of its networks.
    bridges: BTreeSet<String>,
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
        for id in listed.too_large.difference(&self.too_large) {
            tracing::warn!(
                id,
                "a container says too much of itself to be known: it is on hold"
            );
        }
        self.too_large = listed.too_large;
        self.listed(listed.containers, &networks);
        Ok(())
    }

    fn too_large(&self) -> Option<String> {
        let ids: Vec<&str> = self.too_large.iter().map(String::as_str).collect();
        (!ids.is_empty()).then(|| {
            format!(
                "containers with labels of more than {} KiB, or many large ones, are on hold: {}",
                LARGEST >> 10,
                ids.join(", ")
            )
        })
    }

    fn listed(&mut self, listed: Vec<wire::Summary>, networks: &[wire::Network]) {
        self.bridges = networks.iter().filter_map(model::bridge).collect();
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
            container.cgroup_parent.clone_from(&known.cgroup_parent);
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
