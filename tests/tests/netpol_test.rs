//! `netpol test` beside a real engine: pairs of one network are tried at the address that both have in it, pairs of none are
//! counted; what something else drops is told from what netpold drops. Needs root, dockerd and busybox.

use std::fs;
use std::process::Output;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use netpold_tests::{Daemon, Engine, Lab};
use serde_json::Value;

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: default}\n\
    spec:\n  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n  ingress:\n  \
    - from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: 5432}]\n";

fn test(daemon: &Daemon, arguments: &[&str]) -> Result<(Option<i32>, Value, Output)> {
    let all = [&["test", "-o", "json", "--timeout", "500ms"], arguments].concat();
    let output = daemon.netpol(&all)?;
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.code(), report, output))
}

#[test]
fn pairs_without_a_network_in_common_are_counted_and_not_tried() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    for network in ["front", "back"] {
        engine.docker(&["network", "create", network])?;
    }
    let run = |name: &str, network: &str| {
        let label = format!("app={name}");
        let options = ["--label", &label, "--network", network];
        engine.run(name, &options, &["sleep", "100000"])
    };
    run("db", "back")?;
    run("web", "front")?;
    run("lone", "front")?;
    // Its first address is in a network that db is not in.
    engine.docker(&["network", "connect", "back", "web"])?;
    daemon.wait()?;
    let (exit, report, _) = test(&daemon, &["--port", "5432"])?;
    ensure!(exit == Some(0), "{report}\n{}", daemon.log());
    // web and db, web and lone, each both ways; not db and lone.
    ensure!(report["tried"] == 4 && report["not_tried"] == 2, "{report}");
    let probes = report["probes"].as_array().context("no probes")?;
    let to_db = probes
        .iter()
        .find(|one| one["to"] == "default/db")
        .context("db")?;
    ensure!(
        to_db["from"] == "default/web"
            && to_db["expected"] == "allowed"
            && to_db["found"] == "reached",
        "{report}"
    );
    let (exit, report, _) = test(&daemon, &["--from", "default/lone", "--port", "80"])?;
    ensure!(exit == Some(0) && report["tried"] == 1, "{report}");

    // The host itself drops what policy allows.
    lab.host().nft(&["table bridge other { chain drops { type filter hook forward priority 0; tcp dport 5432 drop; }; }"])?;
    let (exit, report, _) = test(&daemon, &["--to", "default/db", "--port", "5432"])?;
    ensure!(exit == Some(1) && report["missed"] == 1, "{report}");
    ensure!(report["probes"][0]["dropped"].is_null(), "{report}");
    let text = daemon.netpol(&[
        "test",
        "--to",
        "default/db",
        "--port",
        "5432",
        "--timeout",
        "500ms",
    ])?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    ensure!(
        text.contains("lost between the two, not by netpold"),
        "{text}"
    );
    lab.host().nft(&["delete table bridge other"])?;

    // A file expects what policy denies: netpold's own drop is told with its reason.
    let root = tempfile::tempdir()?;
    let (file, junit) = (
        root.path().join("expected.yaml"),
        root.path().join("junit.xml"),
    );
    fs::write(
        &file,
        "probes:\n- {from: default/web, to: default/db, port: 80, allow: true}\n",
    )?;
    let (file, junit) = (file.display().to_string(), junit.display().to_string());
    let (exit, report, _) = test(&daemon, &[&file, "--junit", &junit])?;
    ensure!(exit == Some(1), "{report}");
    ensure!(
        report["probes"][0]["dropped"] == "policy-denied",
        "{report}"
    );
    let junit = fs::read_to_string(junit)?;
    ensure!(
        junit.contains("failures=\"1\"") && junit.contains("dropped by netpold: policy-denied"),
        "{junit}"
    );
    Ok(())
}

/// 100 endpoints are 9,900 pairs, half of them denied. How long it takes is printed; a benchmark's business is no test's.
#[test]
fn a_hundred_endpoints_are_tried_side_by_side() -> Result<()> {
    let mut lab = Lab::new()?;
    for number in 0..100 {
        let address = format!("10.77.1.{}/16", number + 1);
        lab.add_pod(&format!("shop/pod-{number}"), &[address.parse()?])?;
    }
    let mut daemon = Daemon::prepare(&lab, "")?;
    daemon.launch()?;
    for pod in lab.pods() {
        daemon.declare(pod)?;
    }
    let isolated: Vec<String> = (0..50).map(|number| format!("pod-{number}")).collect();
    let selector = format!(
        "matchExpressions: [{{key: app, operator: In, values: [{}]}}]",
        isolated.join(", ")
    );
    let policy = POLICY.replace("namespace: default", "namespace: shop");
    daemon.put(
        "policy.yaml",
        &policy.replace("matchLabels: {app: db}", &selector),
    )?;
    daemon.wait()?;
    let begun = Instant::now();
    let (exit, report, output) = test(&daemon, &["--port", "5432"])?;
    println!("{} probes in {:?}", report["tried"], begun.elapsed());
    let mut missed = report["probes"].as_array().context("no probes")?.iter();
    ensure!(
        exit == Some(0) && report["tried"] == 9900,
        "{exit:?} {} {:?}\n{}",
        report["missed"],
        missed.find(|one| one["hit"] == false),
        String::from_utf8_lossy(&output.stderr)
    );
    // The kernel's one table of neighbours was not filled: what the probes brought is forgotten.
    let first = &lab.pods()[0];
    let known = netpold::links::neighbours::neighbours(&first.namespace.path())?;
    ensure!(known.len() < 10, "{} neighbours are left", known.len());
    Ok(())
}
