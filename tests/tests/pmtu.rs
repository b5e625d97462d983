//! Path MTU discovery with real TCP: between an isolated Pod and a host far away lies a hop that
//! is narrower than both ends know. Only a router's ICMP error tells them, and no rule names that
//! router. Needs root.
//!
//! ```text
//!  db/store ──1500── host ──1500── near router ──narrow── far router ──1500── far
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpol_abi::packet::tcp::ACK;
use netpold::netns;
use netpold_tests::lab::Namespace;
use netpold_tests::sockets::{self, Connection};
use netpold_tests::{Daemon, Family, Lab, Outside, Wire, frames, residue};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket,
};

const PORT: u16 = 5432;
/// Each way. A Pod's first window alone is larger than what passes without discovery.
const BYTES: usize = 4 << 20;
/// Long enough for what works here, which takes milliseconds.
const SOON: Duration = Duration::from_secs(1);
/// Ends of the links behind the near router, by family: near, far router; far router, far.
const NARROW: [[&str; 2]; 2] = [["192.0.2.1", "192.0.2.2"], ["fd98::1", "fd98::2"]];
const WIDE: [[&str; 2]; 2] = [["203.0.113.1", "203.0.113.9"], ["fd97::1", "fd97::9"]];

/// Both directions are isolated, and far may be dialled and may dial.
const ONE_RULE: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
    metadata: {name: far, namespace: db}\nspec:\n  podSelector: {}\n  \
    policyTypes: [Ingress, Egress]\n  DIRECTION:\n  \
    - WHO: [{ipBlock: {cidr: 203.0.113.9/32}}, {ipBlock: {cidr: 'fd97::9/128'}}]\n    \
    ports: [{port: 5432}]\n";

/// All that is made, from the Pod to far.
struct Path {
    lab: Lab,
    near: Outside,
    far_router: Namespace,
    far: Namespace,
}

impl Path {
    /// IPv6 asks for links of 1280 octets at least.
    fn new(narrow: &str, families: &[Family]) -> Result<Self> {
        let lab = Lab::with_pods(&["db/store"])?;
        let near = Outside::new(&lab, &BTreeSet::new())?;
        let far_router = lab.namespace("far-router")?;
        let far = lab.namespace("far")?;
        link(near.namespace(), &far_router, narrow, NARROW, families)?;
        link(&far_router, &far, "1500", WIDE, families)?;
        for &family in families {
            let family = family as usize;
            let [near_end, far_end] = NARROW[family];
            let prefix = ["203.0.113.0/24", "fd97::/64"][family];
            near.namespace()
                .ip(&["route", "add", prefix, "via", far_end])?;
            far_router.ip(&["route", "add", "default", "via", near_end])?;
            far.ip(&["route", "add", "default", "via", WIDE[family][0]])?;
        }
        near.namespace().route_packets()?;
        far_router.route_packets()?;
        Ok(Self {
            lab,
            near,
            far_router,
            far,
        })
    }

    /// The two ends, and where the second answers, for a connection in this direction.
    fn ends(&self, egress: bool, family: Family) -> Result<(PathBuf, PathBuf, SocketAddr)> {
        let store = self.lab.pod("db/store")?;
        let (pod, far) = (store.namespace.path(), self.far.path());
        Ok(if egress {
            (pod, far, SocketAddr::new(far_address(family)?, PORT))
        } else {
            (far, pod, SocketAddr::new(store.address(family)?, PORT))
        })
    }
}

fn far_address(family: Family) -> Result<IpAddr> {
    Ok(WIDE[family as usize][1].parse()?)
}

/// A veth between two namespaces, with an MTU and addresses.
fn link(
    from: &Namespace,
    to: &Namespace,
    mtu: &str,
    addresses: [[&str; 2]; 2],
    families: &[Family],
) -> Result<()> {
    let veth = ["link", "add", "on", "mtu", mtu, "type", "veth"];
    let peer = ["peer", "name", "back", "mtu", mtu, "netns", to.name()];
    from.ip(&[&veth[..], &peer].concat())?;
    for (end, name, number) in [(from, "on", 0), (to, "back", 1)] {
        for &family in families {
            let address = addresses[family as usize][number];
            let address = format!("{address}/{}", [24, 64][family as usize]);
            let mut add = vec!["addr", "add", &address, "dev", name];
            add.extend((family == Family::V6).then_some("nodad"));
            end.ip(&add)?;
        }
        end.ip(&["link", "set", name, "up"])?;
    }
    Ok(())
}

/// A policy with one rule, for this direction.
fn policy(egress: bool) -> String {
    let [direction, who] = if egress {
        ["egress", "to"]
    } else {
        ["ingress", "from"]
    };
    ONE_RULE.replace("DIRECTION", direction).replace("WHO", who)
}

/// Both ends learned the narrow link's MTU, and by a message: no other way is there.
fn learned(path: &Path, family: Family, narrow: &str) -> Result<()> {
    let store = path.lab.pod("db/store")?;
    for (end, other) in [
        (&store.namespace, far_address(family)?),
        (&path.far, store.address(family)?),
    ] {
        let route = end.ip(&["route", "get", &other.to_string()])?;
        ensure!(
            route.contains(&format!("mtu {narrow}")),
            "{}: no message about the narrow link arrived: {route}",
            end.name()
        );
        end.ip(&["route", "flush", "cache"])?;
    }
    Ok(())
}

