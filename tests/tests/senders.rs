//! Who sent a packet, where its source address does not tell: containers that the host masquerades, on one bridge and
//! between two; strangers that write the host's or a Pod's address into a packet; and a container that goes through the
//! host's tunnel. On real bridges, with real NAT. Needs root and iptables.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpold::netns;
use netpold_tests::lab::Namespace;
use netpold_tests::{Daemon, Lab, Outside, frames, residue, sockets};

const PORT: u16 = 5432;
/// What gets there takes milliseconds.
const SOON: Duration = Duration::from_millis(300);
/// The server's addresses, those of its neighbour `web/front`, which it lets in, and of the host on their bridge.
const STORE: [&str; 2] = ["10.77.1.1", "fd77::11"];
const FRONT: [&str; 2] = ["10.77.1.2", "fd77::12"];
const HOST: [&str; 2] = ["10.77.0.1", "fd77::1"];
/// Two Pods on a network of their own: `far/front`, which the server lets in, and `far/foe`.
const FAR: [[&str; 2]; 2] = [["10.78.1.1", "fd78::11"], ["10.78.1.2", "fd78::12"]];
const FAR_HOST: [&str; 2] = ["10.78.0.1", "fd78::1"];

/// Front ends may, wherever they are; and one address block, which is that of `far/foe`, where it is given.
fn policy(block: bool) -> String {
    let blocks = FAR[1].map(|address| {
        let bits = if address.contains(':') { 128 } else { 32 };
        format!("    - ipBlock: {{cidr: '{address}/{bits}'}}\n")
    });
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: store, namespace: db}}\nspec:\n  \
         podSelector: {{matchLabels: {{app: store}}}}\n  policyTypes: [Ingress]\n  ingress:\n  - from:\n    \
         - namespaceSelector: {{}}\n      podSelector: {{matchLabels: {{app: front}}}}\n{}",
        if block {
            blocks.concat()
        } else {
            String::new()
        }
    )
}

/// The server and its neighbours on one bridge, two Pods on another, and the host that routes between them.
struct Site {
    lab: Lab,
    store: PathBuf,
    front: PathBuf,
    foe: PathBuf,
    far: [PathBuf; 2],
}

impl Site {
    fn new() -> Result<Self> {
        let mut lab = Lab::with_pods(&["db/store", "web/front", "web/foe"])?;
        let host = ["link", "add", "br1", "type", "bridge", "forward_delay", "0"];
        lab.host().ip(&host)?;
        for (address, bits) in FAR_HOST.into_iter().zip(["16", "64"]) {
            let own = format!("{address}/{bits}");
            let mut add = vec!["addr", "add", &own, "dev", "br1"];
            if address.contains(':') {
                add.push("nodad");
            }
            lab.host().ip(&add)?;
        }
        lab.host().ip(&["link", "set", "br1", "up"])?;
        for (reference, addresses) in ["far/front", "far/foe"].into_iter().zip(FAR) {
            let veth = lab.add_pod(reference, &[])?.host_interface.clone();
            lab.host().ip(&["link", "set", &veth, "master", "br1"])?;
            let pod = &lab.pod(reference)?.namespace;
            for ((address, bits), via) in addresses.into_iter().zip(["16", "64"]).zip(FAR_HOST) {
                let own = format!("{address}/{bits}");
                let mut add = vec!["addr", "add", &own, "dev", "eth0"];
                if address.contains(':') {
                    add.push("nodad");
                }
                pod.ip(&add)?;
                pod.ip(&["route", "add", "default", "via", via])?;
            }
        }
        lab.host().route_packets()?;
        let path = |reference: &str| Ok::<_, anyhow::Error>(lab.pod(reference)?.namespace.path());
        let site = Self {
            store: path("db/store")?,
            front: path("web/front")?,
            foe: path("web/foe")?,
            far: [path("far/front")?, path("far/foe")?],
            lab,
        };
        Ok(site)
    }

    fn daemon(&self, policy: &str, settings: &str) -> Result<Daemon> {
        let mut daemon = Daemon::prepare(&self.lab, settings)?;
        for pod in self.lab.pods() {
            let app = pod.reference.rsplit('/').next().unwrap_or_default();
            let file = format!("pod-{}.json", pod.reference.replace('/', "-"));
            daemon.put(&file, &pod.manifest(&[("app", app)])?)?;
        }
        daemon.put("store.yaml", policy)?;
        daemon.launch()?;
        daemon.wait()?;
        Ok(daemon)
    }

