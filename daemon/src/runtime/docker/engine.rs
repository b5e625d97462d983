//! What is asked of the engine over its Unix socket, and nothing of what the answers mean.
//!
//! One connection a request, one that stays for the events. Answers have a size limit
//! and a time limit. Only what is used is decoded, and every field may be missing or
//! null: engines differ (Podman's service, old and coming versions), and a container
//! whose state has a new name must not hide the others. So not bollard's models,
//! whose enums refuse what they don't know.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::Response;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::elements::{Element, Elements};
use super::resolv_conf;
use super::wire;
use crate::printable::printable;
use crate::unix_http::{self, GetError, LineError, Lines};

/// The newest version of the API that this was written for.
const NEWEST: (u32, u32) = (1, 53);
/// Of anything but the listing of containers.
const LARGEST_ANSWER: usize = 64 << 20;
/// A thousand containers list in some 2 MiB. It is read as it comes, and never held as a whole.
const LARGEST_LISTING: usize = 1 << 30;
/// Labels come with every event of a container.
const LARGEST_EVENT: usize = 4 << 20;
/// For all but an inspection, which waits while its container starts.
const PATIENCE: Duration = Duration::from_secs(20);
/// Starting may pull a volume over the network first.
const START: Duration = Duration::from_secs(300);

/// Why the engine gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No process listens at the socket.
    #[error("{}: {source}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another name of a socket that is followed.
    #[error("it is the engine at {}, which is followed already", .0.display())]
    Followed(PathBuf),
    /// The connection broke, or is not HTTP.
    #[error("`{path}`: {source}")]
    Http {
        /// What was asked.
        path: String,
        /// The connection's error.
        source: hyper::Error,
    },
    /// It answered with an error.
    #[error("`{path}`: the engine answers {status}: {message}")]
    Refused {
        /// What was asked.
        path: String,
        /// The HTTP status.
        status: u16,
        /// The engine's message.
        message: String,
    },
    /// It answered something else than what was asked for.
    #[error("`{path}`: the answer can't be read: {message}")]
    Answer {
        /// What was asked.
        path: String,
        /// What is wrong with it.
        message: String,
    },
    /// It did not answer in time.
    #[error("`{path}`: no answer within {} s", limit.as_secs())]
    Late {
        /// What was asked.
        path: String,
        /// How long it had.
        limit: Duration,
    },
}

impl EngineError {
    /// Is there just no such container (any more)?
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Is there no socket at all?
    pub(super) fn is_absent(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Followed(_) => true,
            _ => false,
        }
    }
}

/// An engine that has answered once.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    socket: PathBuf,
    prefix: String,
    /// The engine's own version, for people.
    version: String,
    /// The version of the API that is spoken.
    api: Option<(u32, u32)>,
}

impl Engine {
    /// Asks what engine it is, and agrees on the version of the API.
    pub(crate) async fn connect(socket: &Path) -> Result<Self, EngineError> {
        let mut engine = Self {
            socket: socket.to_owned(),
            prefix: String::new(),
            version: String::new(),
            api: None,
        };
        let version: wire::Version = engine.get("/version", PATIENCE).await?;
        engine.api = agreed(&version.api_version);
        engine.version = version.version;
        if let Some((major, minor)) = engine.api {
            engine.prefix = format!("/v{major}.{minor}");
        }
        Ok(engine)
    }

    /// The engine's own version, for people.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// The version of the API that is spoken.
    pub(crate) const fn api(&self) -> Option<(u32, u32)> {
        self.api
    }

