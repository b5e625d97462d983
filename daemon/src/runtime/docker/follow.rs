//! Following one engine, for as long as the daemon lives.
//!
//! Owns the loop: list, inspect, hand in; ask again on events, and where the kernel shows what no answer explains; begin
//! again when the connection breaks. Started by `netpold` as one task.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::dns;
use super::elements::LARGEST;
use super::engine::{Engine, EngineError, Events, Listing};
use super::recheck::Rechecks;
use super::{model, wire};
use crate::config::Enabled;
use crate::runtime::container::{Attachment, Container, Runtime, Snapshot, State};
use crate::runtime::follow::{self, Dropped, Follower, OpenQuestions, Publisher, Request};
use crate::watch::WatchError;

/// An engine may save what happened after it has told of it. What the kernel shows is asked about until it is
/// explained; what it does not show (a name, a container that is gone) is looked at once more after this.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Inspections under way at once.
const INSPECTIONS: usize = 16;

/// Begins to follow the engine. To be called inside a tokio runtime; the task ends when the
/// [`Follower`] and its clones are dropped.
///
/// # Errors
/// The kernel gives no inotify instance.
///
/// `others`: sockets that are followed already. A name that leads to one of them (`podman-docker` makes
/// `/run/docker.sock` one of Podman's) is no other engine.
pub fn follow(enabled: Enabled, socket: &Path, others: &[PathBuf]) -> Result<Follower, WatchError> {
    let (publisher, follower) = follow::open(Runtime::Docker, enabled, socket)?;
    if enabled != Enabled::No {
        tokio::spawn(run(publisher, others.to_vec()));
    }
    Ok(follower)
}

async fn run(mut publisher: Publisher, others: Vec<PathBuf>) {
    loop {
        let error = match same(publisher.socket(), &others) {
            Some(other) => EngineError::Followed(other.to_owned()),
            None => match session(&mut publisher).await {
                Ok(Dropped) => return,
                Err(error) => error,
            },
        };
        if publisher.lost(&error, error.is_absent()).await.is_err() {
            return;
        }
    }
}

/// The one of these sockets that this name leads to, too.
pub fn same<'a>(socket: &Path, others: &'a [PathBuf]) -> Option<&'a Path> {
    let identity = |path: &Path| {
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    };
    let own = identity(socket)?;
    let mut others = others.iter().map(PathBuf::as_path);
    others.find(|other| identity(other) == Some(own))
}

