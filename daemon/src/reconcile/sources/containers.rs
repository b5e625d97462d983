//! Finds the network namespaces of containers: by the process that the engine names, by control groups while a container
//! starts, and by MAC addresses where no process is known.
//!
//! A namespace that was found once is kept for as long as its process is there. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::builds;
use super::namespaces::Namespaces;
use super::processes::{self, SearchPace};
use crate::links::{self, Inside, Snapshot};
use crate::netns::Netns;
use crate::reconcile::assemble::has_no_veth;
use crate::reconcile::observed::{Namespace, Observed, Rights};
use crate::runtime::cgroup;
use crate::runtime::container::{AskedFrom, Attachment, Container, Runtime, State};
use crate::runtime::containerd;

/// Namespaces in which something changed.
#[derive(Debug, Default)]
pub struct Changed {
    /// In any of them.
    pub anywhere: bool,
    /// In those with these ids.
    pub namespaces: BTreeSet<i32>,
}

impl Changed {
    fn is_in(&self, namespace: &Namespace) -> bool {
        let nsid = namespace.nsid;
        nsid.is_some_and(|nsid| self.anywhere || self.namespaces.contains(&nsid))
    }
}

/// What a search has found.
pub struct Found {
    /// Network namespaces of running containers, by container ID.
    pub containers: BTreeMap<String, Namespace>,
    /// Network namespaces of the engines' own, by their ids here.
    pub engines_own: BTreeSet<i32>,
    /// Steps of Podman's builds.
    pub builds: Vec<Container>,
}

/// What is known from one search to the next.
#[derive(Debug, Default)]
pub struct Finder {
    /// Namespaces of containers, with the process that they were found by.
    found: BTreeMap<String, (u32, Namespace)>,
    /// Containers whose process, as their runtime names it, belongs to something else.
    refused: BTreeSet<String>,
    /// Since when each veth has been seen.
    seen: BTreeMap<u32, Instant>,
    /// When all processes may be looked at for those of containers that start.
    pace: SearchPace,
    /// Namespaces in which containers are starting.
    expected: BTreeSet<i32>,
    /// Where interfaces have changed since the last search.
    pub changed: Changed,
}

impl Finder {
    /// Containers are starting in these namespaces. True: one of them is new.
    pub fn expect(&mut self, nsids: BTreeSet<i32>) -> bool {
        let is_new = !nsids.is_subset(&self.expected);
        self.expected = nsids;
        is_new
    }

    /// When a search of all processes is owed.
    pub fn owed(&self) -> Option<Instant> {
        self.pace.owed()
    }

    /// Takes up which veths there are.
    pub fn list(&mut self, links: &Snapshot) {
        let mut before = std::mem::take(&mut self.seen);
        let now = Instant::now();
        let veths = links.veths.iter().map(|veth| veth.ifindex);
        self.seen = veths
            .map(|ifindex| (ifindex, before.remove(&ifindex).unwrap_or(now)))
            .collect();
    }

    /// Is there a namespace in which interfaces may have changed that are not known by their ends here?
    pub fn has_news(&self) -> bool {
        let mut namespaces = self.found.values().map(|(_, namespace)| namespace);
        namespaces.any(|namespace| {
            self.changed.is_in(namespace) || subinterfaces(namespace).next().is_some()
        })
    }

    /// Finds the network namespaces of running containers. `changed_inside`: interfaces inside may have changed, in those
    /// of [`Finder::changed`] surely.
    pub fn find(
        &mut self,
        namespaces: &mut Namespaces,
        observed: &Observed,
        changed_inside: bool,
    ) -> Found {
        let before = std::mem::take(&mut self.found);
        let changed = std::mem::take(&mut self.changed);
        Search {
            finder: self,
            namespaces,
            observed,
            changed_inside,
            changed,
            before,
            containers: BTreeMap::new(),
        }
        .run()
    }
}

/// One search.
struct Search<'a> {
    finder: &'a mut Finder,
    namespaces: &'a mut Namespaces,
    observed: &'a Observed,
    changed_inside: bool,
    changed: Changed,
    /// What the search before has found, and this one not yet.
    before: BTreeMap<String, (u32, Namespace)>,
    /// Namespaces that were found, by container ID.
    containers: BTreeMap<String, Namespace>,
}

impl<'a> Search<'a> {
    fn run(mut self) -> Found {
        let starting = self.find_running();
        for (container, pid, namespace) in self.find_starting(&starting) {
            self.keep(container, pid, namespace);
        }
        let engines_own = self.find_engines_own();
        self.find_builds(&engines_own);
        let mut builds = Vec::new();
        for (step, namespace) in self.find_steps(&engines_own) {
            let known = (step.pid, namespace.clone());
            self.finder.found.insert(step.id.clone(), known);
            self.containers.insert(step.id.clone(), namespace);
            builds.push(step);
        }
        self.read_rights(&builds);
        Found {
            containers: self.containers,
            engines_own,
            builds,
        }
    }

