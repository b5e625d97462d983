//! Where the facts come from, and which of them have to be gathered again.
//!
//! A hint marks what it is about; [`Sources::gather`] lists that afresh and keeps the rest, so that a
//! new policy does not cost a look into every container. Nothing here decides anything.
//!
//! ```text
//!  engines ────▶ what each container engine says ──┐
//!  namespaces ─▶ what the kernel shows ────────────┼─▶ containers: which namespace is whose ─▶ Observed
//!  claims ─────▶ what packets claim ───────────────┘        │
//!                       ▲                                   │ where they do not agree (agreement)
//!                       └────── questions to the engines ◀──┘
//! ```

mod agreement;
pub mod behind;
mod builds;
mod claims;
mod containers;
mod engines;
mod namespaces;
mod processes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use netpol_engine::manifest;
use netpol_engine::policy::ObjectName;
use thiserror::Error;
use tokio::sync::oneshot;

use self::behind::Behind;
use self::claims::Claims;
use self::containers::{Finder, Found};
use self::engines::{FollowedRuntime, any_changed, engine};
use self::namespaces::Namespaces;
use super::observed::{Declared, Namespace, Observed};
use super::readiness::Asked;
use crate::config::Config;
use crate::links::{self, LinksError, Listener};
use crate::netns::Netns;
use crate::runtime::container::Runtime;
use crate::runtime::containerd;
use crate::runtime::declared::{self, Presence};
use crate::runtime::follow::Follower;
use crate::runtime::resolvers::Resolvers;
use crate::store::{Ended, Reader};
use crate::translation;
use crate::watch::WatchError;

pub use self::claims::tell_own_address;

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
/// The wait before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

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
    namespaces: Namespaces,
    listener: Listener,
    finder: Finder,
    stale: Stale,
    /// See [`Sources::link_changes`].
    link_changes: u64,
    claims: Claims,
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
            namespaces: Namespaces::open()?,
            listener,
            finder: Finder::default(),
            stale: Stale::ALL,
            link_changes: 0,
            claims: Claims::default(),
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
    pub const fn mark_all_stale(&mut self) {
        self.link_changes += 1;
        self.stale = Stale::ALL;
        self.finder.changed.anywhere = true;
    }

    /// Interfaces are to be listed again, and the namespaces behind them.
    pub const fn mark_links_stale(&mut self) {
        self.stale.links = true;
        self.stale.inside = true;
        self.finder.changed.anywhere = true;
    }

    /// Counts the occasions on which interfaces, anywhere, may have changed: what was found by [`Sources::inspect`] holds
    /// for as long as this number stays.
    #[must_use]
    pub const fn link_changes(&self) -> u64 {
        self.link_changes
    }

    /// Inspects an opened network namespace.
    ///
    /// # Errors
    /// It is a namespace of something else.
    pub fn inspect(&mut self, netns: &File) -> Result<Asked, LinksError> {
        self.namespaces.inspect(netns)
    }

    /// The containers in these network namespaces, as far as can be told, and the sockets of Docker engines that run here.
    pub fn look_behind(&mut self, nsids: &BTreeSet<i32>) -> (BTreeMap<i32, Behind>, Vec<PathBuf>) {
        self.namespaces.look_behind(nsids)
    }

    /// Packets of a container of an engine that speaks Docker's API claimed an address that is not known to be its own: the
    /// engine is asked whether it is. `None`: the report does not say which address.
    pub fn claimed(&mut self, id: &str, address: Option<IpAddr>) {
        if self.claims.add(id, address, Instant::now()) {
            self.ask_engines();
        }
    }

    /// Containers are starting in these namespaces. Where one of them is new, it is time to [`Sources::gather`].
    pub fn expect(&mut self, nsids: BTreeSet<i32>) {
        self.stale.links |= self.finder.expect(nsids);
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
        let search = at(self.finder.owed());
        let expired = at(self.claims.next_end());
        let translations = async {
            match &mut self.translations {
                Some(translations) => translations.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = expired => self.ask_engines(),
            () = translations => self.stale.translations = true,
            changed = self.store.changed(), if self.ended.is_none() => {
                self.ended = changed.err();
                self.stale.store = true;
            }
            () = any_changed(&mut self.docker) => self.stale.engine = true,
            () = self.containerd.follower.changed() => self.stale.engine = true,
            () = self.declared.changed() => self.stale.declared = true,
            () = self.resolvers.changed() => self.stale.resolvers = true,
            () = again => self.mark_all_stale(),
            () = search => self.stale.links = true,
            hints = self.listener.next() => return self.linked(hints),
        }
        false
    }

    fn linked(&mut self, hints: std::io::Result<links::Hints>) -> bool {
        self.link_changes += 1;
        match hints {
            Ok(hints) => {
                let links = !hints.links.is_empty() || hints.resync;
                self.stale.links |= links || hints.addresses;
                self.stale.inside |= links || hints.inside;
                self.finder.changed.anywhere |= hints.resync;
                self.finder.changed.namespaces.extend(hints.namespaces);
                links
            }
            Err(error) => {
                tracing::error!(%error, "changes of interfaces can't be read; looking at all of them instead");
                match Listener::open() {
                    Ok(listener) => self.listener = listener,
                    Err(error) => tracing::error!(%error, "changes of interfaces are not noticed"),
                }
                self.failed = true;
                self.mark_all_stale();
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
            let bridges = &self.observed.links.bridges;
            for (followed, engine) in self.docker.iter_mut().zip(&mut self.observed.docker) {
                followed.ask(engine, bridges);
            }
            self.containerd.ask(&mut self.observed.containerd, bridges);
        }
        // The dump comes after the engine's word: the interfaces of a container that it names
        // are there.
        if stale.links || stale.engine || looked_inside {
            match self.namespaces.dump() {
                Ok(snapshot) => {
                    self.finder.list(&snapshot);
                    self.observed.links = snapshot;
                    // An engine's socket is there before its containers' interfaces are, whichever of them tells of it
                    // first.
                    for (engine, known) in self.docker.iter().zip(&mut self.observed.docker) {
                        known.socket = engine.is_there();
                    }
                    self.observed.containerd.socket = self.containerd.socket.exists();
                }
                Err(error) => self.problem(error.to_string()),
            }
        }
        let is_unsaid = stale.inside
            && (!self.observed.containerd.snapshot.containers.is_empty() || self.finder.has_news());
        if stale.engine || stale.links || is_unsaid {
            let found = self
                .finder
                .find(&mut self.namespaces, &self.observed, stale.inside);
            let Found {
                containers,
                engines_own,
                builds,
            } = found;
            self.observed.containers = containers;
            self.observed.engines_own = engines_own;
            self.observed.builds = builds;
            self.ask_engines();
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
                            self.namespaces
                                .look_into(&Netns::Path(path.clone()))
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

    /// Has the engines asked about what their answers do not explain.
    fn ask_engines(&mut self) {
        self.claims.end(Instant::now());
        let observed = &self.observed;
        let known = observed.containers.values();
        let known = known.filter_map(|namespace| namespace.nsid);
        let known = known.chain(observed.engines_own.iter().copied()).collect();
        for (followed, engine) in self.docker.iter().zip(&observed.docker) {
            let mut questions = self.claims.questions(engine, &observed.containers);
            questions.bridges = agreement::unknown(&observed.links, &engine.bridges, &known);
            followed.follower.question(questions);
        }
    }
}

/// Returns at this time; `None`: never.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
