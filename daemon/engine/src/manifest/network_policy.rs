//! `spec` of a NetworkPolicy to [`Policy`]: defaults applied, validated as
//! `ValidateNetworkPolicy` does, paths and messages its own.
//!
//! Meaning is set here once: which direction a policy has a say in, what an absent
//! or empty `from` means, which namespaces a podSelector looks in. What selectors
//! match is [`crate::labels`]' business.

use ipnet::IpNet;

use super::address;
use super::decode::{At, Decoder, Finding, clip, get, nearest, present, quoted, whole};
use super::names;
use super::scalar::Scalar;
use super::selector;
use super::tree::{Entry, Node, Value};
use crate::diagnostic::rule;
use crate::labels::Selector;
use crate::policy::{
    Action, Direction, IpBlock, Namespaces, ObjectName, Peer, PodPeer, Policy, Port, Ports,
    Protocol, Rule, Tier,
};

const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];

/// Decodes everything but the metadata.
pub(super) fn decode(
    decoder: &mut Decoder<'_>,
    root: &At<'_>,
    entries: &[Entry<'_>],
    name: ObjectName,
) -> Policy {
    decoder.only(
        root,
        entries,
        &["apiVersion", "kind", "metadata", "spec", "status"],
    );
    let (at, fields) = match present(entries, "spec") {
        Some(entry) => {
            let at = root.field(entry);
            let fields = decoder.mapping(&at, &entry.value).unwrap_or_default();
            (at, fields)
        }
        None => {
            let at = root.missing("spec");
            let message = "no spec: it selects every Pod of its namespace, and lets nothing in";
            let help = "write `spec: {podSelector: {}}` where that is meant";
            decoder.warning(&at, Finding::new(rule::NULL_FIELD, message).help(help));
            (at, &[][..])
        }
    };
    decoder.only(
        &at,
        fields,
        &["podSelector", "ingress", "egress", "policyTypes"],
    );
    let subject = match get(fields, "podSelector") {
        Some(entry) => {
            let at = at.field(entry);
            warn_null(decoder, &at, entry, "it selects every Pod of the namespace");
            selector::decode(decoder, &at, &entry.value)
        }
        None => Selector::everything(),
    };
    let ingress = rules(decoder, &at, fields, Direction::Ingress, &name.namespace);
    let egress = rules(decoder, &at, fields, Direction::Egress, &name.namespace);
    let (says_ingress, says_egress) = directions(decoder, &at, fields, !egress.is_empty());
    warn_unsaid(decoder, &at, fields, Direction::Ingress, says_ingress);
    warn_unsaid(decoder, &at, fields, Direction::Egress, says_egress);
    Policy {
        name,
        tier: Tier::NetworkPolicy,
        subject,
        ingress: says_ingress.then_some(ingress),
        egress: says_egress.then_some(egress),
    }
}

/// `null` where it widens or narrows what the author sees: the API takes it as left out.
fn warn_null(decoder: &mut Decoder<'_>, at: &At<'_>, entry: &Entry<'_>, so: &str) {
    if entry.value.is_null() {
        let message = format!("no value is the same as leaving the field out: {so}");
        let help = "remove the field, or give it a value";
        decoder.warning(at, Finding::new(rule::NULL_FIELD, message).help(help));
    }
}

/// A direction's rules that `policyTypes` doesn't name count for nothing.
fn warn_unsaid(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    fields: &[Entry<'_>],
    direction: Direction,
    said: bool,
) {
    let (field, name) = words(direction);
    if said {
        return;
    }
    if let Some(entry) = present(fields, field)
        && matches!(&entry.value.value, Value::List(rules) if !rules.is_empty())
    {
        let message = format!("these rules have no effect: `policyTypes` does not name {name}");
        let help = format!("add {name} to `policyTypes`, or remove the rules");
        let finding = Finding::new(rule::IGNORED_FIELD, message).help(help);
        decoder.warning(&at.field(entry), finding);
    }
}

fn words(direction: Direction) -> (&'static str, &'static str) {
    match direction {
        Direction::Ingress => ("ingress", "Ingress"),
        Direction::Egress => ("egress", "Egress"),
    }
}

/// `policyTypes`, or its default: Ingress always, Egress when there are egress rules.
fn directions(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    fields: &[Entry<'_>],
    has_egress: bool,
) -> (bool, bool) {
    let Some(entry) = present(fields, "policyTypes") else {
        return (true, has_egress);
    };
    let at = at.field(entry);
    let items = decoder.list(&at, &entry.value).unwrap_or_default();
    if items.is_empty() {
        return (true, has_egress);
    }
    if items.len() > 2 {
        let message = "Invalid value: may not specify more than two policyTypes";
        let help = "they are Ingress and Egress, each once";
        decoder.error(&at, Finding::new(rule::INVALID, message).help(help));
        return (true, true);
    }
    let (mut ingress, mut egress) = (false, false);
    for (index, item) in items.iter().enumerate() {
        let at = at.index(index, item);
        match decoder.string(&at, item) {
            Some("Ingress") => ingress = true,
            Some("Egress") => egress = true,
            Some(other) => {
                decoder.error(&at, Finding::unsupported(other, &["Ingress", "Egress"]));
                // Whatever was meant: no rule is called ineffective for it.
                (ingress, egress) = (true, true);
            }
            None => (ingress, egress) = (true, true),
        }
    }
    (ingress, egress)
}

fn rules(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    fields: &[Entry<'_>],
    direction: Direction,
    namespace: &str,
) -> Vec<Rule> {
    let Some(entry) = present(fields, words(direction).0) else {
        return Vec::new();
    };
    let at = at.field(entry);
    let items = decoder.list(&at, &entry.value).unwrap_or_default();
    items
        .iter()
        .enumerate()
        .map(|(index, item)| rule(decoder, &at.index(index, item), item, direction, namespace))
        .collect()
}

fn rule(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    node: &Node<'_>,
    direction: Direction,
    namespace: &str,
) -> Rule {
    if node.is_null() {
        let message = "an empty item is a rule that allows everything";
        let help = "write `- {}` where that is meant, else remove the item";
        decoder.warning(at, Finding::new(rule::NULL_FIELD, message).help(help));
    }
    let fields = decoder.mapping(at, node).unwrap_or_default();
    let (peers_field, other) = match direction {
        Direction::Ingress => ("from", "to"),
        Direction::Egress => ("to", "from"),
    };
    for entry in fields {
        if entry.key == other {
            let place = at.named(other, entry.span);
            let message = format!("unknown field \"{place}\"");
            let name = words(direction).0;
            let help = format!("the peers of an {name} rule stand below `{peers_field}`");
            decoder.error(
                &place,
                Finding::new(rule::UNKNOWN_FIELD, message).help(help),
            );
        } else if ![peers_field, "ports"].contains(&&*entry.key) {
            let slip = std::slice::from_ref(entry);
            decoder.only(at, slip, &[peers_field, "ports"]);
        }
    }
    let mut peers = Vec::new();
    if let Some(entry) = get(fields, peers_field) {
        let at = at.field(entry);
        warn_null(decoder, &at, entry, "every peer is allowed");
        for (index, item) in decoder.items(&at, entry) {
            peers.extend(peer(decoder, &at.index(index, item), item, namespace));
        }
    }
    let mut ports = Vec::new();
    if let Some(entry) = get(fields, "ports") {
        let at = at.field(entry);
        warn_null(decoder, &at, entry, "every port is allowed");
        for (index, item) in decoder.items(&at, entry) {
            ports.extend(port(decoder, &at.index(index, item), item));
        }
    }
    Rule {
        action: Action::Allow,
        peers,
        ports,
    }
}

/// One of `from` or `to` (`ValidateNetworkPolicyPeer`).
fn peer(decoder: &mut Decoder<'_>, at: &At<'_>, node: &Node<'_>, namespace: &str) -> Option<Peer> {
    let fields = decoder.mapping(at, node)?;
    let known = &["podSelector", "namespaceSelector", "ipBlock"];
    // A slip of the pen is no empty peer.
    if !decoder.only(at, fields, known) {
        return None;
    }
    let mut select = |name| {
        let entry = present(fields, name)?;
        Some(selector::decode(decoder, &at.field(entry), &entry.value))
    };
    let pods = select("podSelector");
    let namespaces = select("namespaceSelector");
    let block = present(fields, "ipBlock");
    if let Some(entry) = block {
        if pods.is_some() || namespaces.is_some() {
            let finding = Finding::forbidden("may not specify both ipBlock and another peer");
            let help = "make them two peers: begin the ipBlock with `- ` of its own";
            decoder.error(at, finding.help(help));
            return None;
        }
        return ip_block(decoder, &at.field(entry), &entry.value).map(Peer::Block);
    }
    if pods.is_none() && namespaces.is_none() {
        let help = match fields.first() {
            Some(entry) if entry.value.is_null() => format!(
                "`{0}` has no value: write `{0}: {{}}` where all are meant",
                clip(&entry.key)
            ),
            _ => "write a podSelector, a namespaceSelector or an ipBlock; `podSelector: {}` is \
                  every Pod of the namespace"
                .to_owned(),
        };
        decoder.error(at, Finding::required("must specify a peer").help(help));
        return None;
    }
    if let Some(entry) = get(fields, "namespaceSelector") {
        let so = "only the policy's own namespace counts; `{}` is every namespace";
        warn_null(decoder, &at.field(entry), entry, so);
    }
    if let Some(entry) = get(fields, "podSelector") {
        let so = "every Pod of those namespaces counts";
        warn_null(decoder, &at.field(entry), entry, so);
    }
    Some(Peer::Pods(PodPeer {
        namespaces: match namespaces {
            None => Namespaces::Own(namespace.to_owned()),
            Some(selector) => Namespaces::Matching(selector),
        },
        pods: pods.unwrap_or_default(),
    }))
}

/// `ValidateIPBlock`
fn ip_block(decoder: &mut Decoder<'_>, at: &At<'_>, node: &Node<'_>) -> Option<IpBlock> {
    let fields = decoder.mapping(at, node)?;
    decoder.only(at, fields, &["cidr", "except"]);
    let cidr = match present(fields, "cidr") {
        Some(entry) => {
            let at = at.field(entry);
            let text = decoder.string(&at, &entry.value)?;
            if text.is_empty() {
                decoder.error(&at, Finding::required("").help(CIDR_HELP));
                return None;
            }
            cidr(decoder, &at, text)?
        }
        None => {
            let place = at.missing("cidr");
            decoder.error(&place, Finding::required("").help(CIDR_HELP));
            return None;
        }
    };
    let mut except = Vec::new();
    if let Some(entry) = present(fields, "except") {
        let at = at.field(entry);
        for (index, item) in decoder.items(&at, entry) {
            let at = at.index(index, item);
            let Some(text) = decoder.string(&at, item) else {
                continue;
            };
            let Some(hole) = self::cidr(decoder, &at, text) else {
                continue;
            };
            if !cidr.contains(&hole) || cidr.prefix_len() >= hole.prefix_len() {
                let finding = Finding::invalid(quoted(text), "must be a strict subset of `cidr`");
                let help = format!("each `except` lies inside {cidr}, and is smaller");
                decoder.error(&at, finding.help(help));
                continue;
            }
            except.push(hole);
        }
    }
    Some(IpBlock { cidr, except })
}

const CIDR_HELP: &str = "write the block of addresses, as `cidr: 10.0.0.0/8`";

/// A block, host bits cleared.
fn cidr(decoder: &mut Decoder<'_>, at: &At<'_>, text: &str) -> Option<IpNet> {
    match address::block(text) {
        Ok(block) => {
            let masked = block.trunc();
            if masked != block {
                let message =
                    format!("{block} is read as {masked}: bits beyond the prefix are set");
                let finding = Finding::new(rule::HOST_BITS, message);
                decoder.warning(at, finding.help(format!("write {masked}")));
            }
            Some(masked)
        }
        Err(message) => {
            let finding = Finding::invalid(quoted(text), message);
            let finding = match address::address(text) {
                Ok(address) => {
                    let bits = if address.is_ipv4() { 32 } else { 128 };
                    finding.help(format!("one address is written {address}/{bits}"))
                }
                Err(_) => finding.help("such as 10.9.8.0/24 or 2001:db8::/64"),
            };
            decoder.error(at, finding);
            None
        }
    }
}

/// One of `ports` (`ValidateNetworkPolicyPort`).
fn port(decoder: &mut Decoder<'_>, at: &At<'_>, node: &Node<'_>) -> Option<Port> {
    if node.is_null() {
        let message = "an empty item is every TCP port";
        let help = "write `- protocol: TCP` where that is meant, else remove the item";
        decoder.warning(at, Finding::new(rule::NULL_FIELD, message).help(help));
    }
    let fields = decoder.mapping(at, node)?;
    decoder.only(at, fields, &["protocol", "port", "endPort"]);
    let protocol = match present(fields, "protocol") {
        None => Some(Protocol::Tcp),
        Some(entry) => {
            let at = at.field(entry);
            let text = decoder.string(&at, &entry.value);
            text.and_then(|text| protocol(decoder, &at, text))
        }
    };
    let first = match present(fields, "port") {
        None => Some(Ports::All),
        Some(entry) => int_or_string(decoder, &at.field(entry), &entry.value),
    };
    let ports = match present(fields, "endPort") {
        None => first,
        Some(entry) => end_port(decoder, &at.field(entry), &entry.value, first),
    };
    Some(Port {
        protocol: protocol?,
        ports: ports?,
    })
}

/// Exactly as the API spells it.
pub(super) fn protocol(decoder: &mut Decoder<'_>, at: &At<'_>, text: &str) -> Option<Protocol> {
    let found = Protocol::ALL
        .into_iter()
        .zip(PROTOCOLS)
        .find(|(_, name)| **name == text);
    if let Some((protocol, _)) = found {
        return Some(protocol);
    }
    let finding = Finding::unsupported(text, PROTOCOLS);
    let finding =
        if nearest(text, PROTOCOLS).is_none() && text.to_ascii_uppercase().starts_with("ICMP") {
            finding.help("NetworkPolicy has no ICMP: a rule without `ports` allows it")
        } else if finding.help.is_none() {
            finding.help("each protocol needs an entry of its own")
        } else {
            finding
        };
    decoder.error(at, finding);
    None
}

/// `port`: a number, or the name of a port.
fn int_or_string(decoder: &mut Decoder<'_>, at: &At<'_>, node: &Node<'_>) -> Option<Ports> {
    match &node.value {
        Value::Scalar(_, scalar) if whole(*scalar).is_some() => {
            let help = "leave `port` out where every port is meant";
            let number = port_number(decoder, at, node, help)?;
            Some(Ports::Range(number, number))
        }
        Value::Scalar(text, Scalar::Text) => match names::port(text) {
            Ok(()) => Some(Ports::Named(text.clone().into_owned())),
            Err(message) => {
                let finding = Finding::invalid(quoted(text), message);
                let finding = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
                {
                    let help = format!(
                        "in quotes it is a port's name: write {} without",
                        clip(text)
                    );
                    finding.help(help)
                } else if text.contains(['-', ':', ','])
                    && text.starts_with(|c: char| c.is_ascii_digit())
                {
                    finding.help("a range is written `port: FIRST` and `endPort: LAST`")
                } else {
                    finding.help("such as `http` or `grpc-api`")
                };
                decoder.error(at, finding);
                None
            }
        },
        _ => {
            decoder.wrong_type(at, node, "a whole number or a port's name");
            None
        }
    }
}

/// `IsValidPortNum`
pub(super) fn port_number(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    node: &Node<'_>,
    help: &str,
) -> Option<u16> {
    let number = decoder.integer(at, node)?;
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
    first: Option<Ports>,
) -> Option<Ports> {
    let last = decoder.integer(at, node)?;
    let help = "a range is written `port: FIRST` and `endPort: LAST`, both numbers";
    match first? {
        Ports::All => {
            let detail = "may not be specified when `port` is not specified";
            decoder.error(at, Finding::invalid(last, detail).help(help));
            None
        }
        Ports::Named(_) => {
            let detail = "may not be specified when `port` is non-numeric";
            decoder.error(at, Finding::invalid(last, detail).help(help));
            None
        }
        Ports::Range(first, _) if last < i128::from(first) => {
            let detail = "must be greater than or equal to `port`";
            decoder.error(at, Finding::invalid(last, detail).help(help));
            None
        }
        Ports::Range(first, _) => match u16::try_from(last) {
            Ok(last) => Some(Ports::Range(first, last)),
            Err(_) => {
                let detail = "must be between 1 and 65535, inclusive";
                decoder.error(at, Finding::invalid(last, detail).help(help));
                None
            }
        },
    }
}
