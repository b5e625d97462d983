//! The whole daemon beside a Docker engine of its own. Needs root, dockerd and busybox.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use netpold::netns;
use netpold::probe::Outcome;
use netpold_tests::docker::Running;
use netpold_tests::{Daemon, Engine, Lab, daemon, residue};

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

fn expect(
    daemon: &Daemon,
    (from, to): (&Running, &Running),
    port: u16,
    allowed: bool,
) -> Result<()> {
    let outcome = from.dial(to, port)?;
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

/// The user who starts a container may choose what is around its control group.
#[test]
fn the_name_of_a_control_group_makes_no_container_another() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    engine.docker(&["network", "create", "--subnet", "172.31.7.0/24", "shop"])?;
    let db = service(&engine, "db", &["--network", "shop"], &IDLE)?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    daemon.wait()?;
    for (name, group) in [("one", "{id}"), ("two", "system.slice/docker-{id}.scope")] {
        // Made, and never started.
        let web = engine.docker(&[
            "create",
            "--network",
            "shop",
            "--label",
            "com.docker.compose.project=shop",
            "--label",
            "com.docker.compose.service=web",
            netpold_tests::docker::IMAGE,
            "true",
        ])?;
        let group = format!("/{}/{}", lab.name, group.replace("{id}", &web));
        let other = service(
            &engine,
            name,
            &["--network", "shop", "--cgroup-parent", &group],
            &IDLE,
        )?;
        daemon.wait()?;
        expect(&daemon, (&other, &db), 5432, false)?;
        expect(&daemon, (&db, &other), 5432, true)?;
        let endpoints = status(&daemon)?["endpoints"].to_string();
        ensure!(endpoints.contains(&format!("shop-{name}")), "{endpoints}");
        engine.docker(&["rm", "--force", &web, &format!("shop-{name}")])?;
    }
    let name = lab.name.clone();
    drop((daemon, engine, lab));
    residue::check(&name)
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
    ensure!(daemon::network_interfaces(db)?.len() == 1, "{db}");
    ensure!(!db["addresses"].to_string().contains("fd00:77:"), "{db}");
    let name = lab.name.clone();
    drop((daemon, engine, lab));
    residue::check(&name)
}

#[test]
fn a_manifest_labels_a_container_that_runs() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    let db = engine.run("plain-db", &[], &IDLE)?;
    let web = service(&engine, "web", &[], &IDLE)?;
    let other = service(&engine, "other", &[], &IDLE)?;
    daemon.wait()?;
    // In another Namespace and without the label, it is not that db.
    expect(&daemon, (&other, &db), 5432, true)?;
    let manifest = |container: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: db, namespace: shop, labels: {{app: db}}, \
             annotations: {{netpold.io/container: '{container}'}}}}\n"
        )
    };
    daemon.put("db.yaml", &manifest("plain-db"))?;
    daemon.wait()?;
    expect(&daemon, (&other, &db), 5432, false)?;
    expect(&daemon, (&web, &db), 5432, true)?;
    // Recreated, it is still meant; and another one by its ID.
    engine.docker(&["rm", "--force", "plain-db"])?;
    let db = engine.run("plain-db", &[], &IDLE)?;
    daemon.wait()?;
    expect(&daemon, (&other, &db), 5432, false)?;
    daemon.put("db.yaml", &manifest(&other.id[..12]))?;
    daemon.wait()?;
    expect(&daemon, (&other, &db), 5432, true)?;
    expect(&daemon, (&db, &other), 5432, false)?;
    daemon.kill()?;
    daemon.launch()?;
    daemon.wait()?;
    expect(&daemon, (&db, &other), 5432, false)?;
    daemon.put("db.yaml", &manifest("nobody"))?;
    daemon.wait()?;
    expect(&daemon, (&db, &other), 5432, true)?;
    let status = status(&daemon)?;
    ensure!(
        status["warnings"].to_string().contains("`nobody`"),
        "{status}"
    );
    Ok(())
}

/// What the engine does with containers that run, and what stays theirs.
#[test]
fn renamed_paused_restarted_and_recreated_at_the_same_address() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    engine.docker(&["network", "create", "--subnet", "172.31.5.0/24", "shop"])?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    let on = ["--network", "shop"];
    let db = service(&engine, "db", &on, &IDLE)?;
    let fixed = ["--network", "shop", "--ip", "172.31.5.77"];
    let web = service(&engine, "web", &fixed, &IDLE)?;
    daemon.wait()?;
    expect(&daemon, (&web, &db), 5432, true)?;

    engine.docker(&["rename", "shop-web", "shop-front"])?;
    engine.docker(&["pause", "shop-front"])?;
    daemon.wait()?;
    expect(&daemon, (&web, &db), 5432, true).context("renamed and paused")?;
    engine.docker(&["unpause", "shop-front"])?;
    daemon.wait()?;
    let endpoints = status(&daemon)?["endpoints"].to_string();
    ensure!(
        endpoints.contains("shop-front") && !endpoints.contains("shop-web"),
        "{endpoints}"
    );

    engine.docker(&["restart", "--time", "0", "shop-front"])?;
    daemon.wait()?;
    let web = engine.inspect("shop-front")?;
    expect(&daemon, (&web, &db), 5432, true).context("restarted")?;

    // Another one gets its address, and none of its rights.
    engine.docker(&["rm", "--force", "shop-front"])?;
    let other = service(&engine, "other", &fixed, &IDLE)?;
    ensure!(other.addresses == web.addresses, "{other:?}");
    daemon.wait()?;
    expect(&daemon, (&other, &db), 5432, false).context("recreated")?;

    // The same while no daemon runs.
    engine.docker(&["rm", "--force", "shop-other"])?;
    let web = service(&engine, "web", &fixed, &IDLE)?;
    daemon.wait()?;
    expect(&daemon, (&web, &db), 5432, true)?;
    daemon.kill()?;
    engine.docker(&["rm", "--force", "shop-web"])?;
    let other = service(&engine, "other", &fixed, &IDLE)?;
    daemon.launch()?;
    daemon.wait()?;
    expect(&daemon, (&other, &db), 5432, false).context("while the daemon was down")
}

