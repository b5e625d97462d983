//! Sub-interfaces (macvlan, ipvlan), which have no end on the host: enforced by programs inside the container, under
//! numbers that no interface of the host has, and what has to be said where that is not all.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netpol_abi::limits::{FIRST_INSIDE, FIRST_LOOPBACK};
use netpol_engine::policy::ObjectName;

use super::Assembly;
use crate::datapath::{Location, Within, is_inside, is_loopback};
use crate::links::{Inside, Subinterface};
use crate::printable::printable;
use crate::reconcile::observed::Namespace;
use crate::reconcile::register::{Interface, Record, Register};
use crate::runtime::container::{Attachment, Container};

/// An interface that programs are put on inside its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Where it is.
    pub within: Within,
    /// Its name there.
    pub name: String,
    /// `macvlan`, `ipvlan`, `veth` or `loopback`.
    pub kind: &'static str,
}

impl Child {
    /// The interface with this index in a namespace.
    fn new(namespace: &Namespace, ifindex: u32, name: String, kind: &'static str) -> Self {
        let within = Within {
            namespace: namespace.path.clone(),
            location: Location {
                namespace: namespace.identity.1,
                ifindex,
            },
        };
        Self { within, name, kind }
    }
}

/// The number that an interface inside had before, of those that are of its sort.
fn number_before(
    known: Option<&Record>,
    interface: &Interface,
    is_of_its_sort: impl Fn(u32) -> bool,
) -> Option<u32> {
    let mut interfaces = known?.interfaces.iter();
    let found =
        interfaces.find(|(number, before)| is_of_its_sort(**number) && *before == interface);
    found.map(|(number, _)| *number)
}

/// The loopback interface's index: the same in every network namespace (`LOOPBACK_IFINDEX`, since Linux 3.6).
const LOOPBACK: u32 = 1;

/// How programs get at an interface of a container on these networks that has no end on the host.
fn subinterface(inside: &Inside, networks: &[Attachment]) -> Option<Subinterface> {
    let own = inside.subinterface();
    own.or_else(|| given(inside, networks).map(|_| Subinterface::Hooked("veth")))
}

/// The network that a veth is for whose other end is in a hidden namespace, as those of overlay networks are, and all of an
/// engine with a network namespace of its own (rootless). The engine's word tells: what a container itself makes for others
/// within it leads to hidden namespaces as well, and is its own business.
fn given<'n>(inside: &Inside, networks: &'n [Attachment]) -> Option<&'n Attachment> {
    let mut networks = networks.iter().filter(|_| inside.is_hidden);
    networks.find(|network| {
        let has_none = matches!(network.driver.as_str(), "null" | "none" | "host");
        !has_none && network.mac.is_some() && network.mac == inside.mac
    })
}

/// Are these the networks of an engine with a network namespace of its own? The host's engine has hidden ones for overlays
/// alone.
pub(super) fn is_apart(namespace: &Namespace, networks: &[Attachment]) -> bool {
    let inside = namespace.inside.iter();
    let mut given = inside.filter_map(|inside| given(inside, networks));
    given.any(|network| network.driver != "overlay")
}

/// Numbers for interfaces inside: in rising order, so that one is free for long before it is given again.
#[derive(Debug)]
pub(super) struct Numbers {
    last: u32,
    used: BTreeSet<u32>,
}

impl Numbers {
    /// Those in use are the register's, and all that have programs.
    pub(super) fn in_use(register: &Register, programmed: &BTreeSet<u32>) -> Self {
        let programmed = programmed.iter().copied();
        Self {
            last: register.last_inside,
            used: register.interfaces().chain(programmed).collect(),
        }
    }

    /// The number given last.
    pub(super) const fn last(&self) -> u32 {
        self.last
    }

