//! The world that is compiled in place of the one asked about: every local Pod has a number, and
//! every Pod an address.
//!
//! The compiler gives classes to addresses alone, and manifests outside of a cluster rarely state
//! one. A Pod without any gets one in a network that nothing in the world speaks of, and every
//! block around that network an exception for it: so its labels count, and no block does.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};

use crate::policy::{ObjectName, Peer};
use crate::world::{Attached, Place, World};

/// The world to compile.
pub(super) struct StandIn<'w> {
    /// With a slot for every enforced Pod: its position among all.
    pub world: World,
    /// The addresses lent to Pods that have none.
    pub addresses: HashMap<&'w ObjectName, IpAddr>,
    /// The network that those are in.
    pub hole: Option<IpNet>,
}

pub(super) fn build_stand_in(world: &World) -> StandIn<'_> {
    let mut copy = world.clone();
    for (slot, pod) in (0..).zip(copy.pods.values_mut()) {
        if pod.is_enforced() {
            pod.place = Place::Attached(Attached {
                slot,
                id: slot + 1,
                ..Attached::default()
            });
        }
    }
    let mut stand_in = StandIn {
        world: copy,
        addresses: HashMap::new(),
        hole: None,
    };
    let bare: Vec<&ObjectName> = world
        .pods
        .iter()
        .filter(|(_, pod)| pod.addresses.is_empty() && pod.place != Place::HostNetwork)
        .map(|(name, _)| name)
        .collect();
    if !bare.is_empty() {
        let hole = free_network(world);
        dig(&mut stand_in.world, hole.into());
        stand_in.hole = Some(hole.into());
        for (name, number) in bare.into_iter().zip(1..) {
            let address = IpAddr::V6(Ipv6Addr::from(u128::from(hole.network()) | number));
            stand_in.addresses.insert(name, address);
            if let Some(pod) = stand_in.world.pods.get_mut(name) {
                pod.addresses.insert(address);
            }
        }
    }
    stand_in
}

/// A network of 64 bits at which no address and no prefix of the world begins or lies. From the
/// discard-only block (RFC 6666) on, where there is hardly ever anything.
fn free_network(world: &World) -> Ipv6Net {
    const DISCARD: u64 = 0x0100_0000_0000_0000;
    let mut taken: BTreeSet<u64> = BTreeSet::new();
    let mut take = |address: IpAddr| {
        if let IpAddr::V6(address) = address {
            taken.insert((u128::from(address) >> 64) as u64);
        }
    };
    world.host.iter().copied().for_each(&mut take);
    for pod in world.pods.values() {
        pod.addresses.iter().copied().for_each(&mut take);
    }
    for peer in peers(world) {
        if let Peer::Block(block) = peer {
            take(block.cidr.network());
            block.except.iter().for_each(|net| take(net.network()));
        }
    }
    let free = (DISCARD..).find(|prefix| !taken.contains(prefix));
    let bits = u128::from(free.unwrap_or(DISCARD)) << 64;
    Ipv6Net::new_assert(Ipv6Addr::from(bits), 64)
}

fn peers(world: &World) -> impl Iterator<Item = &Peer> {
    world
        .policies
        .values()
        .flat_map(|policy| policy.ingress.iter().chain(&policy.egress))
        .flatten()
        .flat_map(|rule| &rule.peers)
}

/// Takes a network out of every block around it.
fn dig(world: &mut World, hole: IpNet) {
    let rules = world
        .policies
        .values_mut()
        .map(Arc::make_mut)
        .flat_map(|policy| policy.ingress.iter_mut().chain(&mut policy.egress))
        .flatten();
    for peer in rules.flat_map(|rule| &mut rule.peers) {
        if let Peer::Block(block) = peer
            && block.cidr.contains(&hole)
        {
            block.except.push(hole);
        }
    }
}