    /// The containers that the engines list.
    fn listed(&self) -> impl Iterator<Item = &'a Container> + use<'a> {
        let engines = self.observed.engines();
        engines.flat_map(|engine| &engine.snapshot.containers)
    }

    /// The ids of the namespaces that were found so far, and of these.
    fn known(&self, engines_own: &BTreeSet<i32>) -> BTreeSet<i32> {
        let found = self.containers.values();
        let found = found.filter_map(|namespace| namespace.nsid);
        found.chain(engines_own.iter().copied()).collect()
    }

    fn keep(&mut self, container: &Container, pid: u32, namespace: Namespace) {
        let namespace = self.look_inside(container, pid, namespace);
        let known = (pid, namespace.clone());
        self.finder.found.insert(container.id.clone(), known);
        self.containers.insert(container.id.clone(), namespace);
    }

    /// Finds the namespaces of containers whose process the runtime names, or that were found before. Gives the other
    /// containers, by the ID that their control groups have.
    fn find_running(&mut self) -> BTreeMap<&'a str, &'a Container> {
        let mut starting = BTreeMap::new();
        let mut ambiguous = BTreeSet::new();
        let mut refused = BTreeSet::new();
        for container in self.listed() {
            if container.state == State::Ended
                || container.joined.is_some()
                || container.build.is_some()
            {
                continue;
            }
            let known = self
                .before
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
                None => match self.namespaces.identify(&Netns::Pid(container.pid)) {
                    Ok(namespace) => (container.pid, namespace),
                    // It ended: the engine says so in a moment.
                    Err(error) => {
                        tracing::debug!(id = container.id, %error, "a container's namespace is gone");
                        continue;
                    }
                },
            };
            self.keep(container, pid, namespace);
        }
        for id in refused.difference(&self.finder.refused) {
            tracing::warn!(
                id,
                "the process that the runtime names is in another container's control group: its container is on hold"
            );
        }
        self.finder.refused = refused;
        starting.retain(|id, _| !ambiguous.contains(id));
        starting
    }

    /// The namespaces through which an engine leads what is published (Swarm's ingress).
    fn find_engines_own(&mut self) -> BTreeSet<i32> {
        let known = self.known(&BTreeSet::new());
        let engines = self.observed.engines();
        let ingress = engines.filter_map(|engine| engine.snapshot.ingress.as_ref());
        let own = ingress.filter_map(|(attachment, said)| {
            let network = std::slice::from_ref(attachment);
            self.find_by_mac(network, *said, &known)
        });
        own.collect()
    }

    fn find_builds(&mut self, engines_own: &BTreeSet<i32>) {
        let mut known = self.known(engines_own);
        for build in self.listed() {
            if let Some(namespace) = self.find_build(build, &known) {
                known.extend(namespace.nsid);
                self.containers.insert(build.id.clone(), namespace);
            }
        }
    }

    /// Reads the rights of containers that can get around a program inside with them.
    fn read_rights(&mut self, builds: &[Container]) {
        let asked_from_host = self
            .listed()
            .filter(|container| container.dns.asked_from != AskedFrom::Container);
        let asked_from_host: BTreeSet<&str> = asked_from_host
            .map(|container| container.id.as_str())
            .collect();
        let mut containers = std::mem::take(&mut self.containers);
        for (id, namespace) in &mut containers {
            if subinterfaces(namespace).next().is_some() || asked_from_host.contains(id.as_str()) {
                namespace.rights = self.rights(id, namespace.identity, builds);
            }
        }
        self.containers = containers;
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
        let observed = self.observed;
        let veth = observed.links.veths.iter().find(|veth| {
            let bridge = veth.master.and_then(|it| observed.links.bridges.get(&it));
            let mut networks = networks.iter();
            let network = networks
                .find(|network| network.bridge.is_some() && network.bridge.as_ref() == bridge);
            let Some(mac) = network.and_then(|network| network.mac) else {
                return false;
            };
            let is_new = self
                .finder
                .seen
                .get(&veth.ifindex)
                .is_some_and(|seen| *seen < said);
            let is_free = veth.peer_nsid.is_some_and(|nsid| !known.contains(&nsid));
            is_new && is_free && self.namespaces.peer_mac(veth) == Some(mac)
        })?;
        veth.peer_nsid
    }

    /// Steps of Podman's builds, by their control groups, in namespaces without a known container that have an
    /// interface on a bridge here.
    fn find_steps(&mut self, engines_own: &BTreeSet<i32>) -> Vec<(Container, Namespace)> {
        let owned = self.known(engines_own);
        let observed = self.observed;
        let declared = observed.declared.iter();
        let declared = declared.filter_map(|one| one.namespace.as_ref().ok()?.nsid);
        let declared: BTreeSet<i32> = declared.collect();
        let on_bridges = observed.links.veths.iter();
        let on_bridges = on_bridges.filter(|veth| veth.master.is_some());
        let free: BTreeSet<i32> = on_bridges
            .filter_map(|veth| veth.peer_nsid)
            .filter(|nsid| !owned.contains(nsid) && !declared.contains(nsid))
            .collect();
        if !observed.docker.iter().any(|engine| engine.followed) || free.is_empty() {
            return Vec::new();
        }
        let mut steps = Vec::new();
        for (pid, id) in builds::steps() {
            let known = self.before.remove(&id);
            // What of its processes is the first one may change.
            let known = known.filter(|(_, namespace)| is_there(pid, namespace.identity));
            let namespace = match known {
                Some((_, namespace)) => namespace,
                None if builds::is_shared(pid) => continue,
                None => match self.namespaces.identify(&Netns::Pid(pid)) {
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
            let namespace = self.look_inside(&step, pid, namespace);
            // The addresses that it was given, before it ran, stay its own, whatever it does inside.
            let known = observed.builds.iter().find(|known| known.id == id);
            step.networks = match known.filter(|known| !known.networks.is_empty()) {
                Some(known) => known.networks.clone(),
                None => builds::networks(&namespace, &observed.links),
            };
            steps.push((step, namespace));
        }
        steps
    }

    /// What a container and those that share its network namespace can do there.
    fn rights(&self, id: &str, identity: (u64, u64), builds: &[Container]) -> Rights {
        let observed = self.observed;
        let shares = |container: &&Container| {
            let found = self.finder.found.get(&container.id);
            container.id == id
                || container.joined.as_deref() == Some(id)
                || found.is_some_and(|(_, namespace)| namespace.identity == identity)
        };
        let before = observed.containers.get(id);
        let before = before.filter(|namespace| namespace.identity == identity);
        let running = self
            .listed()
            .chain(builds)
            .filter(|container| container.is_running());
        processes::shared_rights(
            running.filter(shares).map(|container| container.pid),
            before.map(|namespace| namespace.rights).unwrap_or_default(),
        )
    }

    /// The namespaces of containers whose process the runtime does not name yet: Docker names it a few milliseconds after
    /// the container's first packet, containerd once all hooks of the start have run, one of which may make the network.
    /// Until then the control group of a process tells its container. `starting`: by the ID that the control group has.
    fn find_starting(
        &mut self,
        starting: &BTreeMap<&str, &'a Container>,
    ) -> Vec<(&'a Container, u32, Namespace)> {
        let known: BTreeSet<i32> = self
            .finder
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
            // Every container without a task may be starting: that is no reason to look at all processes for interfaces
            // of other software.
            .filter(|veth| of_docker || containerd::is_veth_name(&veth.name))
            .filter_map(|veth| veth.peer_nsid)
            .chain(self.finder.expected.iter().copied())
            .filter(|nsid| !known.contains(nsid))
            .collect();
        self.finder.pace.settle();
        let mut wanted: BTreeSet<&str> = starting.keys().copied().collect();
        if wanted.is_empty() || unknown.is_empty() {
            return Vec::new();
        }
        let usual = cgroup::in_usual_groups(&wanted);
        let mut found = self.in_namespaces(starting, &unknown, usual);
        for (container, _, namespace) in &found {
            wanted.remove(own_id(container));
            unknown.retain(|nsid| namespace.nsid != Some(*nsid));
        }
        let begun = Instant::now();
        if !wanted.is_empty()
            && !unknown.is_empty()
            && self.finder.pace.begins(&wanted, &unknown, begun)
        {
            let all = processes::by_container(&wanted);
            found.extend(self.in_namespaces(starting, &unknown, all));
            self.finder.pace.ended(begun.elapsed(), Instant::now());
        }
        found
    }

    /// Which of these processes are in one of these namespaces. The others are on the way into theirs, or have
    /// ended.
    fn in_namespaces(
        &mut self,
        starting: &BTreeMap<&str, &'a Container>,
        unknown: &BTreeSet<i32>,
        processes: Vec<(u32, String)>,
    ) -> Vec<(&'a Container, u32, Namespace)> {
        let claims = processes.into_iter().filter_map(|(pid, id)| {
            let container = *starting.get(id.as_str())?;
            let namespace = self.namespaces.identify(&Netns::Pid(pid)).ok()?;
            let is_unknown = namespace.nsid.is_some_and(|nsid| unknown.contains(&nsid));
            is_unknown.then_some((container, pid, namespace))
        });
        claims.collect()
    }

    /// Looks inside, where the runtime does not say what is there.
    fn look_inside(&self, container: &Container, pid: u32, mut namespace: Namespace) -> Namespace {
        let changed_inside = self.changed_inside;
        let mut veths = self
            .observed
            .links
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
                            || self.changed.is_in(&namespace)
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
