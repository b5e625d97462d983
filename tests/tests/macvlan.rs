//! Docker's macvlan networks: containers without an end on the host, enforced inside.
//!
//! ```text
//!  outside: wire0 10.78.0.1/16 ══ lan0 (host) ┬─ eth0 shop-web
//!                                             ├─ eth0 shop-db
//!                                             └─ …
//! ```
//!
//! Needs root, dockerd, busybox and runc.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpol_abi::limits::FIRST_LOOPBACK;
use netpol_engine::policy::Protocol;
use netpold::netns;
use netpold::probe::{Outcome, Probe};
use netpold_tests::docker::Running;
use netpold_tests::lab::Namespace;
use netpold_tests::time_scale::within;
use netpold_tests::{Daemon, Engine, Lab, daemon, residue, snmp};

const IDLE: [&str; 2] = ["sleep", "1000"];
/// What can't get at the programs.
const HARMLESS: [&str; 2] = ["--cap-drop", "NET_RAW"];

/// `db` takes 5432 from `web`; `web` sends to `db` alone.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: shop}\n\
    spec:\n  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n  ingress:\n  \
    - from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: 5432}]\n\
    ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\n\
    spec:\n  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Egress]\n  egress:\n  \
    - to: [{podSelector: {matchLabels: {app: db}}}]\n";

struct Site {
    daemon: Daemon,
    engine: Engine,
    outside: Namespace,
    lab: Lab,
    _directory: tempfile::TempDir,
}

