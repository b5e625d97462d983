//! Which of the host's NAT rules hide senders from containers.

use super::Assembly;
use netpol_engine::world::Place;

use crate::translation::{Containers, Rule};

impl Assembly<'_> {
    /// The rules by which a packet from beyond this host may reach an endpoint under another address.
    pub(super) fn translations(&mut self) {
        let links = &self.facts.links;
        let mut containers = Containers {
            bridges: links.bridges.values().cloned().collect(),
            ..Containers::default()
        };
        for pod in self.out.world.pods.values() {
            let Place::Attached(attached) = &pod.place else {
                continue;
            };
            containers.addresses.extend(&pod.addresses);
            let ends = attached
                .interfaces
                .keys()
                .filter_map(|ifindex| links.veths.iter().find(|veth| veth.ifindex == *ifindex));
            containers.interfaces.extend(ends.map(|veth| {
                let bridge = veth.master.and_then(|master| links.bridges.get(&master));
                bridge.unwrap_or(&veth.name).clone()
            }));
        }
        let hiding = self.facts.translations.iter();
        let hiding = hiding.filter(|rule: &&Rule| rule.hides(&containers));
        self.out.hiding = hiding.map(|rule| rule.text.clone()).collect();
    }
}
