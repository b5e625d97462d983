//! Swarm: overlay networks, the bridge that the engine adds containers to beside them, and the sandbox that published
//! ports come in by.
//!
//! ```text
//!  outside ══ uplink (host) ── docker_gwbridge ┬─ eth1 web, db, … ─┐
//!                                              └─ eth1 ingress ─┐  │
//!                        (hidden) br0 of `ov` ──── eth0 web, db, … ┘
//!                        (hidden) br0 of `ingress` ── eth0 ─────┴─ eth0 of tasks
//! ```
//!
//! Needs root, dockerd, iptables, busybox and runc, and a kernel that has VXLAN. Where it lacks IPVS, which the engine
//! spreads a service's connections by, NAT rules that say the same stand in for it, for the service's one task.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use netpold::netns;
use netpold::probe::Outcome;
use netpold_tests::docker::{IMAGE, Running};
use netpold_tests::time_scale::within;
use netpold_tests::{Daemon, Engine, Lab, Outside, daemon, residue, scaled, snmp, sockets};

const IDLE: [&str; 2] = ["sleep", "1000"];
const SERVE: [&str; 6] = ["httpd", "-f", "-p", "80", "-h", "/bin"];
/// What can't get around the programs.
const HARMLESS: [&str; 2] = ["--cap-drop", "NET_RAW"];
/// The host's address on its uplink.
const UPLINK: &str = "172.31.255.1";
/// Two clients far away.
const SHUT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 8);
const OPEN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
/// `db` is published as this, and a service as that.
const PUBLISHED: u16 = 18183;
const INGRESS: u16 = 18184;
/// An image that no registry has to be asked for: no server listens there.
const LOCAL: &str = "127.0.0.1:1/busybox";

/// `db` takes 80 from `web` and from one client, and 5432 from `web`; `web` sends to `db`, and to one client.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db}\n\
    spec:\n  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n  ingress:\n  \
    - from: [{podSelector: {matchLabels: {app: web}}}]\n  \
    - from: [{ipBlock: {cidr: 203.0.113.9/32}}]\n    ports: [{port: 80}]\n\
    ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web}\n\
    spec:\n  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Egress]\n  egress:\n  \
    - to: [{podSelector: {matchLabels: {app: db}}}]\n  \
    - to: [{ipBlock: {cidr: 203.0.113.9/32}}]\n";

struct Site {
    daemon: Daemon,
    engine: Engine,
    outside: Outside,
    lab: Lab,
    _directory: tempfile::TempDir,
}

