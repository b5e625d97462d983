//! Hints that interfaces or addresses changed, here or inside a container.
//!
//! Two sockets: one for this namespace, which names the interface; one with
//! `NETLINK_LISTEN_ALL_NSID` (4.2) for every namespace that has an id here. When the kernel
//! had to drop hints (`ENOBUFS`), that is a hint as well: look at everything.
//! Nothing runs while nothing changes; gathering hints over time is the caller's business.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use netlink_packet_route::link::LinkHeader;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket as _, Socket, TokioSocket};
use nix::libc::{RTM_DELADDR, RTM_DELLINK, RTM_NEWADDR, RTM_NEWLINK};
use rtnetlink::MulticastGroup;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::error::LinksError;
use crate::async_fd::ready_when;
use crate::netlink::{self, BUFFER, is_overflow, receive_sender};

/// Asked for; the kernel gives at most `net.core.rmem_max`. A host that starts a
/// hundred containers at once makes some thousand messages of a kilobyte.
const RECEIVE_BUFFER: i32 = 4 << 20;
/// Datagrams taken from one socket in one turn, so that a container that makes changes without end
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
    here: TokioSocket,
    /// Not a `TokioSocket`: that one does not hand over the control message with the namespace's id.
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
        let failed = |action| move |source| LinksError::Socket { action, source };
        let mut here = TokioSocket::new(NETLINK_ROUTE).map_err(failed("opening a socket"))?;
        subscribe(here.socket_mut())?;
        let mut everywhere = Socket::new(NETLINK_ROUTE).map_err(failed("opening a socket"))?;
        everywhere
            .set_listen_all_namespaces(true)
            .map_err(failed("listening to other namespaces"))?;
        subscribe(&mut everywhere)?;
        everywhere
            .set_non_blocking(true)
            .map_err(failed("setting a socket up"))?;
        let everywhere = ready_when(everywhere, Interest::READABLE);
        Ok(Self {
            here,
            everywhere: everywhere.map_err(failed("polling a socket"))?,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Waits for the next change, and says all that is known of it. May be dropped at any
    /// await without losing a hint.
    ///
    /// # Errors
    /// A socket fails.
    pub async fn next(&mut self) -> io::Result<Hints> {
        // Nothing is kept from one poll to the next: what was read is returned at once.
        poll_fn(|cx| {
            let mut hints = Hints::default();
            let is_more_here = self.poll_here(cx, &mut hints)?;
            let is_more_elsewhere = self.poll_everywhere(cx, &mut hints)?;
            if !hints.is_empty() {
                return Poll::Ready(Ok(hints));
            }
            if is_more_here || is_more_elsewhere {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }

    /// Takes what there is, up to a batch. Is there perhaps more? If not, the task is woken when there is.
    fn poll_here(&mut self, cx: &mut Context<'_>, hints: &mut Hints) -> io::Result<bool> {
        for _ in 0..BATCH {
            self.buffer.clear();
            match self.here.poll_recv_from(cx, &mut self.buffer) {
                Poll::Ready(Ok(_)) => hints.read_here(&self.buffer),
                Poll::Ready(Err(error)) if is_overflow(&error) => hints.resync = true,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }

    /// As [`Self::poll_here`].
    fn poll_everywhere(&mut self, cx: &mut Context<'_>, hints: &mut Hints) -> io::Result<bool> {
        for _ in 0..BATCH {
            match self.poll_sender(cx) {
                Poll::Ready(Ok(Some(namespace))) => {
                    hints.inside = true;
                    hints.namespaces.insert(namespace);
                }
                // From this namespace: the other socket has it.
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Err(error)) if is_overflow(&error) => hints.resync = true,
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }

    fn poll_sender(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<i32>>> {
        loop {
            let mut ready = ready!(self.everywhere.poll_read_ready(cx))?;
            // An error here says that it is not ready after all.
            if let Ok(received) = ready.try_io(|socket| receive_sender(socket.get_ref())) {
                return Poll::Ready(received);
            }
        }
    }
}

fn subscribe(socket: &mut Socket) -> Result<(), LinksError> {
    let failed = |action| move |source| LinksError::Socket { action, source };
    socket.bind_auto().map_err(failed("binding a socket"))?;
    socket
        .set_rx_buf_sz(RECEIVE_BUFFER)
        .map_err(failed("asking for a larger buffer"))?;
    for group in [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
    ] {
        socket
            .add_membership(group as u32)
            .map_err(failed("subscribing"))?;
    }
    Ok(())
}
