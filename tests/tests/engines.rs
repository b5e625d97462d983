//! The whole daemon beside several engines at once: each has containers of its own, and none waits for another one.
//! Needs root, dockerd, podman, docker(1) and busybox.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpol_engine::policy::Protocol;
use netpold::probe::{Outcome, Probe};
use netpold_tests::docker::{IMAGE, Running};
use netpold_tests::starting_container::gate;
use netpold_tests::time_scale::{within, within_time};
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

fn status(daemon: &Daemon) -> Result<(Option<i32>, Value)> {
    let said = daemon.netpol(&["status", "-o", "json"])?;
    Ok((said.status.code(), serde_json::from_slice(&said.stdout)?))
}

fn expect(daemon: &Daemon, rows: &[(&Running, &Running, u16, bool)]) -> Result<()> {
    for (from, to, port, allowed) in rows {
        let outcome = from.dial(to, *port)?;
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

/// What is said of interfaces that no policy reaches, once it is said of so many.
fn unreached(daemon: &Daemon, number: usize) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    // Ten seconds, and an answer of each engine.
    within_time(Duration::from_secs(40), "what no policy reaches", || {
        let (code, said) = status(daemon)?;
        found = said["unreached"].as_array().cloned().unwrap_or_default();
        // It is said by the exit code, too.
        ensure!((code == Some(0)) == found.is_empty(), "{code:?} {said}");
        Ok(found.len() == number)
    })
    .with_context(|| format!("{number} expected: {found:?}\n{}", daemon.log()))?;
    Ok(found)
}

/// What is said of the one on this bridge: what passes, and where it leads to, and what is to be done has these words.
fn expect_unreached(
    found: &[Value],
    bridge: &str,
    passes: bool,
    container: &Running,
    help: &str,
) -> Result<()> {
    let on_it = |one: &&Value| {
        one["bridge"]
            .as_str()
            .is_some_and(|it| it.starts_with(bridge))
    };
    let one = found.iter().find(on_it);
    let one = one.with_context(|| format!("none on {bridge}: {found:?}"))?;
    let has = |field: &str, words: &str| one[field].as_str().is_some_and(|it| it.contains(words));
    ensure!(
        one["passes"] == passes
            && has("leads_to", &format!("container {} of", &container.id[..12]))
            && has("help", help),
        "expected to pass: {passes}, {}, {help}: {one:#}",
        container.id
    );
    Ok(())
}

/// The log warns of an interface once, and says when that is over.
fn expect_log(daemon: &Daemon, number: usize) -> Result<()> {
    let log = daemon.log();
    let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    let (said, over) = (
        lines("no policy reaches the interface: "),
        lines("no longer: no policy reaches the interface"),
    );
    ensure!((said, over) == (number, number), "{said} and {over}\n{log}");
    Ok(())
}

#[test]
fn a_second_docker_engine_that_is_not_followed_is_named_with_its_socket() -> Result<()> {
    let lab = Lab::new()?;
    lab.host().route_packets()?;
    let (one, other) = (Engine::start(&lab, &[])?, second(&lab)?);
    // On a bridge of no engine's name, which has no owner, and on one that may be the first engine's.
    let open = run(&other, "open", "web", &[])?;
    other.docker(&["network", "create", "--subnet", "172.28.0.0/16", "own"])?;
    let shut = run(&other, "shut", "db", &["--network", "own"])?;
    let metrics = "[metrics]\nlisten = \"127.0.0.1:9469\"";
    let mut daemon = Daemon::prepare_beside_all(&lab, &[one.socket()], metrics)?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    daemon.wait()?;
    let (code, said) = status(&daemon)?;
    ensure!(code == Some(0), "said before its time: {said}");
    let found = unreached(&daemon, 2)?;
    let help = format!("\"{}\" to `[docker] sockets`", other.socket().display());
    expect_unreached(&found, "shop0", true, &open, &help)?;
    expect_unreached(&found, "br-", false, &shut, &help)?;
    ensure!(daemon.metrics()?["netpold_unreached_interfaces"] == 2);
    let text = daemon.netpol(&["status"])?.stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    for words in ["on shop0: everything passes: ", ": nothing passes: ", &help] {
        ensure!(text.contains(words), "{words}: {text}");
    }
    // One that the first engine has is none of them.
    run(&one, "web", "web", &[])?;
    daemon.wait()?;
    unreached(&daemon, 2)?;
    // The help is right.
    let config = std::fs::read_to_string(daemon.config())?;
    let sockets = |all: &[&Engine]| {
        let all: Vec<_> = all.iter().map(|engine| engine.socket()).collect();
        format!("sockets = {all:?}")
    };
    let config = config.replace(&sockets(&[&one]), &sockets(&[&one, &other]));
    std::fs::write(daemon.config(), config)?;
    daemon.stop()?;
    daemon.launch()?;
    daemon.wait()?;
    until_connected(&daemon, &other.socket())?;
    daemon.wait()?;
    unreached(&daemon, 0)?;
    expect(
        &daemon,
        &[(&open, &shut, 5432, true), (&open, &shut, 5433, false)],
    )?;
    let name = lab.name.clone();
    drop((daemon, one, other, lab));
    residue::check(&name)
}

/// A container that podman(1) starts, with no service of its API, and the engine.
fn podman_alone(lab: &Lab) -> Result<(Engine, Running)> {
    let mut podman = Engine::start_podman(lab)?;
    podman.stop()?;
    let _ = std::fs::remove_file(podman.socket());
    let arguments = [
        "run",
        "--detach",
        "--name",
        "db",
        "--label",
        "app=db",
        // As when its API is asked to: the controller may not be there.
        "--pids-limit",
        "0",
        IMAGE,
    ];
    podman.podman(&[&arguments[..], &IDLE].concat())?;
    let format = "{{.Id}} {{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let said = podman.podman(&["inspect", "--format", format, "db"])?;
    let mut words = said.split_whitespace();
    let mut word = || words.next().context("podman inspect says too little");
    let db = Running {
        name: "db".to_owned(),
        id: word()?.to_owned(),
        pid: word()?.parse()?,
        addresses: vec![word()?.parse().with_context(|| said.clone())?],
    };
    Ok((podman, db))
}

#[test]
fn podman_without_its_service_beside_docker_is_named_until_that_runs() -> Result<()> {
    let lab = Lab::new()?;
    lab.host().route_packets()?;
    let docker = Engine::start(&lab, &[])?;
    let (mut podman, db) = podman_alone(&lab)?;
    let sockets = [docker.socket(), podman.socket()];
    let mut daemon = Daemon::prepare_beside_all(&lab, &sockets, "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    let web = run(&docker, "web", "web", &[])?;
    daemon.wait()?;
    let found = unreached(&daemon, 1)?;
    expect_unreached(&found, "", false, &db, "start Podman's API")?;
    podman.launch()?;
    until_connected(&daemon, &podman.socket())?;
    daemon.wait()?;
    unreached(&daemon, 0)?;
    expect_log(&daemon, 1)?;
    expect(
        &daemon,
        &[(&web, &db, 5432, true), (&web, &db, 5433, false)],
    )?;
    let name = lab.name.clone();
    drop((daemon, docker, podman, lab));
    residue::check(&name)
}

/// What no policy can select is not cut, and is said.
#[test]
fn containers_pass_and_are_named_where_no_engine_is_there() -> Result<()> {
    let lab = Lab::new()?;
    lab.host().route_packets()?;
    let (mut podman, db) = podman_alone(&lab)?;
    let mut daemon = Daemon::prepare_beside_all(&lab, &[podman.socket()], "")?;
    daemon.put("policy.yaml", POLICY)?;
    gate(&lab, &daemon.config(), "install")?;
    daemon.launch()?;
    daemon.wait()?;
    let found = unreached(&daemon, 1)?;
    expect_unreached(&found, "", true, &db, "start Podman's API")?;
    let host = format!("/proc/{}/ns/net", daemon.pid().context("it has ended")?);
    let probe = Probe {
        from: host.into(),
        source: gateway(&db)?,
        to: Some(db.netns()),
        destination: SocketAddr::new(db.addresses[0], 5433),
        protocol: Protocol::Tcp,
        timeout: Duration::from_millis(800),
    };
    ensure!(
        probe.run()? == Outcome::Reached,
        "what no policy can select is cut"
    );
    podman.launch()?;
    until_connected(&daemon, &podman.socket())?;
    daemon.wait()?;
    unreached(&daemon, 0)?;
    expect_log(&daemon, 1)?;
    let web = run(&podman, "web", "web", &[])?;
    daemon.wait()?;
    expect(
        &daemon,
        &[(&web, &db, 5432, true), (&web, &db, 5433, false)],
    )?;
    let name = lab.name.clone();
    drop((daemon, podman, lab));
    residue::check(&name)
}

/// As a rootless engine has it: its bridge, and the host's ends of its veths, are in a network namespace of its own. So its
/// containers are enforced inside, and what they can do there about the programs is said.
#[test]
fn containers_of_an_engine_with_networks_out_of_sight_are_enforced_inside() -> Result<()> {
    let lab = Lab::new()?;
    let podman = Engine::start_podman_out_of_sight(&lab)?;
    let (web, db) = (
        run(&podman, "web", "web", &["--cap-drop", "NET_RAW"])?,
        run(&podman, "db", "db", &["--cap-drop", "NET_RAW"])?,
    );
    run(&podman, "none", "db", &["--network", "none"])?;
    let mut daemon = Daemon::prepare_beside_all(&lab, &[podman.socket()], "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    let unprotected = || -> Result<Vec<String>> {
        daemon.wait()?;
        let (code, status) = status(&daemon)?;
        let all = status["unprotected"].as_array().context("no list")?;
        ensure!((code == Some(1)) != all.is_empty(), "{code:?} {status}");
        ensure!(
            all.iter().all(|one| one["reason"]
                .as_str()
                .is_some_and(|reason| reason.starts_with("it has NET_RAW"))),
            "{status}"
        );
        let names = all.iter().filter_map(|one| one["container"].as_str());
        Ok(names.map(str::to_owned).collect())
    };
    ensure!(unprotected()?.is_empty());
    ensure!(web.dial(&db, 5432)? == Outcome::Reached);
    ensure!(web.dial(&db, 5433)? != Outcome::Reached);
    // One that comes while netpold runs, and one that goes.
    let late = run(&podman, "late", "web", &["--cap-add", "NET_RAW"])?;
    within("late", || Ok(unprotected()? == ["default/late"]))?;
    ensure!(late.dial(&db, 5432)? == Outcome::Reached);
    ensure!(late.dial(&db, 5433)? != Outcome::Reached);
    podman.docker(&["kill", "late"])?;
    within("the end of late", || Ok(unprotected()?.is_empty()))?;
    let log = daemon.log();
    let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    ensure!(
        lines("WARN netpold::reconcile::report: the container is not protected") == 1
            && lines("no longer: the container is not protected") == 1,
        "{log}"
    );
    let name = lab.name.clone();
    drop((daemon, podman, lab));
    residue::check(&name)
}

/// Two engines draw from one subnet, and one of them has a network namespace of its own. Its container had the address first,
/// and takes it from no container here; both are reached as if no policy were there, which holds for one of them alone.
#[test]
fn an_engine_with_networks_out_of_sight_takes_no_address_here() -> Result<()> {
    let lab = Lab::new()?;
    let apart = Engine::start_podman_out_of_sight(&lab)?;
    let dropped = ["--cap-drop", "NET_RAW"];
    let (web, db) = (
        run(&apart, "web", "web", &dropped)?,
        run(&apart, "db", "db", &dropped)?,
    );
    let here = Engine::start_podman(&lab)?;
    let sockets = [apart.socket(), here.socket()];
    let mut daemon = Daemon::prepare_beside_all(&lab, &sockets, "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    daemon.wait()?;
    expect(
        &daemon,
        &[(&web, &db, 5432, true), (&web, &db, 5433, false)],
    )?;
    let address = db.addresses.first().context("no address")?.to_string();
    let own = run(&here, "own", "free", &["--ip", &address])?;
    // An address that no container of the other engine has.
    let peer = run(&here, "peer", "free", &["--ip", "10.88.0.200"])?;
    let unprotected = || -> Result<Vec<String>> {
        daemon.wait()?;
        let (_, status) = status(&daemon)?;
        ensure!(
            status["conflicts"].as_array().is_none_or(Vec::is_empty),
            "{status}"
        );
        let all = status["unprotected"].as_array().context("no list")?;
        let all = all.iter().filter(|one| {
            let reason = one["reason"].as_str().unwrap_or_default();
            reason.contains("a network namespace of its own") && reason.contains(&address)
        });
        let names = all.filter_map(|one| one["container"].as_str());
        Ok(names.map(str::to_owned).collect())
    };
    within("the one apart", || Ok(unprotected()? == ["default/db"]))?;
    ensure!(peer.dial(&own, 80)? == Outcome::Reached, "it is cut");
    ensure!(own.dial(&peer, 80)? == Outcome::Reached, "it is cut");
    ensure!(web.dial(&db, 5433)? == Outcome::Reached, "it is cut");
    here.docker(&["rm", "--force", "own"])?;
    within("it is enforced once more", || Ok(unprotected()?.is_empty()))?;
    expect(
        &daemon,
        &[(&web, &db, 5432, true), (&web, &db, 5433, false)],
    )?;
    let name = lab.name.clone();
    drop((daemon, apart, here, lab));
    residue::check(&name)
}

/// The host's address on a container's network: Podman gives it the first.
fn gateway(container: &Running) -> Result<IpAddr> {
    match container.addresses.first() {
        Some(IpAddr::V4(address)) => {
            let [a, b, c, _] = address.octets();
            Ok(IpAddr::from([a, b, c, 1]))
        }
        _ => anyhow::bail!("no IPv4 address"),
    }
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
