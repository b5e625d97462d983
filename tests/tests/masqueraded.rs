//! Containers of this host that reach another one under an address of the host's, or under a third one, because a rule
//! of an engine's or of the host's translates their source address on the way. They are judged as themselves: by their
//! labels, and by ipBlocks that cover their own address. Needs root, iptables, dockerd, podman and busybox.
//!
//! ```text
//!  front, block, other ── p2 ── host (SNAT, MASQUERADE) ── p1 ── web        (two networks of an engine)
//!  front, block, other, web ── one bridge, whose frames pass netfilter, or whose published port goes back into it
//! ```
//!
//! Each scene is tried without a daemon first: what is not answered there, or not translated, would say nothing.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpold::netns;
use netpold_tests::docker::Running;
use netpold_tests::sockets::{self, Connection};
use netpold_tests::{Daemon, Engine, Family, Lab, residue, scaled};
use serde_json::Value;

/// The server's, and what it is published as.
const PORT: u16 = 80;
const PUBLISHED: u16 = 8080;
/// The host's address on a bridge that no engine has.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// What gets there takes milliseconds, once neighbours know one another.
const SOON: Duration = Duration::from_millis(800);
const HOST_BY_POLICY: &str = "[host]\ningress = \"policy\"\n";
const IDLE: [&str; 2] = ["sleep", "1000"];

/// Who dials: one that a rule names by its label, one that an ipBlock names by its address, one that no rule names.
const CALLERS: [(&str, bool); 3] = [("front", true), ("block", true), ("other", false)];

/// Web takes connections from `app: front`, and from these addresses.
fn policy(blocks: &[IpAddr]) -> String {
    let blocks: String = blocks
        .iter()
        .map(|address| {
            let length = if address.is_ipv4() { 32 } else { 128 };
            format!(", {{ipBlock: {{cidr: '{address}/{length}'}}}}")
        })
        .collect();
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: web}}\n\
         spec:\n  podSelector: {{matchLabels: {{app: web}}}}\n  policyTypes: [Ingress]\n  \
         ingress: [{{from: [{{podSelector: {{matchLabels: {{app: front}}}}}}{blocks}]}}]\n"
    )
}

/// Who dials, from where.
struct Caller {
    name: &'static str,
    is_allowed: bool,
    netns: PathBuf,
    addresses: Vec<IpAddr>,
}

/// Where a caller's connection ends up.
struct Web {
    netns: PathBuf,
}

/// A way to the server.
#[derive(Clone, Copy, Debug)]
struct Way {
    to: SocketAddr,
    /// Do the frames of bridges pass netfilter?
    bridges_filter: bool,
    /// Does the server see another address than the caller's?
    translates: bool,
}

impl Way {
    fn enter(&self, lab: &Lab) -> Result<()> {
        if self.bridges_filter {
            bridges_filter(lab)
        } else {
            lab.plain_bridge()
        }
    }
}

/// From now on the frames of the lab's bridges pass netfilter, as they do where the module is loaded.
fn bridges_filter(lab: &Lab) -> Result<()> {
    // Built in with some kernels, and then there is nothing to load.
    let _ = Command::new("modprobe").arg("br_netfilter").output();
    for key in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        lab.host()
            .set(&format!("bridge/{key}"), "1")
            .context("the module br_netfilter is needed")?;
    }
    Ok(())
}

