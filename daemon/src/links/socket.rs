//! One rtnetlink socket: a request, and all of its answer.
//!
//! Blocking, but the kernel answers at once; dumps that were cut by a change are
//! taken again.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::error::LinksError;
use super::message::{self, Link, LinkAddress, RTM_GETADDR, RTM_GETLINK, RTM_GETNEIGH};
use crate::netlink::{self, BUFFER, Message, receive};

/// A table that changes during every one of so many listings changes too fast to be listed.
const ATTEMPTS: u32 = 16;

/// A socket for requests.
pub struct Route {
    socket: Socket,
    sequence: u32,
}

impl Route {
    pub fn open() -> Result<Self, LinksError> {
        let failed = |action| move |source| LinksError::Socket { action, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("opening a socket"))?;
        socket.bind_auto().map_err(failed("binding a socket"))?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(failed("connecting to the kernel"))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    pub fn links(&mut self, request: &'static str) -> Result<Vec<Link>, LinksError> {
        self.dump(request, RTM_GETLINK, message::link)
    }

    pub fn addresses(&mut self, request: &'static str) -> Result<Vec<LinkAddress>, LinksError> {
        self.dump(request, RTM_GETADDR, message::address)
    }

    /// Neighbours that were asked for and have not answered.
    pub fn unresolved(&mut self, request: &'static str) -> Result<Vec<(u32, IpAddr)>, LinksError> {
        self.dump(request, RTM_GETNEIGH, message::unresolved)
    }

    /// One request that is acknowledged: what `read` makes of the answer before that.
    pub fn ask<T>(
        &mut self,
        request: &'static str,
        make: impl Fn(u32) -> Vec<u8>,
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Option<T>, LinksError> {
        let mut found = None;
        self.exchange(request, make, |message| {
            if let Some(value) = read(message) {
                found = Some(value);
            }
        })?;
        Ok(found)
    }

    fn dump<T>(
        &mut self,
        request: &'static str,
        kind: u16,
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, LinksError> {
        for _ in 0..ATTEMPTS {
            let mut list = Vec::new();
            let mut whole = true;
            self.exchange(
                request,
                |sequence| message::dump_request(kind, sequence),
                |message| {
                    whole &= message.flags() & NLM_F_DUMP_INTR == 0;
                    list.extend(read(message));
                },
            )?;
            if whole {
                return Ok(list);
            }
        }
        Err(LinksError::Answer {
            request,
            problem: "a listing that changed each time it was taken",
        })
    }

    /// Sends a request and hands over every message of the answer up to its end.
    fn exchange(
        &mut self,
        request: &'static str,
        make: impl Fn(u32) -> Vec<u8>,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<(), LinksError> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket
            .send(&make(self.sequence), 0)
            .map_err(|source| LinksError::Socket {
                action: "sending",
                source,
            })?;
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            let size = receive(&self.socket, &mut buffer).map_err(|source| LinksError::Socket {
                action: "receiving",
                source,
            })?;
            if size > buffer.len() {
                return Err(LinksError::Answer {
                    request,
                    problem: "a datagram larger than the kernel makes them",
                });
            }
            for message in netlink::messages(&buffer) {
                if message.sequence_number() != self.sequence {
                    // Left over from a request that failed half-way.
                    continue;
                }
                each(&message);
                match message.message_type() {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_OVERRUN => {
                        return Err(LinksError::Answer {
                            request,
                            problem: "an overrun",
                        });
                    }
                    NLMSG_ERROR => return acknowledged(request, &message),
                    _ => {}
                }
            }
        }
    }
}

fn acknowledged(request: &'static str, message: &Message<'_>) -> Result<(), LinksError> {
    match netlink::error_number(message) {
        Some(0) => Ok(()),
        Some(number) => Err(LinksError::Refused {
            request,
            source: io::Error::from_raw_os_error(number),
        }),
        None => Err(LinksError::Answer {
            request,
            problem: "an error without a number",
        }),
    }
}
