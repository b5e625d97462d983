//! What the configuration changes, on real packets: audit, the host under policy, established
//! connections kept; a flood, an endpoint's first packets, and the way out. Needs root.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpol_abi::packet::tcp::SYN;
use netpold::netns;
use netpold_tests::lab::Pod;
use netpold_tests::{Daemon, Lab, Wire, frames, residue, scaled};

const PORT: u16 = 5432;
/// A port is free again by then.
const FREED: Duration = Duration::from_secs(5);
/// How long the next count of the connections may take.
const SWEPT: Duration = Duration::from_secs(10);
const HOST: &str = "10.77.0.1";

/// No Pod may reach `db/store`.
const SHUT: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
    metadata: {name: shut, namespace: db}\nspec: {podSelector: {matchLabels: {app: store}}, policyTypes: [Ingress, Egress]}\n";

fn lab() -> Result<Lab> {
    let mut lab = Lab::new()?;
    for (number, name) in ["web/front", "db/store", "db/other"].iter().enumerate() {
        lab.add_pod(name, &[format!("10.77.1.{}/16", number + 1).parse()?])?;
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

fn bound(namespace: &Path, address: IpAddr, port: u16) -> Result<UdpSocket> {
    let address = SocketAddr::new(address, port);
    let begun = Instant::now();
    let socket = loop {
        match netns::inside(namespace, || UdpSocket::bind(address))? {
            // A child that another test starts has all our sockets until it is another program.
            Err(error) if error.kind() == ErrorKind::AddrInUse && begun.elapsed() < FREED => {
                std::thread::yield_now();
            }
            bound => break bound?,
        }
    };
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(socket)
}

/// Does a datagram between these get there, and its answer back?
fn speak(from: (&Path, IpAddr), to: (&Path, IpAddr)) -> Result<bool> {
    let server = bound(to.0, to.1, PORT)?;
    let client = bound(from.0, from.1, 0)?;
    client.connect(server.local_addr()?)?;
    client.send(b"?")?;
    let timed_out = |error: &std::io::Error| error.kind() == ErrorKind::WouldBlock;
    match server.recv_from(&mut [0; 8]) {
        Ok((_, client)) => server.send_to(b"!", client)?,
        Err(error) if timed_out(&error) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    client.recv(&mut [0; 8]).context("the answer is lost")?;
    Ok(true)
}

fn pods_speak(lab: &Lab, from: &str, to: &str) -> Result<bool> {
    let (from, to) = (lab.pod(from)?, lab.pod(to)?);
    speak(
        (&from.namespace.path(), from.addresses[0]),
        (&to.namespace.path(), to.addresses[0]),
    )
}

#[test]
fn audit_drops_nothing_and_reports() -> Result<()> {
    let lab = lab()?;
    let daemon = daemon(
        &lab,
        &[("shut.yaml", SHUT)],
        "[enforcement]\nmode = \"audit\"\n",
    )?;
    ensure!(pods_speak(&lab, "web/front", "db/store")?);
    ensure!(pods_speak(&lab, "db/store", "db/other")?);
    let flows = daemon.netpol(&["observe", "-o", "json"])?;
    let text = String::from_utf8_lossy(&flows.stdout);
    ensure!(
        text.contains("AUDIT") && text.contains("\"front\"") && text.contains("shut"),
        "{text}"
    );
    Ok(())
}

#[test]
fn the_host_is_a_peer_when_the_configuration_says_so() -> Result<()> {
    let lab = lab()?;
    let host = (lab.host().path(), HOST.parse::<IpAddr>()?);
    let store = lab.pod("db/store")?;
    let pod = (store.namespace.path(), store.addresses[0]);
    let (host, pod) = ((&*host.0, host.1), (&*pod.0, pod.1));
    let both = |settings| -> Result<(bool, bool)> {
        let _daemon = daemon(&lab, &[("shut.yaml", SHUT)], settings)?;
        Ok((speak(host, pod)?, speak(pod, host)?))
    };
    ensure!(both("")? == (true, true), "the host and its own Pod");
    ensure!(both("[host]\ningress = \"policy\"\n")? == (false, true));
    ensure!(both("[host]\negress = \"policy\"\n")? == (true, false));
    Ok(())
}

#[test]
fn established_connections_are_kept_when_the_configuration_says_so() -> Result<()> {
    let lab = lab()?;
    let daemon = daemon(&lab, &[], "[enforcement]\nestablished = \"keep\"\n")?;
    let (front, store) = (lab.pod("web/front")?, lab.pod("db/store")?);
    let address = SocketAddr::new(store.addresses[0], PORT);
    let listener = netns::inside(&store.namespace.path(), || TcpListener::bind(address))??;
    let mut client = netns::inside(&front.namespace.path(), || TcpStream::connect(address))??;
    let (mut server, _) = listener.accept()?;
    server.set_read_timeout(Some(Duration::from_secs(3)))?;
    daemon.put("shut.yaml", SHUT)?;
    daemon.wait()?;
    client.write_all(b"x")?;
    server.read_exact(&mut [0]).context("it was cut")?;
    ensure!(!pods_speak(&lab, "web/front", "db/store")?, "a new one");
    Ok(())
}

#[test]
fn uninstall_opens_and_leaves_nothing() -> Result<()> {
    let lab = lab()?;
    let mut daemon = daemon(&lab, &[("shut.yaml", SHUT)], "")?;
    ensure!(!pods_speak(&lab, "web/front", "db/store")?);
    let uninstall = |daemon: &Daemon| {
        let config = daemon.config();
        let config = config.to_string_lossy().into_owned();
        let path = lab.host().path();
        netns::inside(&path, || daemon.netpol(&["uninstall", "--config", &config]))
    };
    let refused = uninstall(&daemon)??;
    ensure!(refused.status.code() == Some(2), "{refused:?}");
    ensure!(
        !pods_speak(&lab, "web/front", "db/store")?,
        "a daemon runs, and enforcement is off"
    );
    daemon.stop()?;
    ensure!(!pods_speak(&lab, "web/front", "db/store")?);
    let done = uninstall(&daemon)??;
    ensure!(done.status.success(), "{done:?}");
    ensure!(!daemon.pins().exists(), "pins are left");
    ensure!(pods_speak(&lab, "web/front", "db/store")?);
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

#[test]
fn a_flood_harms_no_other_endpoint() -> Result<()> {
    let lab = lab()?;
    let daemon = daemon(
        &lab,
        &[(
            "open.yaml",
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: out, namespace: db}\n\
             spec: {podSelector: {matchLabels: {app: other}}, policyTypes: [Egress], egress: [{ports: [{port: 5432}]}]}\n",
        )],
        "",
    )?;
    let (other, store) = (lab.pod("db/other")?, lab.pod("db/store")?);
    let wire = Wire::open(other)?;
    let target = Wire::open(store)?.mac;
    let (IpAddr::V4(from), IpAddr::V4(to)) = (other.addresses[0], store.addresses[0]) else {
        anyhow::bail!("IPv4 is expected");
    };
    // Many more than a share, each a connection of its own, as far as there are ports.
    for number in 0..120_000_u32 {
        let octets = number.to_be_bytes();
        let destination = if number < 60_000 {
            to.octets()
        } else {
            [10, 77, 200, 1]
        };
        let port = u16::from_be_bytes([octets[2], octets[3]]);
        let segment = frames::tcp(port, PORT, SYN);
        let packet = frames::ipv4(from.octets(), destination, 6, &segment);
        let frame = frames::ethernet(wire.mac, target, 0x0800, &packet);
        wire.send(&frame)?;
    }
    ensure!(
        pods_speak(&lab, "web/front", "db/store")?,
        "{}",
        daemon.log()
    );
    // What the flood took is seen in the status.
    let begun = Instant::now();
    loop {
        let status = daemon.netpol(&["status", "-o", "json"])?;
        ensure!(status.status.success(), "{status:?}");
        let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
        let tables = status["tables"].as_array().context("no tables")?;
        let flows = tables.iter().find(|table| table["name"] == "FLOWS4");
        let used = flows.context("no FLOWS4")?["used"].as_u64();
        if used.is_some_and(|used| used > 50_000) {
            return Ok(());
        }
        // What is counted is as of the last sweep.
        ensure!(begun.elapsed() < scaled(SWEPT), "{status}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_pod_that_comes_later_never_sends_what_is_denied() -> Result<()> {
    let mut lab = lab()?;
    let daemon = daemon(
        &lab,
        &[(
            "mute.yaml",
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: mute, namespace: web}\n\
             spec: {podSelector: {matchLabels: {app: late}}, policyTypes: [Egress]}\n",
        )],
        "",
    )?;
    // Declared before its interface has an address: from its first word it is known.
    let address = SocketAddr::new(lab.pod("db/store")?.addresses[0], PORT);
    let server = bound(&lab.pod("db/store")?.namespace.path(), address.ip(), PORT)?;
    lab.add_pod("web/late", &[])?;
    let late = lab.pod("web/late")?;
    declare(&daemon, late)?;
    daemon.wait()?;
    late.namespace
        .ip(&["addr", "add", "10.77.1.9/16", "dev", "eth0"])?;
    let client = bound(&late.namespace.path(), "10.77.1.9".parse()?, 0)?;
    for _ in 0..2000 {
        client.send_to(b"first", address)?;
    }
    daemon.wait()?;
    client.send_to(b"last", address)?;
    ensure!(server.recv(&mut [0; 8]).is_err(), "it was heard");
    Ok(())
}
