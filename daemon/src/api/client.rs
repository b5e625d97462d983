//! The client's side of the socket, for `netpol` and the tests: what is asked, and what the answers mean.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use serde::de::DeserializeOwned;

use super::wire::{Failure, Listing, Readiness, Status, Waited};
use crate::flows::filter::Filter;
use crate::flows::flow::Line;
use crate::unix_http::{self, GetError, LineError};

/// Where the daemon listens unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/netpold/netpold.sock";

/// Bytes of one answer that the client is ready to hold.
const ANSWER_LIMIT: usize = 1 << 30;
/// Bytes of one line of a stream.
const LINE_LIMIT: usize = 1 << 20;

/// What a daemon that keeps to its time may take beyond it.
const GRACE: Duration = Duration::from_secs(1);
/// How often a daemon that is not there is looked for.
const AGAIN: Duration = Duration::from_millis(50);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens there.
    #[error(
        "no netpold answers on `{path}`: {source}\n\
         help: `systemctl status netpold` says whether it runs; `--socket` or NETPOLD_SOCKET names another socket"
    )]
    NoDaemon {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A process listens there and does not answer at all: halted, perhaps.
    #[error("netpold does not answer on `{path}`")]
    Silent {
        /// The socket.
        path: PathBuf,
    },
    /// A process listens there, but not for this user.
    #[error(
        "no right to use `{path}`\nhelp: run this as root (`sudo netpol …`), or as a member of the group that `[api] group` names"
    )]
    NoRight {
        /// The socket.
        path: PathBuf,
    },
    /// The connection broke.
    #[error("the connection to netpold on `{path}` broke: {source}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What broke.
        source: hyper::Error,
    },
    /// netpold refused.
    #[error("netpold: {0}")]
    Refused(String),
    /// Not what we know.
    #[error("netpold on `{path}` answers what this netpol does not understand: {what}")]
    NotUnderstood {
        /// The socket.
        path: PathBuf,
        /// What it was.
        what: String,
    },
}

/// A daemon to ask.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon that listens there.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// `/v1/status`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// `/v1/world`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn world(&self) -> Result<Listing, ClientError> {
        self.get("/v1/world").await
    }

    /// `/v1/wait`.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn wait(&self, timeout: Duration) -> Result<Waited, ClientError> {
        self.get(&format!("/v1/wait?timeout_ms={}", timeout.as_millis()))
            .await
    }

    /// `/v1/ready`: waits so long, at most, until all is in force for a network namespace.
    ///
    /// # Errors
    /// When there is no answer, or no such namespace.
    pub async fn ready(&self, netns: &Path, timeout: Duration) -> Result<Readiness, ClientError> {
        let netns = escaped(&netns.to_string_lossy());
        let timeout = timeout.as_millis();
        self.get(&format!("/v1/ready?netns={netns}&timeout_ms={timeout}"))
            .await
    }

    /// As [`Client::ready`], within a time: a daemon that is not there may be on its way back, and one
    /// that is halted takes the question and never answers it. `wait` is for the daemon: does it
    /// answer once the namespace is in force or the time is over, or at once?
    ///
    /// # Errors
    /// When there is no answer in that time, or no such namespace.
    pub async fn ready_within(
        &self,
        netns: &Path,
        time: Duration,
        wait: bool,
    ) -> Result<Readiness, ClientError> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let asked = self.ready(netns, if wait { left } else { Duration::ZERO });
            match tokio::time::timeout(left + GRACE, asked).await {
                Ok(Err(ClientError::NoDaemon { .. } | ClientError::Broken { .. }))
                    if !left.is_zero() =>
                {
                    tokio::time::sleep(AGAIN.min(left)).await;
                }
                Ok(answer) => return answer,
                Err(_) => {
                    return Err(ClientError::Silent {
                        path: self.socket.clone(),
                    });
                }
            }
        }
    }

    /// `/v1/observe`: the last so many flows, and, where `follow` is set, those to come.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn observe(
        &self,
        filter: &Filter,
        last: usize,
        follow: bool,
    ) -> Result<Lines, ClientError> {
        let mut path = format!("/v1/observe?last={last}&follow={follow}");
        for verdict in &filter.verdicts {
            path.push_str("&verdict=");
            path.push_str(verdict.name());
        }
        for (key, ends) in [("from", &filter.from), ("to", &filter.to)] {
            for end in ends {
                path.push_str(&format!("&{key}={}", escaped(&end.to_string())));
            }
        }
        let response = self.request(&path).await?;
        Ok(Lines {
            socket: self.socket.clone(),
            lines: unix_http::Lines::new(response.into_body(), LINE_LIMIT),
        })
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let response = self.request(path).await?;
        let bytes = unix_http::whole(response.into_body(), ANSWER_LIMIT)
            .await
            .map_err(|error| self.not_understood(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| self.not_understood(&error))
    }

    async fn request(&self, asked: &str) -> Result<Response<Incoming>, ClientError> {
        let path = || self.socket.clone();
        let response = unix_http::get(&self.socket, "netpold", asked)
            .await
            .map_err(|error| match error {
                GetError::Connect(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    ClientError::NoRight { path: path() }
                }
                GetError::Connect(source) => ClientError::NoDaemon {
                    path: path(),
                    source,
                },
                GetError::Http(source) => ClientError::Broken {
                    path: path(),
                    source,
                },
                GetError::Path(error) => self.not_understood(&error),
            })?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let bytes = unix_http::whole(response.into_body(), LINE_LIMIT)
            .await
            .map_err(|error| self.not_understood(&error))?;
        Err(match serde_json::from_slice::<Failure>(&bytes) {
            Ok(failure) => ClientError::Refused(failure.error),
            Err(_) => self.not_understood(&status),
        })
    }

    fn not_understood(&self, what: &dyn std::fmt::Display) -> ClientError {
        ClientError::NotUnderstood {
            path: self.socket.clone(),
            what: what.to_string(),
        }
    }
}

/// A stream of flows.
#[derive(Debug)]
pub struct Lines {
    socket: PathBuf,
    lines: unix_http::Lines,
}

impl Lines {
    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks, or a line is not what we know.
    pub async fn next(&mut self) -> Result<Option<Line>, ClientError> {
        match self.lines.next().await {
            Ok(None) => Ok(None),
            Ok(Some(line)) => serde_json::from_slice(&line)
                .map(Some)
                .map_err(|error| self.not_understood(&error)),
            Err(LineError::TooLong) => Err(self.not_understood(&"a line without an end")),
            Err(LineError::Broken(source)) => Err(ClientError::Broken {
                path: self.socket.clone(),
                source,
            }),
        }
    }

    fn not_understood(&self, what: &dyn std::fmt::Display) -> ClientError {
        ClientError::NotUnderstood {
            path: self.socket.clone(),
            what: what.to_string(),
        }
    }
}

/// A value for a query string (RFC 3986, section 2.3: unreserved characters stay).
fn escaped(value: &str) -> String {
    value
        .bytes()
        .map(|octet| match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(octet).to_string()
            }
            _ => format!("%{octet:02X}"),
        })
        .collect()
}
