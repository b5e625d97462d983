//! Which bridges container engines make, by name: the one list, for the gate's rules and for whose an interface
//! that no engine has claimed may be. Pure.

/// Whose containers are on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// The Docker engine's, or Podman's beside its API.
    Docker,
    /// Those that containerd's clients give a network.
    Cni,
    /// The one's or the other's.
    Either,
}

/// Names as nft writes them: Docker's default network and Swarm's, CNI's usual one, Podman's with CNI and with
/// netavark, nerdctl's. A `*` stands for a number; nft knows no number, and takes it for anything.
pub const NAMES: [(&str, Maker); 6] = [
    ("docker0", Maker::Docker),
    ("docker_gwbridge", Maker::Docker),
    ("cni0", Maker::Cni),
    ("cni-podman*", Maker::Docker),
    ("podman*", Maker::Docker),
    ("nerdctl0", Maker::Cni),
];
/// Docker's and nerdctl's networks: so, and so many hexadecimal digits of their ID.
pub const NETWORKS: (&str, usize) = ("br-", 12);

/// The engine whose bridges have such names; `None`: no engine's.
#[must_use]
pub fn maker(bridge: &str) -> Option<Maker> {
    let (start, digits) = NETWORKS;
    let hexadecimal = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if let Some(id) = bridge.strip_prefix(start)
        && id.len() == digits
        && id.bytes().all(hexadecimal)
    {
        return Some(Maker::Either);
    }
    let is = |name: &str| match name.strip_suffix('*') {
        Some(start) => bridge.strip_prefix(start).is_some_and(|number| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        }),
        None => bridge == name,
    };
    NAMES
        .iter()
        .find(|(name, _)| is(name))
        .map(|(_, maker)| *maker)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bridge_has_one_maker_or_none() {
        let rows = [
            ("docker0", Some(Maker::Docker)),
            ("docker_gwbridge", Some(Maker::Docker)),
            ("podman0", Some(Maker::Docker)),
            ("cni-podman12", Some(Maker::Docker)),
            ("cni0", Some(Maker::Cni)),
            ("nerdctl0", Some(Maker::Cni)),
            ("br-0123456789ab", Some(Maker::Either)),
            ("br-0123456789AB", None),
            ("br-0123456789a", None),
            ("podman", None),
            ("podman-lan", None),
            ("docker1", None),
            ("cni1", None),
            ("virbr0", None),
            ("", None),
        ];
        for (bridge, expected) in rows {
            assert_eq!(maker(bridge), expected, "{bridge}");
        }
    }
}
