//! `netpold.io/addresses`: a Pod that routes for a network behind it, without translation, and two Pods that take turns
//! with one virtual address as keepalived moves it. On real bridges, under the daemon. Needs root.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpold_tests::lab::Namespace;
use netpold_tests::wire::Wire;
use netpold_tests::{Daemon, Lab, frames, residue, sockets};

const PORT: u16 = 5432;
/// What gets there takes milliseconds.
const SOON: Duration = Duration::from_millis(300);

/// The router, and what is behind it: a host that no engine knows, in networks of its own.
const ROUTER: [&str; 2] = ["10.77.1.1", "fd77::11"];
const INNER: [&str; 2] = ["10.99.0.1", "fd99::1"];
const BEHIND: [&str; 2] = ["10.99.0.5", "fd99::5"];
const NETWORKS: [&str; 2] = ["10.99.0.0/24", "fd99::/64"];
/// Its neighbours: `db/store`, which knows the network behind the router as a block, and `web/foe`.
const STORE: [&str; 2] = ["10.77.1.2", "fd77::12"];
const FOE: [&str; 2] = ["10.77.1.3", "fd77::13"];

/// The router forwards between what is behind it and the store alone; the store speaks with that block alone.
const POLICIES: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: router, namespace: net}
spec:
  podSelector: {}
  ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: store}}}]}]
  egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: store}}}]}]
  policyTypes: [Ingress, Egress]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: store, namespace: db}
spec:
  podSelector: {}
  ingress: [{from: [{ipBlock: {cidr: 10.99.0.0/24}}, {ipBlock: {cidr: 'fd99::/64'}}]}]
  egress: [{to: [{ipBlock: {cidr: 10.99.0.0/24}}, {ipBlock: {cidr: 'fd99::/64'}}]}]
  policyTypes: [Ingress, Egress]
";

fn address(text: &str) -> Result<IpAddr> {
    Ok(text.parse()?)
}

fn give(namespace: &Namespace, device: &str, addresses: [&str; 2], bits: [u8; 2]) -> Result<()> {
    for (address, bits) in addresses.into_iter().zip(bits) {
        let own = format!("{address}/{bits}");
        let mut add = vec!["addr", "add", &own, "dev", device];
        if address.contains(':') {
            add.push("nodad");
        }
        namespace.ip(&add)?;
    }
    Ok(())
}

/// Writes the manifests of all Pods; those in `leaves` with what they may use beside their own.
fn declare(daemon: &Daemon, lab: &Lab, leaves: &[(&str, &str)]) -> Result<()> {
    for pod in lab.pods() {
        let app = pod.reference.rsplit('/').next().unwrap_or_default();
        let mut manifest: serde_json::Value =
            serde_json::from_str(&pod.manifest(&[("app", app)])?)?;
        if let Some((_, leave)) = leaves.iter().find(|(name, _)| *name == pod.reference) {
            manifest["metadata"]["annotations"]["netpold.io/addresses"] = (*leave).into();
        }
        let file = format!("pod-{}.json", pod.reference.replace('/', "-"));
        daemon.put(&file, &manifest.to_string())?;
    }
    Ok(())
}

/// Does a datagram get from one to the other at this address, and its answer back?
fn speaks(from: &Path, to: &Path, address: IpAddr, should: bool) -> Result<bool> {
    let timeout = if should { sockets::scaled() } else { SOON };
    let server = sockets::udp(to, address, PORT)?;
    let any: IpAddr = if address.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let client = sockets::udp(from, any, 0)?;
    client.connect(SocketAddr::new(address, PORT))?;
    // A send may be refused where an earlier one was answered by an error.
    let _ = client.send(b"?");
    let Some((_, asker)) = sockets::heard(&server, timeout)? else {
        return Ok(false);
    };
    server.send_to(b"!", asker)?;
    sockets::heard(&client, sockets::scaled())?.context("the answer is lost")?;
    Ok(true)
}

fn dropped(daemon: &Daemon) -> Result<String> {
    let flows = daemon.netpol(&["observe", "--verdict", "dropped"])?;
    Ok(String::from_utf8_lossy(&flows.stdout).into_owned())
}

/// Waits until all of these words stand in what was reported as dropped.
fn reported(daemon: &Daemon, words: &[&str]) -> Result<()> {
    let end = Instant::now() + sockets::scaled();
    loop {
        let flows = dropped(daemon)?;
        if words.iter().all(|word| flows.contains(word)) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{words:?} is not reported:\n{flows}");
        thread::sleep(SOON);
    }
}

