//! The kernel's news of changes of nftables (nfnetlink, group `NFNLGRP_NFTABLES`), for a caller that says which messages
//! concern it. News that were lost, as there were too many, count as one of those.

use std::io;

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::async_fd::ready_when;
use crate::netlink::{self, BUFFER, Message, is_overflow, receive};

const NFNLGRP_NFTABLES: u32 = 7;
/// Asked for; a ruleset of a firewall that is loaded anew has some thousand messages.
const RECEIVE_BUFFER: i32 = 1 << 20;

/// Listens from the moment it is made.
pub struct Events {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
}

impl Events {
    /// Registers with the tokio runtime that this is called in, for the calling thread's network
    /// namespace.
    ///
    /// # Errors
    /// The kernel gives no such socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
        socket.add_membership(NFNLGRP_NFTABLES)?;
        socket.set_non_blocking(true)?;
        Ok(Self {
            socket: ready_when(socket, Interest::READABLE)?,
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Returns when a message came that concerns the caller. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The socket fails.
    pub async fn until(&mut self, concerns: impl Fn(&Message<'_>) -> bool) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            self.buffer.clear();
            match receive(ready.get_inner(), &mut self.buffer) {
                Ok(_) if netlink::messages(&self.buffer).any(|one| concerns(&one)) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if is_overflow(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
