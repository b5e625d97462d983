//! Pieces of a datagram in any order, as routers and links with many paths deliver them: one
//! that a rule allows arrives whole at a real socket, one that none allows never does. Needs
//! root.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpold_tests::frames::Mac;
use netpold_tests::sockets::{self, Rng};
use netpold_tests::{Daemon, Family, Lab, Wire, frames, residue};

const ALLOWED: u16 = 5432;
const DENIED: u16 = 5433;
/// All before it was sent has arrived by then, or never does.
const LATER: Duration = Duration::from_millis(300);
/// Orders that are tried beside those with a name.
const SHUFFLES: u64 = 20;

/// Store takes datagrams from front on one port, and sends some on that port to front.
const PAIR: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: store, namespace: db}\n\
    spec:\n  podSelector: {matchLabels: {app: store}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  \
    - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}]\n    \
    ports: [{protocol: UDP, port: 5432}]\n  egress:\n  \
    - to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}]\n    \
    ports: [{protocol: UDP, port: 5432}]\n";

/// A way on which raw pieces go, and the sockets at its end: on the port that is open, and on one
/// that is not.
struct Way {
    wire: Wire,
    target: Mac,
    ends: (IpAddr, IpAddr),
    open: UdpSocket,
    shut: UdpSocket,
    id: u16,
}

impl Way {
    fn new(lab: &Lab, (from, to): (&str, &str), family: Family) -> Result<Self> {
        let (from, to) = (lab.pod(from)?, lab.pod(to)?);
        let ends = (from.address(family)?, to.address(family)?);
        Ok(Self {
            open: sockets::udp(&to.namespace.path(), ends.1, ALLOWED)?,
            shut: sockets::udp(&to.namespace.path(), ends.1, DENIED)?,
            wire: Wire::open(from)?,
            target: Wire::open(to)?.mac,
            ends,
            id: 1,
        })
    }

    /// A datagram in this order of its pieces.
    fn send(&mut self, port: u16, data: &[u8], order: &[usize]) -> Result<()> {
        let datagram = frames::real_udp(self.ends, (4000, port), data);
        let pieces = frames::pieces(self.ends, 17, self.id, &datagram, 1024);
        ensure!(pieces.len() == order.len(), "{} pieces", pieces.len());
        self.id += 1;
        for &number in order {
            let (ethertype, packet) = &pieces[number];
            let frame = frames::ethernet(self.wire.mac, self.target, *ethertype, packet);
            self.wire.send(&frame)?;
        }
        Ok(())
    }
}

fn orders() -> Vec<Vec<usize>> {
    let mut orders = vec![
        vec![0, 1, 2, 3, 4, 5],
        vec![5, 0, 1, 2, 3, 4],
        vec![5, 4, 3, 2, 1, 0],
        vec![1, 2, 3, 4, 5, 0],
    ];
    let mut noise = Rng(11);
    for _ in 0..SHUFFLES {
        let mut order = orders[0].clone();
        for last in (1..order.len()).rev() {
            let other = noise.word() as usize % (last + 1);
            order.swap(last, other);
        }
        orders.push(order);
    }
    orders
}

fn in_any_order(ends: (&str, &str)) -> Result<()> {
    let lab = Lab::with_pods(&["web/front", "db/store"])?;
    let daemon = Daemon::enforcing(&lab, &[("pair.yaml", PAIR)], "")?;
    for family in Family::BOTH {
        let mut way = Way::new(&lab, ends, family)?;
        let mut noise = Rng(13);
        for order in orders() {
            let (wrong, right) = (noise.bytes(6000), noise.bytes(6000));
            way.send(DENIED, &wrong, &order)?;
            way.send(ALLOWED, &right, &order)?;
            let (got, _) = sockets::heard(&way.open, sockets::scaled())?
                .with_context(|| format!("{family:?}, {order:?} is lost\n{}", daemon.log()))?;
            ensure!(got == right, "{family:?}, {order:?}: changed");
        }
        ensure!(
            sockets::heard(&way.shut, LATER)?.is_none(),
            "{family:?}: a port that no rule allows"
        );
    }
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

#[test]
fn towards_the_isolated() -> Result<()> {
    in_any_order(("web/front", "db/store"))
}

#[test]
fn from_the_isolated() -> Result<()> {
    in_any_order(("db/store", "web/front"))
}
