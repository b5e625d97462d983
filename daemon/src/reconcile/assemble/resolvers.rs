//! The resolvers that containers may have been given, as one peer; and whose questions no policy sees.
//!
//! A container keeps the resolvers that the host had when it started: its resolv.conf(5) and the resolver of its engine
//! are made then. So the register has them for as long as it runs.

use std::collections::BTreeMap;

use netpol_engine::resolver;

use super::Assembly;
use crate::reconcile::register::{Key, Register, Started};
use crate::runtime::container::{AskedFrom, Container, State};

impl Assembly<'_> {
    /// Notes what containers have started with, and makes the peer.
    pub(super) fn kube_dns(&mut self, register: &mut Register) {
        let now = &self.facts.resolvers;
        let with_own = |container: &&Container| {
            container.state != State::Ended && !container.host_network && container.joined.is_none()
        };
        let containers = self.facts.all_containers().filter(with_own);
        let containers: BTreeMap<Key, &Container> = containers
            .map(|container| (Key::of(container), container))
            .collect();
        register.started.retain(|key, started| {
            let engine = key
                .container()
                .and_then(|(runtime, id)| self.facts.engine_of(runtime, id));
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

    /// Endpoints whose resolvers are asked from the host's network namespace.
    pub(super) fn asked_from_host(&mut self, register: &Register) {
        let containers: BTreeMap<Key, &Container> = self
            .facts
            .all_containers()
            .filter(|container| container.dns.asked_from != AskedFrom::Container)
            .map(|container| (Key::of(container), container))
            .collect();
        for candidate in &self.candidates {
            let Some(container) = containers.get(&candidate.key) else {
                continue;
            };
            let started = register.started.get(&candidate.key);
            let from_host = match container.dns.asked_from {
                AskedFrom::Container => false,
                AskedFrom::HostIfLoopback => {
                    started.is_some_and(|started| started.resolvers.loopback)
                }
                AskedFrom::Host => true,
            };
            if from_host {
                let asked = started.map(|started| started.resolvers.addresses.clone());
                let asked = asked.unwrap_or_default();
                if let Some(origin) = self.out.origins.pods.get_mut(&candidate.name) {
                    origin.asked_from_host = true;
                }
                self.out
                    .asked_from_host
                    .insert(candidate.name.clone(), asked);
            }
        }
    }
}