impl Site {
    /// A swarm of one with an overlay network `ov` and a strict runtime, and a daemon beside it.
    fn new(settings: &str) -> Result<Self> {
        let lab = Lab::new()?;
        let far = BTreeSet::from([IpAddr::V4(SHUT), IpAddr::V4(OPEN)]);
        let outside = Outside::new(&lab, &far)?;
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("netpold.sock");
        let runtime = serde_json::json!({
            "path": daemon::binary("netpold-oci")?,
            "runtimeArgs": [format!("--netpold-socket={}", socket.display()), "--netpold-timeout=20"],
        });
        let file = directory.path().join("daemon.json");
        let engine_settings = serde_json::json!({"runtimes": {"netpold": runtime}});
        std::fs::write(&file, engine_settings.to_string())?;
        let file = file.display().to_string();
        let engine = Engine::start(&lab, &["--iptables=true", "--config-file", &file])?;
        engine.docker(&["swarm", "init", "--advertise-addr", UPLINK])?;
        engine.docker(&[
            "network",
            "create",
            "--driver",
            "overlay",
            "--attachable",
            "ov",
        ])?;
        engine.docker(&["tag", IMAGE, LOCAL])?;
        let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), settings)?;
        std::os::unix::fs::symlink(daemon.socket(), &socket)?;
        daemon.launch()?;
        daemon.wait()?;
        Ok(Self {
            daemon,
            engine,
            outside,
            lab,
            _directory: directory,
        })
    }

    fn run(&self, app: &str, options: &[&str], command: &[&str]) -> Result<Running> {
        let label = format!("app={app}");
        let all = [
            &["--label", &label, "--network", "ov"],
            &HARMLESS[..],
            options,
        ]
        .concat();
        self.engine.run(app, &all, command)
    }

    /// A service's one task, published through the ingress sandbox.
    fn serve(&self, app: &str) -> Result<Task> {
        let (label, published) = (format!("app={app}"), format!("{INGRESS}:80"));
        let mut create = vec!["service", "create", "--detach", "--no-resolve-image"];
        create.extend([
            "--name",
            app,
            "--container-label",
            &label,
            "--network",
            "ov",
        ]);
        create.extend(["--publish", &published, "--cap-drop", "NET_RAW", LOCAL]);
        create.extend(SERVE);
        self.engine.docker(&create)?;
        let name = format!("name={app}.1.");
        let mut id = String::new();
        within("the service's task", || {
            let list = ["ps", "--quiet", "--no-trunc", "--filter", &name];
            id = self.engine.docker(&list)?;
            Ok(!id.is_empty())
        })
        .with_context(|| self.engine.log())?;
        let running = self.engine.inspect(&id)?;
        let is_of = |network: &str, address: &&IpAddr| address.to_string().starts_with(network);
        let mut addresses = running.addresses.iter();
        let ingress = addresses.find(|address| is_of("10.0.0.", address));
        let ingress = *ingress.context("the task is not on `ingress`")?;
        let format = "{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}";
        let addresses = self
            .engine
            .docker(&["service", "inspect", "--format", format, app])?;
        let mut addresses = addresses.split_whitespace();
        let vip = addresses.find(|address| !address.starts_with("10.0.0."));
        let vip = vip.and_then(|vip| vip.split('/').next());
        let task = Task {
            own: Running {
                addresses: running
                    .addresses
                    .iter()
                    .copied()
                    .filter(|it| *it != ingress)
                    .collect(),
                ..running
            },
            ingress,
            vip: vip.context("no virtual address")?.parse()?,
        };
        if !Path::new("/proc/net/ip_vs").exists() {
            self.stand_in_for_ipvs(&task)?;
        }
        Ok(task)
    }

    /// From the host to the sandbox, and from there to the task, under the sandbox's address; and from the service's virtual
    /// address to the task, under that of the sandbox that has it.
    fn stand_in_for_ipvs(&self, task: &Task) -> Result<()> {
        let (gateway, ingress) = (
            self.member("docker_gwbridge", "ingress-sbox")?,
            self.member("ingress", "ingress-sbox")?,
        );
        let to_port = format!("-p tcp --dport {INGRESS}");
        let host = self.lab.host().path();
        for chain in ["PREROUTING", "OUTPUT"] {
            let local = "-m addrtype --dst-type LOCAL";
            let to = format!("-j DNAT --to {gateway}:{INGRESS}");
            iptables(&host, &format!("-t nat -I {chain} {to_port} {local} {to}"))?;
        }
        iptables(
            &host,
            &format!("-I FORWARD -d {gateway} {to_port} -j ACCEPT"),
        )?;
        let sandbox = self.sandbox("ingress_sbox")?;
        let dnat = format!("-j DNAT --to {}", task.ingress);
        iptables(&sandbox, &format!("-t nat -A PREROUTING {to_port} {dnat}"))?;
        let snat = format!("-j SNAT --to {ingress}");
        iptables(&sandbox, &format!("-t nat -A POSTROUTING {to_port} {snat}"))?;
        let balancer = self.sandbox("lb_")?;
        let (vip, own) = (task.vip, self.member("ov", "lb-ov")?);
        inside(&balancer, "ip", &format!("addr add {vip}/32 dev eth0"))?;
        let address = task.own.addresses.first().context("no address")?;
        iptables(
            &balancer,
            &format!("-t nat -A PREROUTING -d {vip} -j DNAT --to {address}"),
        )?;
        iptables(
            &balancer,
            &format!("-t nat -A POSTROUTING -d {address} -j SNAT --to {own}"),
        )?;
        for namespace in [&sandbox, &balancer] {
            netns::inside(namespace, || {
                std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")
            })??;
        }
        Ok(())
    }

    /// The address of the container with this ID on a network.
    fn member(&self, network: &str, id: &str) -> Result<String> {
        let format = "{{range $id, $one := .Containers}}{{$id}} {{$one.IPv4Address}}\n{{end}}";
        let said = self
            .engine
            .docker(&["network", "inspect", "--format", format, network])?;
        let line = said.lines().find_map(|line| line.strip_prefix(id));
        let address = line.and_then(|line| line.trim().split('/').next());
        Ok(address
            .with_context(|| format!("no `{id}` on `{network}`"))?
            .to_owned())
    }

    /// The namespace of the engine's own that begins so.
    fn sandbox(&self, name: &str) -> Result<PathBuf> {
        let socket = self.engine.socket();
        let root = socket.parent().context("no directory")?;
        for entry in std::fs::read_dir(root.join("exec/netns"))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(name) {
                return Ok(entry.path());
            }
        }
        bail!("no namespace `{name}`")
    }

    fn expect(&self, from: &Running, to: &Running, port: u16, allowed: bool) -> Result<()> {
        let outcome = from.dial(to, port)?;
        ensure!(
            (outcome == Outcome::Reached) == allowed,
            "{} to {} {port}: {outcome:?}, expected allowed: {allowed}\n{}",
            from.name,
            to.name,
            self.said()
        );
        Ok(())
    }

    fn said(&self) -> String {
        let status = self.daemon.netpol(&["status"]);
        let status = status.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        format!("{}\n{}", status.unwrap_or_default(), self.daemon.log())
    }

    /// Is a client far away answered at this port of the host?
    fn far_reaches(&self, client: Ipv4Addr, port: u16, allowed: bool) -> Result<()> {
        let to = SocketAddr::new(UPLINK.parse()?, port);
        let answered = dials(&self.outside.path(), Some(client), to)?;
        ensure!(
            answered == allowed,
            "{client} to {port}, expected allowed: {allowed}\n{}",
            self.said()
        );
        Ok(())
    }

    /// Does a container reach a client far away?
    fn reaches_far(&self, from: &Running, client: Ipv4Addr, allowed: bool) -> Result<()> {
        let listener = sockets::listen(&self.outside.path(), client.into(), 7000)?;
        let to = SocketAddr::new(client.into(), 7000);
        let dialled = sockets::dial(&from.netns(), to, scaled(Duration::from_millis(800)))?;
        ensure!(
            dialled.is_some() == allowed,
            "{} to {client}, expected allowed: {allowed}\n{}",
            from.name,
            self.said()
        );
        drop(listener);
        Ok(())
    }

    /// What `netpol status` says, and its exit code.
    fn status(&self) -> Result<(serde_json::Value, Option<i32>)> {
        let output = self.daemon.netpol(&["status", "-o", "json"])?;
        Ok((
            serde_json::from_slice(&output.stdout)?,
            output.status.code(),
        ))
    }

    /// Nothing is on hold, and nothing unprotected.
    fn is_well(&self) -> Result<()> {
        self.daemon.wait()?;
        within("status 0", || Ok(self.status()?.1 == Some(0))).with_context(|| self.said())?;
        let (status, _) = self.status()?;
        let is_empty = |key: &str| status[key].as_array().is_some_and(Vec::is_empty);
        ensure!(
            is_empty("unidentified") && is_empty("unprotected"),
            "{status}"
        );
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let name = self.lab.name.clone();
        drop(self);
        residue::check(&name)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Or it would start tasks in the place of those that are removed.
        let _ = self.engine.docker(&["swarm", "leave", "--force"]);
    }
}

