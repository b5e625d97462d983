//! What is read from answers of the kernel, and the bytes of questions.

#![allow(clippy::unwrap_used)]
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage};
use nix::libc::{
    IFA_ADDRESS, IFA_BROADCAST, IFA_FLAGS, IFA_LOCAL, IFLA_ADDRESS, IFLA_IFNAME, IFLA_INFO_DATA,
    IFLA_INFO_KIND, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_LINKINFO, RTM_GETADDR, RTM_GETLINK,
    RTM_GETNEIGH, RTM_GETNSID, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWNSID,
};

use super::super::lenient::tests::read;
use super::*;
use crate::netlink::{attribute, request};

fn links(datagram: &[u8]) -> Vec<Link> {
    let each = |one| match one {
        RouteNetlinkMessage::NewLink(one) => link(&one),
        other => panic!("{other:?}"),
    };
    read(datagram).into_iter().map(each).collect()
}

fn address_of(body: &[u8]) -> Option<LinkAddress> {
    match read(&request(RTM_NEWADDR, 0, 1, body)).remove(0) {
        RouteNetlinkMessage::NewAddress(one) => address(&one),
        other => panic!("{other:?}"),
    }
}

/// Constants of the kernel's headers.
const IFINFOMSG: usize = 16;
const IFADDRMSG: usize = 8;
const IFF_UP: u32 = 1;
const MODE: u16 = 1;

fn link_bytes() -> Vec<u8> {
    let mut body = vec![0; IFINFOMSG];
    body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
    body[8..12].copy_from_slice(&(IFF_UP | 0x40).to_ne_bytes());
    // A name, padded: `veth0\0` is 6 bytes.
    body.extend(10_u16.to_ne_bytes());
    body.extend(IFLA_IFNAME.to_ne_bytes());
    body.extend(b"veth0\0\0\0");
    body.extend(10_u16.to_ne_bytes());
    body.extend(IFLA_ADDRESS.to_ne_bytes());
    body.extend([2, 0, 0, 0, 0, 9, 0, 0]);
    // Nested flag set, as the kernel may.
    body.extend(13_u16.to_ne_bytes());
    body.extend((IFLA_LINKINFO | 0x8000).to_ne_bytes());
    body.extend(9_u16.to_ne_bytes());
    body.extend(IFLA_INFO_KIND.to_ne_bytes());
    body.extend(b"veth\0\0\0\0");
    attribute(&mut body, IFLA_LINK_NETNSID, &3_i32.to_ne_bytes());
    attribute(&mut body, IFLA_LINK, &2_i32.to_ne_bytes());
    request(RTM_NEWLINK, 0, 1, &body)
}

#[test]
fn an_interface_is_read_with_what_it_says() {
    let expected = Link {
        ifindex: 7,
        name: "veth0".to_owned(),
        kind: Some("veth".to_owned()),
        mode: None,
        mac: Some([2, 0, 0, 0, 0, 9]),
        link: Some(2),
        link_nsid: Some(3),
        master: None,
        up: true,
    };
    assert_eq!(links(&link_bytes()), [expected]);
}

#[test]
fn the_mode_of_a_macvlan_and_of_an_ipvlan_is_read() {
    let of = |kind: &str, mode: &[u8]| {
        let mut data = Vec::new();
        attribute(&mut data, MODE, mode);
        let mut info = Vec::new();
        attribute(&mut info, IFLA_INFO_KIND, format!("{kind}\0").as_bytes());
        attribute(&mut info, IFLA_INFO_DATA, &data);
        let mut body = vec![0; IFINFOMSG];
        attribute(&mut body, IFLA_LINKINFO, &info);
        let bytes = request(RTM_NEWLINK, 0, 1, &body);
        links(&bytes)[0].mode
    };
    assert_eq!(of("macvlan", &4_u32.to_ne_bytes()), Some(4));
    assert_eq!(of("ipvlan", &2_u16.to_ne_bytes()), Some(2));
    assert_eq!(of("bridge", &4_u32.to_ne_bytes()), None);
    assert_eq!(of("ipvlan", &[2]), None);
}

#[test]
fn a_message_cut_anywhere_is_read_or_left() {
    let mut bytes = link_bytes();
    let whole = bytes.len();
    bytes.extend(link_bytes());
    assert_eq!(links(&bytes).len(), 2);
    for end in 0..bytes.len() {
        assert_eq!(links(&bytes[..end]).len(), end / whole, "cut at {end}");
    }
}

#[test]
fn of_two_ends_the_address_is_the_near_one() {
    let mut body = vec![0; IFADDRMSG];
    attribute(&mut body, IFA_ADDRESS, &[10, 0, 0, 2]);
    attribute(&mut body, IFA_LOCAL, &[10, 0, 0, 1]);
    let expected = LinkAddress {
        ifindex: 0,
        address: IpAddr::from([10, 0, 0, 1]),
        broadcasts: BTreeSet::new(),
        permanent: false,
    };
    assert_eq!(address_of(&body), Some(expected));
}

