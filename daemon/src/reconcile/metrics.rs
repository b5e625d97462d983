//! The metrics, as Prometheus reads them: packets by reason, and what `netpol status` counts.
//!
//! Served over HTTP where `[metrics] listen` says, to every client that can reach it: numbers alone, no
//! names. Nothing is counted here; the kernel's counters are read on request.

mod families;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::serve::Listener;
use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use self::families::Scrape;
use crate::api;
use crate::datapath::counters::CounterTable;

/// Connections at a time. Each is a descriptor of the daemon's, and Prometheus needs one.
const CONNECTIONS: usize = 16;
/// How long a connection lives: an answer takes milliseconds, and a client that wants another one
/// connects again.
const LIFETIME: Duration = Duration::from_secs(10);

/// A listener that has few connections at a time, none of them for long. More wait in the kernel's
/// queue.
struct Bounded {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    lifetime: Duration,
}

impl Bounded {
    fn new(listener: TcpListener, connections: usize, lifetime: Duration) -> Self {
        Self {
            listener,
            slots: Arc::new(Semaphore::new(connections)),
            lifetime,
        }
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        let (stream, from) = Listener::accept(&mut self.listener).await;
        let connection = Connection {
            stream,
            end: Box::pin(tokio::time::sleep(self.lifetime)),
            _slot: slot,
        };
        (connection, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends at its time, whatever its client does.
struct Connection {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _slot: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn is_over(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.is_over(context)?;
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.is_over(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_over(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_over(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// What is served.
#[derive(Clone)]
struct Shown {
    counters: Arc<CounterTable>,
    api: api::State,
}

/// Begins to serve. To be called inside a tokio runtime.
///
/// # Errors
/// The address can't be had.
pub(super) async fn serve(
    listen: SocketAddr,
    counters: CounterTable,
    api: api::State,
) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let shown = Shown {
        counters: Arc::new(counters),
        api,
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .with_state(shown);
    let listener = Bounded::new(listener, CONNECTIONS, LIFETIME);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    });
    tracing::info!("metrics are at http://{listen}/metrics");
    Ok(())
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let scrape = match shown.counters.read() {
        Ok(counts) => Scrape {
            counts,
            published: Arc::clone(&shown.api.published.borrow()),
            gate: shown.api.gate.read(),
        },
        Err(error) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response();
        }
    };
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], scrape.text()).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Clients that say nothing take no descriptor for long, and no other client's turn for ever.
    #[tokio::test]
    async fn silent_clients_are_few_and_not_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lifetime = Duration::from_millis(300);
        let bounded = Bounded::new(listener, 2, lifetime);
        let slots = Arc::clone(&bounded.slots);
        let router = Router::new().route("/", get(async || "numbers"));
        let server = tokio::spawn(async move { axum::serve(bounded, router).await });
        let mut silent = Vec::new();
        for _ in 0..8 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        tokio::time::sleep(lifetime / 3).await;
        assert_eq!(slots.available_permits(), 0);
        // Behind the eight, two at a time.
        let mut client = TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        let read = client.read_to_string(&mut answer);
        tokio::time::timeout(lifetime * 10, read)
            .await
            .expect("the turn never came")
            .unwrap();
        assert!(answer.ends_with("numbers"), "{answer}");
        let mut rest = [0];
        assert_eq!(silent[0].read(&mut rest).await.unwrap(), 0, "still open");
        server.abort();
    }
}
