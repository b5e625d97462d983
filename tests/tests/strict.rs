//! Strict starts: containers by `netpold-oci`, which lets them start once they are in force. Needs
//! root, dockerd, busybox and runc.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use netpold_tests::starting_container::gate;
use netpold_tests::time_scale::within;
use netpold_tests::{Daemon, Engine, Lab, daemon, docker, snmp};
use nix::sys::signal::Signal;

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: shop}\n\
    spec:\n  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n  ingress:\n  \
    - from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: 5432}]\n";

/// An engine with three runtimes, one strict, one that lets through, and one strict and patient, and a daemon beside it.
struct Site {
    daemon: Daemon,
    engine: Engine,
    _lab: Lab,
    _directory: tempfile::TempDir,
}

impl Site {
    fn new(seconds: f64) -> Result<Self> {
        let lab = Lab::new()?;
        let directory = tempfile::tempdir()?;
        let oci = daemon::binary("netpold-oci")?;
        let file = directory.path().join("daemon.json");
        // The daemon needs the engine's socket in its configuration, the engine the daemon's.
        let socket = directory.path().join("netpold.sock");
        let runtime = |unready: &str, seconds: f64| {
            serde_json::json!({
                "path": oci,
                "runtimeArgs": [
                    format!("--netpold-socket={}", socket.display()),
                    format!("--netpold-timeout={seconds}"),
                    format!("--netpold-unready={unready}"),
                ],
            })
        };
        let settings = serde_json::json!({
            "runtimes": {
                "netpold": runtime("refuse", seconds),
                "lenient": runtime("start", seconds),
                "patient": runtime("refuse", 60.0),
            },
        });
        std::fs::write(&file, settings.to_string())?;
        let engine = Engine::start(&lab, &["--config-file", &file.display().to_string()])?;
        engine.docker(&["network", "create", "shop"])?;
        let mut daemon = Daemon::prepare_beside(&lab, Some(&engine.socket()), "")?;
        std::os::unix::fs::symlink(daemon.socket(), &socket)?;
        daemon.put("policy.yaml", POLICY)?;
        gate(&lab, &daemon.config(), "install")?;
        daemon.launch()?;
        daemon.wait()?;
        Ok(Self {
            daemon,
            engine,
            _lab: lab,
            _directory: directory,
        })
    }

    /// Runs a container to its end; what it prints.
    fn run(&self, runtime: &str, app: &str, options: &[&str], command: &[&str]) -> Result<String> {
        run(&self.engine, runtime, app, options, command)
    }
}

fn run(
    engine: &Engine,
    runtime: &str,
    app: &str,
    options: &[&str],
    command: &[&str],
) -> Result<String> {
    let label = format!("app={app}");
    let mut all = vec!["run", "--rm", "--runtime", runtime, "--label", &label];
    all.extend(["--label", "com.docker.compose.project=shop"]);
    all.extend(options);
    all.push(docker::IMAGE);
    all.extend(command);
    engine.docker(&all)
}

#[test]
fn the_first_syn_of_the_application_arrives() -> Result<()> {
    let site = Site::new(5.0)?;
    let db = site.engine.run(
        "db",
        &[
            "--network",
            "shop",
            "--label",
            "com.docker.compose.project=shop",
            "--label",
            "app=db",
        ],
        &[
            "sh",
            "-c",
            "while true; do nc -l -p 5432 -e echo hello; done",
        ],
    )?;
    let address = db.addresses.first().context("no address")?.to_string();
    for _ in 0..5 {
        // A SYN that is lost is sent again after a second, and nc waits for less than that.
        let dial = format!("nc -w 5 {address} 5432; grep ^Tcp: /proc/net/snmp");
        let said = site.run(
            "netpold",
            "web",
            &["--network", "shop"],
            &["sh", "-c", &dial],
        )?;
        ensure!(said.starts_with("hello"), "{said}\n{}", site.daemon.log());
        let again = snmp::number(&said, "Tcp", "RetransSegs")?;
        ensure!(again == 0, "a SYN was lost: {said}");
    }
    // Started again, it was there before, and has another namespace.
    let options = [
        "--network",
        "shop",
        "--runtime",
        "netpold",
        "--label",
        "app=web",
    ];
    let options = [
        &options[..],
        &["--label", "com.docker.compose.project=shop"],
    ]
    .concat();
    let dial = format!("nc -w 5 {address} 5432; sleep 1000");
    site.engine.run("again", &options, &["sh", "-c", &dial])?;
    for verb in ["restart", "stop", "start"] {
        let time: &[&str] = if verb == "start" {
            &[]
        } else {
            &["--time", "0"]
        };
        site.engine.docker(&[&[verb], time, &["again"]].concat())?;
    }
    std::thread::sleep(Duration::from_millis(500));
    let said = site.engine.docker(&["logs", "again"])?;
    ensure!(
        said.matches("hello").count() == 3,
        "{said}\n{}",
        site.daemon.log()
    );
    let dial = ["nc", "-w", "1", &address, "5432"];
    let denied = site.run("netpold", "other", &["--network", "shop"], &dial);
    ensure!(denied.is_err(), "{denied:?}");
    Ok(())
}

#[test]
fn what_has_nothing_to_wait_for_starts_at_once() -> Result<()> {
    let site = Site::new(60.0)?;
    site.engine
        .run("web", &["--network", "shop"], &["sleep", "1000"])?;
    for network in ["host", "none", "container:web"] {
        let begun = Instant::now();
        site.run("netpold", "x", &["--network", network], &["true"])?;
        ensure!(
            begun.elapsed() < Duration::from_secs(30),
            "{network}: {:?}",
            begun.elapsed()
        );
    }
    // Those on the host's network do not even need a daemon.
    let mut site = site;
    site.daemon.stop()?;
    site.run("netpold", "x", &["--network", "host"], &["true"])?;
    Ok(())
}

