//! Large datagrams between isolated Pods: what a rule allows arrives whole, in however many
//! pieces it goes, and what none allows does not; pieces over one another never reach another
//! port. Needs root.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpol_abi::packet::tcp::{ACK, SYN};
use netpold_tests::sockets::{self, Rng};
use netpold_tests::{Daemon, Family, Lab, Wire, frames, residue};

const ALLOWED: u16 = 5432;
const DENIED: u16 = 5433;
/// The largest that UDP over IPv4 has.
const LARGEST: usize = 65_507;
/// All before it was sent has arrived by then, or never does.
const LATER: Duration = Duration::from_millis(300);

/// Front may speak to store on one port, and store may take it; nothing else goes.
const PAIR: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: store, namespace: db}\n\
    spec:\n  podSelector: {matchLabels: {app: store}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  \
    - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}]\n    \
    ports: [{protocol: UDP, port: 5432}, {port: 5432}]\n\
    ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: front, namespace: web}\n\
    spec:\n  podSelector: {matchLabels: {app: front}}\n  policyTypes: [Ingress, Egress]\n  egress:\n  \
    - to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: store}}}]\n    \
    ports: [{protocol: UDP, port: 5432}, {port: 5432}]\n";

fn lab() -> Result<Lab> {
    Lab::with_pods(&["web/front", "db/store", "db/other"])
}

#[test]
fn the_largest_datagrams_pass_where_a_rule_allows_them() -> Result<()> {
    let lab = lab()?;
    let daemon = Daemon::enforcing(&lab, &[("pair.yaml", PAIR)], "")?;
    let (front, store, other) = (
        lab.pod("web/front")?,
        lab.pod("db/store")?,
        lab.pod("db/other")?,
    );
    for family in Family::BOTH {
        let to = store.address(family)?;
        let server = sockets::udp(&store.namespace.path(), to, ALLOWED)?;
        let shut = sockets::udp(&store.namespace.path(), to, DENIED)?;
        let client = sockets::udp(&front.namespace.path(), front.address(family)?, 0)?;
        let stranger = sockets::udp(&other.namespace.path(), other.address(family)?, 0)?;
        let mut noise = Rng(7);
        for round in 0..20 {
            let sent = noise.bytes(LARGEST);
            client.send_to(&sent, (to, DENIED))?;
            stranger.send_to(&sent, (to, ALLOWED))?;
            client.send_to(&sent, (to, ALLOWED))?;
            let lost = || format!("{family:?}, round {round}\n{}", daemon.log());
            let (got, from) = sockets::heard(&server, sockets::scaled())?.with_context(lost)?;
            ensure!(from == client.local_addr()?, "{from} is heard");
            ensure!(got == sent, "it arrived changed");
            let answer = noise.bytes(LARGEST);
            server.send_to(&answer, from)?;
            let (got, _) = sockets::heard(&client, sockets::scaled())?.with_context(lost)?;
            ensure!(got == answer, "it came back changed");
        }
        for (name, socket) in [("the shut port", &shut), ("the open port", &server)] {
            ensure!(sockets::heard(socket, LATER)?.is_none(), "at {name}");
        }
    }
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

/// A wire from front to store.
struct Way {
    from: Wire,
    to: Wire,
    ends: (IpAddr, IpAddr),
}

impl Way {
    fn new(lab: &Lab, family: Family) -> Result<Self> {
        let (front, store) = (lab.pod("web/front")?, lab.pod("db/store")?);
        Ok(Self {
            from: Wire::open(front)?,
            to: Wire::open(store)?,
            ends: (front.address(family)?, store.address(family)?),
        })
    }

    fn frame(&self, (ethertype, packet): &(u16, Vec<u8>)) -> Vec<u8> {
        frames::ethernet(self.from.mac, self.to.mac, *ethertype, packet)
    }

    /// Sends packets, and then a datagram that arrives; which of them came before it.
    fn arrive(&self, packets: &[(u16, Vec<u8>)]) -> Result<Vec<bool>> {
        let sent: Vec<Vec<u8>> = packets.iter().map(|packet| self.frame(packet)).collect();
        for frame in &sent {
            self.from.send(frame)?;
        }
        let last = frames::real_udp(self.ends, (4444, ALLOWED), b"last");
        let last = self.frame(&frames::piece(self.ends, 17, 0, (0, false), &last));
        self.from.send(&last)?;
        let seen = self.to.until(&last)?;
        Ok(sent.iter().map(|frame| seen.contains(frame)).collect())
    }
}

#[test]
fn a_second_first_piece_brings_no_datagram_to_another_port() -> Result<()> {
    let lab = lab()?;
    let _daemon = Daemon::enforcing(&lab, &[("pair.yaml", PAIR)], "")?;
    for family in Family::BOTH {
        let way = Way::new(&lab, family)?;
        let store = lab.pod("db/store")?;
        let open = sockets::udp(&store.namespace.path(), way.ends.1, ALLOWED)?;
        let shut = sockets::udp(&store.namespace.path(), way.ends.1, DENIED)?;
        let data = Rng(9).bytes(4000);
        let datagram = |port| frames::real_udp(way.ends, (4000, port), &data);
        let pieces = |id, port| frames::pieces(way.ends, 17, id, &datagram(port), 1024);
        // The port that is shut first, in the middle, and last.
        for (id, place) in [(1, 0), (2, 1), (3, 2), (4, 4)] {
            let mut packets = pieces(id, ALLOWED);
            packets.insert(place, pieces(id, DENIED)[0].clone());
            let arrived = way.arrive(&packets)?;
            ensure!(!arrived[place], "{family:?}: the piece at {place} arrived");
            // A sender of such a thing harms at most its own datagram.
            loop {
                let (heard, _) = sockets::heard(&open, sockets::scaled())?.context("the last")?;
                if heard == b"last" {
                    break;
                }
                ensure!(heard == data, "{family:?}: {place} is not what was sent");
            }
        }
        ensure!(sockets::heard(&shut, LATER)?.is_none(), "{family:?}: heard");
    }
    Ok(())
}

#[test]
fn no_piece_lies_over_the_header_of_another() -> Result<()> {
    let lab = lab()?;
    let _daemon = Daemon::enforcing(&lab, &[("pair.yaml", PAIR)], "")?;
    for family in Family::BOTH {
        let way = Way::new(&lab, family)?;
        // RFC 1858: what goes first is judged, and other flags come to lie over its own.
        let first = [&frames::tcp(4000, ALLOWED, SYN)[..], &[0; 4]].concat();
        let over = [&frames::tcp(4000, ALLOWED, ACK)[8..], &[0; 12]].concat();
        let packets = [
            frames::piece(way.ends, 6, 9, (0, true), &first),
            frames::piece(way.ends, 6, 9, (8, false), &over),
            frames::piece(way.ends, 6, 9, (16, false), &over[8..]),
            frames::piece(way.ends, 6, 9, (24, false), &[7; 24]),
        ];
        let arrived = way.arrive(&packets)?;
        ensure!(
            arrived == [true, false, false, true],
            "{family:?}: {arrived:?}"
        );
    }
    Ok(())
}
