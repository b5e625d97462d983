//! A project of Compose's beside the daemon: the labels that Compose itself gives make Pods of its services and a
//! Namespace of the project, through scaling, re-creation and its end. Needs root, dockerd, Compose v2 and busybox.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::{Arguments, Trial};
use netpol_engine::policy::Protocol;
use netpold::probe::{Outcome, Probe};
use netpold_tests::docker::Running;
use netpold_tests::{Daemon, Engine, Lab, docker, residue};

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: shop}\n\
    spec:\n  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n  ingress:\n  \
    - from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: 5432}]\n";

fn main() {
    let arguments = Arguments::from_args();
    let trial = Trial::test("a_project_is_a_namespace", || {
        project().map_err(|error| format!("{error:#}").into())
    });
    let trial = trial
        .with_kind("needs compose")
        .with_ignored_flag(!docker::has_compose());
    libtest_mimic::run(&arguments, vec![trial]).exit();
}

/// Does the one reach the other on the database's port?
fn reaches(from: &Running, to: &Running) -> Result<bool> {
    let probe = Probe {
        from: from.netns(),
        source: *from.addresses.first().context("no address")?,
        to: Some(to.netns()),
        destination: SocketAddr::new(*to.addresses.first().context("no address")?, 5432),
        protocol: Protocol::Tcp,
        timeout: Duration::from_millis(800),
    };
    Ok(probe.run()? == Outcome::Reached)
}

fn project() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    let directory = tempfile::tempdir()?;
    let service = serde_json::json!({
        "image": docker::IMAGE, "pull_policy": "never", "command": ["sleep", "1000"], "stop_signal": "SIGKILL",
    });
    // What Compose reads is YAML, and so JSON, too.
    let file = directory.path().join("compose.yaml");
    let services =
        serde_json::json!({"services": {"db": service, "web": service, "other": service}});
    std::fs::write(&file, services.to_string())?;
    let file = file.display().to_string();
    let compose = |arguments: &[&str]| {
        let all = ["compose", "--project-name", "shop", "--file", &file];
        engine.docker(&[&all[..], arguments].concat())
    };
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    daemon.launch()?;
    daemon.wait()?;
    // Which of several is kept, and so their numbers, Compose chooses.
    let running = |service: &str| -> Result<Vec<Running>> {
        let all = compose(&["ps", "--quiet", service])?;
        all.lines().map(|id| engine.inspect(id)).collect()
    };
    let holds = |webs: usize| -> Result<()> {
        daemon.wait()?;
        let (db, other, all) = (running("db")?, running("other")?, running("web")?);
        let ([db], [other]) = (&db[..], &other[..]) else {
            bail!("one each was wanted: {db:?} {other:?}");
        };
        ensure!(all.len() == webs, "{webs} were wanted: {all:?}");
        for web in &all {
            ensure!(reaches(web, db)?, "{} does not reach db", web.name);
            ensure!(reaches(db, web)?, "db does not reach {}", web.name);
        }
        ensure!(!reaches(other, db)?, "other reaches db");
        Ok(())
    };
    let holds =
        |what: &str, webs: usize| holds(webs).with_context(|| format!("{what}\n{}", daemon.log()));
    compose(&["up", "--detach"])?;
    holds("up", 1)?;
    compose(&["up", "--detach", "--scale", "web=3"])?;
    holds("scaled", 3)?;
    compose(&["up", "--detach", "--force-recreate"])?;
    holds("made again", 1)?;
    compose(&["restart"])?;
    holds("restarted", 1)?;
    compose(&["down"])?;
    daemon.wait()?;
    let status = daemon.netpol(&["status", "-o", "json"])?.stdout;
    let status: serde_json::Value = serde_json::from_slice(&status)?;
    ensure!(
        status["endpoints"].as_array().is_some_and(Vec::is_empty),
        "{status:#}"
    );
    let name = lab.name.clone();
    drop((daemon, engine, lab));
    residue::check(&name)
}
