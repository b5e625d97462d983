//! `spec` of a NetworkPolicy to [`Policy`]: defaults applied, validated as
//! `ValidateNetworkPolicy` does, paths and messages its own.
//!
//! Meaning is set here once: which direction a policy has a say in, what an absent
//! or empty `from` means. Peers and ports are read by files of their own.

use super::decode::{At, Decoder, Finding, Homes, clip, get, json, present, warn_null};
use super::metadata::Metadata;
use super::node::{Entry, Node, Value};
use super::peer::{self, peer};
use super::port::{self, port};
use super::scalar::Scalar;
use super::selector;
use crate::diagnostic::rule;
use crate::labels::Selector;
use crate::policy::{Action, Direction, Policy, Rule, Tier};
use crate::spelling::nearest;

const SPEC: &[&str] = &["podSelector", "ingress", "egress", "policyTypes"];

/// Where each field belongs.
pub(super) const HOMES: Homes = &[
    ("ingress", "directly below `spec`"),
    ("egress", "directly below `spec`"),
    ("policyTypes", "directly below `spec`"),
    (
        "podSelector",
        "below `spec`, or to an item of `from` or `to`",
    ),
    ("namespaceSelector", "to an item of `from` or `to`"),
    ("ipBlock", "to an item of `from` or `to`"),
    ("cidr", "below `ipBlock`"),
    ("except", "below `ipBlock`"),
    ("from", "to a rule, an item of `ingress`"),
    ("to", "to a rule, an item of `egress`"),
    ("ports", "to a rule, beside `from` or `to`"),
    ("port", "to an item of `ports`"),
    ("endPort", "to an item of `ports`"),
    ("protocol", "to an item of `ports`"),
    ("matchLabels", "below `podSelector` or `namespaceSelector`"),
    (
        "matchExpressions",
        "below `podSelector` or `namespaceSelector`",
    ),
    ("key", "to an item of `matchExpressions`"),
    ("operator", "to an item of `matchExpressions`"),
    ("values", "to an item of `matchExpressions`"),
    ("name", "below `metadata`"),
    ("namespace", "below `metadata`"),
    ("labels", "below `metadata`"),
    ("annotations", "below `metadata`"),
];

