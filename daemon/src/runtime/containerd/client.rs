//! gRPC to containerd's Unix socket, and nothing of what the answers mean.
//!
//! One connection, which is never replaced behind the caller's back: when it breaks, all calls
//! fail. Answers have limits of size, number and time: a container's labels are whatever
//! their makers wrote into them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::http::uri::PathAndQuery;
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::wire;
use crate::printable::printable;

/// containerd itself sends no larger message (`defaults.DefaultMaxSendMsgSize`).
const LARGEST_MESSAGE: usize = 16 << 20;
/// The names and labels of a namespace's containers.
const LARGEST_LISTING: usize = 64 << 20;
/// Those of one container. A Kubernetes object has 1.5 MiB at most, and its labels a small part.
pub(super) const LARGEST: usize = 1 << 20;
/// Those of an ordinary one: what is larger has its own share of a listing.
const USUAL: usize = 16 << 10;
/// That share.
const ROOM: usize = LARGEST_LISTING / 2;
/// Far more than one host runs.
const MOST_CONTAINERS: usize = 1 << 16;
/// Kubernetes uses one, and nerdctl one.
const MOST_NAMESPACES: usize = 1 << 10;
/// containerd waits for a shim that does not answer for 2 s; it may have many.
const PATIENCE: Duration = Duration::from_secs(20);
/// Events that have come and were not looked at yet; more of them wait in containerd.
const EVENTS: usize = 64;
/// The namespace that a call is about.
const HEADER: &str = "containerd-namespace";

/// Why containerd gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// No process listens at the socket.
    #[error("{}: {source}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What listens there does not speak gRPC.
    #[error("{}: {source}", socket.display())]
    Transport {
        /// The socket.
        socket: PathBuf,
        /// The connection's error.
        source: tonic::transport::Error,
    },
    /// It answered with an error, or the connection broke.
    #[error("`{call}`: {}", said(status))]
    Refused {
        /// What was asked.
        call: &'static str,
        /// containerd's answer.
        status: Box<Status>,
    },
    /// It did not answer in time.
    #[error("`{call}`: no answer within {} s", PATIENCE.as_secs())]
    Late {
        /// What was asked.
        call: &'static str,
    },
    /// There is more of it than can be meant.
    #[error("`{call}`: more than {most} {what}")]
    TooMuch {
        /// What was asked.
        call: &'static str,
        /// How much is taken.
        most: usize,
        /// Of what.
        what: &'static str,
    },
    /// The events have ended.
    #[error("{}: containerd has closed the connection", socket.display())]
    Ended {
        /// The socket.
        socket: PathBuf,
    },
}

fn said(status: &Status) -> String {
    match status.message() {
        "" => status.code().to_string(),
        message => printable(message).into_owned(),
    }
}

impl ClientError {
    /// Is there just no such thing (any more)?
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.code() == Code::NotFound)
    }

    /// Is there no socket at all?
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }

    /// Is it about what was asked alone? Then other calls may succeed.
    pub(super) fn is_of_the_call(&self) -> bool {
        match self {
            Self::Refused { status, .. } => status.code() != Code::Unavailable,
            Self::Late { .. } => true,
            _ => false,
        }
    }
}

/// A containerd that has answered once.
#[derive(Clone, Debug)]
pub(super) struct Client {
    channel: Channel,
    socket: PathBuf,
}

