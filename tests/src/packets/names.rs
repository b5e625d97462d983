//! The names that packet files use: addresses, MAC addresses, protocols, flags, types. Each name
//! means one value, and a value that has a name is shown by it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::frames::Mac;

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(first: u16, second: u16, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, last))
}

/// Addresses: the endpoint under test is `box`; `friend` and `foe` are endpoints of the same
/// host; `block` is in the `ipBlock` of some worlds, `except` in what that leaves out.
pub const ADDRESSES: [(&str, IpAddr); 16] = [
    ("box", v4(10, 0, 0, 2)),
    ("friend", v4(10, 0, 0, 3)),
    ("foe", v4(10, 0, 0, 4)),
    ("host", v4(10, 0, 0, 1)),
    ("stranger", v4(198, 51, 100, 7)),
    ("block", v4(203, 0, 113, 4)),
    ("except", v4(203, 0, 113, 130)),
    ("any", v4(0, 0, 0, 0)),
    ("everybody", v4(255, 255, 255, 255)),
    ("box6", v6(0xfd00, 0, 2)),
    ("box6-link", v6(0xfe80, 0, 2)),
    ("friend6", v6(0xfd00, 0, 3)),
    ("foe6", v6(0xfd00, 0, 4)),
    ("host6", v6(0xfd00, 0, 1)),
    ("stranger6", v6(0x2001, 0xdb8, 7)),
    ("any6", v6(0, 0, 0)),
];

/// Where a frame towards the box may come from: the interface by which the host received it; 0, the host sent it.
pub const PLACES: [(&str, u32); 6] = [
    ("host", 0),
    ("friend", 102),
    ("foe", 103),
    ("bridge", 104),
    ("other-bridge", 105),
    ("uplink", 109),
];

/// MAC addresses: the container's, and that of the host at the other end of the bridge.
pub const MACS: [(&str, Mac); 3] = [
    ("box", [2, 0, 0, 0, 0, 2]),
    ("other", [2, 0, 0, 0, 0, 9]),
    ("everybody", [0xff; 6]),
];

/// IP protocols, extension headers included.
pub const PROTOCOLS: [(&str, u8); 15] = [
    ("hop-by-hop", 0),
    ("icmp", 1),
    ("ip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("ip6", 41),
    ("routing", 43),
    ("fragment", 44),
    ("auth", 51),
    ("icmp6", 58),
    ("destination", 60),
    ("sctp", 132),
    ("mobility", 135),
    ("hip", 139),
    ("shim6", 140),
];

/// TCP flags.
pub const FLAGS: [(&str, u8); 8] = [
    ("FIN", 0x01),
    ("SYN", 0x02),
    ("RST", 0x04),
    ("PSH", 0x08),
    ("ACK", 0x10),
    ("URG", 0x20),
    ("ECE", 0x40),
    ("CWR", 0x80),
];

/// ICMP types.
pub const ICMP: [(&str, u8); 8] = [
    ("echo-reply", 0),
    ("unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo", 8),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp", 13),
];

/// ICMPv6 types.
pub const ICMP6: [(&str, u8); 15] = [
    ("unreachable", 1),
    ("too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo", 128),
    ("echo-reply", 129),
    ("listener-query", 130),
    ("listener-report", 131),
    ("listener-done", 132),
    ("router-solicitation", 133),
    ("router-advertisement", 134),
    ("neighbour-solicitation", 135),
    ("neighbour-advertisement", 136),
    ("redirect", 137),
    ("listener-report2", 143),
];

/// SCTP chunks.
pub const CHUNKS: [(&str, u8); 11] = [
    ("DATA", 0),
    ("INIT", 1),
    ("INIT-ACK", 2),
    ("SACK", 3),
    ("HEARTBEAT", 4),
    ("HEARTBEAT-ACK", 5),
    ("ABORT", 6),
    ("SHUTDOWN", 7),
    ("SHUTDOWN-ACK", 8),
    ("COOKIE-ECHO", 10),
    ("COOKIE-ACK", 11),
];

/// The value of a name, if the list has it.
pub fn find<T: Copy>(list: &[(&str, T)], name: &str) -> Option<T> {
    let found = list.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value)
}

