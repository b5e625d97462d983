//! From what was gathered to the world: who the endpoints are, which interfaces and addresses are
//! theirs, and what has to be said about the rest.
//!
//! Pure, but for the register, which it brings up to date. Decides:
//! - whose an interface is: by the namespace that its other end is in, never by a name;
//! - which interfaces are on hold: what looks like a container's and is nobody's yet;
//! - who of those that share a network namespace is its endpoint: the one who was, then a
//!   Pod's sandbox, then the oldest;
//! - whose an address is: the one who had it, then manifests, then the runtimes'
//!   containers by age, then declared endpoints in order. The host's own are the host's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use netpol_engine::labels::Labels;
use netpol_engine::manifest::{PodManifest, Value};
use netpol_engine::policy::{Mode, ObjectName};
use netpol_engine::resolver;
use netpol_engine::world::{self, NamedPort, Place, Pod, World};

use super::facts::{Declared, Facts, Namespace};
use super::register::{Interface, Key, Record, Register};
use crate::api::wire::{Conflict, Origin, Origins, Reported, Unidentified, Unprotected};
use crate::config::{LabelSettings, Namespaces};
use crate::links::{Inside, Veth};
use crate::printable::printable;
use crate::runtime::container::{Container, Runtime};
use crate::runtime::named::{self, Named, NotNamed};
use crate::runtime::{containerd, docker, identity};

#[cfg(test)]
mod tests;

/// Bridges that are remembered, at most: a host has few.
const MOST_BRIDGES: usize = 64;

/// What the configuration says about it.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `[labels]`
    pub labels: LabelSettings,
    /// `[namespaces]`
    pub namespaces: Namespaces,
    /// `[host]`
    pub host: world::Settings,
}

/// The world, and what goes with it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assembled {
    /// Everything that decides a verdict.
    pub world: World,
    /// Where its objects come from.
    pub origins: Origins,
    /// Network namespaces of endpoints.
    pub namespaces: BTreeMap<ObjectName, PathBuf>,
    /// Interfaces that are to have programs, and whose they are; `None`: on hold.
    pub interfaces: BTreeMap<u32, Option<ObjectName>>,
    /// Names of those interfaces.
    pub interface_names: BTreeMap<u32, String>,
    /// Containers that no policy reaches.
    pub unprotected: Vec<Unprotected>,
    /// Interfaces on hold.
    pub unidentified: Vec<Unidentified>,
    /// Addresses that are claimed twice.
    pub conflicts: Vec<Conflict>,
    /// Everything else.
    pub warnings: Vec<String>,
}

/// An endpoint before its addresses and its number are settled.
#[derive(Clone, Debug)]
struct Candidate {
    key: Key,
    name: ObjectName,
    labels: Labels,
    ports: Vec<NamedPort>,
    netns: (u64, u64),
    path: Option<PathBuf>,
    claims: BTreeSet<IpAddr>,
    interfaces: BTreeMap<u32, Interface>,
    given: BTreeMap<u32, BTreeSet<IpAddr>>,
}

/// The world that these facts make. `programmed`: the interfaces that have programs now.
pub fn assemble(
    facts: &Facts,
    settings: &Settings,
    programmed: &BTreeSet<u32>,
    register: &mut Register,
) -> Assembled {
    let mut assembly = Assembly {
        facts,
        settings,
        out: Assembled::default(),
        owners: BTreeMap::new(),
        candidates: Vec::new(),
        naming: Vec::new(),
        on_hold: BTreeMap::new(),
    };
    assembly.out.world.settings = settings.host;
    assembly
        .out
        .world
        .host
        .clone_from(&facts.links.host_addresses);
    assembly.manifests();
    assembly.kube_dns();
    assembly.containers(register);
    assembly.remembered(register);
    assembly.absent();
    assembly.addresses(register);
    let released = released(register);
    assembly.places(register);
    assembly.bridges(register);
    assembly.holds(programmed, &released, &register.bridges);
    let mut out = assembly.out;
    out.warnings.extend(facts.problems.iter().cloned());
    out
}