impl Site {
    /// An engine with a macvlan network `lan` and a strict runtime, and a daemon beside it.
    fn new() -> Result<Self> {
        let lab = Lab::new()?;
        let outside = lab.namespace("out")?;
        let host = lab.host();
        let mut wire = vec!["link", "add", "lan0", "type", "veth", "peer", "name"];
        wire.extend(["wire0", "netns", outside.name()]);
        host.ip(&wire)?;
        host.ip(&["link", "set", "lan0", "up"])?;
        outside.ip(&["addr", "add", "10.78.0.1/16", "dev", "wire0"])?;
        outside.ip(&["link", "set", "wire0", "up"])?;
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("netpold.sock");
        let runtime = serde_json::json!({
            "path": daemon::binary("netpold-oci")?,
            "runtimeArgs": [format!("--netpold-socket={}", socket.display()), "--netpold-timeout=20"],
        });
        let settings = serde_json::json!({"runtimes": {"netpold": runtime}});
        let file = directory.path().join("daemon.json");
        std::fs::write(&file, settings.to_string())?;
        let engine = Engine::start(&lab, &["--config-file", &file.display().to_string()])?;
        let mut create = vec!["network", "create", "--driver", "macvlan"];
        create.extend(["--subnet", "10.78.0.0/16", "--ip-range", "10.78.1.0/24"]);
        create.extend(["--gateway", "10.78.0.1", "--opt", "parent=lan0", "lan"]);
        engine.docker(&create)?;
        let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
        std::os::unix::fs::symlink(daemon.socket(), &socket)?;
        daemon.put("policy.yaml", POLICY)?;
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

    fn run(&self, name: &str, app: &str, options: &[&str]) -> Result<Running> {
        let labels = labels(app);
        let mut all: Vec<&str> = labels.iter().map(String::as_str).collect();
        all.extend(["--network", "lan"]);
        all.extend(options);
        self.engine.run(name, &all, &IDLE)
    }

    /// Of all that came and went, two interfaces have links.
    fn has_links_for_two(&self) -> Result<()> {
        let mut links = 0;
        for link in std::fs::read_dir(self.daemon.pins().join("links"))? {
            let name = link?.file_name().into_string().unwrap_or_default();
            let (number, _) = name.split_once('-').context("a name without a hook")?;
            links += u32::from(number.parse::<u32>()? < FIRST_LOOPBACK);
        }
        ensure!(
            links == 4,
            "{links} links for two interfaces\n{}",
            self.status()?.0
        );
        Ok(())
    }

    fn expect(&self, from: &Running, to: &Running, port: u16, allowed: bool) -> Result<()> {
        let outcome = from.dial(to, port)?;
        ensure!(
            (outcome == Outcome::Reached) == allowed,
            "{} to {} {port}: {outcome:?}, expected allowed: {allowed}\n{}\n{}",
            from.name,
            to.name,
            String::from_utf8_lossy(&self.daemon.netpol(&["status"])?.stdout),
            self.daemon.log()
        );
        Ok(())
    }

    /// Dials a container from the outside.
    fn outside_to(&self, to: &Running, port: u16) -> Result<Outcome> {
        let address = *to.addresses.first().context("no address")?;
        let probe = Probe {
            from: self.outside.path(),
            source: "10.78.0.1".parse()?,
            to: Some(to.netns()),
            destination: SocketAddr::new(address, port),
            protocol: Protocol::Tcp,
            timeout: Duration::from_millis(800),
        };
        Ok(probe.run()?)
    }

    /// What `netpol status` says, and its exit code.
    fn status(&self) -> Result<(serde_json::Value, Option<i32>)> {
        let output = self.daemon.netpol(&["status", "-o", "json"])?;
        Ok((
            serde_json::from_slice(&output.stdout)?,
            output.status.code(),
        ))
    }

    fn finish(self) -> Result<()> {
        let name = self.lab.name.clone();
        drop(self);
        residue::check(&name)
    }
}

/// As Compose gives them.
fn labels(app: &str) -> [String; 4] {
    let label = || "--label".to_owned();
    [
        label(),
        "com.docker.compose.project=shop".to_owned(),
        label(),
        format!("com.docker.compose.service={app}"),
    ]
}

#[test]
fn containers_on_a_macvlan_are_enforced_through_restarts() -> Result<()> {
    let mut site = Site::new()?;
    let db = site.run("shop-db", "db", &HARMLESS)?;
    let web = site.run("shop-web", "web", &HARMLESS)?;
    let other = site.run("shop-other", "other", &HARMLESS)?;
    site.daemon.wait()?;
    let holds = |site: &Site, other: &Running| -> Result<()> {
        site.expect(&web, &db, 5432, true)?;
        site.expect(&web, &db, 5433, false)?;
        site.expect(&web, other, 80, false)?;
        site.expect(other, &db, 5432, false)?;
        site.expect(&db, other, 80, true)?;
        ensure!(site.outside_to(&db, 5432)? == Outcome::TimedOut);
        ensure!(site.outside_to(other, 5432)? == Outcome::Reached);
        Ok(())
    };
    holds(&site, &other)?;
    let (status, code) = site.status()?;
    ensure!(
        code == Some(0) && status["unprotected"].as_array().is_some_and(Vec::is_empty),
        "{status}"
    );
    site.daemon.kill()?;
    site.expect(&other, &db, 5432, false)?;
    site.daemon.launch()?;
    site.daemon.wait()?;
    holds(&site, &other)?;
    // Another namespace, another interface.
    site.engine
        .docker(&["restart", "--time", "0", "shop-other"])?;
    site.daemon.wait()?;
    let other = site.engine.inspect("shop-other")?;
    holds(&site, &other)?;
    site.finish()
}

#[test]
fn an_address_passed_on_while_no_daemon_ran_gives_no_old_rights() -> Result<()> {
    let mut site = Site::new()?;
    let db = site.run("shop-db", "db", &HARMLESS)?;
    let ip = ["--cap-drop", "NET_RAW", "--ip", "10.78.1.77"];
    let web = site.run("shop-web", "web", &ip)?;
    site.daemon.wait()?;
    site.expect(&web, &db, 5432, true)?;
    site.daemon.kill()?;
    site.engine.docker(&["rm", "--force", "shop-web"])?;
    let thief = site.run("shop-thief", "thief", &ip)?;
    site.daemon.launch()?;
    site.daemon.wait()?;
    ensure!(thief.addresses == ["10.78.1.77".parse::<IpAddr>()?]);
    site.expect(&thief, &db, 5432, false)?;
    site.expect(&thief, &db, 5433, false)?;
    let (status, code) = site.status()?;
    ensure!(code == Some(0), "{status}");
    site.has_links_for_two()?;
    site.finish()
}

#[test]
fn a_network_connected_later_is_enforced_beside_the_first() -> Result<()> {
    let site = Site::new()?;
    let db = site.run("shop-db", "db", &HARMLESS)?;
    let labels = labels("other");
    let mut options: Vec<&str> = labels.iter().map(String::as_str).collect();
    options.extend(HARMLESS);
    site.engine.run("shop-other", &options, &IDLE)?;
    site.daemon.wait()?;
    site.engine
        .docker(&["network", "connect", "lan", "shop-other"])?;
    site.daemon.wait()?;
    let mut other = site.engine.inspect("shop-other")?;
    other
        .addresses
        .retain(|address| address.to_string().starts_with("10.78."));
    site.expect(&other, &db, 5432, false)?;
    site.expect(&db, &other, 80, true)?;
    let (status, code) = site.status()?;
    let endpoints = status["endpoints"].as_array().context("no endpoints")?;
    let both = endpoints.iter().find(|one| one["name"] == "shop-other");
    let both = daemon::network_interfaces(both.context("no endpoint")?)?;
    ensure!(
        code == Some(0) && both.len() == 2 && both.iter().all(|one| one["attached"] == true),
        "{status}"
    );
    site.engine
        .docker(&["network", "disconnect", "lan", "shop-other"])?;
    site.daemon.wait()?;
    site.has_links_for_two()?;
    site.finish()
}

#[test]
fn who_can_get_rid_of_the_programs_is_reported() -> Result<()> {
    let site = Site::new()?;
    let db = site.run("shop-db", "db", &HARMLESS)?;
    // Docker's default has NET_RAW.
    let raw = site.run("shop-raw", "other", &[])?;
    let admin = ["--cap-drop", "NET_RAW", "--cap-add", "NET_ADMIN"];
    site.run("shop-admin", "other", &admin)?;
    site.engine.run(
        "sidecar",
        &[
            "--cap-add",
            "NET_ADMIN",
            "--cap-drop",
            "NET_RAW",
            "--network",
            "container:shop-db",
        ],
        &IDLE,
    )?;
    site.daemon.wait()?;
    let (status, code) = site.status()?;
    ensure!(code == Some(1), "{status}");
    let said: Vec<(String, String)> = status["unprotected"]
        .as_array()
        .context("no list")?
        .iter()
        .map(|one| {
            let word = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            let words: Vec<String> = word("reason")
                .split([' ', ','])
                .map(str::to_owned)
                .collect();
            (word("container"), words.get(2).cloned().unwrap_or_default())
        })
        .collect();
    let expected = [
        ("shop/shop-admin", "NET_ADMIN"),
        ("shop/shop-db", "NET_ADMIN"),
        ("shop/shop-raw", "NET_RAW"),
    ];
    let expected = expected.map(|(name, right)| (name.to_owned(), right.to_owned()));
    ensure!(said == expected, "{status}");
    // Enforced all the same.
    site.expect(&raw, &db, 5432, false)?;
    site.finish()
}

/// A container by the strict runtime sends from its first instruction on: nothing of it arrives where policy
/// denies it, and it does where no policy selects the container.
#[test]
fn a_strict_start_waits_for_the_programs_inside() -> Result<()> {
    let site = Site::new()?;
    let program = Path::new(env!("CARGO_BIN_EXE_first_packet_sender"));
    site.engine.import_program(program, "first_packet_sender")?;
    let heard = netns::inside(&site.outside.path(), || -> Result<UdpSocket> {
        let socket = UdpSocket::bind("0.0.0.0:7777")?;
        socket.join_multicast_v4(&Ipv4Addr::new(239, 1, 2, 3), &Ipv4Addr::new(10, 78, 0, 1))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    })??;
    for (number, app) in ["web", "web", "web", "web", "other"].iter().enumerate() {
        let name = format!("shop-{app}-{number}");
        let labels = labels(app);
        let mut arguments = vec!["run", "--detach", "--name", &name, "--runtime", "netpold"];
        arguments.extend(["--network", "lan"]);
        arguments.extend(labels.iter().map(String::as_str));
        arguments.extend(HARMLESS);
        arguments.extend([
            "first_packet_sender",
            "/program",
            "239.1.2.3",
            "10.78.0.1",
            "7777",
        ]);
        site.engine.docker(&arguments)?;
        let mut datagram = [0; 16];
        if *app == "other" {
            within("what may be sent", || Ok(heard.recv(&mut datagram).is_ok()))?;
            continue;
        }
        let pid = site.engine.inspect(&name)?.pid;
        // What a program drops on its way out counts as no room to send.
        within("what must not be sent", || {
            Ok(snmp::read(pid, "Udp", "SndbufErrors")? > 100)
        })?;
        ensure!(
            heard.recv(&mut datagram).is_err(),
            "{name}: a denied datagram arrived\n{}",
            site.daemon.log()
        );
        site.engine.docker(&["rm", "--force", &name])?;
    }
    site.finish()
}
