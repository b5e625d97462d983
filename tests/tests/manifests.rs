//! The manifests directory under the daemon: links out of it, changes that give no event, what is
//! said of files and when. Needs root: bind mounts, overlays.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpold::api::wire::Status;
use netpold_tests::{Daemon, Lab, residue};

fn policy(name: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: web}}\n\
         spec: {{podSelector: {{}}, policyTypes: [Ingress]}}\n"
    )
}

fn status(daemon: &Daemon) -> Result<Status> {
    let output = daemon.netpol(&["status", "-o", "json"])?;
    serde_json::from_slice(&output.stdout).context("no status")
}

fn policies(daemon: &Daemon) -> Result<Vec<String>> {
    let policies = status(daemon)?.policies.into_iter();
    Ok(policies.map(|one| one.name.name).collect())
}

fn until(what: &str, time: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let begun = Instant::now();
    while !is_so()? {
        ensure!(begun.elapsed() < time, "{what}: not within {time:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(begun.elapsed())
}

fn mount(arguments: &[&str]) -> Result<()> {
    let output = Command::new("mount").args(arguments).output()?;
    ensure!(output.status.success(), "mount {arguments:?}: {output:?}");
    Ok(())
}

/// A mount that goes when the test is over.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// How many directories its process watches.
fn watches(pid: u32) -> Result<usize> {
    let mut watches = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        watches += text
            .lines()
            .filter(|line| line.starts_with("inotify "))
            .count();
    }
    Ok(watches)
}

/// How often the daemon's threads have waited for something.
fn waits(pid: u32) -> Result<u64> {
    let mut all = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(entry?.path().join("status")).unwrap_or_default();
        let count = text
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        all += count.map_or(Ok(0), |count| count.trim().parse())?;
    }
    Ok(all)
}

#[test]
fn a_link_to_all_of_the_disk_is_named_and_costs_nothing() -> Result<()> {
    let lab = Lab::with_pods(&["web/front"])?;
    let daemon = Daemon::enforcing(&lab, &[("a.yaml", &policy("a"))], "")?;
    let pid = daemon.pid().context("it does not run")?;
    let before = watches(pid)?;
    symlink("/", daemon.manifests().join("x"))?;
    daemon.put("b.yaml", &policy("b"))?;
    let begun = Instant::now();
    // It is rejected: that is its answer.
    let output = daemon.netpol(&["wait"])?;
    let took = begun.elapsed();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(1) && said.contains("manifests/x"),
        "{output:?}"
    );
    ensure!(took < Duration::from_secs(5), "{took:?}");
    ensure!(policies(&daemon)? == ["a", "b"], "{}", daemon.log());
    ensure!(watches(pid)? <= before + 1, "{} watches", watches(pid)?);
    let told = status(&daemon)?;
    let [rejected] = &told.rejected[..] else {
        anyhow::bail!("{:?}", told.rejected);
    };
    ensure!(rejected.diagnostics[0].rule == "outside", "{rejected:?}");
    // Mended: nothing is left of it.
    fs::remove_file(daemon.manifests().join("x"))?;
    daemon.wait()?;
    ensure!(status(&daemon)?.rejected.is_empty());
    let name = lab.name.clone();
    drop(daemon);
    drop(lab);
    residue::check(&name)
}

/// Where a change gives no event: `netpol wait` finds it at once, and else it is found by itself.
#[test]
fn changes_without_an_event_are_found() -> Result<()> {
    let lab = Lab::with_pods(&["web/front"])?;
    let daemon = Daemon::enforcing(&lab, &[], "")?;
    let scratch = tempfile::tempdir_in("/dev/shm")?;
    let at = |name: &str| scratch.path().join(name);
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path");
    for folder in ["lower", "upper", "work"] {
        fs::create_dir(at(folder))?;
    }
    // A file that is written through another mount of its file system, through another name, and
    // one of a lower layer.
    fs::write(at("bound"), policy("bound-1"))?;
    daemon.put("bound.yaml", "")?;
    mount(&[
        "--bind",
        &text(&at("bound"))?,
        &text(&daemon.manifests().join("bound.yaml"))?,
    ])?;
    let _bound = Mounted(daemon.manifests().join("bound.yaml"));
    let other = daemon.state().join("other");
    fs::write(&other, policy("linked-1"))?;
    fs::hard_link(&other, daemon.manifests().join("linked.yaml"))?;
    fs::write(at("lower/low.yaml"), policy("low-1"))?;
    fs::create_dir(daemon.manifests().join("over"))?;
    let over = daemon.manifests().join("over");
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        text(&at("lower"))?,
        text(&at("upper"))?,
        text(&at("work"))?
    );
    mount(&["-t", "overlay", "overlay", "-o", &layers, &text(&over)?])?;
    let _over = Mounted(over);
    daemon.wait()?;
    ensure!(
        policies(&daemon)? == ["bound-1", "linked-1", "low-1"],
        "{:?}\n{}",
        policies(&daemon)?,
        daemon.log()
    );

    let write = |version: u8| -> Result<()> {
        fs::write(at("bound"), policy(&format!("bound-{version}")))?;
        fs::write(&other, policy(&format!("linked-{version}")))?;
        fs::write(at("lower/low.yaml"), policy(&format!("low-{version}")))?;
        Ok(())
    };
    let is_in_force = |version: u8| -> Result<bool> {
        let names = ["bound", "linked", "low"].map(|name| format!("{name}-{version}"));
        Ok(policies(&daemon)? == names)
    };
    write(2)?;
    daemon.wait()?;
    ensure!(
        is_in_force(2)?,
        "{:?}\n{}",
        policies(&daemon)?,
        daemon.log()
    );
    write(3)?;
    until("changes without an event", Duration::from_secs(40), || {
        is_in_force(3)
    })?;
    Ok(())
}