/// A service's task.
struct Task {
    /// On the service's own network.
    own: Running,
    /// Its address on `ingress`.
    ingress: IpAddr,
    /// The service's virtual address on its own network.
    vip: IpAddr,
}

fn iptables(namespace: &Path, arguments: &str) -> Result<()> {
    inside(namespace, "iptables", arguments)
}

/// A program with these words as its arguments.
fn inside(namespace: &Path, program: &str, arguments: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.args(arguments.split(' '));
    let output = netns::inside(namespace, move || command.output())??;
    ensure!(
        output.status.success(),
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Is there an answer over HTTP?
fn dials(from: &Path, source: Option<Ipv4Addr>, to: SocketAddr) -> Result<bool> {
    let time = scaled(Duration::from_millis(1_500));
    let dialled = match source {
        Some(source) => sockets::dial_as(from, source.into(), to, time),
        None => sockets::dial(from, to, time),
    };
    let mut stream = match dialled {
        Ok(Some(stream)) => stream,
        Ok(None) => return Ok(false),
        Err(error) => {
            let kind = error.downcast_ref().map(std::io::Error::kind);
            ensure!(kind == Some(ErrorKind::ConnectionRefused), "{error:#}");
            return Ok(false);
        }
    };
    stream.set_read_timeout(Some(time))?;
    stream.write_all(b"GET /busybox HTTP/1.0\r\n\r\n")?;
    let mut answer = [0; 5];
    Ok(stream.read_exact(&mut answer).is_ok() && answer == *b"HTTP/")
}

/// Everything that a swarm has, before the daemon is there and after it, over its restarts and without it.
#[test]
fn nothing_is_cut_where_no_policy_selects() -> Result<()> {
    let mut site = Site::new("")?;
    site.daemon.stop()?;
    let published = format!("{PUBLISHED}:80");
    let old = site.run("old", &["--publish", &published], &SERVE)?;
    site.daemon.launch()?;
    let new = site.run("new", &[], &IDLE)?;
    let task = site.serve("shop")?;
    let all = |site: &Site| -> Result<()> {
        for from in [&old, &new, &task.own] {
            site.reaches_far(from, OPEN, true)?;
            for to in [&old, &new, &task.own] {
                if from.id != to.id {
                    site.expect(from, to, 5432, true)?;
                }
            }
        }
        site.far_reaches(OPEN, PUBLISHED, true)?;
        site.far_reaches(OPEN, INGRESS, true)?;
        ensure!(
            dials(&new.netns(), None, SocketAddr::new(task.vip, 80))?,
            "{}",
            site.said()
        );
        let ingress = SocketAddr::new(UPLINK.parse()?, INGRESS);
        ensure!(dials(&new.netns(), None, ingress)?, "{}", site.said());
        ensure!(
            dials(&site.lab.host().path(), None, ingress)?,
            "{}",
            site.said()
        );
        Ok(())
    };
    site.is_well()?;
    all(&site)?;
    site.daemon.kill()?;
    all(&site)?;
    site.daemon.launch()?;
    all(&site)?;
    site.is_well()?;
    all(&site)?;
    let log = site.daemon.log();
    ensure!(!log.contains("ERROR") && !log.contains("spoofed"), "{log}");
    site.finish()
}

/// By labels and blocks, on both ways into a container, over the restarts of netpold and of a container.
#[test]
fn policies_hold_on_every_way_into_a_container() -> Result<()> {
    let mut site = Site::new("")?;
    site.daemon.put("policy.yaml", POLICY)?;
    let published = format!("{PUBLISHED}:80");
    let db = site.run("db", &["--publish", &published], &SERVE)?;
    // Whose resolver no engine asks from the host's network.
    let web = site.run("web", &["--dns", "203.0.113.9"], &IDLE)?;
    let other = site.run("other", &[], &IDLE)?;
    site.daemon.wait()?;
    let holds = |site: &Site, other: &Running| -> Result<()> {
        site.expect(&web, &db, 5432, true)?;
        site.expect(other, &db, 5432, false)?;
        site.expect(&web, other, 5432, false)?;
        site.expect(&db, other, 5432, true)?;
        // Beyond the overlay, in both directions.
        site.far_reaches(OPEN, PUBLISHED, true)?;
        site.far_reaches(SHUT, PUBLISHED, false)?;
        site.reaches_far(&web, OPEN, true)?;
        site.reaches_far(&web, SHUT, false)?;
        site.reaches_far(&db, SHUT, true)
    };
    holds(&site, &other)?;
    site.is_well()?;
    let (status, _) = site.status()?;
    for endpoint in status["endpoints"].as_array().context("no endpoints")? {
        let interfaces = daemon::network_interfaces(endpoint)?;
        let inside = interfaces.iter().filter(|one| one["inside"] == "veth");
        ensure!(
            interfaces.len() == 2
                && inside.count() == 1
                && interfaces.iter().all(|one| one["attached"] == true),
            "{endpoint}"
        );
    }
    site.daemon.kill()?;
    site.expect(&other, &db, 5432, false)?;
    site.expect(&web, &db, 5432, true)?;
    site.far_reaches(SHUT, PUBLISHED, false)?;
    site.daemon.launch()?;
    site.daemon.wait()?;
    holds(&site, &other)?;
    // Another namespace, other interfaces.
    site.engine.docker(&["restart", "--time", "0", "other"])?;
    site.daemon.wait()?;
    let other = site.engine.inspect("other")?;
    holds(&site, &other)?;
    site.is_well()?;
    // A block says what labels do not: of the address that the sender has there.
    let address = other.addresses.first().context("no address")?;
    let block = POLICY.replace(
        "203.0.113.9/32}}]\n    ports",
        &format!("{address}/32}}}}]\n    ports"),
    );
    site.daemon.put("policy.yaml", &block)?;
    site.daemon.wait()?;
    site.far_reaches(OPEN, PUBLISHED, false)?;
    let dialled = dials(&other.netns(), None, SocketAddr::new(db.addresses[0], 80))?;
    ensure!(dialled, "{}", site.said());
    site.finish()
}

/// What comes through the sandbox is judged as the local container that sent it; of a sender elsewhere nothing is left but
/// the sandbox's own address. At the task it has the port that is published.
#[test]
fn policies_hold_behind_the_ingress_sandbox() -> Result<()> {
    let site = Site::new("")?;
    let task = site.serve("shop")?;
    let web = site.run("web", &[], &IDLE)?;
    let other = site.run("other", &[], &IDLE)?;
    let policy = |from: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: shop}}\nspec:\n  \
            podSelector: {{matchLabels: {{app: shop}}}}\n  policyTypes: [Ingress]\n  ingress:\n  \
            - from: [{from}]\n    ports: [{{port: {INGRESS}}}]\n"
        )
    };
    let ingress = SocketAddr::new(UPLINK.parse()?, INGRESS);
    let answers = |web: &Running, other: &Running| -> Result<[bool; 3]> {
        Ok([
            dials(&site.outside.path(), Some(SHUT), ingress)?,
            dials(&web.netns(), None, ingress)?,
            dials(&other.netns(), None, ingress)?,
        ])
    };
    let block = format!(
        "{{ipBlock: {{cidr: {}/32}}}}",
        site.member("ingress", "ingress-sbox")?
    );
    for (from, expected) in [
        (
            "{podSelector: {matchLabels: {app: web}}}",
            [false, true, false],
        ),
        (block.as_str(), [true, false, false]),
        ("{ipBlock: {cidr: 203.0.113.8/32}}", [false; 3]),
    ] {
        site.daemon.put("policy.yaml", &policy(from))?;
        site.daemon.wait()?;
        let found = answers(&web, &other)?;
        ensure!(found == expected, "{from}: {found:?}\n{}", site.said());
    }
    let vip = SocketAddr::new(task.vip, 80);
    for (address, expected) in [
        ("203.0.113.8", [false, false]),
        (&task.own.addresses[0].to_string(), [false, false]),
        (&task.vip.to_string(), [true, false]),
    ] {
        // A client's policy sees the destination; the server's, the sender.
        let client = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: web}}\nspec:\n  \
            podSelector: {{matchLabels: {{app: web}}}}\n  policyTypes: [Egress]\n  egress:\n  \
            - to: [{{ipBlock: {{cidr: {address}/32}}}}]\n"
        );
        site.daemon.put("web.yaml", &client)?;
        let server =
            policy("{podSelector: {matchLabels: {app: web}}}").replace(&INGRESS.to_string(), "80");
        site.daemon.put("policy.yaml", &server)?;
        site.daemon.wait()?;
        let found = [
            dials(&web.netns(), None, vip)?,
            dials(&other.netns(), None, vip)?,
        ];
        ensure!(found == expected, "{address}: {found:?}\n{}", site.said());
    }
    site.daemon.remove("web.yaml")?;
    site.daemon.wait()?;
    // Past the sandbox, on the network that both are on.
    site.expect(&web, &task.own, INGRESS, false)?;
    site.is_well()?;
    site.finish()
}

