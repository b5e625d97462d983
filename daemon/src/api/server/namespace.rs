//! The network namespace that a client asks about: opened once, by its path, whose file system may be any user's
//! and slow. So on a thread of its own, within a time, and not many at once. Nothing is opened that is
//! no namespace: opening a device or a pipe may do something, or wait for ever.

use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::Semaphore;

use super::Refusal;
use crate::netns;

/// How long it may take. Where namespaces are (`/proc`, and mounts in `/run`) takes microseconds.
const TIME: Duration = Duration::from_secs(2);
/// So many are being opened at most.
static OPENING: Semaphore = Semaphore::const_new(16);

/// Opens the namespace's file on a thread, which a hung file system may hold.
pub(super) async fn open(path: PathBuf) -> Result<File, Refusal> {
    if !may_be_one(&path) {
        return Err(Refusal::asked_wrongly(
            "netns: an absolute path below /proc or /run, such as /proc/1234/ns/net or /run/netns/NAME",
        ));
    }
    let shown = path.display().to_string();
    let opened = async {
        let permit = OPENING.acquire().await.map_err(io::Error::other)?;
        let open = move || {
            let opened = netns::open(&path);
            drop(permit);
            opened
        };
        tokio::task::spawn_blocking(open)
            .await
            .map_err(io::Error::other)?
    };
    match tokio::time::timeout(TIME, opened).await {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(error)) => Err(Refusal(
            StatusCode::NOT_FOUND,
            format!("network namespace `{shown}`: {error}"),
        )),
        Err(_) => Err(Refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "network namespace `{shown}`: not opened within {} s",
                TIME.as_secs()
            ),
        )),
    }
}

fn may_be_one(path: &Path) -> bool {
    ["/proc", "/run", "/var/run"]
        .iter()
        .any(|folder| path.starts_with(folder))
        && !path.components().any(|part| part == Component::ParentDir)
}