/// One connection: from the first listing to the end of the events.
async fn session(publisher: &mut Publisher) -> Result<Dropped, EngineError> {
    let engine = Engine::connect(publisher.socket()).await?;
    // Events first: what happens while the listing is made is listed again.
    let mut events = engine.events().await?;
    let mut world = World {
        api: engine.api(),
        ..World::default()
    };
    world.take_listing(list(&engine).await?);
    tracing::info!(socket = %publisher.socket().display(), containers = world.containers.len(), "following the container engine");
    let mut listings = FuturesUnordered::new();
    let mut inspections = FuturesUnordered::new();
    let mut networks = FuturesUnordered::new();
    world.question(publisher.questions(), Instant::now());
    let mut has_news = true;
    loop {
        world.recheck(Instant::now());
        // None waits for another one: an engine may take a second for each answer.
        if world.is_stale && listings.is_empty() {
            world.is_stale = false;
            listings.push(list(&engine));
        }
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
        if std::mem::take(&mut has_news) {
            let snapshot = Snapshot {
                containers: world.known(),
                bridges: world.bridges(),
                ingress: world.ingress(),
                incomplete: world.is_incomplete(),
                error: world.too_large(),
                ..Snapshot::default()
            };
            if listings.is_empty() {
                publisher.say(snapshot);
            } else {
                publisher.say_meanwhile(snapshot);
            }
        }
        let next = world.next_recheck();
        let recheck = async {
            match next {
                Some(time) => tokio::time::sleep_until(time.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.next() => {
                let Some(event) = event? else {
                    return Err(ended(publisher.socket()));
                };
                world.take(&event, Instant::now());
                // A burst of events is one listing.
                while let Some(event) = ready(&mut events).await? {
                    world.take(&event, Instant::now());
                }
            }
            Some(listing) = listings.next(), if !listings.is_empty() => {
                world.take_listing(listing?);
                has_news = true;
            }
            Some((answer, id)) = inspections.next(), if !inspections.is_empty() => {
                world.inspected(&id, answer)?;
                has_news = true;
            }
            Some((answer, question)) = networks.next(), if !networks.is_empty() => {
                world.met(question, answer)?;
                has_news = true;
            }
            () = recheck => {}
            request = publisher.request() => match request {
                Err(dropped) => return Ok(dropped),
                Ok(Request::ListAgain) => world.mark_all_stale(),
                Ok(Request::Questions) => world.question(publisher.questions(), Instant::now()),
            },
        }
    }
}

/// Every container, and every network.
async fn list(engine: &Engine) -> Result<(Listing, Vec<wire::Network>), EngineError> {
    tokio::try_join!(engine.containers(), engine.networks())
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

/// Networks that a starting container may have joined before netpold listened.
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
    /// The version of the engine's API.
    api: Option<(u32, u32)>,
    /// As the answers about each of them say, without what networks add.
    containers: BTreeMap<String, Container>,
    networks: Vec<wire::Network>,
    /// IDs of those that say too much of themselves to be known.
    too_large: BTreeSet<String>,
    /// Something happened since the last listing was asked for.
    is_stale: bool,
    /// Running, and not inspected since their process may have changed.
    uninspected: BTreeSet<String>,
    /// Those of them of which an event says that they have started, whatever a listing says.
    started: BTreeSet<String>,
    /// Being inspected, and whether an event came since: then the answer is not the last word.
    asked: BTreeMap<String, bool>,
    /// The engine did not describe them when it was asked last.
    undescribed: BTreeSet<String>,
    /// Networks that a container may have joined.
    joined: BTreeSet<String>,
    /// Networks that are being asked.
    meeting: BTreeSet<String>,
    /// What networks say of containers, by network's name.
    members: BTreeMap<String, BTreeMap<String, Attachment>>,
    /// Steps of builds, by ID: by network, what that says of them, and when it was asked.
    builds: BTreeMap<String, BTreeMap<String, (Attachment, Instant)>>,
    /// What the network [`model::GATEWAY`] says of the interface that a swarm's published ports come in by, and when it
    /// was asked.
    ingress: Option<(Attachment, Instant)>,
    /// That network has not named its members yet since it may have got others.
    gateway_due: bool,
    /// How often a container has left a network, or ended.
    departures: u64,
    /// Which of those was a container's last, while a network is asked.
    departed: BTreeMap<String, u64>,
    /// Containers that the kernel shows otherwise than they are known here.
    disputed: Rechecks<String, (BTreeSet<IpAddr>, bool)>,
    /// What the kernel shows of them.
    shown: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Bridges with interfaces of which it is not known whose they are.
    unknown: Rechecks<String, BTreeSet<u32>>,
    /// When containers that something happened to are looked at once more; empty: only the listing.
    second_looks: BTreeMap<String, Instant>,
    /// It was listed before.
    begun: bool,
}

/// Which containers are on this network? Asked after so many departures.
#[derive(Debug)]
struct Question {
    network: String,
    departures: u64,
    asked: Instant,
}

impl World {
    fn take_listing(&mut self, (listed, networks): (Listing, Vec<wire::Network>)) {
        for id in listed.too_large.difference(&self.too_large) {
            tracing::warn!(
                id,
                "a container says too much of itself to be known: it is on hold"
            );
        }
        self.too_large = listed.too_large;
        self.listed(listed.containers, networks);
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

    fn bridges(&self) -> BTreeSet<String> {
        self.networks.iter().filter_map(model::bridge).collect()
    }

    fn gateway(&self) -> Option<&wire::Network> {
        let mut networks = self.networks.iter();
        networks.find(|network| network.name == model::GATEWAY)
    }

    /// Has the network asked on which only its own listing names containers: neither an event nor what the engine
    /// says of a container does.
    fn ask_gateway(&mut self) {
        if let Some(id) = self.gateway().map(|network| network.id.clone()) {
            self.joined.insert(id);
            self.gateway_due = true;
        }
    }

    fn ingress(&self) -> Option<(Attachment, Instant)> {
        let (mut attachment, asked) = self.ingress.clone()?;
        attachment.bridge = self.gateway().and_then(model::bridge);
        Some((attachment, asked))
    }

    /// The containers, with what networks say of them.
    fn known(&self) -> Vec<Container> {
        let filled = self.containers.iter().map(|(id, container)| {
            let mut container = container.clone();
            if let Some(members) = self.members.get(id) {
                model::fill(&mut container, members);
                // A container that has ended, and is on a network, is being started again.
                if container.state == State::Ended && !members.is_empty() {
                    container.state = State::Created;
                }
            }
            model::resolve(&mut container, &self.networks);
            if !container.is_running() && container.dns.servers.is_empty() {
                container.dns.asked_from = dns::before_start(&container, self.api);
            }
            container
        });
        let builds = self.builds.iter().filter_map(|(id, networks)| {
            let asked = networks.values().map(|(_, asked)| *asked).min()?;
            let networks = networks.values().map(|(network, _)| network.clone());
            let mut build = model::build(id, networks.collect(), asked);
            model::resolve(&mut build, &self.networks);
            Some(build)
        });
        filled.chain(builds).collect()
    }

    fn listed(&mut self, listed: Vec<wire::Summary>, networks: Vec<wire::Network>) {
        let mut containers = model::containers(listed, &networks);
        for (id, container) in &mut containers {
            // No listing tells.
            match self.containers.get(id) {
                Some(known) => {
                    container.dns.clone_from(&known.dns);
                    if known.pid == 0 {
                        // What it was to publish: the listing may be older than its start.
                        container.published.extend(&known.published);
                    }
                }
                None => container.dns = dns::before_inspection(),
            }
            let known = self.containers.get(id).filter(|known| known.pid != 0);
            let Some(known) = known else {
                if container.is_running() {
                    self.uninspected.insert(id.clone());
                } else if !self.started.contains(id) {
                    self.uninspected.remove(id);
                }
                continue;
            };
            // A listing tells what was saved of a container, which may be older than its inspection.
            if !container.is_running() {
                container.state = known.state;
                self.uninspected.insert(id.clone());
            }
            container.pid = known.pid;
            container.cgroup_parent.clone_from(&known.cgroup_parent);
            container.name.clone_from(&known.name);
            container.networks.clone_from(&known.networks);
            container.published.clone_from(&known.published);
        }
        let is_first = !std::mem::replace(&mut self.begun, true);
        if is_first {
            self.joined = starting(&containers, &networks);
        }
        self.uninspected.retain(|id| containers.contains_key(id));
        self.started.retain(|id| containers.contains_key(id));
        self.undescribed.retain(|id| containers.contains_key(id));
        // Not `members`: a network may know a container that the listing does not have yet, and drops it itself.
        self.containers = containers;
        let had_gateway = self.gateway().is_some();
        self.networks = networks;
        if self.gateway().is_none() {
            self.gateway_due = false;
            self.ingress = None;
        } else if is_first || !had_gateway {
            self.ask_gateway();
        }
    }

    fn next_to_meet(&mut self) -> Option<Question> {
        let network = self
            .joined
            .iter()
            .find(|network| !self.meeting.contains(*network))?
            .clone();
        self.joined.remove(&network);
        self.meeting.insert(network.clone());
        Some(Question {
            network,
            departures: self.departures,
            asked: Instant::now(),
        })
    }

    /// A network has named its members.
    fn met(
        &mut self,
        question: Question,
        answer: Result<wire::Members, EngineError>,
    ) -> Result<(), EngineError> {
        self.meeting.remove(&question.network);
        let of_gateway = self.gateway().map(|network| &network.id);
        self.gateway_due &= of_gateway != Some(&question.network);
        match answer {
            Ok(network) => {
                if network.name == model::GATEWAY {
                    let mut members = network.containers.iter();
                    let ingress = members.find(|(id, _)| model::is_ingress(id));
                    self.ingress = ingress
                        .map(|(_, member)| (model::member(&network.name, member), question.asked));
                }
                // A container that left since may be named for it, and may have come back.
                let has_left = |id: &String| {
                    let departure = self.departed.get(id);
                    departure.is_some_and(|departure| *departure > question.departures)
                };
                if network.containers.keys().any(has_left) {
                    self.joined.insert(question.network);
                }
                for (id, known) in &mut self.members {
                    if !network.containers.contains_key(id) {
                        known.remove(&network.name);
                    }
                }
                for (id, member) in &network.containers {
                    let departure = self.departed.get(id);
                    if departure.is_some_and(|departure| *departure > question.departures) {
                        continue;
                    }
                    let member = model::member(&network.name, member);
                    let known = self.members.entry(id.clone()).or_default();
                    known.insert(network.name.clone(), member);
                }
                self.members.retain(|_, networks| !networks.is_empty());
                for known in self.builds.values_mut() {
                    known.remove(&network.name);
                }
                let builds = network.containers.iter();
                for (id, member) in builds.filter(|(id, _)| model::is_build(id)) {
                    let member = model::member(&network.name, member);
                    let known = self.builds.entry(id.clone()).or_default();
                    known.insert(network.name.clone(), (member, question.asked));
                }
                self.builds.retain(|_, networks| !networks.is_empty());
            }
            // The start of the container tells the same a little later.
            Err(
                EngineError::Late { .. } | EngineError::Answer { .. } | EngineError::Refused { .. },
            ) => {}
            Err(error) => return Err(error),
        }
        if self.meeting.is_empty() {
            self.departed.clear();
        }
        Ok(())
    }

    /// Takes an event in.
    fn take(&mut self, event: &wire::Event, now: Instant) {
        if model::is_noise(event) {
            return;
        }
        self.is_stale = true;
        let id = model::subject(event).unwrap_or_default();
        self.second_looks.insert(id.to_owned(), now + SECOND_LOOK);
        self.joined
            .extend(model::joined(event).map(ToOwned::to_owned));
        if self.may_change_gateway(event) {
            self.ask_gateway();
        }
        if let Some(id) = model::subject(event) {
            if event.action == "disconnect" || matches!(event.action.as_str(), "die" | "died") {
                // On that one it stays, while it is on another network that needs it.
                let said = self.members.remove(id).into_iter().flatten();
                let said = said.filter(|(name, _)| name == model::GATEWAY);
                let stays: BTreeMap<_, _> = said.filter(|_| event.kind == "network").collect();
                if !stays.is_empty() {
                    self.members.insert(id.to_owned(), stays);
                }
                self.departures += 1;
                self.departed.insert(id.to_owned(), self.departures);
            }
            if model::ends_process(event) {
                let starts = matches!(event.action.as_str(), "start" | "restart");
                if starts {
                    self.started.insert(id.to_owned());
                } else {
                    self.started.remove(id);
                }
                if let Some(container) = self.containers.get_mut(id) {
                    container.pid = 0;
                    if !starts {
                        container.state = State::Ended;
                    }
                }
            }
            self.disputed.hurry(&id.to_owned(), now);
            self.doubt(id.to_owned());
        }
    }

    /// Has a container joined or left a network beside which the engine adds it to [`model::GATEWAY`]?
    fn may_change_gateway(&self, event: &wire::Event) -> bool {
        let mut networks = self.networks.iter();
        let network = networks.find(|network| network.id == event.actor.id);
        event.kind == "network"
            && matches!(event.action.as_str(), "connect" | "disconnect")
            && network.is_none_or(|network| network.driver != "bridge")
    }

    /// What is known of a container's process may be old.
    fn doubt(&mut self, id: String) {
        if let Some(doubted) = self.asked.get_mut(&id) {
            *doubted = true;
        }
        self.uninspected.insert(id);
    }

    fn mark_all_stale(&mut self) {
        self.is_stale = true;
        self.ask_gateway();
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

    /// Takes in what the kernel shows, and the answers so far do not explain.
    fn question(&mut self, questions: OpenQuestions, now: Instant) {
        self.shown = questions.containers;
        self.dispute(now);
        self.unknown.open(questions.bridges, now);
    }

    fn dispute(&mut self, now: Instant) {
        let ids = self.shown.keys().chain(&self.undescribed);
        let subjects = ids.map(|id| {
            let shown = self.shown.get(id).cloned().unwrap_or_default();
            (id.clone(), (shown, self.undescribed.contains(id)))
        });
        let subjects = subjects.collect();
        self.disputed.open(subjects, now);
    }

    /// When it is time to [`World::recheck`].
    fn next_recheck(&self) -> Option<Instant> {
        let second = self.second_looks.values().min().copied();
        let next = [self.disputed.next(), self.unknown.next(), second];
        next.into_iter().flatten().min()
    }

    /// Asks again where it is time.
    fn recheck(&mut self, now: Instant) {
        let looks = std::mem::take(&mut self.second_looks);
        for (id, time) in looks {
            if time > now {
                self.second_looks.insert(id, time);
                continue;
            }
            self.is_stale = true;
            let known = self.containers.get(&id);
            if known.is_some_and(Container::is_running) {
                self.doubt(id);
            }
        }
        for id in self.disputed.due(now) {
            let Some(container) = self.containers.get(&id) else {
                // It may be older than its first listing.
                self.is_stale = true;
                continue;
            };
            let said = self.members.get(&id).into_iter().flat_map(BTreeMap::keys);
            let of_container = container.networks.iter().map(|network| &network.name);
            let names: BTreeSet<&String> = said.chain(of_container).collect();
            let known = self
                .networks
                .iter()
                .filter(|network| names.contains(&network.name));
            let ids: Vec<String> = known.map(|network| network.id.clone()).collect();
            // A network that no listing of networks has had.
            self.is_stale |= ids.len() < names.len();
            let gateway = self
                .gateway()
                .filter(|_| model::may_have_gateway(container));
            let gateway = gateway.map(|network| network.id.clone());
            self.joined.extend(gateway);
            self.joined.extend(ids);
            self.doubt(id);
        }
        for bridge in self.unknown.due(now) {
            let on_it = |network: &&wire::Network| {
                model::bridge(network).is_some_and(|name| name == bridge)
            };
            let before = self.joined.len();
            let ids = self.networks.iter().filter(on_it);
            self.joined
                .extend(ids.map(|network| network.id.clone()).collect::<Vec<_>>());
            // It may be the bridge of a network that no listing has had.
            self.is_stale |= self.joined.len() == before;
        }
    }

    fn next_to_inspect(&mut self) -> Option<String> {
        let id = self
            .uninspected
            .iter()
            // What no listing has can't be told yet.
            .find(|id| self.containers.contains_key(*id) && !self.asked.contains_key(*id))?
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
                    model::inspected(container, &inspection, &self.networks);
                }
                if self.undescribed.remove(id) {
                    self.dispute(Instant::now());
                }
                if !doubted {
                    self.uninspected.remove(id);
                    self.started.remove(id);
                }
            }
            Err(error) if error.is_gone() => {
                self.uninspected.remove(id);
                self.started.remove(id);
                self.containers.remove(id);
            }
            // One container that does not answer must not take the others down with it.
            Err(
                error @ (EngineError::Late { .. }
                | EngineError::Answer { .. }
                | EngineError::Refused { .. }),
            ) => {
                if self.undescribed.insert(id.to_owned()) {
                    tracing::warn!(id, %error, "the engine does not describe a container: it is asked again");
                    self.dispute(Instant::now());
                }
                self.uninspected.remove(id);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn is_incomplete(&self) -> bool {
        // One that does not run yet may take as long as it likes to.
        let runs = |id: &String| {
            let container = self.containers.get(id);
            container.is_some_and(|container| container.is_running() || self.started.contains(id))
        };
        let mut running = self.containers.values().filter(|one| one.is_running());
        let is_gateway_due = self.gateway_due && running.any(model::may_have_gateway);
        is_gateway_due || self.uninspected.iter().any(runs)
    }
}

#[cfg(any(test, fuzzing))]
pub mod stream;
#[cfg(test)]
mod tests;
