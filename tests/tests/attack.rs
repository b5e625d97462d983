//! What a container with NET_RAW tries, on real wires: a forged identity, shapes that hide
//! what they carry, and packets that no policy allows. Every frame is first seen to arrive where
//! no daemon runs, and must not where one does. Needs root.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use netpol_abi::packet::tcp::{ACK, FIN, RST, SYN};
use netpold_tests::frames::{
    self, Mac, arp, icmp, ipv4, ipv4_piece, ipv4_with_options, ipv6, sctp, tcp, udp,
};
use netpold_tests::lab::Pod;
use netpold_tests::{Daemon, Lab, Wire, residue};

/// The Pods: the victim, the attacker, and the Pod that the attacker claims to be.
const VICTIM: &str = "db/store";
const ATTACKER: &str = "db/other";
const FRIEND: &str = "web/front";

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// Only the friend may reach the victim, on one port.
const GUARD: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
    metadata: {name: guard, namespace: db}\nspec:\n  podSelector: {matchLabels: {app: store}}\n  \
    policyTypes: [Ingress]\n  ingress:\n  - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}]\n    \
    ports: [{port: 5432}]\n";

/// Nothing may leave the attacker, to ordinary addresses.
const LOCK: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
    metadata: {name: lock, namespace: db}\nspec:\n  podSelector: {matchLabels: {app: other}}\n  \
    policyTypes: [Egress]\n";

fn lab() -> Result<Lab> {
    let lab = Lab::with_pods(&[FRIEND, VICTIM, ATTACKER])?;
    lab.plain_bridge()?;
    Ok(lab)
}

/// Who a Pod is on the wire.
#[derive(Clone, Copy)]
struct Identity {
    mac: Mac,
    v4: [u8; 4],
    v6: [u8; 16],
    link: [u8; 16],
}

fn identity(pod: &Pod, mac: Mac) -> Result<Identity> {
    let mut own = Identity {
        mac,
        v4: [0; 4],
        v6: [0; 16],
        link: link_local(mac),
    };
    for address in &pod.addresses {
        match address {
            IpAddr::V4(v4) => own.v4 = v4.octets(),
            IpAddr::V6(v6) => own.v6 = v6.octets(),
        }
    }
    ensure!(own.v4 != [0; 4] && own.v6 != [0; 16], "not both families");
    Ok(own)
}

fn link_local([a, b, c, d, e, f]: Mac) -> [u8; 16] {
    let low = |high, low| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        low(a ^ 2, b),
        low(c, 0xff),
        low(0xfe, d),
        low(e, f),
    )
    .octets()
}

/// What is tried.
struct Attempt {
    name: &'static str,
    frame: Vec<u8>,
}

struct Tries {
    from: Identity,
    to: Identity,
    all: Vec<Attempt>,
}

impl Tries {
    fn add(&mut self, name: &'static str, ethertype: u16, payload: &[u8]) {
        self.add_as(name, self.from.mac, ethertype, payload);
    }

    fn add_as(&mut self, name: &'static str, mac: Mac, ethertype: u16, payload: &[u8]) {
        let frame = frames::ethernet(mac, self.to.mac, ethertype, payload);
        self.all.push(Attempt { name, frame });
    }
}

/// A neighbour advertisement that overrides: `target` is at `mac`.
fn advertisement(target: [u8; 16], mac: Mac) -> Vec<u8> {
    icmp(
        136,
        0,
        [0x20, 0, 0, 0],
        &[&target[..], &[2, 1], &mac].concat(),
    )
}

fn behind_options(next: u8, headers: usize, payload: &[u8]) -> Vec<u8> {
    let mut chain = [60, 0, 1, 4, 0, 0, 0, 0].repeat(headers);
    chain[(headers - 1) * 8] = next;
    chain.extend(payload);
    chain
}

