//! Where the facts come from, and which of them have to be gathered again.
//!
//! A hint marks what it is about; [`Sources::gather`] lists that afresh and keeps the rest, so that a
//! new policy does not cost a look into every container. Nothing here decides anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use thiserror::Error;
use tokio::sync::oneshot;

use super::agreement;
use super::assemble::has_no_veth;
use super::behind::{self, Behind};
use super::builds;
use super::observed::{Declared, Engine, Namespace, Observed, Rights};
use super::processes::{self, Search};
use super::readiness::Asked;
use crate::config::{Config, Enabled};
use crate::datapath::Location;
use crate::gate::GateState;
use crate::gate::rules::{is_engines, may_be_added};
use crate::links::{self, Inside, Links, LinksError, Listener};
use crate::netns::Netns;
use crate::printable::printable;
use crate::runtime::cgroup::{self, Maker};
use crate::runtime::container::{self, AskedFrom, Attachment, Container, Runtime, State};
use crate::runtime::declared::{self, Presence};
use crate::runtime::follow::{Follower, OpenQuestions};
use crate::runtime::resolvers::Resolvers;
use crate::runtime::{containerd, docker};
use crate::store::{Ended, Reader};
use crate::translation;
use crate::watch::WatchError;
use netpol_engine::manifest;
use netpol_engine::policy::ObjectName;

/// Why nothing can be followed.
#[derive(Debug, Error)]
pub enum SourcesError {
    /// Files.
    #[error("files can't be watched: {0}")]
    Watch(#[from] WatchError),
    /// Interfaces.
    #[error(transparent)]
    Links(#[from] LinksError),
}

/// What has to be listed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stale {
    store: bool,
    engine: bool,
    links: bool,
    /// Which declared namespaces are there.
    declared: bool,
    /// What is inside them.
    inside: bool,
    resolvers: bool,
    translations: bool,
}

impl Stale {
    const ALL: Self = Self {
        store: true,
        engine: true,
        links: true,
        declared: true,
        inside: true,
        resolvers: true,
        translations: true,
    };
    const NOTHING: Self = Self {
        store: false,
        engine: false,
        links: false,
        declared: false,
        inside: false,
        resolvers: false,
        translations: false,
    };
}

/// Hints that are taken in one go before the listing.
const BATCH: usize = 64;
/// So long an address is asked about that a container's packets claimed.
const CLAIMED: Duration = Duration::from_secs(10);
/// So many of a container's.
const MOST_CLAIMS: usize = 16;
/// The wait before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Namespaces in which something changed.
#[derive(Debug, Default)]
struct Changed {
    /// In any of them.
    anywhere: bool,
    /// In those with these ids.
    namespaces: BTreeSet<i32>,
}

impl Changed {
    fn is_in(&self, namespace: &Namespace) -> bool {
        let nsid = namespace.nsid;
        nsid.is_some_and(|nsid| self.anywhere || self.namespaces.contains(&nsid))
    }
}

/// A runtime that may be followed.
struct FollowedRuntime {
    follower: Follower,
    socket: PathBuf,
    /// Sockets of which this one may be another name.
    others: Vec<PathBuf>,
}

impl FollowedRuntime {
    /// Engines that speak Docker's API, and what is known of them at the start.
    fn docker(config: &Config) -> Result<(Vec<Self>, Vec<Engine>), WatchError> {
        let kept = GateState::at(&config.state.directory).bridges_by_engine();
        let is_one = config.docker.sockets.len() == 1;
        let (mut runs, mut engines) = (Vec::new(), Vec::new());
        for (place, (enabled, socket)) in config.docker.engines().enumerate() {
            let others = config.docker.sockets[..place].to_vec();
            let is_of = |of: &Option<PathBuf>| match of {
                Some(of) => of == socket,
                // An earlier netpold knew one engine.
                None => place == 0,
            };
            let bridges = kept.iter().filter(|(_, of)| is_of(of));
            engines.push(Engine {
                label: match is_one {
                    true => Runtime::Docker.name().to_owned(),
                    false => format!("{} at {}", Runtime::Docker.name(), socket.display()),
                },
                bridges: bridges.map(|(name, _)| name.clone()).collect(),
                ..engine(Runtime::Docker, enabled, socket)
            });
            runs.push(Self {
                follower: docker::follow(enabled, socket, &others)?,
                socket: socket.to_owned(),
                others,
            });
        }
        Ok((runs, engines))
    }

