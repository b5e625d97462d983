//! Addresses and blocks as text. Leading zeros (`010.0.0.1` is 8.0.0.1 to some
//! libraries, 10.0.0.1 to others) and IPv4-mapped IPv6 addresses are refused, as
//! the API server's strict validation does (CVE-2021-29923).

use std::net::IpAddr;

use ipnet::IpNet;

/// An address in its one spelling.
pub(super) fn address(text: &str) -> Result<IpAddr, &'static str> {
    let invalid = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
    let address: IpAddr = text.parse().map_err(|_| match unpadded(text) {
        true => "must not have leading 0s",
        false => invalid,
    })?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err("must not be an IPv4-mapped IPv6 address")
        }
        _ => Ok(address),
    }
}

/// Would it be an IPv4 address without its leading zeros?
fn unpadded(text: &str) -> bool {
    text.split('.').count() == 4
        && text.split('.').all(|part| {
            (1..=16).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        })
        && text
            .split('.')
            .any(|part| part.len() > 1 && part.starts_with('0'))
}

/// A block as written, host bits still set: `trunc` clears them.
pub(super) fn block(text: &str) -> Result<IpNet, &'static str> {
    let invalid = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    let (base, length) = text.split_once('/').ok_or(invalid)?;
    let address = address(base).map_err(|message| match message.starts_with("must be") {
        true => invalid,
        false => message,
    })?;
    let plain = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    if !plain {
        return Err(invalid);
    }
    if length.len() > 1 && length.starts_with('0') {
        return Err("must not have leading 0s in its prefix length");
    }
    let length = length.parse().map_err(|_| invalid)?;
    IpNet::new(address, length).map_err(|_| invalid)
}

#[cfg(test)]
mod tests {
    //! Spellings that pass, and what the others are told.
    use super::*;

    #[test]
    fn blocks() {
        for good in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "::/0",
            "2001:db8::/64",
            "10.1.2.3/8",
            "::1/128",
        ] {
            assert_eq!(block(good).expect(good).to_string(), good);
        }
        for (bad, part) in [
            ("", "valid CIDR"),
            ("10.0.0.0", "valid CIDR"),
            ("10.0.0.0/", "valid CIDR"),
            ("10.0.0.0/33", "valid CIDR"),
            ("10.0.0.0/+8", "valid CIDR"),
            ("10.0.0.0/-1", "valid CIDR"),
            ("10.0.0.0/8/8", "valid CIDR"),
            ("10.0.0.0/08", "leading 0s"),
            ("10.0.0/8", "valid CIDR"),
            (" 10.0.0.0/8", "valid CIDR"),
            ("2001:db8::/129", "valid CIDR"),
            ("010.0.0.0/8", "leading 0s"),
            ("10.0.00.0/8", "leading 0s"),
            ("::ffff:10.0.0.0/104", "IPv4-mapped"),
            ("fe80::1%eth0/64", "valid CIDR"),
            ("10.0.0.0/99999999999999999999", "valid CIDR"),
        ] {
            let message = block(bad).expect_err(bad);
            assert!(message.contains(part), "{bad}: {message}");
        }
    }

    #[test]
    fn addresses() {
        for good in ["10.0.0.1", "::1", "fe80::1", "2001:db8::ffff"] {
            assert_eq!(address(good).expect(good).to_string(), good);
        }
        for (bad, part) in [
            ("10.0.0.01", "leading 0s"),
            ("::ffff:10.0.0.1", "IPv4-mapped"),
            ("10.0.0.1/32", "valid IP"),
            ("10.0.0", "valid IP"),
            ("name", "valid IP"),
        ] {
            let message = address(bad).expect_err(bad);
            assert!(message.contains(part), "{bad}: {message}");
        }
    }
}