#[test]
fn a_container_that_joins_and_leaves_is_followed() -> Result<()> {
    let site = Site::new("")?;
    site.daemon.put("policy.yaml", POLICY)?;
    let db = site.run("db", &[], &IDLE)?;
    let on_bridge = ["--label", "app=other", "--cap-drop", "NET_RAW"];
    site.engine.run("other", &on_bridge, &IDLE)?;
    site.daemon.wait()?;
    let links = || std::fs::read_dir(site.daemon.pins().join("links")).map(Iterator::count);
    let before = links()?;
    let mut bridge: Option<Running> = None;
    for _ in 0..3 {
        site.engine.docker(&["network", "connect", "ov", "other"])?;
        site.daemon.wait()?;
        let mut other = site.engine.inspect("other")?;
        bridge.get_or_insert_with(|| Running {
            addresses: other
                .addresses
                .iter()
                .copied()
                .filter(|it| !is_overlay(it))
                .collect(),
            ..other.clone()
        });
        other.addresses.retain(is_overlay);
        site.expect(&other, &db, 5432, false)?;
        site.expect(&db, &other, 5432, true)?;
        site.reaches_far(&other, SHUT, true)?;
        site.is_well()?;
        site.engine
            .docker(&["network", "disconnect", "ov", "other"])?;
        site.daemon.wait()?;
        site.reaches_far(&other, SHUT, true)?;
        let after = links()?;
        ensure!(
            after == before,
            "{before} links, then {after}\n{}",
            site.said()
        );
    }
    // Without another network its way out is the engine's own bridge, which it leaves as well.
    site.engine.docker(&["network", "connect", "ov", "other"])?;
    site.engine
        .docker(&["network", "disconnect", "bridge", "other"])?;
    site.daemon.wait()?;
    let other = site.engine.inspect("other")?;
    site.reaches_far(&other, SHUT, true)?;
    site.expect(&other, &db, 5432, false)?;
    site.is_well()?;
    site.finish()
}