/// How often a start is refused. What a refusal leaves behind, it leaves by chance.
const REFUSALS: usize = 20;

/// What is left of containers that this engine does not list any more: processes of containerd's, its tasks, directories
/// of the OCI runtime's, network namespaces.
fn leftovers(engine: &Engine) -> Result<Vec<String>> {
    let mut left = Vec::new();
    if has_shims(engine) {
        left.push("a process of containerd-shim".to_owned());
    }
    let socket = engine.socket();
    let exec = socket.parent().unwrap_or(&socket).join("exec");
    let listed = Command::new("ctr")
        .arg("--address")
        .arg(exec.join("containerd/containerd.sock"))
        .args(["--namespace", "moby", "tasks", "list", "--quiet"])
        .output()
        .context("can't run ctr(1)")?;
    let said = String::from_utf8_lossy(&listed.stderr);
    ensure!(listed.status.success(), "ctr tasks list: {said}");
    let tasks = String::from_utf8_lossy(&listed.stdout).into_owned();
    left.extend(tasks.lines().map(|task| format!("the task {task}")));
    let entries = |folder: PathBuf| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    // `exec/runtime-NAME/moby/ID`
    let runtimes = entries(exec.clone()).into_iter().filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("runtime-")
    });
    let states = runtimes.flat_map(|runtime| entries(runtime.join("moby")));
    // The namespace of the engine's host network is there as long as the engine; of those of others, the engine leaves an
    // empty file for a minute.
    let device = |path: &Path| Some(std::fs::metadata(path).ok()?.dev());
    let is_namespace = |path: &PathBuf| device(path) == device(Path::new("/proc/self/ns/net"));
    let namespaces = entries(exec.join("netns")).into_iter();
    let namespaces = namespaces.filter(|path| !path.ends_with("default") && is_namespace(path));
    left.extend(
        states
            .chain(namespaces)
            .map(|path| path.display().to_string()),
    );
    Ok(left)
}

#[test]
fn nothing_is_left_of_starts_that_are_refused() -> Result<()> {
    let mut site = Site::new(0.1)?;
    // What a container that runs leaves here is seen; otherwise the checks below see nothing.
    let running = site.engine.run("running", &[], &["sleep", "1000"])?;
    let seen = leftovers(&site.engine)?.len();
    ensure!(
        seen == 4,
        "of one that runs: {:?}",
        leftovers(&site.engine)?
    );
    site.engine.docker(&["rm", "--force", &running.name])?;
    within("the first is gone", || {
        Ok(leftovers(&site.engine)?.is_empty())
    })
    .with_context(|| format!("{:?}", leftovers(&site.engine)))?;
    site.daemon.stop()?;
    let mut failures = Vec::new();
    for number in 0..REFUSALS {
        let refused = site.run("netpold", "web", &["--network", "shop"], &["true"]);
        let said = refused.err().context("it started")?.to_string();
        ensure!(said.contains("no netpold answers on"), "{number}: {said}");
        // Once what this one left has been counted, the next ones would be blamed for it, too.
        if let Err(error) = within(
            "nothing is left",
            || Ok(leftovers(&site.engine)?.is_empty()),
        ) {
            failures.push(format!("{number}: {error}: {:?}", leftovers(&site.engine)?));
            break;
        }
    }
    let complaint = "task must be stopped before deletion";
    let log = site.engine.log();
    failures.extend(
        log.lines()
            .filter(|line| line.contains(complaint))
            .map(ToOwned::to_owned),
    );
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    Ok(())
}

/// Is there still one process of containerd's that looks after a container of this engine?
fn has_shims(engine: &Engine) -> bool {
    let socket = engine.socket();
    let place = socket.parent().unwrap_or(&socket).display().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|process| std::fs::read_to_string(process.path().join("cmdline")).ok())
        .any(|line| line.contains("containerd-shim") && line.contains(&place))
}

#[test]
fn without_a_daemon_a_start_is_refused_or_let_through() -> Result<()> {
    let mut site = Site::new(5.0)?;
    site.daemon.signal(Signal::SIGSTOP)?;
    let refused = site.run("netpold", "web", &["--network", "shop"], &["true"]);
    site.daemon.signal(Signal::SIGCONT)?;
    let said = refused.err().context("it started")?.to_string();
    ensure!(said.contains("netpold"), "{said}");
    site.daemon.stop()?;
    let begun = Instant::now();
    let refused = site.run("netpold", "web", &["--network", "shop"], &["true"]);
    let said = refused.err().context("it started")?.to_string();
    ensure!(
        said.contains("no netpold answers on") && said.contains("without its policies"),
        "{said}"
    );
    // The five seconds, and what the engine itself takes on a busy machine.
    ensure!(
        begun.elapsed() < Duration::from_secs(25),
        "{:?}",
        begun.elapsed()
    );
    within("the refused are gone", || Ok(!has_shims(&site.engine)))?;
    site.run("lenient", "web", &["--network", "shop"], &["true"])?;
    // Back in time, which a busy machine needs more than the seconds of a refusal for: the container waits for it.
    let Site { daemon, engine, .. } = &mut site;
    let child = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(1));
            daemon.launch()
        });
        let ran = run(engine, "patient", "web", &["--network", "shop"], &["true"]);
        let launched = waiting.join().map_err(|_| anyhow::anyhow!("a panic"))?;
        launched.and(ran)
    });
    child.with_context(|| site.daemon.log())?;
    Ok(())
}
