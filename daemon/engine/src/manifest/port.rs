//! Ports of a rule, validated as `ValidateNetworkPolicyPort` does; the number and the
//! protocol of a container's port too.

use super::decode::{At, Decoder, Finding, clip, get, present, warn_null, whole};
use super::node::{Node, Value};
use super::scalar::Scalar;
use crate::diagnostic::rule;
use crate::names;
use crate::policy::{Port, Ports, Protocol};
use crate::spelling::nearest;

/// In the order in which the API server lists them for a NetworkPolicy.
const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];

/// `ports: 80`, or `80/TCP`: ports that are no items.
pub(super) fn meant_list(node: &Node<'_>) -> Option<String> {
    match &node.value {
        Value::Mapping(_) => Some("begin each port with `- `: `ports` is a list".to_owned()),
        _ => meant_port(node).map(|help| help.replacen("write {", "write [{", 1) + "]"),
    }
}

/// `- 80`: a port that is no mapping.
fn meant_port(node: &Node<'_>) -> Option<String> {
    match &node.value {
        Value::Scalar(text, _) => {
            let (port, protocol) = split_port(text)?;
            Some(match protocol {
                Some(protocol) => format!("write {{port: {port}, protocol: {protocol}}}"),
                None => format!("write {{port: {port}}}"),
            })
        }
        _ => None,
    }
}

/// `80`, `http` or `80/tcp` as people write them elsewhere.
fn split_port(text: &str) -> Option<(&str, Option<&'static str>)> {
    let (port, protocol) = match text.split_once('/') {
        None => (text, None),
        Some((port, protocol)) => (port, Some(nearest(protocol, PROTOCOLS)?)),
    };
    let number = port.parse::<u16>().is_ok_and(|port| port > 0);
    (number || names::port(port).is_empty()).then_some((port, protocol))
}

const ONE_EACH: &str = "each port is an item of its own: `- port: 80`, `- port: 443`";

/// What `port` says, valid or not.
enum Stated<'n> {
    Nothing,
    Number(i128),
    Name(&'n str),
    Unreadable,
}

/// One of `ports` (`ValidateNetworkPolicyPort`).
pub(super) fn port(decoder: &mut Decoder<'_>, at: &At<'_>, node: &Node<'_>) -> Option<Port> {
    if node.is_null() {
        let message = "an empty item is every TCP port";
        let help = "write `- protocol: TCP` where that is meant, else remove the item";
        decoder.warning(at, Finding::new(rule::NULL_FIELD, message).help(help));
    }
    let fields = decoder.mapping_or(at, node, meant_port)?;
    decoder.only(at, fields, &["protocol", "port", "endPort"]);
    let protocol = match present(fields, "protocol") {
        None => Some(Protocol::Tcp),
        Some(entry) => {
            let at = at.field(entry);
            let text = decoder.string(&at, &entry.value);
            text.and_then(|text| protocol(decoder, &at, text, PROTOCOLS))
        }
    };
    // Where there is an `endPort` too it is no warning, but an error below.
    if let Some(entry) = get(fields, "port").filter(|_| present(fields, "endPort").is_none()) {
        let at = at.field(entry);
        warn_null(decoder, &at, entry, "every port of the protocol is allowed");
    }
    let stated = match present(fields, "port") {
        None => Stated::Nothing,
        Some(entry) => int_or_string(decoder, &at.field(entry), &entry.value),
    };
    let first = match &stated {
        Stated::Nothing => Some(Ports::All),
        Stated::Number(number) => u16::try_from(*number)
            .ok()
            .filter(|number| *number > 0)
            .map(|number| Ports::Range(number, number)),
        Stated::Name(name) => Some(Ports::Named((*name).to_owned())),
        Stated::Unreadable => None,
    };
    let ports = match present(fields, "endPort") {
        None => first,
        Some(entry) => {
            let last = end_port(decoder, &at.field(entry), &entry.value, &stated);
            match (first, last) {
                (Some(Ports::Range(first, _)), Some(last)) => Some(Ports::Range(first, last)),
                _ => None,
            }
        }
    };
    Some(Port {
        protocol: protocol?,
        ports: ports?,
    })
}

