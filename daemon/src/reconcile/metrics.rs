//! The metrics, as Prometheus reads them: packets by reason, and what `netpol status` counts.
//!
//! Served over HTTP where `[metrics] listen` says, to whoever can reach that: numbers alone, no
//! names. Nothing is counted here; the kernel's counters are read when somebody asks.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::api;
use crate::api::wire::{GateDrops, Status, TableStatus};
use crate::datapath::counters::{Count, CounterTable};

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
) -> std::io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let shown = Shown {
        counters: Arc::new(counters),
        api,
    };
    let router = Router::new()
        .route("/metrics", get(metrics))
        .with_state(shown);
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
            "netpold_address_conflicts",
            "Addresses that two endpoints claim.",
            status.conflicts.len(),
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
    use netpol_abi::Reason;

    use super::*;
    use crate::datapath::Hook;

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