fn transfers_get_through(narrow: &str, families: &[Family]) -> Result<()> {
    let path = Path::new(narrow, families)?;
    for egress in [true, false] {
        let daemon = Daemon::enforcing(&path.lab, &[("far.yaml", &policy(egress))], "")?;
        for &family in families {
            let (from, to, address) = path.ends(egress, family)?;
            let connection = sockets::connect(&from, &to, address)?;
            sockets::transfer(&connection, BYTES)
                .with_context(|| format!("egress: {egress}, {family:?}\n{}", daemon.log()))?;
            learned(&path, family, narrow)?;
            unrelated_errors_stop(&path, egress, family, &connection)?;
        }
        // Nothing else is open: the rule is one.
        for &family in families {
            let (from, to, address) = path.ends(!egress, family)?;
            let _listener = sockets::listen(&to, address.ip(), PORT)?;
            let dialled = sockets::dial(&from, address, SOON)?;
            ensure!(dialled.is_none(), "the other direction is open");
        }
    }
    let name = path.lab.name.clone();
    let Path {
        lab,
        near,
        far_router,
        far,
    } = path;
    drop((far, far_router, near, lab));
    residue::check(&name)
}

/// What the near router quotes of a packet from the Pod to far: headers up to the ports.
fn quoted(store: IpAddr, far: IpAddr, ports: (u16, u16)) -> Result<Vec<u8>> {
    let segment = frames::tcp(ports.0, ports.1, ACK);
    Ok(match (store, far) {
        (IpAddr::V4(store), IpAddr::V4(far)) => {
            let packet = frames::ipv4(store.octets(), far.octets(), 6, &segment);
            frames::sealed_ipv4(packet)
        }
        (IpAddr::V6(store), IpAddr::V6(far)) => {
            frames::ipv6(store.octets(), far.octets(), 6, 64, &segment)
        }
        _ => anyhow::bail!("two families"),
    })
}

/// Of three errors about the Pod's packets only that about the open connection arrives.
fn unrelated_errors_stop(
    path: &Path,
    egress: bool,
    family: Family,
    (client, _): &Connection,
) -> Result<()> {
    let store = path.lab.pod("db/store")?;
    let wire = Wire::open(store)?;
    let (own, far) = (store.address(family)?, far_address(family)?);
    let dialler = client.local_addr()?.port();
    let (pods, fars) = if egress {
        (dialler, PORT)
    } else {
        (PORT, dialler)
    };
    for (number, ports) in [
        (1, (pods ^ 1, fars)),
        (2, (pods, fars ^ 1)),
        (3, (pods, fars)),
    ] {
        complain(&path.near, own, number, &quoted(own, far, ports)?)?;
    }
    // Each is told by its MTU, 1301 and so on.
    let mtu = |frame: &[u8]| -> Option<u16> {
        let message = match (family, frame.get(12..14)?) {
            (Family::V4, [8, 0]) if frame.get(23) == Some(&1) => frame.get(34..42)?,
            (Family::V6, [0x86, 0xdd]) if frame.get(20) == Some(&58) => frame.get(54..62)?,
            _ => return None,
        };
        let told = u16::from_be_bytes([message[6], message[7]]);
        (matches!(message[0], 2 | 3) && told > 1300).then_some(told)
    };
    let before = wire
        .until_one_is(|frame| mtu(frame) == Some(1303))
        .context("the error about the open connection")?;
    let unrelated: Vec<u16> = before.iter().filter_map(|frame| mtu(frame)).collect();
    ensure!(
        unrelated.is_empty(),
        "unrelated errors arrived: {unrelated:?}"
    );
    Ok(())
}

/// Sends an error from the near router: too big, the next hop takes 1300 and `number`.
fn complain(near: &Outside, to: IpAddr, number: u8, quoted: &[u8]) -> Result<()> {
    let [high, low] = (1300 + u16::from(number)).to_be_bytes();
    let word = [0, 0, high, low];
    let (domain, protocol, message) = match to {
        IpAddr::V4(_) => {
            let message = frames::sealed_icmp(frames::icmp(3, 4, word, quoted));
            (AddressFamily::Inet, SockProtocol::Icmp, message)
        }
        // The kernel seals it.
        IpAddr::V6(_) => {
            let message = frames::icmp(2, 0, word, quoted);
            (AddressFamily::Inet6, SockProtocol::IcmpV6, message)
        }
    };
    netns::inside(&near.path(), || {
        let socket = socket(domain, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        let to = SockaddrStorage::from(SocketAddr::new(to, 0));
        sendto(socket.as_raw_fd(), &message, &to, MsgFlags::empty())?;
        Ok(())
    })?
}

#[test]
fn across_a_link_of_1280_octets() -> Result<()> {
    transfers_get_through("1280", &Family::BOTH)
}

#[test]
fn across_a_link_of_1000_octets() -> Result<()> {
    transfers_get_through("1000", &[Family::V4])
}

/// That the narrow link is one: a sender that is told nothing gets nowhere.
#[test]
fn who_is_told_nothing_waits_in_vain() -> Result<()> {
    let path = Path::new("1280", &Family::BOTH)?;
    // What the near router says itself, it has no way for.
    for (rule, prefix) in [("-4", "10.77.0.0/16"), ("-6", "fd77::/64")] {
        let near = path.near.namespace();
        near.ip(&[rule, "route", "add", "blackhole", prefix, "table", "99"])?;
        near.ip(&[
            rule, "rule", "add", "iif", "lo", "lookup", "99", "pref", "1",
        ])?;
    }
    for family in Family::BOTH {
        let (from, to, address) = path.ends(true, family)?;
        let connection = sockets::connect(&from, &to, address)?;
        for end in [&connection.0, &connection.1] {
            end.set_read_timeout(Some(SOON))?;
            end.set_write_timeout(Some(SOON))?;
        }
        let transferred = sockets::transfer(&connection, BYTES);
        ensure!(transferred.is_err(), "{family:?}: the narrow link is none");
    }
    Ok(())
}
