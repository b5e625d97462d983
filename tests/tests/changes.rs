//! Changes under load: policies flip, the daemon is killed, ended and started again, while
//! packets go that every state allows, and others that no state allows. None of the first may
//! be lost, and none of the second may arrive. Needs root.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpold::probe::namespace;
use netpold_tests::lab::Pod;
use netpold_tests::{Daemon, Lab, residue};

const V4: usize = 0;
const V6: usize = 1;
/// Where the victim answers.
const PORT: u16 = 5432;
/// Between one word and the next: the daemon under test needs the processors, too.
const PACE: Duration = Duration::from_micros(500);
/// A port is free again by then.
const FREED: Duration = Duration::from_secs(5);
/// What arrives late was dropped and sent again: TCP's shortest wait for that is 200 ms.
const LATE: Duration = Duration::from_millis(190);

fn lab() -> Result<Lab> {
    let mut lab = Lab::new()?;
    for (number, name) in ["web/front", "db/store", "db/other"].iter().enumerate() {
        let (v4, v6) = (
            format!("10.77.1.{}/16", number + 1),
            format!("fd77::1{}/64", number + 1),
        );
        lab.add_pod(name, &[v4.parse()?, v6.parse()?])?;
    }
    Ok(lab)
}

fn daemon(lab: &Lab, policies: &[(&str, &str)], settings: &str) -> Result<Daemon> {
    let mut daemon = Daemon::prepare(lab, settings)?;
    for pod in lab.pods() {
        declare(&daemon, pod)?;
    }
    for (name, text) in policies {
        daemon.put(name, text)?;
    }
    daemon.launch()?;
    daemon.wait()?;
    Ok(daemon)
}

fn declare(daemon: &Daemon, pod: &Pod) -> Result<()> {
    let name = pod.reference.replace('/', "-");
    let app = pod.reference.split('/').next_back().unwrap_or_default();
    daemon.put(&format!("pod-{name}.json"), &pod.manifest(&[("app", app)])?)
}

/// A policy for `db/store` that lets the front in on the port and, by `variant`, other things
/// that do not matter here.
fn variant(variant: usize) -> String {
    let rule = |peers: &str, ports: &str| format!("  - from: [{peers}]\n    ports: [{ports}]\n");
    let front = "{namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}, {ipBlock: {cidr: 192.0.2.0/24}}";
    let wanted = "{port: 5432}, {protocol: UDP, port: 5432}";
    let rules = match variant % 4 {
        0 => rule(front, wanted),
        1 => rule("{ipBlock: {cidr: 198.51.100.0/24}}", "{port: 80}") + &rule(front, wanted),
        2 => rule(
            front,
            "{port: 5000, endPort: 6000}, {protocol: UDP, port: 5000, endPort: 6000}",
        ),
        _ => {
            rule(
                "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: web}}}",
                wanted,
            ) + &rule("{podSelector: {matchLabels: {app: nobody}}}", "{port: 22}")
        }
    };
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: flips, namespace: db}}\n\
         spec:\n  podSelector: {{matchLabels: {{app: store}}}}\n  policyTypes: [Ingress]\n  ingress:\n{rules}"
    )
}

fn bound(pod: &Pod, family: usize, port: u16) -> Result<UdpSocket> {
    bound_to(pod, pod.addresses[family], port)
}

fn bound_to(pod: &Pod, address: IpAddr, port: u16) -> Result<UdpSocket> {
    let address = SocketAddr::new(address, port);
    let begun = Instant::now();
    loop {
        let bound = namespace::inside(&pod.namespace.path(), || UdpSocket::bind(address))?;
        match bound {
            // A child that another test starts has all our sockets until it is another program.
            Err(error) if error.kind() == ErrorKind::AddrInUse && begun.elapsed() < FREED => {
                thread::yield_now();
            }
            bound => return Ok(bound?),
        }
    }
}

/// Asks and awaits each answer, until it is over; how many there were. After each, somebody
/// knocks who must not be heard.
fn asks(socket: &UdpSocket, knocker: &UdpSocket, over: &AtomicBool) -> Result<u64> {
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut number = 0_u64;
    let mut answer = [0; 8];
    while !over.load(Ordering::Relaxed) {
        socket.send(&number.to_be_bytes())?;
        socket
            .recv(&mut answer)
            .with_context(|| format!("datagram {number} or its answer is lost"))?;
        ensure!(u64::from_be_bytes(answer) == number, "answers are mixed up");
        knocker.send(b"let me in")?;
        thread::sleep(PACE);
        number += 1;
    }
    Ok(number)
}

