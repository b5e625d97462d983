//! Messages of the kernel and of a container that means ill: what one attribute costs.

#![allow(clippy::unwrap_used)]
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::link::{InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkInfo};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc::{
    IFLA_ALT_IFNAME, IFLA_IFALIAS, IFLA_IFNAME, IFLA_LINK, IFLA_LINKINFO, IFLA_MTU, IFLA_PROP_LIST,
    RTM_GETADDR, RTM_GETLINK, RTM_GETNEIGH, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH,
};

use super::*;
use crate::netlink::{attribute, messages, nested, receive, request};

/// What rtnetlink makes of a datagram that this socket received.
pub fn read(datagram: &[u8]) -> Vec<RouteNetlinkMessage> {
    let datagram = readable(datagram);
    let all = messages(&datagram).map(|one| plain(&one).unwrap());
    all.collect()
}

/// What it makes of a message without this socket; `None`: it refuses.
fn plain(message: &Message<'_>) -> Option<RouteNetlinkMessage> {
    let message = NetlinkMessage::deserialize(message.clone().into_inner()).ok()?;
    match message.payload {
        NetlinkPayload::InnerMessage(message) => Some(message),
        other => panic!("{other:?}"),
    }
}

/// What the kernel says of this namespace: each message as a datagram of its own.
fn from_the_kernel() -> Vec<Vec<u8>> {
    let mut socket = Socket::new(NETLINK_ROUTE).unwrap();
    socket.bind_auto().unwrap();
    let mut all = Vec::new();
    for (kind, fixed) in [(RTM_GETLINK, 16), (RTM_GETADDR, 8), (RTM_GETNEIGH, 12)] {
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let question = request(kind, flags, 1, &vec![0; fixed]);
        socket.send(&question, 0).unwrap();
        let mut is_done = false;
        while !is_done {
            let mut buffer = Vec::with_capacity(BUFFER);
            receive(&socket, &mut buffer).unwrap();
            for one in messages(&buffer) {
                is_done |= one.message_type() == NLMSG_DONE;
                if !is_done {
                    all.push(request(one.message_type(), 0, 1, one.payload()));
                }
            }
        }
    }
    all
}

/// A container's macvlan, with the parts that a container has a say in.
fn macvlan() -> Vec<u8> {
    let mut data = Vec::new();
    attribute(&mut data, 1, &4_u32.to_ne_bytes());
    attribute(&mut data, 2, &1_u16.to_ne_bytes());
    attribute(&mut data, 7, &1000_u32.to_ne_bytes());
    let mut info = Vec::new();
    attribute(&mut info, 1, b"macvlan\0");
    nested(&mut info, 2, &data);
    let mut names = Vec::new();
    for name in [&b"first\0"[..], b"second\0"] {
        attribute(&mut names, IFLA_ALT_IFNAME, name);
    }
    let mut body = vec![0; 16];
    attribute(&mut body, IFLA_IFNAME, b"mv0\0");
    attribute(&mut body, IFLA_MTU, &1500_u32.to_ne_bytes());
    attribute(&mut body, IFLA_LINK, &2_u32.to_ne_bytes());
    nested(&mut body, IFLA_LINKINFO, &info);
    attribute(&mut body, IFLA_IFALIAS, b"alias\0");
    nested(&mut body, IFLA_PROP_LIST, &names);
    attribute(&mut body, 37, &0_i32.to_ne_bytes());
    request(RTM_NEWLINK, 0, 1, &body)
}

fn address() -> Vec<u8> {
    let mut body = vec![2, 24, 0x80, 0, 7, 0, 0, 0];
    attribute(&mut body, 1, &[10, 0, 0, 2]);
    attribute(&mut body, 2, &[10, 0, 0, 2]);
    attribute(&mut body, 4, &[10, 0, 0, 255]);
    attribute(&mut body, 3, b"eth0\0");
    attribute(&mut body, 8, &0x80_u32.to_ne_bytes());
    request(RTM_NEWADDR, 0, 1, &body)
}

