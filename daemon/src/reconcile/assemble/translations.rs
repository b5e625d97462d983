//! Which of the host's NAT rules hide senders from containers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Assembly;
use netpol_engine::world::Place;

use crate::translation::{Containers, Rule};

impl Assembly<'_> {
    /// The rules by which a packet from beyond this host may reach an endpoint under another address.
    pub(super) fn translations(&mut self) {
        // Most hosts have no such rule at all: then nothing is gathered for it.
        if self.observed.translations.is_empty() {
            return;
        }
        let links = &self.observed.links;
        let pods = self.out.world.pods.values();
        let attached = pods.filter(|pod| matches!(pod.place, Place::Attached(_)));
        let addresses: BTreeSet<IpAddr> = attached.flat_map(|pod| pod.addresses.clone()).collect();
        let owned = |ifindex| matches!(self.out.interfaces.get(ifindex), Some(Some(_)));
        let ends = links.veths.iter().filter(|veth| owned(&veth.ifindex));
        let interfaces = ends.map(|veth| {
            let bridge = veth.master.and_then(|master| links.bridges.get(&master));
            bridge.unwrap_or(&veth.name).clone()
        });
        let containers = Containers {
            interfaces: interfaces.collect(),
            addresses,
            bridges: links.bridges.values().cloned().collect(),
        };
        let hiding = self.observed.translations.iter();
        let hiding = hiding.filter(|rule: &&Rule| rule.hides(&containers));
        self.out.hiding = hiding.map(|rule| rule.text.clone()).collect();
    }
}
