//! netpold as systemd has it: with the rights that its unit gives and no others, what systemd is
//! told, and when; a reload; and what the units may do at most. Needs root.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use netpold_tests::starting_container::gate;
use netpold_tests::time_scale::{scaled, within};
use netpold_tests::{Daemon, Lab, daemon, residue};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take here.
const LONG: Duration = Duration::from_secs(20);
/// In microseconds, as systemd says it: as short as a slow machine can meet.
const WATCHDOG: &str = "1000000";

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: db}\n\
    spec:\n  podSelector: {}\n  policyTypes: [Ingress]\n";

/// systemd's end of the socket, and a daemon that is told of it.
struct Service {
    manager: UnixDatagram,
    daemon: Daemon,
    _folder: tempfile::TempDir,
}

impl Service {
    fn start(lab: &Lab) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path)?;
        manager.set_read_timeout(Some(scaled(LONG)))?;
        let mut daemon = Daemon::prepare(lab, "")?;
        for pod in lab.pods() {
            daemon.declare(pod)?;
        }
        let mut command = by_its_unit()?;
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", WATCHDOG);
        daemon.launch_by(command)?;
        Ok(Self {
            manager,
            daemon,
            _folder: folder,
        })
    }

    /// The next that systemd is told.
    fn told(&self) -> Result<String> {
        let mut buffer = [0; 4096];
        let length = self
            .manager
            .recv(&mut buffer)
            .with_context(|| format!("nothing is told; the log:\n{}", self.daemon.log()))?;
        Ok(std::str::from_utf8(&buffer[..length])?.to_owned())
    }

    /// Waits until systemd is told something that has this line.
    fn until(&self, line: &str) -> Result<String> {
        let end = Instant::now() + scaled(LONG);
        let mut all = Vec::new();
        while Instant::now() < end {
            let told = self.told()?;
            if told.lines().any(|one| one == line) {
                return Ok(told);
            }
            all.push(told);
        }
        bail!("not told `{line}`, but {all:?}")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.daemon.pid().context("it does not run")?;
        Ok(kill(Pid::from_raw(pid.try_into()?), signal)?)
    }

    fn configure(&self, more: &str) -> Result<()> {
        let path = self.daemon.config();
        let text = std::fs::read_to_string(&path)?;
        Ok(std::fs::write(path, format!("{text}\n{more}\n"))?)
    }
}

/// netpold with the rights of its unit, and in a mount namespace of its own, as that has it: what the host
/// mounts is seen there, and nothing the other way.
fn by_its_unit() -> Result<Command> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "slave"]);
    with_its_rights(&mut command)?;
    Ok(command)
}

fn with_its_rights(command: &mut Command) -> Result<()> {
    command
        .args(["setpriv", "--no-new-privs", "--bounding-set", &rights()?])
        .arg(daemon::binary("netpold")?);
    Ok(())
}

/// What the unit lets the daemon do, as setpriv(1) wants it.
fn rights() -> Result<String> {
    let unit = std::fs::read_to_string(units().join("netpold.service"))?;
    let rights = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .context("the unit sets no bounds")?;
    let rights: Vec<String> = rights
        .split(' ')
        .filter_map(|right| right.strip_prefix("CAP_"))
        .map(|right| format!("+{}", right.to_lowercase()))
        .collect();
    Ok(format!("-all,{}", rights.join(",")))
}

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

fn lab() -> Result<Lab> {
    let mut lab = Lab::new()?;
    for (name, address) in [("db/store", "10.77.1.1/16"), ("web/front", "10.77.1.2/16")] {
        lab.add_pod(name, &[address.parse()?])?;
    }
    Ok(lab)
}

#[test]
fn systemd_is_told_counts_and_that_the_loop_goes_round() -> Result<()> {
    let lab = lab()?;
    let service = Service::start(&lab)?;
    let ready = service.until("READY=1")?;
    ensure!(
        ready
            .lines()
            .any(|line| line == "STATUS=0 policies in force, 2 endpoints"),
        "{ready:?}"
    );
    service.daemon.put("policy.yaml", POLICY)?;
    service.until("STATUS=1 policies in force, 2 endpoints")?;
    service.daemon.put("broken.yaml", "kind: NetworkPolicy\n")?;
    service.until("STATUS=1 policies in force, 2 endpoints, 1 files rejected")?;
    service.daemon.remove("broken.yaml")?;
    service.until("STATUS=1 policies in force, 2 endpoints")?;
    for _ in 0..3 {
        service.until("WATCHDOG=1")?;
    }
    service.signal(Signal::SIGTERM)?;
    service.until("STOPPING=1")?;
    let name = lab.name.clone();
    drop((service, lab));
    residue::check(&name)
}