    /// Is there an engine of its own?
    fn is_there(&self) -> bool {
        self.socket.exists() && docker::same(&self.socket, &self.others).is_none()
    }

    /// Brings up to date what is known of it.
    fn ask(&mut self, engine: &mut Engine) {
        let mut snapshot = self.follower.snapshot();
        if engine.runtime == Runtime::Docker {
            snapshot = Arc::new(snapshot.of(&self.socket));
        }
        let is_all = snapshot.connected && !snapshot.incomplete;
        engine.listed |= is_all;
        if is_all {
            engine.bridges.clear();
        }
        let of_containers = snapshot.containers.iter().flat_map(|one| &one.networks);
        let bridges = of_containers
            .filter_map(|network| network.bridge.as_ref())
            .chain(&snapshot.bridges)
            .filter(|bridge| is_engines(bridge) || may_be_added(bridge));
        engine.bridges.extend(bridges.cloned());
        engine.snapshot = snapshot;
    }
}

fn engine(runtime: Runtime, enabled: Enabled, socket: &Path) -> Engine {
    Engine {
        runtime,
        path: socket.to_owned(),
        label: runtime.name().to_owned(),
        followed: enabled != Enabled::No,
        required: enabled == Enabled::Yes,
        ..Engine::default()
    }
}

/// Returns when one of them says something new. Dropping the future loses nothing.
async fn any_changed(engines: &mut [FollowedRuntime]) {
    let all = engines.iter_mut().map(|engine| engine.follower.changed());
    let mut all: FuturesUnordered<_> = all.collect();
    if all.next().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Everything that is followed.
pub struct Sources {
    store: Reader,
    /// The store's thread has ended.
    ended: Option<Ended>,
    /// In the order of [`Observed::docker`].
    docker: Vec<FollowedRuntime>,
    containerd: FollowedRuntime,
    declared: declared::Follower,
    resolvers: Resolvers,
    /// `None`: the kernel tells nothing of nftables.
    translations: Option<translation::Follower>,
    links: Links,
    listener: Listener,
    /// Namespaces of containers, with the process that they were found by.
    found: BTreeMap<String, (u32, Namespace)>,
    /// Containers whose process, as their runtime names it, is somebody else's.
    refused: BTreeSet<String>,
    /// Since when each veth has been seen.
    seen: BTreeMap<u32, Instant>,
    /// For processes of containers that start.
    search: Search,
    /// Namespaces in which containers are starting.
    expected: BTreeSet<i32>,
    stale: Stale,
    /// See [`Sources::links_revision`].
    links_revision: u64,
    /// Where something changed since the last look.
    inside: Changed,
    /// Addresses that containers' packets claimed and that are not known to be theirs, by container, and until when
    /// they are asked about.
    claimed: BTreeMap<String, BTreeMap<IpAddr, Instant>>,
    /// Something could not be listed.
    failed: bool,
    observed: Observed,
}

impl Sources {
    /// Begins to follow. To be called inside a tokio runtime, in the host's network namespace.
    ///
    /// # Errors
    /// The kernel gives no watches or sockets.
    pub fn open(config: &Config) -> Result<Self, SourcesError> {
        // Before the first dump, so that nothing is missed.
        let listener = Listener::open()?;
        let (docker, engines) = FollowedRuntime::docker(config)?;
        Ok(Self {
            store: Reader::spawn(
                config.manifests.directory.clone(),
                config.manifests.follow.clone(),
                config.state.directory.clone(),
                manifest::parse,
            )?,
            ended: None,
            docker,
            containerd: FollowedRuntime {
                follower: containerd::follow(&config.containerd)?,
                socket: config.containerd.socket.clone(),
                others: Vec::new(),
            },
            declared: declared::Follower::new()?,
            resolvers: Resolvers::of_host()?,
            translations: translation::follow()
                .inspect_err(|error| {
                    tracing::warn!(%error, "NAT rules that hide senders from containers are not looked for");
                })
                .ok(),
            links: Links::open()?,
            listener,
            found: BTreeMap::new(),
            refused: BTreeSet::new(),
            seen: BTreeMap::new(),
            search: Search::default(),
            expected: BTreeSet::new(),
            stale: Stale::ALL,
            links_revision: 0,
            inside: Changed::default(),
            claimed: BTreeMap::new(),
            failed: false,
            observed: Observed {
                docker: engines,
                containerd: engine(
                    Runtime::Containerd,
                    config.containerd.enabled,
                    &config.containerd.socket,
                ),
                ..Observed::default()
            },
        })
    }

    /// What was gathered last.
    #[must_use]
    pub const fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Asks the runtimes to be up to date.
    #[must_use]
    pub fn engines(&self) -> Vec<Follower> {
        let all = self.docker.iter().chain([&self.containerd]);
        all.map(|engine| engine.follower.clone()).collect()
    }

    /// Has the manifests directory looked at now. The receiver gets its answer once that is done.
    pub fn look_at_manifests(&self) -> oneshot::Receiver<()> {
        self.store.look()
    }

    /// Nothing new will be heard of the manifests.
    #[must_use]
    pub const fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Everything is to be listed again.
    pub const fn doubt_all(&mut self) {
        self.links_revision += 1;
        self.stale = Stale::ALL;
        self.inside.anywhere = true;
    }

    /// Interfaces are to be listed again, and who is behind them.
    pub const fn doubt_links(&mut self) {
        self.stale.links = true;
        self.stale.inside = true;
        self.inside.anywhere = true;
    }

    /// Packets of a container of an engine that speaks Docker's API claimed an address that is not known to be its own: the engine is
    /// asked whether it is. `None`: which address that is is not known.
    pub fn claimed(&mut self, id: &str, address: Option<IpAddr>) {
        let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let claims = self.claimed.entry(id.to_owned()).or_default();
        let now = Instant::now();
        claims.retain(|_, until| *until > now);
        if claims.len() < MOST_CLAIMS && claims.insert(address, now + CLAIMED).is_none() {
            self.question();
        }
    }

    /// Counts the occasions on which interfaces, anywhere, may have changed: what was found by [`Sources::inspect`] holds
    /// for as long as this number stays.
    #[must_use]
    pub const fn links_revision(&self) -> u64 {
        self.links_revision
    }

    /// Inspects an opened network namespace.
    ///
    /// # Errors
    /// It is a namespace of something else.
    pub fn inspect(&mut self, netns: &File) -> Result<Asked, LinksError> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", netns.as_raw_fd()));
        let netns = Netns::Path(path);
        let mut asked = Asked {
            nsid: self.links.nsid(&netns)?,
            subinterfaces: Vec::new(),
            hidden: Vec::new(),
            inode: 0,
        };
        if asked.nsid.is_some() {
            let (_, namespace) = netns.identity()?;
            asked.inode = namespace;
            let inside = links::inside(&netns)?;
            let hidden = inside.iter().filter(|one| one.is_hidden);
            asked.hidden = hidden
                .map(|one| Location {
                    namespace,
                    ifindex: one.ifindex,
                })
                .collect();
            asked.subinterfaces = inside
                .into_iter()
                .filter(|one| one.is_hooked() || one.is_hidden)
                .map(|one| {
                    let ifindex = one.ifindex;
                    (Location { namespace, ifindex }, one.name)
                })
                .collect();
        }
        Ok(asked)
    }

    /// Who is in these network namespaces, as far as can be told, and the sockets of Docker engines that run here.
    pub fn look_behind(&mut self, nsids: &BTreeSet<i32>) -> (BTreeMap<i32, Behind>, Vec<PathBuf>) {
        let behind = behind::look(&mut self.links, nsids);
        let mut containers = behind.values().filter_map(Behind::container);
        let is_dockers = containers.any(|(_, maker)| maker == Maker::Docker);
        let sockets = match is_dockers {
            true => behind::docker_sockets(),
            false => Vec::new(),
        };
        (behind, sockets)
    }

    /// Containers are starting in these namespaces. True: in one that nobody said so of before, and it is time
    /// to [`Sources::gather`].
    pub fn expect(&mut self, nsids: BTreeSet<i32>) -> bool {
        let is_new = !nsids.is_subset(&self.expected);
        self.expected = nsids;
        self.stale.links |= is_new;
        is_new
    }

    /// Returns when it is time to [`Sources::gather`]. Dropping the future loses nothing.
    /// True: interfaces changed.
    pub async fn changed(&mut self) -> bool {
        let mut links = self.hint().await;
        for _ in 0..BATCH {
            match self.hint().now_or_never() {
                Some(hint) => links |= hint,
                None => break,
            }
        }
        links
    }

    async fn hint(&mut self) -> bool {
        let again = async {
            if self.failed {
                tokio::time::sleep(AGAIN).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let owed = self.search.owed();
        let search = async {
            match owed {
                Some(time) => tokio::time::sleep_until(time.into()).await,
                None => std::future::pending().await,
            }
        };
        let expiry = self.claimed.values().flat_map(BTreeMap::values).min();
        let expiry = expiry.copied();
        let expired = async {
            match expiry {
                Some(time) => tokio::time::sleep_until(time.into()).await,
                None => std::future::pending().await,
            }
        };
        let translations = async {
            match &mut self.translations {
                Some(translations) => translations.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = expired => self.question(),
            () = translations => self.stale.translations = true,
            changed = self.store.changed(), if self.ended.is_none() => {
                self.ended = changed.err();
                self.stale.store = true;
            }
            () = any_changed(&mut self.docker) => self.stale.engine = true,
            () = self.containerd.follower.changed() => self.stale.engine = true,
            () = self.declared.changed() => self.stale.declared = true,
            () = self.resolvers.changed() => self.stale.resolvers = true,
            () = again => self.doubt_all(),
            () = search => self.stale.links = true,
            hints = self.listener.next() => return self.linked(hints),
        }
        false
    }

    fn linked(&mut self, hints: std::io::Result<links::Hints>) -> bool {
        self.links_revision += 1;
        match hints {
            Ok(hints) => {
                let links = !hints.links.is_empty() || hints.resync;
                self.stale.links |= links || hints.addresses;
                self.stale.inside |= links || hints.inside;
                self.inside.anywhere |= hints.resync;
                self.inside.namespaces.extend(hints.namespaces);
                links
            }
            Err(error) => {
                tracing::error!(%error, "changes of interfaces can't be read; looking at all of them instead");
                match Listener::open() {
                    Ok(listener) => self.listener = listener,
                    Err(error) => tracing::error!(%error, "changes of interfaces are not noticed"),
                }
                self.failed = true;
                self.doubt_all();
                true
            }
        }
    }

    /// Lists what may have changed.
    pub fn gather(&mut self) -> &Observed {
        let stale = std::mem::replace(&mut self.stale, Stale::NOTHING);
        self.failed = false;
        if stale == Stale::ALL {
            self.observed.problems.clear();
        }
        if stale.store {
            self.observed.store = self.store.view();
        }
        let looked_inside = (stale.store || stale.declared || stale.inside) && self.declare(stale);
        if stale.engine {
            for (runs, engine) in self.docker.iter_mut().zip(&mut self.observed.docker) {
                runs.ask(engine);
            }
            self.containerd.ask(&mut self.observed.containerd);
        }
        // The dump comes after the engine's word: the interfaces of a container that it names
        // are there.
        if stale.links || stale.engine || looked_inside {
            match self.links.dump() {
                Ok(snapshot) => {
                    let mut before = std::mem::take(&mut self.seen);
                    let now = Instant::now();
                    let veths = snapshot.veths.iter().map(|veth| veth.ifindex);
                    self.seen = veths
                        .map(|ifindex| (ifindex, before.remove(&ifindex).unwrap_or(now)))
                        .collect();
                    self.observed.links = snapshot;
                    // An engine's socket is there before its containers' interfaces are, whoever
                    // tells of it first.
                    for (runs, engine) in self.docker.iter().zip(&mut self.observed.docker) {
                        engine.socket = runs.is_there();
                    }
                    self.observed.containerd.socket = self.containerd.socket.exists();
                }
                Err(error) => self.problem(error.to_string()),
            }
        }
        let mut namespaces = self.found.values().map(|(_, namespace)| namespace);
        let unsaid = stale.inside
            && (!self.observed.containerd.snapshot.containers.is_empty()
                || namespaces.any(|namespace| {
                    self.inside.is_in(namespace) || subinterfaces(namespace).next().is_some()
                }));
        if stale.engine || stale.links || unsaid {
            self.find_containers(stale.inside);
            self.question();
        }
        if stale.resolvers {
            self.observed.resolvers = self.resolvers.read();
        }
        if stale.translations
            && let Some(translations) = &mut self.translations
        {
            self.observed.translations = translations.rules();
        }
        &self.observed
    }

    fn problem(&mut self, problem: String) {
        self.failed = true;
        if !self.observed.problems.contains(&problem) {
            tracing::error!("{problem}");
            self.observed.problems.push(problem);
        }
    }

    /// Looks at declared namespaces; inside only where one is new, or something may have changed
    /// there. True: it looked inside one.
    fn declare(&mut self, stale: Stale) -> bool {
        let wanted = declared::declared(self.observed.store.objects().map(|(object, ..)| object));
        let same = wanted.len() == self.observed.declared.len()
            && wanted
                .iter()
                .zip(&self.observed.declared)
                .all(|(one, other)| one.name == other.name && one.netns == other.path);
        if same && !stale.declared && !stale.inside {
            return false;
        }
        let mut before: BTreeMap<(ObjectName, PathBuf), Namespace> =
            std::mem::take(&mut self.observed.declared)
                .into_iter()
                .filter_map(|known| Some(((known.name, known.path), known.namespace.ok()?)))
                .collect();
        let mut looked_inside = false;
        let presence = self.declared.look(&wanted);
        let mut found = Vec::with_capacity(wanted.len());
        for (one, presence) in wanted.into_iter().zip(presence) {
            let (name, path) = (one.name, one.netns);
            let known = before.remove(&(name.clone(), path.clone()));
            let namespace = match presence {
                Presence::Missing => Err("is not there".to_owned()),
                Presence::NotANamespace => Err("is not a network namespace".to_owned()),
                Presence::There { device, inode } => {
                    match known.filter(|known| !stale.inside && known.identity == (device, inode)) {
                        Some(known) => Ok(known),
                        None => {
                            looked_inside = true;
                            self.look_into(&Netns::Path(path.clone()))
                                .map_err(|error| format!("can't be looked at ({error})"))
                        }
                    }
                }
            };
            found.push(Declared {
                name,
                path,
                namespace,
            });
        }
        self.observed.declared = found;
        looked_inside
    }

    fn look_into(&mut self, netns: &Netns) -> Result<Namespace, LinksError> {
        let mut namespace = self.namespace(netns)?;
        if namespace.nsid.is_some() {
            namespace.inside = links::inside(netns)?;
        }
        Ok(namespace)
    }

    fn namespace(&mut self, netns: &Netns) -> Result<Namespace, LinksError> {
        Ok(Namespace {
            path: netns.path(),
            identity: netns.identity()?,
            nsid: self.links.nsid(netns)?,
            inside: Vec::new(),
            looked_running: false,
            rights: Rights::default(),
        })
    }

    /// Has the engines asked about what their answers do not explain.
    fn question(&mut self) {
        let now = Instant::now();
        for claims in self.claimed.values_mut() {
            claims.retain(|_, until| *until > now);
        }
        self.claimed.retain(|_, claims| !claims.is_empty());
        let known = self.observed.containers.values();
        let known = known.filter_map(|namespace| namespace.nsid);
        let known = known
            .chain(self.observed.engines_own.iter().copied())
            .collect();
        for (runs, engine) in self.docker.iter().zip(&self.observed.docker) {
            let mut questions = disagreements(engine, &self.observed.containers, &mut self.claimed);
            questions.bridges = agreement::unknown(&self.observed.links, &engine.bridges, &known);
            runs.follower.question(questions);
        }
    }

    /// The namespaces of running containers.
    fn find_containers(&mut self, changed_inside: bool) {
        let engines = self.observed.engines();
        let snapshots: Vec<_> = engines.map(|engine| Arc::clone(&engine.snapshot)).collect();
        let mut before = std::mem::take(&mut self.found);
        let changed = std::mem::take(&mut self.inside);
        let mut containers = BTreeMap::new();
        let mut starting = BTreeMap::new();
        let mut ambiguous = BTreeSet::new();
        let mut refused = BTreeSet::new();
        for container in snapshots.iter().flat_map(|snapshot| &snapshot.containers) {
            if container.state == State::Ended
                || container.joined.is_some()
                || container.build.is_some()
            {
                continue;
            }
            let known = before
                .remove(&container.id)
                .filter(|(pid, _)| container.pid == 0 || *pid == container.pid)
                .filter(|(pid, namespace)| is_there(*pid, namespace.identity));
            let (pid, namespace) = match known {
                Some(known) => known,
                None if container.pid == 0 => {
                    // No control group tells containers of two engines apart that have the same ID.
                    if starting.insert(own_id(container), container).is_some() {
                        ambiguous.insert(own_id(container));
                    }
                    continue;
                }
                None if !is_its_process(container) => {
                    refused.insert(container.id.clone());
                    continue;
                }
                None => match self.namespace(&Netns::Pid(container.pid)) {
                    Ok(namespace) => (container.pid, namespace),
                    // It ended: the engine says so in a moment.
                    Err(error) => {
                        tracing::debug!(id = container.id, %error, "a container's namespace is gone");
                        continue;
                    }
                },
            };
            let namespace = self.see(container, pid, namespace, changed_inside, &changed);
            self.found
                .insert(container.id.clone(), (pid, namespace.clone()));
            containers.insert(container.id.clone(), namespace);
        }
        starting.retain(|id, _| !ambiguous.contains(id));
        for (container, pid, namespace) in self.find_starting(&starting) {
            let namespace = self.see(container, pid, namespace, changed_inside, &changed);
            self.found
                .insert(container.id.clone(), (pid, namespace.clone()));
            containers.insert(container.id.clone(), namespace);
        }
        let mut known: BTreeSet<i32> = containers.values().filter_map(|one| one.nsid).collect();
        let ingress = snapshots.iter().filter_map(|one| one.ingress.as_ref());
        let own = ingress.filter_map(|(attachment, said)| {
            let network = std::slice::from_ref(attachment);
            self.find_by_mac(network, *said, &known)
        });
        let own: BTreeSet<i32> = own.collect();
        known.extend(&own);
        self.observed.engines_own = own;
        for build in snapshots.iter().flat_map(|snapshot| &snapshot.containers) {
            if let Some(namespace) = self.find_build(build, &known) {
                known.extend(namespace.nsid);
                containers.insert(build.id.clone(), namespace);
            }
        }
        for (step, namespace) in self.find_steps(&known, &mut before, changed_inside, &changed) {
            self.found
                .insert(step.id.clone(), (step.pid, namespace.clone()));
            containers.insert(step.id.clone(), namespace);
            self.observed.builds.push(step);
        }
        for id in refused.difference(&self.refused) {
            tracing::warn!(
                id,
                "the process that the runtime names is in another container's control group: its container is on hold"
            );
        }
        self.refused = refused;
        let all = snapshots.iter().flat_map(|snapshot| &snapshot.containers);
        let asked_from_host: BTreeSet<&str> = all
            .filter(|container| container.dns.asked_from != AskedFrom::Container)
            .map(|container| container.id.as_str())
            .collect();
        for (id, namespace) in &mut containers {
            if subinterfaces(namespace).next().is_some() || asked_from_host.contains(id.as_str()) {
                namespace.rights = self.rights(id, namespace.identity);
            }
        }
        self.observed.containers = containers;
    }

    /// The network namespace of a build's step, of which no process is known: on the network's bridge, and not another
    /// one's, is an interface with the MAC address that the network gave the step. What the network said must be newer
    /// than the interface, as an address is given again.
    fn find_build(&mut self, build: &Container, known: &BTreeSet<i32>) -> Option<Namespace> {
        let nsid = self.find_by_mac(&build.networks, build.build?, known)?;
        Some(Namespace {
            // No path leads there: the id tells one from the other.
            identity: (0, u64::try_from(nsid).ok()?),
            nsid: Some(nsid),
            ..Namespace::default()
        })
    }

    /// The id of the namespace, of which no process is known, that an interface on one of these networks' bridges leads
    /// to, and not another one's: its end in there has the MAC address that the network said at that time.
    fn find_by_mac(
        &mut self,
        networks: &[Attachment],
        said: Instant,
        known: &BTreeSet<i32>,
    ) -> Option<i32> {
        let links = &mut self.links;
        let veth = self.observed.links.veths.iter().find(|veth| {
            let bridge = veth
                .master
                .and_then(|it| self.observed.links.bridges.get(&it));
            let mut networks = networks.iter();
            let network = networks
                .find(|network| network.bridge.is_some() && network.bridge.as_ref() == bridge);
            let Some(mac) = network.and_then(|network| network.mac) else {
                return false;
            };
            let is_new = self
                .seen
                .get(&veth.ifindex)
                .is_some_and(|seen| *seen < said);
            let is_free = veth.peer_nsid.is_some_and(|nsid| !known.contains(&nsid));
            is_new && is_free && links.peer_mac(veth) == Some(mac)
        })?;
        veth.peer_nsid
    }

    /// Steps of Podman's builds, by their control groups, in namespaces that are nobody's so far and have an interface on
    /// a bridge here. The list of before is taken.
    fn find_steps(
        &mut self,
        owned: &BTreeSet<i32>,
        found: &mut BTreeMap<String, (u32, Namespace)>,
        changed_inside: bool,
        changed: &Changed,
    ) -> Vec<(Container, Namespace)> {
        let before = std::mem::take(&mut self.observed.builds);
        let declared = self.observed.declared.iter();
        let declared = declared.filter_map(|one| one.namespace.as_ref().ok()?.nsid);
        let declared: BTreeSet<i32> = declared.collect();
        let on_bridges = self.observed.links.veths.iter();
        let on_bridges = on_bridges.filter(|veth| veth.master.is_some());
        let free: BTreeSet<i32> = on_bridges
            .filter_map(|veth| veth.peer_nsid)
            .filter(|nsid| !owned.contains(nsid) && !declared.contains(nsid))
            .collect();
        if !self.observed.docker.iter().any(|engine| engine.followed) || free.is_empty() {
            return Vec::new();
        }
        let mut steps = Vec::new();
        for (pid, id) in builds::steps() {
            let known = found.remove(&id);
            // What of its processes is the first one may change.
            let known = known.filter(|(_, namespace)| is_there(pid, namespace.identity));
            let namespace = match known {
                Some((_, namespace)) => namespace,
                None if builds::is_shared(pid) => continue,
                None => match self.namespace(&Netns::Pid(pid)) {
                    Ok(namespace) => namespace,
                    Err(error) => {
                        tracing::debug!(id, %error, "the namespace of a build's step is gone");
                        continue;
                    }
                },
            };
            if namespace.nsid.is_none_or(|nsid| !free.contains(&nsid)) {
                continue;
            }
            let mut step = builds::container(&id, pid);
            let namespace = self.see(&step, pid, namespace, changed_inside, changed);
            // The addresses that it was given, before it ran, stay its own, whatever it does inside.
            let known = before.iter().find(|known| known.id == id);
            step.networks = match known.filter(|known| !known.networks.is_empty()) {
                Some(known) => known.networks.clone(),
                None => builds::networks(&namespace, &self.observed.links),
            };
            steps.push((step, namespace));
        }
        steps
    }

    /// What a container and those that share its network namespace can do there.
    fn rights(&self, id: &str, identity: (u64, u64)) -> Rights {
        let shares = |container: &&Container| {
            let found = self.found.get(&container.id);
            container.id == id
                || container.joined.as_deref() == Some(id)
                || found.is_some_and(|(_, namespace)| namespace.identity == identity)
        };
        let before = self.observed.containers.get(id);
        let before = before.filter(|namespace| namespace.identity == identity);
        let running = self.observed.all_containers();
        let running = running.filter(|container| container.is_running());
        processes::shared_rights(
            running.filter(shares).map(|container| container.pid),
            before.map(|namespace| namespace.rights).unwrap_or_default(),
        )
    }

    /// The namespaces of containers whose process the runtime does not name yet: Docker does so a
    /// few milliseconds after a container's first packet, containerd once all hooks of its start
    /// have run, of which one may make its network. Until then a process says itself, by its
    /// control group, whose it is. Given by the ID that stands there.
    fn find_starting<'a>(
        &mut self,
        starting: &BTreeMap<&str, &'a Container>,
    ) -> Vec<(&'a Container, u32, Namespace)> {
        let known: BTreeSet<i32> = self
            .found
            .values()
            .filter_map(|(_, namespace)| namespace.nsid)
            .collect();
        let of_docker = starting
            .values()
            .any(|container| container.runtime == Runtime::Docker);
        let mut unknown: BTreeSet<i32> = self
            .observed
            .links
            .veths
            .iter()
            // Every container without a task may be starting: no reason to look at all processes
            // for somebody else's interfaces.
            .filter(|veth| of_docker || containerd::is_veth_name(&veth.name))
            .filter_map(|veth| veth.peer_nsid)
            .chain(self.expected.iter().copied())
            .filter(|nsid| !known.contains(nsid))
            .collect();
        self.search.settle();
        let mut wanted: BTreeSet<&str> = starting.keys().copied().collect();
        if wanted.is_empty() || unknown.is_empty() {
            return Vec::new();
        }
        let usual = cgroup::in_usual_groups(&wanted);
        let mut found = self.claims(starting, &unknown, usual);
        for (container, _, namespace) in &found {
            wanted.remove(own_id(container));
            unknown.retain(|nsid| namespace.nsid != Some(*nsid));
        }
        let begun = Instant::now();
        if !wanted.is_empty() && !unknown.is_empty() && self.search.begins(&wanted, &unknown, begun)
        {
            let all = processes::by_container(&wanted);
            found.extend(self.claims(starting, &unknown, all));
            self.search.ended(begun.elapsed(), Instant::now());
        }
        found
    }

    /// Which of these processes are in one of these namespaces. The others are on the way into theirs, or have
    /// ended.
    fn claims<'a>(
        &mut self,
        starting: &BTreeMap<&str, &'a Container>,
        unknown: &BTreeSet<i32>,
        processes: Vec<(u32, String)>,
    ) -> Vec<(&'a Container, u32, Namespace)> {
        let claims = processes.into_iter().filter_map(|(pid, id)| {
            let container = *starting.get(id.as_str())?;
            let namespace = self.namespace(&Netns::Pid(pid)).ok()?;
            let is_unknown = namespace.nsid.is_some_and(|nsid| unknown.contains(&nsid));
            is_unknown.then_some((container, pid, namespace))
        });
        claims.collect()
    }

    /// Looks inside, where the runtime does not say what is there.
    fn see(
        &self,
        container: &Container,
        pid: u32,
        mut namespace: Namespace,
        changed_inside: bool,
        changed: &Changed,
    ) -> Namespace {
        let links = &self.observed.links;
        let mut veths = links
            .veths
            .iter()
            .filter(|veth| namespace.nsid.is_some() && veth.peer_nsid == namespace.nsid);
        // No veth tells of what changes there.
        let present = subinterfaces(&namespace).count();
        let networks = container.networks.iter();
        let expected = networks
            .filter(|network| has_no_veth(&network.driver))
            .count();
        let is_news = namespace.nsid.is_some()
            && (present < expected
                || (present > 0 && (changed_inside || !namespace.looked_running)));
        let look = match container.runtime {
            // What its engine says of it is held against what is there.
            Runtime::Docker => {
                is_news
                    || (namespace.nsid.is_some()
                        && (namespace.inside.is_empty()
                            || changed.is_in(&namespace)
                            || veths.any(|veth| namespace.peer_of(veth).is_none())))
            }
            // Everything. Addresses that it has when it begins to run are its own; whether it
            // does may be news.
            Runtime::Containerd => {
                namespace.nsid.is_some()
                    && (!namespace.looked_running
                        || is_news
                        || veths.any(|veth| match namespace.peer_of(veth) {
                            Some(peer) => changed_inside && peer.addresses.is_empty(),
                            None => true,
                        }))
            }
        };
        if look {
            match links::inside(&Netns::Pid(pid)) {
                Ok(inside) => {
                    namespace.inside = inside;
                    namespace.looked_running = container.is_running();
                }
                Err(error) => {
                    tracing::debug!(id = container.id, %error, "can't look into a container");
                }
            }
        }
        namespace
    }
}

/// Says that drops which read as an attack were none.
pub fn truthful(container: &str, address: IpAddr) {
    tracing::info!(
        container = %printable(container),
        %address,
        "the address is the container's own: packets under it were dropped as spoofed or forged before the engine told of it"
    );
}

/// Its interfaces that have no end on the host.
fn subinterfaces(namespace: &Namespace) -> impl Iterator<Item = &Inside> {
    let inside = namespace.inside.iter();
    inside.filter(|one| one.subinterface().is_some() || one.is_hidden)
}

/// Is the process still in that namespace?
fn is_there(pid: u32, identity: (u64, u64)) -> bool {
    Netns::Pid(pid)
        .identity()
        .is_ok_and(|found| found == identity)
}

/// May the process that its runtime names be its own?
fn is_its_process(container: &Container) -> bool {
    cgroup::is_of(container.pid, own_id(container), &container.cgroup_parent)
}

/// Its ID as its control group has it.
fn own_id(container: &Container) -> &str {
    container.id.rsplit('/').next().unwrap_or(&container.id)
}

/// Containers of an engine of which it says something else than the kernel, or than their packets.
fn disagreements(
    engine: &Engine,
    containers: &BTreeMap<String, Namespace>,
    claimed: &mut BTreeMap<String, BTreeMap<IpAddr, Instant>>,
) -> OpenQuestions {
    let mut questions = OpenQuestions::default();
    let listed = engine.snapshot.containers.iter();
    for container in listed.filter(|one| one.build.is_none()) {
        let Some(namespace) = containers.get(&container.id) else {
            continue;
        };
        let mut open = agreement::disputed(container, namespace);
        if let Some(claims) = claimed.get_mut(&container.id) {
            claims.retain(|address, _| {
                let mut networks = container.networks.iter();
                let is_own = networks.any(|network| network.addresses().any(|own| own == *address));
                if is_own {
                    truthful(&container.name, *address);
                }
                !is_own
            });
            open.extend(claims.keys());
        }
        // A process of a container that is not known to run: its start is under way, or was not saved yet.
        if !open.is_empty() || container.pid == 0 {
            let id = container::split(&container.id).1.to_owned();
            questions.containers.insert(id, open);
        }
    }
    questions
}
