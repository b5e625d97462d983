//! Multicast and broadcast: whether a sender may send is judged by the group's address, whether it is heard by
//! the sender's, and memberships pass whatever policy says, so that a bridge that snoops delivers
//! what it should. Needs root.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpold_tests::lab::Pod;
use netpold_tests::{Daemon, Family, Lab, residue, sockets};

const PORT: u16 = 5432;
const OTHER_PORT: u16 = 5433;
const GROUP4: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x77);
const ALL_HOSTS: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);
/// The Pods' network's own.
const SUBNET: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 255, 255));
/// What was sent before has arrived by then, or never does.
const LATER: Duration = Duration::from_millis(300);

/// Only front is heard, on one port.
const GUARD: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: guard, namespace: db}\n\
    spec:\n  podSelector: {matchLabels: {app: store}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  \
    - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}]\n    \
    ports: [{protocol: UDP, port: 5432}]\n";

/// Front may send to one group of each family, and nowhere else.
const GROUPS: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: groups, namespace: web}\n\
    spec:\n  podSelector: {matchLabels: {app: front}}\n  policyTypes: [Egress]\n  egress:\n  \
    - to: [{ipBlock: {cidr: 239.1.2.3/32}}, {ipBlock: {cidr: 'ff15::77/128'}}]\n";

/// The same for broadcast.
const BROADCAST: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: groups, namespace: web}\n\
    spec:\n  podSelector: {matchLabels: {app: front}}\n  policyTypes: [Egress]\n  egress:\n  \
    - to: [{ipBlock: {cidr: 255.255.255.255/32}}]\n";

fn lab() -> Result<Lab> {
    Lab::with_pods(&["web/front", "db/store", "db/other"])
}

/// A socket that hears what is sent to a group or to all hosts.
fn member(pod: &Pod, family: Family, port: u16) -> Result<UdpSocket> {
    let any = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = sockets::udp(&pod.namespace.path(), any, port)?;
    match pod.address(family)? {
        IpAddr::V4(own) => socket.join_multicast_v4(&GROUP4, &own)?,
        IpAddr::V6(_) => socket.join_multicast_v6(&GROUP6, 0)?,
    }
    Ok(socket)
}

fn sender(pod: &Pod, family: Family) -> Result<UdpSocket> {
    let socket = sockets::udp(&pod.namespace.path(), pod.address(family)?, 0)?;
    if family == Family::V4 {
        socket.set_broadcast(true)?;
    }
    Ok(socket)
}

fn group(family: Family) -> IpAddr {
    match family {
        Family::V4 => GROUP4.into(),
        Family::V6 => GROUP6.into(),
    }
}

/// What a socket hears until it is quiet, sorted. So many datagrams must come.
fn all_heard(socket: &UdpSocket, expected: usize) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let timeout = |heard| {
        if heard < expected {
            sockets::scaled()
        } else {
            LATER
        }
    };
    while let Some((bytes, _)) = sockets::heard(socket, timeout(all.len()))? {
        all.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    all.sort();
    Ok(all)
}

