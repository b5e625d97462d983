//! One Pod floods, with more than its share of whatever the tables hold, and others beside it
//! open connections and keep them, meanwhile and afterwards: also to the server that is flooded.
//! The tables stay within bounds. Needs root.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpol_abi::packet::tcp::SYN;
use netpold_tests::frames::Mac;
use netpold_tests::lab::Pod;
use netpold_tests::sockets::{self, Connection};
use netpold_tests::{Daemon, Family, Lab, Wire, frames, residue, scaled};

const PORT: u16 = 5432;
/// Frames of a flood: more than two shares of connections, and than fragments are remembered.
const FRAMES: u32 = 150_000;
/// What gets there takes milliseconds.
const SOON: Duration = Duration::from_secs(2);
/// Who floods is noticed, and the tables are looked through, within this time.
const SWEPT: Duration = Duration::from_secs(3);
/// Between two visitors: the flooder needs the processors, too.
const PACE: Duration = Duration::from_millis(5);

/// The store takes what comes from WHO to some ports; the web speaks as it likes.
const POLICIES: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: store, namespace: db}\n\
    spec:\n  podSelector: {matchLabels: {app: store}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  \
    - from: [{namespaceSelector: {matchLabels: WHO}}]\n    \
    ports: [{port: 5000, endPort: 6000}, {protocol: UDP, port: 5000, endPort: 6000}]\n\
    ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: web}\n\
    spec:\n  podSelector: {}\n  policyTypes: [Ingress, Egress]\n  ingress: [{}]\n  egress: [{}]\n";

/// The containers that the store belongs to.
const WEB: &str = "{kubernetes.io/metadata.name: web}";

/// The flooder may send to every address, and its connections are kept for that.
const FLOODER: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: flooder, namespace: db}\n\
    spec:\n  podSelector: {matchLabels: {app: flooder}}\n  policyTypes: [Ingress, Egress]\n  egress: [{}]\n";

/// Sender and receiver of the frames.
struct Flood {
    wire: Wire,
    target: Mac,
    from: IpAddr,
    to: IpAddr,
}

impl Flood {
    fn new(lab: &Lab, family: Family) -> Result<Self> {
        let (flooder, store) = (lab.pod("db/flooder")?, lab.pod("db/store")?);
        Ok(Self {
            wire: Wire::open(flooder)?,
            target: Wire::open(store)?.mac,
            from: flooder.address(family)?,
            to: store.address(family)?,
        })
    }

    /// Frame number so and so of a kind.
    fn frame(&self, kind: Kind, number: u32) -> Vec<u8> {
        let [a, b, high, low] = number.to_be_bytes();
        let source = u16::from_be_bytes([high, low]);
        let port = 5000 + u16::from_be_bytes([a, b]);
        let ends = (self.from, self.to);
        let datagram = frames::udp(source, port, b"flood");
        let (ethertype, packet) = match kind {
            Kind::Openings => packet(ends, 6, &frames::tcp(source, port, SYN)),
            Kind::Datagrams => packet(ends, 17, &datagram),
            Kind::Spoofed => {
                let spoofed = IpAddr::V4([198, 51, high, low].into());
                packet((spoofed, self.to), 17, &datagram)
            }
            Kind::FirstFragments => {
                let first = frames::udp(4000, port, &[7; 24]);
                frames::piece(ends, 17, source, (0, true), &first)
            }
            Kind::LaterFragments => frames::piece(ends, 17, source, (1480, false), &[7; 24]),
        };
        frames::ethernet(self.wire.mac, self.target, ethertype, &packet)
    }

    fn run(&self, kind: Kind) -> Result<()> {
        for number in 0..FRAMES {
            self.wire.send(&self.frame(kind, number))?;
        }
        Ok(())
    }
}

fn packet((from, to): (IpAddr, IpAddr), protocol: u8, payload: &[u8]) -> (u16, Vec<u8>) {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let packet = frames::ipv4(from.octets(), to.octets(), protocol, payload);
            (0x0800, packet)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let packet = frames::ipv6(from.octets(), to.octets(), protocol, 64, payload);
            (0x86dd, packet)
        }
        _ => panic!("{from} and {to} are of two families"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Each a connection of its own.
    Openings,
    /// Likewise.
    Datagrams,
    /// Under the addresses of others.
    Spoofed,
    /// Of datagrams that will never be whole, and that the store does not take.
    FirstFragments,
    /// The same, for a reason that no test knows.
    LaterFragments,
}

impl Kind {
    const fn is_of_connections(self) -> bool {
        matches!(self, Self::Openings | Self::Datagrams)
    }
}

