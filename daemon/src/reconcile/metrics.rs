//! The metrics, as Prometheus reads them: packets by reason, and what `netpol status` counts.
//!
//! Served over HTTP where `[metrics] listen` says, to whoever can reach that: numbers alone, no
//! names. Nothing is counted here; the kernel's counters are read when somebody asks.

use std::fmt::Write as _;
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
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use crate::api;
use crate::api::wire::{GateDrops, Status, TableStatus};
use crate::datapath::counters::{Count, CounterTable};

/// Connections at a time. Each is a descriptor of the daemon's, and Prometheus needs one.
const CONNECTIONS: usize = 16;
/// How long a connection lives: an answer takes milliseconds, and whoever wants another one
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
    let status = Arc::clone(&shown.api.published.borrow());
    match shown.counters.read() {
        Ok(counts) => (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
            render(&counts, &status.status, shown.api.gate.read()),
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The text form (Prometheus exposition format 0.0.4).
fn render(counts: &[Count], status: &Status, gate: GateDrops) -> String {
    let mut text = String::new();
    for (name, help, value) in [
        (
            "netpold_packets_total",
            "Packets by reason, in the endpoint's direction.",
            (|count| count.packets) as fn(&Count) -> u64,
        ),
        (
            "netpold_bytes_total",
            "Bytes of those packets, link-layer header included.",
            |count| count.bytes,
        ),
    ] {
        head(&mut text, name, "counter", help);
        for count in counts {
            let verdict = if count.reason.allows() {
                "forwarded"
            } else {
                "dropped"
            };
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{name}{{reason=\"{}\",direction=\"{}\",verdict=\"{verdict}\"}} {}",
                count.reason.label(),
                count.direction.label(),
                value(count)
            );
        }
    }
    for (name, help, value) in [
        (
            "netpold_endpoints",
            "Endpoints that are enforced.",
            status.endpoints.len(),
        ),
        (
            "netpold_policies",
            "Policies in force.",
            status.policies.len(),
        ),
        (
            "netpold_rejected_files",
            "Files that are not in force as they stand.",
            status.rejected.len(),
        ),
        (
            "netpold_unprotected_containers",
            "Containers that no policy reaches.",
            status.unprotected.len(),
        ),
        (
            "netpold_unidentified_interfaces",
            "Interfaces on hold.",
            status.unidentified.len(),
        ),
        (
            "netpold_unreached_interfaces",
            "Interfaces of containers, as far as can be told, that no engine has claimed.",
            status.unreached.len(),
        ),
        (
            "netpold_address_conflicts",
            "Addresses that two endpoints claim.",
            status.conflicts.len(),
        ),
        (
            "netpold_nat_rules_hiding_senders",
            "NAT rules that may replace the address of senders to containers.",
            status.hiding_rules.len(),
        ),
        (
            "netpold_warnings",
            "Everything else that somebody should know.",
            status.warnings.len(),
        ),
    ] {
        head(&mut text, name, "gauge", help);
        let _ = writeln!(text, "{name} {value}");
    }
    head(
        &mut text,
        "netpold_generation",
        "gauge",
        "Counts the changes of policy.",
    );
    let _ = writeln!(text, "netpold_generation {}", status.datapath.generation);
    head(
        &mut text,
        "netpold_gate_installed",
        "gauge",
        "1 where the gate shuts interfaces that are not ready.",
    );
    let installed = u8::from(status.gate.installed);
    let _ = writeln!(text, "netpold_gate_installed {installed}");
    head(
        &mut text,
        "netpold_gate_dropped_packets_total",
        "counter",
        "Frames that the gate has dropped, in the endpoint's direction.",
    );
    for (direction, frames) in [("egress", gate.from), ("ingress", gate.to)] {
        let _ = writeln!(
            text,
            "netpold_gate_dropped_packets_total{{direction=\"{direction}\"}} {frames}"
        );
    }
    for (name, help, of) in [
        (
            "netpold_table_entries",
            "Entries of a kernel table in use.",
            (|table| table.used) as fn(&TableStatus) -> u64,
        ),
        (
            "netpold_table_limit",
            "Entries that fit a kernel table.",
            |table| table.limit,
        ),
    ] {
        head(&mut text, name, "gauge", help);
        for table in &status.tables {
            let _ = writeln!(
                text,
                "{name}{{table=\"{}\"}} {}",
                table.name.to_lowercase(),
                of(table)
            );
        }
    }
    text
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use netpol_abi::Reason;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::datapath::Hook;

    /// Clients that say nothing take no descriptor for long, and nobody else's turn for ever.
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

    #[test]
    fn drops_and_fill_are_told() {
        let counts = [Count {
            reason: Reason::PolicyDenied,
            direction: Hook::Ingress,
            packets: 3,
            bytes: 180,
        }];
        let status = Status {
            tables: vec![TableStatus {
                name: "FLOWS4".to_owned(),
                used: 5,
                limit: 10,
            }],
            ..Status::default()
        };
        let text = render(&counts, &status, GateDrops { from: 7, to: 0 });
        for line in [
            "# TYPE netpold_packets_total counter",
            "netpold_packets_total{reason=\"policy-denied\",direction=\"ingress\",verdict=\"dropped\"} 3",
            "netpold_bytes_total{reason=\"policy-denied\",direction=\"ingress\",verdict=\"dropped\"} 180",
            "netpold_endpoints 0",
            "netpold_gate_installed 0",
            "netpold_gate_dropped_packets_total{direction=\"egress\"} 7",
            "netpold_table_entries{table=\"flows4\"} 5",
            "netpold_table_limit{table=\"flows4\"} 10",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
