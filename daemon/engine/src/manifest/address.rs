//! Addresses and blocks as text, as the API server reads those of a new object
//! (k8s.io/apimachinery `pkg/util/validation/ip.go`, `StrictIPCIDRValidation`, on since
//! Kubernetes 1.36).
//!
//! Refused, though some libraries read it: leading zeros (`010.0.0.1` is 8.0.0.1 to some,
//! 10.0.0.1 to others, CVE-2021-29923), IPv4 written as IPv6, and a block with bits set
//! beyond its prefix (`10.0.0.5/8`), which may be meant as the block or as the one address.

use std::net::IpAddr;

use ipnet::IpNet;

const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NO_BLOCK: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// An address (`IsValidIPForLegacyField`).
pub(super) fn address(text: &str) -> Result<IpAddr, &'static str> {
    let Ok(address) = text.parse() else {
        return Err(match unpadded(text) {
            Some(_) => "must not have leading 0s",
            None => NO_ADDRESS,
        });
    };
    if is_mapped(address) {
        return Err("must not be an IPv4-mapped IPv6 address");
    }
    Ok(address)
}

/// A text that is a block, if not always a valid one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Its address as written, less leading zeros.
    pub(super) written: IpNet,
    /// Why it is not valid all the same.
    pub(super) breach: Option<&'static str>,
}

impl Block {
    /// The block, no bit set beyond its prefix.
    pub(super) fn network(&self) -> IpNet {
        self.written.trunc()
    }

    /// Whether it stands for IPv4 addresses in the clothes of IPv6.
    pub(super) fn is_mapped(&self) -> bool {
        is_mapped(self.written.addr())
    }

    /// Those addresses, as IPv4 writes them.
    pub(super) fn as_ipv4(&self) -> Option<IpNet> {
        let IpAddr::V6(address) = self.written.addr() else {
            return None;
        };
        let bits = self.written.prefix_len().checked_sub(96)?;
        let plain = IpNet::new(address.to_ipv4_mapped()?.into(), bits).ok()?;
        Some(plain.trunc())
    }
}

/// A block (`IsValidCIDRForLegacyField`).
pub(super) fn block(text: &str) -> Result<Block, &'static str> {
    let (base, length) = text.split_once('/').ok_or(NO_BLOCK)?;
    let strict = base.parse::<IpAddr>().ok();
    let address = strict.or_else(|| unpadded(base)).ok_or(NO_BLOCK)?;
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NO_BLOCK);
    }
    let bits = length.parse().map_err(|_| NO_BLOCK)?;
    let written = IpNet::new(address, bits).map_err(|_| NO_BLOCK)?;
    let padded = strict.is_none() || (length.len() > 1 && length.starts_with('0'));
    let breach = if padded {
        Some("must not have leading 0s in IP or prefix length")
    } else if is_mapped(address) {
        Some("must not have an IPv4-mapped IPv6 address")
    } else if written != written.trunc() {
        Some("must not have bits set beyond the prefix length")
    } else {
        None
    };
    Ok(Block { written, breach })
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// The address that it would be without the leading zeros of its numbers.
pub(super) fn unpadded(text: &str) -> Option<IpAddr> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let end = rest
            .find(|letter: char| !letter.is_ascii_hexdigit())
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        match number.trim_start_matches('0') {
            "" if number.is_empty() => plain.push(letter),
            "" => plain.push('0'),
            digits => plain.push_str(digits),
        }
        rest = if number.is_empty() {
            &rest[letter.len_utf8()..]
        } else {
            after
        };
    }
    plain.parse().ok()
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
            "10.1.2.3/32",
            "::/0",
            "2001:db8::/64",
            "::1/128",
            "64:ff9b::/96",
        ] {
            let block = block(good).expect(good);
            assert_eq!(block.breach, None, "{good}");
            assert_eq!(block.network().to_string(), good);
        }
        for bad in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.0/8 ",
            "10.0.0/8",
            " 10.0.0.0/8",
            "10.0.0.0.0/8",
            "256.0.0.0/8",
            "0256.0.0.0/8",
            "2001:db8::/129",
            "2001:db8:::/64",
            "fe80::1%eth0/64",
            "10.0.0.0/99999999999999999999",
            "10.0.0.0/255.0.0.0",
            "*/0",
            "é/8",
        ] {
            assert_eq!(block(bad), Err(NO_BLOCK), "{bad}");
        }
    }

    #[test]
    fn blocks_that_are_read_and_refused() {
        for (text, network, part) in [
            ("10.1.2.3/8", "10.0.0.0/8", "bits set beyond"),
            ("2001:db8::1/64", "2001:db8::/64", "bits set beyond"),
            ("10.0.0.0/08", "10.0.0.0/8", "leading 0s"),
            ("010.0.0.0/8", "10.0.0.0/8", "leading 0s"),
            ("10.0.00.0/8", "10.0.0.0/8", "leading 0s"),
            ("010.1.0.0/8", "10.0.0.0/8", "leading 0s"),
            ("02001:db8::/64", "2001:db8::/64", "leading 0s"),
            ("64:ff9b::010.0.0.0/120", "64:ff9b::a00:0/120", "leading 0s"),
            ("::ffff:10.0.0.0/104", "::ffff:10.0.0.0/104", "IPv4-mapped"),
            ("::ffff:a00:0/104", "::ffff:10.0.0.0/104", "IPv4-mapped"),
        ] {
            let block = block(text).expect(text);
            assert_eq!(block.network().to_string(), network, "{text}");
            assert!(block.breach.expect(text).contains(part), "{text}");
            let plain = block.as_ipv4().map(|plain| plain.to_string());
            let mapped = text.starts_with("::ffff").then(|| "10.0.0.0/8".to_owned());
            assert_eq!(plain, mapped, "{text}");
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
            ("10.0.0.256", "valid IP"),
            ("name", "valid IP"),
            ("", "valid IP"),
        ] {
            let message = address(bad).expect_err(bad);
            assert!(message.contains(part), "{bad}: {message}");
        }
    }
}
