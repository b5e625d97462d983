//! `netpold-cni`: a CNI plugin at the end of a network's list, for those who want no application to
//! lose its first packet.
//!
//! ```text
//!  nerdctl, ctr, CRI ─▶ bridge ─▶ … ─▶ netpold-cni ADD ─▶ GET /v1/ready (netpold)
//!                                          │            ◀─ in force
//!                                          └─▶ the result of the plugins before, as it was
//! ```
//!
//! Makes no interface and changes none. Whether policy holds does not depend on it: what is not in
//! force is shut. Speaks the CNI specification, versions 0.3.0 to 1.1.0, on stdin, stdout and in
//! the environment. Must never ask a runtime: it may hold the container's lock until `ADD` has
//! ended.

mod command;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value;

use crate::api::Client;
use crate::api::client::ClientError;
pub use command::HELP;
use command::{Asked, Failure, Network, OnTimeout};

/// A network's configuration and its result so far are a few KiB.
const LARGEST: u64 = 16 << 20;

/// Does what the environment and stdin ask.
#[must_use]
pub fn main() -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    if environment("CNI_COMMAND").is_none() {
        eprintln!("{HELP}");
        return ExitCode::from(2);
    }
    let mut text = Vec::new();
    let read = std::io::stdin().take(LARGEST).read_to_end(&mut text);
    let answer = match read {
        Ok(_) => command::read(environment, &text).and_then(|asked| perform(&asked)),
        Err(error) => Err(Failure::io(format!("stdin can't be read: {error}"))),
    };
    let (said, code) = match answer {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(result)) => (result, ExitCode::SUCCESS),
        Err(failure) => (failure.json(), ExitCode::FAILURE),
    };
    // The caller may have gone.
    let _ = writeln!(std::io::stdout(), "{said}");
    code
}

/// What is to be printed, where anything is.
fn perform(asked: &Asked) -> Result<Option<Value>, Failure> {
    match asked {
        Asked::Version(version) => Ok(Some(command::versions(version))),
        // What a plugin has not made it need not take away.
        Asked::Nothing => Ok(None),
        Asked::Add { network, result } => {
            wait(network).or_else(|failure| match network.on_timeout {
                OnTimeout::Refuse => Err(failure),
                OnTimeout::Allow => {
                    eprintln!("netpold-cni: {failure}; the container is started all the same");
                    Ok(())
                }
            })?;
            Ok(Some(result.clone()))
        }
        Asked::Check(network) => wait(network).map(|()| None),
        Asked::Status(network) => status(network).map(|()| None),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::io(error.to_string()))
}

/// Returns once all is in force for the network namespace.
fn wait(network: &Network) -> Result<(), Failure> {
    let client = Client::new(&network.socket);
    let time = network.timeout;
    let again = |said: String| Err(Failure::again(said));
    let without = |path: &Path, why: &dyn std::fmt::Display| {
        format!(
            "no netpold answers on `{}` within {} s ({why}), so the container would start without its policies",
            path.display(),
            time.as_secs_f64()
        )
    };
    // Kubernetes makes a Pod known after its network, and starts its containers after that:
    // until then its interfaces are shut, and no caller waits for it.
    let asked = client.ready_within(&network.netns, time, !network.of_pod);
    match runtime()?.block_on(asked) {
        Ok(readiness) if readiness.ready || network.of_pod => Ok(()),
        Ok(readiness) => again(format!(
            "the container is not in force after {} s: {}",
            time.as_secs_f64(),
            readiness.reason
        )),
        Err(ClientError::Silent { path }) => again(without(&path, &"timed out")),
        Err(ClientError::NoDaemon { path, source }) => again(without(&path, &source)),
        Err(error) => Err(Failure::io(error.to_string())),
    }
}

/// Would an `ADD` have a daemon to ask?
fn status(network: &Network) -> Result<(), Failure> {
    let client = Client::new(&network.socket);
    runtime()?
        .block_on(client.status())
        .map(|_| ())
        .map_err(|error| match network.on_timeout {
            OnTimeout::Refuse => Failure::unavailable(error.to_string()),
            OnTimeout::Allow => Failure::limited(error.to_string()),
        })
}