impl Client {
    /// Connects, and asks for the version.
    pub(super) async fn connect(socket: &Path) -> Result<(Self, String), ClientError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|source| ClientError::Connect {
                socket: socket.to_owned(),
                source,
            })?;
        let mut stream = Some(hyper_util::rt::TokioIo::new(stream));
        let once = tower::service_fn(move |_| {
            let stream = stream.take().ok_or(std::io::ErrorKind::NotConnected);
            async move { stream.map_err(std::io::Error::from) }
        });
        // The address is for the `authority` header alone.
        let channel = Endpoint::from_static("http://containerd")
            .connect_with_connector(once)
            .await
            .map_err(|source| ClientError::Transport {
                socket: socket.to_owned(),
                source,
            })?;
        let client = Self {
            channel,
            socket: socket.to_owned(),
        };
        let call = "/containerd.services.version.v1.Version/Version";
        let version: wire::Version = client.ask(call, None, wire::Everything {}).await?;
        Ok((client, version.version))
    }

    /// Every namespace.
    pub(super) async fn namespaces(&self) -> Result<Vec<String>, ClientError> {
        let call = "/containerd.services.namespaces.v1.Namespaces/List";
        let listed: wire::Namespaces = self.ask(call, None, wire::Everything {}).await?;
        if listed.namespaces.len() > MOST_NAMESPACES {
            return Err(ClientError::TooMuch {
                call,
                most: MOST_NAMESPACES,
                what: "namespaces",
            });
        }
        Ok(listed.namespaces.into_iter().map(|one| one.name).collect())
    }

    /// Every container of a namespace, whether it has a task or not. One message each: all
    /// their specifications together may be more than containerd can send in one.
    pub(super) async fn containers(&self, namespace: &Namespace) -> Result<Listing, ClientError> {
        let call = "/containerd.services.containers.v1.Containers/ListStream";
        let listing = async {
            let mut stream: Streaming<wire::Listed> = self
                .stream(call, Some(namespace), wire::Everything {})
                .await?;
            let mut listing = Listing::default();
            while let Some(one) = stream.message().await.map_err(refused(call))? {
                if let Some(container) = one.container {
                    listing
                        .add(container)
                        .map_err(|(most, what)| ClientError::TooMuch { call, most, what })?;
                }
            }
            Ok(listing)
        };
        in_time(call, listing).await
    }

    /// The tasks of a namespace. One whose shim does not answer is left out.
    pub(super) async fn tasks(
        &self,
        namespace: &Namespace,
    ) -> Result<Vec<wire::Process>, ClientError> {
        let call = "/containerd.services.tasks.v1.Tasks/List";
        let tasks: wire::Tasks = self.ask(call, Some(namespace), wire::Everything {}).await?;
        Ok(tasks.tasks)
    }

    /// The task of one container.
    pub(super) async fn task(
        &self,
        namespace: &Namespace,
        container: &str,
    ) -> Result<wire::Process, ClientError> {
        let call = "/containerd.services.tasks.v1.Tasks/Get";
        let request = wire::GetTask {
            container_id: container.to_owned(),
        };
        let task: wire::Task = self.ask(call, Some(namespace), request).await?;
        Ok(task.process.unwrap_or_default())
    }

    /// What happens from about now on, in all namespaces. containerd answers with the first
    /// event, which may be long in coming: when it has begun to listen is not known.
    pub(super) fn events(&self, topics: &[&str]) -> Events {
        let call = "/containerd.services.events.v1.Events/Subscribe";
        let request = wire::Subscribe {
            filters: topics
                .iter()
                .map(|topic| format!("topic=={topic:?}"))
                .collect(),
        };
        let client = self.clone();
        let (send, events) = mpsc::channel(EVENTS);
        tokio::spawn(async move {
            let forward = async {
                let mut stream = client.stream(call, None, request).await?;
                while let Some(event) = stream.message().await.map_err(refused(call))? {
                    // It is no longer asked for where that fails, and the other branch ends this.
                    let _ = send.send(Ok(event)).await;
                }
                Err(ClientError::Ended {
                    socket: client.socket.clone(),
                })
            };
            let end: Result<(), ClientError> = tokio::select! {
                end = forward => end,
                () = send.closed() => return,
            };
            if let Err(error) = end {
                let _ = send.send(Err(error)).await;
            }
        });
        Events { events }
    }

    async fn ask<Q, A>(
        &self,
        call: &'static str,
        namespace: Option<&Namespace>,
        request: Q,
    ) -> Result<A, ClientError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        in_time(call, async {
            let mut grpc = self.ready(call).await?;
            let codec: ProstCodec<Q, A> = ProstCodec::default();
            let path = PathAndQuery::from_static(call);
            let answer = grpc
                .unary(addressed(namespace, request), path, codec)
                .await
                .map_err(refused(call))?;
            Ok(answer.into_inner())
        })
        .await
    }

    async fn stream<Q, A>(
        &self,
        call: &'static str,
        namespace: Option<&Namespace>,
        request: Q,
    ) -> Result<Streaming<A>, ClientError>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.ready(call).await?;
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        let path = PathAndQuery::from_static(call);
        let answer = grpc
            .server_streaming(addressed(namespace, request), path, codec)
            .await
            .map_err(refused(call))?;
        Ok(answer.into_inner())
    }

    async fn ready(&self, call: &'static str) -> Result<Grpc<Channel>, ClientError> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST_MESSAGE);
        grpc.ready().await.map_err(|error| ClientError::Refused {
            call,
            status: Box::new(Status::unavailable(error.to_string())),
        })?;
        Ok(grpc)
    }
}

/// The containers of a namespace, as they come.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub containers: Vec<wire::Container>,
    /// IDs of those whose labels are too large, or large, as many others' are. One container
    /// hides none but itself.
    pub too_large: BTreeSet<String>,
    /// Bytes of ordinary ones, and of large ones.
    sizes: [usize; 2],
}