/// Exactly as the API spells it; `supported` in the order in which it lists them.
pub(super) fn protocol(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    text: &str,
    supported: &[&str],
) -> Option<Protocol> {
    if let Some((protocol, _)) = Protocol::ALL
        .into_iter()
        .zip(PROTOCOLS)
        .find(|(_, name)| **name == text)
    {
        return Some(protocol);
    }
    let finding = Finding::unsupported(text, supported);
    let finding = match (&finding.help, text.to_ascii_uppercase().as_str()) {
        (_, word) if word.starts_with("ICMP") => {
            finding.help("NetworkPolicy has no ICMP: a rule without `ports` allows it")
        }
        (_, "") => finding.help("leave `protocol` out where TCP is meant"),
        (_, "ANY" | "ALL" | "*") => {
            finding.help("write an entry for each of TCP, UDP and SCTP, or leave `ports` out")
        }
        (Some(_), _) => finding,
        (None, _) => finding.help("each protocol needs an entry of its own"),
    };
    decoder.error(at, finding);
    None
}

/// `port`: a number, or the name of a port.
fn int_or_string<'n>(decoder: &mut Decoder<'_>, at: &At<'_>, node: &'n Node<'_>) -> Stated<'n> {
    match &node.value {
        Value::Scalar(_, scalar) if whole(*scalar).is_some() => {
            let help = "leave `port` out where every port is meant";
            match decoder.integer(at, node) {
                Some(number) => {
                    port_number(decoder, at, number, help);
                    Stated::Number(number)
                }
                None => Stated::Unreadable,
            }
        }
        Value::Scalar(text, Scalar::Text) => {
            decoder.breaches(at, text, names::port(text), || port_name_help(text));
            Stated::Name(text)
        }
        _ => {
            let meant = matches!(node.value, Value::List(_)).then(|| ONE_EACH.to_owned());
            decoder.wrong_type_meant(at, node, "a whole number or a port's name", meant);
            Stated::Unreadable
        }
    }
}

/// What a text that is no port's name was probably meant as.
fn port_name_help(text: &str) -> String {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(text) {
        let text = clip(text);
        return format!("in quotes it is a port's name: write {text} without");
    }
    if let Some((port, Some(protocol))) = split_port(text) {
        return format!("write `port: {port}` and `protocol: {protocol}`");
    }
    for separator in ['-', ':'] {
        if let Some((first, last)) = text.split_once(separator)
            && digits(first.trim())
            && digits(last.trim())
        {
            let (first, last) = (clip(first.trim()), clip(last.trim()));
            return format!("a range is written `port: {first}` and `endPort: {last}`");
        }
    }
    if text.contains(',') {
        return ONE_EACH.to_owned();
    }
    if ["any", "all", "*"].contains(&text) {
        return "leave `port` out where every port is meant".to_owned();
    }
    such_as(text)
}

/// A port's name close to a text that is none.
pub(super) fn such_as(text: &str) -> String {
    match names::lower_like(text, names::port) {
        Some(valid) => format!("such as `{valid}`"),
        None => "such as `http` or `grpc-api`".to_owned(),
    }
}

/// `IsValidPortNum`
pub(super) fn port_number(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    number: i128,
    help: &str,
) -> Option<u16> {
    match u16::try_from(number) {
        Ok(number) if number > 0 => Some(number),
        _ => {
            let detail = "must be between 1 and 65535, inclusive";
            let finding = Finding::invalid(number, detail);
            decoder.error(at, finding.help(help));
            None
        }
    }
}

/// `endPort`, on the numeric `port` that it needs.
fn end_port(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    node: &Node<'_>,
    stated: &Stated<'_>,
) -> Option<u16> {
    let last = decoder.integer(at, node)?;
    let help = "a range is written `port: FIRST` and `endPort: LAST`, both numbers";
    let wrong = match stated {
        Stated::Unreadable => return None,
        Stated::Nothing => Some("may not be specified when `port` is not specified"),
        Stated::Name(_) => Some("may not be specified when `port` is non-numeric"),
        Stated::Number(first) if last < *first => Some("must be greater than or equal to `port`"),
        Stated::Number(_) => None,
    };
    if let Some(detail) = wrong {
        decoder.error(at, Finding::invalid(last, detail).help(help));
    }
    match stated {
        Stated::Number(_) => port_number(decoder, at, last, help).filter(|_| wrong.is_none()),
        _ => None,
    }
}
