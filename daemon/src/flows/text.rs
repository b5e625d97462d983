//! A flow on one line, for people.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::flow::{Endpoint, Flow, Policy, TrafficDirection, Verdict};
use crate::printable::printable;

/// `TIME  FROM -> TO  TCP  DROPPED  ingress  policy-denied  by payments/default-deny`.
/// Nothing in it can move a cursor, whatever the names are.
#[must_use]
pub fn line(flow: &Flow) -> String {
    let (protocol, ports) = match &flow.l4 {
        Some(l4) => {
            let (name, ports) = l4.ports();
            (name.to_owned(), ports)
        }
        None => (bare_protocol(flow), None),
    };
    let claimed = flow
        .extensions
        .as_ref()
        .and_then(|extensions| extensions.value.claimed);
    let published = flow
        .extensions
        .as_ref()
        .and_then(|extensions| extensions.value.published);
    let end = |endpoint: &Endpoint, address: Option<IpAddr>, port: Option<u16>| {
        let mut text = name(endpoint, address);
        if claimed.is_some() && claimed == address && !endpoint.pod_name.is_empty() {
            let _ = match claimed {
                Some(IpAddr::V6(address)) => write!(text, "([{address}])"),
                Some(address) => write!(text, "({address})"),
                None => Ok(()),
            };
        }
        if let Some(port) = port {
            let _ = write!(text, ":{port}");
        }
        text
    };
    let from = match (&flow.ip, &flow.ethernet) {
        (None, Some(ethernet)) if flow.source.pod_name.is_empty() => ethernet.source.clone(),
        _ => end(
            &flow.source,
            flow.ip.as_ref().map(|ip| ip.source),
            ports.map(|ports| ports.0),
        ),
    };
    let to = match (&flow.ip, &flow.ethernet) {
        (None, Some(ethernet)) if flow.destination.pod_name.is_empty() => {
            ethernet.destination.clone()
        }
        _ => end(
            &flow.destination,
            flow.ip.as_ref().map(|ip| ip.destination),
            ports.map(|ports| ports.1),
        ),
    };
    let (from, to) = match published {
        Some(port) if flow.is_reply => (behind(flow, port, true), to),
        Some(port) => (from, behind(flow, port, false)),
        None => (from, to),
    };
    let direction = match flow.traffic_direction {
        TrafficDirection::Ingress => "ingress",
        TrafficDirection::Egress => "egress",
    };
    let detail = flow.extensions.as_ref().map(|extensions| &extensions.value);
    let reason = detail.map_or("", |detail| detail.reason.as_str());
    let mut text = format!(
        "{}  {from} -> {to}  {protocol}  {}  {direction}  {}",
        time(flow.time),
        flow.verdict.name(),
        printable(reason),
    );
    let by = match (flow.verdict, flow.traffic_direction) {
        (Verdict::Forwarded, TrafficDirection::Ingress) => &flow.ingress_allowed_by,
        (Verdict::Forwarded, TrafficDirection::Egress) => &flow.egress_allowed_by,
        (_, TrafficDirection::Ingress) => &flow.ingress_denied_by,
        (_, TrafficDirection::Egress) => &flow.egress_denied_by,
    };
    if !by.is_empty() {
        let _ = write!(text, "  by {}", policies(by));
        match detail.and_then(|detail| detail.rule) {
            Some(rule) => {
                let _ = write!(text, " ({direction} rule {rule})");
            }
            None if flow.verdict != Verdict::Forwarded => text.push_str(" (no rule allows it)"),
            None => {}
        }
    }
    text
}

/// The container behind a published port, with its own port, and where that is published.
fn behind(flow: &Flow, port: u16, is_source: bool) -> String {
    let ports = flow.l4.as_ref().and_then(|l4| l4.ports().1);
    let (endpoint, address, dialled) = if is_source {
        let address = flow.ip.as_ref().map(|ip| ip.source);
        (&flow.source, address, ports.map(|ports| ports.0))
    } else {
        let address = flow.ip.as_ref().map(|ip| ip.destination);
        (&flow.destination, address, ports.map(|ports| ports.1))
    };
    let own = format!("{}:{port}", name(endpoint, None));
    match (address, dialled) {
        (Some(address), Some(dialled)) => {
            format!("{own} (published as {})", SocketAddr::new(address, dialled))
        }
        _ => own,
    }
}

/// Local time as the reader's day has it would need a time zone database; UTC to
/// the millisecond sorts, and says what it is.
fn time(time: jiff::Timestamp) -> String {
    format!("{time:.3}")
}

fn bare_protocol(flow: &Flow) -> String {
    let detail = flow.extensions.as_ref().map(|extensions| &extensions.value);
    match detail {
        Some(detail) if !detail.ethertype.is_empty() => {
            format!("ethertype {}", printable(&detail.ethertype))
        }
        Some(detail) => detail
            .protocol
            .map_or_else(|| "-".to_owned(), |number| format!("protocol {number}")),
        None => "-".to_owned(),
    }
}