fn is_overlay(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.octets()[0] == 10)
}

/// What can get around the programs is said, and is enforced all the same; no container gets in by an address of another's.
#[test]
fn who_can_get_around_the_programs_is_reported() -> Result<()> {
    let site = Site::new("")?;
    site.daemon.put("policy.yaml", POLICY)?;
    let db = site.run("db", &[], &IDLE)?;
    // Docker's default has NET_RAW.
    let raw = ["--label", "app=other", "--network", "ov"];
    let raw = site.engine.run("raw", &raw, &IDLE)?;
    let admin = site.run("other", &["--cap-add", "NET_ADMIN"], &IDLE)?;
    site.daemon.wait()?;
    let (status, code) = site.status()?;
    let unprotected = status["unprotected"].as_array().context("no list")?;
    let said: Vec<&str> = unprotected
        .iter()
        .filter_map(|one| one["reason"].as_str())
        .collect();
    ensure!(
        code == Some(1)
            && said.len() == 2
            && said[0].contains("NET_ADMIN")
            && said[0].contains("`eth0`:")
            && said[1].contains("NET_RAW")
            && said[1].contains("`eth0`:"),
        "{status}"
    );
    site.expect(&raw, &db, 5432, false)?;
    site.expect(&admin, &db, 5432, false)?;
    // With the address and the name of one that may.
    let web = site.run("web", &[], &IDLE)?;
    site.daemon.wait()?;
    site.expect(&web, &db, 5432, true)?;
    let stolen = *web.addresses.first().context("no address")?;
    site.engine.docker(&["pause", "web"])?;
    let ip = |arguments: &[&str]| -> Result<()> {
        let done = netns::inside(&admin.netns(), || {
            Command::new("ip").args(arguments).status()
        })??;
        ensure!(done.success(), "ip {arguments:?}");
        Ok(())
    };
    ip(&["addr", "add", &format!("{stolen}/24"), "dev", "eth0"])?;
    let thief = Running {
        addresses: vec![stolen],
        ..admin
    };
    site.expect(&thief, &db, 5432, false)?;
    site.finish()
}