/// A mount over a directory gives it no event: what is watched from then on is the directory that was mounted.
#[test]
fn a_directory_that_is_mounted_over_is_watched() -> Result<()> {
    let lab = Lab::with_pods(&["web/front"])?;
    let daemon = Daemon::enforcing(&lab, &[], "")?;
    let over = daemon.manifests().join("over");
    fs::create_dir(&over)?;
    daemon.wait()?;
    mount(&["-t", "tmpfs", "tmpfs", over.to_str().context("a path")?])?;
    let _over = Mounted(over.clone());
    daemon.wait()?;
    for number in 0..3 {
        let name = format!("mounted-{number}");
        fs::write(over.join("a.yaml"), policy(&name))?;
        // Without an event it would be found after 30 seconds.
        until("a file below a mount", Duration::from_secs(10), || {
            Ok(policies(&daemon)? == [name.as_str()])
        })?;
    }
    Ok(())
}

/// Looking costs an idle host next to nothing.
#[test]
fn an_idle_daemon_does_not_wake_for_its_files() -> Result<()> {
    let lab = Lab::with_pods(&["web/front"])?;
    let daemon = Daemon::enforcing(&lab, &[("a.yaml", &policy("a"))], "")?;
    let pid = daemon.pid().context("it does not run")?;
    // The stamps of what is new are looked at once more.
    std::thread::sleep(Duration::from_secs(4));
    let before = waits(pid)?;
    std::thread::sleep(Duration::from_secs(5));
    let waits = waits(pid)? - before;
    // The rest of the daemon looks at its programs every ten seconds, and ends idle connections.
    ensure!(waits < 100, "woken {waits} times in 5 s");
    Ok(())
}

#[test]
fn an_error_that_stands_is_logged_and_has_its_all_clear() -> Result<()> {
    let lab = Lab::with_pods(&["web/front"])?;
    let daemon = Daemon::enforcing(&lab, &[], "")?;
    // For a moment: told to every client, and no error in the log.
    daemon.put("moment.yaml", "kind: [\n")?;
    daemon.netpol(&["wait"])?;
    ensure!(status(&daemon)?.rejected.len() == 1);
    std::thread::sleep(Duration::from_millis(500));
    daemon.remove("moment.yaml")?;
    daemon.put("stands.yaml", "kind: [\n")?;
    daemon.put("goes.yaml", "kind: [\n")?;
    let logged = |text: &str| daemon.log().contains(text);
    until("the error", Duration::from_secs(10), || {
        Ok(logged("stands.yaml:") && logged("goes.yaml:"))
    })?;
    ensure!(!logged("moment.yaml:"), "{}", daemon.log());
    daemon.put("stands.yaml", &policy("stands"))?;
    daemon.remove("goes.yaml")?;
    until("the all-clear", Duration::from_secs(10), || {
        Ok(logged("stands.yaml` is accepted again") && logged("goes.yaml` is gone"))
    })?;
    Ok(())
}

/// What is in force and may not mean what it says is told when it comes in force.
#[test]
fn lints_are_told_when_a_file_comes_in_force() -> Result<()> {
    const CLOSED: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
        metadata: {name: closed, namespace: web}\nspec:\n  podSelector: {}\n  \
        policyTypes: [Egress]\n  egress: [{to: [{podSelector: {}}]}]\n";
    let lab = Lab::with_pods(&["web/front"])?;
    let daemon = Daemon::enforcing(&lab, &[("a.yaml", &policy("a"))], "")?;
    daemon.put("closed.yaml", CLOSED)?;
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = daemon.netpol(&["wait"])?;
    ensure!(output.status.success(), "{output:?}");
    let line = format!(
        "Warning: {}:7: ",
        daemon.manifests().join("closed.yaml").display()
    );
    ensure!(
        said(&output).contains(&line) && said(&output).contains("[dns-missing]"),
        "{output:?}"
    );
    ensure!(
        daemon.log().contains("warning[dns-missing]"),
        "{}",
        daemon.log()
    );
    // Once, and live audit has it.
    let output = daemon.netpol(&["wait"])?;
    ensure!(!said(&output).contains("Warning"), "{output:?}");
    let output = daemon.netpol(&["audit"])?;
    ensure!(
        String::from_utf8_lossy(&output.stdout).contains("dns-missing"),
        "{output:?}"
    );
    Ok(())
}
