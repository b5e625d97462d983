//! The neighbours of a network namespace: which there are, and forgetting those that a test of connections has brought.
//!
//! The kernel has one table of IPv4 neighbours for all of its network namespaces, of 1,024 entries by default
//! (`net.ipv4.neigh.default.gc_thresh3`, net/core/neighbour.c). Where it is full, no container finds another.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use super::ask;
use super::error::LinksError;
use super::message;
use crate::netns;

/// An entry: the interface's index, and the neighbour's address.
pub type Neighbour = (u32, IpAddr);

/// What becomes of a question in another network namespace.
fn inside<T: Send>(
    namespace: &Path,
    work: impl FnOnce() -> Result<T, LinksError> + Send,
) -> Result<T, LinksError> {
    netns::inside(namespace, work)?
}

/// The neighbours of the network namespace at this path.
///
/// # Errors
/// It can't be entered, or the kernel does not say.
pub fn neighbours(namespace: &Path) -> Result<BTreeSet<Neighbour>, LinksError> {
    inside(namespace, || {
        ask::here(async |route| route.neighbours("listing neighbours").await)
    })
}

/// Forgets neighbours of the network namespace at this path; those that are gone already are passed over.
///
/// # Errors
/// It can't be entered.
pub fn forget(namespace: &Path, neighbours: &BTreeSet<Neighbour>) -> Result<(), LinksError> {
    inside(namespace, || {
        ask::here(async |route| {
            for (ifindex, address) in neighbours {
                let wanted = message::forget_neighbour(*ifindex, *address);
                // It may be gone, or be in use just now.
                let _ = route
                    .ask("forgetting a neighbour", wanted, |_| None::<()>)
                    .await;
            }
            Ok(())
        })
    })
}
