//! `netpold.io/addresses`: the further source addresses that an endpoint may use by leave of the operator who runs
//! it. Routers forward packets of other hosts, and several endpoints may take turns with one virtual address.
//!
//! One reader for the annotation of a Pod and the label of a container. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use netpol_abi::limits::LEAVES_EACH;
use thiserror::Error;

/// The annotation of a Pod, and the label of a container.
pub const ADDRESSES: &str = "netpold.io/addresses";

/// Why a list of addresses counts for nothing. It is taken whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Error)]
pub enum LeaveError {
    /// There is nothing in it.
    #[error("must name an address or a prefix")]
    Empty,
    /// An entry is neither an address nor a prefix.
    #[error("`{0}` is neither an address nor a prefix in CIDR notation")]
    Syntax(String),
    /// An entry has bits set behind its prefix length.
    #[error("`{0}` has bits set behind its prefix length: write `{1}`")]
    HostBits(String, IpNet),
    /// An entry is inside a range whose addresses are no single host's beyond one link.
    #[error("`{0}` is {1}: no leave gives such addresses")]
    Special(String, &'static str),
    /// There are too many entries.
    #[error("must name at most {LEAVES_EACH} addresses and prefixes")]
    TooMany,
}

/// Reads a list such as `10.99.0.0/24,10.0.0.7`.
///
/// # Errors
/// The first entry that is not right.
pub fn parse(text: &str) -> Result<BTreeSet<IpNet>, LeaveError> {
    let mut found = BTreeSet::new();
    for (index, entry) in text.split(',').map(str::trim).enumerate() {
        if index == LEAVES_EACH {
            return Err(LeaveError::TooMany);
        }
        if entry.is_empty() {
            return Err(match text.trim() {
                "" => LeaveError::Empty,
                _ => LeaveError::Syntax(String::new()),
            });
        }
        found.insert(prefix(entry)?);
    }
    Ok(found)
}

fn prefix(entry: &str) -> Result<IpNet, LeaveError> {
    let syntax = || LeaveError::Syntax(entry.to_owned());
    let net = if entry.contains('/') {
        entry.parse::<IpNet>().map_err(|_| syntax())?
    } else {
        IpNet::from(entry.parse::<IpAddr>().map_err(|_| syntax())?)
    };
    if net.trunc() != net {
        return Err(LeaveError::HostBits(entry.to_owned(), net.trunc()));
    }
    match special(&net) {
        Some(what) => Err(LeaveError::Special(entry.to_owned(), what)),
        None => Ok(net),
    }
}

/// What all addresses of a prefix are that no leave gives. A shorter prefix may have such addresses in it: the
/// programs leave them out ([`netpol_abi::judge::leave`]).
fn special(net: &IpNet) -> Option<&'static str> {
    const RANGES: [(&str, &str); 10] = [
        ("0.0.0.0/8", "of `this network` (RFC 791)"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved or broadcast"),
        ("::/128", "the unspecified address"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "IPv4 mapped into IPv6"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    ];
    let holds = |range: &str| {
        range
            .parse::<IpNet>()
            .is_ok_and(|range| range.contains(net))
    };
    RANGES
        .iter()
        .find_map(|(range, what)| holds(range).then_some(*what))
}

/// As it is written: an address without its prefix length.
#[must_use]
pub fn show(net: &IpNet) -> String {
    if is_single(net) {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

/// Is it one address?
#[must_use]
pub fn is_single(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// Is the prefix so short that no link has all of it? It lets its holder forward, and claim no address in ARP
/// and neighbour discovery, or the holder could divert all that its neighbours send to other hosts of the link.
#[must_use]
pub fn is_wide(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.prefix_len() < 8,
        IpNet::V6(net) => net.prefix_len() < 16,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_list_is_taken_whole_or_not_at_all() {
        let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect();
        for (text, expected) in [
            (
                "10.99.0.0/24,10.0.0.7",
                Ok(nets(&["10.99.0.0/24", "10.0.0.7/32"])),
            ),
            (
                " fd00::/64 , fd01::7 ",
                Ok(nets(&["fd00::/64", "fd01::7/128"])),
            ),
            ("0.0.0.0/0,::/0", Ok(nets(&["0.0.0.0/0", "::/0"]))),
            ("", Err(LeaveError::Empty)),
            ("10.0.0.1,", Err(LeaveError::Syntax(String::new()))),
            (
                "10.0.0.1;10.0.0.2",
                Err(LeaveError::Syntax("10.0.0.1;10.0.0.2".to_owned())),
            ),
            (
                "10.0.0.1/33",
                Err(LeaveError::Syntax("10.0.0.1/33".to_owned())),
            ),
            ("010.0.0.1", Err(LeaveError::Syntax("010.0.0.1".to_owned()))),
            (
                "10.0.0.7/24",
                Err(LeaveError::HostBits(
                    "10.0.0.7/24".to_owned(),
                    "10.0.0.0/24".parse().unwrap(),
                )),
            ),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.1.0/24",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "fe80::1",
            "ff02::/16",
        ] {
            let found = parse(&format!("10.0.0.1,{text}"));
            assert!(
                matches!(found, Err(LeaveError::Special(..))),
                "{text}: {found:?}"
            );
        }
        let many = |count: usize| vec!["10.0.0.1"; count].join(",");
        assert!(parse(&many(LEAVES_EACH)).is_ok());
        assert_eq!(parse(&many(LEAVES_EACH + 1)), Err(LeaveError::TooMany));
    }
}