/// What no container may send, whatever policy says.
fn lies(from: Identity, to: Identity, friend: Identity) -> Vec<Attempt> {
    let mut tries = Tries {
        from,
        to,
        all: Vec::new(),
    };
    let hello = udp(4000, 5432, b"hello");
    let router = [10, 77, 0, 1];
    let t = &mut tries;
    t.add(
        "a friend's IPv4 address",
        IPV4,
        &ipv4(friend.v4, to.v4, 17, &hello),
    );
    t.add(
        "the host's IPv4 address",
        IPV4,
        &ipv4(router, to.v4, 17, &hello),
    );
    t.add(
        "an unknown IPv4 address",
        IPV4,
        &ipv4([198, 51, 100, 9], to.v4, 17, &hello),
    );
    t.add("no IPv4 address", IPV4, &ipv4([0; 4], to.v4, 17, &hello));
    t.add(
        "a friend's IPv6 address",
        IPV6,
        &ipv6(friend.v6, to.v6, 17, 64, &hello),
    );
    t.add(
        "a friend's link-local address",
        IPV6,
        &ipv6(friend.link, to.link, 17, 64, &hello),
    );
    t.add(
        "no IPv6 address",
        IPV6,
        &ipv6([0; 16], to.v6, 17, 64, &hello),
    );
    t.add_as(
        "a friend's MAC address",
        friend.mac,
        IPV4,
        &ipv4(from.v4, to.v4, 17, &hello),
    );
    t.add_as(
        "a friend's MAC and IPv4 address",
        friend.mac,
        IPV4,
        &ipv4(friend.v4, to.v4, 6, &tcp(4000, 5432, SYN)),
    );
    t.add(
        "an ARP answer for the host",
        ARP,
        &arp(2, from.mac, router, to.v4),
    );
    t.add(
        "an ARP answer for a friend",
        ARP,
        &arp(2, from.mac, friend.v4, to.v4),
    );
    t.add(
        "an ARP question under a friend's name",
        ARP,
        &arp(1, from.mac, friend.v4, to.v4),
    );
    t.add(
        "an ARP answer with a friend's MAC",
        ARP,
        &arp(2, friend.mac, from.v4, to.v4),
    );
    t.add(
        "half an ARP answer",
        ARP,
        &arp(2, from.mac, router, to.v4)[..20],
    );
    for (name, source) in [
        ("an advertisement of a friend's address", from.link),
        ("an advertisement of it under its name", friend.v6),
    ] {
        let forged = advertisement(friend.v6, from.mac);
        t.add(name, IPV6, &ipv6(source, to.v6, 58, 255, &forged));
    }
    t.add(
        "an advertisement with a friend's MAC",
        IPV6,
        &ipv6(from.v6, to.v6, 58, 255, &advertisement(from.v6, friend.mac)),
    );
    t.add(
        "an advertisement behind three options",
        IPV6,
        &ipv6(
            from.v6,
            to.v6,
            60,
            255,
            &behind_options(58, 3, &advertisement(friend.v6, from.mac)),
        ),
    );
    t.add(
        "an advertisement behind twelve options",
        IPV6,
        &ipv6(
            from.v6,
            to.v6,
            60,
            255,
            &behind_options(58, 12, &advertisement(friend.v6, from.mac)),
        ),
    );
    t.add(
        "a router's advertisement",
        IPV6,
        &ipv6(
            from.link,
            to.link,
            58,
            255,
            &icmp(134, 0, [64, 0, 7, 8], &[0; 8]),
        ),
    );
    t.add(
        "a redirect of IPv6",
        IPV6,
        &ipv6(from.link, to.link, 58, 255, &icmp(137, 0, [0; 4], &[0; 32])),
    );
    let poison = arp(2, from.mac, friend.v4, to.v4);
    for (name, tag, id) in [
        ("ARP with a priority tag", 0x8100, [0, 0]),
        ("ARP in VLAN 1", 0x8100, [0, 1]),
        ("ARP in a provider's VLAN 0", 0x88a8, [0, 0]),
    ] {
        t.add(name, tag, &[&id[..], &[8, 6], &poison].concat());
    }
    t.add(
        "a friend's address with two tags",
        0x88a8,
        &[
            &[0, 0, 0x81, 0, 0, 0, 8, 0][..],
            &ipv4(friend.v4, to.v4, 6, &tcp(4001, 5432, SYN)),
        ]
        .concat(),
    );
    t.add(
        "a friend's address on a tiny fragment",
        IPV4,
        &ipv4_piece(friend.v4, to.v4, 6, 9, 0x2000, &tcp(4000, 5432, SYN)[..8]),
    );
    t.add(
        "a friend's address on a later fragment",
        IPV4,
        &ipv4_piece(friend.v4, to.v4, 17, 9, 3, &[7; 16]),
    );
    tries.all
}

