//! Published ports beside a real Docker engine that makes its own rules: which sender the policy sees
//! where the engine's DNAT forwards, where docker-proxy does, and where neither stands between.
//! Needs root, dockerd, iptables and busybox.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpold_tests::docker::Running;
use netpold_tests::{Daemon, Engine, Lab, Outside, residue, sockets};

/// The container's, and what it is published as.
const PORT: u16 = 80;
const PUBLISHED: u16 = 8080;
/// What gets there takes milliseconds, once neighbours know one another.
const SOON: Duration = Duration::from_millis(800);
/// Two clients far away.
const SHUT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 8);
const OPEN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// The host's addresses on its uplink.
const UPLINK: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 31, 255, 1));
const UPLINK6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 1));

/// The shop is open for one client far away, and for its own front.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shop, namespace: default}\n\
    spec:\n  podSelector: {matchLabels: {app: shop}}\n  policyTypes: [Ingress]\n  ingress:\n  \
    - from: [{ipBlock: {cidr: 203.0.113.9/32}}, {podSelector: {matchLabels: {app: front}}}]\n    \
    ports: [{port: 80}]\n";
const HOST_BY_POLICY: &str = "[host]\ningress = \"policy\"\n";

/// Who may dial the published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answers {
    far_shut: bool,
    far_open: bool,
    /// By IPv6, which the container's network does not have.
    far_ipv6: bool,
    /// The host, by its loopback address and by that of its uplink.
    host: [bool; 2],
    /// Two containers on the same bridge, by the host's address.
    front: bool,
    other: bool,
    /// The container itself, likewise.
    itself: bool,
}

struct Site {
    outside: Outside,
    engine: Engine,
    shop: Running,
    front: Running,
    other: Running,
    lab: Lab,
}

impl Site {
    fn new(arguments: &[&str]) -> Result<Self> {
        let lab = Lab::new()?;
        let far = BTreeSet::from([IpAddr::V4(SHUT), IpAddr::V4(OPEN)]);
        let outside = Outside::new(&lab, &far)?;
        let all = [&["--iptables=true"], arguments].concat();
        let engine = Engine::start(&lab, &all)?;
        let serve = ["httpd", "-f", "-p", "80", "-h", "/bin"];
        let published = format!("{PUBLISHED}:{PORT}");
        let labels = |app| ["--label", app];
        let shop = [&labels("app=shop")[..], &["-p", &published]].concat();
        let shop = engine.run("shop", &shop, &serve)?;
        let idle = ["sleep", "1000"];
        let front = engine.run("front", &labels("app=front"), &idle)?;
        let other = engine.run("other", &labels("app=other"), &idle)?;
        Ok(Self {
            outside,
            engine,
            shop,
            front,
            other,
            lab,
        })
    }

    /// Who is answered within this time.
    fn answers(&self, timeout: Duration) -> Result<Answers> {
        let host = self.lab.host().path();
        let container = |running: &Running| dials(&running.netns(), None, UPLINK, timeout);
        Ok(Answers {
            far_shut: dials(&self.outside.path(), Some(SHUT), UPLINK, timeout)?,
            far_open: dials(&self.outside.path(), Some(OPEN), UPLINK, timeout)?,
            far_ipv6: dials(&self.outside.path(), None, UPLINK6, timeout)?,
            host: [
                dials(&host, None, Ipv4Addr::LOCALHOST.into(), timeout)?,
                dials(&host, None, UPLINK, timeout)?,
            ],
            front: container(&self.front)?,
            other: container(&self.other)?,
            itself: container(&self.shop)?,
        })
    }

    fn daemon(&self, settings: &str) -> Result<Daemon> {
        let socket = self.engine.socket();
        let mut daemon = Daemon::prepare_beside(&self.lab, Some(&socket), settings)?;
        daemon.put("shop.yaml", POLICY)?;
        daemon.launch()?;
        daemon.wait()?;
        Ok(daemon)
    }
}

