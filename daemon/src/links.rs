//! Interfaces and addresses, as netlink tells them.
//!
//! ```text
//!  listen ──▶ hints (something changed) ──▶ dump (the truth)
//!  netns  ──▶ namespace ids, and what is inside a container's namespace
//! ```
//!
//! Hints say only where to look; a dump is taken afresh each time, so a lost hint costs
//! time and never truth. Indices, names and addresses are those of the calling
//! thread's network namespace unless a name says `inside`. Changes nothing but to ask
//! the kernel for a namespace id, and sends nothing but announcements. Never imports `datapath`, `store`, `runtime` or `api`.

mod announce;
mod ask;
mod error;
mod lenient;
pub mod listen;
mod message;
pub mod neighbours;
pub mod netns;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub use announce::{Announcement, announce};
pub use error::LinksError;
pub use listen::{Hints, Listener};
pub use netns::{Inside, Subinterface, inside};

use crate::netns::{self as namespaces, Identity, Netns};
use ask::Asker;
use message::Link;

/// The host's end of a veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Veth {
    /// Its index here.
    pub ifindex: u32,
    /// Its name here; for people, never to recognise it by.
    pub name: String,
    /// Its own MAC address (not the container's).
    pub mac: [u8; 6],
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// The id of the namespace that the other end is in; `None`: in this one.
    pub peer_nsid: Option<i32>,
    /// The other end's index, in its namespace.
    pub peer_ifindex: Option<u32>,
    /// The interface is administratively up.
    pub up: bool,
}

/// This namespace's interfaces and addresses at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Veths, by index.
    pub veths: Vec<Veth>,
    /// Bridges: name by index.
    pub bridges: BTreeMap<u32, String>,
    /// Every address of every interface, loopback and link-local ones too.
    pub host_addresses: BTreeSet<IpAddr>,
    /// Addresses for every host on the link of an interface, and for the routers of its IPv6 subnet.
    pub broadcasts: BTreeSet<IpAddr>,
}

/// Asks netlink, one request after the other.
pub struct Links {
    asker: Asker,
    own: Identity,
}

impl Links {
    /// Opens a socket in the calling thread's network namespace; its answers are about that
    /// one, whichever thread asks.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> Result<Self, LinksError> {
        Ok(Self {
            asker: Asker::start()?,
            own: Netns::own().identity()?,
        })
    }

    /// What there is now. Takes some 10 µs an interface.
    ///
    /// # Errors
    /// See [`LinksError`].
    pub fn dump(&mut self) -> Result<Snapshot, LinksError> {
        let mut snapshot = Snapshot::default();
        let (links, addresses) = self.asker.ask("listing interfaces", async |route| {
            let links = route.links("listing interfaces").await?;
            Ok((links, route.addresses("listing addresses").await?))
        })?;
        for link in links {
            match link.kind.as_deref() {
                Some("veth") => snapshot.veths.push(veth(link)),
                Some("bridge") => {
                    snapshot.bridges.insert(link.ifindex, link.name);
                }
                _ => {}
            }
        }
        snapshot.veths.sort_by_key(|veth| veth.ifindex);
        for address in addresses {
            snapshot.host_addresses.insert(address.address);
            snapshot.broadcasts.extend(address.broadcasts);
        }
        Ok(snapshot)
    }

    /// The MAC address of a veth's other end, where that is in another namespace; `None` where it is not (any more).
    pub fn peer_mac(&mut self, veth: &Veth) -> Option<[u8; 6]> {
        let (nsid, ifindex) = (veth.peer_nsid?, veth.peer_ifindex?);
        let request = "an interface of a container";
        let found = self.asker.ask(request, async move |route| {
            let wanted = message::link_elsewhere(nsid, ifindex);
            route.ask(request, wanted, message::answered_link).await
        });
        let peer = found.ok().flatten()?;
        (peer.ifindex == ifindex && peer.link == Some(veth.ifindex)).then_some(peer.mac?)
    }

    /// The id by which this namespace knows another one, given to it if it has none yet.
    /// `None`: it is this one itself.
    ///
    /// # Errors
    /// There is no such namespace (any more), or see [`LinksError`].
    pub fn nsid(&mut self, netns: &Netns) -> Result<Option<i32>, LinksError> {
        let file = netns.open()?;
        let found = namespaces::identity(&file);
        if found.map_err(|source| LinksError::namespace(netns, source))? == self.own {
            return Ok(None);
        }
        let id = self
            .asker
            .ask("the id of a namespace", async move |route| {
                netns::nsid(route, &file).await
            })?;
        Ok(Some(id))
    }

    /// The id by which this namespace knows another one already; `None`: by none, or there is no such namespace.
    pub fn known_nsid(&mut self, netns: &Netns) -> Option<i32> {
        let file = netns.open().ok()?;
        let id = self.asker.ask("the id of a namespace", async move |route| {
            netns::known(route, &file).await
        });
        id.ok().flatten()
    }
}

fn veth(link: Link) -> Veth {
    Veth {
        ifindex: link.ifindex,
        name: link.name,
        mac: link.mac.unwrap_or_default(),
        master: link.master,
        peer_nsid: link.link_nsid,
        peer_ifindex: link.link,
        up: link.up,
    }
}