/// What is true, and what no policy allows towards the victim.
fn denied(from: Identity, to: Identity, friend: Identity) -> Vec<Attempt> {
    let mut tries = Tries {
        from,
        to,
        all: Vec::new(),
    };
    let t = &mut tries;
    for (name, flags) in [
        ("SYN", SYN),
        ("ACK", ACK),
        ("SYN and ACK", SYN | ACK),
        ("FIN", FIN),
        ("RST", RST),
        ("no flag", 0),
        ("all flags", 0x3f),
    ] {
        let segment = tcp(4000 + u16::from(flags), 5432, flags);
        t.add(name, IPV4, &ipv4(from.v4, to.v4, 6, &segment));
        t.add(name, IPV6, &ipv6(from.v6, to.v6, 6, 64, &segment));
        // As a reply to a connection that is none.
        let reply = tcp(5432, 4000 + u16::from(flags), flags);
        t.add(name, IPV4, &ipv4(from.v4, to.v4, 6, &reply));
    }
    let hello = udp(4000, 5432, b"hello");
    t.add("UDP", IPV4, &ipv4(from.v4, to.v4, 17, &hello));
    t.add("SCTP", IPV4, &ipv4(from.v4, to.v4, 132, &sctp(4000, 5432)));
    t.add(
        "another protocol",
        IPV4,
        &ipv4(from.v4, to.v4, 253, b"experiment"),
    );
    t.add(
        "IPv6 in IPv4",
        IPV4,
        &ipv4(from.v4, to.v4, 41, &ipv6(friend.v6, to.v6, 17, 64, &hello)),
    );
    let links = ipv6(from.link, to.link, 17, 64, &hello);
    t.add("UDP between link-local addresses", IPV6, &links);
    t.add(
        "TCP between link-local addresses",
        IPV6,
        &ipv6(from.link, to.link, 6, 64, &tcp(4000, 5432, SYN)),
    );
    t.add(
        "a link-local source",
        IPV6,
        &ipv6(from.link, to.v6, 6, 64, &tcp(4000, 5432, SYN)),
    );
    let mut all_nodes = [0; 16];
    (all_nodes[0], all_nodes[1], all_nodes[15]) = (0xff, 2, 1);
    t.add(
        "to all nodes",
        IPV6,
        &ipv6(from.link, all_nodes, 17, 64, &hello),
    );
    t.add("to everybody", IPV4, &ipv4(from.v4, [255; 4], 17, &hello));
    t.add(
        "to the network's broadcast address",
        IPV4,
        &ipv4(from.v4, [10, 77, 255, 255], 17, &hello),
    );
    t.add(
        "to another's address at the victim's MAC",
        IPV4,
        &ipv4(from.v4, [10, 77, 9, 9], 17, &hello),
    );
    t.add(
        "options that look like an allowed segment",
        IPV4,
        &ipv4_with_options(
            from.v4,
            to.v4,
            6,
            &tcp(4000, 5432, SYN),
            &tcp(4000, 22, SYN),
        ),
    );
    t.add(
        "behind options of IPv6",
        IPV6,
        &ipv6(
            from.v6,
            to.v6,
            60,
            64,
            &behind_options(6, 2, &tcp(4000, 5432, SYN)),
        ),
    );
    t.add(
        "through a routing header",
        IPV6,
        &ipv6(
            from.v6,
            to.v6,
            43,
            64,
            &[&[6, 2, 0, 1, 0, 0, 0, 0][..], &to.v6, &tcp(4000, 22, SYN)].concat(),
        ),
    );
    t.add(
        "a first fragment",
        IPV4,
        &ipv4_piece(from.v4, to.v4, 17, 9, 0x2000, &udp(4000, 5432, &[7; 504])),
    );
    t.add(
        "a tiny first fragment",
        IPV4,
        &ipv4_piece(from.v4, to.v4, 6, 10, 0x2000, &tcp(4000, 5432, SYN)[..8]),
    );
    t.add(
        "a fragment over the ports",
        IPV4,
        &ipv4_piece(from.v4, to.v4, 6, 10, 1, &tcp(4000, 5432, SYN)[8..]),
    );
    t.add(
        "a later fragment",
        IPV4,
        &ipv4_piece(from.v4, to.v4, 17, 9, 64, &[7; 64]),
    );
    t.add(
        "a later fragment of IPv6",
        IPV6,
        &ipv6(
            from.v6,
            to.v6,
            44,
            64,
            &[&[17, 0, 1, 0, 0, 0, 0, 9][..], &[7; 64]].concat(),
        ),
    );
    for (name, kind, code) in [
        ("an echo request", 8, 0),
        ("an echo reply", 0, 0),
        ("a redirect", 5, 1),
        ("an unrelated error", 3, 4),
        ("a timestamp request", 13, 0),
    ] {
        let quoted = ipv4(to.v4, friend.v4, 6, &tcp(5432, 4000, ACK));
        let message = icmp(kind, code, [0, 9, 0, 1], &quoted);
        t.add(name, IPV4, &ipv4(from.v4, to.v4, 1, &message));
    }
    t.add(
        "an unrelated error of IPv6",
        IPV6,
        &ipv6(
            from.v6,
            to.v6,
            58,
            64,
            &icmp(
                2,
                0,
                [0, 0, 5, 0],
                &ipv6(to.v6, friend.v6, 6, 64, &tcp(5432, 4000, ACK)),
            ),
        ),
    );
    t.add("an unknown ethertype", 0x88b5, b"anything at all");
    t.add("LLC", 8, &[0x42, 0x42, 3, 0, 0, 0, 0, 0]);
    t.add("IPv6 that says IPv4", IPV4, &links);
    t.add("cut short", IPV4, &ipv4(from.v4, to.v4, 6, &[0; 4])[..18]);
    tries.all
}