/// Rules of the lab's host, of this family.
fn tables(lab: &Lab, family: Family, arguments: &str) -> Result<()> {
    let program = match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    };
    let mut command = Command::new(program);
    command.args(arguments.split(' '));
    let output = netns::inside(&lab.host().path(), move || command.output())?
        .with_context(|| format!("can't run {program}(8): is it installed?"))?;
    ensure!(
        output.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

impl Web {
    fn listen(&self, family: Family) -> Result<TcpListener> {
        let any: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        sockets::listen(&self.netns, any, PORT)
    }

    /// Opens a connection to the server; none without an answer within the time.
    fn connect(&self, from: &Path, to: SocketAddr, within: Duration) -> Result<Option<Connection>> {
        let family = match to {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        };
        let listener = self.listen(family)?;
        let client = match sockets::dial(from, to, within) {
            Ok(Some(client)) => client,
            Ok(None) => return Ok(None),
            Err(error) if is_refused(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        // The answer may have come from another host than the server.
        listener.set_nonblocking(true)?;
        let begun = Instant::now();
        let server = loop {
            match listener.accept() {
                Ok((server, _)) => break server,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if begun.elapsed() > within {
                        return Ok(None);
                    }
                    sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error.into()),
            }
        };
        server.set_nonblocking(false)?;
        let mut ends = (client, server);
        let back = sockets::says(&mut ends.1, &mut ends.0, within)?;
        ensure!(back, "the server's answer is lost");
        Ok(Some(ends))
    }

    /// Under which address the caller got there, if it did.
    fn seen(&self, from: &Path, to: SocketAddr, within: Duration) -> Result<Option<IpAddr>> {
        let connection = self.connect(from, to, within)?;
        let seen = connection.map(|(_, server)| server.peer_addr());
        Ok(seen.transpose()?.map(|address| address.ip()))
    }
}

/// No server listens there, or there is no way.
fn is_refused(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref().map(std::io::Error::kind);
    matches!(
        kind,
        Some(ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable)
    )
}

/// Without a daemon each way works for each caller, and translates where it should.
fn works(lab: &Lab, web: &Web, callers: &[Caller], way: Way) -> Result<()> {
    way.enter(lab)?;
    for caller in callers {
        let seen = web.seen(&caller.netns, way.to, sockets::scaled())?;
        let seen = seen
            .with_context(|| format!("without a daemon: {way:?}: {} gets nowhere", caller.name))?;
        ensure!(
            caller.addresses.contains(&seen) != way.translates,
            "without a daemon: {way:?}: {} is seen as {seen}",
            caller.name
        );
    }
    Ok(())
}

/// What is wrong where the daemon runs: each caller is itself on each way, and the host is the host, where it is asked.
fn wrong(
    lab: &Lab,
    daemon: &Daemon,
    web: &Web,
    callers: &[Caller],
    ways: &[Way],
    host: (&dyn Fn(&Way) -> bool, bool),
) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut tries = |way: &Way, name: &str, netns: &Path, is_allowed: bool| -> Result<()> {
        let timeout = if is_allowed { sockets::scaled() } else { SOON };
        let seen = web.seen(netns, way.to, timeout)?;
        if seen.is_some() != is_allowed {
            wrong.push(format!("{way:?}: {name} got there: {seen:?}"));
        }
        Ok(())
    };
    for way in ways {
        way.enter(lab)?;
        for caller in callers {
            tries(way, caller.name, &caller.netns, caller.is_allowed)?;
        }
    }
    let reported = reasons(daemon)?;
    let (is_asked, is_allowed) = host;
    for way in ways.iter().filter(|way| is_asked(way)) {
        way.enter(lab)?;
        tries(way, "the host", &lab.host().path(), is_allowed)?;
    }
    wrong.extend(reported);
    Ok(wrong)
}

/// What is wrong in what was reported about connections to web, before the host dialled: no container came in as the host, and
/// what was dropped was denied by policy.
fn reasons(daemon: &Daemon) -> Result<Vec<String>> {
    let begun = Instant::now();
    loop {
        let output = daemon.netpol(&["observe", "-o", "json", "--to", "default/web"])?;
        let text = String::from_utf8(output.stdout)?;
        let mut wrong = BTreeSet::new();
        let mut denied = 0;
        for line in text.lines() {
            let flow: Value = serde_json::from_str(line)?;
            if flow["l4"]["TCP"].is_null() || flow["traffic_direction"] != "INGRESS" {
                continue;
            }
            let reason = &flow["extensions"]["value"]["reason"];
            match (flow["verdict"].as_str(), reason.as_str()) {
                (Some("DROPPED"), Some("policy-denied")) => denied += 1,
                (Some("FORWARDED"), Some("rule-allowed")) => {}
                (verdict, _) => {
                    let verdict = verdict.unwrap_or_default();
                    wrong.insert(format!("reported: {verdict} {reason}"));
                }
            }
        }
        if denied > 0 || begun.elapsed() > scaled(Duration::from_secs(2)) {
            if denied == 0 {
                wrong.insert("reported: no sender as denied".to_owned());
            }
            return Ok(wrong.into_iter().collect());
        }
        sleep(Duration::from_millis(50));
    }
}

/// A scene by a container engine.
struct Site {
    lab: Lab,
    engine: Engine,
    web: Web,
    address: IpAddr,
    callers: Vec<Caller>,
}

impl Site {
    /// Web on one network, the callers on another one; on the same where there is but one.
    fn new(lab: Lab, engine: Engine, networks: [&[&str]; 2], published: &str) -> Result<Self> {
        let run = |app: &str, options: &[&str]| -> Result<Running> {
            let label = format!("app={app}");
            engine.run(app, &[&["--label", &label], options].concat(), &IDLE)
        };
        let web = run("web", &[networks[0], &["-p", published]].concat())?;
        let address = *web.addresses.first().context("no address")?;
        let mut callers = Vec::new();
        for (name, is_allowed) in CALLERS {
            let running = run(name, networks[1])?;
            callers.push(Caller {
                name,
                is_allowed,
                netns: running.netns(),
                addresses: running.addresses,
            });
        }
        let web = Web { netns: web.netns() };
        Ok(Self {
            lab,
            engine,
            web,
            address,
            callers,
        })
    }

    fn docker(settings: &[&str], networks: bool) -> Result<Self> {
        let lab = Lab::new()?;
        lab.host().route_packets()?;
        let engine = Engine::start(&lab, &[&["--iptables=true"], settings].concat())?;
        let published = format!("{PUBLISHED}:{PORT}");
        if !networks {
            return Self::new(lab, engine, [&[], &[]], &published);
        }
        // Newer engines let no container of another network reach an address that stands behind NAT, and `routed` networks
        // publish nothing on addresses of the host. Docker 26 and what is older does not look at this option.
        let open = "com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected";
        let create = ["network", "create", "--subnet"];
        engine.docker(&[&create[..], &["10.66.1.0/24", "--opt", open, "p1"]].concat())?;
        engine.docker(&[&create[..], &["10.66.2.0/24", "p2"]].concat())?;
        // How networks of an engine that keeps them apart are joined.
        tables(&lab, Family::V4, "-I DOCKER-USER -j ACCEPT")?;
        let networks: [&[&str]; 2] = [&["--network", "p1"], &["--network", "p2"]];
        Self::new(lab, engine, networks, &published)
    }

    fn podman() -> Result<Self> {
        let lab = Lab::new()?;
        lab.host().route_packets()?;
        let engine = Engine::start_podman(&lab)?;
        // By podman(1), whose networks reach one another where netavark makes them. Those by its interface of Docker's are
        // kept apart.
        for (subnet, name) in [("10.66.1.0/24", "p1"), ("10.66.2.0/24", "p2")] {
            engine.podman(&["network", "create", "--subnet", subnet, name])?;
        }
        let networks: [&[&str]; 2] = [&["--network", "p1"], &["--network", "p2"]];
        let published = format!("{PUBLISHED}:{PORT}");
        let site = Self::new(lab, engine, networks, &published)?;
        // CNI, which older ones have, keeps networks apart.
        tables(&site.lab, Family::V4, "-I FORWARD -j ACCEPT")?;
        Ok(site)
    }

    fn policy(&self) -> String {
        let block = self.callers.iter().find(|caller| caller.name == "block");
        let addresses = block.map(|caller| caller.addresses.clone());
        policy(&addresses.unwrap_or_default())
    }

    fn daemon(&self, settings: &str) -> Result<Daemon> {
        let socket = self.engine.socket();
        let mut daemon = Daemon::prepare_beside(&self.lab, Some(&socket), settings)?;
        daemon.put("web.yaml", &self.policy())?;
        daemon.launch()?;
        daemon.wait()?;
        Ok(daemon)
    }

    /// Every container is itself on all these ways.
    fn holds(self, ways: &[Way]) -> Result<()> {
        for way in ways {
            works(&self.lab, &self.web, &self.callers, *way)?;
        }
        for (settings, host) in [("", true), (HOST_BY_POLICY, false)] {
            let daemon = self.daemon(settings)?;
            // The host dials a published port in ways of its own, which other suites have.
            let by_address = |way: &Way| way.to.ip() == self.address;
            let (lab, web, callers) = (&self.lab, &self.web, &self.callers);
            let wrong = wrong(lab, &daemon, web, callers, ways, (&by_address, host))?;
            ensure!(
                wrong.is_empty(),
                "{settings:?}: {wrong:#?}\n{}",
                daemon.log()
            );
        }
        let name = self.lab.name.clone();
        drop(self);
        residue::check(&name)
    }
}

/// By web's address and by its published port, whether or not the frames of bridges pass netfilter.
fn by_both(address: IpAddr) -> Vec<Way> {
    let mut ways = Vec::new();
    for bridges_filter in [true, false] {
        for to in [
            SocketAddr::new(address, PORT),
            SocketAddr::new(HOST, PUBLISHED),
        ] {
            ways.push(Way {
                to,
                bridges_filter,
                translates: true,
            });
        }
    }
    ways
}

#[test]
fn containers_of_another_docker_network() -> Result<()> {
    // docker-proxy would be a process of the host that dials, and no translation.
    let site = Site::docker(&["--userland-proxy=false"], true)?;
    let ways = by_both(site.address);
    site.holds(&ways)
}

#[test]
fn containers_of_another_podman_network() -> Result<()> {
    let site = Site::podman()?;
    let ways = by_both(site.address);
    site.holds(&ways)
}

/// A rule that has no interface of its own translates what goes back into the bridge that it came from.
#[test]
fn containers_of_the_same_docker_network_by_its_published_port() -> Result<()> {
    let site = Site::docker(&["--userland-proxy=false"], false)?;
    tables(&site.lab, Family::V4, "-t nat -I POSTROUTING -j MASQUERADE")?;
    let ways = [true, false].map(|bridges_filter| Way {
        to: SocketAddr::new(HOST, PUBLISHED),
        bridges_filter,
        translates: true,
    });
    site.holds(&ways)
}

/// What is older than the daemon is judged when its next packet comes, from whichever side.
fn older_than_the_daemon(server_first: bool) -> Result<()> {
    let site = Site::docker(&[], true)?;
    let to = SocketAddr::new(site.address, PORT);
    let mut open = Vec::new();
    for caller in &site.callers {
        let connection = site.web.connect(&caller.netns, to, sockets::scaled())?;
        open.push(connection.context("without a daemon: no answer")?);
    }
    // Servers go on listening: without that socket, nothing tells which end opened the connection.
    let _server = site.web.listen(Family::V4)?;
    let daemon = site.daemon("")?;
    let mut wrong = Vec::new();
    for (caller, (client, server)) in site.callers.iter().zip(&mut open) {
        let (first, second) = if server_first {
            (server, client)
        } else {
            (client, server)
        };
        let within = if caller.is_allowed {
            sockets::scaled()
        } else {
            SOON
        };
        let heard = [
            sockets::says(first, second, within)?,
            sockets::says(second, first, within)?,
        ];
        // The peer's packets identify it. The server's own do not, where its peer is translated, so one of
        // them may be heard; what the peer says is not, and so nothing more of the server's either.
        let peer_is_heard = if server_first { heard[1] } else { heard[0] };
        if peer_is_heard != caller.is_allowed || caller.is_allowed && heard != [true; 2] {
            wrong.push(format!("{}: {heard:?}", caller.name));
        }
    }
    let flows = daemon.netpol(&["observe"])?;
    ensure!(
        wrong.is_empty(),
        "{wrong:?}\n{}\n{}",
        String::from_utf8_lossy(&flows.stdout),
        daemon.log()
    );
    Ok(())
}

#[test]
fn connections_that_are_older_than_the_daemon_when_the_client_speaks() -> Result<()> {
    older_than_the_daemon(false)
}

#[test]
fn connections_that_are_older_than_the_daemon_when_the_server_speaks() -> Result<()> {
    older_than_the_daemon(true)
}

/// One bridge with declared Pods, whose frames pass netfilter, and a rule that translates them.
fn on_one_bridge(rules: [Option<&str>; 2]) -> Result<()> {
    let lab = Lab::with_pods(&[
        "default/front",
        "default/block",
        "default/other",
        "default/web",
    ])?;
    lab.host().route_packets()?;
    bridges_filter(&lab)?;
    for address in ["172.31.255.1/32", "fd99::1/128"] {
        lab.host().ip(&["addr", "add", address, "dev", "lo"])?;
    }
    let web = Web {
        netns: lab.pod("default/web")?.namespace.path(),
    };
    let mut callers = Vec::new();
    for (name, is_allowed) in CALLERS {
        let pod = lab.pod(&format!("default/{name}"))?;
        callers.push(Caller {
            name,
            is_allowed,
            netns: pod.namespace.path(),
            addresses: pod.addresses.clone(),
        });
    }
    let mut ways = Vec::new();
    for (family, rule) in Family::BOTH.into_iter().zip(rules) {
        let Some(rule) = rule else { continue };
        tables(&lab, family, &format!("-t nat -A POSTROUTING {rule}"))?;
        let to = SocketAddr::new(lab.pod("default/web")?.address(family)?, PORT);
        ways.extend([true, false].map(|filter| Way {
            to,
            bridges_filter: filter,
            translates: filter,
        }));
    }
    for way in &ways {
        works(&lab, &web, &callers, *way)?;
    }
    // A stranger's address that a rule may give is one that policy lets in.
    let mut blocks = callers[1].addresses.clone();
    blocks.extend([STRANGER.parse::<IpAddr>()?, STRANGER6.parse()?]);
    for (settings, host) in [("", true), (HOST_BY_POLICY, false)] {
        let daemon = Daemon::enforcing(&lab, &[("web.yaml", &policy(&blocks))], settings)?;
        // A rule that gives every sender a stranger's address makes the host that stranger, too.
        let is_host = |_: &Way| !rules.iter().flatten().any(|rule| rule.contains(STRANGER));
        let wrong = wrong(&lab, &daemon, &web, &callers, &ways, (&is_host, host))?;
        ensure!(
            wrong.is_empty(),
            "{rules:?} {settings:?}: {wrong:#?}\n{}",
            daemon.log()
        );
    }
    let name = lab.name.clone();
    drop(lab);
    residue::check(&name)
}

const STRANGER: &str = "203.0.113.9";
const STRANGER6: &str = "fd97::9";

#[test]
fn neighbours_by_a_rule_without_an_interface() -> Result<()> {
    on_one_bridge([Some("-j MASQUERADE"), Some("-j MASQUERADE")])
}

/// What an engine leaves behind of a network that is gone.
#[test]
fn neighbours_by_a_rule_for_an_interface_that_is_gone() -> Result<()> {
    on_one_bridge([
        Some("-s 10.77.0.0/16 ! -o br-gone -j MASQUERADE"),
        Some("-s fd77::/64 ! -o br-gone -j MASQUERADE"),
    ])
}

#[test]
fn neighbours_by_another_address_of_the_host() -> Result<()> {
    on_one_bridge([
        Some("-s 10.77.0.0/16 -j SNAT --to-source 172.31.255.1"),
        Some("-s fd77::/64 -j SNAT --to-source fd99::1"),
    ])
}

/// By an address that an ipBlock allows.
#[test]
fn neighbours_by_an_allowed_stranger_s_address() -> Result<()> {
    on_one_bridge([
        Some("-s 10.77.0.0/16 -j SNAT --to-source 203.0.113.9"),
        Some("-s fd77::/64 -j SNAT --to-source fd97::9"),
    ])
}