fn neighbour() -> Vec<u8> {
    let mut body = vec![0; 12];
    body[0] = 2;
    body[8] = 1;
    attribute(&mut body, 1, &[10, 0, 0, 3]);
    attribute(&mut body, 4, &3_u32.to_ne_bytes());
    request(RTM_NEWNEIGH, 0, 1, &body)
}

/// Its attributes, as text.
fn attributes(message: &RouteNetlinkMessage) -> Vec<String> {
    fn each<T: std::fmt::Debug>(all: &[T]) -> Vec<String> {
        all.iter().map(|one| format!("{one:?}")).collect()
    }
    match message {
        RouteNetlinkMessage::NewLink(link) => each(&link.attributes),
        RouteNetlinkMessage::NewAddress(address) => each(&address.attributes),
        RouteNetlinkMessage::NewNeighbour(neighbour) => each(&neighbour.attributes),
        other => panic!("{other:?}"),
    }
}

/// An attribute's value, changed in five ways.
fn changes(value: &[u8]) -> [Vec<u8>; 5] {
    let shorter = &value[..value.len().saturating_sub(1)];
    [
        [value, &[1, 0, 0, 0]].concat(),
        shorter.to_vec(),
        Vec::new(),
        vec![0xff; value.len()],
        vec![0xff],
    ]
}

#[test]
fn an_attribute_that_is_unreadable_costs_no_other() {
    let built = [macvlan(), address(), neighbour()];
    let (mut read_in_all, mut refused) = (0, 0);
    for datagram in from_the_kernel().into_iter().chain(built) {
        let message = messages(&datagram).next().unwrap();
        let payload = message.payload();
        let fixed = fixed_part(message.message_type()).unwrap();
        let before = attributes(&plain(&message).unwrap());
        assert_eq!(readable(&datagram), datagram, "{before:?}");
        let all: Vec<Attribute<'_>> = whole(&payload[fixed..]).collect();
        assert_eq!(all.len(), before.len());
        for at in 0..all.len() {
            for change in changes(all[at].value) {
                let mut body = payload[..fixed].to_vec();
                for (number, one) in all.iter().enumerate() {
                    let value = if number == at { &change } else { one.value };
                    body.extend(one.with(value).unwrap());
                }
                let changed = request(message.message_type(), 0, 1, &body);
                read_in_all += 1;
                refused += u32::from(plain(&messages(&changed).next().unwrap()).is_none());
                let after = attributes(&read(&changed)[0]);
                let context = format!("{} as {change:?}: {after:?}", before[at]);
                assert!(after.starts_with(&before[..at]), "{context}");
                assert!(after.ends_with(&before[at + 1..]), "{context}");
                let others = before.len() - 1;
                assert!((others..=others + 1).contains(&after.len()), "{context}");
            }
        }
    }
    // Most of what the kernel sends is of a fixed length.
    assert!(refused * 3 > read_in_all, "{refused} of {read_in_all}");
}

fn link(bytes: &[u8]) -> Vec<LinkAttribute> {
    match read(bytes).remove(0) {
        RouteNetlinkMessage::NewLink(link) => link.attributes,
        other => panic!("{other:?}"),
    }
}

/// An interface with `info` about its kind.
fn of_kind(info: &[u8]) -> Vec<u8> {
    let mut body = vec![0; 16];
    nested(&mut body, IFLA_LINKINFO, info);
    attribute(&mut body, IFLA_MTU, &1500_u32.to_ne_bytes());
    request(RTM_NEWLINK, 0, 1, &body)
}