/// Does the shop itself answer at the published port?
fn dials(from: &Path, source: Option<Ipv4Addr>, to: IpAddr, timeout: Duration) -> Result<bool> {
    let to = SocketAddr::new(to, PUBLISHED);
    let dialled = match source {
        Some(source) => sockets::dial_as(from, source.into(), to, timeout),
        None => sockets::dial(from, to, timeout),
    };
    let mut stream = match dialled {
        Ok(Some(stream)) => stream,
        Ok(None) => return Ok(false),
        Err(error) if is_refused(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(b"GET /busybox HTTP/1.0\r\n\r\n")?;
    let mut answer = [0; 5];
    Ok(stream.read_exact(&mut answer).is_ok() && answer == *b"HTTP/")
}

/// No server listens there.
fn is_refused(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref().map(std::io::Error::kind);
    kind == Some(ErrorKind::ConnectionRefused)
}

/// Without a daemon all of it works, or the test says nothing.
fn answers_are(arguments: &[&str], open: Answers, expected: [Answers; 2]) -> Result<()> {
    let site = Site::new(arguments)?;
    let answers = site.answers(sockets::scaled())?;
    ensure!(answers == open, "without a daemon: {answers:?}");
    for (settings, expected) in ["", HOST_BY_POLICY].into_iter().zip(expected) {
        let daemon = site.daemon(settings)?;
        let answers = site.answers(SOON)?;
        ensure!(
            answers == expected,
            "{settings:?}: {answers:#?}\nnot {expected:#?}\n{}",
            daemon.log()
        );
    }
    let name = site.lab.name.clone();
    drop(site);
    residue::check(&name)
}

const ALL: Answers = Answers {
    far_shut: true,
    far_open: true,
    far_ipv6: true,
    host: [true, true],
    front: true,
    other: true,
    itself: true,
};

/// As the engine is installed: a client that is not forwarded comes from docker-proxy, and so from
/// the host, but a container of this host is asked about where it dials.
#[test]
fn beside_docker_proxy() -> Result<()> {
    let host_allowed = Answers {
        far_shut: false,
        other: false,
        ..ALL
    };
    let by_policy = Answers {
        far_shut: false,
        far_open: true,
        far_ipv6: false,
        host: [false, false],
        front: false,
        other: false,
        itself: false,
    };
    answers_are(&[], ALL, [host_allowed, by_policy])
}

/// Without docker-proxy, other containers are themselves. The container itself is masqueraded,
/// or it would not know its own answers, and an IPv6 client has no way to an IPv4 network.
#[test]
fn without_docker_proxy() -> Result<()> {
    let open = Answers {
        far_ipv6: false,
        ..ALL
    };
    let host_allowed = Answers {
        far_shut: false,
        other: false,
        ..open
    };
    // The shop itself is known under the host's address, too.
    let by_policy = Answers {
        host: [false, false],
        ..host_allowed
    };
    answers_are(&["--userland-proxy=false"], open, [host_allowed, by_policy])
}

/// The gateway of the engine's bridge, an address for every host on it, and the gateway of its IPv6 network.
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 0, 1));
const BROADCAST: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 30, 255, 255));
const ALL_HOSTS: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);
const GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd93, 0x66, 0, 0, 0, 0, 0, 1));
/// Further ports of the shop's: one for a server of the test's own, and one for datagrams.
const WORDS: u16 = 81;
const DATAGRAMS: u16 = 5353;

/// The same for the front alone, on every port.
const FRONT_ALONE: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shop, namespace: default}\n\
    spec:\n  podSelector: {matchLabels: {app: shop}}\n  policyTypes: [Ingress]\n  ingress:\n  \
    - from: [{podSelector: {matchLabels: {app: front}}}]\n";
/// All hosts.
const ALL_IN: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shop, namespace: default}\n\
    spec:\n  podSelector: {matchLabels: {app: shop}}\n  policyTypes: [Ingress]\n  ingress: [{}]\n";

/// A shop that publishes its ports through docker-proxy, and two callers on its bridge: the front, and another one.
struct Proxied {
    lab: Lab,
    engine: Engine,
    callers: [Running; 2],
}

impl Proxied {
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        lab.host().route_packets()?;
        let arguments = [
            "--iptables=true",
            "--ipv6",
            "--fixed-cidr-v6",
            "fd93:66::/64",
        ];
        let engine = Engine::start(&lab, &arguments)?;
        let run = |app: &str| {
            let label = format!("app={app}");
            engine.run(app, &["--label", &label], &["sleep", "1000"])
        };
        let callers = [run("front")?, run("other")?];
        Ok(Self {
            lab,
            engine,
            callers,
        })
    }

    /// Runs a container that publishes the shop's ports.
    fn publish(&self, name: &str) -> Result<Running> {
        let label = format!("app={name}");
        let ports = [
            format!("{PUBLISHED}:{PORT}"),
            format!("{WORDS}:{WORDS}"),
            format!("{DATAGRAMS}:53/udp"),
        ];
        let [http, words, datagrams] = &ports;
        let options = ["--label", &label, "-p", http, "-p", words, "-p", datagrams];
        let serve = ["httpd", "-f", "-p", "80", "-h", "/bin"];
        self.engine.run(name, &options, &serve)
    }

    fn daemon(&self, policy: &str) -> Result<Daemon> {
        let socket = self.engine.socket();
        let mut daemon = Daemon::prepare_beside(&self.lab, Some(&socket), "")?;
        daemon.put("shop.yaml", policy)?;
        daemon.launch()?;
        daemon.wait()?;
        Ok(daemon)
    }

    /// By which ways each caller gets there: TCP to each address of the host, and datagrams.
    fn ways(&self, shop: &Running, timeout: Duration) -> Result<[Vec<String>; 2]> {
        let server = sockets::udp(&shop.netns(), Ipv4Addr::UNSPECIFIED.into(), 53)?;
        let mut found = [Vec::new(), Vec::new()];
        for (caller, ways) in self.callers.iter().zip(&mut found) {
            for to in [GATEWAY, GATEWAY6] {
                if dials(&caller.netns(), None, to, timeout)? {
                    ways.push(format!("TCP {to}"));
                }
            }
            for to in [GATEWAY, BROADCAST, ALL_HOSTS] {
                let client = sockets::udp(&caller.netns(), Ipv4Addr::UNSPECIFIED.into(), 0)?;
                client.set_broadcast(true)?;
                let word = format!("{} to {to}", caller.name);
                client.send_to(word.as_bytes(), SocketAddr::new(to, DATAGRAMS))?;
                // What another one has sent before may come late.
                while let Some((heard, _)) = sockets::heard(&server, timeout)? {
                    if heard == word.as_bytes() {
                        ways.push(format!("UDP {to}"));
                        break;
                    }
                }
            }
        }
        Ok(found)
    }
}