/// Decodes everything but the metadata.
pub(super) fn decode(
    decoder: &mut Decoder<'_>,
    root: &At<'_>,
    entries: &[Entry<'_>],
    metadata: &Metadata,
) -> Policy {
    for entry in entries {
        // It had a status up to 1.27, which nothing ever read: old exports still have it.
        if entry.key == "status" {
            let place = root.named("status", entry.span);
            let message = "unknown field \"status\"";
            let help = "a NetworkPolicy has no status: remove it";
            let finding = Finding::new(rule::UNKNOWN_FIELD, message).help(help);
            decoder.error(&place, finding);
        } else {
            let known = &["apiVersion", "kind", "metadata", "spec"];
            decoder.only(root, std::slice::from_ref(entry), known);
        }
    }
    let (at, fields) = match present(entries, "spec") {
        Some(entry) => {
            let at = root.field(entry);
            let fields = decoder.mapping(&at, &entry.value).unwrap_or_default();
            (at, fields)
        }
        None => {
            let at = match get(entries, "spec") {
                Some(entry) => root.field(entry),
                None => root.missing("spec"),
            };
            // Fields that stand beside it are told, and are what it should have held.
            if !entries.iter().any(|entry| SPEC.contains(&&*entry.key)) {
                let message = "no spec: it selects every Pod of its namespace, and lets nothing in";
                let help = "write `spec: {podSelector: {}}` where that is meant";
                decoder.warning(&at, Finding::new(rule::NULL_FIELD, message).help(help));
            }
            (at, &[][..])
        }
    };
    decoder.only(&at, fields, SPEC);
    let subject = match get(fields, "podSelector") {
        Some(entry) => {
            let at = at.field(entry);
            warn_null(decoder, &at, entry, "it selects every Pod of the namespace");
            selector::decode(decoder, &at, entry)
        }
        None => Selector::everything(),
    };
    let namespace = &metadata.name.namespace;
    let ingress = rules(decoder, &at, fields, Direction::Ingress, namespace);
    let egress = rules(decoder, &at, fields, Direction::Egress, namespace);
    let (says_ingress, says_egress) = directions(decoder, &at, fields, !egress.is_empty());
    warn_unstated(decoder, &at, fields, Direction::Ingress, says_ingress);
    warn_unstated(decoder, &at, fields, Direction::Egress, says_egress);
    Policy {
        name: metadata.name.clone(),
        tier: Tier::NetworkPolicy,
        mode: metadata.mode,
        subject,
        ingress: says_ingress.then_some(ingress),
        egress: says_egress.then_some(egress),
    }
}

/// An empty list inside a rule reads like no peer, and is every peer.
fn warn_empty(decoder: &mut Decoder<'_>, at: &At<'_>, entry: &Entry<'_>, all: &str) {
    if matches!(&entry.value.value, Value::List(items) if items.is_empty()) {
        let message = format!("an empty list is {all}, not none");
        let help = "remove the field where that is meant; to allow nothing, remove the whole rule";
        decoder.warning(at, Finding::new(rule::EMPTY_LIST, message).help(help));
    }
}

/// A direction's rules that `policyTypes` doesn't name count for nothing.
fn warn_unstated(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    fields: &[Entry<'_>],
    direction: Direction,
    is_stated: bool,
) {
    let (field, name) = words(direction);
    if is_stated {
        return;
    }
    if let Some(entry) = present(fields, field)
        && matches!(&entry.value.value, Value::List(rules) if !rules.is_empty())
    {
        let message = format!("these rules have no effect: `policyTypes` does not name {name}");
        let help = format!("add {name} to `policyTypes`, or remove the rules");
        let finding = Finding::new(rule::DIRECTION_LEFT_OUT, message).help(help);
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
    let Some(items) = decoder.list_or(&at, &entry.value, meant_types) else {
        // Whatever was meant: no rule is called ineffective for it.
        return (true, true);
    };
    if items.is_empty() {
        return (true, has_egress);
    }
    if items.len() > 2 {
        let stated: Vec<_> = items.iter().map(stated).collect();
        let value = clip(&stated.join(",")).into_owned();
        let finding = Finding::invalid(
            format!("[{value}]"),
            "may not specify more than two policyTypes",
        );
        decoder.error(&at, finding.help("they are Ingress and Egress, each once"));
        return (true, true);
    }
    let (mut ingress, mut egress) = (false, false);
    for (index, item) in items.iter().enumerate() {
        let at = at.index(index, item);
        match decoder.string(&at, item) {
            Some("Ingress") => ingress = true,
            Some("Egress") => egress = true,
            Some(other) => {
                let finding = Finding::unsupported(other, TYPES);
                let finding = match meant_type(other) {
                    Some(meant) => finding.help(format!("did you mean `{meant}`?")),
                    None => {
                        finding.help("write Ingress for what comes in, Egress for what goes out")
                    }
                };
                decoder.error(&at, finding);
                (ingress, egress) = (true, true);
            }
            None => (ingress, egress) = (true, true),
        }
    }
    (ingress, egress)
}

const TYPES: &[&str] = &["Ingress", "Egress"];

/// The type that a word stands for, as people name it elsewhere.
fn meant_type(word: &str) -> Option<&'static str> {
    match word.to_ascii_lowercase().as_str() {
        "in" | "inbound" | "incoming" => Some("Ingress"),
        "out" | "outbound" | "outgoing" => Some("Egress"),
        word => nearest(word, TYPES),
    }
}

/// `policyTypes: Ingress`, or `Ingress, Egress`.
fn meant_types(node: &Node<'_>) -> Option<String> {
    let Value::Scalar(text, Scalar::Text) = &node.value else {
        return None;
    };
    let words = text.split(|letter: char| !letter.is_alphanumeric());
    let types: Option<Vec<_>> = words
        .filter(|word| !word.is_empty())
        .map(meant_type)
        .collect();
    types.map(|types| format!("write [{}], in brackets", types.join(", ")))
}

/// A type as the API server prints it in a list.
fn stated(node: &Node<'_>) -> String {
    match &node.value {
        Value::Scalar(text, Scalar::Text) => json(text),
        _ => "\"\"".to_owned(),
    }
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
    decoder
        .items_or(&at, entry, meant_rules)
        .map(|(index, item)| rule(decoder, &at.index(index, item), item, direction, namespace))
        .collect()
}

/// `ingress: deny`
fn means_none(text: &str) -> bool {
    ["deny", "deny-all", "drop", "none", "block"].contains(&&*text.to_ascii_lowercase())
}

/// `ingress: {from: …}`: a rule that is no item.
fn meant_rules(node: &Node<'_>) -> Option<String> {
    match &node.value {
        Value::Mapping(fields) if fields.is_empty() => Some(
            "to allow nothing write [], to allow everything write [{}]: these are lists of rules"
                .to_owned(),
        ),
        Value::Mapping(_) => {
            Some("begin each rule with `- `: `ingress` and `egress` are lists of rules".to_owned())
        }
        Value::Scalar(text, Scalar::Text) if means_none(text) => Some(
            "to deny all write []: what `policyTypes` names is denied but for what a rule allows"
                .to_owned(),
        ),
        Value::Scalar(text, Scalar::Text) if peer::means_all(text) => {
            Some("a rule that allows everything is written [{}]".to_owned())
        }
        Value::Scalar(_, Scalar::Bool(true)) => {
            Some("a rule that allows everything is written [{}]".to_owned())
        }
        Value::Scalar(_, Scalar::Bool(false)) => {
            Some("no rule at all is written [], which allows nothing".to_owned())
        }
        _ => None,
    }
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
            let help = format!(
                "the peers of an {name} rule stand below `{peers_field}`; `{other}` is for the other direction"
            );
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
        warn_empty(decoder, &at, entry, "every peer");
        for (index, item) in decoder.items_or(&at, entry, peer::meant_list) {
            peers.extend(peer(decoder, &at.index(index, item), item, namespace));
        }
    }
    let mut ports = Vec::new();
    if let Some(entry) = get(fields, "ports") {
        let at = at.field(entry);
        warn_null(decoder, &at, entry, "every port is allowed");
        warn_empty(decoder, &at, entry, "every port");
        for (index, item) in decoder.items_or(&at, entry, port::meant_list) {
            ports.extend(port(decoder, &at.index(index, item), item));
        }
    }
    Rule {
        action: Action::Allow,
        peers,
        ports,
    }
}