#[test]
fn reload_applies_a_configuration_and_refuses_a_wrong_one() -> Result<()> {
    let lab = lab()?;
    let service = Service::start(&lab)?;
    service.until("READY=1")?;
    let right = std::fs::read_to_string(service.daemon.config())?;
    let mode = || -> Result<String> {
        let status = service.daemon.netpol(&["status", "-o", "json"])?;
        let status: serde_json::Value = serde_json::from_slice(&status.stdout)?;
        Ok(status["datapath"]["mode"].to_string())
    };

    service.configure("[enforcement]\nmode = \"enforced\"")?;
    service.signal(Signal::SIGHUP)?;
    service.until("WATCHDOG=1")?;
    service.until("WATCHDOG=1")?;
    let log = service.daemon.log();
    ensure!(log.contains("the configuration stays as it was"), "{log}");
    ensure!(mode()? == "\"enforce\"", "{}", mode()?);

    std::fs::write(service.daemon.config(), right)?;
    service.configure("[enforcement]\nmode = \"audit\"")?;
    service.signal(Signal::SIGHUP)?;
    let reloading = service.until("RELOADING=1")?;
    ensure!(reloading.contains("MONOTONIC_USEC="), "{reloading:?}");
    // Once more before it is back: it must live.
    service.signal(Signal::SIGHUP)?;
    service.until("READY=1")?;
    ensure!(mode()? == "\"audit\"", "{}", mode()?);
    // It goes on as the same process, which `until` would not see of another one's.
    service.until("WATCHDOG=1")?;
    service.signal(Signal::SIGTERM)?;
    service.until("STOPPING=1")?;
    let name = lab.name.clone();
    drop((service, lab));
    residue::check(&name)
}

/// A BPF file system for one test, seen by units; unmounted on drop.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new() -> Result<Self> {
        let place = tempfile::Builder::new().prefix("npd-bpffs-").tempdir()?;
        let path = place.path();
        mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )?;
        let mounted = Self(place);
        let path = mounted.0.path();
        mount(
            None::<&str>,
            path,
            None::<&str>,
            MsFlags::MS_SHARED,
            None::<&str>,
        )?;
        std::fs::create_dir(mounted.path())?;
        mounted.again()?;
        Ok(mounted)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("bpf")
    }

    fn again(&self) -> Result<()> {
        let path = self.path();
        Ok(mount(
            Some("bpf"),
            &path,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )?)
    }

    fn away(&self) -> Result<()> {
        Ok(umount2(&self.path(), MntFlags::MNT_DETACH)?)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The inner one may be away.
        let _ = self.away();
        let _ = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

/// Unmounted while it runs, all holds, and it is said; what ends with it then is shut and not open.
#[test]
fn without_its_pins_it_leaves_a_shut_gate() -> Result<()> {
    let lab = lab()?;
    let place = Mount::new()?;
    let mut daemon = Daemon::prepare(&lab, "")?;
    daemon.pin_below(&place.path())?;
    daemon.put("policy.yaml", POLICY)?;
    for pod in lab.pods() {
        daemon.declare(pod)?;
    }
    let config = daemon.config();
    gate(&lab, &config, "install")?;
    let ready = || -> Result<usize> {
        let status = gate(&lab, &config, "status")?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("ready (interface indices):"));
        Ok(line.context("no line")?.split_whitespace().count())
    };
    ensure!(ready()? == 2, "who was there before netpold passes");
    daemon.launch_by(by_its_unit()?)?;
    daemon.wait()?;
    ensure!(ready()? == 2);
    let warnings = |daemon: &Daemon| -> Result<String> {
        let status = daemon.netpol(&["status", "-o", "json"])?.stdout;
        let status: serde_json::Value = serde_json::from_slice(&status)?;
        Ok(status["warnings"].to_string())
    };

    // Back before it stops, as the unit sees to: nothing is lost.
    place.away()?;
    daemon.wait()?;
    let said = warnings(&daemon)?;
    ensure!(
        said.contains("not pinned") && said.contains("mount -t bpf"),
        "{said}"
    );
    place.again()?;
    daemon.stop()?;
    ensure!(daemon.log().contains("stays in force"), "{}", daemon.log());
    ensure!(ready()? == 2);
    daemon.launch_by(by_its_unit()?)?;
    daemon.wait()?;
    ensure!(!daemon.log().contains("is gone"), "{}", daemon.log());

    // Not back.
    place.away()?;
    daemon.stop()?;
    let log = daemon.log();
    ensure!(
        log.contains("ends with netpold") && log.contains("shut by the gate"),
        "{log}"
    );
    ensure!(log.contains("help: `mount -t bpf bpf"), "{log}");
    ensure!(ready()? == 0, "{}", ready()?);
    daemon.launch_by(by_its_unit()?)?;
    within("it can't start", || {
        Ok(daemon.log().matches("mount -t bpf bpf").count() > 2)
    })?;
    daemon.kill()?;
    ensure!(ready()? == 0, "{}", ready()?);
    place.again()?;
    daemon.launch_by(by_its_unit()?)?;
    daemon.wait()?;
    ensure!(ready()? == 2, "{}", ready()?);

    // Killed meanwhile: what is first done at the next start is to shut.
    place.away()?;
    daemon.wait()?;
    daemon.kill()?;
    daemon.launch_by(by_its_unit()?)?;
    within("shut", || Ok(ready()? == 0)).with_context(|| daemon.log())?;
    ensure!(daemon.log().contains("is gone"), "{}", daemon.log());
    daemon.kill()?;
    place.again()?;
    daemon.launch_by(by_its_unit()?)?;
    daemon.wait()?;
    ensure!(ready()? == 2, "{}", ready()?);
    let name = lab.name.clone();
    drop((daemon, lab, place));
    residue::check(&name)
}

