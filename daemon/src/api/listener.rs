//! The socket itself: where it stands, who may use it, and what happens to one
//! that an earlier daemon left behind.
//!
//! The directory is 0755 and the socket 0660: root and the socket's group, which is root's or the one that `[api] group`
//! names. The socket gets its rights before it gets its name, so there is no moment in which
//! any user could connect.

use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::{fs, io};

use nix::unistd::Group;
use tokio::net::{UnixListener, UnixStream};

use crate::telemetry::systemd;

/// Why the socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A process answers on it.
    #[error("another netpold answers on `{0}`\nhelp: give this one its own `[api] socket`")]
    Taken(PathBuf),
    /// Something else has its name.
    #[error("`{0}` exists and is not a socket\nhelp: remove it, or set another `[api] socket`")]
    NotASocket(PathBuf),
    /// Without the right.
    #[error("no right to listen on `{0}`\nhelp: run as root, or set another `[api] socket`")]
    NoRight(PathBuf),
    /// `[api] group` names a group that this host does not have.
    #[error("there is no group `{0}`\nhelp: `groupadd --system {0}`, or correct `[api] group`")]
    NoGroup(String),
    /// The file system can't be written.
    #[error("can't listen on `{path}`: the file system is read-only\n{help}")]
    ReadOnly {
        /// The socket.
        path: PathBuf,
        /// What would be right.
        help: String,
    },
    /// The system said no.
    #[error("can't listen on `{path}`: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A listening socket that takes its name away again when it is dropped.
#[derive(Debug)]
pub struct Socket {
    /// The path that clients use.
    pub path: PathBuf,
    pub(super) listener: Option<UnixListener>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Nothing can be done about a failure; the next start replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens on `path`, replacing a socket on which no process answers. Members of `group` may use it; `None`: root's own.
///
/// # Errors
/// When another process has the path, or the system refuses.
pub async fn bind(path: &Path, group: Option<&str>) -> Result<Socket, ListenError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let failed = |source: io::Error| match source.kind() {
        ErrorKind::PermissionDenied => ListenError::NoRight(path.to_owned()),
        _ => match systemd::read_only_help("netpold", directory, &source) {
            Some(help) => ListenError::ReadOnly {
                path: path.to_owned(),
                help,
            },
            None => ListenError::Io {
                path: path.to_owned(),
                source,
            },
        },
    };
    let group = match group {
        None => None,
        Some(name) => match Group::from_name(name) {
            Ok(Some(found)) => Some(found.gid.as_raw()),
            Ok(None) => return Err(ListenError::NoGroup(name.to_owned())),
            Err(error) => return Err(failed(error.into())),
        },
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .map_err(failed)?;
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ListenError::NotASocket(path.to_owned()));
        }
        Ok(_) => match UnixStream::connect(path).await {
            Ok(_) => return Err(ListenError::Taken(path.to_owned())),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::NotFound
                ) => {}
            // A full backlog too: a process is there.
            Err(error) => return Err(failed(error)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let unnamed = directory.join(format!(".netpold-{}.sock", std::process::id()));
    match fs::remove_file(&unnamed) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&unnamed).map_err(failed)?;
    let owned = match group {
        Some(_) => chown(&unnamed, None, group),
        None => Ok(()),
    };
    let named = owned
        .and_then(|()| fs::set_permissions(&unnamed, fs::Permissions::from_mode(0o660)))
        .and_then(|()| fs::rename(&unnamed, path));
    if let Err(error) = named {
        let _ = fs::remove_file(&unnamed);
        return Err(failed(error));
    }
    Ok(Socket {
        path: path.to_owned(),
        listener: Some(listener),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/netpold.sock");
        let first = bind(&path, None).await.unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(matches!(
            bind(&path, None).await,
            Err(ListenError::Taken(_))
        ));
        // As a daemon that was killed leaves it: the name without a listener.
        drop(std::os::unix::net::UnixListener::bind(directory.path().join("dead")).unwrap());
        drop(first);
        fs::rename(directory.path().join("dead"), &path).unwrap();
        let second = bind(&path, None).await.unwrap();
        drop(second);
        assert!(!path.exists());
    }

    /// Giving a socket away needs root; a group that is not there does not.
    #[tokio::test]
    async fn members_of_the_group_may_use_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netpold.sock");
        let error = bind(&path, Some("no-such-group")).await.unwrap_err();
        assert!(error.to_string().contains("groupadd"), "{error}");
        assert!(!path.exists());
        let own = Group::from_gid(nix::unistd::getegid()).unwrap().unwrap();
        let _socket = bind(&path, Some(&own.name)).await.unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!(
            std::os::unix::fs::MetadataExt::gid(&found),
            own.gid.as_raw()
        );
        assert_eq!(found.permissions().mode() & 0o777, 0o660);
    }

    #[tokio::test]
    async fn a_file_in_its_place_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netpold.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            bind(&path, None).await,
            Err(ListenError::NotASocket(_))
        ));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
