//! A container that comes back with another MAC address is reached at once by neighbours that remember the old one:
//! what it says of itself while it is on hold is dropped, so netpold announces it when the hold ends. With the daemon
//! running, and started only afterwards; both families. Needs root, dockerd and busybox.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpol_engine::policy::Protocol;
use netpold::netns;
use netpold::probe::{Outcome, Probe};
use netpold_tests::docker::{IMAGE, Running};
use netpold_tests::{Daemon, Engine, Lab, scaled};

const IDLE: [&str; 2] = ["sleep", "1000"];

/// Isolates the container that comes back, and its neighbour not.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: default}\n\
    spec:\n  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Ingress, Egress]\n  ingress:\n  \
    - from: [{podSelector: {matchLabels: {app: neighbour}}}]\n";

/// How long a neighbour that is told nothing sends to the old MAC address at least, before it asks for the new one
/// (`delay_first_probe_time`, arp(7)).
const UNTOLD: Duration = Duration::from_secs(5);
/// From the end of the start, or of the daemon's, on. It takes some hundredths of a second on a machine that has nothing
/// else to do, and no load makes it more than a fraction of what it is held against.
const GAP: Duration = Duration::from_millis(1250);
const TIMES: u8 = 3;

fn reached(from: &Running, to: &Running, is_ipv4: bool) -> Result<bool> {
    let of_family = |running: &Running| {
        let mut addresses = running.addresses.iter();
        let found = addresses.find(|address| address.is_ipv4() == is_ipv4);
        found.copied().context("no address of the family")
    };
    let probe = Probe {
        from: from.netns(),
        source: of_family(from)?,
        to: Some(to.netns()),
        destination: SocketAddr::new(of_family(to)?, 5432),
        protocol: Protocol::Tcp,
        timeout: Duration::from_millis(50),
    };
    Ok(probe.run()? == Outcome::Reached)
}

/// Web's, each time another one.
fn mac(time: u8) -> String {
    format!("02:79:00:00:00:{time:02x}")
}

struct Scene {
    lab: Lab,
    engine: Engine,
}

impl Scene {
    fn make() -> Result<Self> {
        let lab = Lab::new()?;
        let engine = Engine::start(&lab, &[])?;
        let dual = [
            "--ipv6",
            "--subnet",
            "fd00:79::/64",
            "--subnet",
            "10.79.0.0/24",
        ];
        // Docker 28 announces addresses by itself, three times within two seconds; older ones don't, and don't look at
        // this option. What is tried here is netpold's own announcement.
        let silent = ["--opt", "com.docker.network.advertise_addr_nmsgs=0"];
        engine.docker(&[&["network", "create"], &dual[..], &silent, &["lan"]].concat())?;
        Ok(Self { lab, engine })
    }

    fn web(&self, time: u8) -> Result<Running> {
        // By the API: clients of today give a MAC address in a way that this engine does not know yet.
        let mac = mac(time);
        let addresses = r#"{"IPv4Address":"10.79.0.9","IPv6Address":"fd00:79::9"}"#;
        let body = format!(
            r#"{{"Image":"{IMAGE}","Cmd":["sleep","1000"],"Labels":{{"app":"web"}},"MacAddress":"{mac}",
                "HostConfig":{{"NetworkMode":"lan"}},
                "NetworkingConfig":{{"EndpointsConfig":{{"lan":{{"IPAMConfig":{addresses}}}}}}}}}"#
        );
        let mut stream = UnixStream::connect(self.engine.socket())?;
        write!(
            stream,
            "POST /v1.41/containers/create?name=web HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 201"), "{answer}");
        self.engine.docker(&["start", "web"])?;
        self.engine.inspect("web")
    }

    /// Web goes away, and its neighbour remembers it. Without being told to, the neighbour's kernel forgets an entry
    /// whose last answer was not confirmed, in as many seconds as a slow engine takes here.
    fn remove(&self, neighbour: &Running, time: u8) -> Result<()> {
        self.engine.docker(&["rm", "--force", "web"])?;
        for address in ["10.79.0.9", "fd00:79::9"] {
            let mut command = Command::new("ip");
            command.args(["neigh", "replace", address, "lladdr", &mac(time)]);
            command.args(["dev", "eth0", "nud", "stale"]);
            let output = netns::inside(&neighbour.netns(), move || command.output())??;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(
                output.status.success(),
                "ip neigh replace {address}: {said}"
            );
        }
        Ok(())
    }

    fn neighbour(&self) -> Result<Running> {
        let options = ["--network", "lan", "--label", "app=neighbour"];
        self.engine.run("neighbour", &options, &IDLE)
    }
}

/// How long the neighbour takes to reach it in both families.
fn gap(daemon: &Daemon, from: &Running, to: &Running) -> Result<()> {
    let begun = Instant::now();
    // Patience must not reach what a neighbour does by itself.
    let limit = scaled(GAP).min(UNTOLD / 2);
    for is_ipv4 in [true, false] {
        while !reached(from, to, is_ipv4)? {
            ensure!(
                begun.elapsed() < limit,
                "not reached after {:?}, IPv4: {is_ipv4}\n{}",
                begun.elapsed(),
                daemon.log()
            );
        }
    }
    println!("reached after {:?}", begun.elapsed());
    Ok(())
}

#[test]
fn a_container_that_comes_back_with_another_mac_address_is_reached_at_once() -> Result<()> {
    let scene = Scene::make()?;
    let mut daemon = Daemon::prepare_beside(&scene.lab, Some(&scene.engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    let neighbour = scene.neighbour()?;
    let web = scene.web(0)?;
    daemon.wait()?;
    gap(&daemon, &neighbour, &web)?;
    for time in 1..=TIMES {
        scene.remove(&neighbour, time - 1)?;
        let web = scene.web(time)?;
        gap(&daemon, &neighbour, &web).with_context(|| format!("time {time}"))?;
    }
    Ok(())
}

#[test]
fn and_by_a_daemon_that_starts_afterwards() -> Result<()> {
    let scene = Scene::make()?;
    let mut daemon = Daemon::prepare_beside(&scene.lab, Some(&scene.engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    let neighbour = scene.neighbour()?;
    let web = scene.web(0)?;
    daemon.wait()?;
    gap(&daemon, &neighbour, &web)?;
    for time in 1..=TIMES {
        daemon.kill()?;
        scene.remove(&neighbour, time - 1)?;
        let web = scene.web(time)?;
        ensure!(
            !reached(&neighbour, &web, true)?,
            "nothing is to be mended here: the neighbour knows the new one"
        );
        daemon.launch()?;
        daemon.wait()?;
        gap(&daemon, &neighbour, &web).with_context(|| format!("time {time}"))?;
    }
    Ok(())
}
