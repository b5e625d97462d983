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
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::api::Client;
use crate::api::client::ClientError;
pub use command::HELP;
use command::{Asked, Unready};

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

/// Ends the process that waits to be started: engines delete only what has ended, and would leave it and its
/// shim behind.
fn end(asked: &Asked, container: &OsString) {
    let ended = other(asked, "kill", container)
        .arg("KILL")
        .stdout(Stdio::null())
        .status();
    if !ended.is_ok_and(|status| status.success()) {
        tell(
            asked,
            "warning",
            "netpold: what was not started is still there",
        );
    }
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
    // Containers on the host's network have nothing to wait for, whoever is there to say so.
    if same(&netns, Path::new("/proc/self/ns/net")) {
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

/// The network namespace of the container's first process: what the runtime says of it
/// (runtime-spec, "State").
fn netns(asked: &Asked, container: &OsString) -> anyhow::Result<PathBuf> {
    #[derive(serde::Deserialize)]
    struct State {
        #[serde(default)]
        pid: u32,
    }
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
    Ok(PathBuf::from(format!("/proc/{}/ns/net", state.pid)))
}

fn same(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    identity(one).is_some_and(|found| identity(other) == Some(found))
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
