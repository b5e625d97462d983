//! Netlink's framing: messages and attributes as bytes, and one datagram from a socket.
//!
//! What the messages of one family mean is for its module (`links`, `gate`). Read by hand, and
//! leniently: what is not whole ends the reading, and never costs what came before.
//! Host byte order, but where a family says otherwise.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd as _;

use netlink_sys::Socket;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

pub const NLMSG_ERROR: u16 = 2;
pub const NLMSG_DONE: u16 = 3;
pub const NLMSG_OVERRUN: u16 = 4;

pub const NLM_F_REQUEST: u16 = 1;
pub const NLM_F_ACK: u16 = 4;
/// In an answer: the table changed while it was listed.
pub const NLM_F_DUMP_INTR: u16 = 0x10;
pub const NLM_F_DUMP: u16 = 0x300;
/// In a request that makes something.
pub const NLM_F_CREATE: u16 = 0x400;

const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
/// The two top bits of an attribute's type are flags (nested, byte order).
const TYPE_MASK: u16 = 0x3fff;
const NESTED: u16 = 0x8000;

/// The kernel makes dump datagrams of at most 32 KiB (`netlink_dump`).
pub const BUFFER: usize = 64 * 1024;
/// Tells the real size of a datagram that did not fit.
const MSG_TRUNC: i32 = 0x20;

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub payload: &'a [u8],
}

/// The messages of a datagram; ends at the first that is not whole.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = read_u32(rest, 0)? as usize;
        let payload = rest.get(HEADER..length)?;
        let message = Message {
            kind: read_u16(rest, 4)?,
            flags: read_u16(rest, 6)?,
            sequence: read_u32(rest, 8)?,
            payload,
        };
        rest = rest.get(align(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes after a fixed part; ends at the first that is not whole.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(rest, 0)?);
        let kind = read_u16(rest, 2)? & TYPE_MASK;
        let value = rest.get(ATTRIBUTE_HEADER..length)?;
        rest = rest.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The error number of an `NLMSG_ERROR`; 0: an acknowledgement.
pub fn error_number(message: &Message<'_>) -> Option<i32> {
    read_i32(message.payload, 0).map(|code| code.saturating_neg())
}

/// A message, its length padded as the next one needs it.
pub fn request(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = HEADER + body.len();
    let mut bytes = Vec::with_capacity(align(length));
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    bytes.resize(align(length), 0);
    bytes
}

/// Adds an attribute; its value is shorter than 64 KiB.
pub fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = ATTRIBUTE_HEADER + value.len();
    debug_assert!(length <= usize::from(u16::MAX), "{length}");
    body.extend((length as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(align(body.len()), 0);
}

/// Adds an attribute that holds attributes.
pub fn nested(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    attribute(body, kind | NESTED, value);
}

/// A C string; interface names may be any bytes but `/` and white space.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&value[..end.unwrap_or(value.len())]).into_owned()
}

const fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

pub fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

pub fn read_i32(bytes: &[u8], at: usize) -> Option<i32> {
    read_u32(bytes, at).map(u32::cast_signed)
}

/// One datagram; the size is the real one where it was cut.
pub fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        match socket.recv(buffer, MSG_TRUNC) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Takes one datagram, and says from which network namespace it came: the id that this socket's own has for that one;
/// `None`: its own. For a socket with `NETLINK_LISTEN_ALL_NSID`; the kernel puts the id into a control message.
pub fn receive_sender(socket: &Socket) -> io::Result<Option<i32>> {
    const SOL_NETLINK: i32 = 270;
    const NETLINK_LISTEN_ALL_NSID: i32 = 8;
    // Only who sent it is asked; the rest of the datagram is cut off.
    let mut start = [0; HEADER];
    let mut control = nix::cmsg_space!(i32);
    loop {
        let mut into = [IoSliceMut::new(&mut start)];
        let received = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut into,
            Some(&mut control),
            MsgFlags::empty(),
        );
        let message = match received {
            Ok(message) => message,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let id = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Unknown(control)
                if control.cmsg_header.cmsg_level == SOL_NETLINK
                    && control.cmsg_header.cmsg_type == NETLINK_LISTEN_ALL_NSID =>
            {
                read_i32(&control.data_bytes, 0)
            }
            _ => None,
        });
        return Ok(id);
    }
}

/// The kernel had to drop messages that nobody fetched in time.
pub fn is_overflow(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw) == Some(Errno::ENOBUFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_nothing_ends_the_datagram() {
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[0; 64]).count(), 0);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut inner = Vec::new();
        attribute(&mut inner, 1, b"odd");
        attribute(&mut inner, 2, &[7; 4]);
        let mut body = vec![9; 4];
        nested(&mut body, 3, &inner);
        let mut datagram = request(10, NLM_F_REQUEST, 5, &body);
        datagram.extend(request(11, 0, 6, &[1]));
        let read: Vec<Message<'_>> = messages(&datagram).collect();
        assert_eq!((read[0].kind, read[0].sequence), (10, 5));
        assert_eq!((read[1].kind, read[1].payload), (11, &[1][..]));
        let outer: Vec<(u16, &[u8])> = attributes(&read[0].payload[4..]).collect();
        assert_eq!(outer, [(3, &inner[..])]);
        let values: Vec<(u16, &[u8])> = attributes(outer[0].1).collect();
        assert_eq!(values, [(1, &b"odd"[..]), (2, &[7; 4][..])]);
    }
}
