//! What `netpol status` says first, and how it exits, as each thing breaks and heals: manifests, an engine, the state
//! directory, the daemon itself. Needs root, dockerd and busybox.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use netpold::api::wire::{HealthItem, Severity, Status};
use netpold::netns;
use netpold_tests::starting_container::gate;
use netpold_tests::time_scale::within;
use netpold_tests::{Daemon, Engine, Lab, residue};

/// Selects a Pod that does not exist, in both directions: no lint has anything to say.
const SHUT: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shut, namespace: default}\n\
    spec: {podSelector: {}, policyTypes: [Ingress]}\n";

/// Exit code, and the codes of the problems.
fn status(daemon: &Daemon) -> Result<(Option<i32>, Vec<String>)> {
    let config = daemon.config().display().to_string();
    let output = daemon.netpol(&["status", "--config", &config, "-o", "json"])?;
    let status: Status = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let codes = status.problems.into_iter().map(|item| item.code);
    Ok((output.status.code(), codes.collect()))
}

/// It comes to be so: this exit code, and these problems that are errors.
fn becomes(daemon: &Daemon, exit: i32, expected: &[&str]) -> Result<()> {
    let mut last = None;
    within("the status", || {
        let (code, mut codes) = status(daemon)?;
        codes.retain(|code| code != "manifest-warning");
        let is_so = code == Some(exit) && codes == expected;
        last = Some((code, codes));
        Ok(is_so)
    })
    .with_context(|| format!("{last:?}, and not {exit} {expected:?}\n{}", daemon.log()))
}

fn text(daemon: &Daemon) -> Result<String> {
    let config = daemon.config().display().to_string();
    let output = daemon.netpol(&["status", "--config", &config])?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn each_fault_is_said_first_and_its_end_too() -> Result<()> {
    let lab = Lab::new()?;
    let mut engine = Engine::start(&lab, &[])?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.state_on_a_small_disk()?;
    daemon.put("shut.yaml", SHUT)?;
    daemon.launch()?;
    engine.run("db", &[], &["sleep", "100000"])?;
    daemon.wait()?;
    becomes(&daemon, 0, &[])?;
    let said = text(&daemon)?;
    ensure!(said.starts_with("ENFORCING"), "{said}");

    daemon.put("broken.yaml", &SHUT.replace("podSelector", "podSelectr"))?;
    becomes(&daemon, 1, &["rejected-manifest"])?;
    let said = text(&daemon)?;
    let second = said.lines().nth(1).unwrap_or_default();
    ensure!(
        said.starts_with("FALLS SHORT (1 error") && second.contains("rejected-manifest"),
        "{said}"
    );
    daemon.remove("broken.yaml")?;
    becomes(&daemon, 0, &[])?;

    engine.stop()?;
    becomes(&daemon, 1, &["engine-gone"])?;
    engine.launch()?;
    engine.docker(&["start", "db"])?;
    becomes(&daemon, 0, &[])?;

    // What a restart needs no longer fits.
    let filler = daemon.fill_state()?;
    engine.run("web", &[], &["sleep", "100000"])?;
    becomes(&daemon, 1, &["state-not-saved"])?;
    fs::remove_file(filler)?;
    becomes(&daemon, 0, &[])?;

    daemon.put(
        "audit.yaml",
        &SHUT.replace(
            "name: shut,",
            "name: tried, annotations: {netpold.io/mode: audit},",
        ),
    )?;
    becomes(&daemon, 0, &["only-audited"])?;
    daemon.remove("audit.yaml")?;
    becomes(&daemon, 0, &[])?;

    daemon.kill()?;
    becomes(&daemon, 2, &["no-daemon"])?;
    let said = text(&daemon)?;
    let joined = said.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(
        said.starts_with("NOT RUNNING")
            && joined.contains("stays in force as it was on 2 interfaces"),
        "{said}"
    );
    daemon.launch()?;
    becomes(&daemon, 0, &[])?;
    let name = lab.name.clone();
    drop((daemon, engine, lab));
    residue::check(&name)
}

/// A user without rights, with this user's own group alone.
fn asked_by_a_user(daemon: &Daemon) -> Result<Output> {
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(netpold_tests::daemon::binary("netpol")?)
        .arg("--socket")
        .arg(daemon.socket())
        .args(["get", "pods", "-A"])
        .output()?;
    Ok(output)
}

#[test]
fn members_of_the_group_may_ask_without_root() -> Result<()> {
    let group = nix::unistd::Group::from_gid(65534.into())?.context("no group 65534")?;
    for (settings, exit) in [(String::new(), 2), (format!("group = {:?}", group.name), 0)] {
        let lab = Lab::new()?;
        let mut daemon = Daemon::prepare(&lab, &settings)?;
        let directory = daemon.socket();
        let directory = directory.parent().context("no directory")?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
        daemon.launch()?;
        daemon.wait()?;
        let output = asked_by_a_user(&daemon)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(exit), "{settings}: {said}");
        ensure!((exit == 0) != said.contains("no right to use"), "{said}");
    }
    Ok(())
}

