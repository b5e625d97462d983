//! Tells when something of our table went (a flush, a reload, somebody's hand), or that it was installed.
//!
//! The kernel tells every listener of every change of nftables; what concerns other tables, and what is
//! added to ours, is passed over here. What was lost because there was too much of it counts.

use std::io;

use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::GateError;
use super::message::is_turn;
use crate::netlink::{self, BUFFER, is_overflow, receive};

const NFNLGRP_NFTABLES: u32 = 7;
/// Asked for; a ruleset of a firewall that is loaded anew has some thousand messages.
const RECEIVE_BUFFER: i32 = 1 << 20;

/// Listens from the moment it is made.
pub struct Listener {
    socket: AsyncFd<Socket>,
    table: String,
    buffer: Vec<u8>,
}

impl Listener {
    /// Registers with the tokio runtime that this is called in, for the calling thread's network
    /// namespace.
    ///
    /// # Errors
    /// The kernel gives no such socket.
    #[expect(
        deprecated,
        reason = "the socket owns its descriptor and never changes it, which is all that the unsafe successor asks"
    )]
    pub fn open(table: &str) -> Result<Self, GateError> {
        let open = || -> io::Result<AsyncFd<Socket>> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.set_rx_buf_sz(RECEIVE_BUFFER)?;
            socket.add_membership(NFNLGRP_NFTABLES)?;
            socket.set_non_blocking(true)?;
            AsyncFd::with_interest(socket, Interest::READABLE)
        };
        Ok(Self {
            socket: open().map_err(|source| GateError::Netlink {
                action: "listening",
                source,
            })?,
            table: table.to_owned(),
            buffer: Vec::with_capacity(BUFFER),
        })
    }

    /// Returns when it is time to look at the table. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The socket fails.
    pub async fn turned(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            self.buffer.clear();
            match receive(ready.get_inner(), &mut self.buffer) {
                Ok(_) => {
                    if netlink::messages(&self.buffer).any(|one| is_turn(&one, &self.table)) {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if is_overflow(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}
