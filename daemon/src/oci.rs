//! `netpold-oci`: an OCI runtime in front of another one, for those who want no application to lose its
//! first packet.
//!
//! ```text
//!  dockerd ─▶ containerd's shim ─▶ netpold-oci start ID ─▶ GET /v1/ready (netpold)
//!                                       │                 ◀─ in force
//!                                       └─▶ exec runc start ID
//! ```
//!
//! Everything but `start` becomes the other runtime at once. `start` asks netpold about the network namespace
//! of the container's first process, which waits there to be started, and waits until it is in force. After
//! a time-out it refuses, or starts it all the same, as told.
//!
//! Never asks the engine: it holds the container's lock until `start` has ended. Whether policy holds does not depend on
//! this: an interface that is not in force is shut.

mod command;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::api::Client;
use crate::api::client::ClientError;
pub use command::HELP;
use command::{Asked, Unready};

/// How long the parent of a process that was killed may take to reap it.
const REAPED: Duration = Duration::from_secs(5);

/// Becomes the other runtime, or says why not.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|first| first == "--netpold-help")
    {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let asked = match command::read(arguments) {
        Ok(asked) => asked,
        Err(problem) => {
            eprintln!("netpold-oci: {problem}\nhelp: `netpold-oci --netpold-help`");
            return ExitCode::from(2);
        }
    };
    if let Some(container) = &asked.starts
        && let Err(error) = wait(&asked, container)
    {
        let message = format!("netpold: {error:#}");
        match asked.settings.unready {
            Unready::Refuse => {
                tell(&asked, "error", &message);
                end(&asked, container);
                return ExitCode::FAILURE;
            }
            Unready::Start => tell(
                &asked,
                "warning",
                &format!("{message}; it is started all the same"),
            ),
        }
    }
    let failed = Command::new(&asked.settings.runtime)
        .args(&asked.arguments)
        .exec();
    let runtime = asked.settings.runtime.display();
    tell(
        &asked,
        "error",
        &format!("netpold-oci: can't run `{runtime}`: {failed}"),
    );
    ExitCode::FAILURE
}

/// Ends the process that waits to be started, and waits until its parent has reaped it: engines delete only what they
/// know to have ended, and would leave it and its shim behind. containerd's shim learns it from `wait4` alone, and keeps
/// that back while it starts the container: it is to know it before this process ends, which tells it that the start
/// failed. The engine deletes the container, as after every start that fails.
fn end(asked: &Asked, container: &OsString) {
    // A runtime that fails to say what it is about says the reason below.
    let process = state(asked, container)
        .ok()
        .and_then(|state| Process::new(state.pid));
    let ended = other(asked, "kill", container)
        .arg("KILL")
        .stdout(Stdio::null())
        .status();
    let is_gone = |process: &Process| {
        let deadline = Instant::now() + REAPED;
        while process.exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        !process.exists()
    };
    // What is not there any more can't be killed, and need not be.
    let is_ended = process
        .as_ref()
        .map_or(ended.is_ok_and(|status| status.success()), is_gone);
    if !is_ended {
        tell(
            asked,
            "warning",
            "netpold: what was not started is still there",
        );
    }
}

/// A process until it is reaped: as a zombie it is there.
struct Process {
    pid: u32,
    began: String,
}

impl Process {
    fn new(pid: u32) -> Option<Self> {
        let began = began(pid)?;
        Some(Self { pid, began })
    }

    /// Numbers are given again; with the time of the start, it is this one.
    fn exists(&self) -> bool {
        began(self.pid).is_some_and(|began| began == self.began)
    }
}

/// When this process began, as the kernel writes it: the 22nd field of its `stat` (proc_pid_stat(5)). The second one, its
/// name, may have spaces and parentheses.
fn began(pid: u32) -> Option<String> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let (_, rest) = text.rsplit_once(") ")?;
    rest.split(' ').nth(19).map(ToOwned::to_owned)
}

/// The other runtime, to be asked something of a container as the engine would.
fn other(asked: &Asked, verb: &str, container: &OsString) -> Command {
    let mut command = Command::new(&asked.settings.runtime);
    command.args(&asked.global).arg(verb).arg(container);
    command
}

/// Returns once the container is in force.
fn wait(asked: &Asked, container: &OsString) -> anyhow::Result<()> {
    let netns = netns(asked, container)?;
    // Containers on the host's network have nothing to wait for, with or without a daemon.
    if crate::netns::is_own(&netns) {
        return Ok(());
    }
    let client = Client::new(&asked.settings.socket);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let time = asked.settings.timeout;
    match runtime.block_on(client.ready_within(&netns, time, true)) {
        Ok(readiness) if readiness.ready => Ok(()),
        Ok(readiness) => bail!(
            "the container is not in force after {}: {}",
            shown(time),
            readiness.reason
        ),
        Err(ClientError::Silent { path }) => bail!(
            "netpold does not answer on `{}` within {}, so the container would start without its policies",
            path.display(),
            shown(time)
        ),
        Err(ClientError::NoDaemon { path, source }) => bail!(
            "no netpold answers on `{}` within {} ({source}), so the container would start without its policies",
            path.display(),
            shown(time)
        ),
        Err(error) => Err(error.into()),
    }
}

fn shown(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

/// What the runtime says of a container (runtime-spec, "State").
#[derive(serde::Deserialize)]
struct State {
    /// The container's first process, as long as there is one.
    #[serde(default)]
    pid: u32,
}

/// Asks the runtime for it.
fn state(asked: &Asked, container: &OsString) -> anyhow::Result<State> {
    let runtime = &asked.settings.runtime;
    let output = other(asked, "state", container)
        .output()
        .with_context(|| format!("can't run `{}`", runtime.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{} state` failed: {}", runtime.display(), said.trim());
    }
    let state: State = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("`{} state` is not understood", runtime.display()))?;
    if state.pid == 0 {
        bail!("the container has no process to start");
    }
    Ok(state)
}

/// The network namespace of the container's first process.
fn netns(asked: &Asked, container: &OsString) -> anyhow::Result<PathBuf> {
    let pid = state(asked, container)?.pid;
    Ok(crate::netns::of_process(pid))
}

/// Says it on stderr and in the runtime's log, from which the engine takes what it shows.
fn tell(asked: &Asked, level: &str, message: &str) {
    eprintln!("{message}");
    let Some(log) = &asked.log else { return };
    let line = if asked.log_is_json {
        let time = jiff::Timestamp::now().to_string();
        serde_json::json!({"level": level, "msg": message, "time": time}).to_string()
    } else {
        format!("level={level} msg={message:?}")
    };
    // stderr has it.
    let _ = OpenOptions::new()
        .append(true)
        .create(true)
        .open(log)
        .and_then(|mut file| writeln!(file, "{line}"));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_is_there_until_it_is_reaped() {
        // A name with all that may be mistaken for the end of a name.
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("a) S 1 (b");
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        let mut child = Command::new(&program).arg("1000").spawn().unwrap();
        let process = Process::new(child.id()).unwrap();
        assert!(process.exists());
        assert!(process.began.parse::<u64>().is_ok(), "{}", process.began);
        child.kill().unwrap();
        let is_zombie = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
            stat.contains(") Z ")
        };
        while !is_zombie() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(process.exists());
        child.wait().unwrap();
        assert!(!process.exists());
        // Another process that has its number, and began at another time.
        let own = Process::new(std::process::id()).unwrap();
        let began: u64 = own.began.parse().unwrap();
        let other = Process {
            began: (began - 1).to_string(),
            ..own
        };
        assert!(!other.exists());
    }
}
