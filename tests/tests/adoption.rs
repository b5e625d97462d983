//! Connections older than the daemon: whichever end opened them, and whichever end speaks first once it
//! enforces, they go on where policy allows the direction in which they were opened, though it
//! denies the other one, and are cut where it denies that. Needs root.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpold_tests::lab::Pod;
use netpold_tests::sockets::{self, Connection};
use netpold_tests::{Daemon, Family, Lab, residue};

/// Those that answer, from this port on.
const PORT: u16 = 5000;
/// What gets there takes milliseconds; TCP sends again after 200.
const SOON: Duration = Duration::from_millis(700);
/// Bytes of one transfer of several, each way.
const PART: usize = 1 << 20;

/// The store may be dialled by front, and may dial no Pod.
const DIALLED: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: one-way, namespace: db}\n\
    spec:\n  podSelector: {matchLabels: {app: store}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  \
    - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}]\n    \
    ports: [{port: 5000, endPort: 5099}, {protocol: UDP, port: 5000, endPort: 5099}]\n";

/// The store may dial front, and no Pod may dial it.
const DIALLING: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: one-way, namespace: db}\n\
    spec:\n  podSelector: {matchLabels: {app: store}}\n  policyTypes: [Ingress, Egress]\n  egress:\n  \
    - to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}]\n    \
    ports: [{port: 5000, endPort: 5099}, {protocol: UDP, port: 5000, endPort: 5099}]\n";

/// The end that opened, and the end that speaks first afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Store,
    Front,
}

impl End {
    const BOTH: [Self; 2] = [Self::Store, Self::Front];

    /// This end and the other one.
    fn pods(self, lab: &Lab) -> Result<(&Pod, &Pod)> {
        let (store, front) = (lab.pod("db/store")?, lab.pod("web/front")?);
        Ok(match self {
            Self::Store => (store, front),
            Self::Front => (front, store),
        })
    }
}

/// What is tried: each with a connection of its own.
#[derive(Clone, Copy, Debug)]
struct Case {
    family: Family,
    opener: End,
    speaker: End,
    port: u16,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in Family::BOTH {
        for opener in End::BOTH {
            for speaker in End::BOTH {
                cases.push(Case {
                    family,
                    opener,
                    speaker,
                    port: PORT + cases.len() as u16,
                });
            }
        }
    }
    cases
}

impl Case {
    fn address(&self, answerer: &Pod) -> Result<SocketAddr> {
        Ok(SocketAddr::new(answerer.address(self.family)?, self.port))
    }

    /// A connection over which both ends have spoken. Its service goes on listening.
    fn open(&self, lab: &Lab) -> Result<(TcpListener, Connection)> {
        let (opener, answerer) = self.opener.pods(lab)?;
        let address = self.address(answerer)?;
        let listener = sockets::listen(&answerer.namespace.path(), address.ip(), self.port)?;
        let opened = sockets::dial(&opener.namespace.path(), address, sockets::scaled())?;
        let mut opened = opened.context("nobody answers")?;
        let (mut answering, _) = listener.accept()?;
        answering.set_nodelay(true)?;
        ensure!(sockets::says(&mut opened, &mut answering, SOON)?);
        ensure!(sockets::says(&mut answering, &mut opened, SOON)?);
        Ok((listener, (opened, answering)))
    }

    /// The same of datagrams: each socket knows the other.
    fn exchange(&self, lab: &Lab) -> Result<(UdpSocket, UdpSocket)> {
        let (opener, answerer) = self.opener.pods(lab)?;
        let address = self.address(answerer)?;
        let answering = sockets::udp(&answerer.namespace.path(), address.ip(), self.port)?;
        let own = opener.address(self.family)?;
        let opened = sockets::udp(&opener.namespace.path(), own, 0)?;
        opened.connect(address)?;
        opened.send(b"hello")?;
        let (_, from) = sockets::heard(&answering, SOON)?.context("nobody answers")?;
        answering.connect(from)?;
        answering.send(b"hello")?;
        sockets::heard(&opened, SOON)?.context("no answer")?;
        Ok((opened, answering))
    }

