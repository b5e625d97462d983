//! The whole daemon beside Podman's Docker-compatible service. Needs root, podman, docker(1) and
//! busybox.

use anyhow::{Result, ensure};
use netpold::probe::Outcome;
use netpold_tests::docker::Running;
use netpold_tests::{Daemon, Engine, Lab};

const IDLE: [&str; 2] = ["sleep", "1000"];

/// A policy for `app: db`: only `web` may, on 5432.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db}\n\
    spec:\n  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n  ingress:\n  \
    - from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: 5432}]\n";

#[test]
fn labels_decide_beside_podman() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start_podman(&lab)?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    let run = |app: &str, options: &[&str]| {
        let label = format!("app={app}");
        let options = [&["--label", &label], options].concat();
        engine.run(app, &options, &IDLE)
    };
    let db = run("db", &[])?;
    daemon.launch()?;
    daemon.wait()?;
    let web = run("web", &[])?;
    let other = run("other", &[])?;
    let joined = run("joined", &["--network", "container:web"])?;
    let joined = Running {
        addresses: web.addresses.clone(),
        ..joined
    };
    run("hosty", &["--network", "host"])?;
    for restart in [false, true] {
        if restart {
            daemon.stop()?;
            daemon.launch()?;
        }
        daemon.wait()?;
        for (from, port, allowed) in [
            (&web, 5432, true),
            (&joined, 5432, true),
            (&web, 5433, false),
            (&other, 5432, false),
        ] {
            let outcome = from.dial(&db, port)?;
            ensure!(
                (outcome == Outcome::Reached) == allowed,
                "{} {port}: {outcome:?}, expected allowed: {allowed}\n{}\n{}",
                from.name,
                String::from_utf8_lossy(&daemon.netpol(&["status", "-o", "json"])?.stdout),
                daemon.log()
            );
        }
        let status = daemon.netpol(&["status", "-o", "json"])?.stdout;
        let status: serde_json::Value = serde_json::from_slice(&status)?;
        ensure!(
            status["endpoints"].as_array().map(Vec::len) == Some(3),
            "{status}"
        );
        ensure!(
            status["unprotected"][0]["container"] == "default/hosty",
            "{status}"
        );
    }
    Ok(())
}
