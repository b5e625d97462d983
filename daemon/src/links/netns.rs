//! What netlink tells of other network namespaces: their ids here, and what is inside them.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;

use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;

use super::ask::{Route, here};
use super::error::LinksError;
use super::message;
use crate::netns::{self, Netns};

/// See [`super::Links::nsid`]; the namespace is another than the socket's.
pub(super) async fn nsid(route: &mut Route, file: &File) -> Result<i32, LinksError> {
    if let Some(id) = known(route, file).await? {
        return Ok(id);
    }
    let wanted = message::namespace_with_id(descriptor(file));
    let wanted = RouteNetlinkMessage::NewNsId(wanted);
    let given = route.ask("giving a namespace an id", wanted, |_| None::<()>);
    match given.await {
        Ok(_) => {}
        // Another process listed its veth meanwhile, which gives it one too.
        Err(LinksError::Refused { source, .. })
            if source.raw_os_error().map(Errno::from_raw) == Some(Errno::EEXIST) => {}
        Err(error) => return Err(error),
    }
    known(route, file).await?.ok_or(LinksError::Answer {
        request: "the id of a namespace",
        problem: "none, after it was given one",
    })
}

/// The id that a namespace has already. The file stays open until the kernel has answered.
pub(super) async fn known(route: &mut Route, file: &File) -> Result<Option<i32>, LinksError> {
    let wanted = RouteNetlinkMessage::GetNsId(message::namespace(descriptor(file)));
    let read = |answer| match answer {
        RouteNetlinkMessage::NewNsId(id) => message::nsid(&id),
        _ => None,
    };
    let id = route.ask("the id of a namespace", wanted, read).await?;
    Ok(id.filter(|id| *id >= 0))
}

fn descriptor(file: &File) -> u32 {
    file.as_raw_fd().cast_unsigned()
}

/// An interface inside a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// Its index there.
    pub ifindex: u32,
    /// Its name there.
    pub name: String,
    /// `veth`, `bridge` and so on; `None` for loopback and hardware.
    pub kind: Option<String>,
    /// Its MAC address.
    pub mac: Option<[u8; 6]>,
    /// The other end's index: for a veth to this host, the index of the host's end.
    pub iflink: Option<u32>,
    /// Is that one, or what this one stands on, in another namespace?
    pub leads_out: bool,
    /// Is the other end of a veth in another namespace that is not the caller's?
    pub is_hidden: bool,
    /// The mode of a macvlan or ipvlan, as the kernel counts them.
    pub mode: Option<u32>,
    /// All its addresses, link-local ones too.
    pub addresses: Vec<IpAddr>,
    /// Those of them that a router's advertisement or a lease gave it.
    pub leased: Vec<IpAddr>,
    /// The interface is administratively up.
    pub up: bool,
}

/// An interface that leaves a namespace by a parent in another one, and has no end of its own on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subinterface {
    /// It has hooks inside that all its frames pass.
    Hooked(&'static str),
    /// What comes from beyond its parent passes none: ipvlan's mode `l3s` hands those packets over behind them.
    HalfHooked,
    /// It has none: frames leave and come by other ways.
    Unhooked(&'static str),
}

impl Inside {
    /// Is it such an interface?
    #[must_use]
    pub fn subinterface(&self) -> Option<Subinterface> {
        /// `IPVLAN_MODE_L3S`
        const L3S: u32 = 2;
        match self.kind.as_deref()? {
            // It stands on another interface of the same namespace, and leaves by that one.
            _ if !self.leads_out => None,
            "macvlan" => Some(Subinterface::Hooked("macvlan")),
            "ipvlan" if self.mode == Some(L3S) => Some(Subinterface::HalfHooked),
            "ipvlan" => Some(Subinterface::Hooked("ipvlan")),
            "macvtap" => Some(Subinterface::Unhooked("macvtap")),
            "ipvtap" => Some(Subinterface::Unhooked("ipvtap")),
            _ => None,
        }
    }

    /// Is it such an interface, on which programs can be put inside?
    #[must_use]
    pub fn is_hooked(&self) -> bool {
        matches!(
            self.subinterface(),
            Some(Subinterface::Hooked(_) | Subinterface::HalfHooked)
        )
    }

    /// Addresses that others can speak to.
    pub fn usable(&self) -> impl Iterator<Item = IpAddr> {
        let addresses = self.addresses.iter().copied();
        addresses.filter(|address| !address.is_loopback() && !address.is_unspecified())
    }
}

/// The interfaces inside a namespace, loopback included. To be called in the host's namespace.
///
/// # Errors
/// There is no such namespace (any more), or see [`LinksError`].
pub fn inside(netns: &Netns) -> Result<Vec<Inside>, LinksError> {
    let file = netns.open()?;
    let host = Netns::own().open()?;
    netns::inside_opened(&netns.path(), &file, || {
        here(async |route| read(route, &host).await)
    })?
}

/// What is inside the namespace of the socket, beside this host's.
pub(super) async fn read(route: &mut Route, host: &File) -> Result<Vec<Inside>, LinksError> {
    let links = route.links("listing a container's interfaces").await?;
    // The listing gave an id to each namespace in which an interface has its other end.
    let host = known(route, host).await?;
    let mut found: Vec<Inside> = links
        .into_iter()
        .map(|link| Inside {
            is_hidden: link.kind.as_deref() == Some("veth")
                && link.link_nsid.is_some()
                && link.link_nsid != host,
            ifindex: link.ifindex,
            name: link.name,
            kind: link.kind,
            mac: link.mac,
            iflink: link.link,
            leads_out: link.link_nsid.is_some(),
            mode: link.mode,
            addresses: Vec::new(),
            leased: Vec::new(),
            up: link.up,
        })
        .collect();
    let addresses = route.addresses("listing a container's addresses").await?;
    for address in addresses {
        let holder = found
            .iter_mut()
            .find(|interface| interface.ifindex == address.ifindex);
        if let Some(interface) = holder {
            interface.addresses.push(address.address);
            if !address.permanent {
                interface.leased.push(address.address);
            }
        }
    }
    for interface in &mut found {
        interface.addresses.sort_unstable();
        interface.leased.sort_unstable();
    }
    found.sort_by_key(|interface| interface.ifindex);
    Ok(found)
}