    /// A rule of source address translation for what leaves by the bridge of the server.
    fn translate(&self, rule: &[&str]) -> Result<()> {
        for tables in ["iptables", "ip6tables"] {
            let mut arguments = vec!["-t", "nat", "-A", "POSTROUTING"];
            arguments.extend(rule);
            run(self.lab.host(), tables, &arguments)?;
        }
        Ok(())
    }

    /// What differs from expected: which clients reach the server, by which family.
    fn wrong(&self, expected: [(&str, &Path, bool); 4]) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for (name, from, should) in expected {
            for address in STORE {
                let gets_there = speaks(from, &self.store, address.parse()?, should)?;
                if gets_there != should {
                    wrong.push(format!("{name} -> {address}: {gets_there}"));
                }
            }
        }
        Ok(wrong)
    }
}

fn run(namespace: &Namespace, program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = netns::inside(&namespace.path(), move || command.output())?
        .with_context(|| format!("can't run {program}(8): is it installed?"))?;
    ensure!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
    Ok(())
}

/// Does a datagram get to the server, and its answer back? What should gets time to.
fn speaks(from: &Path, to: &Path, address: IpAddr, should: bool) -> Result<bool> {
    let timeout = if should { sockets::scaled() } else { SOON };
    let server = sockets::udp(to, address, PORT)?;
    let own: IpAddr = if address.is_ipv4() {
        [0; 4].into()
    } else {
        [0_u16; 8].into()
    };
    let client = sockets::udp(from, own, 0)?;
    client.connect(SocketAddr::new(address, PORT))?;
    client.send(b"?")?;
    let Some((_, asker)) = sockets::heard(&server, timeout)? else {
        return Ok(false);
    };
    server.send_to(b"!", asker)?;
    sockets::heard(&client, sockets::scaled())?.context("the answer is lost")?;
    Ok(true)
}

fn none(wrong: &[String], what: &str, daemon: &Daemon) -> Result<()> {
    let flows = daemon.netpol(&["observe"])?;
    ensure!(
        wrong.is_empty(),
        "{what}: {wrong:?}\n{}\n{}",
        String::from_utf8_lossy(&flows.stdout),
        daemon.log()
    );
    Ok(())
}

/// Between two networks, as Podman's and CNI's rules do it; on one bridge, as bridged frames meet them where
/// br_netfilter is on; and to an address without an owner.
#[test]
fn masqueraded_pods_are_judged_as_themselves() -> Result<()> {
    let rules: [&[&str]; 2] = [&["-j", "MASQUERADE"], &["-o", "br0", "-j", "MASQUERADE"]];
    for rule in rules {
        let site = Site::new()?;
        site.translate(rule)?;
        for key in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
            site.lab.host().set(&format!("bridge/{key}"), "1")?;
        }
        for settings in ["", "[host]\ningress = \"policy\"\n"] {
            for block in [false, true] {
                let daemon = site.daemon(&policy(block), settings)?;
                let wrong = site.wrong([
                    ("web/front", &site.front, true),
                    ("web/foe", &site.foe, false),
                    ("far/front", &site.far[0], true),
                    ("far/foe", &site.far[1], block),
                ])?;
                none(
                    &wrong,
                    &format!("{rule:?}, {settings:?}, the block is {block}"),
                    &daemon,
                )?;
                let flows = daemon.netpol(&["observe"])?;
                let flows = String::from_utf8_lossy(&flows.stdout).into_owned();
                ensure!(
                    !flows.contains("host("),
                    "no sender here is the host:\n{flows}"
                );
                let host = site.lab.host().path();
                let reaches = speaks(&host, &site.store, STORE[0].parse()?, settings.is_empty())?;
                ensure!(reaches == settings.is_empty(), "the host itself: {reaches}");
            }
        }
        let name = site.lab.name.clone();
        drop(site);
        residue::check(&name)?;
    }
    Ok(())
}

