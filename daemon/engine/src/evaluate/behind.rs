//! The Pod behind an address of the host: a Pod whose port an engine publishes there. A Pod that dials it is judged by the
//! other one's policies, as the kernel does it ([`netpol_abi::judge`]'s `published`).

use super::endpoint_spec::{End, addresses};
use super::judge::selecting;
use crate::policy::{Direction, Protocol};
use crate::world::{World, published_where};

/// The Pod that a connection to the host's port leads to, at the address that is dialled, and its own port. `None`: `to` is not
/// the host, or nothing is published there.
pub(crate) fn behind<'w>(
    world: &'w World,
    from: &End,
    to: &End,
    protocol: Protocol,
    port: u16,
) -> Option<(End<'w>, u16)> {
    if !to.host {
        return None;
    }
    let (_, dialled) = addresses(from, to);
    let dialled = dialled?;
    published_where(dialled).into_iter().find_map(|address| {
        let mut found = Vec::new();
        for (name, pod) in &world.pods {
            let ports = pod.published.iter().filter(|_| pod.is_enforced());
            let mut ports = ports.filter(|published| {
                (published.protocol, published.address, published.port) == (protocol, address, port)
            });
            if let Some(published) = ports.next() {
                let end = End::of_pod(world, name, pod).at(dialled);
                found.push((end, published.target));
            }
        }
        // Of several the one that is isolated, as the compiler has it.
        let is_isolated =
            |(end, _): &(End, u16)| !selecting(world, end, Direction::Ingress).is_empty();
        let first = found.iter().position(is_isolated).unwrap_or(0);
        found.into_iter().nth(first)
    })
}
