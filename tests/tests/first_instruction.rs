//! From the first packet, by Docker: containers whose first instruction sends, and who are dialled from
//! the instant in which they have an interface, with the daemon running, halted and killed. Needs root, dockerd
//! and busybox. `NPD_STARTS` is how many (1000 takes half an hour).
//!
//! The kernel of a new container's network namespace counts what arrives there; a packet socket shows what arrives at its peer.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpold_tests::patience::within;
use netpold_tests::starting_container::{Flood, gate};
use netpold_tests::{Daemon, Engine, Lab, Wire, frames, snmp};
use nix::sys::signal::Signal;

/// Starts of containers: half of them beside a daemon that runs, a quarter each halted and dead.
fn starts() -> Result<u32> {
    match std::env::var("NPD_STARTS") {
        Ok(number) => number.parse().context("NPD_STARTS is a whole number"),
        Err(_) => Ok(20),
    }
}

const SHUT: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shut, namespace: shop}\n\
    spec: {podSelector: {matchLabels: {app: new}}, policyTypes: [Ingress, Egress]}\n";

/// A network's bridge by a name of its own is known before a container is on it, and at the next boot.
#[test]
fn a_bridge_without_containers_is_gated() -> Result<()> {
    let lab = Lab::new()?;
    lab.plain_bridge()?;
    let engine = Engine::start(&lab, &[])?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    let config = daemon.config();
    let installed = gate(&lab, &config, "install")?;
    if !installed.contains("by bridge") {
        // This kernel's gate goes by names of interfaces.
        return Ok(());
    }
    let has_it = || -> Result<bool> {
        let status = gate(&lab, &config, "status")?;
        let bridges = status
            .lines()
            .find(|line| line.starts_with("further bridges"));
        Ok(bridges.is_some_and(|line| line.split(' ').any(|word| word == "shop")))
    };
    daemon.launch()?;
    daemon.wait()?;
    let named = ["--opt", "com.docker.network.bridge.name=shop", "shop"];
    engine.docker(&[&["network", "create"], &named[..]].concat())?;
    within("gated", has_it)?;
    // As at a boot, in which nothing is there yet.
    daemon.stop()?;
    gate(&lab, &config, "release")?;
    gate(&lab, &config, "install")?;
    ensure!(has_it()?, "{}", gate(&lab, &config, "status")?);
    engine.run("first", &["--network", "shop"], &["ping", "10.0.0.1"])?;
    within("shut", || {
        let status = gate(&lab, &config, "status")?;
        Ok(!status.contains("dropped: 0 frames from"))
    })?;
    daemon.launch()?;
    daemon.wait()?;
    engine.docker(&["rm", "--force", "first"])?;
    engine.docker(&["network", "rm", "shop"])?;
    within("no longer there", || Ok(!has_it()?))
}

#[test]
fn containers_that_send_as_their_first_instruction() -> Result<()> {
    let lab = Lab::new()?;
    lab.plain_bridge()?;
    let engine = Engine::start(&lab, &[])?;
    engine.import_program(
        Path::new(env!("CARGO_BIN_EXE_first_packet_sender")),
        "first_packet_sender",
    )?;
    engine.docker(&["network", "create", "--subnet", "10.98.0.0/16", "shop"])?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    let config = daemon.config();
    daemon.put("shut.yaml", SHUT)?;
    gate(&lab, &config, "install")?;
    daemon.launch()?;
    let of_shop = [
        "--label",
        "com.docker.compose.project=shop",
        "--network",
        "shop",
    ];
    let peer = engine.run("peer", &of_shop, &["sleep", "100000"])?;
    daemon.wait()?;
    let at_peer = Wire::open_for_ipv4(&peer.netns(), "eth0")?;
    let own = at_peer.mac;
    let address = *peer.addresses.first().context("no address")?;
    let IpAddr::V4(source) = address else {
        anyhow::bail!("{address} is of IPv6");
    };
    // The peer may send: what it sends is for the new containers' policy. No Pod sends to it.
    let start = |number: u32| -> Result<(u32, Flood)> {
        let [.., high, low] = (number + 256).to_be_bytes();
        let ip = Ipv4Addr::new(10, 98, high, low);
        let udp = frames::real_udp((address, ip.into()), (7777, 7777), b"first");
        let packet = frames::sealed_ipv4(frames::ipv4(source.octets(), ip.octets(), 17, &udp));
        // Its MAC address is the engine's secret until then; its kernel takes what is for all, too.
        let frame = frames::ethernet(own, [0xff; 6], 0x0800, &packet);
        // Some thousand a second: the engine shares these processors.
        let flood = Flood::start(&peer.netns(), frame, Duration::from_micros(200));
        let (name, ip) = (format!("new-{number}"), ip.to_string());
        let mut all = vec!["run", "--detach", "--name", &name, "--ip", &ip];
        all.extend(of_shop);
        let peer = address.to_string();
        all.extend([
            "--label",
            "app=new",
            "first_packet_sender",
            "/program",
            "239.1.2.3",
            &peer,
            "7777",
        ]);
        engine.docker(&all)?;
        Ok((engine.inspect(&name)?.pid, flood))
    };
    // The bridge's own kernel reports the groups that it has joined to all its ports, at a time of its choice (RFC 3376,
    // section 4.2.14; net/bridge/br_multicast.c, `br_ip4_multicast_join_snoopers`).
    let is_bridges_report = |frame: &[u8]| {
        const IGMP: u8 = 2;
        let packet = frame.get(14..).unwrap_or_default();
        packet.get(9) == Some(&IGMP) && packet.get(12..16) == Some(&[10, 98, 0, 1])
    };
    let arrived_at_peer = || -> Result<Vec<Vec<u8>>> {
        let mut frames = at_peer.seen()?;
        frames.retain(|frame| !is_bridges_report(frame));
        Ok(frames)
    };
    let many = starts()?;
    // No new container sent what is there already.
    arrived_at_peer()?;
    let (halted, dead) = (many / 2, many * 3 / 4);
    for number in 0..many {
        if number == halted {
            daemon.signal(Signal::SIGSTOP)?;
        }
        if number == dead {
            daemon.signal(Signal::SIGCONT)?;
            daemon.kill()?;
        }
        let (pid, flood) = start(number)?;
        within("a container that sends", || {
            Ok(snmp::read(pid, "Udp", "OutDatagrams")? > 100)
        })
        .with_context(|| format!("start {number}"))?;
        ensure!(flood.sent() > 100, "no client dials it");
        sleep(Duration::from_millis(250));
        // Of what is sent to it; its own kernel tells it by ICMP whom it could not reach.
        let arrived = snmp::read(pid, "Udp", "NoPorts")?;
        let left = arrived_at_peer()?;
        ensure!(
            left.is_empty() && arrived == 0,
            "start {number}: these packets left: {left:02x?}; {arrived} arrived\n{}",
            daemon.log()
        );
        drop(flood);
        engine.docker(&["rm", "--force", &format!("new-{number}")])?;
    }
    // What it was kept from.
    daemon.launch()?;
    daemon.remove("shut.yaml")?;
    daemon.wait()?;
    let (pid, _flood) = start(many)?;
    within("allowed", || {
        Ok(snmp::read(pid, "Ip", "InReceives")? > 0 && !arrived_at_peer()?.is_empty())
    })
}