/// Two containers that speak to each other, and others that come.
struct Visit<'a> {
    from: &'a Pod,
    to: &'a Pod,
    family: Family,
    /// Open since before the flood.
    old: Connection,
}

impl<'a> Visit<'a> {
    fn new(lab: &'a Lab, (from, to): (&str, &str), family: Family) -> Result<Self> {
        let (from, to) = (lab.pod(from)?, lab.pod(to)?);
        let address = SocketAddr::new(to.address(family)?, PORT);
        let old = sockets::connect(&from.namespace.path(), &to.namespace.path(), address)?;
        Ok(Self {
            from,
            to,
            family,
            old,
        })
    }

    /// Opens one connection after the other and speaks over the old one, until it is over and
    /// then some; how many there were.
    fn go_on(&mut self, over: &AtomicBool) -> Result<u32> {
        let address = SocketAddr::new(self.to.address(self.family)?, PORT);
        let (from, to) = (self.from.namespace.path(), self.to.namespace.path());
        let listener = sockets::listen(&to, address.ip(), PORT)?;
        let datagrams = sockets::udp(&to, address.ip(), 5001)?;
        let sender = sockets::udp(&from, self.from.address(self.family)?, 0)?;
        let (mut number, mut after) = (0, 0);
        while after < 20 {
            after += u32::from(over.load(Ordering::Relaxed));
            let opened = sockets::dial(&from, address, SOON)?;
            let mut opened = opened.with_context(|| format!("connection {number}"))?;
            let (mut answering, _) = listener.accept()?;
            let spoke = sockets::says(&mut opened, &mut answering, SOON)?
                && sockets::says(&mut answering, &mut opened, SOON)?;
            ensure!(spoke, "connection {number} is cut");
            let (client, server) = &mut self.old;
            let spoke =
                sockets::says(client, server, SOON)? && sockets::says(server, client, SOON)?;
            ensure!(spoke, "the old connection is cut at {number}");
            // In pieces, as far as this is of the flooded kind.
            sender.send_to(&[9; 20_000], datagrams.local_addr()?)?;
            // The flood is heard, too, where it is let in.
            loop {
                let heard = sockets::heard(&datagrams, SOON)?;
                let (bytes, who) = heard.with_context(|| format!("datagram {number} is lost"))?;
                if who.ip() == self.from.address(self.family)? {
                    ensure!(bytes == [9; 20_000], "datagram {number} is changed");
                    break;
                }
            }
            number += 1;
            thread::sleep(PACE);
        }
        Ok(number)
    }
}

/// How many connections the table of a family holds, and how many it can.
fn fill(daemon: &Daemon, family: Family) -> Result<(u64, u64)> {
    let status = daemon.netpol(&["status", "-o", "json"])?;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
    let name = match family {
        Family::V4 => "FLOWS4",
        Family::V6 => "FLOWS6",
    };
    let tables = status["tables"].as_array().context("no tables")?;
    let table = tables.iter().find(|table| table["name"] == name);
    let table = table.with_context(|| format!("no {name} in {status}"))?;
    let number = |field: &str| table[field].as_u64();
    let (used, limit) = (number("used"), number("limit"));
    used.zip(limit).with_context(|| format!("{table}"))
}