#[test]
fn a_subnet_has_addresses_for_every_host() {
    let of = |length: u8, own: &[u8], broadcast: Option<[u8; 4]>| {
        let mut body = vec![0; IFADDRMSG];
        body[1] = length;
        attribute(&mut body, IFA_ADDRESS, own);
        if let Some(broadcast) = broadcast {
            attribute(&mut body, IFA_BROADCAST, &broadcast);
        }
        let found = address_of(&body).unwrap();
        let all = found.broadcasts.iter().map(ToString::to_string);
        all.collect::<Vec<_>>()
    };
    let both = ["10.0.0.0", "10.0.0.255"];
    assert_eq!(of(24, &[10, 0, 0, 1], Some([10, 0, 0, 255])), both);
    assert_eq!(of(24, &[10, 0, 0, 1], None), both);
    let set = of(24, &[10, 0, 0, 1], Some([10, 0, 255, 255]));
    assert_eq!(set, ["10.0.0.0", "10.0.0.255", "10.0.255.255"]);
    assert_eq!(of(31, &[10, 0, 0, 1], None), [""; 0]);
    assert_eq!(of(32, &[10, 0, 0, 1], None), [""; 0]);
    let own = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    assert_eq!(of(64, &own("fd00::1"), None), ["fd00::"]);
    assert_eq!(of(64, &own("fe80::1"), None), ["fe80::"]);
    assert_eq!(of(127, &own("fd00::1"), None), [""; 0]);
    assert_eq!(of(128, &own("::1"), None), [""; 0]);
}

#[test]
fn an_address_is_permanent_by_its_header_or_by_the_attribute() {
    let of = |header: u8, attribute_flags: Option<u32>| {
        let mut body = vec![0; IFADDRMSG];
        body[2] = header;
        attribute(&mut body, IFA_ADDRESS, &[10, 0, 0, 2]);
        if let Some(flags) = attribute_flags {
            attribute(&mut body, IFA_FLAGS, &flags.to_ne_bytes());
        }
        address_of(&body).unwrap().permanent
    };
    assert!(of(0x80, None));
    assert!(of(0x80, Some(0x280)));
    assert!(!of(0, None));
    // A router's: IFA_F_MANAGETEMPADDR.
    assert!(!of(0, Some(0x100)));
}

#[test]
fn a_neighbour_without_an_answer_is_unresolved() {
    let of = |state: u16, family: u8, own: &[u8]| {
        let mut body = vec![0; 12];
        body[0] = family;
        body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        body[8..10].copy_from_slice(&state.to_ne_bytes());
        attribute(&mut body, 1, own);
        match read(&request(RTM_NEWNEIGH, 0, 1, &body)).remove(0) {
            RouteNetlinkMessage::NewNeighbour(one) => unresolved(&one),
            other => panic!("{other:?}"),
        }
    };
    let four = [10, 0, 0, 3];
    let six = std::net::Ipv6Addr::LOCALHOST;
    assert_eq!(of(1, 2, &four), Some((7, IpAddr::from(four))));
    assert_eq!(of(1, 10, &six.octets()), Some((7, IpAddr::V6(six))));
    // Reachable.
    assert_eq!(of(2, 2, &four), None);
    assert_eq!(of(1, 2, &[10, 0, 0]), None);
}

#[test]
fn the_id_of_a_namespace_is_read() {
    let of = |value: &[u8]| {
        let mut body = vec![0; 4];
        attribute(&mut body, 1, value);
        match read(&request(RTM_NEWNSID, 0, 1, &body)).remove(0) {
            RouteNetlinkMessage::NewNsId(one) => nsid(&one),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(of(&3_i32.to_ne_bytes()), Some(3));
    assert_eq!(of(&(-1_i32).to_ne_bytes()), Some(-1));
    assert_eq!(of(&[3, 0]), None);
}

/// The kernel gets what it got from a socket that filled the structures of its headers by hand.
#[test]
fn a_question_is_the_same_bytes_as_the_kernel_s_structures() {
    let bytes = |message: RouteNetlinkMessage, flags: u16| {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = flags;
        message.header.sequence_number = 5;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    };
    let dump = NLM_F_REQUEST | NLM_F_DUMP;
    let mut body = vec![0; IFINFOMSG];
    // IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS.
    attribute(&mut body, 29, &8_u32.to_ne_bytes());
    assert_eq!(
        bytes(all_links(), dump),
        request(RTM_GETLINK, dump, 5, &body)
    );
    let expected = request(RTM_GETADDR, dump, 5, &[0; IFADDRMSG]);
    assert_eq!(bytes(all_addresses(), dump), expected);
    let expected = request(RTM_GETNEIGH, dump, 5, &[0; 12]);
    assert_eq!(bytes(all_neighbours(), dump), expected);
    let mut body = vec![0; IFINFOMSG];
    body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
    // IFLA_TARGET_NETNSID.
    attribute(&mut body, 46, &3_i32.to_ne_bytes());
    assert_eq!(
        bytes(link_elsewhere(3, 7), 5),
        request(RTM_GETLINK, 5, 5, &body)
    );
    let mut body = vec![0; 4];
    // NETNSA_FD.
    attribute(&mut body, 3, &9_i32.to_ne_bytes());
    let ask = RouteNetlinkMessage::GetNsId(namespace(9));
    assert_eq!(bytes(ask, 5), request(RTM_GETNSID, 5, 5, &body));
    // NETNSA_NSID.
    attribute(&mut body, 1, &(-1_i32).to_ne_bytes());
    let give = RouteNetlinkMessage::NewNsId(namespace_with_id(9));
    assert_eq!(bytes(give, 5), request(RTM_NEWNSID, 5, 5, &body));
}
