//! Hints that interfaces or addresses changed, here or inside a container.
//!
//! Two sockets: one for this namespace, which names the interface; one with
//! `NETLINK_LISTEN_ALL_NSID` (4.2) for every namespace that has an id here. When the kernel
//! had to drop hints (`ENOBUFS`), that is a hint as well: look at everything.
//! Nothing runs while nothing changes; gathering hints over time is the caller's business.

use std::collections::BTreeSet;
use std::io;

use netlink_packet_route::link::LinkHeader;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::LinksError;
use crate::async_fd::ready_when;
use crate::netlink::{self, BUFFER, is_overflow, receive, receive_sender};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;

const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// Asked for; the kernel gives at most `net.core.rmem_max`. A host that starts a
/// hundred containers at once makes some thousand messages of a kilobyte.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Datagrams taken in one turn, so that a container that makes changes without end
/// does not keep the task from its other work.
const BATCH: usize = 256;

/// What changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// Interfaces of this namespace that came, changed or went.
    pub links: BTreeSet<u32>,
    /// This namespace's addresses changed.
    pub addresses: bool,
    /// Something changed in another namespace.
    pub inside: bool,
    /// The ids of those namespaces.
    pub namespaces: BTreeSet<i32>,
    /// Hints were lost: look at everything.
    pub resync: bool,
}

impl Hints {
    /// Adds what another one says.
    pub fn merge(&mut self, other: Self) {
        self.links.extend(other.links);
        self.addresses |= other.addresses;
        self.inside |= other.inside;
        self.namespaces.extend(other.namespaces);
        self.resync |= other.resync;
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What a datagram from this namespace says.
    fn read_here(&mut self, datagram: &[u8]) {
        for message in netlink::messages(datagram) {
            match message.message_type() {
                RTM_NEWADDR | RTM_DELADDR => self.addresses = true,
                RTM_NEWLINK | RTM_DELLINK => {
                    let header = LinkHeader::parse(message.payload());
                    self.links.extend(header.ok().map(|header| header.index));
                }
                _ => {}
            }
        }
    }
}

/// Listens from the moment it is made: dump after making it, and nothing is missed.
pub struct Listener {
    here: AsyncFd<Socket>,
    everywhere: AsyncFd<Socket>,
    buffer: Vec<u8>,
}

impl Listener {
    /// Registers with the tokio runtime that this is called in, for the calling thread's
    /// network namespace.
    ///
    /// # Errors
    /// The kernel gives no socket, or no right to listen to other namespaces (CAP_NET_BROADCAST).
    pub fn open() -> Result<Self, LinksError> {
        Ok(Self {
            here: subscribe(false)?,
            everywhere: subscribe(true)?,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Waits for the next change, and says all that is known of it. May be dropped at any
    /// await without losing a hint.
    ///
    /// # Errors
    /// A socket fails.
    pub async fn next(&mut self) -> io::Result<Hints> {
        let mut hints = Hints::default();
        while hints.is_empty() {
            let (socket, is_here) = tokio::select! {
                ready = self.here.readable() => (ready?, true),
                ready = self.everywhere.readable() => (ready?, false),
            };
            let mut ready = socket;
            for _ in 0..BATCH {
                self.buffer.clear();
                let received = if is_here {
                    receive(ready.get_inner(), &mut self.buffer).map(|_| None)
                } else {
                    receive_sender(ready.get_inner())
                };
                match received {
                    Ok(_) if is_here => hints.read_here(&self.buffer),
                    Ok(Some(namespace)) => {
                        hints.inside = true;
                        hints.namespaces.insert(namespace);
                    }
                    // From this namespace: the other socket has it.
                    Ok(None) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready.clear_ready();
                        break;
                    }
                    Err(error) if is_overflow(&error) => hints.resync = true,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(hints)
    }
}

fn subscribe(everywhere: bool) -> Result<AsyncFd<Socket>, LinksError> {
    let failed = |action| move |source| LinksError::Socket { action, source };
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("opening a socket"))?;
    socket.bind_auto().map_err(failed("binding a socket"))?;
    socket
        .set_rx_buf_sz(i32::try_from(RECEIVE_BUFFER).unwrap_or(i32::MAX))
        .map_err(failed("asking for a larger buffer"))?;
    if everywhere {
        socket
            .set_listen_all_namespaces(true)
            .map_err(failed("listening to other namespaces"))?;
    }
    for group in [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR] {
        socket
            .add_membership(group)
            .map_err(failed("subscribing"))?;
    }
    socket
        .set_non_blocking(true)
        .map_err(failed("setting a socket up"))?;
    ready_when(socket, Interest::READABLE).map_err(failed("polling a socket"))
}