/// As [`masqueraded_pods_are_judged_as_themselves`], with addresses that no interface of the host has.
#[test]
fn translated_pods_are_judged_as_themselves() -> Result<()> {
    let site = Site::new()?;
    run(
        site.lab.host(),
        "iptables",
        &[
            "-t",
            "nat",
            "-A",
            "POSTROUTING",
            "-o",
            "br0",
            "-j",
            "SNAT",
            "--to-source",
            "198.51.100.7",
        ],
    )?;
    run(
        site.lab.host(),
        "ip6tables",
        &[
            "-t",
            "nat",
            "-A",
            "POSTROUTING",
            "-o",
            "br0",
            "-j",
            "SNAT",
            "--to-source",
            "2001:db8::7",
        ],
    )?;
    let daemon = site.daemon(&policy(false), "")?;
    let wrong = site.wrong([
        ("web/front", &site.front, true),
        ("web/foe", &site.foe, false),
        ("far/front", &site.far[0], true),
        ("far/foe", &site.far[1], false),
    ])?;
    none(&wrong, "SNAT", &daemon)
}

/// IPv6 has no check of its own against a source that is the host's address, or the receiver's.
#[test]
fn strangers_with_an_address_of_this_host_stay_out() -> Result<()> {
    let lab = Lab::with_pods(&["db/store", "web/front"])?;
    let stranger: IpAddr = "fd97::8".parse()?;
    let outside = Outside::new(&lab, &[stranger].into())?;
    let daemon = Daemon::prepare(&lab, "").and_then(|mut daemon| {
        for pod in lab.pods() {
            let app = pod.reference.rsplit('/').next().unwrap_or_default();
            daemon.put(&format!("pod-{app}.json"), &pod.manifest(&[("app", app)])?)?;
        }
        daemon.put("store.yaml", &policy(false))?;
        daemon.launch()?;
        daemon.wait()?;
        Ok(daemon)
    })?;
    let store = lab.pod("db/store")?.namespace.path();
    let server = sockets::udp(&store, STORE[1].parse()?, PORT)?;
    // Its neighbour may, so that what follows is not lost for another reason.
    let front = lab.pod("web/front")?.namespace.path();
    let client = sockets::udp(&front, FRONT[1].parse()?, 0)?;
    client.send_to(b"front", server.local_addr()?)?;
    let heard = sockets::heard(&server, sockets::scaled())?;
    ensure!(
        heard.is_some_and(|(word, _)| word == b"front"),
        "{}",
        daemon.log()
    );
    // A socket may have any source address there.
    outside.namespace().set("ipv6/ip_nonlocal_bind", "1")?;
    let forged = [HOST[1], STORE[1], FRONT[1]];
    for address in forged {
        let client = sockets::udp(&outside.path(), address.parse()?, 0)?;
        client.send_to(address.as_bytes(), server.local_addr()?)?;
        ensure!(
            sockets::heard(&server, SOON)?.is_none(),
            "{address} gets in\n{}",
            daemon.log()
        );
    }
    // They got as far as the Pod, or this test says nothing; and none is named after the address that it claims.
    let dropped = || -> Result<String> {
        let flows = daemon.netpol(&["observe", "--verdict", "dropped"])?;
        Ok(String::from_utf8_lossy(&flows.stdout).into_owned())
    };
    let all = |flows: &str| {
        let mut claimed = forged.iter();
        claimed.all(|address| flows.contains(&format!("[{address}]")))
    };
    let end = Instant::now() + sockets::scaled();
    while !all(&dropped()?) && Instant::now() < end {
        thread::sleep(SOON);
    }
    let flows = dropped()?;
    ensure!(all(&flows), "one of {forged:?} is not reported:\n{flows}");
    ensure!(
        !flows.contains("host("),
        "the host did not send it:\n{flows}"
    );
    Ok(())
}

