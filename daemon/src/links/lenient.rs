//! A netlink socket whose messages netlink-packet-route can read whole.
//!
//! That crate refuses a whole message when one of its attributes is text that is not UTF-8, or has another length than
//! the crate expects; netlink-proto then drops the message, and the listing looks complete. A container with
//! CAP_NET_ADMIN chooses the names, alternative names and aliases of its interfaces, so it could hide an interface and
//! its addresses that way. Newer kernels lengthen attributes.
//!
//! So each message is tried before rtnetlink sees it. From one that is refused, this socket takes out the attributes
//! that are unreadable, or those of their parts that are, and replaces what is not UTF-8 in a text.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use netlink_packet_core::{
    Emitable as _, NLA_HEADER_SIZE, NetlinkDeserializable as _, NetlinkHeader,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocket, Socket, SocketAddr, TokioSocket};
use nix::libc::{
    RTM_DELADDR, RTM_DELLINK, RTM_DELNEIGH, RTM_DELNSID, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH,
    RTM_NEWNSID,
};

use crate::netlink::{self, BUFFER, Message};

/// Nests in nests: `IFLA_LINKINFO`, `IFLA_INFO_DATA`, a list, and its items.
const DEPTH: u32 = 4;

/// See the module.
pub struct Lenient(TokioSocket);

impl Lenient {
    fn poll_datagram(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        let mut datagram = Vec::with_capacity(BUFFER);
        let sender = ready!(self.0.poll_recv_from(cx, &mut datagram))?;
        // The kernel makes none of this size: a longer one was cut, and its last message would be lost.
        if datagram.len() >= BUFFER {
            let problem = "a datagram larger than the kernel makes them";
            return Poll::Ready(Err(io::Error::other(problem)));
        }
        Poll::Ready(Ok((readable(&datagram), sender)))
    }
}

impl AsyncSocket for Lenient {
    fn socket_ref(&self) -> &Socket {
        self.0.socket_ref()
    }

    fn socket_mut(&mut self) -> &mut Socket {
        self.0.socket_mut()
    }

    fn new(protocol: isize) -> io::Result<Self> {
        TokioSocket::new(protocol).map(Self)
    }

    fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_send(cx, buf)
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        buf: &[u8],
        addr: &SocketAddr,
    ) -> Poll<io::Result<usize>> {
        self.0.poll_send_to(cx, buf, addr)
    }

    fn poll_recv<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        self.poll_recv_from(cx, buf).map_ok(|_| ())
    }

    fn poll_recv_from<B: BufMut>(
        &self,
        cx: &mut Context<'_>,
        buf: &mut B,
    ) -> Poll<io::Result<SocketAddr>> {
        let (datagram, sender) = ready!(self.poll_datagram(cx))?;
        if buf.remaining_mut() < datagram.len() {
            return Poll::Ready(Err(io::Error::other("a buffer too small for a datagram")));
        }
        buf.put_slice(&datagram);
        Poll::Ready(Ok(sender))
    }

    fn poll_recv_from_full(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        self.poll_datagram(cx)
    }
}

/// The datagram with all its messages, each so that it can be read.
fn readable(datagram: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(datagram.len());
    for message in netlink::messages(datagram) {
        append(&mut all, &message);
    }
    all
}

fn append(all: &mut Vec<u8>, message: &Message<'_>) {
    let mut header = NetlinkHeader::default();
    header.message_type = message.message_type();
    header.flags = message.flags();
    header.sequence_number = message.sequence_number();
    header.port_number = message.port_number();
    let payload = message.payload();
    let mut body = match fixed_part(header.message_type) {
        Some(fixed) if payload.len() >= fixed && !is_readable(&header, payload) => {
            repaired(&header, payload.split_at(fixed))
        }
        _ => payload.to_vec(),
    };
    // netlink-proto looks for the next message right behind this one, without regard to padding.
    body.resize(body.len().next_multiple_of(4), 0);
    header.length = (header.buffer_len() + body.len()) as u32;
    let start = all.len();
    all.resize(start + header.buffer_len(), 0);
    header.emit(&mut all[start..]);
    all.extend(body);
}