impl Listing {
    /// An error says how much is taken, and of what.
    fn add(&mut self, container: wire::Container) -> Result<(), (usize, &'static str)> {
        if self.containers.len() + self.too_large.len() == MOST_CONTAINERS {
            return Err((MOST_CONTAINERS, "containers"));
        }
        let size = container.encoded_len();
        let [usual, large] = &mut self.sizes;
        if size <= USUAL {
            *usual += size;
            if *usual > LARGEST_LISTING {
                return Err((LARGEST_LISTING, "bytes of labels"));
            }
        } else if size > LARGEST || *large + size > ROOM {
            self.too_large.insert(container.id);
            return Ok(());
        } else {
            *large += size;
        }
        self.containers.push(container);
        Ok(())
    }
}

/// A namespace that a call can be about.
#[derive(Clone, Debug)]
pub(super) struct Namespace(MetadataValue<Ascii>);

impl Namespace {
    /// None, where it can't stand in a header: then it can't be a namespace's name either.
    pub(super) fn new(name: &str) -> Option<Self> {
        Some(Self(MetadataValue::try_from(name).ok()?))
    }
}

fn addressed<Q>(namespace: Option<&Namespace>, request: Q) -> Request<Q> {
    let mut request = Request::new(request);
    if let Some(Namespace(namespace)) = namespace {
        request.metadata_mut().insert(HEADER, namespace.clone());
    }
    request
}

fn refused(call: &'static str) -> impl Fn(Status) -> ClientError {
    move |status| ClientError::Refused {
        call,
        status: Box::new(status),
    }
}

async fn in_time<A>(
    call: &'static str,
    answer: impl Future<Output = Result<A, ClientError>>,
) -> Result<A, ClientError> {
    tokio::time::timeout(PATIENCE, answer)
        .await
        .unwrap_or(Err(ClientError::Late { call }))
}

/// containerd's events, as they come. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Events {
    events: mpsc::Receiver<Result<wire::Envelope, ClientError>>,
}

impl Events {
    /// The next one; an error is the last. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Result<wire::Envelope, ClientError> {
        match self.events.recv().await {
            Some(event) => event,
            // It was given already.
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(size: usize) -> wire::Container {
        named("", size)
    }

    fn named(id: &str, size: usize) -> wire::Container {
        wire::Container {
            id: id.to_owned(),
            labels: [("x".to_owned(), "x".repeat(size))].into(),
            ..wire::Container::default()
        }
    }

    #[test]
    fn a_listing_has_an_end() {
        let mut listing = Listing::default();
        while listing.sizes[0] + USUAL <= LARGEST_LISTING {
            assert!(listing.add(container(USUAL - 32)).is_ok());
        }
        assert!((0..4).any(|_| listing.add(container(USUAL - 32)).is_err()));
        let mut listing = Listing::default();
        for _ in 0..MOST_CONTAINERS {
            assert!(listing.add(container(1)).is_ok());
        }
        assert!(listing.add(container(1)).is_err());
    }

    /// However large the labels of some are, and however many there are of them, the others are
    /// listed.
    #[test]
    fn a_container_with_large_labels_hides_no_other() {
        let mut listing = Listing::default();
        assert!(listing.add(named("first", 100)).is_ok());
        assert!(listing.add(named("huge", 15 << 20)).is_ok());
        for number in 0..100 {
            let large = named(&format!("large-{number}"), LARGEST - 64);
            assert!(listing.add(large).is_ok());
        }
        assert!(listing.add(named("last", 100)).is_ok());
        let listed: Vec<&str> = listing.containers.iter().map(|one| &*one.id).collect();
        assert!(listed.contains(&"first") && listed.contains(&"last"));
        assert!(listing.too_large.contains("huge"));
        assert!(listing.too_large.contains("large-99") && listed.contains(&"large-0"));
        assert_eq!(listed.len() + listing.too_large.len(), 103);
    }

    #[test]
    fn what_is_of_the_call_alone_ends_no_session() {
        let refused = |code| ClientError::Refused {
            call: "x",
            status: Box::new(Status::new(code, "\u{1b}[31m")),
        };
        let rows = [
            (Code::NotFound, true, true),
            (Code::Unknown, false, true),
            (Code::DeadlineExceeded, false, true),
            (Code::Unavailable, false, false),
        ];
        for (code, gone, of_the_call) in rows {
            let error = refused(code);
            assert_eq!(error.is_gone(), gone, "{code:?}");
            assert_eq!(error.is_of_the_call(), of_the_call, "{code:?}");
            assert!(!error.to_string().contains('\u{1b}'));
        }
    }

    #[test]
    fn namespaces_that_no_header_can_hold_are_none() {
        assert!(Namespace::new("k8s.io").is_some());
        assert!(Namespace::new("a\nb").is_none());
    }
}
