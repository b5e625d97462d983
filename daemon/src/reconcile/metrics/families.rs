//! The families of metrics: name, help, type, and the numbers that are read for each.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, prometheus_text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::api::Published;
use crate::api::wire::{GateDrops, Status, TableStatus};
use crate::datapath::counters::Count;

/// All that the metrics are read from, at the time of one request.
#[derive(Debug)]
pub(super) struct Scrape {
    /// The kernel's packet counters.
    pub(super) counts: Vec<Count>,
    /// What `netpol status` shows.
    pub(super) published: Arc<Published>,
    /// Frames that the gate has dropped.
    pub(super) gate: GateDrops,
}

impl Scrape {
    /// The text form (Prometheus exposition format 0.0.4).
    pub(super) fn text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_text::encode(&mut text, &registry);
        text
    }
}

/// A family: its name (of a counter without the suffix `_total`), its help, and its number for one `T`.
type Family<T> = (&'static str, &'static str, fn(&T) -> u64);

/// The length of a list, as a number of a metric.
const fn length<T>(list: &[T]) -> u64 {
    list.len() as u64
}

/// Gauges, one number each.
const GAUGES: [Family<Status>; 11] = [
    (
        "netpold_endpoints",
        "Endpoints that are enforced.",
        |status| length(&status.endpoints),
    ),
    ("netpold_policies", "Policies in force.", |status| {
        length(&status.policies)
    }),
    (
        "netpold_rejected_files",
        "Files that are not in force as they stand.",
        |status| length(&status.rejected),
    ),
    (
        "netpold_unprotected_containers",
        "Containers that no policy reaches.",
        |status| length(&status.unprotected),
    ),
    (
        "netpold_unidentified_interfaces",
        "Unidentified interfaces: no packet passes them.",
        |status| length(&status.unidentified),
    ),
    (
        "netpold_unreached_interfaces",
        "Interfaces of containers, as far as can be told, that no engine has claimed.",
        |status| length(&status.unreached),
    ),
    (
        "netpold_address_conflicts",
        "Addresses that two endpoints claim.",
        |status| length(&status.conflicts),
    ),
    (
        "netpold_nat_rules_hiding_senders",
        "NAT rules that may replace the address of senders to containers.",
        |status| length(&status.hiding_rules),
    ),
    (
        "netpold_warnings",
        "Warnings of `netpol status` that have no metric of their own.",
        |status| length(&status.warnings),
    ),
    (
        "netpold_generation",
        "Counts the changes of policy.",
        |status| status.datapath.generation,
    ),
    (
        "netpold_gate_installed",
        "1 where the gate shuts interfaces that are not ready.",
        |status| status.gate.installed as u64,
    ),
];

/// Counters of packets, by reason.
const PACKET_COUNTERS: [Family<Count>; 2] = [
    (
        "netpold_packets",
        "Packets by reason, in the endpoint's direction.",
        |count| count.packets,
    ),
    (
        "netpold_bytes",
        "Bytes of those packets, link-layer header included.",
        |count| count.bytes,
    ),
];

/// Gauges of each kernel table.
const TABLE_GAUGES: [Family<TableStatus>; 2] = [
    (
        "netpold_table_entries",
        "Entries of a kernel table in use.",
        |table| table.used,
    ),
    (
        "netpold_table_limit",
        "Entries that fit a kernel table.",
        |table| table.limit,
    ),
];

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = &self.published.status;
        for (name, help, number) in PACKET_COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for count in &self.counts {
                let verdict = if count.reason.allows() {
                    "forwarded"
                } else {
                    "dropped"
                };
                let labels = [
                    ("reason", count.reason.label()),
                    ("direction", count.direction.label()),
                    ("verdict", verdict),
                ];
                counter(&mut family, &labels, number(count))?;
            }
        }
        for (name, help, number) in GAUGES {
            encoder
                .encode_descriptor(name, help, None, MetricType::Gauge)?
                .encode_gauge(&number(status))?;
        }
        let mut family = encoder.encode_descriptor(
            "netpold_gate_dropped_packets",
            "Frames that the gate has dropped, in the endpoint's direction.",
            None,
            MetricType::Counter,
        )?;
        for (direction, frames) in [("egress", self.gate.from), ("ingress", self.gate.to)] {
            counter(&mut family, &[("direction", direction)], frames)?;
        }
        for (name, help, number) in TABLE_GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for table in &status.tables {
                family
                    .encode_family(&[("table", table.name.to_lowercase())])?
                    .encode_gauge(&number(table))?;
            }
        }
        Ok(())
    }
}

/// A counter of a family, without an exemplar.
fn counter(
    family: &mut MetricEncoder<'_>,
    labels: &impl EncodeLabelSet,
    value: u64,
) -> fmt::Result {
    family
        .encode_family(labels)?
        .encode_counter::<NoLabelSet, _, u64>(&value, None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use netpol_abi::Reason;

    use super::*;
    use crate::datapath::Hook;

    /// A container engine's tables and one drop.
    fn scrape() -> Scrape {
        let status = Status {
            tables: vec![TableStatus {
                name: "FLOWS4".to_owned(),
                used: 5,
                limit: 10,
            }],
            ..Status::default()
        };
        let published = Published {
            status,
            ..Published::default()
        };
        Scrape {
            counts: vec![Count {
                reason: Reason::PolicyDenied,
                direction: Hook::Ingress,
                packets: 3,
                bytes: 180,
            }],
            published: Arc::new(published),
            gate: GateDrops { from: 7, to: 0 },
        }
    }

    #[test]
    fn a_scrape_has_drops_and_the_fill_of_tables() {
        let text = scrape().text();
        for line in [
            "# HELP netpold_packets_total Packets by reason, in the endpoint's direction.",
            "# TYPE netpold_packets_total counter",
            "netpold_packets_total{reason=\"policy-denied\",direction=\"ingress\",verdict=\"dropped\"} 3",
            "netpold_bytes_total{reason=\"policy-denied\",direction=\"ingress\",verdict=\"dropped\"} 180",
            "# TYPE netpold_endpoints gauge",
            "netpold_endpoints 0",
            "netpold_gate_installed 0",
            "netpold_gate_dropped_packets_total{direction=\"egress\"} 7",
            "netpold_table_entries{table=\"flows4\"} 5",
            "netpold_table_limit{table=\"flows4\"} 10",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn every_metric_has_its_line_in_the_reference() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference.md");
        let reference = std::fs::read_to_string(path).unwrap();
        let (_, table) = reference.split_once("<!-- metrics: ").unwrap();
        let documented: BTreeSet<&str> = table
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with('|'))
            .filter_map(|line| line.split('`').nth(1))
            .map(|name| name.split('{').next().unwrap())
            .collect();
        let text = scrape().text();
        let published: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert_eq!(documented, published);
    }
}
