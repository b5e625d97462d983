//! The daemon's state, told to systemd (sd_notify(3)).
//!
//! Without a service manager every call does nothing. Called by the reconcile loop:
//! it alone knows that it is alive, and that policy is in force.

use std::io;
use std::path::Path;
use std::time::Duration;

use sd_notify::NotifyState;

/// Policy is in force: after the first full reconcile.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(&line(status))]);
}

/// The loop goes round, and those it gives work to get on with it.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// The process restarts in place, with another configuration; [`ready`] ends that. Alive: what follows
/// has all the time that systemd gives.
pub fn reloading() {
    let mut states = vec![NotifyState::Watchdog, NotifyState::Reloading];
    states.extend(NotifyState::monotonic_usec_now().ok());
    tell(&states);
}

/// The daemon ends; enforcement stays.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// How often to call [`alive`]: half of what systemd waits; `None` where it does not.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

/// What would be right where a file system is read-only: a unit's is, but for what it names. `None`: it is
/// something else.
#[must_use]
pub fn read_only_help(unit: &str, directory: &Path, error: &io::Error) -> Option<String> {
    let shown = directory.display();
    (error.kind() == io::ErrorKind::ReadOnlyFilesystem).then(|| {
        format!(
            "help: {unit}.service may write only where it says so: `systemctl edit {unit}`, and there\n\
             help:   [Service]\n\
             help:   ReadWritePaths={shown}"
        )
    })
}

/// A status is one line: names in it come from elsewhere.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd can't be told");
    }
}