/// `compose up --scale`, `network_mode: service:X`, `internal`, and a bridge of another name.
#[test]
fn replicas_shared_namespaces_and_internal_networks() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    engine.docker(&["network", "create", "--internal", "inner"])?;
    let named = [
        "network",
        "create",
        "-o",
        "com.docker.network.bridge.name=lan7",
    ];
    engine.docker(&[&named[..], &["outer"]].concat())?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    for network in ["inner", "outer"] {
        let on = ["--network", network, "--network-alias", "db"];
        let label = ["--label", "com.docker.compose.project=shop", "--label"];
        let labels = |name| [&label[..], &[name], &on[..]].concat();
        let db = labels("com.docker.compose.service=db");
        let first = engine.run(&format!("shop-{network}-db-1"), &db, &IDLE)?;
        let second = engine.run(&format!("shop-{network}-db-2"), &db, &IDLE)?;
        let web = labels("com.docker.compose.service=web");
        let web = engine.run(&format!("shop-{network}-web-1"), &web, &IDLE)?;
        let other = labels("com.docker.compose.service=other");
        let other = engine.run(&format!("shop-{network}-other-1"), &other, &IDLE)?;
        let beside = format!("container:{}", web.id);
        let beside = engine.run(
            &format!("shop-{network}-side-1"),
            &[
                "--network",
                &beside,
                "--label",
                "com.docker.compose.service=other",
            ],
            &IDLE,
        )?;
        let beside = Running {
            addresses: web.addresses.clone(),
            ..beside
        };
        daemon.wait()?;
        for db in [&first, &second] {
            expect(&daemon, (&web, db), 5432, true).context(network)?;
            expect(&daemon, (&beside, db), 5432, true).context(network)?;
            expect(&daemon, (&other, db), 5432, false).context(network)?;
        }
    }
    let status = status(&daemon)?;
    ensure!(
        status["endpoints"]
            .as_array()
            .is_some_and(|all| all.len() == 8),
        "{status}"
    );
    Ok(())
}

/// An address that a container gives itself has no owner, and reaches no Pod; with the label `netpold.io/addresses` it
/// may use it. A label that can't be read gives nothing, and is said.
#[test]
fn an_added_address_needs_the_label() -> Result<()> {
    const ADDED: [&str; 3] = ["172.31.77.200", "172.31.77.201", "172.31.77.202"];
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    engine.docker(&["network", "create", "--subnet", "172.31.77.0/24", "shop"])?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    let on = ["--network", "shop"];
    let with = |label: &'static str| [&on[..], &["--label", label]].concat();
    let web = service(&engine, "web", &on, &IDLE)?;
    let given = service(
        &engine,
        "given",
        &with("netpold.io/addresses=172.31.77.200"),
        &IDLE,
    )?;
    let taken = service(&engine, "taken", &on, &IDLE)?;
    let slip = service(
        &engine,
        "slip",
        &with("netpold.io/addresses=172.31.77.202,172.31.77.300"),
        &IDLE,
    )?;
    daemon.wait()?;
    for (one, address, works) in [
        (&given, ADDED[0], true),
        (&taken, ADDED[1], false),
        (&slip, ADDED[2], false),
    ] {
        let own = format!("{address}/32");
        let mut add = Command::new("ip");
        add.args(["addr", "add", &own, "dev", "eth0"]);
        let output = netns::inside(&one.netns(), move || add.output())??;
        ensure!(output.status.success(), "{output:?}");
        let at = Running {
            name: one.name.clone(),
            id: one.id.clone(),
            pid: one.pid,
            addresses: vec![address.parse()?],
        };
        expect(&daemon, (&web, &at), 5432, works)?;
        expect(&daemon, (&at, &web), 5432, works)?;
        expect(&daemon, (&web, one), 5432, true)?;
    }
    let status = status(&daemon)?;
    let warnings = status["warnings"].to_string();
    ensure!(
        warnings.contains("172.31.77.300") && warnings.contains("netpold.io/addresses"),
        "{status}"
    );
    let flows = daemon.netpol(&["observe", "--verdict", "dropped"])?;
    let flows = String::from_utf8_lossy(&flows.stdout).into_owned();
    ensure!(flows.contains("forged-arp"), "{flows}");
    Ok(())
}