/// A denied neighbour has no way through docker-proxy, by any address of the host; an allowed one has all that there are.
#[test]
fn no_way_through_docker_proxy() -> Result<()> {
    let site = Proxied::new()?;
    let shop = site.publish("shop")?;
    let [all, of_other] = site.ways(&shop, sockets::scaled().min(SOON * 4))?;
    ensure!(all == of_other, "without a daemon: {all:?} {of_other:?}");
    for way in ["TCP 172.30.0.1", "UDP 172.30.0.1", "UDP 172.30.255.255"] {
        ensure!(
            all.iter().any(|one| one == way),
            "no {way} without a daemon: {all:?}"
        );
    }
    let daemon = site.daemon(FRONT_ALONE)?;
    let [front, other] = site.ways(&shop, SOON)?;
    let seen = daemon.netpol(&["observe", "--verdict", "dropped", "--to", "default/shop"])?;
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    ensure!(
        front == all && other.is_empty(),
        "{front:?} {other:?} of {all:?}\n{seen}\n{}",
        daemon.log()
    );
    let line = "-> default/shop:80 (published as 172.30.0.1:8080)  TCP  DROPPED  ingress  policy-denied  by default/shop";
    ensure!(seen.contains(line), "{seen}");

    // A container that no policy selects takes the ports over, and then the shop again.
    site.engine.docker(&["rm", "--force", "shop"])?;
    let free = site.publish("free")?;
    daemon.settle()?;
    let [front, other] = site.ways(&free, SOON)?;
    ensure!(
        front == all && other == all,
        "free: {front:?} {other:?}\n{}",
        daemon.log()
    );
    site.engine.docker(&["rm", "--force", "free"])?;
    let shop = site.publish("shop")?;
    daemon.settle()?;
    let [front, other] = site.ways(&shop, SOON)?;
    ensure!(
        front == all && other.is_empty(),
        "again: {front:?} {other:?}\n{}",
        daemon.log()
    );
    drop(daemon);
    let name = site.lab.name.clone();
    drop(site);
    residue::check(&name)
}

/// A connection through docker-proxy ends when the policy behind it changes, and others go on.
#[test]
fn connections_through_docker_proxy_end() -> Result<()> {
    let site = Proxied::new()?;
    let shop = site.publish("shop")?;
    let daemon = site.daemon(ALL_IN)?;
    let listener = sockets::listen(&shop.netns(), Ipv4Addr::UNSPECIFIED.into(), WORDS)?;
    let mut open = Vec::new();
    for caller in &site.callers {
        let to = SocketAddr::new(GATEWAY, WORDS);
        let client = sockets::dial(&caller.netns(), to, sockets::scaled())?;
        let (server, _) = listener.accept()?;
        open.push((client.context("nobody answers")?, server));
    }
    for (client, server) in &mut open {
        ensure!(sockets::says(client, server, sockets::scaled())?, "no word");
        ensure!(
            sockets::says(server, client, sockets::scaled())?,
            "no answer"
        );
    }
    daemon.put("shop.yaml", FRONT_ALONE)?;
    daemon.wait()?;
    let mut heard = Vec::new();
    for ((client, server), within) in open.iter_mut().zip([sockets::scaled(), SOON]) {
        // The other one is heard in neither direction.
        let answer = sockets::says(server, client, within)?;
        heard.push((answer, sockets::says(client, server, within)?));
    }
    ensure!(
        heard == [(true, true), (false, false)],
        "{heard:?}\n{}",
        daemon.log()
    );
    drop((open, daemon));
    let name = site.lab.name.clone();
    drop(site);
    residue::check(&name)
}