#[test]
fn of_a_nest_the_unreadable_part_is_lost() {
    let mut data = Vec::new();
    // Flags that became longer.
    attribute(&mut data, 2, &1_u32.to_ne_bytes());
    attribute(&mut data, 1, &4_u32.to_ne_bytes());
    let mut info = Vec::new();
    attribute(&mut info, 1, b"macvlan\0");
    nested(&mut info, 2, &data);
    // The data of a port stand behind the kind of port.
    attribute(&mut info, 4, b"bridge\0");
    let mut port = Vec::new();
    attribute(&mut port, 1, &[3, 0, 0, 0]);
    attribute(&mut port, 2, &32_u16.to_ne_bytes());
    nested(&mut info, 5, &port);
    let bytes = of_kind(&info);
    assert_eq!(plain(&messages(&bytes).next().unwrap()), None);
    let attributes = link(&bytes);
    let [LinkAttribute::LinkInfo(info), LinkAttribute::Mtu(1500)] = attributes.as_slice() else {
        panic!("{attributes:?}");
    };
    assert_eq!(info[0], LinkInfo::Kind(InfoKind::MacVlan));
    let LinkInfo::Data(InfoData::MacVlan(data)) = &info[1] else {
        panic!("{info:?}");
    };
    assert_eq!(data.len(), 1, "{data:?}");
    assert!(matches!(&data[0], InfoMacVlan::Mode(mode) if u32::from(*mode) == 4));
    assert!(matches!(&info[2], LinkInfo::PortKind(_)), "{info:?}");
    let LinkInfo::PortData(port) = &info[3] else {
        panic!("{info:?}");
    };
    assert!(format!("{port:?}").contains("32"), "{port:?}");
}

#[test]
fn a_text_that_is_not_utf_8_is_replaced_and_no_number_is_a_text() {
    let mut body = vec![0; 16];
    attribute(&mut body, IFLA_IFNAME, b"mv\xff\0");
    attribute(&mut body, IFLA_IFALIAS, b"\xff");
    // A number of two bytes is no number of four because its replacement has four.
    attribute(&mut body, IFLA_LINK, &[0xff, 1]);
    let mut names = Vec::new();
    attribute(&mut names, IFLA_ALT_IFNAME, b"\xfe\0");
    attribute(&mut names, IFLA_ALT_IFNAME, b"good\0");
    nested(&mut body, IFLA_PROP_LIST, &names);
    let attributes = link(&request(RTM_NEWLINK, 0, 1, &body));
    assert_eq!(attributes.len(), 3, "{attributes:?}");
    assert_eq!(attributes[0], LinkAttribute::IfName("mv\u{fffd}".into()));
    assert_eq!(attributes[1], LinkAttribute::IfAlias("\u{fffd}".into()));
    let names = format!("{:?}", attributes[2]);
    assert!(names.contains('\u{fffd}') && names.contains("good"));
}

/// The kernel lets an interface have as many names as fit into one attribute. Their replacements may not fit; the rest
/// of the message stays, and trying takes no time that grows with their number squared.
#[test]
fn an_interface_with_thousands_of_names_is_read() {
    let mut names = Vec::new();
    for number in 0..8_000_u16 {
        let [high, low] = number.to_be_bytes();
        let name = [0x80 | high, 0x80 | low | 1, 0];
        attribute(&mut names, IFLA_ALT_IFNAME, &name);
    }
    let mut body = vec![0; 16];
    attribute(&mut body, IFLA_IFNAME, b"mv0\0");
    nested(&mut body, IFLA_PROP_LIST, &names);
    attribute(&mut body, IFLA_MTU, &1500_u32.to_ne_bytes());
    let attributes = link(&request(RTM_NEWLINK, 0, 1, &body));
    assert_eq!(attributes.len(), 2, "{attributes:?}");
    assert_eq!(attributes[0], LinkAttribute::IfName("mv0".into()));
    assert_eq!(attributes[1], LinkAttribute::Mtu(1500));
}

#[test]
fn a_byte_changed_anywhere_never_panics() {
    for whole in [macvlan(), address(), neighbour()] {
        for at in 0..whole.len() {
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                let broken = readable(&broken);
                for message in messages(&broken) {
                    drop(NetlinkMessage::<RouteNetlinkMessage>::deserialize(
                        message.into_inner(),
                    ));
                }
            }
        }
    }
}

#[test]
fn a_message_ends_where_the_next_begins() {
    let mut datagram = request(2, 0, 1, &[0; 5]);
    datagram.extend(macvlan());
    let all = readable(&datagram);
    let lengths: Vec<u32> = messages(&all).map(|one| one.length()).collect();
    assert_eq!(lengths.len(), 2);
    assert!(lengths.iter().all(|length| length % 4 == 0), "{lengths:?}");
    assert_eq!(lengths.iter().sum::<u32>() as usize, all.len());
}
