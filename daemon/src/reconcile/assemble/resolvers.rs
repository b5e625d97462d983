//! The resolvers that containers may have been given, as one peer; and whose questions are asked from the host's network
//! namespace.
//!
//! A container keeps the resolvers that the host had when it started: its resolv.conf(5) and the resolver of its engine
//! are made then. So the register has them for as long as it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_engine::resolver;

use super::Assembly;
use crate::datapath::is_loopback;
use crate::reconcile::register::{Key, Record, Register, Started};
use crate::runtime::container::{AskedFrom, Container, State};

/// An endpoint whose engine asks for names on its behalf, from the host's network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedFromHost {
    /// The resolvers that it asks, as far as they are known.
    pub resolvers: BTreeSet<IpAddr>,
    /// The number of the endpoint's loopback interface, where its questions are judged; `None`: no path leads there.
    pub loopback: Option<u32>,
    /// A process in its network namespace has CAP_NET_ADMIN there, and can lead questions around the program.
    pub net_admin: bool,
}

impl Assembly<'_> {
    /// Notes what containers have started with, and makes the peer.
    pub(super) fn kube_dns(&mut self, register: &mut Register) {
        let now = &self.observed.resolvers;
        let with_own = |container: &&Container| {
            container.state != State::Ended && !container.host_network && container.joined.is_none()
        };
        let containers = self.observed.all_containers().filter(with_own);
        let containers: BTreeMap<Key, &Container> = containers
            .map(|container| (Key::from_container(container), container))
            .collect();
        register.started.retain(|key, started| {
            let engine = key
                .container()
                .and_then(|(runtime, id)| self.observed.engine_of(runtime, id));
            match containers.get(key) {
                Some(container) => container.pid == 0 || container.pid == started.pid,
                // It may just not have been named yet.
                None => engine.is_some_and(|engine| engine.followed && !engine.listed),
            }
        });
        for (key, container) in &containers {
            if container.is_running() && container.pid != 0 && !register.started.contains_key(key) {
                let started = Started {
                    pid: container.pid,
                    resolvers: now.clone(),
                };
                register.started.insert(key.clone(), started);
            }
        }
        if !self.settings.kube_dns {
            return;
        }
        let mut addresses = now.addresses.clone();
        for started in register.started.values() {
            addresses.extend(&started.resolvers.addresses);
        }
        for container in containers.values() {
            addresses.extend(&container.dns.servers);
        }
        let (name, pod) = resolver::kube_dns(addresses);
        // A manifest knows better.
        if !self.out.origins.pods.contains_key(&name) {
            self.out.world.pods.insert(name, pod);
        }
    }

    /// The resolvers that a container's engine asks for it, from the host's network namespace; `None`: it does not.
    /// `known`: what was there before.
    pub(super) fn asks(
        &self,
        container: &Container,
        known: Option<&Record>,
        register: &Register,
    ) -> Option<BTreeSet<IpAddr>> {
        let started = register.started.get(&Key::from_container(container));
        // What has not started yet will do so with those of now.
        let resolvers = started.map_or(&self.observed.resolvers, |started| &started.resolvers);
        let from_host = match container.dns.asked_from {
            AskedFrom::Container => false,
            AskedFrom::HostIfLoopback => resolvers.loopback,
            AskedFrom::Host => true,
            AskedFrom::Unknown => return known?.asks.clone(),
        };
        from_host.then(|| {
            let all = resolvers.addresses.iter().chain(&container.dns.servers);
            all.copied().collect()
        })
    }

    /// Notes the endpoints whose engine asks for them.
    pub(super) fn asked_from_host(&mut self) {
        for candidate in &self.candidates {
            let Some(resolvers) = &candidate.asks else {
                continue;
            };
            let mut numbers = candidate.interfaces.keys().copied();
            let container = candidate.key.container();
            let namespace = container.and_then(|(_, id)| self.observed.containers.get(id));
            let asked = AskedFromHost {
                resolvers: resolvers.clone(),
                loopback: numbers.find(|number| is_loopback(*number)),
                net_admin: namespace.is_some_and(|namespace| namespace.rights.net_admin),
            };
            self.out
                .asked_from_host
                .insert(candidate.name.clone(), asked);
        }
    }
}
