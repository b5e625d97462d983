//! Rules of source address translation (NAT) on the host that hide the senders to a container.
//!
//! netpold tells containers of this host apart also where such a rule replaces their address. A packet from beyond
//! the host has nothing but its address, so a rule that replaces it on the way to a container leaves policy without the
//! sender: such rules are found and reported. Nothing here changes a rule.
//!
//! ```text
//!  iptables-save -t nat ─▶ iptables::parse ─┐
//!  nft -j list ruleset  ─▶ nft::parse ──────┴▶ Rule ─▶ Rule::hides (with the interfaces and addresses of containers)
//! ```
//!
//! Both sources are asked again when nftables tells of a change, at most every two seconds. Rules of the legacy
//! iptables give no event: they are read at the start, and with the next change of nftables.

pub mod iptables;
pub mod nft;
mod watch;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

pub use self::watch::{Follower, follow};

/// A rule that replaces source addresses, with all conditions that its packets meet on the way to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Where it stands and what it says, for people.
    pub text: String,
    /// What is known of its packets. Conditions that are not understood are left out: the rule may apply then.
    pub conditions: Vec<Condition>,
}

/// What a packet has to be for a rule to apply.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// It leaves by one of these interfaces (a `*` at the end stands for any ending), or by none of them.
    Out {
        /// Names.
        names: Vec<String>,
        /// None of them, instead.
        negated: bool,
    },
    /// It came in by one of these interfaces, or by none of them.
    In {
        /// Names.
        names: Vec<String>,
        /// None of them, instead.
        negated: bool,
    },
    /// Its source is in one of these networks, or in none of them.
    Source {
        /// Networks.
        nets: Vec<IpNet>,
        /// None of them, instead.
        negated: bool,
    },
    /// Its destination is in one of these networks, or in none of them.
    Destination {
        /// Networks.
        nets: Vec<IpNet>,
        /// None of them, instead.
        negated: bool,
    },
    /// The host itself sends it, or it has the mark that a container engine gives to what containers and the host
    /// send to published ports.
    FromThisHost,
}

/// What is known of the containers on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Containers {
    /// Names of the interfaces by which packets to them leave the host: bridges, and ends of veths without one.
    pub interfaces: BTreeSet<String>,
    /// Their addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Names of all bridges of this host.
    pub bridges: BTreeSet<String>,
}

impl Rule {
    /// May the rule replace the address of a sender beyond this host on its way to a container?
    #[must_use]
    pub fn hides(&self, containers: &Containers) -> bool {
        !containers.interfaces.is_empty()
            && !self.is_of_a_network(containers)
            && self
                .conditions
                .iter()
                .all(|condition| condition.may_be(containers))
    }
}

impl Rule {
    /// Is it the rule by which an engine masquerades what leaves one of its networks: with the network's addresses, by any
    /// other interface than the network's bridge? The network may have no containers yet.
    fn is_of_a_network(&self, containers: &Containers) -> bool {
        let is_of_network = |condition: &Condition| {
            let Condition::Source { nets, negated } = condition else {
                return false;
            };
            !negated && nets.iter().all(|net| net.prefix_len() > 0)
        };
        let leaves_bridge = |condition: &Condition| {
            let Condition::Out { names, negated } = condition else {
                return false;
            };
            *negated && names.iter().all(|name| containers.bridges.contains(name))
        };
        self.conditions.iter().any(is_of_network) && self.conditions.iter().any(leaves_bridge)
    }
}

impl Condition {
    /// May a packet from beyond this host to a container meet it?
    fn may_be(&self, containers: &Containers) -> bool {
        let mut interfaces = containers.interfaces.iter();
        match self {
            Self::Out { names, negated } => {
                interfaces.any(|interface| is_among(interface, names) != *negated)
            }
            // What comes in by a container's interface is a container's. Any other interface may be a sender's way.
            Self::In { names, negated } => {
                *negated
                    || names.iter().any(|name| {
                        let mut interfaces = containers.interfaces.iter();
                        !interfaces.any(|own| is_among(own, std::slice::from_ref(name)))
                    })
            }
            // A network with containers in it is theirs.
            Self::Source { nets, negated } => {
                let of_containers = |net: &IpNet| {
                    net.prefix_len() > 0 && containers.addresses.iter().any(|one| net.contains(one))
                };
                *negated || nets.iter().any(|net| !of_containers(net))
            }
            Self::Destination { nets, negated } => {
                let mut addresses = containers.addresses.iter();
                addresses.any(|one| nets.iter().any(|net| net.contains(one)) != *negated)
            }
            Self::FromThisHost => false,
        }
    }
}

/// Is it one of the names? A `*` or `+` at the end of a name stands for any ending.
fn is_among(interface: &str, names: &[String]) -> bool {
    names
        .iter()
        .any(|name| match name.strip_suffix(['*', '+']) {
            Some(beginning) => interface.starts_with(beginning),
            None => interface == name,
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn containers() -> Containers {
        Containers {
            interfaces: ["docker0".to_owned(), "br-1".to_owned()].into(),
            bridges: ["docker0", "br-1", "br-empty"]
                .map(ToOwned::to_owned)
                .into(),
            addresses: ["172.17.0.2".parse().unwrap(), "172.18.0.2".parse().unwrap()].into(),
        }
    }

    #[test]
    fn rules_that_hide_strangers_from_containers_are_told_from_those_of_engines() {
        for (rule, hides) in [
            // Every sender, or every sender on the way to containers.
            ("-j MASQUERADE", true),
            ("-o docker0 -j MASQUERADE", true),
            ("-o br-+ -j SNAT --to-source 192.0.2.1", true),
            ("! -o eth0 -j MASQUERADE", true),
            ("-s 10.8.0.0/24 -j MASQUERADE", true),
            (
                "-d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE",
                true,
            ),
            ("-m mark --mark 0x4000/0x4000 -j MASQUERADE", true),
            // What leaves the host elsewhere.
            ("-o eth0 -j MASQUERADE", false),
            ("-d 198.51.100.0/24 -j MASQUERADE", false),
            // Docker's and Podman's own: containers of this host.
            ("-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE", false),
            ("-s 172.30.0.0/16 ! -o br-empty -j MASQUERADE", false),
            ("-s 172.30.0.0/16 ! -o eth0 -j MASQUERADE", true),
            (
                "-s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE",
                false,
            ),
            (
                "-o docker0 -m addrtype --src-type LOCAL -j MASQUERADE",
                false,
            ),
            (
                "-m mark --mark 0x2000/0x2000 -m comment --comment \"netavark portfw masq mark\" -j MASQUERADE",
                false,
            ),
            ("-i br-1 -j MASQUERADE", false),
            ("-j ACCEPT", false),
        ] {
            let saved = format!("*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING {rule}\nCOMMIT\n");
            let rules = iptables::parse("iptables", &saved);
            let found = rules.iter().any(|rule| rule.hides(&containers()));
            assert_eq!(found, hides, "{rule}: {rules:?}");
        }
    }

    #[test]
    fn without_containers_no_rule_hides_senders_from_them() {
        let saved = "*nat\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n";
        let rules = iptables::parse("iptables", saved);
        assert!(!rules[0].hides(&Containers::default()), "{rules:?}");
    }
}
