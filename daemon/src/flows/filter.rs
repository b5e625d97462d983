//! Which flows a reader asked for. Parsed before use: a value that no flow can
//! have is an error, never a filter that matches nothing.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::flow::{Endpoint, Flow, Verdict};

/// All that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these; empty: any.
    pub verdicts: Vec<Verdict>,
    /// The sender is one of these; empty: any.
    pub from: Vec<End>,
    /// The receiver is one of these; empty: any.
    pub to: Vec<End>,
}

/// One end, as `--from` and `--to` name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// `namespace/name`.
    Pod(String, String),
    /// `namespace/`: all of it.
    Namespace(String),
    /// `ip:ADDRESS`.
    Address(IpAddr),
}

/// The text names no end, or no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Of `--from`, `--to`.
    #[error("`{0}` is not `namespace/name`, `namespace/` or `ip:ADDRESS`")]
    End(String),
    /// Of `--verdict`.
    #[error("unknown verdict `{0}`: it is one of `forwarded`, `dropped` and `audit`")]
    Verdict(String),
}

impl FromStr for Verdict {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Forwarded, Self::Dropped, Self::Audit]
            .into_iter()
            .find(|verdict| verdict.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| FilterError::Verdict(text.to_owned()))
    }
}

impl FromStr for End {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || FilterError::End(text.to_owned());
        if let Some(address) = text.strip_prefix("ip:") {
            return address.parse().map(Self::Address).map_err(|_| wrong());
        }
        match text.split_once('/') {
            Some((namespace, "")) if !namespace.is_empty() => {
                Ok(Self::Namespace(namespace.to_owned()))
            }
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self::Pod(namespace.to_owned(), name.to_owned()))
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(namespace, name) => write!(f, "{namespace}/{name}"),
            Self::Namespace(namespace) => write!(f, "{namespace}/"),
            Self::Address(address) => write!(f, "ip:{address}"),
        }
    }
}

impl Filter {
    /// Did the reader ask for this flow?
    #[must_use]
    pub fn matches(&self, flow: &Flow) -> bool {
        let end = |wanted: &[End], endpoint: &Endpoint, address: Option<IpAddr>| {
            wanted.is_empty() || wanted.iter().any(|end| end.matches(endpoint, address))
        };
        (self.verdicts.is_empty() || self.verdicts.contains(&flow.verdict))
            && end(
                &self.from,
                &flow.source,
                flow.ip.as_ref().map(|ip| ip.source),
            )
            && end(
                &self.to,
                &flow.destination,
                flow.ip.as_ref().map(|ip| ip.destination),
            )
    }
}

impl End {
    fn matches(&self, endpoint: &Endpoint, address: Option<IpAddr>) -> bool {
        match self {
            Self::Pod(namespace, name) => {
                endpoint.namespace == *namespace && endpoint.pod_name == *name
            }
            Self::Namespace(namespace) => endpoint.namespace == *namespace,
            Self::Address(wanted) => address == Some(*wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::flows::flow::{Ip, IpVersion};

    #[test]
    fn ends_are_parsed_or_refused() {
        for text in ["web/frontend", "web/", "ip:10.0.0.1", "ip:fd00::1"] {
            assert_eq!(text.parse::<End>().unwrap().to_string(), text);
        }
        for text in ["", "web", "/", "/a", "a/b/c", "ip:", "ip:10.0.0.0/8"] {
            assert!(text.parse::<End>().is_err(), "{text}");
        }
        assert!("denied".parse::<Verdict>().is_err());
        assert_eq!("Dropped".parse::<Verdict>().unwrap(), Verdict::Dropped);
    }

    #[test]
    fn all_that_is_set_must_hold() {
        let flow = Flow {
            verdict: Verdict::Dropped,
            source: Endpoint {
                namespace: "web".to_owned(),
                pod_name: "frontend".to_owned(),
                ..Endpoint::default()
            },
            ip: Some(Ip {
                source: "10.0.0.1".parse().unwrap(),
                destination: "192.0.2.1".parse().unwrap(),
                version: IpVersion::V4,
            }),
            ..Flow::default()
        };
        // (verdict, from, to, asked for)
        for (verdict, from, to, expected) in [
            ("dropped", "web/", "ip:192.0.2.1", true),
            ("dropped", "web/frontend", "ip:192.0.2.1", true),
            ("forwarded", "web/", "ip:192.0.2.1", false),
            ("dropped", "web/front", "ip:192.0.2.1", false),
            ("dropped", "we/", "ip:192.0.2.1", false),
            ("dropped", "web/", "ip:192.0.2.2", false),
        ] {
            let filter = Filter {
                verdicts: vec![verdict.parse().unwrap()],
                from: vec![from.parse().unwrap()],
                to: vec![to.parse().unwrap()],
            };
            assert_eq!(filter.matches(&flow), expected, "{verdict} {from} {to}");
        }
        assert!(Filter::default().matches(&flow));
    }
}
