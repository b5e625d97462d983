//! Tells when something of our table went (a flush, a reload, an operator's hand), or that it was installed. What concerns
//! other tables, and what is added to ours, is passed over.

use std::io;

use super::GateError;
use super::message::is_turn;
use crate::nftables::Events;

/// Listens from the moment it is made.
pub struct Listener {
    events: Events,
    table: String,
}

impl Listener {
    /// See [`Events::open`].
    ///
    /// # Errors
    /// The kernel gives no such socket.
    pub fn open(table: &str) -> Result<Self, GateError> {
        Ok(Self {
            events: Events::open().map_err(|source| GateError::Netlink {
                action: "listening",
                source,
            })?,
            table: table.to_owned(),
        })
    }

    /// Returns when it is time to look at the table. Dropping the future loses nothing.
    ///
    /// # Errors
    /// The socket fails.
    pub async fn turned(&mut self) -> io::Result<()> {
        self.events.until(|one| is_turn(one, &self.table)).await
    }
}