fn flooded(kind: Kind, family: Family, flooder: &str) -> Result<()> {
    let lab = Lab::with_pods(&["web/front", "web/back", "db/store", "db/flooder"])?;
    lab.plain_bridge()?;
    // Pieces that are let in would fill the memory in which the store's kernel keeps them.
    let who = if kind.is_of_connections() { "{}" } else { WEB };
    let policies = format!("{}---\n{flooder}", POLICIES.replace("WHO", who));
    let daemon = Daemon::enforcing(&lab, &[("policies.yaml", &policies)], "")?;
    let flood = Flood::new(&lab, family)?;
    let over = AtomicBool::new(false);
    let ends = [("web/front", "db/store"), ("web/back", "web/front")];
    thread::scope(|scope| -> Result<()> {
        let mut visits = Vec::new();
        for ends in ends {
            let mut visit = Visit::new(&lab, ends, family)?;
            let over = &over;
            visits.push(scope.spawn(move || visit.go_on(over)));
        }
        let flooded = flood.run(kind);
        over.store(true, Ordering::Relaxed);
        for (visit, ends) in visits.into_iter().zip(ends) {
            let visited = visit.join().expect("a thread of the test panicked");
            let number = visited.with_context(|| format!("{ends:?}\n{}", daemon.log()))?;
            ensure!(number > 30, "{ends:?} met only {number} times");
        }
        flooded
    })?;
    thread::sleep(SWEPT);
    let (used, limit) = fill(&daemon, family)?;
    let room = if kind.is_of_connections() {
        limit - 1
    } else {
        // What comes to nothing is not kept.
        limit / 100
    };
    ensure!(used <= room, "{used} of {limit} are taken");
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

#[test]
fn of_openings() -> Result<()> {
    flooded(Kind::Openings, Family::V4, FLOODER)
}

#[test]
fn of_openings_over_ipv6() -> Result<()> {
    flooded(Kind::Openings, Family::V6, FLOODER)
}

#[test]
fn of_openings_by_an_endpoint_that_no_policy_isolates() -> Result<()> {
    flooded(Kind::Openings, Family::V4, "")
}

#[test]
fn of_datagrams() -> Result<()> {
    flooded(Kind::Datagrams, Family::V4, FLOODER)
}

#[test]
fn under_the_names_of_others() -> Result<()> {
    flooded(Kind::Spoofed, Family::V4, FLOODER)
}

#[test]
fn of_first_fragments() -> Result<()> {
    flooded(Kind::FirstFragments, Family::V4, FLOODER)
}

#[test]
fn of_later_fragments() -> Result<()> {
    flooded(Kind::LaterFragments, Family::V4, FLOODER)
}

/// A Pod that used up its share with unanswered datagrams, and is silent then, opens connections again long before
/// those time out (30 s): what was not answered makes room.
#[test]
fn a_flooder_gets_on_once_it_is_silent() -> Result<()> {
    let lab = Lab::with_pods(&["web/front", "db/store", "db/flooder"])?;
    lab.plain_bridge()?;
    let policies = format!("{}---\n{FLOODER}", POLICIES.replace("WHO", "{}"));
    let daemon = Daemon::enforcing(&lab, &[("policies.yaml", &policies)], "")?;
    let flooder = lab.pod("db/flooder")?;
    Flood::new(&lab, Family::V4)?.run(Kind::Datagrams)?;
    let silent = Instant::now();
    let server = sockets::udp(
        &lab.pod("web/front")?.namespace.path(),
        lab.pod("web/front")?.address(Family::V4)?,
        PORT,
    )?;
    let soon = scaled(Duration::from_secs(10));
    loop {
        let client = sockets::udp(&flooder.namespace.path(), flooder.address(Family::V4)?, 0)?;
        client.connect(server.local_addr()?)?;
        client.send(b"?")?;
        if sockets::heard(&server, Duration::from_millis(200))?.is_some() {
            break;
        }
        let waited = silent.elapsed();
        ensure!(waited < soon, "nothing after {waited:?}\n{}", daemon.log());
    }
    let flows = daemon.netpol(&["observe", "--verdict", "dropped"])?;
    let flows = String::from_utf8_lossy(&flows.stdout).into_owned();
    ensure!(
        flows.contains("flow-share-full"),
        "the share was not used up:\n{flows}"
    );
    Ok(())
}

/// Its first piece has passed, the others are on the way, and another sender begins ten thousand.
#[test]
fn a_datagram_under_way_is_not_forgotten() -> Result<()> {
    let lab = Lab::with_pods(&["web/front", "db/store", "db/flooder"])?;
    lab.plain_bridge()?;
    let policies = format!("{}---\n{FLOODER}", POLICIES.replace("WHO", WEB));
    let daemon = Daemon::enforcing(&lab, &[("policies.yaml", &policies)], "")?;
    let (front, store) = (lab.pod("web/front")?, lab.pod("db/store")?);
    for family in Family::BOTH {
        let flood = Flood::new(&lab, family)?;
        let wire = Wire::open(front)?;
        let ends = (front.address(family)?, store.address(family)?);
        let server = sockets::udp(&store.namespace.path(), ends.1, 5001)?;
        let datagram = frames::real_udp(ends, (4000, 5001), &[9; 6000]);
        let mut pieces = frames::pieces(ends, 17, 7, &datagram, 1024).into_iter();
        let send = |(ethertype, packet): (u16, Vec<u8>)| {
            wire.send(&frames::ethernet(
                wire.mac,
                flood.target,
                ethertype,
                &packet,
            ))
        };
        send(pieces.next().context("a piece")?)?;
        for number in 0..10_000 {
            flood
                .wire
                .send(&flood.frame(Kind::FirstFragments, number))?;
        }
        for piece in pieces {
            send(piece)?;
        }
        let heard = sockets::heard(&server, SOON)?;
        let (bytes, _) = heard.with_context(|| format!("{family:?}\n{}", daemon.log()))?;
        ensure!(bytes == [9; 6000], "{family:?}: changed");
    }
    Ok(())
}
