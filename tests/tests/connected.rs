//! Networks that containers get and lose while they run: usable and enforced at once, though an engine tells of them
//! before it has saved them, answers late, or lists what is no more. Needs root, dockerd, podman and busybox.
//! `NPD_CONNECTS` is how often a container is connected.
//!
//! Nothing here waits for the daemon with `netpol wait`, which has the engine asked about everything.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpol_engine::policy::Protocol;
use netpold::probe::{Outcome, Probe};
use netpold_tests::docker::Running;
use netpold_tests::starting_container::gate;
use netpold_tests::{Daemon, Engine, Lab, SlowEngine, residue, scaled};

const IDLE: [&str; 2] = ["sleep", "1000"];

/// Only `web` may reach `db`, on 5432.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: default}\n\
    spec:\n  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n  ingress:\n  \
    - from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: 5432}]\n";

/// How long a new network may take until it can be used.
const SOON: Duration = Duration::from_secs(1);

fn connects(usual: u32) -> Result<u32> {
    match std::env::var("NPD_CONNECTS") {
        Ok(number) => number.parse().context("NPD_CONNECTS is a whole number"),
        Err(_) => Ok(usual),
    }
}

struct Scene {
    db: Running,
    web: Running,
    other: Running,
}

impl Scene {
    /// `db` on one network, `web` and `other` on another one.
    fn make(engine: &Engine) -> Result<Self> {
        engine.docker(&["network", "create", "front"])?;
        engine.docker(&["network", "create", "back"])?;
        let run = |app: &str, network: &str| {
            let label = format!("app={app}");
            engine.run(app, &["--network", network, "--label", &label], &IDLE)
        };
        Ok(Self {
            db: run("db", "front")?,
            web: run("web", "back")?,
            other: run("other", "back")?,
        })
    }
}

fn outcome(from: &Running, to: &Running, address: IpAddr, limit: Duration) -> Result<Outcome> {
    let probe = Probe {
        from: from.netns(),
        source: *from.addresses.first().context("no address")?,
        to: Some(to.netns()),
        destination: SocketAddr::new(address, 5432),
        protocol: Protocol::Tcp,
        timeout: limit,
    };
    Ok(probe.run()?)
}

/// The address of `db` on its second network.
fn second_address(engine: &Engine, db: &Running) -> Result<IpAddr> {
    let now = engine.inspect("db")?;
    let mut added = now
        .addresses
        .iter()
        .filter(|address| !db.addresses.contains(address));
    added.next().copied().context("no second address")
}

/// Connects and disconnects so often. Each time the allowed client gets through soon, and the other one never.
fn connect_often(engine: &Engine, daemon: &Daemon, times: u32, soon: Duration) -> Result<()> {
    let scene = Scene::make(engine)?;
    daemon.wait()?;
    let (mut late, mut worst) = (Vec::new(), Duration::ZERO);
    for time in 0..times {
        engine.docker(&["network", "connect", "back", "db"])?;
        let begun = Instant::now();
        let address = second_address(engine, &scene.db)?;
        let denied = outcome(&scene.other, &scene.db, address, Duration::from_millis(100))?;
        ensure!(denied != Outcome::Reached, "time {time}: {denied:?}");
        loop {
            let reached = outcome(&scene.web, &scene.db, address, Duration::from_millis(250))?;
            if reached == Outcome::Reached {
                break;
            }
            ensure!(
                begun.elapsed() < Duration::from_secs(8),
                "time {time}: {address} is of no use: {reached:?}\n{}",
                daemon.log()
            );
        }
        let took = begun.elapsed();
        worst = worst.max(took);
        if took > soon {
            late.push((time, took));
        }
        let denied = outcome(&scene.other, &scene.db, address, Duration::from_millis(100))?;
        ensure!(denied != Outcome::Reached, "time {time}: {denied:?}");
        engine.docker(&["network", "disconnect", "back", "db"])?;
        let gone = Instant::now();
        while addresses(daemon)?.contains(&address.to_string()) {
            ensure!(
                gone.elapsed() < Duration::from_secs(8),
                "time {time}: {address} is still known\n{}",
                daemon.log()
            );
        }
        if gone.elapsed() > soon {
            late.push((time, gone.elapsed()));
        }
    }
    println!("{times} times, {} late, the worst {worst:?}", late.len());
    ensure!(late.is_empty(), "{late:?}\n{}", daemon.log());
    Ok(())
}

