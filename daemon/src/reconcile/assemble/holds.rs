//! Unidentified interfaces: they look like a container's, or were one's, and have no owner yet.

use std::collections::{BTreeMap, BTreeSet};

use super::Assembly;
use super::Unidentified;
use crate::bridges::{Maker, maker};
use crate::datapath::is_inside;
use crate::gate::VethNaming;
use crate::reconcile::observed::Engine;
use crate::reconcile::register::{Key, Register};
use crate::runtime::container::{Container, Runtime};
use crate::runtime::containerd;

/// Bridges that are remembered, at most: a host has few.
const MOST_BRIDGES: usize = 64;

/// Why an interface is on hold whose container has ended: it is about to go, and that is nothing to tell of.
pub(in crate::reconcile) const ENDED: &str = "the endpoint that it belonged to is gone";
/// Why one is on hold that no engine has claimed.
pub(in crate::reconcile) const UNKNOWN: &str = "the container behind it is not known yet";

impl Assembly<'_> {
    /// Remembers where containers are: what will be there next may be one.
    pub(super) fn remember_seen(&self, register: &mut Register) {
        let links = &self.observed.links;
        let owners: BTreeMap<u32, &Key> = register
            .records
            .iter()
            .filter(|(key, _)| key.container().is_some())
            .flat_map(|(key, record)| record.interfaces.keys().map(move |ifindex| (*ifindex, key)))
            .collect();
        for veth in &links.veths {
            let Some(owner) = owners.get(&veth.ifindex) else {
                continue;
            };
            register.seen.namings.extend(VethNaming::find(&veth.name));
            let is_containerds = matches!(owner, Key::Containerd(_));
            if !is_containerds || register.seen.bridges.len() >= MOST_BRIDGES {
                continue;
            }
            let bridge = match veth.master {
                Some(master) => links.bridges.get(&master).cloned(),
                None => Some(String::new()),
            };
            register.seen.bridges.extend(bridge);
        }
    }

    /// Interfaces inside that have no owner yet: there was no room for their endpoint, or an earlier daemon put
    /// programs on them and whose they are is not known again.
    pub(super) fn holds_inside(&mut self, released: &BTreeSet<u32>) {
        let observed = self.observed;
        let unanswered = observed.engines().find(|engine| {
            let mut containers = engine.snapshot.containers.iter();
            let is_unseen = |container: &Container| {
                container.is_running()
                    && container.joined.is_none()
                    && !observed.containers.contains_key(&container.id)
            };
            engine.followed && (!engine.listed || containers.any(is_unseen))
        });
        let known = std::mem::take(&mut self.on_hold).into_iter();
        let (inside, on_hold) = known.partition(|(number, _)| is_inside(*number));
        self.on_hold = on_hold;
        let mut held: BTreeMap<u32, String> = inside;
        for number in self.programmed.iter().filter(|number| is_inside(**number)) {
            let is_owned = self.out.interfaces.contains_key(number);
            if let Some(engine) = unanswered.filter(|_| !is_owned && !released.contains(number)) {
                held.entry(*number).or_insert_with(|| {
                    format!(
                        "it was enforced before, and {} has not answered yet",
                        engine.label
                    )
                });
            }
        }
        for (number, reason) in held {
            self.out.interfaces.insert(number, None);
            let child = self.out.inside.get(&number);
            self.out.unidentified.push(Unidentified {
                interface: child
                    .map_or("inside a container", |child| &child.name)
                    .to_owned(),
                ifindex: child.map_or(0, |child| child.within.location.ifindex),
                reason,
            });
        }
    }

    /// Was an interface this container's, of which no process is there any more? The kernel shows that before the
    /// engine tells of it.
    fn has_ended(&self, owner: Option<&Key>) -> bool {
        let Some((runtime, id)) = owner.and_then(Key::container) else {
            return false;
        };
        let engine = self.observed.engine_of(runtime, id);
        engine.is_some_and(|engine| engine.listed) && !self.observed.containers.contains_key(id)
    }

    /// Unidentified interfaces: they look like a container's, or were one's, and have no owner.
    pub(super) fn holds(&mut self, released: &BTreeSet<u32>, register: &Register) {
        let observed = self.observed;
        let cni_bridges = &register.seen.bridges;
        let links = &observed.links;
        // Bridges of a Docker engine that is not followed have no owner here.
        let mut dockers = observed.docker.iter();
        let dockers_strangers = dockers.any(|engine| engine.socket && !engine.followed);
        for veth in &links.veths {
            if self.out.interfaces.contains_key(&veth.ifindex) {
                self.out
                    .interface_names
                    .insert(veth.ifindex, veth.name.clone());
                continue;
            }
            let is_engines = |nsid| observed.engines_own.contains(&nsid);
            if veth.peer_nsid.is_some_and(is_engines) {
                continue;
            }
            let bridge = veth.master.and_then(|master| links.bridges.get(&master));
            let bridge = bridge.map(String::as_str);
            // An unenslaved veth may be the end that moves to the container later, and would take a program along: also
            // where the other end has moved already, as that of an overlay to its hidden bridge. An engine that can't
            // announce the container's address in there then does not start it.
            let alone = veth.master.is_none() && veth.peer_nsid.is_some();
            // An engine that has named it is the only one that can tell whose its ports are: no other one is waited for.
            let has_named = |engine: &&Engine| {
                engine.may_have_containers()
                    && engine.listed
                    && bridge.is_some_and(|bridge| engine.bridges.contains(bridge))
            };
            let is_named = observed.docker.iter().any(|engine| has_named(&engine));
            let looks_like = |engine: &Engine| match engine.runtime {
                Runtime::Docker if is_named => has_named(&engine),
                Runtime::Docker => bridge.is_some_and(|bridge| {
                    matches!(maker(bridge), Some(Maker::Docker | Maker::Either))
                        || engine.bridges.contains(bridge)
                }),
                Runtime::Containerd => {
                    containerd::is_veth_name(&veth.name)
                        && match bridge {
                            Some(bridge) => {
                                cni_bridges.contains(bridge)
                                    || maker(bridge) == Some(Maker::Cni)
                                    || (maker(bridge) == Some(Maker::Either) && !dockers_strangers)
                            }
                            None => alone && cni_bridges.contains(""),
                        }
                }
            };
            let candidates = observed
                .engines()
                .filter(|engine| engine.may_have_containers() && looks_like(engine))
                .collect::<Vec<_>>();
            let silent = |engine: &&Engine| !engine.listed;
            let reason = if let Some(reason) = self.on_hold.remove(&veth.ifindex) {
                reason
            } else if let Some(engine) = candidates.iter().copied().find(silent) {
                format!("{} has not answered yet", engine.label)
            } else if !candidates.is_empty() && self.has_ended(register.owned.get(&veth.ifindex)) {
                ENDED.to_owned()
            } else if !candidates.is_empty() {
                UNKNOWN.to_owned()
            } else if let Some(engine) = observed
                .engines()
                .find(|engine| engine.followed && silent(engine))
                && self.programmed.contains(&veth.ifindex)
                && !released.contains(&veth.ifindex)
            {
                // It was enforced before the daemon started: it may be a container's.
                format!(
                    "it was enforced before, and {} has not answered yet",
                    engine.label
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
}

/// Interfaces of declared endpoints: where a manifest no longer declares one, no engine will claim it.
pub(super) fn released(register: &Register) -> BTreeSet<u32> {
    register
        .records
        .iter()
        .filter(|(key, _)| matches!(key, Key::Declared(_)))
        .flat_map(|(_, record)| record.interfaces.keys().copied())
        .collect()
}
