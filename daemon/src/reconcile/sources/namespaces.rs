//! Network namespaces as the kernel shows them: their ids here, and the interfaces inside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;

use super::behind::{self, Behind};
use crate::datapath::Location;
use crate::links::{self, Links, LinksError, Snapshot, Veth};
use crate::netns::Netns;
use crate::reconcile::observed::{Namespace, Rights};
use crate::reconcile::readiness::Asked;
use crate::runtime::cgroup::Maker;

/// The kernel's network namespaces, seen from the host's.
pub struct Namespaces {
    links: Links,
}

impl Namespaces {
    /// To be called in the host's network namespace.
    ///
    /// # Errors
    /// The kernel gives no socket.
    pub fn open() -> Result<Self, LinksError> {
        let links = Links::open()?;
        Ok(Self { links })
    }

    /// The host's own interfaces and addresses.
    ///
    /// # Errors
    /// The kernel's.
    pub fn dump(&mut self) -> Result<Snapshot, LinksError> {
        self.links.dump()
    }

    /// The MAC address of a veth's end inside.
    pub fn peer_mac(&mut self, veth: &Veth) -> Option<[u8; 6]> {
        self.links.peer_mac(veth)
    }

    /// What a network namespace is, and what is inside.
    ///
    /// # Errors
    /// It is a namespace of something else, or gone.
    pub fn look_into(&mut self, netns: &Netns) -> Result<Namespace, LinksError> {
        let mut namespace = self.identify(netns)?;
        if namespace.nsid.is_some() {
            namespace.inside = links::inside(netns)?;
        }
        Ok(namespace)
    }

    /// What a network namespace is.
    ///
    /// # Errors
    /// It is a namespace of something else, or gone.
    pub fn identify(&mut self, netns: &Netns) -> Result<Namespace, LinksError> {
        Ok(Namespace {
            path: netns.path(),
            identity: netns.identity()?,
            nsid: self.links.nsid(netns)?,
            inside: Vec::new(),
            looked_running: false,
            rights: Rights::default(),
        })
    }

    /// Inspects an opened network namespace.
    ///
    /// # Errors
    /// It is a namespace of something else.
    pub fn inspect(&mut self, netns: &File) -> Result<Asked, LinksError> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", netns.as_raw_fd()));
        let netns = Netns::Path(path);
        let mut asked = Asked {
            nsid: self.links.nsid(&netns)?,
            subinterfaces: Vec::new(),
            hidden: Vec::new(),
            inode: 0,
        };
        if asked.nsid.is_some() {
            let (_, namespace) = netns.identity()?;
            asked.inode = namespace;
            let inside = links::inside(&netns)?;
            let hidden = inside.iter().filter(|one| one.is_hidden);
            asked.hidden = hidden
                .map(|one| Location {
                    namespace,
                    ifindex: one.ifindex,
                })
                .collect();
            asked.subinterfaces = inside
                .into_iter()
                .filter(|one| one.is_hooked() || one.is_hidden)
                .map(|one| {
                    let ifindex = one.ifindex;
                    (Location { namespace, ifindex }, one.name)
                })
                .collect();
        }
        Ok(asked)
    }

    /// The containers in these network namespaces, as far as can be told, and the sockets of Docker engines that run here.
    pub fn look_behind(&mut self, nsids: &BTreeSet<i32>) -> (BTreeMap<i32, Behind>, Vec<PathBuf>) {
        let behind = behind::look(&mut self.links, nsids);
        let mut containers = behind.values().filter_map(Behind::container);
        let is_dockers = containers.any(|(_, maker)| maker == Maker::Docker);
        let sockets = match is_dockers {
            true => behind::docker_sockets(),
            false => Vec::new(),
        };
        (behind, sockets)
    }
}
