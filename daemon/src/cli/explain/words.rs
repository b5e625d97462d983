//! Sentences: what a condition asks for, and what is there instead.
//!
//! Fragments without a capital or a full stop. What others chose stands in them raw: it is
//! made safe where a line is written.

use netpol_engine::evaluate::EndpointSpec;
use netpol_engine::explain::{LabelMissed, Missed, Nearest, NotAPod, NotSelected, Side};
use netpol_engine::labels::{Operator, Requirement};
use netpol_engine::policy::Direction;
use netpol_engine::world::METADATA_NAME;

/// An end as sentences name it.
#[derive(Clone)]
pub(super) struct Who {
    /// The name of the Pod where it is one, else the address.
    pub name: String,
    /// It has a name: an address in a sentence is something else.
    pub is_named: bool,
}

impl Who {
    /// As it was asked for, and what that turned out to be.
    pub(super) fn new(party: &EndpointSpec, side: &Side) -> Self {
        let name = match (party, &side.pod) {
            (EndpointSpec::Pod(name), _) | (EndpointSpec::Address(_), Some(name)) => Some(name),
            (EndpointSpec::Address(_), None) => None,
        };
        Self {
            name: match (name, party) {
                (Some(name), _) => name.to_string(),
                (None, EndpointSpec::Address(address)) => address.to_string(),
                (None, EndpointSpec::Pod(name)) => name.to_string(),
            },
            is_named: name.is_some(),
        }
    }
}

/// The ends of a connection.
pub(super) struct Ends {
    /// The side that is told of.
    pub own: Who,
    /// The other one.
    pub peer: Who,
    /// Whose ports are meant.
    pub destination: Who,
}

impl Ends {
    /// What is missed, in a sentence.
    pub(super) fn missed(&self, missed: &Missed) -> String {
        let Who {
            name: peer,
            is_named,
        } = &self.peer;
        let destination = &self.destination.name;
        match missed {
            Missed::NotAPod { is } => match (is, is_named) {
                (NotAPod::Host, true) => format!(
                    "selects Pods, and {peer} is on the host's network: its labels do not count"
                ),
                (NotAPod::Host, false) => {
                    format!("selects Pods, and {peer} is the host")
                }
                (NotAPod::Stranger, _) => format!("selects Pods, and no Pod here has {peer}"),
            },
            Missed::OtherNamespace { wants, is } => format!(
                "has no namespaceSelector, so only Pods of `{wants}` count; {peer} is in `{is}`"
            ),
            Missed::NamespaceLabel {
                namespace,
                declared,
                label,
            } => of_namespace(namespace, *declared, label),
            Missed::PodLabel { label } => self::label(label, None),
            Missed::OutsideBlock { cidr, address } => match (address, is_named) {
                (None, _) => format!("{peer} has no known address"),
                (Some(address), _) if address.is_ipv4() != cidr.addr().is_ipv4() => {
                    let family = |v4| if v4 { "IPv4" } else { "IPv6" };
                    format!(
                        "{address} is {}, {cidr} is {}",
                        family(address.is_ipv4()),
                        family(!address.is_ipv4())
                    )
                }
                (Some(address), true) => {
                    format!("{peer} is at {address}, outside {cidr}")
                }
                (Some(address), false) => format!("{address} is outside {cidr}"),
            },
            Missed::InExcept { except, address } => match (address, is_named) {
                (Some(address), true) => {
                    format!("{peer} is at {address}, inside the block but in its except {except}")
                }
                (Some(address), false) => {
                    format!("{address} is inside the block, but in its except {except}")
                }
                (None, _) => format!("in its except {except}"),
            },
            Missed::Protocol { wants, is } => format!("is for {wants}, asked for {is}"),
            Missed::Port { first, last, is } if first == last => {
                format!("wants port {first}, asked for {is}")
            }
            Missed::Port { first, last, is } => {
                format!("wants ports {first}-{last}, asked for {is}")
            }
            Missed::PortName {
                wants, number, is, ..
            } if number.is_some_and(|number| number != *is) => format!(
                "`{wants}` is {} at {destination}, asked for {is}",
                number.unwrap_or_default()
            ),
            Missed::PortName {
                wants,
                protocol,
                pod,
                known,
                ..
            } => {
                if !pod {
                    return format!(
                        "`{wants}` is a name of a Pod's port, and {destination} is no Pod here"
                    );
                }
                let known: Vec<String> = known
                    .iter()
                    .map(|port| format!("{}={}/{}", port.name, port.port, port.protocol))
                    .collect();
                let known = if known.is_empty() {
                    "it names none".to_owned()
                } else {
                    format!("it has {}", known.join(", "))
                };
                format!("{destination} has no {protocol} port named `{wants}`; {known}")
            }
        }
    }