/// As the receiver's packet socket shows it: without the first tag.
fn as_seen(frame: &[u8]) -> Vec<u8> {
    match frame[12..14] {
        [0x81, 0] | [0x88, 0xa8] => [&frame[..12], &frame[16..]].concat(),
        _ => frame.to_vec(),
    }
}

/// Sends all, and names those that arrived.
fn arrived(
    from: &Wire,
    to: &Wire,
    attempts: &[Attempt],
    (sender, receiver): (Identity, Identity),
) -> Result<Vec<&'static str>> {
    for attempt in attempts {
        from.send(&attempt.frame).context(attempt.name)?;
    }
    // The truth passes, and all before it has passed or not.
    let question = arp(1, sender.mac, sender.v4, receiver.v4);
    let last = frames::ethernet(sender.mac, receiver.mac, ARP, &question);
    from.send(&last)?;
    let seen = to.until(&last)?;
    Ok(attempts
        .iter()
        .filter(|attempt| seen.contains(&as_seen(&attempt.frame)))
        .map(|attempt| attempt.name)
        .collect())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Lies,
    Denied,
}

fn attack(policies: &[(&str, &str)], which: Which) -> Result<()> {
    let lab = lab()?;
    let (victim, attacker, friend) = (lab.pod(VICTIM)?, lab.pod(ATTACKER)?, lab.pod(FRIEND)?);
    let (to, from) = (Wire::open(victim)?, Wire::open(attacker)?);
    let (receiver, sender) = (identity(victim, to.mac)?, identity(attacker, from.mac)?);
    let friend = identity(friend, Wire::open(friend)?.mac)?;
    let attempts = match which {
        Which::Lies => lies(sender, receiver, friend),
        Which::Denied => denied(sender, receiver, friend),
    };
    // No daemon: the frames are good ones, or the test says nothing.
    let open = arrived(&from, &to, &attempts, (sender, receiver))?;
    ensure!(
        open.len() == attempts.len(),
        "without a daemon only these arrive: {open:?}"
    );
    for pod in lab.pods() {
        pod.namespace.ip(&["neigh", "flush", "all"])?;
    }
    let daemon = Daemon::enforcing(&lab, policies, "")?;
    let through = arrived(&from, &to, &attempts, (sender, receiver))?;
    ensure!(through.is_empty(), "these got through: {through:?}");
    let neighbours = victim.namespace.ip(&["neigh", "show"])?;
    let forged = format!(
        "{} dev eth0 lladdr {}",
        friend_text(&lab)?,
        text(sender.mac)
    );
    ensure!(!neighbours.contains(&forged), "{neighbours}");
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

fn friend_text(lab: &Lab) -> Result<String> {
    Ok(lab.pod(FRIEND)?.addresses[0].to_string())
}

fn text(mac: Mac) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

#[test]
fn no_lie_reaches_isolated_endpoints() -> Result<()> {
    attack(&[("guard.yaml", GUARD)], Which::Lies)
}

#[test]
fn no_lie_reaches_endpoints_that_no_policy_isolates() -> Result<()> {
    attack(&[], Which::Lies)
}

#[test]
fn nothing_that_policy_denies_gets_in() -> Result<()> {
    attack(&[("guard.yaml", GUARD)], Which::Denied)
}

#[test]
fn nothing_that_policy_denies_gets_out() -> Result<()> {
    attack(&[("lock.yaml", LOCK)], Which::Denied)
}
