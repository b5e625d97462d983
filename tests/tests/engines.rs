//! The whole daemon beside several engines at once: each has containers of its own, and none waits for another one.
//! Needs root, dockerd, podman, docker(1) and busybox.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpol_engine::policy::Protocol;
use netpold::probe::{Outcome, Probe};
use netpold_tests::docker::Running;
use netpold_tests::patience::within;
use netpold_tests::{Daemon, Engine, Lab, residue};
use serde_json::Value;

const IDLE: [&str; 2] = ["sleep", "1000"];

/// A policy for `app: db`: only `web` may, on 5432.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db}\n\
    spec:\n  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n  ingress:\n  \
    - from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: 5432}]\n";

fn run(engine: &Engine, name: &str, app: &str, options: &[&str]) -> Result<Running> {
    let label = format!("app={app}");
    let options = [&["--label", &label], options].concat();
    engine.run(name, &options, &IDLE)
}

fn outcome(from: &Running, to: &Running, port: u16) -> Result<Outcome> {
    let probe = Probe {
        from: from.netns(),
        source: *from.addresses.first().context("no address")?,
        to: Some(to.netns()),
        destination: SocketAddr::new(*to.addresses.first().context("no address")?, port),
        protocol: Protocol::Tcp,
        timeout: Duration::from_millis(800),
    };
    Ok(probe.run()?)
}

fn status(daemon: &Daemon) -> Result<(Option<i32>, Value)> {
    let said = daemon.netpol(&["status", "-o", "json"])?;
    Ok((said.status.code(), serde_json::from_slice(&said.stdout)?))
}

fn expect(daemon: &Daemon, rows: &[(&Running, &Running, u16, bool)]) -> Result<()> {
    for (from, to, port, allowed) in rows {
        let outcome = outcome(from, to, *port)?;
        ensure!(
            (outcome == Outcome::Reached) == *allowed,
            "{} ({}) to {} {port}: {outcome:?}, expected allowed: {allowed}\n{}\n{}",
            from.name,
            &from.id[..12],
            to.name,
            status(daemon)?.1,
            daemon.log()
        );
    }
    Ok(())
}