struct Assembly<'a> {
    facts: &'a Facts,
    settings: &'a Settings,
    out: Assembled,
    /// Whose a namespace is, by its id here.
    owners: BTreeMap<i32, ObjectName>,
    candidates: Vec<Candidate>,
    /// Manifests that name a container, and why none is meant where that is so.
    naming: Vec<(PodManifest, Option<NotNamed>)>,
    /// Interfaces with an owner that can't be judged yet, and why.
    on_hold: BTreeMap<u32, String>,
}

impl Assembly<'_> {
    fn manifests(&mut self) {
        let declared: BTreeMap<&ObjectName, &Declared> = self
            .facts
            .declared
            .iter()
            .map(|declared| (&declared.name, declared))
            .collect();
        let store = std::sync::Arc::clone(&self.facts.store);
        for (object, accepted, since) in store.objects() {
            let origin = |labels: &Labels| Origin {
                file: Some(PathBuf::from(&accepted.path)),
                since: jiff::Timestamp::try_from(since).ok(),
                labels: labels.clone(),
                annotations: object.annotations.clone(),
                container: None,
            };
            match &object.value {
                Value::NetworkPolicy(policy) => {
                    let name = policy.name.clone();
                    self.out
                        .origins
                        .policies
                        .insert(name.clone(), origin(&object.labels));
                    self.out.world.policies.insert(name, policy.clone());
                }
                Value::Namespace { name, mode } => {
                    if *mode == Mode::Audit {
                        self.out.world.audited.insert(name.clone());
                    }
                    self.out
                        .origins
                        .namespaces
                        .insert(name.clone(), origin(&Labels::new()));
                    self.out
                        .world
                        .namespaces
                        .insert(name.clone(), object.labels.clone());
                }
                Value::Pod(pod) => {
                    self.out
                        .origins
                        .pods
                        .insert(pod.name.clone(), origin(&Labels::new()));
                    if pod.container.is_some() {
                        self.naming.push((pod.clone(), None));
                    } else if pod.netns.is_some() {
                        self.declared(pod, declared.get(&pod.name).copied());
                    } else {
                        let mut external = Pod::from(pod);
                        if external.place == Place::Local {
                            external.place = Place::External;
                        }
                        self.out.world.pods.insert(pod.name.clone(), external);
                    }
                }
            }
        }
    }

    fn declared(&mut self, pod: &PodManifest, found: Option<&Declared>) {
        let without = Pod {
            labels: pod.labels.clone(),
            ports: pod.ports.clone(),
            ..Pod::default()
        };
        let mut absent = |why: String| {
            self.out.warnings.push(format!("Pod {}: {why}", pod.name));
            self.out
                .world
                .pods
                .insert(pod.name.clone(), without.clone());
        };
        let Some(found) = found else {
            return absent("its network namespace was not looked at yet".to_owned());
        };
        let namespace = match &found.namespace {
            Ok(namespace) => namespace,
            Err(why) => {
                return absent(format!(
                    "its network namespace `{}` {why}: nothing is enforced for it until it is there",
                    found.path.display()
                ));
            }
        };
        let Some(nsid) = namespace.nsid else {
            self.out.unprotected.push(Unprotected {
                container: pod.name.to_string(),
                reason: format!(
                    "`{}` is the host's own network namespace",
                    found.path.display()
                ),
            });
            self.out.world.pods.insert(
                pod.name.clone(),
                Pod {
                    place: Place::HostNetwork,
                    ..without
                },
            );
            return;
        };
        if let Some(first) = self.owners.get(&nsid) {
            let first = first.clone();
            return absent(format!(
                "its network namespace `{}` is that of Pod {first} already",
                found.path.display()
            ));
        }
        self.owners.insert(nsid, pod.name.clone());
        let interfaces = self.interfaces(nsid, |veth, _| namespace.peer_of(veth)?.mac);
        let claims = namespace.inside.iter().flat_map(usable).collect();
        self.candidates.push(Candidate {
            key: Key::Declared(pod.name.clone()),
            name: pod.name.clone(),
            labels: pod.labels.clone(),
            ports: pod.ports.clone(),
            netns: namespace.identity,
            path: Some(namespace.path.clone()),
            claims,
            interfaces,
            given: BTreeMap::new(),
        });
    }

    fn kube_dns(&mut self) {
        if let Some(addresses) = &self.facts.resolvers {
            let (name, pod) = resolver::kube_dns(addresses.clone());
            // A manifest knows better.
            if !self.out.origins.pods.contains_key(&name) {
                self.out.world.pods.insert(name, pod);
            }
        }
    }

    fn containers(&mut self, register: &Register) {
        let facts = self.facts;
        let mut taken: BTreeSet<ObjectName> = self.out.world.pods.keys().cloned().collect();
        taken.extend(
            self.candidates
                .iter()
                .map(|candidate| candidate.name.clone()),
        );
        let mut containers: Vec<&Container> = facts
            .all_containers()
            .filter(|container| container.joined.is_none())
            .filter(|container| {
                container.is_running() || facts.containers.contains_key(&container.id)
            })
            .collect();
        // Each runtime lists its own in the order in which it made them.
        containers.sort_by_key(|container| container.created);
        joined(&mut containers, facts, register);
        // A name once given stays, whoever comes later.
        let known = |container: &Container| {
            let record = register.records.get(&Key::of(container))?;
            Some(record.name.clone())
        };
        let kept: BTreeSet<ObjectName> = containers.iter().copied().filter_map(known).collect();
        let named = self.named(&containers, register);
        taken.extend(self.naming.iter().map(|(pod, _)| pod.name.clone()));
        for container in containers {
            let mut identity =
                identity::identify(container, &self.settings.labels, &self.settings.namespaces);
            let reported = Reported {
                id: container.id.clone(),
                name: container.name.clone(),
                pod: identity.name.clone(),
                labels: identity.labels.clone(),
                ports: identity.ports.clone(),
            };
            let manifest = named.get(container.id.as_str());
            let name = if let Some(manifest) = manifest {
                identity = identity.completed(manifest);
                identity.name.clone()
            } else {
                match known(container).filter(|name| !taken.contains(name)) {
                    Some(name) if identity::is_made_of(&name, &identity.name, &container.id) => {
                        name
                    }
                    _ => {
                        let all: BTreeSet<ObjectName> = taken.union(&kept).cloned().collect();
                        identity::unique(&identity.name, &container.id, &all)
                    }
                }
            };
            taken.insert(name.clone());
            for note in &identity.notes {
                if note.is_meant_for_us() {
                    self.out.warnings.push(format!("container {name}: {note}"));
                }
            }
            self.out
                .origins
                .namespaces
                .entry(name.namespace.clone())
                .or_default();
            let origin = self
                .out
                .origins
                .pods
                .entry(name.clone())
                .or_insert_with(|| Origin {
                    since: jiff::Timestamp::from_second(container.created).ok(),
                    ..Origin::default()
                });
            origin.container = Some(reported);
            let pod = Pod {
                labels: identity.labels,
                ports: identity.ports,
                ..Pod::default()
            };
            self.container(container, name, pod, register);
        }
    }

    /// The manifests that name a container, by its ID. One that shares another's namespace is that
    /// one's endpoint.
    fn named(
        &mut self,
        containers: &[&Container],
        register: &Register,
    ) -> BTreeMap<String, PodManifest> {
        let facts = self.facts;
        let namespace = |id: &str| facts.containers.get(id).map(|namespace| namespace.nsid);
        let running = facts.all_containers().filter_map(|one| {
            let owner = one.joined.as_ref().unwrap_or(&one.id);
            let is_it = |owned: &&Container| {
                owned.id == *owner
                    || namespace(&one.id)
                        .is_some_and(|nsid| nsid.is_some() && namespace(&owned.id) == Some(nsid))
            };
            Some(Named {
                // containerd's are `NAMESPACE/ID`.
                id: one.id.rsplit('/').next().unwrap_or_default(),
                name: one.name.as_str(),
                value: containers.iter().position(is_it)?,
            })
        });
        let running: Vec<Named<'_, usize>> = running.collect();
        let mut named: BTreeMap<String, PodManifest> = BTreeMap::new();
        for (manifest, why) in &mut self.naming {
            let text = manifest.container.as_deref().unwrap_or_default();
            let mut meant = named::find(text, running.iter().copied());
            // Then by age, in which they are in order.
            meant.sort_by_key(|index| {
                let record = register.records.get(&Key::of(containers[*index]));
                let was_meant = record.is_some_and(|record| record.name == manifest.name);
                (!was_meant, *index)
            });
            let Some(index) = meant.first() else {
                *why = Some(NotNamed);
                continue;
            };
            let id = &containers[*index].id;
            if meant.len() > 1 {
                self.out.warnings.push(format!(
                    "Pod {}: `{text}` means {} containers, and {} is taken: give the whole ID of one",
                    manifest.name,
                    meant.len(),
                    printable(id),
                ));
            }
            if let Some(first) = named.get(id) {
                self.out.warnings.push(format!(
                    "Pod {}: container `{text}` is Pod {} already: its labels and ports are not added",
                    manifest.name, first.name
                ));
            } else {
                named.insert(id.clone(), manifest.clone());
            }
        }
        named
    }

    /// Pods of manifests whose container is not there.
    fn absent(&mut self) {
        for (manifest, why) in std::mem::take(&mut self.naming) {
            if self.is_taken(&manifest.name) {
                continue;
            }
            let unlisted = |runtime| {
                let engine = self.facts.engine(runtime);
                engine.may_have_containers() && !engine.listed
            };
            if let Some(why) = why.filter(|_| !Runtime::ALL.into_iter().any(unlisted)) {
                let text = manifest.container.as_deref().unwrap_or_default();
                self.out
                    .warnings
                    .push(format!("Pod {}: `{text}`: {why}", manifest.name));
            }
            let pod = Pod {
                labels: manifest.labels,
                ports: manifest.ports,
                ..Pod::default()
            };
            self.out.world.pods.insert(manifest.name, pod);
        }
    }

    fn container(
        &mut self,
        container: &Container,
        name: ObjectName,
        mut pod: Pod,
        register: &Register,
    ) {
        let namespace = self.facts.containers.get(&container.id);
        let on_host = namespace.is_some_and(|namespace| namespace.nsid.is_none());
        if container.host_network || on_host {
            self.unprotected(
                &name,
                "it is on the host's network, and speaks as the host".to_owned(),
            );
            pod.place = Place::HostNetwork;
            self.out.world.pods.insert(name, pod);
            return;
        }
        for network in &container.networks {
            if has_no_veth(&network.driver) {
                self.unprotected(
                    &name,
                    format!(
                        "its network `{}` is of the driver `{}`, without a veth that policy could be put on",
                        network.name, network.driver
                    ),
                );
            }
        }
        let Some((namespace, nsid)) =
            namespace.and_then(|namespace| Some((namespace, namespace.nsid?)))
        else {
            // Not inspected yet: `remembered` keeps it, if it was there before.
            return;
        };
        if self.owners.contains_key(&nsid) {
            // It shares the namespace of one that is known.
            return;
        }
        self.owners.insert(nsid, name.clone());
        let key = Key::of(container);
        let known = register
            .records
            .get(&key)
            .filter(|record| record.netns == namespace.identity);
        let interfaces = self.interfaces(nsid, |veth, bridge| {
            given_mac(container, bridge)
                .or_else(|| {
                    let before = known?.interfaces.get(&veth.ifindex)?;
                    Some(before.mac)
                })
                .or_else(|| namespace.peer_of(veth)?.mac)
        });
        let mut claims = BTreeSet::new();
        let mut given = BTreeMap::new();
        if container.runtime == Runtime::Containerd {
            self.without_veth(&name, namespace);
            let into = |veth: &&Veth| veth.peer_nsid == Some(nsid);
            for veth in self.facts.links.veths.iter().filter(into) {
                let before = known.and_then(|record| record.given.get(&veth.ifindex));
                let now = || namespace.peer_of(veth).map(|peer| usable(peer).collect());
                let Some(own) = before.cloned().or_else(now) else {
                    continue;
                };
                claims.extend(own.iter().copied());
                if before.is_some() || (namespace.looked_running && has_global(&own)) {
                    given.insert(veth.ifindex, own);
                }
            }
        }
        for network in &container.networks {
            claims.extend(network.ipv4.map(IpAddr::V4));
            claims.extend(network.ipv6.map(IpAddr::V6));
        }
        claims.extend(
            interfaces
                .values()
                .map(|interface| IpAddr::V6(link_local(interface.mac))),
        );
        self.candidates.push(Candidate {
            key,
            name,
            labels: pod.labels,
            ports: pod.ports,
            netns: namespace.identity,
            path: Some(namespace.path.clone()),
            claims,
            interfaces,
            given,
        });
    }

    /// Reports interfaces inside that frames leave by without passing a veth.
    fn without_veth(&mut self, name: &ObjectName, namespace: &Namespace) {
        for inside in &namespace.inside {
            let kind = match inside.kind.as_deref() {
                Some(kind @ ("macvlan" | "macvtap" | "ipvlan" | "ipvtap")) => kind,
                None if !inside.addresses.iter().all(IpAddr::is_loopback) => "hardware",
                _ => continue,
            };
            self.unprotected(
                name,
                format!(
                    "its interface `{}` is of the kind `{kind}`, without a veth that policy could be put on",
                    printable(&inside.name)
                ),
            );
        }
    }

    /// Endpoints of before that nobody has denied yet: those of an engine that has not
    /// answered, or not about them.
    fn remembered(&mut self, register: &Register) {
        for (key, record) in &register.records {
            let Some((runtime, id)) = key.container() else {
                continue;
            };
            let engine = self.facts.engine(runtime);
            if !engine.followed {
                continue;
            }
            if self
                .candidates
                .iter()
                .any(|candidate| candidate.key == *key)
            {
                continue;
            }
            let unanswered = !engine.listed
                || engine.snapshot.containers.iter().any(|container| {
                    container.id == id
                        && container.is_running()
                        && !self.facts.containers.contains_key(id)
                });
            if !unanswered || self.is_taken(&record.name) {
                continue;
            }
            let interfaces: BTreeMap<u32, Interface> = record
                .interfaces
                .iter()
                .filter(|(ifindex, before)| self.is_still(**ifindex, before))
                .map(|(ifindex, before)| (*ifindex, *before))
                .collect();
            if interfaces.is_empty() {
                continue;
            }
            for nsid in interfaces.values().filter_map(|interface| interface.nsid) {
                self.owners
                    .entry(nsid)
                    .or_insert_with(|| record.name.clone());
            }
            self.candidates.push(Candidate {
                key: key.clone(),
                name: record.name.clone(),
                labels: record.labels.clone(),
                ports: record.ports.clone(),
                netns: record.netns,
                path: None,
                claims: record.addresses.clone(),
                interfaces,
                given: record.given.clone(),
            });
        }
    }

    fn is_taken(&self, name: &ObjectName) -> bool {
        self.out.world.pods.contains_key(name)
            || self
                .candidates
                .iter()
                .any(|candidate| candidate.name == *name)
    }

    /// Is this interface the one that it was, and nobody else's?
    fn is_still(&self, ifindex: u32, before: &Interface) -> bool {
        self.facts.links.veths.iter().any(|veth| {
            veth.ifindex == ifindex
                && veth.peer_ifindex == before.peer
                && veth.peer_nsid.is_some()
                && veth.peer_nsid == before.nsid
                && veth
                    .peer_nsid
                    .is_some_and(|nsid| !self.owners.contains_key(&nsid))
        })
    }

    /// The veths into a namespace whose other end's MAC address is known; the others are on hold.
    fn interfaces(
        &mut self,
        nsid: i32,
        mac: impl Fn(&Veth, Option<&str>) -> Option<[u8; 6]>,
    ) -> BTreeMap<u32, Interface> {
        let links = &self.facts.links;
        let mut interfaces = BTreeMap::new();
        for veth in &links.veths {
            if veth.peer_nsid != Some(nsid) {
                continue;
            }
            let bridge = veth.master.and_then(|master| links.bridges.get(&master));
            match mac(veth, bridge.map(String::as_str)) {
                Some(mac) => {
                    let interface = Interface {
                        mac,
                        peer: veth.peer_ifindex,
                        nsid: veth.peer_nsid,
                    };
                    interfaces.insert(veth.ifindex, interface);
                }
                None => {
                    self.on_hold.insert(
                        veth.ifindex,
                        "the MAC address of the container's end is not known yet".to_owned(),
                    );
                }
            }
        }
        interfaces
    }

    /// Whose each address is.
    fn addresses(&mut self, register: &Register) {
        let holders = register.holders();
        let mut given: BTreeMap<IpAddr, ObjectName> = BTreeMap::new();
        for candidate in &self.candidates {
            for address in &candidate.claims {
                if holders.get(address) == Some(&&candidate.key) {
                    given.insert(*address, candidate.name.clone());
                }
            }
        }
        let (dns, _) = resolver::kube_dns(BTreeSet::new());
        let dns_is_ours = !self.out.origins.pods.contains_key(&dns);
        let host = self.out.world.host.clone();
        let mut conflicts = Vec::new();
        let mut warnings = Vec::new();
        let mut claim = |name: &ObjectName, addresses: &mut BTreeSet<IpAddr>, quiet: bool| {
            addresses.retain(|address| {
                if host.contains(address) {
                    if !quiet {
                        warnings.push(format!(
                            "Pod {name}: {address} is the host's own address, and stays the host's"
                        ));
                    }
                    return false;
                }
                let holder = given.entry(*address).or_insert_with(|| name.clone());
                if holder == name {
                    return true;
                }
                if !quiet {
                    conflicts.push(Conflict {
                        address: *address,
                        holder: holder.clone(),
                        other: name.clone(),
                    });
                }
                false
            });
        };
        for (name, pod) in &mut self.out.world.pods {
            if pod.place == Place::External && (*name != dns || !dns_is_ours) {
                claim(name, &mut pod.addresses, false);
            }
        }
        // The engine's own word goes before what somebody says of himself.
        let (declared, containers): (Vec<_>, Vec<_>) = self
            .candidates
            .iter_mut()
            .partition(|candidate| matches!(candidate.key, Key::Declared(_)));
        for candidate in containers.into_iter().chain(declared) {
            claim(&candidate.name, &mut candidate.claims, false);
        }
        if dns_is_ours && let Some(pod) = self.out.world.pods.get_mut(&dns) {
            claim(&dns, &mut pod.addresses, true);
        }
        self.out.conflicts.append(&mut conflicts);
        self.out.warnings.append(&mut warnings);
    }

    /// Numbers, and the register as it is from now on.
    fn places(&mut self, register: &mut Register) {
        let known: BTreeSet<&Key> = self
            .candidates
            .iter()
            .filter(|candidate| !candidate.interfaces.is_empty())
            .map(|candidate| &candidate.key)
            .collect();
        register.records.retain(|key, _| known.contains(key));
        for candidate in std::mem::take(&mut self.candidates) {
            let mut pod = Pod {
                labels: candidate.labels,
                ports: candidate.ports,
                addresses: candidate.claims,
                place: Place::Local,
            };
            if let Some(path) = candidate.path {
                self.out.namespaces.insert(candidate.name.clone(), path);
            }
            if !candidate.interfaces.is_empty() {
                if let Some((id, slot)) = register.number(&candidate.key, candidate.netns) {
                    pod.place = Place::Attached(world::Attached {
                        slot,
                        id,
                        interfaces: candidate
                            .interfaces
                            .iter()
                            .map(|(ifindex, interface)| (*ifindex, interface.mac))
                            .collect(),
                        // All of them lead to one namespace, which has one id.
                        netns: candidate
                            .interfaces
                            .values()
                            .find_map(|interface| u32::try_from(interface.nsid?).ok()),
                    });
                    for ifindex in candidate.interfaces.keys() {
                        self.out
                            .interfaces
                            .insert(*ifindex, Some(candidate.name.clone()));
                    }
                    let record = Record {
                        netns: candidate.netns,
                        id,
                        slot,
                        name: candidate.name.clone(),
                        labels: pod.labels.clone(),
                        ports: pod.ports.clone(),
                        addresses: pod.addresses.clone(),
                        interfaces: candidate.interfaces,
                        given: candidate.given,
                    };
                    register.records.insert(candidate.key, record);
                } else {
                    self.out.warnings.push(format!(
                        "Pod {}: there is no room for another endpoint: its traffic is dropped",
                        candidate.name
                    ));
                    for ifindex in candidate.interfaces.keys() {
                        self.on_hold
                            .insert(*ifindex, "there is no room for another endpoint".to_owned());
                    }
                }
            }
            self.out.world.pods.insert(candidate.name, pod);
        }
    }

    /// Remembers where containerd's containers are: what will be there next may be one.
    fn bridges(&self, register: &mut Register) {
        let links = &self.facts.links;
        let owned: BTreeSet<u32> = register
            .records
            .iter()
            .filter(|(key, _)| matches!(key, Key::Containerd(_)))
            .flat_map(|(_, record)| record.interfaces.keys().copied())
            .collect();
        for veth in &links.veths {
            if !owned.contains(&veth.ifindex) || register.bridges.len() >= MOST_BRIDGES {
                continue;
            }
            let bridge = match veth.master {
                Some(master) => links.bridges.get(&master).cloned(),
                None => Some(String::new()),
            };
            register.bridges.extend(bridge);
        }
    }

    /// Interfaces on hold: what looks like a container's, or was one's, and is nobody's.
    fn holds(
        &mut self,
        programmed: &BTreeSet<u32>,
        released: &BTreeSet<u32>,
        cni_bridges: &BTreeSet<String>,
    ) {
        let facts = self.facts;
        let links = &facts.links;
        // Bridges of Docker's own that nobody follows are nobody's here.
        let dockers_strangers = facts.docker.socket && !facts.docker.followed;
        for veth in &links.veths {
            if self.out.interfaces.contains_key(&veth.ifindex) {
                self.out
                    .interface_names
                    .insert(veth.ifindex, veth.name.clone());
                continue;
            }
            let bridge = veth.master.and_then(|master| links.bridges.get(&master));
            let bridge = bridge.map(String::as_str);
            // An unenslaved veth with both ends here may be the end that moves to the container
            // later, and would take a program along.
            let alone = veth.master.is_none() && veth.peer_nsid.is_some();
            let looks_like = |runtime| match runtime {
                Runtime::Docker => {
                    bridge.is_some_and(|bridge| {
                        is_bridge_name(bridge) || facts.docker.bridges.contains(bridge)
                    }) || (alone && docker::is_veth_name(&veth.name))
                }
                Runtime::Containerd => {
                    containerd::is_veth_name(&veth.name)
                        && match bridge {
                            Some(bridge) => {
                                cni_bridges.contains(bridge)
                                    || is_cni_bridge_name(bridge)
                                    || (is_network_bridge_name(bridge) && !dockers_strangers)
                            }
                            None => alone && cni_bridges.contains(""),
                        }
                }
            };
            let candidates = Runtime::ALL
                .into_iter()
                .filter(|runtime| {
                    facts.engine(*runtime).may_have_containers() && looks_like(*runtime)
                })
                .collect::<Vec<_>>();
            let silent = |runtime: &Runtime| !facts.engine(*runtime).listed;
            let reason = if let Some(reason) = self.on_hold.remove(&veth.ifindex) {
                reason
            } else if let Some(runtime) = candidates.iter().copied().find(silent) {
                format!("{} has not answered yet", runtime.name())
            } else if !candidates.is_empty() {
                "the container behind it is not known yet".to_owned()
            } else if let Some(runtime) = Runtime::ALL
                .into_iter()
                .find(|runtime| facts.engine(*runtime).followed && silent(runtime))
                && programmed.contains(&veth.ifindex)
                && !released.contains(&veth.ifindex)
            {
                // It was enforced before the daemon started: it may be a container's.
                format!(
                    "it was enforced before, and {} has not answered yet",
                    runtime.name()
                )
            } else {
                continue;
            };
            self.out.interfaces.insert(veth.ifindex, None);
            self.out
                .interface_names
                .insert(veth.ifindex, veth.name.clone());
            self.out.unidentified.push(Unidentified {
                interface: veth.name.clone(),
                ifindex: veth.ifindex,
                reason,
            });
        }
    }

    fn unprotected(&mut self, name: &ObjectName, reason: String) {
        self.out.unprotected.push(Unprotected {
            container: name.to_string(),
            reason,
        });
    }
}

