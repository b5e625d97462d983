//! The whole daemon beside a Docker engine of its own. Needs root, dockerd and busybox.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpol_engine::policy::Protocol;
use netpold::probe::{Outcome, Probe};
use netpold_tests::docker::Running;
use netpold_tests::{Daemon, Engine, Lab, residue};

const IDLE: [&str; 2] = ["sleep", "1000"];

/// A policy for the service `db` of the project `shop`: only its `web` may, on 5432.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: shop}\n\
    spec:\n  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n  ingress:\n  \
    - from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: 5432}]\n";

fn service(engine: &Engine, name: &str, options: &[&str], command: &[&str]) -> Result<Running> {
    let label = format!("com.docker.compose.service={name}");
    let mut all = vec![
        "--label",
        "com.docker.compose.project=shop",
        "--label",
        &label,
    ];
    all.extend(options);
    engine.run(&format!("shop-{name}"), &all, command)
}

fn outcome(from: &Running, to: &Running, protocol: Protocol, port: u16) -> Result<Outcome> {
    let probe = Probe {
        from: from.netns(),
        source: *from.addresses.first().context("no address")?,
        to: Some(to.netns()),
        destination: SocketAddr::new(*to.addresses.first().context("no address")?, port),
        protocol,
        timeout: Duration::from_millis(800),
    };
    Ok(probe.run()?)
}

fn expect(
    daemon: &Daemon,
    (from, to): (&Running, &Running),
    port: u16,
    allowed: bool,
) -> Result<()> {
    let outcome = outcome(from, to, Protocol::Tcp, port)?;
    ensure!(
        (outcome == Outcome::Reached) == allowed,
        "{} to {} {port}: {outcome:?}, expected allowed: {allowed}\n{}\n{}",
        from.name,
        to.name,
        String::from_utf8_lossy(&daemon.netpol(&["status", "-o", "json"])?.stdout),
        daemon.log()
    );
    Ok(())
}

fn status(daemon: &Daemon) -> Result<serde_json::Value> {
    Ok(serde_json::from_slice(
        &daemon.netpol(&["status", "-o", "json"])?.stdout,
    )?)
}

#[test]
fn labels_decide_about_containers_old_and_new() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    engine.docker(&["network", "create", "shop"])?;
    let on = ["--network", "shop"];
    let db = service(&engine, "db", &on, &IDLE)?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    daemon.wait()?;
    let web = service(&engine, "web", &on, &IDLE)?;
    let other = service(&engine, "other", &on, &IDLE)?;
    daemon.wait()?;
    expect(&daemon, (&web, &db), 5432, true)?;
    expect(&daemon, (&web, &db), 5433, false)?;
    expect(&daemon, (&other, &db), 5432, false)?;
    expect(&daemon, (&db, &other), 5432, true)?;

    // A daemon that starts beside an engine that is gone knows them still.
    daemon.kill()?;
    daemon.launch()?;
    daemon.wait()?;
    expect(&daemon, (&web, &db), 5432, true)?;
    expect(&daemon, (&other, &db), 5432, false)?;

    // Restarted, it is another process in another namespace.
    engine.docker(&["restart", "--time", "0", "shop-other"])?;
    daemon.wait()?;
    let other = engine.inspect("shop-other")?;
    expect(&daemon, (&other, &db), 5432, false)?;
    expect(&daemon, (&web, &other), 5432, true)?;
    engine.docker(&["rm", "--force", "shop-other"])?;
    daemon.wait()?;
    let endpoints = status(&daemon)?["endpoints"].to_string();
    ensure!(
        endpoints.contains("shop-db") && !endpoints.contains("shop-other"),
        "{endpoints}"
    );
    let name = lab.name.clone();
    drop((daemon, engine, lab));
    residue::check(&name)
}

#[test]
fn a_container_never_sends_what_is_denied_and_its_first_connection_arrives() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    daemon.wait()?;
    let serve = [
        "sh",
        "-c",
        "while true; do nc -l -p 5432 -e echo hello; done",
    ];
    let db = service(&engine, "db", &[], &serve)?;
    let address = db.addresses[0].to_string();
    let dial = format!("nc -w 1 {address} 5432 </dev/null");
    // `docker run` in the foreground: the container's first packet is its SYN.
    for (name, allowed) in [("web", true), ("other", false), ("web2", false)] {
        let label = format!("com.docker.compose.service={name}");
        let answer = engine.docker(&[
            "run",
            "--rm",
            "--label",
            "com.docker.compose.project=shop",
            "--label",
            &label,
            netpold_tests::docker::IMAGE,
            "sh",
            "-c",
            &format!("for i in 1 2 3; do {dial} && exit 0; done; echo no"),
        ])?;
        ensure!(
            (answer == "hello") == allowed,
            "{name}: {answer}\n{}",
            daemon.log()
        );
    }
    Ok(())
}