/// What `netpol doctor` says in the lab's host, by check: its severity, and whether it exits with 0.
fn doctor(lab: &Lab, daemon: &Daemon) -> Result<(bool, BTreeMap<String, Vec<HealthItem>>)> {
    let (netpol, config, socket) = (
        netpold_tests::daemon::binary("netpol")?,
        daemon.config(),
        daemon.socket(),
    );
    let output = netns::inside(&lab.host().path(), move || {
        Command::new(netpol)
            .arg("--socket")
            .arg(socket)
            .args(["doctor", "-o", "json", "--config"])
            .arg(config)
            .output()
    })??;
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let checks: Vec<HealthItem> = serde_json::from_value(report["checks"].clone())?;
    let mut all: BTreeMap<String, Vec<HealthItem>> = BTreeMap::new();
    for item in checks {
        all.entry(item.code.clone()).or_default().push(item);
    }
    Ok((output.status.success(), all))
}

#[test]
fn the_doctor_finds_each_fault_of_a_host() -> Result<()> {
    let lab = Lab::new()?;
    let mut engine = Engine::start(&lab, &[])?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    let worst = |all: &BTreeMap<String, Vec<HealthItem>>, code: &str| {
        all.get(code)
            .and_then(|items| items.iter().map(|item| item.severity).min())
    };
    let (sound, all) = doctor(&lab, &daemon)?;
    ensure!(
        !sound && worst(&all, "daemon") == Some(Severity::Error),
        "{all:?}"
    );
    ensure!(worst(&all, "gate") == Some(Severity::Warning), "{all:?}");

    gate(&lab, &daemon.config(), "install")?;
    daemon.launch()?;
    let options = [
        "--opt",
        "com.docker.network.bridge.enable_icc=false",
        "quiet",
    ];
    engine.docker(&[&["network", "create"], &options[..]].concat())?;
    engine.run("db", &[], &["sleep", "100000"])?;
    daemon.wait()?;
    let (sound, all) = doctor(&lab, &daemon)?;
    ensure!(sound, "{all:?}");
    for code in [
        "kernel",
        "bpf-file-system",
        "nft",
        "engines",
        "daemon",
        "other-programs",
        "configuration",
    ] {
        let found = worst(&all, code);
        ensure!(found >= Some(Severity::Note), "{code}: {all:?}");
    }
    let quiet = all.get("engine-isolation").into_iter().flatten();
    ensure!(
        quiet
            .clone()
            .any(|item| item.subject.starts_with("network quiet")
                && item.text.contains("enable_icc")),
        "{all:?}"
    );
    let codes: Vec<&String> = all.keys().collect();
    let known = netpold::cli::CHECKS.iter();
    ensure!(
        known
            .clone()
            .all(|check| codes.iter().any(|code| *code == check.code)),
        "{codes:?}"
    );

    // Flushed while nothing restores it.
    daemon.stop()?;
    lab.host().nft(&["flush", "table", "bridge", "netpold"])?;
    engine.stop()?;
    let dead = std::os::unix::net::UnixListener::bind(engine.socket());
    drop(dead);
    let (sound, all) = doctor(&lab, &daemon)?;
    ensure!(!sound, "{all:?}");
    for code in ["gate", "engines", "daemon"] {
        ensure!(
            worst(&all, code) == Some(Severity::Error),
            "{code}: {all:?}"
        );
    }
    let text = fs::read_to_string(daemon.config())?;
    let elsewhere = daemon.state().join("pins");
    let pins = format!("pin-directory = {:?}", daemon.pins());
    fs::write(
        daemon.config(),
        text.replace(&pins, &format!("pin-directory = {elsewhere:?}")),
    )?;
    let (_, all) = doctor(&lab, &daemon)?;
    ensure!(
        worst(&all, "bpf-file-system") == Some(Severity::Error),
        "{all:?}"
    );
    fs::write(daemon.config(), "[enforcement]\nmode = 5\n")?;
    let (_, all) = doctor(&lab, &daemon)?;
    ensure!(
        worst(&all, "configuration") == Some(Severity::Error),
        "{all:?}"
    );
    fs::write(daemon.config(), text)?;
    Ok(())
}
