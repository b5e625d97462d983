//! Why netlink did not answer.

use std::io;

use thiserror::Error;

use crate::netns::{NamespaceError, Netns};

/// Why netlink did not answer.
#[derive(Debug, Error)]
pub enum LinksError {
    /// The socket.
    #[error("netlink: {action}: {source}")]
    Socket {
        /// What was being done.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("netlink: {request} was refused: {source}")]
    Refused {
        /// The request's name (`RTM_GETLINK`).
        request: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// An answer that makes no sense, or never one that is of one piece.
    #[error("netlink: {request} was answered with {problem}")]
    Answer {
        /// The request's name (`RTM_GETLINK`).
        request: &'static str,
        /// What makes no sense.
        problem: &'static str,
    },
    /// A network namespace.
    #[error("network namespace `{namespace}`: {source}")]
    Namespace {
        /// Its path.
        namespace: String,
        /// What the system said.
        source: io::Error,
    },
}

impl LinksError {
    pub(super) fn namespace(netns: &Netns, source: io::Error) -> Self {
        Self::Namespace {
            namespace: netns.path().display().to_string(),
            source,
        }
    }
}

impl From<NamespaceError> for LinksError {
    fn from(error: NamespaceError) -> Self {
        let (path, source) = error.into_parts();
        Self::namespace(&Netns::Path(path), source)
    }
}