/// In a unit's mount namespace, what it mounted would be seen there alone.
#[test]
fn it_mounts_nothing_that_would_end_with_it() -> Result<()> {
    let lab = lab()?;
    let mut daemon = Daemon::prepare(&lab, "")?;
    // A host as systemd has it, and a unit on it.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec"]);
    // It stays: its mounts are what the unit's follow.
    command.args(["mount --make-rshared /; \"$@\"; exit $?", "sh"]);
    command.args(["unshare", "--mount", "--propagation", "slave", "sh", "-ec"]);
    command.args(["umount --lazy /sys/fs/bpf; exec \"$@\"", "sh"]);
    with_its_rights(&mut command)?;
    daemon.launch_by(command)?;
    let said = "no BPF file system is mounted at `/sys/fs/bpf`";
    within("it can't start", || Ok(daemon.log().contains(said))).with_context(|| daemon.log())
}

/// Elsewhere than where its unit may write, it says what the unit lacks.
#[test]
fn a_directory_that_the_unit_does_not_let_it_write_is_said() -> Result<()> {
    let lab = lab()?;
    let mut daemon = Daemon::prepare(&lab, "")?;
    let locked = tempfile::tempdir()?;
    let place = locked.path().display().to_string();
    let right = std::fs::read_to_string(daemon.config())?;
    let (state, socket) = (daemon.state(), daemon.socket());
    for (path, said) in [
        (socket, "can't listen on"),
        (state, "can't be kept for a restart"),
    ] {
        let elsewhere = locked.path().join(path.file_name().context("no name")?);
        let text = right.replace(&format!("{path:?}"), &format!("{elsewhere:?}"));
        ensure!(text != right);
        std::fs::write(daemon.config(), text)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "slave", "sh", "-ec"]);
        let lock = r#"mount --bind "$0" "$0"; mount -o remount,bind,ro "$0"; exec "$@""#;
        command.args([lock, &place]);
        with_its_rights(&mut command)?;
        daemon.launch_by(command)?;
        let help = format!("ReadWritePaths={place}");
        within(said, || {
            let log = daemon.log();
            let after = log.split(said).nth(1);
            Ok(after.is_some_and(|after| after.contains(&help)))
        })
        .with_context(|| daemon.log())?;
        daemon.kill()?;
    }
    Ok(())
}

/// No ordering that can't be met, and nothing that this systemd does not know. Programs and pages are not
/// installed here.
#[test]
fn systemd_takes_the_units_as_they_are() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new("systemd-analyze");
    command.args(["verify", "--man=no"]);
    for entry in std::fs::read_dir(units())? {
        let unit = entry?.path();
        let name = unit.file_name().context("no name")?;
        if name.to_string_lossy().ends_with(".service") {
            let text = std::fs::read_to_string(&unit)?;
            let text = text
                .replace("/usr/bin/netpold", "/bin/true")
                .replace("/usr/bin/netpol", "/bin/true");
            let copy = folder.path().join(name);
            std::fs::write(&copy, text)?;
            command.arg(copy);
        }
    }
    let judged = command.output().context("systemd-analyze")?;
    let said = String::from_utf8_lossy(&judged.stderr);
    ensure!(judged.status.success() && said.is_empty(), "{said}");
    Ok(())
}

/// systemd's exposure score of each unit is at most 3.6: 0 is a unit that may do nothing, 10 one that may do everything.
#[test]
fn units_may_do_no_more_than_is_said() -> Result<()> {
    let mut seen = 0;
    for entry in std::fs::read_dir(units())? {
        let unit = entry?.path();
        if unit
            .extension()
            .is_none_or(|extension| extension != "service")
        {
            continue;
        }
        seen += 1;
        // In tenths.
        let judged = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager", "--threshold=36"])
            .arg(&unit)
            .output()
            .context("systemd-analyze")?;
        ensure!(
            judged.status.success(),
            "{}:\n{}{}",
            unit.display(),
            String::from_utf8_lossy(&judged.stdout),
            String::from_utf8_lossy(&judged.stderr)
        );
    }
    ensure!(seen > 0, "there is no unit");
    Ok(())
}