/// A container by the strict runtime sends from its first instruction on: nothing of it arrives where policy denies it, and
/// it does where no policy selects the container.
#[test]
fn a_strict_start_waits_for_the_programs_inside() -> Result<()> {
    let site = Site::new("")?;
    site.daemon.put("policy.yaml", POLICY)?;
    let program = Path::new(env!("CARGO_BIN_EXE_first_packet_sender"));
    site.engine.import_program(program, "first_packet_sender")?;
    let sink = site.run("sink", &[], &IDLE)?;
    site.daemon.wait()?;
    let address = *sink.addresses.first().context("no address")?;
    let heard = sockets::udp(&sink.netns(), address, 7777)?;
    for (number, app) in ["web", "web", "web", "free"].iter().enumerate() {
        let (name, label) = (format!("{app}-{number}"), format!("app={app}"));
        let mut arguments = vec!["run", "--detach", "--name", &name, "--runtime", "netpold"];
        arguments.extend(["--network", "ov", "--label", &label]);
        arguments.extend(HARMLESS);
        let to = address.to_string();
        arguments.extend(["first_packet_sender", "/program", &to, "0.0.0.0", "7777"]);
        site.engine.docker(&arguments)?;
        let time = scaled(Duration::from_secs(5));
        if *app == "free" {
            ensure!(sockets::heard(&heard, time)?.is_some(), "{}", site.said());
            continue;
        }
        let pid = site.engine.inspect(&name)?.pid;
        // What a program drops on its way out counts as no room to send.
        within("what must not be sent", || {
            Ok(snmp::read(pid, "Udp", "SndbufErrors")? > 100)
        })?;
        let arrived = sockets::heard(&heard, Duration::from_millis(50))?;
        ensure!(
            arrived.is_none(),
            "{name}: {arrived:?}\n{}",
            site.daemon.log()
        );
        site.engine.docker(&["rm", "--force", &name])?;
    }
    site.finish()
}