    /// The two ends in the order in which they speak.
    fn ordered<T>(&self, (opened, answering): (T, T)) -> (T, T) {
        if self.opener == self.speaker {
            (opened, answering)
        } else {
            (answering, opened)
        }
    }
}

fn lab() -> Result<Lab> {
    Lab::with_pods(&["web/front", "db/store"])
}

/// Starts the daemon, and holds what each connection does against what it should.
fn adopted<T>(
    policy: &str,
    cases: Vec<Case>,
    open: impl Fn(&Case, &Lab) -> Result<T>,
    goes_on: impl Fn(&Case, T) -> Result<bool>,
) -> Result<()> {
    let lab = lab()?;
    let mut opened = Vec::new();
    for case in cases {
        let connection = open(&case, &lab).with_context(|| format!("{case:?}"))?;
        opened.push((case, connection));
    }
    let daemon = Daemon::enforcing(&lab, &[("one-way.yaml", policy)], "")?;
    let mut wrong = Vec::new();
    for (case, connection) in opened {
        let allowed = (policy == DIALLING) == (case.opener == End::Store);
        let goes_on = goes_on(&case, connection).with_context(|| format!("{case:?}"))?;
        if goes_on != allowed {
            wrong.push(format!("{case:?} goes on: {goes_on}"));
        }
    }
    ensure!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), daemon.log());
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

fn tcp(policy: &str) -> Result<()> {
    adopted(
        policy,
        cases(),
        Case::open,
        |case, (_listener, connection)| {
            let (mut first, mut second) = case.ordered(connection);
            Ok(sockets::says(&mut first, &mut second, SOON)?
                && sockets::says(&mut second, &mut first, SOON)?)
        },
    )
}

fn udp(policy: &str) -> Result<()> {
    let mut cases = cases();
    // Nothing tells that a datagram of the isolated is an answer, until its asker speaks again.
    cases.retain(|case| case.opener == End::Store || case.speaker == End::Front);
    adopted(policy, cases, Case::exchange, |case, sockets| {
        let (first, second) = case.ordered(sockets);
        first.send(b"word")?;
        if sockets::heard(&second, SOON)?.is_none() {
            return Ok(false);
        }
        second.send(b"word")?;
        Ok(sockets::heard(&first, SOON)?.is_some())
    })
}

#[test]
fn tcp_that_the_policy_lets_in() -> Result<()> {
    tcp(DIALLED)
}

#[test]
fn tcp_that_the_policy_lets_out() -> Result<()> {
    tcp(DIALLING)
}

#[test]
fn datagrams_that_the_policy_lets_in() -> Result<()> {
    udp(DIALLED)
}

#[test]
fn datagrams_that_the_policy_lets_out() -> Result<()> {
    udp(DIALLING)
}

#[test]
fn a_transfer_goes_on_while_the_daemon_starts() -> Result<()> {
    for (policy, opener) in [(DIALLED, End::Front), (DIALLING, End::Store)] {
        let lab = lab()?;
        let case = Case {
            family: Family::V4,
            opener,
            speaker: opener,
            port: PORT,
        };
        let (_listener, connection) = case.open(&lab)?;
        for end in [&connection.0, &connection.1] {
            end.set_read_timeout(Some(sockets::scaled()))?;
            end.set_write_timeout(Some(sockets::scaled()))?;
        }
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let transfers = scope.spawn(|| -> Result<()> {
                while !over.load(Ordering::Relaxed) {
                    sockets::transfer(&connection, PART)?;
                }
                sockets::transfer(&connection, PART)
            });
            let daemon = Daemon::enforcing(&lab, &[("one-way.yaml", policy)], "");
            over.store(true, Ordering::Relaxed);
            let transferred = transfers.join().expect("a thread of the test panicked");
            let daemon = daemon?;
            transferred.with_context(|| daemon.log())
        })?;
    }
    Ok(())
}