    fn give(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if !(FIRST_INSIDE..FIRST_LOOPBACK).contains(&self.last) {
                self.last = FIRST_INSIDE;
            }
            if self.used.insert(self.last) {
                return self.last;
            }
        }
    }

    /// One for a loopback interface.
    fn give_loopback(&mut self) -> u32 {
        loop {
            let number = self.give() - FIRST_INSIDE + FIRST_LOOPBACK;
            if self.used.insert(number) {
                return number;
            }
        }
    }
}

impl Assembly<'_> {
    /// Those of a namespace, by their numbers, and reports of what they leave open. `known`: what was there
    /// before.
    pub(super) fn subinterfaces(
        &mut self,
        name: &ObjectName,
        networks: &[Attachment],
        namespace: &Namespace,
        known: Option<&Record>,
    ) -> BTreeMap<u32, Interface> {
        let mut found = BTreeMap::new();
        for inside in &namespace.inside {
            // What was enforced stays so, also where the engine does not name it for a moment.
            let was_given = known.and_then(|record| {
                let mut hidden = record.hidden.iter();
                let number = hidden.find(|number| {
                    let before = record.interfaces.get(number);
                    before.is_some_and(|before| {
                        before.peer == Some(inside.ifindex) && before.nsid == namespace.nsid
                    })
                })?;
                record.interfaces.get(number).filter(|_| inside.is_hidden)
            });
            let subinterface = subinterface(inside, networks);
            let kind = match subinterface.or(was_given.map(|_| Subinterface::Hooked("veth"))) {
                Some(Subinterface::Hooked(kind)) => kind,
                Some(Subinterface::HalfHooked) => {
                    self.unprotected(
                        name,
                        format!(
                            "its interface `{}` is an ipvlan in the mode `l3s`: what comes to it from beyond its parent passes no program",
                            printable(&inside.name)
                        ),
                    );
                    "ipvlan"
                }
                Some(Subinterface::Unhooked(kind)) => {
                    self.without_veth(name, inside, kind);
                    continue;
                }
                None => continue,
            };
            // Of a veth it is as the engine gave it.
            let mac = was_given.map(|before| before.mac).or(inside.mac);
            let Some(mac) = mac else { continue };
            let interface = Interface {
                mac,
                peer: Some(inside.ifindex),
                nsid: namespace.nsid,
            };
            let is_other = |number| is_inside(number) && !is_loopback(number);
            let number = number_before(known, &interface, is_other);
            let number = number.unwrap_or_else(|| self.numbers.give());
            let child = Child::new(namespace, inside.ifindex, inside.name.clone(), kind);
            self.out.inside.insert(number, child);
            found.insert(number, interface);
        }
        found
    }

    /// The loopback interface of a namespace, where an engine is asked for names that asks from the host's: its number.
    /// `known`: what was there before.
    pub(super) fn loopback(
        &mut self,
        namespace: &Namespace,
        known: Option<&Record>,
    ) -> Option<(u32, Interface)> {
        // No path leads to a build's.
        if namespace.path.as_os_str().is_empty() {
            return None;
        }
        let interface = Interface {
            mac: [0; 6],
            peer: Some(LOOPBACK),
            nsid: namespace.nsid,
        };
        let number = number_before(known, &interface, is_loopback);
        let number = number.unwrap_or_else(|| self.numbers.give_loopback());
        let child = Child::new(namespace, LOOPBACK, "lo".to_owned(), "loopback");
        self.out.inside.insert(number, child);
        Some((number, interface))
    }

    /// Reports what containers can do about the programs of interfaces that are enforced inside their namespace.
    pub(super) fn rights(
        &mut self,
        container: &Container,
        name: &ObjectName,
        namespace: &Namespace,
        enforced: &BTreeMap<u32, Interface>,
    ) {
        let shown: Vec<String> = enforced
            .values()
            .filter_map(|interface| namespace.interface(interface.peer))
            .map(|inside| format!("`{}`", printable(&inside.name)))
            .collect();
        // Before that its first process is the runtime's own, and drops what it must not have.
        if shown.is_empty() || !container.is_running() {
            return;
        }
        let shown = shown.join(", ");
        let rights = namespace.rights;
        if rights.net_admin {
            self.unprotected(
                name,
                format!(
                    "it has NET_ADMIN in its own network namespace, and can take the programs off {shown}: drop it (`--cap-drop NET_ADMIN`)"
                ),
            );
        }
        if rights.net_raw {
            self.unprotected(
                name,
                format!(
                    "it has NET_RAW, and packet sockets go around the programs on {shown}: drop it (`--cap-drop NET_RAW`)"
                ),
            );
        }
    }

    /// Reports networks whose interface has no end on the host and is not among those that are enforced inside either.
    pub(super) fn networks(
        &mut self,
        container: &Container,
        name: &ObjectName,
        namespace: &Namespace,
        enforced: &BTreeMap<u32, Interface>,
    ) {
        // Until it runs, its engine may not have made all of its interfaces.
        for network in container.networks.iter().filter(|_| container.is_running()) {
            if !has_no_veth(&network.driver) {
                continue;
            }
            let own: Vec<IpAddr> = network.addresses().collect();
            let is_of = |inside: &&Inside| {
                if own.is_empty() {
                    // Another source, as DHCP, gives it its address.
                    return inside.kind.as_ref() == Some(&network.driver);
                }
                own.iter().any(|address| inside.addresses.contains(address))
            };
            let inside = namespace.inside.iter().find(is_of);
            // Interfaces of a kind that has no programs are reported as interfaces.
            let is_spoken_of = |inside: &Inside| {
                let mut enforced = enforced.values();
                inside.subinterface().is_some()
                    || enforced.any(|interface| interface.peer == Some(inside.ifindex))
            };
            if inside.is_some_and(is_spoken_of) {
                continue;
            }
            self.unprotected(
                name,
                format!(
                    "its network `{}` is of the driver `{}`, without a veth that policy could be put on",
                    network.name, network.driver
                ),
            );
        }
    }

    /// Reports hardware that was moved inside.
    pub(super) fn hardware(&mut self, name: &ObjectName, namespace: &Namespace) {
        for inside in &namespace.inside {
            let is_loopback = inside.addresses.iter().all(IpAddr::is_loopback);
            if inside.kind.is_none() && !is_loopback {
                self.without_veth(name, inside, "hardware");
            }
        }
    }

    fn without_veth(&mut self, name: &ObjectName, inside: &Inside, kind: &str) {
        self.unprotected(
            name,
            format!(
                "its interface `{}` is of the kind `{kind}`, without a veth that policy could be put on",
                printable(&inside.name)
            ),
        );
    }
}

/// Drivers whose interfaces have no end on this host's side that frames pass through.
pub(in crate::reconcile) fn has_no_veth(driver: &str) -> bool {
    !matches!(driver, "" | "bridge" | "null" | "none" | "host")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_skip_those_in_use() {
        let mut register = Register::default();
        register.last_inside = FIRST_LOOPBACK - 2;
        let programmed = BTreeSet::from([
            3,
            FIRST_INSIDE,
            FIRST_INSIDE + 2,
            FIRST_LOOPBACK + 4,
            // Of an earlier netpold, which gave such numbers to others too.
            u32::MAX,
        ]);
        let mut numbers = Numbers::in_use(&register, &programmed);
        let given: Vec<u32> = (0..3).map(|_| numbers.give()).collect();
        let last = FIRST_LOOPBACK - 1;
        assert_eq!(given, [last, FIRST_INSIDE + 1, FIRST_INSIDE + 3]);
        assert_eq!(numbers.give_loopback(), FIRST_LOOPBACK + 5);
        assert_eq!(numbers.give(), FIRST_INSIDE + 6);
        assert_eq!(
            Numbers::in_use(&Register::default(), &[].into()).give(),
            FIRST_INSIDE
        );
    }
}
