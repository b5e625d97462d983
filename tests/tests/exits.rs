//! Containers that start and end, one after the other and at once: nothing of it is an alarm. Needs root, dockerd and
//! busybox. `NPD_EXITS` is how many.

use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use netpold_tests::{Daemon, Engine, Lab, docker, residue};

/// All are isolated, so that programs, tables and the gate have to do with each.
const SHUT: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: shut, namespace: default}\n\
    spec: {podSelector: {}, policyTypes: [Ingress]}\n";

fn exits() -> Result<usize> {
    match std::env::var("NPD_EXITS") {
        Ok(number) => number.parse().context("NPD_EXITS is a whole number"),
        Err(_) => Ok(40),
    }
}

#[test]
fn an_ordinary_exit_raises_no_alarm() -> Result<()> {
    let lab = Lab::new()?;
    let engine = Engine::start(&lab, &[])?;
    let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
    daemon.put("shut.yaml", SHUT)?;
    daemon.launch()?;
    daemon.wait()?;
    const AT_ONCE: usize = 4;
    let each = exits()?.div_ceil(AT_ONCE);
    thread::scope(|scope| -> Result<()> {
        let runners: Vec<_> = (0..AT_ONCE)
            .map(|runner| {
                let engine = &engine;
                scope.spawn(move || -> Result<()> {
                    for time in 0..each {
                        // Some end by themselves at once, some after a moment, some are killed.
                        let name = format!("c{runner}-{time}");
                        let idle = ["sleep", ["0", "0.2", "1000"][time % 3]];
                        let run = ["run", "--detach", "--name", &name, docker::IMAGE];
                        engine.docker(&[&run[..], &idle].concat())?;
                        if time % 3 == 1 {
                            engine.docker(&["wait", &name])?;
                        }
                        engine.docker(&["rm", "--force", &name])?;
                    }
                    Ok(())
                })
            })
            .collect();
        for runner in runners {
            runner.join().map_err(|_| anyhow!("a runner panicked"))??;
        }
        Ok(())
    })?;
    daemon.wait()?;
    let log = daemon.log();
    ensure!(
        log.contains("the endpoint is gone"),
        "no container was there\n{log}"
    );
    let alarms: Vec<&str> = log
        .lines()
        .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
        .collect();
    ensure!(alarms.is_empty(), "{alarms:#?}");
    // What was identified goes without having been on hold once more.
    let mut seen = std::collections::BTreeSet::new();
    for line in log.lines() {
        let word = |key: &str| {
            let (_, rest) = line.split_once(key)?;
            rest.split(' ').next()
        };
        if line.contains("the endpoint is identified") {
            seen.extend(word("interfaces="));
        } else if line.contains("is on hold") {
            let interface = word("interface=").context("no name")?;
            ensure!(!seen.contains(interface), "{interface}\n{log}");
        }
    }
    let name = lab.name.clone();
    drop((daemon, engine, lab));
    residue::check(&name)
}
