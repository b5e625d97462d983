//! The kernel's news of changes of nftables (nfnetlink, group `NFNLGRP_NFTABLES`), for a caller that says which messages
//! concern it. News that were lost, as there were too many, count as one of those.

use std::future::poll_fn;
use std::io;

use netlink_sys::{AsyncSocket as _, TokioSocket, protocols::NETLINK_NETFILTER};

use crate::netlink::{self, BUFFER, Message, is_overflow};

const NFNLGRP_NFTABLES: u32 = 7;
/// Asked for; a ruleset of a firewall that is loaded again has some thousand messages.
const RECEIVE_BUFFER: i32 = 1 << 20;

/// Listens from the moment it is made.
pub struct Events {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

impl Events {
    /// Registers with the tokio runtime that this is called in, for the calling thread's network
    /// namespace.
    ///
    /// # Errors
    /// The kernel gives no such socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
        let inner = socket.socket_mut();
        inner.bind_auto()?;
        inner.set_rx_buf_sz(RECEIVE_BUFFER)?;
        inner.add_membership(NFNLGRP_NFTABLES)?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Returns when a message came that concerns the caller. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The socket fails.
    pub async fn until(&mut self, concerns: impl Fn(&Message<'_>) -> bool) -> io::Result<()> {
        loop {
            self.buffer.clear();
            let (socket, buffer) = (&self.socket, &mut self.buffer);
            match poll_fn(|cx| socket.poll_recv_from(cx, buffer)).await {
                Ok(_) if netlink::messages(&self.buffer).any(|one| concerns(&one)) => return Ok(()),
                Ok(_) => {}
                Err(error) if is_overflow(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
