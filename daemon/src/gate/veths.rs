//! How container engines name the host's ends of their veths: for a kernel that can't tell a port's bridge. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What the name of a veth begins with.
pub const START: &str = "veth";
/// How many digits a number has at most: six characters are LXC's, and any of them may be a digit.
pub const MOST_DIGITS: usize = 4;

/// How a veth is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VethNaming {
    /// By Docker: `veth` and seven hexadecimal digits. Nothing else names veths so.
    Docker,
    /// By CNI's plugins: `veth` and eight hexadecimal digits. Incus and LXD name theirs so too.
    Cni,
    /// By netavark: `veth` and the lowest free number. The kernel numbers veths that are made without a name so too.
    Netavark,
}

impl VethNaming {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Docker, Self::Cni, Self::Netavark];
    /// Those that are an engine's only where a container was seen behind such a name.
    pub const SHARED: [Self; 2] = [Self::Cni, Self::Netavark];

    /// How the veth of this name is named; `None`: as no engine names its own.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let digits = name.strip_prefix(START)?;
        let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        match digits.len() {
            7 if digits.bytes().all(hexadecimal) => Some(Self::Docker),
            8 if digits.bytes().all(hexadecimal) => Some(Self::Cni),
            1..=MOST_DIGITS if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(Self::Netavark)
            }
            _ => None,
        }
    }

    /// In the names of chains and sets, and in files.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Cni => "cni",
            Self::Netavark => "netavark",
        }
    }

    /// The one with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|naming| naming.word() == word)
    }
}

/// Where containers were seen: what is made there next may be one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bridges that containerd's containers were on; the empty name: on none.
    pub bridges: BTreeSet<String>,
    /// How the veths of any engine's containers are named.
    pub namings: BTreeSet<VethNaming>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_one_engines_or_none() {
        for (name, naming) in [
            ("veth0a1b2c3", Some(VethNaming::Docker)),
            ("veth1234567", Some(VethNaming::Docker)),
            ("veth0a1b2c3d", Some(VethNaming::Cni)),
            ("veth0", Some(VethNaming::Netavark)),
            ("veth1234", Some(VethNaming::Netavark)),
            ("veth12345", None),
            ("vethAb3xYz", None),
            ("veth0A1B2C3", None),
            ("veth0a1b2c3d4", None),
            ("veth", None),
            ("vethx", None),
            ("eth0", None),
        ] {
            assert_eq!(VethNaming::find(name), naming, "{name}");
        }
        for naming in VethNaming::SHARED {
            assert_eq!(VethNaming::from_word(naming.word()), Some(naming));
        }
        assert_eq!(VethNaming::from_word("lxc"), None);
    }
}