#[test]
fn a_router_forwards_by_leave() -> Result<()> {
    let lab = Lab::with_pods(&["net/router", "db/store", "web/foe"])?;
    let behind = lab.namespace("behind")?;
    let router = &lab.pod("net/router")?.namespace;
    router.ip(&[
        "link",
        "add",
        "in0",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        behind.name(),
    ])?;
    give(router, "in0", INNER, [24, 64])?;
    router.ip(&["link", "set", "in0", "up"])?;
    give(&behind, "eth0", BEHIND, [24, 64])?;
    behind.ip(&["link", "set", "eth0", "up"])?;
    router.route_packets()?;
    let (store, foe) = (lab.pod("db/store")?, lab.pod("web/foe")?);
    for ((network, via), inner) in NETWORKS.into_iter().zip(ROUTER).zip(INNER) {
        store.namespace.ip(&["route", "add", network, "via", via])?;
        foe.namespace.ip(&["route", "add", network, "via", via])?;
        behind.ip(&["route", "add", "default", "via", inner])?;
    }
    let (store, foe) = (store.namespace.path(), foe.namespace.path());
    let mut daemon = Daemon::prepare(&lab, "")?;
    let all = NETWORKS.join(",");
    let leaves: [(&str, &str); 1] = [("net/router", &all)];
    declare(&daemon, &lab, &leaves)?;
    daemon.put("policies.yaml", POLICIES)?;
    daemon.launch()?;
    daemon.wait()?;
    let inner = behind.path();
    let expect = |daemon: &Daemon, forwards: bool, what: &str| -> Result<()> {
        for family in 0..2 {
            for (name, from, to, at, should) in [
                ("behind -> store", &inner, &store, STORE[family], forwards),
                ("behind -> foe", &inner, &foe, FOE[family], false),
                ("store -> behind", &store, &inner, BEHIND[family], forwards),
                ("foe -> behind", &foe, &inner, BEHIND[family], false),
            ] {
                let is = speaks(from, to, address(at)?, should)
                    .with_context(|| format!("{what}: {name} {at}"))?;
                ensure!(
                    is == should,
                    "{what}: {name} {at}: {is}\n{}\n{}",
                    dropped(daemon)?,
                    daemon.log()
                );
            }
        }
        Ok(())
    };
    expect(&daemon, true, "with leave")?;
    let shown = daemon.netpol(&["get", "pods", "-n", "net", "-o", "wide"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    ensure!(shown.contains("leave:10.99.0.0/24"), "{shown}");

    declare(&daemon, &lab, &[])?;
    daemon.settle()?;
    expect(&daemon, false, "without leave")?;
    reported(
        &daemon,
        &[
            "net/router(10.99.0.5)",
            "net/router([fd99::5])",
            "spoofed-address",
            "not-for-endpoint",
        ],
    )?;

    // So short a prefix is for a router of all the world, and is said.
    declare(&daemon, &lab, &[("net/router", "0.0.0.0/0,::/0")])?;
    daemon.settle()?;
    expect(&daemon, true, "with leave for all")?;
    let status = daemon.netpol(&["status"])?;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    ensure!(status.contains("0.0.0.0/0"), "{status}");
    let name = lab.name.clone();
    drop((daemon, behind, lab));
    residue::check(&name)
}

const VIRTUAL: [&str; 2] = ["10.77.9.9", "fd77::99"];

/// The announcements that keepalived sends: gratuitous ARP, and an unsolicited neighbour advertisement from the
/// address itself.
fn announce(wire: &Wire) -> Result<()> {
    let (v4, v6): (Ipv4Addr, Ipv6Addr) = (VIRTUAL[0].parse()?, VIRTUAL[1].parse()?);
    let arp = frames::arp(1, wire.mac, v4.octets(), v4.octets());
    wire.send(&frames::ethernet(wire.mac, [0xff; 6], 0x0806, &arp))?;
    let all = "ff02::1".parse::<Ipv6Addr>()?.octets();
    let body = [&v6.octets()[..], &[2, 1], &wire.mac].concat();
    let message = frames::icmp(136, 0, [0x20, 0, 0, 0], &body);
    let message = frames::sealed_icmpv6(&v6.octets(), &all, message);
    let packet = frames::ipv6(v6.octets(), all, 58, 255, &message);
    wire.send(&frames::ethernet(
        wire.mac,
        [0x33, 0x33, 0, 0, 0, 1],
        0x86dd,
        &packet,
    ))
}

#[test]
fn a_virtual_address_moves_by_leave() -> Result<()> {
    let lab = Lab::with_pods(&["lb/one", "lb/two", "web/client"])?;
    let both = VIRTUAL.join(",");
    let mut daemon = Daemon::prepare(&lab, "")?;
    declare(&daemon, &lab, &[("lb/one", &both), ("lb/two", &both)])?;
    daemon.put(
        "policies.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: lb, namespace: lb}\nspec:\n  \
         podSelector: {}\n  policyTypes: [Ingress, Egress]\n  ingress: [{from: [{namespaceSelector: {}}]}]\n",
    )?;
    daemon.launch()?;
    daemon.wait()?;
    let client = lab.pod("web/client")?;
    let mut before: Option<&Namespace> = None;
    for holder in ["lb/one", "lb/two", "lb/one"] {
        let pod = lab.pod(holder)?;
        if let Some(before) = before.replace(&pod.namespace) {
            for (address, bits) in VIRTUAL.into_iter().zip([32, 128]) {
                before.ip(&["addr", "del", &format!("{address}/{bits}"), "dev", "eth0"])?;
            }
        }
        give(&pod.namespace, "eth0", VIRTUAL, [32, 128])?;
        announce(&Wire::open(pod)?)?;
        for at in VIRTUAL {
            let there = speaks(
                &client.namespace.path(),
                &pod.namespace.path(),
                address(at)?,
                true,
            )?;
            ensure!(
                there,
                "{holder} at {at}\n{}\n{}",
                dropped(&daemon)?,
                daemon.log()
            );
        }
    }
    let none = dropped(&daemon)?;
    ensure!(!none.contains("forged"), "{none}");
    // An endpoint without leave claims it: no neighbour hears of it.
    announce(&Wire::open(client)?)?;
    reported(&daemon, &["forged-arp", "forged-nd", VIRTUAL[1]])?;
    for at in VIRTUAL {
        let one = lab.pod("lb/one")?.namespace.path();
        ensure!(
            speaks(&client.namespace.path(), &one, address(at)?, true)?,
            "{at}"
        );
    }
    Ok(())
}
