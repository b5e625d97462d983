//! The host's resolvers as the peer that every DNS rule names (`[dns] kube-dns`).
//!
//! Owns its name, labels and ports. Where the addresses come from is the caller's business: the
//! daemon reads them from the host, and for manifests alone there are none.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::labels::Labels;
use crate::policy::{ObjectName, Protocol};
use crate::world::{NamedPort, Place, Pod, World};

/// Its Namespace.
pub const NAMESPACE: &str = "kube-system";

/// Its labels.
#[must_use]
pub fn labels() -> Labels {
    [("k8s-app".to_owned(), "kube-dns".to_owned())].into()
}

/// Its name.
#[must_use]
pub fn name() -> ObjectName {
    ObjectName::new(NAMESPACE, "kube-dns")
}

/// The peer at these addresses.
#[must_use]
pub fn kube_dns(addresses: BTreeSet<IpAddr>) -> (ObjectName, Pod) {
    let port = |name: &str, protocol| NamedPort {
        name: name.to_owned(),
        port: 53,
        protocol,
    };
    let pod = Pod {
        labels: labels(),
        ports: vec![port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)],
        addresses,
        place: Place::External,
        ..Pod::default()
    };
    (name(), pod)
}

/// Adds the peer to a world made from files alone, unless one of them states it: a rule for DNS is
/// for a Pod. Without addresses, so that no verdict on others changes.
pub fn add_to(world: &mut World) {
    let (name, resolver) = kube_dns(BTreeSet::new());
    let is_resolver = |(name, pod): (&ObjectName, &Pod)| {
        name.namespace == NAMESPACE && pod.labels.get("k8s-app") == resolver.labels.get("k8s-app")
    };
    if !world.pods.iter().any(is_resolver) {
        world.pods.entry(name).or_insert(resolver);
    }
}