#[test]
fn joined_containers_are_their_owners_and_the_hosts_are_reported() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    let db = service(&engine, "db", &[], &IDLE)?;
    let web = service(&engine, "web", &[], &IDLE)?;
    let joined = service(
        &engine,
        "joined",
        &["--network", "container:shop-web"],
        &IDLE,
    )?;
    service(&engine, "hosty", &["--network", "host"], &IDLE)?;
    service(&engine, "lonely", &["--network", "none"], &IDLE)?;
    daemon.wait()?;
    let joined = Running {
        addresses: web.addresses.clone(),
        ..joined
    };
    expect(&daemon, (&joined, &db), 5432, true)?;
    let status = status(&daemon)?;
    let endpoints = status["endpoints"].as_array().context("no endpoints")?;
    ensure!(endpoints.len() == 2, "{status}");
    let unprotected = status["unprotected"].as_array().context("none")?;
    ensure!(
        unprotected.len() == 1 && unprotected[0]["container"] == "shop/shop-hosty",
        "{status}"
    );
    Ok(())
}

#[test]
fn without_its_engine_what_was_enforced_stays() -> Result<()> {
    let lab = Lab::new()?;
    let mut engine = Engine::start(&lab, &["--live-restore"])?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    let db = service(&engine, "db", &[], &IDLE)?;
    let web = service(&engine, "web", &[], &IDLE)?;
    let other = service(&engine, "other", &[], &IDLE)?;
    daemon.wait()?;
    let enforced = |daemon: &Daemon| -> Result<()> {
        expect(daemon, (&web, &db), 5432, true)?;
        expect(daemon, (&other, &db), 5432, false)
    };
    enforced(&daemon)?;
    engine.stop()?;
    enforced(&daemon).context("the engine has ended")?;
    let before = status(&daemon)?["endpoints"].clone();
    daemon.kill()?;
    daemon.launch()?;
    daemon.wait()?;
    enforced(&daemon).context("the engine and the daemon have ended")?;
    // Policy changes without the engine, too.
    daemon.put("policy.yaml", &POLICY.replace("app: web", "app: other"))?;
    daemon.wait()?;
    expect(&daemon, (&web, &db), 5432, false)?;
    expect(&daemon, (&other, &db), 5432, true)?;
    daemon.put("policy.yaml", POLICY)?;
    engine.launch()?;
    daemon.wait()?;
    enforced(&daemon).context("the engine is back")?;
    let numbers = |endpoints: &serde_json::Value| -> Vec<(String, u64)> {
        let all = endpoints.as_array().into_iter().flatten();
        all.map(|one| (one["name"].to_string(), one["id"].as_u64().unwrap_or(0)))
            .collect()
    };
    let after = status(&daemon)?["endpoints"].clone();
    ensure!(numbers(&before) == numbers(&after), "{before} {after}");
    Ok(())
}

#[test]
fn every_network_of_a_container_and_both_families() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    engine.docker(&["network", "create", "front"])?;
    let dual = [
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "fd00:77::/64",
        "back",
    ];
    engine.docker(&dual)?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    let db = service(&engine, "db", &["--network", "front"], &IDLE)?;
    let web = service(&engine, "web", &["--network", "back"], &IDLE)?;
    let other = service(&engine, "other", &["--network", "back"], &IDLE)?;
    // A network that a running container gets later, with IPv6, is enforced like the first.
    engine.docker(&["network", "connect", "back", "shop-db"])?;
    daemon.wait()?;
    let first = db.addresses.clone();
    let db = engine.inspect("shop-db")?;
    let added: Vec<_> = db
        .addresses
        .iter()
        .filter(|address| !first.contains(address))
        .collect();
    ensure!(
        added.iter().any(|address| address.is_ipv6()),
        "no IPv6 address: {db:?}"
    );
    ensure!(
        added.iter().any(|address| address.is_ipv4()),
        "no IPv4 address: {db:?}"
    );
    for address in added {
        for (from, allowed) in [(&web, true), (&other, false)] {
            let same_family = |own: &&std::net::IpAddr| own.is_ipv4() == address.is_ipv4();
            let source = *from
                .addresses
                .iter()
                .find(same_family)
                .context("no such family")?;
            let to = Running {
                addresses: vec![*address],
                ..db.clone()
            };
            let from = Running {
                addresses: vec![source],
                ..from.clone()
            };
            expect(&daemon, (&from, &to), 5432, allowed)?;
            expect(&daemon, (&from, &to), 5433, false)?;
        }
    }
    // And taken off again: nothing of the container is left behind on that bridge.
    engine.docker(&["network", "disconnect", "back", "shop-db"])?;
    daemon.wait()?;
    let status = status(&daemon)?;
    let endpoints = status["endpoints"].as_array().context("endpoints")?;
    let db = endpoints
        .iter()
        .find(|endpoint| endpoint["name"] == "shop-db")
        .context("shop-db")?;
    ensure!(
        db["interfaces"]
            .as_array()
            .is_some_and(|all| all.len() == 1),
        "{db}"
    );
    ensure!(!db["addresses"].to_string().contains("fd00:77:"), "{db}");
    let name = lab.name.clone();
    drop((daemon, engine, lab));
    residue::check(&name)
}
