//! How an isolated Pod comes by its addresses: duplicate address detection and router
//! advertisements of a real kernel's, and a lease of a real DHCP client's. Needs root.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpold::netns;
use netpold_tests::lab::Namespace;
use netpold_tests::{Daemon, Family, Lab, Wire, frames, residue, sockets};

const PORT: u16 = 5432;
/// Three waits of detection, a second each and one more at most, and what it takes to look.
const DETECTED: Duration = Duration::from_secs(10);

/// Nothing may enter or leave these Pods but datagrams from front to store.
const SHUT: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shut, namespace: web}\n\
    spec:\n  podSelector: {}\n  policyTypes: [Ingress, Egress]\n  egress:\n  \
    - to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: store}}}]\n    \
    ports: [{protocol: UDP, port: 5432}]\n\
    ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shut, namespace: db}\n\
    spec:\n  podSelector: {}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  \
    - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}]\n    \
    ports: [{protocol: UDP, port: 5432}]\n";

/// The lines of `ip addr` that name this address, once it is no longer tentative.
fn detected(namespace: &Namespace, address: &str) -> Result<String> {
    let begun = Instant::now();
    loop {
        let shown = namespace.ip(&["-6", "-o", "addr", "show", "dev", "eth0"])?;
        let line = shown.lines().find(|line| line.contains(address));
        match line {
            Some(line) if !line.contains("tentative") || line.contains("dadfailed") => {
                return Ok(line.to_owned());
            }
            _ => ensure!(
                begun.elapsed() < DETECTED,
                "{address} is not there: {shown}"
            ),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn speaks(lab: &Lab, from: IpAddr, to: IpAddr) -> Result<bool> {
    let (front, store) = (lab.pod("web/front")?, lab.pod("db/store")?);
    let server = sockets::udp(&store.namespace.path(), to, PORT)?;
    let client = sockets::udp(&front.namespace.path(), from, 0)?;
    client.send_to(b"hello", (to, PORT))?;
    Ok(sockets::heard(&server, sockets::scaled())?.is_some())
}

#[test]
fn duplicates_are_detected() -> Result<()> {
    let lab = Lab::with_pods(&["web/front", "db/store"])?;
    let neighbour = neighbour(&lab, "near0")?;
    let add = ["addr", "add", "fd77::78/64", "dev", "eth0", "nodad"];
    neighbour.ip(&add)?;
    let daemon = Daemon::enforcing(&lab, &[("shut.yaml", SHUT)], "")?;
    let (front, store) = (lab.pod("web/front")?, lab.pod("db/store")?);
    // The first question may be too early for the daemon to know the address as the Pod's.
    store.namespace.set("ipv6/conf/eth0/dad_transmits", "3")?;
    for (address, taken) in [("fd77::77/64", false), ("fd77::78/64", true)] {
        let add = ["addr", "add", address, "dev", "eth0"];
        store.namespace.ip(&add)?;
        let line = detected(&store.namespace, address)?;
        ensure!(line.contains("dadfailed") == taken, "{line}");
    }
    daemon.wait()?;
    ensure!(
        speaks(&lab, front.address(Family::V6)?, "fd77::77".parse()?)?,
        "at the new address nothing is heard\n{}",
        daemon.log()
    );
    Ok(())
}

/// Store is heard by a stranger alone, and may open nothing.
const STRANGER: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shut, namespace: db}\n\
    spec:\n  podSelector: {}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  \
    - from: [{ipBlock: {cidr: '2001:db8:0:1::9/128'}}]\n    ports: [{protocol: UDP, port: 5432}]\n";

/// How often a stranger asks, every quarter of a second: through several life times of what the kernels
/// know of each other.
const QUESTIONS: u32 = 80;

/// On the bridge there are others with addresses of a routed prefix. An isolated Pod answers their
/// solicitations, and asks whether they are still there, as long as they speak.
#[test]
fn strangers_on_the_link_find_the_isolated_and_are_found() -> Result<()> {
    let lab = Lab::with_pods(&["web/front", "db/store"])?;
    let stranger = neighbour(&lab, "near0")?;
    let store = &lab.pod("db/store")?.namespace;
    stranger.ip(&["addr", "add", "2001:db8:0:1::9/64", "dev", "eth0", "nodad"])?;
    store.ip(&["addr", "add", "2001:db8:0:1::2/64", "dev", "eth0", "nodad"])?;
    let metrics = "[metrics]\nlisten = \"127.0.0.1:9469\"\n";
    let daemon = Daemon::enforcing(&lab, &[("shut.yaml", STRANGER)], metrics)?;
    daemon.wait()?;
    // What a kernel has heard it believes for one to three seconds, not half a minute.
    for namespace in [&stranger, store] {
        namespace.set("ipv6/neigh/eth0/base_reachable_time_ms", "2000")?;
        namespace.set("ipv6/neigh/eth0/delay_first_probe_time", "1")?;
        namespace.ip(&["neigh", "flush", "all"])?;
    }
    let (theirs, ours): (IpAddr, IpAddr) = ("2001:db8:0:1::9".parse()?, "2001:db8:0:1::2".parse()?);
    let server = sockets::udp(&store.path(), ours, PORT)?;
    let client = sockets::udp(&stranger.path(), theirs, 0)?;
    let mut states = BTreeSet::new();
    for number in 0..QUESTIONS {
        client.send_to(&number.to_be_bytes(), (ours, PORT))?;
        let (question, from) = sockets::heard(&server, sockets::scaled())?
            .with_context(|| format!("question {number} is not heard\n{}", daemon.log()))?;
        server.send_to(&question, from)?;
        let answer = sockets::heard(&client, sockets::scaled())?;
        ensure!(
            answer.is_some_and(|(answer, _)| answer == question),
            "question {number} is not answered\n{}",
            daemon.log()
        );
        for (namespace, who) in [(&stranger, "2001:db8:0:1::2"), (store, "2001:db8:0:1::9")] {
            let known = namespace.ip(&["-6", "neigh", "show", who])?;
            let state = known.split_whitespace().last().unwrap_or("NONE");
            states.insert(state.to_owned());
        }
        thread::sleep(Duration::from_millis(250));
    }
    for expected in ["REACHABLE", "DELAY"] {
        ensure!(states.contains(expected), "never {expected}: {states:?}");
    }
    ensure!(
        !states.contains("FAILED") && !states.contains("INCOMPLETE"),
        "{states:?}\n{}",
        daemon.log()
    );
    let denied =
        "netpold_packets_total{reason=\"policy-denied\",direction=\"egress\",verdict=\"dropped\"}";
    let denied = daemon.metrics()?.get(denied).copied().unwrap_or(0);
    ensure!(denied == 0, "{denied} packets of the Pods are denied");
    // To a stranger that was never heard nothing goes, on the link or beyond it.
    let wire = Wire::open(lab.pod("db/store")?)?;
    let near = Wire::open_on(&stranger, "eth0")?;
    let own: Ipv6Addr = "2001:db8:0:1::2".parse()?;
    let other: Ipv6Addr = "2001:db8:0:1::a".parse()?;
    let message = frames::icmp(136, 0, [0x60, 0, 0, 0], &own.octets());
    let packet = frames::ipv6(own.octets(), other.octets(), 58, 255, &message);
    let forged = frames::ethernet(wire.mac, near.mac, 0x86dd, &packet);
    wire.send(&forged)?;
    let store_v4 = match lab.pod("db/store")?.address(Family::V4)? {
        IpAddr::V4(v4) => v4.octets(),
        IpAddr::V6(_) => [0; 4],
    };
    let last = frames::arp(1, wire.mac, store_v4, [10, 77, 0, 1]);
    let last = frames::ethernet(wire.mac, near.mac, 0x0806, &last);
    wire.send(&last)?;
    let seen = near.until(&last)?;
    ensure!(
        !seen.contains(&forged),
        "an answer without a question arrives"
    );
    let name = lab.name.clone();
    drop((daemon, lab));
    drop(stranger);
    residue::check(&name)
}

/// A namespace on the Pods' bridge that is no endpoint's.
fn neighbour(lab: &Lab, interface: &str) -> Result<Namespace> {
    let namespace = lab.namespace(interface)?;
    let host = lab.host();
    let veth = ["link", "add", interface, "type", "veth"];
    let peer = ["peer", "name", "eth0", "netns", namespace.name()];
    host.ip(&[&veth[..], &peer].concat())?;
    host.ip(&["link", "set", interface, "master", "br0", "up"])?;
    namespace.ip(&["link", "set", "eth0", "up"])?;
    Ok(namespace)
}

/// A router's advertisement of a prefix for every host on the link.
fn advertisement(router: &Wire, prefix: Ipv6Addr) -> Result<Vec<u8>> {
    let source = link_local(router)?.octets();
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    // Lifetimes in seconds: on the link, and good for addresses of one's own.
    let mut body = vec![3, 4, 64, 0xc0, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0];
    body.extend(prefix.octets());
    body.extend([1, 1]);
    body.extend(router.mac);
    // Hop limit 64, no flags, a default router for half an hour.
    let message = frames::icmp(134, 0, [64, 0, 7, 8], &[&[0; 8][..], &body].concat());
    let message = frames::sealed_icmpv6(&source, &all_nodes, message);
    let packet = frames::ipv6(source, all_nodes, 58, 255, &message);
    let to_all = [0x33, 0x33, 0, 0, 0, 1];
    Ok(frames::ethernet(router.mac, to_all, 0x86dd, &packet))
}

fn link_local(wire: &Wire) -> Result<Ipv6Addr> {
    let [a, b, c, d, e, f] = wire.mac;
    format!(
        "fe80::{:x}:{:x}:{:x}:{:x}",
        u16::from_be_bytes([a ^ 2, b]),
        u16::from_be_bytes([c, 0xff]),
        u16::from_be_bytes([0xfe, d]),
        u16::from_be_bytes([e, f])
    )
    .parse()
    .context("a link-local address")
}

#[test]
fn a_router_is_asked_and_its_prefix_taken() -> Result<()> {
    let lab = Lab::with_pods(&["web/front", "db/store"])?;
    let daemon = Daemon::enforcing(&lab, &[("shut.yaml", SHUT)], "")?;
    let router = Wire::open_on(lab.host(), "br0")?;
    let pods = [lab.pod("web/front")?, lab.pod("db/store")?];
    // What a Pod does whose link comes up.
    for pod in pods {
        pod.namespace.ip(&["link", "set", "eth0", "down"])?;
        pod.namespace.ip(&["link", "set", "eth0", "up"])?;
        let mac = Wire::open(pod)?.mac;
        let asks = |frame: &[u8]| {
            frame.get(6..14) == Some(&[&mac[..], &[0x86, 0xdd]].concat())
                && frame.get(54) == Some(&133)
        };
        router.until_one_is(asks).context("no router was asked")?;
    }
    router.send(&advertisement(&router, "fd78::".parse()?)?)?;
    let mut own = Vec::new();
    for pod in pods {
        let line = detected(&pod.namespace, "fd78:")?;
        ensure!(line.contains("dynamic"), "{line}");
        let address = line.split_whitespace().find_map(|word| {
            let (address, _) = word.split_once("/64")?;
            address.parse::<IpAddr>().ok()
        });
        own.push(address.with_context(|| line.clone())?);
        let routes = pod.namespace.ip(&["-6", "route", "show", "default"])?;
        ensure!(routes.contains("proto ra"), "{routes}");
    }
    daemon.wait()?;
    ensure!(
        speaks(&lab, own[0], own[1])?,
        "from {} nothing is heard at {}\n{}",
        own[0],
        own[1],
        daemon.log()
    );
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

/// A DHCP server on the Pods' bridge.
struct Server {
    child: Child,
    directory: tempfile::TempDir,
    /// Where it runs, if that is no endpoint's.
    namespace: Option<Namespace>,
}

impl Server {
    /// One that another host on the link runs.
    fn beside(lab: &Lab) -> Result<Self> {
        let namespace = neighbour(lab, "dhcp0")?;
        namespace.ip(&["addr", "add", "10.77.0.67/16", "dev", "eth0"])?;
        let mut server = Self::start(&namespace.path())?;
        server.namespace = Some(namespace);
        Ok(server)
    }

    /// Its leases begin at `10.77.9.1`.
    fn start(namespace: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("npd-dhcp-").tempdir()?;
        let root = directory.path().display();
        let config = directory.path().join("udhcpd.conf");
        fs::write(directory.path().join("leases"), "")?;
        fs::write(
            &config,
            format!(
                "start 10.77.9.1\nend 10.77.9.9\ninterface eth0\nlease_file {root}/leases\n\
                 pidfile {root}/pid\noption subnet 255.255.0.0\noption lease 600\n"
            ),
        )?;
        let mut command = Command::new("busybox");
        command
            .args(["udhcpd", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = netns::inside(namespace, move || command.spawn())?
            .context("can't run busybox: its udhcpd is needed")?;
        Ok(Self {
            child,
            directory,
            namespace: None,
        })
    }

    /// A lease for the Pod behind this namespace, and its address configured; false: none is
    /// to be had.
    fn leases_to(&self, namespace: &Path) -> Result<bool> {
        let script = self.directory.path().join("script");
        fs::write(
            &script,
            "#!/bin/sh\n[ \"$1\" != bound ] || exec ip addr add \"$ip/16\" dev \"$interface\"\n",
        )?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        let mut command = Command::new("busybox");
        command
            .args([
                "udhcpc", "-f", "-q", "-n", "-i", "eth0", "-t", "3", "-T", "1", "-s",
            ])
            .arg(&script)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let status = netns::inside(namespace, move || command.status())?
            .context("can't run busybox: its udhcpc is needed")?;
        Ok(status.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, or does now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Pod without addresses comes by one, and speaks under it as its policy says.
fn a_lease(policies: &[(&str, &str)]) -> Result<()> {
    let mut lab = Lab::with_pods(&[])?;
    lab.add_pod("web/front", &[])?;
    lab.add_pod("db/store", &["10.77.1.2/16".parse()?])?;
    let server = Server::beside(&lab)?;
    let daemon = Daemon::enforcing(&lab, policies, "")?;
    let front = lab.pod("web/front")?;
    ensure!(
        server.leases_to(&front.namespace.path())?,
        "no lease\n{}",
        daemon.log()
    );
    let shown = front
        .namespace
        .ip(&["-4", "-o", "addr", "show", "dev", "eth0"])?;
    ensure!(shown.contains("10.77.9."), "{shown}");
    daemon.wait()?;
    let address = shown.split_whitespace().find_map(|word| {
        let (address, _) = word.split_once("/16")?;
        address.parse::<IpAddr>().ok()
    });
    let address = address.context("an address")?;
    ensure!(
        speaks(&lab, address, "10.77.1.2".parse()?)?,
        "under its leased address it is not heard\n{}",
        daemon.log()
    );
    drop(server);
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

#[test]
fn an_endpoint_that_no_policy_isolates_has_its_lease() -> Result<()> {
    a_lease(&[])
}

#[test]
fn the_isolated_have_their_lease() -> Result<()> {
    a_lease(&[("shut.yaml", SHUT)])
}

/// The host that answers a request for a lease becomes the client's router and resolver.
#[test]
fn no_pod_plays_the_server() -> Result<()> {
    for policies in [&[][..], &[("shut.yaml", SHUT)]] {
        let mut lab = Lab::with_pods(&[])?;
        lab.add_pod("web/front", &[])?;
        lab.add_pod("db/store", &["10.77.1.2/16".parse()?])?;
        let server = Server::start(&lab.pod("db/store")?.namespace.path())?;
        let _daemon = Daemon::enforcing(&lab, policies, "")?;
        let front = lab.pod("web/front")?.namespace.path();
        ensure!(!server.leases_to(&front)?, "a Pod has leased an address");
    }
    Ok(())
}
