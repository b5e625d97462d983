//! From containers to endpoints: which of the containers that share a namespace is one, what its interfaces
//! are, and those of before while their engine has not answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use netpol_engine::policy::ObjectName;
use netpol_engine::world::{Place, Pod};

use super::subinterfaces::is_apart;
use super::{Assembly, Candidate};
use crate::datapath::is_inside;
use crate::links::{Inside, Veth};
use crate::reconcile::observed::{Namespace, Observed};
use crate::reconcile::register::{Interface, Key, Register};
use crate::runtime::container::{Container, Runtime};

impl Assembly<'_> {
    pub(super) fn container(
        &mut self,
        container: &Container,
        name: ObjectName,
        mut pod: Pod,
        register: &Register,
    ) {
        let namespace = self.observed.containers.get(&container.id);
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
        let key = Key::from_container(container);
        let known = register.record_in(&key, namespace);
        let mut interfaces = self.interfaces(nsid, |veth, bridge| {
            given_mac(container, bridge)
                .or_else(|| {
                    let before = known?.interfaces.get(&veth.ifindex)?;
                    Some(before.mac)
                })
                .or_else(|| namespace.peer_of(veth)?.mac)
        });
        let subinterfaces = self.subinterfaces(&name, &container.networks, namespace, known);
        self.networks(container, &name, namespace, &subinterfaces);
        self.rights(container, &name, namespace, &subinterfaces);
        let hidden: BTreeSet<u32> = subinterfaces
            .iter()
            .filter(|(_, interface)| {
                let inside = namespace.interface(interface.peer);
                inside.is_some_and(|inside| inside.is_hidden)
            })
            .map(|(number, _)| *number)
            .collect();
        let was_apart = known.is_some_and(|record| record.apart);
        let apart = !hidden.is_empty() && (was_apart || is_apart(namespace, &container.networks));
        let elsewhere = self.is_elsewhere(container, namespace);
        if elsewhere {
            self.unprotected(
                &name,
                "its network is made out of this host's sight (rootless?): it has no interface here that policy could be put on"
                    .to_owned(),
            );
        }
        let mut claims = BTreeSet::new();
        let mut given = BTreeMap::new();
        if container.runtime == Runtime::Containerd {
            self.hardware(&name, namespace);
            let into = |veth: &&Veth| veth.peer_nsid == Some(nsid);
            let veths = self.observed.links.veths.iter().filter(into);
            let veths = veths.map(|veth| (veth.ifindex, namespace.peer_of(veth)));
            let inside = subinterfaces.iter();
            let inside = inside.map(|(number, it)| (*number, namespace.interface(it.peer)));
            for (number, end) in veths.chain(inside) {
                let before = known.and_then(|record| record.given.get(&number));
                let now = || end.map(|end| end.usable().collect());
                let Some(own) = before.cloned().or_else(now) else {
                    continue;
                };
                claims.extend(own.iter().copied());
                if before.is_some() || (namespace.looked_running && has_global(&own)) {
                    given.insert(number, own);
                }
            }
        }
        // Out of sight, its addresses mean nothing here, and may be another endpoint's.
        for network in container.networks.iter().filter(|_| !elsewhere) {
            claims.extend(network.addresses());
        }
        claims.extend(
            interfaces
                .values()
                .map(|interface| IpAddr::V6(link_local(interface.mac))),
        );
        for interface in subinterfaces.values() {
            // Not by the MAC address alone: of the one that they share, each ipvlan makes another.
            let end = namespace.interface(interface.peer).into_iter();
            claims.extend(end.flat_map(Inside::usable).filter(is_link_local));
        }
        interfaces.extend(subinterfaces);
        let asks = self.asks(container, known, register).filter(|_| !elsewhere);
        if asks.is_some() {
            interfaces.extend(self.loopback(namespace, known));
        }
        self.candidates.push(Candidate {
            key,
            name,
            labels: pod.labels,
            ports: pod.ports,
            netns: namespace.identity,
            // No path leads to a build's.
            path: Some(namespace.path.clone()).filter(|path| !path.as_os_str().is_empty()),
            claims,
            leaves: pod.leaves,
            published: container.published.clone(),
            interfaces,
            hidden,
            apart,
            given,
            asks,
        });
    }

    /// Does it run on a network of which no end is on this host: neither a veth nor what a sub-interface stands on?
    fn is_elsewhere(&self, container: &Container, namespace: &Namespace) -> bool {
        let mut veths = self.observed.links.veths.iter();
        let has_veth = veths.any(|veth| veth.peer_nsid == namespace.nsid);
        let mut inside = namespace.inside.iter();
        container.runtime == Runtime::Docker
            && container.is_running()
            && container.network_mode != "none"
            && !has_veth
            && inside.all(|one| one.subinterface().is_none() && !one.is_hidden)
            && namespace
                .inside
                .iter()
                .any(|one| one.up && one.usable().any(|address| !is_link_local(&address)))
    }

    /// Endpoints of before that no engine has denied yet: those of an engine that has not
    /// answered, or not about them.
    pub(super) fn remembered(&mut self, register: &Register) {
        for (key, record) in &register.records {
            let Some((runtime, id)) = key.container() else {
                continue;
            };
            let engine = self.observed.engine_of(runtime, id);
            let Some(engine) = engine.filter(|engine| engine.followed) else {
                continue;
            };
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
                        && !self.observed.containers.contains_key(id)
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
                leaves: record.leaves.clone(),
                published: record.published.clone(),
                interfaces,
                hidden: record.hidden.clone(),
                apart: record.apart,
                given: record.given.clone(),
                asks: record.asks.clone(),
            });
        }
    }

    /// Is this interface the one that it was, without another owner?
    fn is_still(&self, ifindex: u32, before: &Interface) -> bool {
        if is_inside(ifindex) {
            // A link goes with its interface, and no other one gets its number.
            let owned = before
                .nsid
                .is_some_and(|nsid| self.owners.contains_key(&nsid));
            return self.programmed.contains(&ifindex) && !owned;
        }
        self.observed.links.veths.iter().any(|veth| {
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
    pub(super) fn interfaces(
        &mut self,
        nsid: i32,
        mac: impl Fn(&Veth, Option<&str>) -> Option<[u8; 6]>,
    ) -> BTreeMap<u32, Interface> {
        let links = &self.observed.links;
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
}

/// Of those that share a network namespace, leaves the one that is its endpoint; of a Pod on the
/// host's network likewise.
pub(super) fn joined(containers: &mut Vec<&Container>, observed: &Observed, register: &Register) {
    let namespace = |container: &Container| observed.containers.get(&container.id);
    // In the order of the list: the oldest first.
    let rank = |container: &Container| {
        let held = register.records.get(&Key::from_container(container));
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

/// Is one of them more than what the kernel gives every interface?
fn has_global(addresses: &BTreeSet<IpAddr>) -> bool {
    !addresses.iter().all(is_link_local)
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
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