/// All that endpoints have.
fn addresses(daemon: &Daemon) -> Result<String> {
    let status = daemon.netpol(&["status", "-o", "json"])?.stdout;
    let status: serde_json::Value = serde_json::from_slice(&status)?;
    Ok(status["endpoints"].to_string())
}

fn beside(lab: &Lab, socket: &Path) -> Result<Daemon> {
    let mut daemon = Daemon::prepare_beside(lab, Some(socket), "")?;
    daemon.put("policy.yaml", POLICY)?;
    // A busy machine puts the programs on a new interface late: until then, the gate shuts it.
    gate(lab, &daemon.config(), "install")?;
    daemon.launch()?;
    Ok(daemon)
}

#[test]
fn a_network_that_docker_gives_a_running_container_is_usable_at_once() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    let daemon = beside(&lab, &engine.socket())?;
    connect_often(&engine, &daemon, connects(10)?, scaled(SOON))?;
    let name = lab.name.clone();
    drop((daemon, engine, lab));
    residue::check(&name)
}

#[test]
fn and_one_that_podman_gives() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start_podman(&lab)?;
    let daemon = beside(&lab, &engine.socket())?;
    connect_often(&engine, &daemon, connects(5)?, scaled(2 * SOON))
}

/// Each answer late, some of them of before, events twice.
#[test]
fn however_late_and_out_of_order_the_engine_answers() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    let slow = SlowEngine::before(&engine.socket())?;
    let daemon = beside(&lab, &slow.socket())?;
    connect_often(
        &engine,
        &daemon,
        connects(5)?,
        scaled(Duration::from_secs(4)),
    )
}

/// `docker run --link-local-ip`, Compose's `link_local_ips`: an address of the container's own beside the one of the network.
#[test]
fn link_local_addresses_that_docker_gives() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    let daemon = beside(&lab, &engine.socket())?;
    engine.docker(&["network", "create", "shop"])?;
    let run = |app: &str, address: &str| -> Result<Running> {
        let label = format!("app={app}");
        let options = ["--network", "shop", "--label", &label];
        let mut one = engine.run(
            app,
            &[&options[..], &["--link-local-ip", address]].concat(),
            &IDLE,
        )?;
        one.addresses.insert(0, address.parse()?);
        Ok(one)
    };
    let db = run("db", "169.254.34.1")?;
    let web = run("web", "169.254.34.2")?;
    let other = run("other", "169.254.34.3")?;
    daemon.wait()?;
    let dial = |from: &Running, to: &Running| {
        outcome(from, to, to.addresses[0], scaled(Duration::from_secs(2)))
    };
    // Nothing selects `other`; `db` takes `web` alone, whatever address of theirs it is.
    for (from, to, expected) in [
        (&db, &other, Outcome::Reached),
        (&web, &other, Outcome::Reached),
        (&web, &db, Outcome::Reached),
    ] {
        let found = dial(from, to)?;
        ensure!(found == expected, "{} to {}: {found:?}", from.name, to.name);
    }
    let denied = dial(&other, &db)?;
    ensure!(denied != Outcome::Reached, "{denied:?}");
    let known = addresses(&daemon)?;
    for one in [&db, &web, &other] {
        let address = one.addresses[0].to_string();
        ensure!(known.contains(&address), "{address} is not in {known}");
    }
    Ok(())
}