/// A host elsewhere in the swarm, without netpold: a container there has an address on the overlay, and no labels here.
#[test]
fn who_is_on_another_host_is_an_address() -> Result<()> {
    let site = Site::new("")?;
    site.daemon.put("policy.yaml", POLICY)?;
    let lab = Lab::new()?;
    let (here, there) = (site.lab.host(), lab.host());
    let wire = [
        "link", "add", "peer0", "type", "veth", "peer", "name", "peer1",
    ];
    here.ip(&[&wire[..], &["netns", there.name()]].concat())?;
    for (host, name, address) in [
        (here, "peer0", "172.31.250.1/30"),
        (there, "peer1", "172.31.250.2/30"),
    ] {
        host.ip(&["addr", "add", address, "dev", name])?;
        host.ip(&["link", "set", name, "up"])?;
    }
    // The kernel drops what comes through a tunnel from elsewhere than the engines told one another.
    here.ip(&[
        "route",
        "add",
        "172.31.250.2",
        "dev",
        "peer0",
        "src",
        UPLINK,
    ])?;
    there.ip(&["route", "add", UPLINK, "via", "172.31.250.1"])?;
    let elsewhere = Engine::start(&lab, &["--iptables=true"])?;
    let token = site
        .engine
        .docker(&["swarm", "join-token", "--quiet", "worker"])?;
    let manager = format!("{UPLINK}:2377");
    let mut join = vec!["swarm", "join", "--advertise-addr", "172.31.250.2"];
    join.extend(["--token", &token, &manager]);
    elsewhere.docker(&join)?;
    let db = site.run("db", &[], &IDLE)?;
    let web = site.run("web", &[], &IDLE)?;
    let run = |name: &str, options: &[&str]| {
        let all = [&["--network", "ov", "--label", "app=web"], options].concat();
        elsewhere.run(name, &all, &IDLE)
    };
    let far = run("far", &["--cap-add", "NET_ADMIN"])?;
    site.daemon.wait()?;
    site.expect(&web, &db, 5432, true)?;
    // The engines tell one another of their containers by gossip.
    within("a way to the other host", || {
        Ok(db.dial(&far, 5432)? == Outcome::Reached)
    })
    .with_context(|| format!("{}\n{}", site.said(), elsewhere.log()))?;
    site.expect(&far, &web, 5432, true)?;
    site.expect(&far, &db, 5432, false)?;
    site.expect(&web, &far, 5432, false)?;
    let address = *far.addresses.first().context("no address")?;
    let block = POLICY.replace("203.0.113.9/32", &format!("{address}/32"));
    site.daemon.put("policy.yaml", &block)?;
    site.daemon.wait()?;
    site.expect(&far, &db, 80, true)?;
    site.expect(&far, &db, 5432, false)?;
    site.expect(&web, &far, 5432, true)?;
    // Under the address of a container here that may.
    let stolen = *web.addresses.first().context("no address")?;
    site.engine.docker(&["pause", "web"])?;
    inside(
        &far.netns(),
        "ip",
        &format!("addr add {stolen}/24 dev eth0"),
    )?;
    let thief = Running {
        addresses: vec![stolen],
        ..far
    };
    site.expect(&thief, &db, 5432, false)?;
    let _ = elsewhere.docker(&["swarm", "leave", "--force"]);
    let name = lab.name.clone();
    drop((elsewhere, lab));
    residue::check(&name)?;
    site.finish()
}