fn endpoints(daemon: &Daemon) -> Result<Vec<String>> {
    let (_, status) = status(daemon)?;
    let all = status["endpoints"].as_array().context("no endpoints")?;
    let names = all.iter().filter_map(|one| one["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

/// How each engine stands, by its socket.
fn connected(daemon: &Daemon, socket: &Path) -> Result<Option<bool>> {
    let (_, status) = status(daemon)?;
    let all = status["runtimes"].as_array().context("no runtimes")?;
    let socket = socket.display().to_string();
    let one = all.iter().find(|one| one["socket"] == socket.as_str());
    Ok(one.and_then(|one| one["connected"].as_bool()))
}

fn until_connected(daemon: &Daemon, socket: &Path) -> Result<()> {
    let connected = || Ok(connected(daemon, socket)? == Some(true));
    within("the engine's answer", connected)
        .with_context(|| format!("{:?}\n{}", status(daemon), daemon.log()))
}

/// A second dockerd in the same lab: on a bridge that has no engine's name.
fn second(lab: &Lab) -> Result<Engine> {
    let host = lab.host();
    host.ip(&["link", "add", "shop0", "type", "bridge"])?;
    host.ip(&["addr", "add", "172.29.0.1/16", "dev", "shop0"])?;
    host.ip(&["link", "set", "shop0", "up"])?;
    Engine::start(lab, &["--bridge", "shop0"])
}

#[test]
fn two_engines_have_containers_of_one_name_and_neither_waits_for_the_other() -> Result<()> {
    let lab = Lab::new()?;
    lab.host().route_packets()?;
    let (one, mut other) = (Engine::start(&lab, &[])?, second(&lab)?);
    let db = run(&one, "db", "db", &[])?;
    let twin = run(&other, "db", "db", &[])?;
    let sockets = [one.socket(), other.socket()];
    let mut daemon = Daemon::prepare_beside_all(&lab, &sockets, "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    daemon.wait()?;
    let web = run(&one, "web", "web", &[])?;
    let stranger = run(&other, "web", "stranger", &[])?;
    daemon.wait()?;
    let rows = [
        (&web, &db, 5432, true),
        (&web, &db, 5433, false),
        // Across engines, as if they were one.
        (&web, &twin, 5432, true),
        (&stranger, &twin, 5432, false),
        (&stranger, &db, 5432, false),
        (&db, &web, 5432, true),
    ];
    expect(&daemon, &rows)?;
    let names = endpoints(&daemon)?;
    ensure!(names.len() == 4, "{names:?}");
    ensure!(names.contains(&"db".to_owned()) && names.contains(&"web".to_owned()));
    ensure!(
        names.contains(&format!("web-{}", &stranger.id[..12])),
        "{names:?}"
    );
    for engine in [&one, &other] {
        ensure!(connected(&daemon, &engine.socket())? == Some(true));
    }
    // One is killed: its containers stay what they were, and the other's come and go.
    other.kill()?;
    within("that it is gone", || {
        Ok(connected(&daemon, &other.socket())? == Some(false))
    })?;
    let late = run(&one, "late", "web", &[])?;
    daemon.wait()?;
    expect(
        &daemon,
        &[(&late, &db, 5432, true), (&late, &db, 5433, false)],
    )?;
    expect(&daemon, &rows)?;
    // Also for a netpold that starts while one does not answer.
    daemon.stop()?;
    daemon.launch()?;
    daemon.wait()?;
    expect(&daemon, &rows)?;
    ensure!(endpoints(&daemon)?.len() == 5, "{:?}", endpoints(&daemon)?);
    let newest = run(&one, "newest", "other", &[])?;
    daemon.wait()?;
    expect(
        &daemon,
        &[(&newest, &db, 5432, false), (&db, &newest, 5432, true)],
    )?;
    other.launch()?;
    until_connected(&daemon, &other.socket())?;
    let name = lab.name.clone();
    drop((daemon, one, other, lab));
    residue::check(&name)
}

#[test]
fn podman_beside_docker_is_picked_up_when_it_starts() -> Result<()> {
    let lab = Lab::new()?;
    lab.host().route_packets()?;
    let docker = Engine::start(&lab, &[])?;
    let directory = tempfile::tempdir()?;
    // As `podman-docker` has it: another name of one engine's socket.
    let another_name = directory.path().join("docker.sock");
    symlink(docker.socket(), &another_name)?;
    let later = directory.path().join("podman/podman.sock");
    let sockets = [docker.socket(), another_name, later.clone()];
    let mut daemon = Daemon::prepare_beside_all(&lab, &sockets, "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    daemon.wait()?;
    let web = run(&docker, "db", "web", &[])?;
    daemon.wait()?;
    let (code, said) = status(&daemon)?;
    ensure!(
        code == Some(0) && said["runtimes"].as_array().map(Vec::len) == Some(1),
        "{said}"
    );
    ensure!(endpoints(&daemon)? == ["db"]);
    let podman = Engine::start_podman(&lab)?;
    let db = run(&podman, "db", "db", &[])?;
    std::fs::create_dir(directory.path().join("podman"))?;
    symlink(podman.socket(), &later)?;
    until_connected(&daemon, &later)?;
    daemon.wait()?;
    let other = run(&podman, "other", "other", &[])?;
    daemon.wait()?;
    expect(
        &daemon,
        &[
            (&web, &db, 5432, true),
            (&web, &db, 5433, false),
            (&other, &db, 5432, false),
            (&db, &web, 5432, true),
        ],
    )?;
    let names = endpoints(&daemon)?;
    ensure!(
        names.len() == 3 && names.contains(&"db".to_owned()),
        "{names:?}"
    );
    let name = lab.name.clone();
    drop((daemon, docker, podman, lab));
    residue::check(&name)
}