/// Interfaces of declared endpoints: where a manifest no longer declares one, nobody holds it.
fn released(register: &Register) -> BTreeSet<u32> {
    register
        .records
        .iter()
        .filter(|(key, _)| matches!(key, Key::Declared(_)))
        .flat_map(|(_, record)| record.interfaces.keys().copied())
        .collect()
}

/// Drivers whose interfaces have no end on this host's side that frames pass through.
fn has_no_veth(driver: &str) -> bool {
    !matches!(driver, "" | "bridge" | "null" | "none" | "host")
}

/// Names that engines give to bridges.
fn is_bridge_name(name: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_network_bridge_name(name)
        || matches!(name, "docker0" | "docker_gwbridge")
        || name
            .strip_prefix("cni-")
            .unwrap_or(name)
            .strip_prefix("podman")
            .is_some_and(digits)
}

/// What Docker and nerdctl call the bridge of a network that somebody made.
fn is_network_bridge_name(name: &str) -> bool {
    name.strip_prefix("br-")
        .is_some_and(|id| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// What the CNI plugin calls its bridge where nothing is said, and nerdctl its first one.
fn is_cni_bridge_name(name: &str) -> bool {
    matches!(name, "cni0" | "nerdctl0")
}

/// Of those that share a network namespace, leaves the one that is its endpoint; of a Pod on the
/// host's network likewise.
fn joined(containers: &mut Vec<&Container>, facts: &Facts, register: &Register) {
    let namespace = |container: &Container| facts.containers.get(&container.id);
    // In the order of the list: the oldest first.
    let rank = |container: &Container| {
        let held = register.records.get(&Key::of(container));
        let holds = held.map(|record| record.netns) == namespace(container).map(|it| it.identity);
        (!holds, !container.is_sandbox())
    };
    let mut owners: BTreeMap<i32, &Container> = BTreeMap::new();
    let mut on_host: BTreeSet<&str> = BTreeSet::new();
    for &container in containers.iter() {
        match namespace(container).map(|namespace| namespace.nsid) {
            Some(Some(nsid)) => {
                let owner = owners.entry(nsid).or_insert(container);
                if rank(container) < rank(owner) {
                    *owner = container;
                }
            }
            Some(None) => {
                let part = container.part.as_ref().filter(|part| part.sandbox);
                on_host.extend(part.map(|part| part.pod.as_str()));
            }
            None => {}
        }
    }
    containers.retain(
        |container| match namespace(container).map(|namespace| namespace.nsid) {
            Some(Some(nsid)) => owners
                .get(&nsid)
                .is_some_and(|owner| owner.id == container.id),
            Some(None) => container
                .part
                .as_ref()
                .is_none_or(|part| part.sandbox || !on_host.contains(part.pod.as_str())),
            None => true,
        },
    );
}

/// Addresses of an interface that others can speak to.
fn usable(inside: &Inside) -> impl Iterator<Item = IpAddr> {
    let addresses = inside.addresses.iter().copied();
    addresses.filter(|address| !address.is_loopback() && !address.is_unspecified())
}

/// Is one of them more than what the kernel gives every interface?
fn has_global(addresses: &BTreeSet<IpAddr>) -> bool {
    addresses.iter().any(|address| match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    })
}

/// What the engine says of the container's end on this bridge.
fn given_mac(container: &Container, bridge: Option<&str>) -> Option<[u8; 6]> {
    let bridge = bridge?;
    container
        .networks
        .iter()
        .find(|network| network.bridge.as_deref() == Some(bridge))
        .and_then(|network| network.mac)
}

/// The link-local address that the kernel gives an interface of this MAC address
/// (RFC 4291, appendix A).
fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from(octets)
}