/// The host takes what comes to its VXLAN port out of its wrapping, and routes it: a Pod that may send nothing to the
/// server wraps a datagram of one that may.
#[test]
fn a_tunnel_of_the_host_is_no_way_round() -> Result<()> {
    let site = Site::new()?;
    let host = site.lab.host();
    host.ip(&[
        "link", "add", "vx0", "type", "vxlan", "id", "42", "dstport", "4789", "local", HOST[0],
    ])?;
    host.ip(&["link", "set", "vx0", "address", "02:00:00:00:42:01", "up"])?;
    for key in ["all", "vx0"] {
        host.set(&format!("ipv4/conf/{key}/rp_filter"), "0")?;
        host.set(&format!("ipv4/conf/{key}/accept_local"), "1")?;
    }
    let daemon = site.daemon(&policy(false), "")?;
    let server = sockets::udp(&site.store, STORE[0].parse()?, PORT)?;
    let wrapped = |word: &[u8], port: u16| {
        let datagram = frames::sealed_udp(
            &[10, 77, 1, 2],
            &[10, 77, 1, 1],
            frames::udp(port, PORT, word),
        );
        let packet =
            frames::sealed_ipv4(frames::ipv4([10, 77, 1, 2], [10, 77, 1, 1], 17, &datagram));
        let frame = frames::ethernet(
            [2, 0, 0, 0, 0x42, 2],
            [2, 0, 0, 0, 0x42, 1],
            0x0800,
            &packet,
        );
        [&[8, 0, 0, 0, 0, 0, 42, 0], &frame[..]].concat()
    };
    let send = |from: &Path, word: &[u8], port: u16| -> Result<()> {
        let socket = sockets::udp(from, "0.0.0.0".parse()?, 0)?;
        socket.send_to(&wrapped(word, port), (HOST[0], 4789))?;
        Ok(())
    };
    // The front end itself may, by whatever way: so this one leads to the server.
    send(&site.front, b"front", 40000)?;
    let heard = sockets::heard(&server, sockets::scaled())?;
    ensure!(
        heard.is_some_and(|(word, _)| word == b"front"),
        "the tunnel is shut: {}",
        daemon.log()
    );
    send(&site.foe, b"foe", 40001)?;
    ensure!(
        sockets::heard(&server, SOON)?.is_none(),
        "by the tunnel\n{}",
        daemon.log()
    );
    let flows = daemon.netpol(&["observe", "--verdict", "dropped"])?;
    let flows = String::from_utf8_lossy(&flows.stdout).into_owned();
    ensure!(
        flows.contains("web/foe"),
        "who it was is not said:\n{flows}"
    );
    Ok(())
}

/// Of a sender beyond the host to which a rule of NAT gives another address policy knows nothing but that: such a rule is
/// named, whatever made it, as long as it is there.
#[test]
fn rules_that_hide_strangers_are_named() -> Result<()> {
    let site = Site::new()?;
    let host = site.lab.host();
    run(
        host,
        "iptables",
        &[
            "-t",
            "nat",
            "-A",
            "POSTROUTING",
            "-s",
            "10.77.0.0/16",
            "!",
            "-o",
            "br0",
            "-j",
            "MASQUERADE",
        ],
    )?;
    run(
        host,
        "iptables",
        &[
            "-t",
            "nat",
            "-A",
            "POSTROUTING",
            "-o",
            "br1",
            "-j",
            "MASQUERADE",
        ],
    )?;
    let daemon = site.daemon(&policy(false), "[metrics]\nlisten = \"127.0.0.1:9469\"\n")?;
    let named = || -> Result<Vec<String>> {
        let status = daemon.netpol(&["status", "-o", "json"])?;
        let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
        let rules = status["hiding_rules"]
            .as_array()
            .context("no list of rules")?;
        Ok(rules
            .iter()
            .filter_map(|rule| rule.as_str().map(str::to_owned))
            .collect())
    };
    let becomes = |wanted: &[&str]| -> Result<()> {
        let end = Instant::now() + sockets::scaled();
        while named()? != wanted && Instant::now() < end {
            thread::sleep(SOON);
        }
        let named = named()?;
        ensure!(
            named == wanted,
            "{named:?}, not {wanted:?}\n{}",
            daemon.log()
        );
        Ok(())
    };
    let docker = "iptables -t nat -A POSTROUTING -o br1 -j MASQUERADE";
    becomes(&[docker])?;
    let metrics = daemon.metrics()?;
    ensure!(
        metrics.get("netpold_nat_rules_hiding_senders") == Some(&1),
        "{metrics:?}"
    );
    let text = daemon.netpol(&["status"])?;
    ensure!(
        String::from_utf8_lossy(&text.stdout).contains(docker),
        "{text:?}"
    );
    ensure!(daemon.log().contains(docker), "{}", daemon.log());
    for command in [
        "add table inet own",
        "add chain inet own out { type nat hook postrouting priority 100 ; }",
        "add rule inet own out oifname \"br0\" masquerade",
    ] {
        run(host, "nft", &[command])?;
    }
    becomes(&[docker, "nft rule inet own out handle 2"])?;
    run(host, "nft", &["delete table inet own"])?;
    run(
        host,
        "iptables",
        &[
            "-t",
            "nat",
            "-D",
            "POSTROUTING",
            "-o",
            "br1",
            "-j",
            "MASQUERADE",
        ],
    )?;
    becomes(&[])
}