fn name(endpoint: &Endpoint, address: Option<IpAddr>) -> String {
    if !endpoint.pod_name.is_empty() {
        return format!(
            "{}/{}",
            printable(&endpoint.namespace),
            printable(&endpoint.pod_name)
        );
    }
    let place = endpoint
        .labels
        .iter()
        .find_map(|label| label.strip_prefix("reserved:"));
    match (address, place) {
        (Some(IpAddr::V6(address)), Some("host")) => format!("host([{address}])"),
        (Some(address), Some("host")) => format!("host({address})"),
        (Some(IpAddr::V6(address)), _) => format!("[{address}]"),
        (Some(address), _) => address.to_string(),
        (None, _) => "unknown".to_owned(),
    }
}

fn policies(policies: &[Policy]) -> String {
    policies
        .iter()
        .map(|policy| {
            format!(
                "{}/{}",
                printable(&policy.namespace),
                printable(&policy.name)
            )
        })
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::flows::flow::{Detail, Extensions, Ip, IpVersion, Layer4, TcpFlags};

    fn denied() -> Flow {
        Flow {
            time: "2026-01-02T03:04:05.678901234Z".parse().unwrap(),
            verdict: Verdict::Dropped,
            ip: Some(Ip {
                source: "10.0.0.1".parse().unwrap(),
                destination: "10.0.0.2".parse().unwrap(),
                version: IpVersion::V4,
            }),
            l4: Some(Layer4::Tcp {
                source_port: 40000,
                destination_port: 5432,
                flags: TcpFlags::from_wire(2),
            }),
            source: Endpoint {
                namespace: "payments".to_owned(),
                pod_name: "api-server".to_owned(),
                ..Endpoint::default()
            },
            destination: Endpoint {
                namespace: "payments".to_owned(),
                pod_name: "postgres".to_owned(),
                ..Endpoint::default()
            },
            ingress_denied_by: vec![Policy {
                name: "default-deny".to_owned(),
                namespace: "payments".to_owned(),
                ..Policy::default()
            }],
            extensions: Some(Extensions::new(Detail {
                reason: "policy-denied".to_owned(),
                ..Detail::default()
            })),
            ..Flow::default()
        }
    }

    #[test]
    fn a_denied_flow_says_who_what_and_which_policy() {
        assert_eq!(
            line(&denied()),
            "2026-01-02T03:04:05.678Z  payments/api-server:40000 -> payments/postgres:5432  TCP  \
             DROPPED  ingress  policy-denied  by payments/default-deny (no rule allows it)"
        );
    }

    #[test]
    fn a_published_port_is_named_by_who_is_behind_it() {
        let mut flow = denied();
        flow.extensions = Some(Extensions::new(Detail {
            reason: "policy-denied".to_owned(),
            published: Some(80),
            ..Detail::default()
        }));
        let text = line(&flow);
        let expected = "payments/api-server:40000 -> payments/postgres:80 (published as 10.0.0.2:5432)  TCP  DROPPED  \
                        ingress  policy-denied";
        assert!(text.contains(expected), "{text}");
        flow.is_reply = true;
        let text = line(&flow);
        let expected =
            "payments/api-server:80 (published as 10.0.0.1:40000) -> payments/postgres:5432";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn names_cannot_write_to_the_terminal() {
        let mut flow = denied();
        flow.source.pod_name = "a\x1b]0;x\x07".to_owned();
        let text = line(&flow);
        assert!(!text.contains(char::is_control), "{text:?}");
    }

    #[test]
    fn what_is_no_pod_is_its_address() {
        let mut flow = denied();
        flow.source = Endpoint::default();
        flow.destination = Endpoint {
            labels: vec!["reserved:host".to_owned()],
            ..Endpoint::default()
        };
        let text = line(&flow);
        assert!(
            text.contains("10.0.0.1:40000 -> host(10.0.0.2):5432"),
            "{text}"
        );
    }

    #[test]
    fn the_json_form_is_hubbles() {
        let json = serde_json::to_value(denied()).unwrap();
        assert_eq!(json["verdict"], "DROPPED");
        assert_eq!(json["time"], "2026-01-02T03:04:05.678901234Z");
        assert_eq!(json["IP"]["ipVersion"], "IPv4");
        assert_eq!(json["l4"]["TCP"]["flags"]["SYN"], true);
        assert_eq!(json["l4"]["TCP"]["destination_port"], 5432);
        assert_eq!(json["Type"], "L3_L4");
        assert_eq!(json["traffic_direction"], "INGRESS");
        assert_eq!(json["is_reply"], false);
        assert_eq!(serde_json::from_value::<Flow>(json).unwrap(), denied());
    }
}
