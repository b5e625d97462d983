//! What several families need of netlink beside its libraries: one datagram from a socket, and the messages and
//! attributes in it as slices.
//!
//! The framing is of netlink-packet-core. What the messages of one family mean is for its module (`links`, `gate`).
//! Read leniently: what is not whole ends the reading, and never costs what came before.
//! Host byte order, but where a family says otherwise.

use std::io::{self, IoSliceMut};
use std::num::NonZeroI32;
use std::os::fd::AsRawFd as _;

use netlink_packet_core::{
    DefaultNla, Emitable as _, ErrorBuffer, NLA_F_NESTED, NLA_HEADER_SIZE, NLA_TYPE_MASK,
    NetlinkBuffer, NetlinkHeader, NlasIterator, parse_i32,
};
use netlink_sys::Socket;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

const HEADER: usize = 16;

/// The kernel makes dump datagrams of at most 32 KiB (`netlink_dump`).
pub const BUFFER: usize = 64 * 1024;

/// One whole message of a datagram.
pub type Message<'a> = NetlinkBuffer<&'a [u8]>;

/// The messages of a datagram; ends at the first that is not whole.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        // Only the last one may lack its padding.
        rest = rest
            .get(align(message.length() as usize)..)
            .unwrap_or_default();
        Some(message)
    })
}

/// The attributes after a fixed part: type, without its flags, and value. Ends at the first that is not whole.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    flagged_attributes(bytes).map(|(kind, value)| (kind & NLA_TYPE_MASK, value))
}

/// The same with the flags in the upper two bits of the type, as the message has them.
pub fn flagged_attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let whole = NlasIterator::new(bytes).map_while(Result::ok);
    whole.filter_map(|one| {
        // `NlaBuffer::value` lives no longer than the buffer object; the bytes do.
        let (end, bytes) = (usize::from(one.length()), one.into_inner());
        let kind = u16::from_ne_bytes(bytes.get(2..NLA_HEADER_SIZE)?.try_into().ok()?);
        Some((kind, bytes.get(NLA_HEADER_SIZE..end)?))
    })
}

/// The error number of an `NLMSG_ERROR`; 0: an acknowledgement.
pub fn error_number(message: &Message<'_>) -> Option<i32> {
    let error = ErrorBuffer::new_checked(message.payload()).ok()?;
    Some(error.code().map_or(0, NonZeroI32::get).saturating_neg())
}

/// A message, padded as the next one needs it.
pub fn request(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.length = (HEADER + body.len()) as u32;
    header.message_type = kind;
    header.flags = flags;
    header.sequence_number = sequence;
    let mut bytes = vec![0; HEADER];
    header.emit(&mut bytes);
    bytes.extend(body);
    bytes.resize(align(bytes.len()), 0);
    bytes
}

/// Adds an attribute; its value is shorter than 64 KiB.
pub fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    debug_assert!(
        NLA_HEADER_SIZE + value.len() <= usize::from(u16::MAX),
        "{}",
        value.len()
    );
    let attribute = DefaultNla::new(kind, value.to_vec());
    let start = body.len();
    body.resize(start + attribute.buffer_len(), 0);
    attribute.emit(&mut body[start..]);
}

/// Adds an attribute that holds attributes.
pub fn nested(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    attribute(body, kind | NLA_F_NESTED, value);
}

/// A C string; interface names may be any bytes but `/` and white space.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&value[..end.unwrap_or(value.len())]).into_owned()
}

const fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// One datagram; the size is the real one where it was cut.
pub fn receive(socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        match socket.recv(buffer, libc::MSG_TRUNC) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Takes one datagram, and says from which network namespace it came: the id that this socket's own has for that one;
/// `None`: its own. For a socket with `NETLINK_LISTEN_ALL_NSID`; the kernel puts the id into a control message.
pub fn receive_sender(socket: &Socket) -> io::Result<Option<i32>> {
    // Only the sender is asked; the rest of the datagram is cut off.
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
                if control.cmsg_header.cmsg_level == libc::SOL_NETLINK
                    && control.cmsg_header.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID =>
            {
                parse_i32(control.data_bytes.get(..4)?).ok()
            }
            _ => None,
        });
        return Ok(id);
    }
}

/// The kernel had to drop messages that were not fetched in time.
pub fn is_overflow(error: &io::Error) -> bool {
    error.raw_os_error().map(Errno::from_raw) == Some(Errno::ENOBUFS)
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NLM_F_REQUEST;

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
        assert_eq!((read[0].message_type(), read[0].sequence_number()), (10, 5));
        assert_eq!((read[1].message_type(), read[1].payload()), (11, &[1][..]));
        let outer: Vec<(u16, &[u8])> = attributes(&read[0].payload()[4..]).collect();
        assert_eq!(outer, [(3, &inner[..])]);
        let values: Vec<(u16, &[u8])> = attributes(outer[0].1).collect();
        assert_eq!(values, [(1, &b"odd"[..]), (2, &[7; 4][..])]);
    }
}
