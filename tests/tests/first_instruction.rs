//! From the first packet, by Docker, Podman and containerd: containers whose first instruction sends, and which are dialled
//! from the instant in which they have an interface, with the daemon running, halted and killed. Needs root, the engines and
//! busybox. `NPD_STARTS` is how many of each engine (1000 take a quarter of an hour to half an hour).
//!
//! The kernel of a new container's network namespace counts what arrives there; a packet socket shows what arrives at its peer.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpold_tests::docker::Running;
use netpold_tests::starting_container::{Flood, gate};
use netpold_tests::time_scale::within;
use netpold_tests::{Containerd, Daemon, Engine, Lab, Wire, frames, snmp};
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

/// An engine whose containers start here.
trait Starts {
    /// Its sockets, as the daemon follows them: Docker's protocol, containerd's.
    fn followed(&self) -> (Option<PathBuf>, Option<PathBuf>);
    /// A network of 10.98.0.0/16, whose bridge has 10.98.0.1, and a container on it that does nothing.
    fn peer(&self) -> Result<Running>;
    /// The address of the container that starts as this one: 0, 1, …
    fn address(&self, number: u32) -> Ipv4Addr;
    /// Starts that container, which the policy selects and whose first instruction sends to this peer.
    fn start(&self, number: u32, peer: &str) -> Result<Running>;
    fn remove(&self, number: u32) -> Result<()>;
}

/// Of Docker's protocol: the address is chosen for each container.
impl Starts for Engine {
    fn followed(&self) -> (Option<PathBuf>, Option<PathBuf>) {
        (Some(self.socket()), None)
    }

    fn peer(&self) -> Result<Running> {
        self.import_program(Path::new(SENDER), "first_packet_sender")?;
        self.docker(&["network", "create", "--subnet", "10.98.0.0/16", "shop"])?;
        self.run("peer", &OF_SHOP, &["sleep", "100000"])
    }

    fn address(&self, number: u32) -> Ipv4Addr {
        let [.., high, low] = (number + 256).to_be_bytes();
        Ipv4Addr::new(10, 98, high, low)
    }

    fn start(&self, number: u32, peer: &str) -> Result<Running> {
        let (name, ip) = (format!("new-{number}"), self.address(number).to_string());
        let mut all = vec!["run", "--detach", "--name", &name, "--ip", &ip];
        all.extend(OF_SHOP);
        all.extend(["--label", "app=new", "first_packet_sender"]);
        all.extend(["/program", GROUP, peer, "7777"]);
        self.docker(&all)?;
        self.inspect(&name)
    }

    fn remove(&self, number: u32) -> Result<()> {
        self.docker(&["rm", "--force", &format!("new-{number}")])?;
        Ok(())
    }
}

/// With CNI's `host-local`, which gives one address after the other.
impl Starts for Containerd {
    fn followed(&self) -> (Option<PathBuf>, Option<PathBuf>) {
        (None, Some(self.socket()))
    }

    fn peer(&self) -> Result<Running> {
        let ipam =
            serde_json::json!({"type": "host-local", "ranges": [[{"subnet": "10.98.0.0/16"}]]});
        let bridge = serde_json::json!({"type": "bridge", "bridge": "shop", "isGateway": true, "ipam": ipam});
        self.network("shop", &serde_json::json!([bridge]))?;
        let options = ["--cni", "--label", "netpold.io/namespace=shop"];
        self.run("default", "peer", &options, &["sleep", "100000"])
    }

    fn address(&self, number: u32) -> Ipv4Addr {
        // The bridge has the first one, the peer the second.
        let [.., high, low] = (number + 3).to_be_bytes();
        Ipv4Addr::new(10, 98, high, low)
    }

    fn start(&self, number: u32, peer: &str) -> Result<Running> {
        let labels = ["netpold.io/namespace=shop", "app=new"];
        let command = [GROUP, peer, "7777"];
        self.run_program(
            &format!("new-{number}"),
            &labels,
            Path::new(SENDER),
            &command,
        )
    }

    fn remove(&self, number: u32) -> Result<()> {
        self.remove("default", &format!("new-{number}"))
    }
}

const SENDER: &str = env!("CARGO_BIN_EXE_first_packet_sender");
/// A group that no other sender of the network has.
const GROUP: &str = "239.1.2.3";
const OF_SHOP: [&str; 4] = [
    "--label",
    "com.docker.compose.project=shop",
    "--network",
    "shop",
];

#[test]
fn containers_of_docker_that_send_as_their_first_instruction() -> Result<()> {
    let lab = Lab::new()?;
    lab.plain_bridge()?;
    let engine = Engine::start(&lab, &[])?;
    nothing_leaves(&lab, &engine)
}

#[test]
fn containers_of_podman_that_send_as_their_first_instruction() -> Result<()> {
    let lab = Lab::new()?;
    lab.plain_bridge()?;
    let engine = Engine::start_podman(&lab)?;
    nothing_leaves(&lab, &engine)
}

#[test]
fn containers_of_containerd_that_send_as_their_first_instruction() -> Result<()> {
    let lab = Lab::new()?;
    lab.plain_bridge()?;
    let engine = Containerd::start(&lab)?;
    nothing_leaves(&lab, &engine)
}

fn nothing_leaves(lab: &Lab, engine: &dyn Starts) -> Result<()> {
    let (docker, containerd) = engine.followed();
    let mut daemon = Daemon::prepare_following(lab, docker.as_deref(), containerd.as_deref(), "")?;
    let config = daemon.config();
    daemon.put("shut.yaml", SHUT)?;
    gate(lab, &config, "install")?;
    daemon.launch()?;
    let peer = engine.peer()?;
    daemon.wait()?;
    let at_peer = Wire::open_for_ipv4(&peer.netns(), "eth0")?;
    let own = at_peer.mac;
    let address = *peer.addresses.first().context("no address")?;
    let IpAddr::V4(source) = address else {
        anyhow::bail!("{address} is of IPv6");
    };
    // The peer may send: what it sends is for the new containers' policy. No Pod sends to it.
    let start = |number: u32| -> Result<(u32, Flood)> {
        let ip = engine.address(number);
        let udp = frames::real_udp((address, ip.into()), (7777, 7777), b"first");
        let packet = frames::sealed_ipv4(frames::ipv4(source.octets(), ip.octets(), 17, &udp));
        // Its MAC address is the engine's secret until then; its kernel takes what is for all, too.
        let frame = frames::ethernet(own, [0xff; 6], 0x0800, &packet);
        // Some thousand a second: the engine shares these processors.
        let flood = Flood::start(&peer.netns(), frame, Duration::from_micros(200));
        let started = engine.start(number, &address.to_string())?;
        ensure!(
            started.addresses == [IpAddr::V4(ip)],
            "start {number}: {:?}, and {ip} is dialled",
            started.addresses
        );
        Ok((started.pid, flood))
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
        // A port of Podman's bridges gets its own broadcasts back (`hairpinMode` of CNI).
        frames.retain(|frame| !is_bridges_report(frame) && frame.get(6..12) != Some(&own[..]));
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
        // Of what is sent to it; its own kernel tells it by ICMP what it could not reach.
        let arrived = snmp::read(pid, "Udp", "NoPorts")?;
        let left = arrived_at_peer()?;
        ensure!(
            left.is_empty() && arrived == 0,
            "start {number}: {} packets left, the first of them {:02x?}; {arrived} arrived\n{}",
            left.len(),
            left.first(),
            daemon.log()
        );
        drop(flood);
        engine.remove(number)?;
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