/// The length of what precedes the attributes, in messages that `links` reads.
fn fixed_part(kind: u16) -> Option<usize> {
    match kind {
        // `ifinfomsg`
        RTM_NEWLINK | RTM_DELLINK => Some(16),
        // `ifaddrmsg`
        RTM_NEWADDR | RTM_DELADDR => Some(8),
        // `ndmsg`
        RTM_NEWNEIGH | RTM_DELNEIGH => Some(12),
        // `rtgenmsg`, padded
        RTM_NEWNSID | RTM_DELNSID => Some(4),
        _ => None,
    }
}

fn is_readable(header: &NetlinkHeader, payload: &[u8]) -> bool {
    RouteNetlinkMessage::deserialize(header, payload).is_ok()
}

/// The payload without what is unreadable in it.
fn repaired(header: &NetlinkHeader, (fixed, attributes): (&[u8], &[u8])) -> Vec<u8> {
    let mut body = fixed.to_vec();
    for one in whole(attributes) {
        let fits = |attribute: &[u8]| is_readable(header, &[fixed, attribute].concat());
        body.extend(kept(&one, DEPTH, &fits).unwrap_or_default());
    }
    body
}

/// As much of an attribute as `fits`: all of it, or its text in UTF-8, or those of its parts that fit.
///
/// Takes time in proportion to the length: parts are tried one by one, as a container can make thousands of alternative
/// names.
fn kept(one: &Attribute<'_>, depth: u32, fits: &dyn Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let as_it_is = one.with(one.value)?;
    if fits(&as_it_is) {
        return Some(as_it_is);
    }
    if let Some(text) = text(one, fits) {
        return Some(text);
    }
    let depth = depth.checked_sub(1)?;
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for part in whole(one.value) {
        // `IFLA_INFO_DATA` can be read behind `IFLA_INFO_KIND` only, which is the first; that of a port behind the kind
        // of port, right before it.
        let before: Vec<u8> = match parts.as_slice() {
            [] => Vec::new(),
            [only] => only.clone(),
            [first, .., last] => [first.as_slice(), last].concat(),
        };
        let fits = |part: &[u8]| {
            let nest = one.with(&[&before, part].concat());
            nest.is_some_and(|nest| fits(&nest))
        };
        parts.extend(kept(&part, depth, &fits));
    }
    if parts.is_empty() {
        return None;
    }
    one.with(&parts.concat()).filter(|nest| fits(nest))
}

/// A text that is not UTF-8, with replacements in it; `None`: it is something else. A text is what would fit if only
/// its bytes beyond ASCII were others.
fn text(one: &Attribute<'_>, fits: &dyn Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let text = one.value.strip_suffix(&[0]).unwrap_or(one.value);
    if text.is_ascii() || text.contains(&0) {
        return None;
    }
    let ascii = |byte: &u8| if byte.is_ascii() { *byte } else { b'?' };
    let ascii: Vec<u8> = one.value.iter().map(ascii).collect();
    if !fits(&one.with(&ascii)?) {
        return None;
    }
    let replaced = String::from_utf8_lossy(one.value);
    one.with(replaced.as_bytes()).filter(|text| fits(text))
}

/// An attribute as it stands in a message.
struct Attribute<'a> {
    /// With the flags in its upper two bits.
    kind: u16,
    value: &'a [u8],
}

impl Attribute<'_> {
    /// The same attribute with another value; `None`: that is too long.
    fn with(&self, value: &[u8]) -> Option<Vec<u8>> {
        if NLA_HEADER_SIZE + value.len() > usize::from(u16::MAX) {
            return None;
        }
        let mut bytes = Vec::new();
        netlink::attribute(&mut bytes, self.kind, value);
        Some(bytes)
    }
}

/// The attributes that are whole; ends at the first that is not.
fn whole(bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    netlink::flagged_attributes(bytes).map(|(kind, value)| Attribute { kind, value })
}

#[cfg(test)]
pub mod tests;
