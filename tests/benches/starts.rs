//! What a container's start costs with netpold beside the engine: three engines, one with netpold and its
//! gate and two without, start their containers in turn, and the medians are compared. What the two without
//! differ by is what this machine can't tell. A fourth kind waits until it is in force (`netpold-oci`).
//!
//! Only the differences of one run mean something.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use netpold::gate::Kernel;
use netpold::netns;
use netpold_tests::starting_container::gate;
use netpold_tests::{Daemon, Engine, Lab, daemon};

/// Starts of each kind: an odd number, so that one is the median.
const STARTS: usize = 101;

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shut, namespace: default}\n\
    spec: {podSelector: {}, policyTypes: [Ingress, Egress]}\n";

fn main() -> Result<()> {
    // `cargo test --benches` runs this too, and has no time for it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("daemon.json");
    let socket = directory.path().join("netpold.sock");
    let runtime = serde_json::json!({
        "path": daemon::binary("netpold-oci")?,
        "runtimeArgs": [format!("--netpold-socket={}", socket.display())],
    });
    let settings = serde_json::json!({"runtimes": {"netpold": runtime}});
    std::fs::write(&file, settings.to_string())?;
    let (plain_lab, control_lab, lab) = (Lab::new()?, Lab::new()?, Lab::new()?);
    let plain = Engine::start(&plain_lab, &[])?;
    let control = Engine::start(&control_lab, &[])?;
    let engine = Engine::start(&lab, &["--config-file", &file.display().to_string()])?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    std::os::unix::fs::symlink(daemon.socket(), &socket)?;
    daemon.put("policy.yaml", POLICY)?;
    gate(&lab, &daemon.config(), "install")?;
    daemon.launch()?;
    daemon.wait()?;
    let kinds = [
        ("without netpold", &plain, "runc"),
        ("without, once more", &control, "runc"),
        ("with netpold", &engine, "runc"),
        ("with netpold-oci", &engine, "netpold"),
    ];
    for (number, (_, engine, runtime)) in kinds.iter().enumerate() {
        let name = format!("c{number}");
        let create = [
            "create",
            "--name",
            &name,
            "--runtime",
            runtime,
            "busybox",
            "sleep",
            "100000",
        ];
        engine.docker(&create)?;
    }
    let mut times = [const { Vec::<f64>::new() }; 4];
    // The first round warms up.
    for round in 0..=STARTS {
        // The order of the two changes: the one before is still being cleared away.
        for turn in 0..kinds.len() {
            let number = (round + turn * (1 + round / 4 % 2 * 2)) % kinds.len();
            let engine = kinds[number].1;
            let name = format!("c{number}");
            let begun = Instant::now();
            engine.docker(&["start", &name])?;
            if round > 0 {
                times[number].push(millis(begun.elapsed()));
            }
            engine.docker(&["kill", &name])?;
            engine.docker(&["wait", &name])?;
        }
    }
    println!(
        "docker start, {STARTS} rounds, medians of each, and of the differences within a round:"
    );
    let base = times[0].clone();
    for ((what, ..), times) in kinds.iter().zip(times) {
        let more = times.iter().zip(&base).map(|(time, base)| time - base);
        println!(
            "  {what:<18} {:7.1} ms  {:+6.1} ms",
            median(times.clone())?,
            median(more.collect())?
        );
    }
    let through = netns::inside(&lab.host().path(), let_through)??;
    println!(
        "letting an interface through the gate: {:.0} µs",
        through * 1e3
    );
    Ok(())
}

fn median(mut times: Vec<f64>) -> Result<f64> {
    times.sort_unstable_by(f64::total_cmp);
    times.get(times.len() / 2).copied().context("no times")
}

/// What the gate takes to let one more interface through, in milliseconds.
fn let_through() -> Result<f64> {
    let mut kernel = Kernel::open("netpold")?;
    let mut contents = kernel.look()?.context("there is no gate")?.contents;
    let mut times = Vec::new();
    for ifindex in 1_000_000..1_001_001 {
        let mut more = contents.clone();
        more.ready.insert(ifindex);
        let begun = Instant::now();
        kernel.change(&contents, &more)?;
        times.push(millis(begun.elapsed()));
        contents = more;
    }
    median(times)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