#[test]
fn the_sender_decides_who_is_heard() -> Result<()> {
    let lab = lab()?;
    let daemon = Daemon::enforcing(&lab, &[("guard.yaml", GUARD)], "")?;
    let (front, store, other) = (
        lab.pod("web/front")?,
        lab.pod("db/store")?,
        lab.pod("db/other")?,
    );
    for family in Family::BOTH {
        let listeners = [(store, PORT), (store, OTHER_PORT), (other, PORT)];
        let listeners = listeners.map(|(pod, port)| member(pod, family, port));
        let [open, shut, free] = listeners;
        let (open, shut, free) = (open?, shut?, free?);
        let mut to = vec![(group(family), "group")];
        if family == Family::V4 {
            to.extend([(ALL_HOSTS, "everybody"), (SUBNET, "subnet")]);
        }
        for (address, name) in &to {
            for (pod, who) in [(front, "front"), (other, "other")] {
                let sender = sender(pod, family)?;
                for port in [PORT, OTHER_PORT] {
                    sender.send_to(format!("{who} to {name}").as_bytes(), (*address, port))?;
                }
            }
        }
        // A network's own broadcast address has no owner: it does not get to the isolated.
        let expected = match family {
            Family::V4 => vec!["front to everybody", "front to group"],
            Family::V6 => vec!["front to group"],
        };
        let heard = all_heard(&open, expected.len())?;
        ensure!(heard == expected, "{family:?}: store hears {heard:?}");
        let heard = all_heard(&shut, 0)?;
        ensure!(heard.is_empty(), "{family:?}: store hears {heard:?}");
        // An endpoint that no policy isolates hears all that others say.
        let heard = all_heard(&free, to.len())?;
        for (_, name) in &to {
            ensure!(heard.contains(&format!("front to {name}")), "{heard:?}");
        }
    }
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

#[test]
fn the_groups_address_decides_who_may_send() -> Result<()> {
    let lab = lab()?;
    let daemon = Daemon::enforcing(&lab, &[], "")?;
    let (front, other) = (lab.pod("web/front")?, lab.pod("db/other")?);
    for (policy, allowed) in [(GROUPS, "group"), (BROADCAST, "everybody")] {
        daemon.put("front.yaml", policy)?;
        daemon.wait()?;
        for family in Family::BOTH {
            let listener = member(other, family, PORT)?;
            let sender = sender(front, family)?;
            sender.send_to(b"group", (group(family), PORT))?;
            if family == Family::V4 {
                sender.send_to(b"everybody", (ALL_HOSTS, PORT))?;
                sender.send_to(b"subnet", (SUBNET, PORT))?;
            }
            let mut expected = vec![allowed];
            expected.retain(|name| family == Family::V4 || *name == "group");
            let heard = all_heard(&listener, expected.len())?;
            ensure!(heard == expected, "{family:?}, {allowed}: {heard:?}");
        }
    }
    Ok(())
}

/// A bridge that asks for listeners, and delivers to no other port.
fn snooping(lab: &Lab) -> Result<()> {
    let host = lab.host();
    let set = ["link", "set", "br0", "type", "bridge"];
    host.ip(&[
        &set[..],
        &[
            "mcast_snooping",
            "1",
            "mcast_query_response_interval",
            "100",
        ],
    ]
    .concat())?;
    host.ip(&[&set[..], &["mcast_querier", "1"]].concat())?;
    Ok(())
}

/// Waits until the bridge delivers the group to the Pod.
fn is_member(lab: &Lab, pod: &Pod, family: Family) -> Result<()> {
    let begun = Instant::now();
    loop {
        let listed = std::process::Command::new("bridge")
            .args(["-n", lab.host().name(), "mdb", "show"])
            .output()
            .context("can't run bridge(8): is iproute2 installed?")?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let (port, group) = (
            format!("port {} ", pod.host_interface),
            group(family).to_string(),
        );
        let listens = |line: &str| line.contains(&port) && line.contains(&group);
        if listed.lines().any(listens) {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < sockets::scaled(),
            "{} is no member of {group}:\n{listed}",
            pod.reference
        );
        thread::sleep(Duration::from_millis(50));
    }
}

fn snooped(families: &[Family]) -> Result<()> {
    let lab = lab()?;
    snooping(&lab)?;
    let daemon = Daemon::enforcing(&lab, &[("guard.yaml", GUARD)], "")?;
    let (front, store) = (lab.pod("web/front")?, lab.pod("db/store")?);
    // From then on the bridge knows the listeners, or believes that no host does.
    thread::sleep(Duration::from_millis(1500));
    for &family in families {
        let listener = member(store, family, PORT)?;
        is_member(&lab, store, family)?;
        let sender = sender(front, family)?;
        sender.send_to(b"group", (group(family), PORT))?;
        let heard = all_heard(&listener, 1)?;
        ensure!(
            heard == ["group"],
            "{family:?}: {heard:?}\n{}",
            daemon.log()
        );
        // Neighbours ask by group, too.
        for pod in [front, store] {
            pod.namespace.ip(&["neigh", "flush", "all"])?;
        }
        let ours = store.address(family)?;
        sender.send_to(b"unicast", (ours, PORT))?;
        let heard = all_heard(&listener, 1)?;
        ensure!(heard == ["unicast"], "{family:?}: {heard:?}");
    }
    Ok(())
}

#[test]
fn memberships_of_the_isolated_pass_for_ipv6() -> Result<()> {
    snooped(&[Family::V6])
}

#[test]
fn memberships_of_the_isolated_pass_for_ipv4() -> Result<()> {
    snooped(&[Family::V4])
}