/// The same over TCP, where a loss shows as a delay.
fn converses(stream: &mut TcpStream, over: &AtomicBool) -> Result<u64> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.set_nodelay(true)?;
    let mut number = 0_u64;
    let mut answer = [0; 8];
    let mut late = 0;
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        stream.write_all(&number.to_be_bytes())?;
        stream
            .read_exact(&mut answer)
            .with_context(|| format!("word {number} or its answer is lost"))?;
        late += u32::from(begun.elapsed() > LATE);
        thread::sleep(PACE);
        number += 1;
    }
    ensure!(late == 0, "{late} of {number} words were late");
    Ok(number)
}

/// Answers until it is over; fails when anybody but the friends speaks.
fn answers(socket: &UdpSocket, friend: IpAddr, over: &AtomicBool) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut bytes = [0; 64];
    while !over.load(Ordering::Relaxed) {
        match socket.recv_from(&mut bytes) {
            Ok((length, from)) => {
                ensure!(from.ip() == friend, "a datagram of {from} arrived");
                socket.send_to(&bytes[..length], from)?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Traffic of both kinds on both families while `disturb` does its work.
fn under_load(lab: &Lab, disturb: impl FnOnce() -> Result<()>) -> Result<()> {
    let (front, store, other) = (
        lab.pod("web/front")?,
        lab.pod("db/store")?,
        lab.pod("db/other")?,
    );
    let over = AtomicBool::new(false);
    let listener = namespace::inside(&store.namespace.path(), || {
        TcpListener::bind(SocketAddr::new(store.addresses[V4], PORT))
    })??;
    let mut client = namespace::inside(&front.namespace.path(), || {
        TcpStream::connect(SocketAddr::new(store.addresses[V4], PORT))
    })??;
    let (mut server, _) = listener.accept()?;
    server.set_nodelay(true)?;
    let hanging_up = client.try_clone()?;
    let mut pairs = Vec::new();
    for family in [V4, V6] {
        let server = bound(store, family, PORT)?;
        let target = server.local_addr()?;
        let asker = bound(front, family, 0)?;
        asker.connect(target)?;
        let knocker = bound(other, family, 0)?;
        knocker.connect(target)?;
        pairs.push((server, asker, knocker, front.addresses[family]));
    }
    thread::scope(|scope| -> Result<()> {
        let over = &over;
        let mut checks = Vec::new();
        let mut counts = Vec::new();
        for (server, asker, knocker, friend) in &pairs {
            checks.push(scope.spawn(move || answers(server, *friend, over)));
            counts.push(scope.spawn(move || asks(asker, knocker, over)));
        }
        counts.push(scope.spawn(|| converses(&mut client, over)));
        scope.spawn(move || {
            let mut word = [0; 8];
            while server.read_exact(&mut word).is_ok() && server.write_all(&word).is_ok() {}
        });
        let disturbed = disturb();
        over.store(true, Ordering::Relaxed);
        let mut said = Vec::new();
        for count in counts {
            said.push(count.join().expect("a thread of the test panicked"));
        }
        // Its thread ends with the connection.
        hanging_up.shutdown(Shutdown::Both).ok();
        for check in checks {
            check.join().expect("a thread of the test panicked")?;
        }
        disturbed?;
        for count in said {
            ensure!(count? > 100, "hardly anything was said");
        }
        Ok(())
    })
}

#[test]
fn flips_lose_nothing_and_let_nothing_through() -> Result<()> {
    let lab = lab()?;
    let daemon = daemon(&lab, &[("flips.yaml", &variant(0))], "")?;
    under_load(&lab, || {
        for number in 1..40 {
            daemon.put("flips.yaml", &variant(number))?;
            daemon.wait()?;
        }
        Ok(())
    })
    .with_context(|| daemon.log())
}

#[test]
fn neither_do_kills_in_the_middle_of_flips() -> Result<()> {
    let lab = lab()?;
    let mut daemon = daemon(&lab, &[("flips.yaml", &variant(0))], "")?;
    under_load(&lab, || {
        for number in 1..12 {
            daemon.put("flips.yaml", &variant(number))?;
            // At once, and so somewhere in the work; the last time it is let through.
            let seen = Instant::now();
            while seen.elapsed() < Duration::from_millis(7 * number as u64 % 40) {
                thread::yield_now();
            }
            daemon.kill()?;
            daemon.launch()?;
            daemon.wait()?;
        }
        for number in 0..3 {
            daemon.stop()?;
            daemon.put("flips.yaml", &variant(number))?;
            daemon.launch()?;
            daemon.wait()?;
        }
        Ok(())
    })
    .with_context(|| daemon.log())?;
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

#[test]
fn what_is_large_arrives_whole() -> Result<()> {
    let lab = lab()?;
    let _daemon = daemon(&lab, &[("flips.yaml", &variant(0))], "")?;
    let (front, store) = (lab.pod("web/front")?, lab.pod("db/store")?);
    for family in [V4, V6] {
        // Forty fragments and more.
        let server = bound(store, family, PORT)?;
        let asker = bound(front, family, 0)?;
        asker.connect(server.local_addr()?)?;
        server.set_read_timeout(Some(Duration::from_secs(5)))?;
        let sent: Vec<u8> = (0..60_000_u32).map(|index| (index % 251) as u8).collect();
        let mut got = vec![0; 70_000];
        for _ in 0..10 {
            asker.send(&sent)?;
            let (length, from) = server.recv_from(&mut got).context("to the server")?;
            ensure!(got[..length] == sent, "it arrived changed");
            server.send_to(&sent, from)?;
            asker.set_read_timeout(Some(Duration::from_secs(5)))?;
            let length = asker.recv(&mut got).context("to the client")?;
            ensure!(got[..length] == sent, "it came back changed");
        }
        // Segments that the offload cuts, both ways at once.
        let listener = namespace::inside(&store.namespace.path(), || {
            TcpListener::bind(SocketAddr::new(store.addresses[family], PORT))
        })??;
        let mut client = namespace::inside(&front.namespace.path(), || {
            TcpStream::connect(SocketAddr::new(store.addresses[family], PORT))
        })??;
        let (mut server, _) = listener.accept()?;
        thread::scope(|scope| -> Result<()> {
            let mut echo = server.try_clone()?;
            scope.spawn(move || {
                std::io::copy(&mut server, &mut echo).ok();
                echo.shutdown(Shutdown::Write).ok();
            });
            let mut writer = client.try_clone()?;
            let sent = &sent;
            scope.spawn(move || {
                for _ in 0..1000 {
                    if writer.write_all(sent).is_err() {
                        return;
                    }
                }
                writer.shutdown(Shutdown::Write).ok();
            });
            let mut got = vec![0; sent.len()];
            for number in 0..1000 {
                client
                    .read_exact(&mut got)
                    .with_context(|| format!("part {number}"))?;
                ensure!(got == *sent, "part {number} came back changed");
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn reaches(from: &Pod, to: &Pod) -> Result<bool> {
    reaches_as(from, from.addresses[V4], to)
}

fn reaches_as(from: &Pod, source: IpAddr, to: &Pod) -> Result<bool> {
    let server = bound(to, V4, PORT)?;
    let client = bound_to(from, source, 0)?;
    client.connect(server.local_addr()?)?;
    server.set_read_timeout(Some(Duration::from_millis(400)))?;
    client.send(b"?")?;
    match server.recv(&mut [0; 8]) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn an_address_that_moved_while_the_daemon_was_down_has_its_new_owners_rights() -> Result<()> {
    let lab = lab()?;
    let mut daemon = daemon(&lab, &[("flips.yaml", &variant(0))], "")?;
    let (front, store, other) = (
        lab.pod("web/front")?,
        lab.pod("db/store")?,
        lab.pod("db/other")?,
    );
    ensure!(reaches(front, store)?);
    ensure!(!reaches(other, store)?);
    daemon.stop()?;
    let moved = format!("{}/16", front.addresses[V4]);
    front
        .namespace
        .ip(&["addr", "del", &moved, "dev", "eth0"])?;
    other.namespace.ip(&["addr", "flush", "dev", "eth0"])?;
    other
        .namespace
        .ip(&["addr", "add", &moved, "dev", "eth0"])?;
    store.namespace.ip(&["neigh", "flush", "all"])?;
    ensure!(
        !reaches_as(other, front.addresses[V4], store)?,
        "without a daemon the address is not its own"
    );
    daemon.launch()?;
    daemon.wait()?;
    ensure!(
        !reaches_as(other, front.addresses[V4], store)?,
        "the new owner has the old one's rights"
    );
    Ok(())
}