    /// The nearest miss, in one sentence.
    pub(super) fn nearest(&self, direction: Direction, nearest: &Nearest) -> String {
        let Nearest { policy, rule, .. } = nearest;
        match &nearest.not_selected {
            Some(NotSelected::Label(label)) => {
                let own = &self.own.name;
                return format!(
                    "rule {rule} of {policy} would allow it, but the podSelector there {}",
                    self::label(label, Some(own))
                );
            }
            Some(NotSelected::Namespace {
                wants_namespace, ..
            }) => {
                return format!(
                    "rule {rule} of {policy} would allow it, {}",
                    elsewhere(wants_namespace)
                );
            }
            None => {}
        }
        if nearest.missed.len() > MOST_TOLD {
            let all = nearest.missed.len();
            return format!("rule {rule} of {policy}, which misses by {all} conditions");
        }
        let missed: Vec<String> = nearest
            .missed
            .iter()
            .map(|missed| {
                let (list, index) = match missed {
                    Missed::Protocol { .. } | Missed::Port { .. } | Missed::PortName { .. } => {
                        ("ports", nearest.port)
                    }
                    _ => (list(direction), nearest.peer),
                };
                let what = match missed {
                    Missed::PodLabel { label } => self::label(label, Some(&self.peer.name)),
                    missed => self.missed(missed),
                };
                match index {
                    Some(index) => format!("at {list}[{index}]: {what}"),
                    None => what,
                }
            })
            .collect();
        format!("rule {rule} of {policy} misses {}", missed.join("; and "))
    }
}

/// What would do for a policy of another Namespace.
pub(super) fn elsewhere(wants_namespace: &str) -> String {
    format!("were it in Namespace `{wants_namespace}` (is its metadata.namespace missing?)")
}

/// Conditions that a sentence can hold.
const MOST_TOLD: usize = 2;

/// The list that holds the peers of a direction.
pub(super) fn list(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    }
}

/// A label that misses, of `who` where it is not plain.
pub(super) fn label(label: &LabelMissed, who: Option<&str>) -> String {
    let has = who.map_or_else(|| "has".to_owned(), |who| format!("{who} has"));
    format!("wants {}, {}", with(&label.wants), instead(label, &has))
}

fn of_namespace(namespace: &str, declared: bool, label: &LabelMissed) -> String {
    if label.wants.key == METADATA_NAME
        && let Operator::In(values) = &label.wants.operator
    {
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        let slip = if label.slip { " (a slip?)" } else { "" };
        return format!(
            "wants the Namespace {}, is in `{namespace}`{slip}",
            values.join(" or ")
        );
    }
    let undeclared = if declared || label.has.is_some() {
        ""
    } else {
        " (no manifest gives it any)"
    };
    format!(
        "wants a Namespace with {}, {}{undeclared}",
        with(&label.wants),
        instead(label, &format!("`{namespace}` has"))
    )
}

/// What a requirement asks for.
fn with(requirement: &Requirement) -> String {
    let Requirement { key, operator } = requirement;
    match operator {
        Operator::In(values) if values.len() == 1 && values.contains("") => {
            format!("`{key}` and an empty value")
        }
        Operator::In(_) | Operator::NotIn(_) => requirement.to_string(),
        Operator::Exists => format!("a label `{key}`"),
        Operator::DoesNotExist => format!("no label `{key}`"),
    }
}

/// What is there: `has app=fronted`.
fn instead(label: &LabelMissed, has: &str) -> String {
    let key = &label.wants.key;
    match (&label.has, &label.like) {
        (Some(value), _) if label.slip => format!("{has} {key}={value} (a slip?)"),
        (Some(value), _) => format!("{has} {key}={value}"),
        (None, Some(like)) => {
            format!("{has} no label `{key}`, but {}={}", like.key, like.value)
        }
        (None, None) => format!("{has} no label `{key}`"),
    }
}
