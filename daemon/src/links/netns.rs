//! What netlink tells of other network namespaces: their ids here, and what is inside them.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;

use super::error::LinksError;
use super::message::{self, NETNSA_FD, NETNSA_NSID, RTM_GETNSID, RTM_NEWNSID};
use super::socket::Route;
use crate::netns::{self, Identity, Netns};

/// See [`super::Links::nsid`]; `own` is the namespace that the socket is in.
pub(super) fn nsid(
    route: &mut Route,
    own: Identity,
    netns: &Netns,
) -> Result<Option<i32>, LinksError> {
    let file = netns.open()?;
    let found = netns::identity(&file).map_err(|source| LinksError::namespace(netns, source))?;
    if found == own {
        return Ok(None);
    }
    let descriptor = file.as_raw_fd();
    if let Some(id) = known(route, descriptor)? {
        return Ok(Some(id));
    }
    let given = route.ask(
        "giving a namespace an id",
        |sequence| {
            let attributes = [(NETNSA_FD, descriptor), (NETNSA_NSID, -1)];
            message::nsid_request(RTM_NEWNSID, sequence, &attributes)
        },
        |_| None::<()>,
    );
    match given {
        Ok(_) => {}
        // Somebody listed its veth meanwhile, which gives it one too.
        Err(LinksError::Refused { source, .. })
            if source.raw_os_error().map(Errno::from_raw) == Some(Errno::EEXIST) => {}
        Err(error) => return Err(error),
    }
    match known(route, descriptor)? {
        Some(id) => Ok(Some(id)),
        None => Err(LinksError::Answer {
            request: "the id of a namespace",
            problem: "none, after it was given one",
        }),
    }
}

/// See [`super::Links::known_nsid`].
pub(super) fn known_nsid(route: &mut Route, netns: &Netns) -> Option<i32> {
    let file = netns.open().ok()?;
    known(route, file.as_raw_fd()).ok().flatten()
}

/// The id that a namespace has already.
fn known(route: &mut Route, descriptor: i32) -> Result<Option<i32>, LinksError> {
    let id = route.ask(
        "the id of a namespace",
        |sequence| message::nsid_request(RTM_GETNSID, sequence, &[(NETNSA_FD, descriptor)]),
        message::nsid,
    )?;
    Ok(id.filter(|id| *id >= 0))
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
    /// Set up by somebody.
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
    netns::inside_opened(&netns.path(), &file, || read(&host))?
}

/// What is inside the calling thread's namespace, beside this host's.
pub(super) fn read(host: &File) -> Result<Vec<Inside>, LinksError> {
    let mut route = Route::open()?;
    let links = route.links("listing a container's interfaces")?;
    // The listing gave an id to each namespace in which an interface has its other end.
    let host = known(&mut route, host.as_raw_fd())?;
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
    for address in route.addresses("listing a container's addresses")? {
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
