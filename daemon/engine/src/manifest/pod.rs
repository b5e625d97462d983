//! A Pod: what netpold reads of it, strictly; the API's many other fields pass.
//!
//! Read: `spec.hostNetwork`, `spec.containers[].ports[]`, `status.podIP(s)` and the
//! annotations that declare where the Pod is.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::address;
use super::decode::{At, Decoder, Finding, below, get, present, quoted};
use super::document::{ANNOTATION_CONTAINER, ANNOTATION_EXTERNAL, ANNOTATION_NETNS, PodManifest};
use super::metadata::Metadata;
use super::node::{Entry, Node, Span};
use super::port::{port_number, protocol, such_as};
use crate::diagnostic::rule;
use crate::leave::{self, ADDRESSES};
use crate::names;
use crate::policy::Protocol;
use crate::spelling::nearest;
use crate::world::NamedPort;

/// Decodes everything but the metadata, whose annotations it judges.
pub(super) fn decode(
    decoder: &mut Decoder<'_>,
    root: &At<'_>,
    entries: &[Entry<'_>],
    metadata: &Metadata,
) -> PodManifest {
    decoder.only(
        root,
        entries,
        &["apiVersion", "kind", "metadata", "spec", "status"],
    );
    let mut pod = PodManifest {
        name: metadata.name.clone(),
        labels: metadata.labels.clone(),
        annotations: metadata.annotations.clone(),
        ..PodManifest::default()
    };
    if let Some(entry) = present(entries, "spec") {
        let at = root.field(entry);
        let fields = decoder.mapping(&at, &entry.value).unwrap_or_default();
        slips(decoder, &at, fields, &["containers", "hostNetwork"]);
        if let Some(entry) = get(fields, "hostNetwork") {
            let at = at.field(entry);
            pod.host_network = decoder.boolean(&at, &entry.value).unwrap_or_default();
        }
        if let Some(entry) = present(fields, "containers") {
            let at = at.field(entry);
            for (index, item) in decoder.items(&at, entry) {
                container(decoder, &at.index(index, item), item, &mut pod.ports);
            }
        }
    }
    if let Some(entry) = present(entries, "status") {
        let at = root.field(entry);
        let fields = decoder.mapping(&at, &entry.value).unwrap_or_default();
        slips(decoder, &at, fields, &["podIP", "podIPs"]);
        pod.pod_ips = addresses(decoder, &at, fields);
    }
    place(decoder, root, entries, metadata, &mut pod);
    pod
}

/// Fields that look like one we read. Others are the API's, or will be.
fn slips(decoder: &mut Decoder<'_>, at: &At<'_>, fields: &[Entry<'_>], read: &[&str]) {
    for entry in fields {
        if read.contains(&&*entry.key) {
            continue;
        }
        if let Some(meant) = nearest(&entry.key, read) {
            let place = at.named(&entry.key, entry.span);
            let message = format!("unknown field \"{place}\"");
            let finding = Finding::new(rule::UNKNOWN_FIELD, message);
            decoder.error(&place, finding.help(format!("did you mean `{meant}`?")));
        }
    }
}

fn container(decoder: &mut Decoder<'_>, at: &At<'_>, node: &Node<'_>, ports: &mut Vec<NamedPort>) {
    let fields = decoder.mapping(at, node).unwrap_or_default();
    slips(decoder, at, fields, &["ports"]);
    let Some(entry) = present(fields, "ports") else {
        return;
    };
    let at = at.field(entry);
    let mut taken: Vec<(String, Span)> = Vec::new();
    for (index, item) in decoder.items(&at, entry) {
        let at = at.index(index, item);
        let Some(fields) = decoder.mapping(&at, item) else {
            continue;
        };
        let Some(port) = container_port(decoder, &at, fields) else {
            continue;
        };
        let span = get(fields, "name").map_or(at.span(), |entry| entry.value.span);
        if let Some((_, first)) = taken.iter().find(|(name, _)| *name == port.name) {
            let message = format!("Duplicate value: {}", quoted(&port.name));
            let finding = Finding::new(rule::DUPLICATE_VALUE, message).also(*first, "first here");
            let help = "each port of a container has a name of its own";
            decoder.error(&at.named("name", span), finding.help(help));
        } else if taken.len() < 1000 {
            // A limit, so that a hostile list of names costs no more than its length.
            taken.push((port.name.clone(), span));
        }
        ports.push(port);
    }
}

/// One of `ports`, where it has a name.
fn container_port(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    fields: &[Entry<'_>],
) -> Option<NamedPort> {
    let known = &["containerPort", "hostIP", "hostPort", "name", "protocol"];
    let slip = !decoder.only(at, fields, known);
    let mut number = |name: &str| {
        let entry = present(fields, name)?;
        let at = at.field(entry);
        Some((at, decoder.integer(&at, &entry.value)))
    };
    let (stated, host) = (number("containerPort"), number("hostPort"));
    let help = "write the port that the container listens on";
    let port = match stated {
        // Zero is as good as absent (`validateContainerPorts`).
        None | Some((_, Some(0))) => {
            if !(slip && stated.is_none()) {
                let place = stated.map_or(at.missing("containerPort"), |(place, _)| place);
                decoder.error(&place, Finding::required("").help(help));
            }
            None
        }
        Some((place, number)) => {
            number.and_then(|number| port_number(decoder, &place, number, help))
        }
    };
    if let Some((place, Some(number))) = host
        && number != 0
    {
        port_number(decoder, &place, number, "leave `hostPort` out");
    }
    // An empty protocol is the default here, other than in a NetworkPolicy: it is no pointer.
    let protocol = match present(fields, "protocol") {
        None => Some(Protocol::Tcp),
        Some(entry) => {
            let at = at.field(entry);
            match decoder.string(&at, &entry.value)? {
                "" => Some(Protocol::Tcp),
                text => protocol(decoder, &at, text, PROTOCOLS),
            }
        }
    };
    let entry = present(fields, "name")?;
    let at = at.field(entry);
    let name = decoder.string(&at, &entry.value)?;
    if name.is_empty() {
        return None;
    }
    decoder.breaches(&at, name, names::port(name), || such_as(name));
    Some(NamedPort {
        name: name.to_owned(),
        port: port?,
        protocol: protocol?,
    })
}

/// In the order in which the API server lists them for a container.
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// `podIP` and `podIPs`, each address once.
fn addresses(decoder: &mut Decoder<'_>, at: &At<'_>, fields: &[Entry<'_>]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    if let Some(entry) = present(fields, "podIP") {
        found.extend(ip(decoder, &at.field(entry), &entry.value));
    }
    if let Some(entry) = present(fields, "podIPs") {
        let at = at.field(entry);
        for (index, item) in decoder.items(&at, entry) {
            let at = at.index(index, item);
            let Some(fields) = decoder.mapping(&at, item) else {
                continue;
            };
            decoder.only(&at, fields, &["ip"]);
            if let Some(entry) = present(fields, "ip") {
                found.extend(ip(decoder, &at.field(entry), &entry.value));
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|address| seen.insert(*address));
    found
}

fn ip(decoder: &mut Decoder<'_>, at: &At<'_>, node: &Node<'_>) -> Option<IpAddr> {
    let text = decoder.string(at, node)?;
    if text.is_empty() {
        return None;
    }
    match address::address(text) {
        Ok(address) => Some(address),
        Err(message) => {
            let finding = Finding::invalid(quoted(text), message);
            let finding = if text.contains('/') {
                finding.help("the address alone, without a prefix length")
            } else {
                finding.help("such as 10.9.8.7 or 2001:db8::1")
            };
            decoder.error(at, finding);
            None
        }
    }
}

/// The annotations that say where the Pod is.
fn place(
    decoder: &mut Decoder<'_>,
    root: &At<'_>,
    entries: &[Entry<'_>],
    metadata: &Metadata,
    pod: &mut PodManifest,
) {
    let Some(meta) = present(entries, "metadata") else {
        return;
    };
    let Some(annotations) = present(below(meta), "annotations") else {
        return;
    };
    let (meta_at, fields) = (root.field(meta), below(annotations));
    let at = meta_at.field(annotations);
    let stated = |key: &'static str| {
        let entry = get(fields, key)?;
        Some((
            key,
            at.value(entry),
            metadata.annotations.get(key)?.as_str(),
        ))
    };
    let (external, netns, container) = (
        stated(ANNOTATION_EXTERNAL),
        stated(ANNOTATION_NETNS),
        stated(ANNOTATION_CONTAINER),
    );
    if let Some((_, at, text)) = &external {
        pod.external = *text == "true";
        if !pod.external {
            let finding = Finding::unsupported(text, &["true"]);
            let help = "write \"true\", or remove the annotation where the Pod is on this host";
            decoder.error(at, finding.help(help));
        }
    }
    if let Some((_, at, text)) = &netns {
        if Path::new(text).is_absolute() && !text.contains('\0') {
            pod.netns = Some(PathBuf::from(text));
        } else {
            let finding = Finding::invalid(quoted(text), "must be an absolute path");
            decoder.error(at, finding.help("such as /run/netns/NAME"));
        }
    }
    if let Some((_, at, text)) = &container {
        if is_container(text) {
            pod.container = Some((*text).to_owned());
        } else {
            let detail = "must be a container's name or ID";
            let help = "as `docker ps` prints it, such as `shop-db-1` or `4f1c0de4a1b2`";
            decoder.error(at, Finding::invalid(quoted(text), detail).help(help));
        }
    }
    if let Some((_, at, text)) = stated(ADDRESSES) {
        match leave::parse(text) {
            Ok(_) if pod.external || pod.host_network => {
                let detail = "may not be specified where the Pod is not enforced here";
                let help = "remove the annotation: nothing keeps such a Pod from using any address";
                decoder.error(&at, Finding::forbidden(detail).help(help));
            }
            Ok(leaves) => pod.leaves = leaves,
            Err(error) => {
                let finding = Finding::invalid(quoted(text), error.to_string());
                decoder.error(&at, finding.help("such as 10.99.0.0/24,10.0.0.7"));
            }
        }
    }
    for (later, earlier, help) in [
        (
            &netns,
            &external,
            "a Pod is in a network namespace of this host, or elsewhere: keep one",
        ),
        (
            &container,
            &external,
            "a Pod is a container of this host, or elsewhere: keep one",
        ),
        (
            &container,
            &netns,
            "a container's network namespace is known from its runtime: keep one",
        ),
    ] {
        if let (Some((_, at, _)), Some((key, ..))) = (later, earlier) {
            let detail = format!("may not be specified together with {key}");
            decoder.error(at, Finding::forbidden(&detail).help(help));
        }
    }
    for (_, at, _) in [&netns, &container].into_iter().flatten() {
        if pod.host_network {
            let detail = "may not be specified when `hostNetwork` is true";
            let help = "remove `hostNetwork`, or the annotation";
            decoder.error(at, Finding::forbidden(detail).help(help));
        }
    }
}

/// What engines take for a container's name (`RestrictedNameChars` in moby's names package), which an
/// ID is, too.
fn is_container(text: &str) -> bool {
    let mut letters = text.chars();
    letters
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && letters.all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
        && text.len() <= 253
}