/// The name of a value, if the list has one.
pub fn name<T: PartialEq + Copy>(list: &'static [(&str, T)], value: T) -> Option<&'static str> {
    let found = list.iter().find(|(_, known)| *known == value);
    found.map(|(name, _)| *name)
}

/// The names of a list, for a message.
fn known<T>(list: &[(&str, T)]) -> String {
    let names: Vec<&str> = list.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

/// An unsigned number: decimal, hexadecimal behind `0x`; `A+B` is A, and B more with each
/// repetition.
///
/// # Errors
/// It is none, or does not fit.
pub fn number<T: TryFrom<u64>>(text: &str, repetition: u64) -> Result<T> {
    let plain = |text: &str| -> Result<u64> {
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        parsed.with_context(|| format!("`{text}` is not a number"))
    };
    let value = match text.split_once('+') {
        Some((first, step)) => plain(first)?.wrapping_add(plain(step)?.wrapping_mul(repetition)),
        None => plain(text)?,
    };
    T::try_from(value).map_err(|_| anyhow!("`{text}` does not fit its field ({value})"))
}

/// A number, or a name of the list.
///
/// # Errors
/// It is neither.
pub fn numbered(list: &[(&str, u8)], text: &str, repetition: u64) -> Result<u8> {
    match find(list, text) {
        Some(value) => Ok(value),
        None => number(text, repetition)
            .with_context(|| format!("neither is it one of {}", known(list))),
    }
}

/// An address by name or as written; `A+B` is the Bth after A with each repetition.
///
/// # Errors
/// The text is no address.
pub fn address(text: &str, repetition: u64) -> Result<IpAddr> {
    let (first, step) = match text.split_once('+') {
        Some((first, step)) => (first, number::<u64>(step, 0)?.wrapping_mul(repetition)),
        None => (text, 0),
    };
    let base = match find(&ADDRESSES, first) {
        Some(address) => address,
        None => first.parse().with_context(|| {
            let names = known(&ADDRESSES);
            format!("`{first}` is neither an address nor one of {names}")
        })?,
    };
    Ok(match base {
        IpAddr::V4(base) => IpAddr::V4((u32::from(base).wrapping_add(step as u32)).into()),
        IpAddr::V6(base) => IpAddr::V6((u128::from(base).wrapping_add(step.into())).into()),
    })
}

/// An IPv4 address.
///
/// # Errors
/// The text is no IPv4 address.
pub fn address4(text: &str, repetition: u64) -> Result<Ipv4Addr> {
    match address(text, repetition)? {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => bail!("`{text}` is an IPv6 address, which the header `ip6` has"),
    }
}

/// An IPv6 address.
///
/// # Errors
/// The text is no IPv6 address.
pub fn address6(text: &str, repetition: u64) -> Result<Ipv6Addr> {
    match address(text, repetition)? {
        IpAddr::V6(address) => Ok(address),
        IpAddr::V4(_) => bail!("`{text}` is an IPv4 address, which the header `ip` has"),
    }
}

/// A MAC address by name, or as six octets in hexadecimal.
///
/// # Errors
/// The text is no MAC address.
pub fn mac(text: &str) -> Result<Mac> {
    if let Some(mac) = find(&MACS, text) {
        return Ok(mac);
    }
    let octets: Result<Vec<u8>, _> = text
        .split(':')
        .map(|octet| u8::from_str_radix(octet, 16))
        .collect();
    let octets = octets.ok().and_then(|octets| octets.try_into().ok());
    octets.with_context(|| {
        let names = known(&MACS);
        format!("`{text}` is neither a MAC address nor one of {names}")
    })
}

/// Bytes in hexadecimal; `HEX*N` is N times the same.
///
/// # Errors
/// The text is not hexadecimal.
pub fn bytes(text: &str) -> Result<Vec<u8>> {
    let (hex, times) = match text.split_once('*') {
        Some((hex, times)) => (hex, number::<usize>(times, 0)?),
        None => (text, 1),
    };
    let digits = hex.as_bytes();
    let octet = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(pair, 16).ok()
    };
    let octets: Option<Vec<u8>> = digits.chunks(2).map(octet).collect();
    match octets {
        Some(octets) if digits.len().is_multiple_of(2) => Ok(octets.repeat(times)),
        _ => bail!("`{text}` is not bytes in hexadecimal (`0800`, or `01*12`)"),
    }
}

/// TCP flags, `SYN,ACK`; `NONE` or a number.
///
/// # Errors
/// The text names no TCP flags.
pub fn flags(text: &str) -> Result<u8> {
    if text == "NONE" {
        return Ok(0);
    }
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return number(text, 0);
    }
    text.split(',').try_fold(0, |flags, name| {
        let flag = find(&FLAGS, name);
        let flag =
            flag.with_context(|| format!("`{name}` is no TCP flag: {}, or NONE", known(&FLAGS)))?;
        Ok(flags | flag)
    })
}

/// TCP flags as [`flags`] reads them.
#[must_use]
pub fn show_flags(flags: u8) -> String {
    if flags == 0 {
        return "NONE".to_owned();
    }
    let set = FLAGS.iter().filter(|(_, flag)| flags & flag != 0);
    let names: Vec<&str> = set.map(|(name, _)| *name).collect();
    names.join(",")
}

/// An address as [`address`] reads it.
#[must_use]
pub fn show(address: IpAddr) -> String {
    name(&ADDRESSES, address).map_or_else(|| address.to_string(), ToOwned::to_owned)
}

/// A MAC address as [`mac`] reads it.
#[must_use]
pub fn show_mac(mac: Mac) -> String {
    let octets = mac.map(|octet| format!("{octet:02x}"));
    name(&MACS, mac).map_or_else(|| octets.join(":"), ToOwned::to_owned)
}

/// A protocol by name or number.
#[must_use]
pub fn show_protocol(protocol: u8) -> String {
    name(&PROTOCOLS, protocol).map_or_else(|| format!("protocol {protocol}"), ToOwned::to_owned)
}
