//! Changes under load: policies change, the daemon is killed, ended and started again, while
//! packets go that every state allows, and others that no state allows. None of the first may
//! be lost, and none of the second may arrive. Needs root.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpold_tests::lab::Pod;
use netpold_tests::load::{Load, PORT, under_load};
use netpold_tests::{Daemon, Family, Lab, residue, sockets};

fn lab() -> Result<Lab> {
    Lab::with_pods(&["web/front", "db/store", "db/other"])
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
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: changed, namespace: db}}\n\
         spec:\n  podSelector: {{matchLabels: {{app: store}}}}\n  policyTypes: [Ingress]\n  ingress:\n{rules}"
    )
}

fn bound(pod: &Pod, family: Family, port: u16) -> Result<UdpSocket> {
    sockets::udp(&pod.namespace.path(), pod.address(family)?, port)
}

#[test]
fn commits_lose_nothing_and_let_nothing_through() -> Result<()> {
    let lab = lab()?;
    let daemon = Daemon::enforcing(&lab, &[("changed.yaml", &variant(0))], "")?;
    let said = under_load(&lab, Load::default(), || {
        for number in 1..40 {
            daemon.put("changed.yaml", &variant(number))?;
            daemon.wait()?;
        }
        Ok(())
    })
    .with_context(|| daemon.log())?;
    ensure!(said.late == 0, "some words were late: {said:?}");
    Ok(())
}

#[test]
fn neither_do_kills_in_the_middle_of_commits() -> Result<()> {
    let lab = lab()?;
    let mut daemon = Daemon::enforcing(&lab, &[("changed.yaml", &variant(0))], "")?;
    let said = under_load(&lab, Load::default(), || {
        for number in 1..12 {
            daemon.put("changed.yaml", &variant(number))?;
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
            daemon.put("changed.yaml", &variant(number))?;
            daemon.launch()?;
            daemon.wait()?;
        }
        Ok(())
    })
    .with_context(|| daemon.log())?;
    ensure!(said.late == 0, "some words were late: {said:?}");
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

#[test]
fn what_is_large_arrives_whole() -> Result<()> {
    let lab = lab()?;
    let _daemon = Daemon::enforcing(&lab, &[("changed.yaml", &variant(0))], "")?;
    let (front, store) = (lab.pod("web/front")?, lab.pod("db/store")?);
    for family in Family::BOTH {
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
        let address = SocketAddr::new(store.address(family)?, PORT);
        let (from, to) = (front.namespace.path(), store.namespace.path());
        sockets::transfer(&sockets::connect(&from, &to, address)?, 60_000_000)?;
    }
    Ok(())
}

fn reaches(from: &Pod, to: &Pod) -> Result<bool> {
    reaches_as(from, from.address(Family::V4)?, to)
}

fn reaches_as(from: &Pod, source: IpAddr, to: &Pod) -> Result<bool> {
    let server = bound(to, Family::V4, PORT)?;
    let client = sockets::udp(&from.namespace.path(), source, 0)?;
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
    let mut daemon = Daemon::enforcing(&lab, &[("changed.yaml", &variant(0))], "")?;
    let (front, store, other) = (
        lab.pod("web/front")?,
        lab.pod("db/store")?,
        lab.pod("db/other")?,
    );
    ensure!(reaches(front, store)?);
    ensure!(!reaches(other, store)?);
    daemon.stop()?;
    let moved = format!("{}/16", front.address(Family::V4)?);
    front
        .namespace
        .ip(&["addr", "del", &moved, "dev", "eth0"])?;
    other.namespace.ip(&["addr", "flush", "dev", "eth0"])?;
    other
        .namespace
        .ip(&["addr", "add", &moved, "dev", "eth0"])?;
    store.namespace.ip(&["neigh", "flush", "all"])?;
    ensure!(
        !reaches_as(other, front.address(Family::V4)?, store)?,
        "without a daemon the address is not its own"
    );
    daemon.launch()?;
    daemon.wait()?;
    ensure!(
        !reaches_as(other, front.address(Family::V4)?, store)?,
        "the new owner has the old one's rights"
    );
    Ok(())
}