    /// Every container, running or not. Takes none of the engine's locks.
    pub(super) async fn containers(&self) -> Result<Listing, EngineError> {
        let read = async |path: &str, mut body: Incoming| {
            let unreadable = |message: String| EngineError::Answer {
                path: path.to_owned(),
                message,
            };
            let (mut elements, mut size) = (Elements::default(), 0);
            let (mut listing, mut failure) = (Listing::default(), None);
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|source| EngineError::Http {
                    path: path.to_owned(),
                    source,
                })?;
                let Ok(data) = frame.into_data() else {
                    continue;
                };
                size += data.len();
                if size > LARGEST_LISTING {
                    return Err(unreadable("it has no end".to_owned()));
                }
                elements.take(&data, |element| {
                    let added = listing.add(element).err();
                    failure = failure.take().or(added);
                });
            }
            match failure {
                Some(error) => Err(unreadable(error.to_string())),
                None if elements.is_complete() => Ok(listing),
                None => Err(unreadable("it is no list, or is cut short".to_owned())),
            }
        };
        self.ask("/containers/json?all=true", PATIENCE, read).await
    }

    /// Every network.
    pub(crate) async fn networks(&self) -> Result<Vec<wire::Network>, EngineError> {
        self.get("/networks", PATIENCE).await
    }

    /// One container. Waits while it starts.
    pub(super) async fn inspect(&self, id: &str) -> Result<wire::Inspection, EngineError> {
        let id = checked("/containers/json", id)?;
        let path = format!("/containers/{id}/json");
        let mut inspection: wire::Inspection = self.get(&path, START).await?;
        inspection.written = resolv_conf::read(id, &inspection.resolv_conf_path);
        inspection.api = self.api;
        Ok(inspection)
    }

    /// One network, with the addresses of the containers on it: known before a container
    /// that joins it has started. Takes no container's lock.
    pub(super) async fn members(&self, id: &str) -> Result<wire::Members, EngineError> {
        let id = checked("/networks", id)?;
        self.get(&format!("/networks/{id}"), PATIENCE).await
    }

    /// What happens from now on.
    pub(super) async fn events(&self) -> Result<Events, EngineError> {
        let filters = "%7B%22type%22%3A%5B%22container%22%2C%22network%22%5D%7D";
        let path = format!("{}/events?filters={filters}", self.prefix);
        let response = tokio::time::timeout(PATIENCE, self.send(&path))
            .await
            .map_err(|_| EngineError::Late {
                path: path.clone(),
                limit: PATIENCE,
            })??;
        if !response.status().is_success() {
            return Err(refused(path, response).await);
        }
        Ok(Events {
            path,
            lines: Lines::new(response.into_body(), LARGEST_EVENT),
        })
    }

    async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        limit: Duration,
    ) -> Result<T, EngineError> {
        let read = async |path: &str, body: Incoming| {
            let unreadable = |message: String| EngineError::Answer {
                path: path.to_owned(),
                message,
            };
            let body = unix_http::whole(body, LARGEST_ANSWER)
                .await
                .map_err(|error| unreadable(error.to_string()))?;
            serde_json::from_slice(&body).map_err(|error| unreadable(error.to_string()))
        };
        self.ask(path, limit, read).await
    }

    async fn ask<T>(
        &self,
        path: &str,
        limit: Duration,
        read: impl AsyncFnOnce(&str, Incoming) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let path = format!("{}{path}", self.prefix);
        let answer = async {
            let response = self.send(&path).await?;
            if !response.status().is_success() {
                return Err(refused(path.clone(), response).await);
            }
            read(&path, response.into_body()).await
        };
        tokio::time::timeout(limit, answer)
            .await
            .unwrap_or_else(|_| {
                Err(EngineError::Late {
                    path: path.clone(),
                    limit,
                })
            })
    }

    async fn send(&self, path: &str) -> Result<Response<Incoming>, EngineError> {
        unix_http::get(&self.socket, "docker", path)
            .await
            .map_err(|error| match error {
                GetError::Connect(source) => EngineError::Connect {
                    socket: self.socket.clone(),
                    source,
                },
                GetError::Http(source) => EngineError::Http {
                    path: path.to_owned(),
                    source,
                },
                GetError::Path(error) => EngineError::Answer {
                    path: path.to_owned(),
                    message: error.to_string(),
                },
            })
    }
}

/// Every container whose description is within the limits. The others stay unknown, and on hold.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Those that can be known.
    pub containers: Vec<wire::Summary>,
    /// The others' IDs.
    pub too_large: BTreeSet<String>,
}

impl Listing {
    fn add(&mut self, element: Element<'_>) -> serde_json::Result<()> {
        match element {
            Element::Whole(text) => self.containers.push(serde_json::from_slice(text)?),
            Element::TooLarge(beginning) => {
                let text = String::from_utf8_lossy(beginning);
                // It stands first.
                let id = text.split('"').nth(3).unwrap_or_default();
                let id: String = id.chars().take(64).collect();
                self.too_large.insert(printable(&id).into_owned());
            }
        }
        Ok(())
    }
}

/// An ID goes into a path: nothing but what IDs are made of.
fn checked<'a>(path: &str, id: &'a str) -> Result<&'a str, EngineError> {
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(EngineError::Answer {
            path: path.to_owned(),
            message: format!("{id:?} is no ID"),
        });
    }
    Ok(id)
}

/// The newest version that both know; none where the engine's can't be read.
fn agreed(theirs: &str) -> Option<(u32, u32)> {
    let (major, minor) = theirs.split_once('.')?;
    Some(NEWEST.min((major.parse().ok()?, minor.parse().ok()?)))
}

async fn refused(path: String, response: Response<Incoming>) -> EngineError {
    let status = response.status().as_u16();
    let body = unix_http::whole(response.into_body(), 64 << 10)
        .await
        .unwrap_or_default();
    let message = serde_json::from_slice::<wire::Failure>(&body)
        .map(|failure| failure.message)
        .unwrap_or_else(|_| String::from_utf8_lossy(&body).trim().to_owned());
    EngineError::Refused {
        path,
        status,
        message,
    }
}

/// The engine's events, as they come.
#[derive(Debug)]
pub(super) struct Events {
    path: String,
    lines: Lines,
}

impl Events {
    /// The next one; `None` where the stream ends. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<wire::Event>, EngineError> {
        loop {
            match self.lines.next().await {
                Ok(Some(line)) if line.iter().all(u8::is_ascii_whitespace) => {}
                // What can't be read may still have been about a container: a hint is a hint.
                Ok(Some(line)) => {
                    return Ok(Some(serde_json::from_slice(&line).unwrap_or_default()));
                }
                Ok(None) => return Ok(None),
                Err(LineError::TooLong) => {
                    return Err(EngineError::Answer {
                        path: self.path.clone(),
                        message: "an event has no end".to_owned(),
                    });
                }
                Err(LineError::Broken(source)) => {
                    return Err(EngineError::Http {
                        path: self.path.clone(),
                        source,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::agreed;

    #[test]
    fn the_older_of_two_versions_is_spoken() {
        let rows = [
            ("1.41", Some((1, 41))),
            ("1.53", Some((1, 53))),
            ("1.99", Some((1, 53))),
            ("2.0", Some((1, 53))),
            ("", None),
            ("one", None),
        ];
        for (theirs, expected) in rows {
            assert_eq!(agreed(theirs), expected, "{theirs:?}");
        }
    }
}
