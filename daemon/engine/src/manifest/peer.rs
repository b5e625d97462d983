//! Peers of a rule: selectors and ipBlocks, validated as `ValidateNetworkPolicyPeer` and
//! `ValidateIPBlock` do.
//!
//! Which namespaces a podSelector looks in is set here; what selectors match is
//! [`crate::labels`]' business.

use std::net::IpAddr;

use ipnet::IpNet;

use super::address;
use super::decode::{At, Decoder, Finding, clip, get, present, quoted, warn_null};
use super::node::{Entry, Node, Value};
use super::scalar::Scalar;
use super::selector;
use crate::diagnostic::rule;
use crate::names;
use crate::policy::{IpBlock, Namespaces, Peer, PodPeer};

/// `from: {podSelector: …}`, or a name: peers that are no items.
pub(super) fn meant_list(node: &Node<'_>) -> Option<String> {
    match &node.value {
        Value::Mapping(_) => {
            Some("begin each peer with `- `: `from` and `to` are lists of peers".to_owned())
        }
        Value::Scalar(text, Scalar::Text) if means_all(text) => {
            Some("to allow every peer, leave the field out".to_owned())
        }
        Value::Scalar(text, Scalar::Text) => {
            meant_peer_text(text).map(|peer| format!("write [{peer}]"))
        }
        _ => None,
    }
}

/// `from: any`
pub(super) fn means_all(text: &str) -> bool {
    [
        "any",
        "all",
        "*",
        "anywhere",
        "everything",
        "allow",
        "allow-all",
    ]
    .contains(&&*text.to_ascii_lowercase())
}

/// `- 10.0.0.0/8` or `- app=web`: a peer that is no mapping.
fn meant_peer(node: &Node<'_>) -> Option<String> {
    match &node.value {
        Value::Scalar(text, Scalar::Text) => {
            meant_peer_text(text).map(|peer| format!("write {peer}"))
        }
        _ => None,
    }
}

fn meant_peer_text(text: &str) -> Option<String> {
    if address::block(text).is_ok() {
        return Some(format!("{{ipBlock: {{cidr: {text}}}}}"));
    }
    let labels = selector::meant_labels(text)?;
    Some(format!("{{podSelector: {{matchLabels: {labels}}}}}"))
}

/// One of `from` or `to` (`ValidateNetworkPolicyPeer`).
pub(super) fn peer(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    node: &Node<'_>,
    namespace: &str,
) -> Option<Peer> {
    let fields = decoder.mapping_or(at, node, meant_peer)?;
    let known = &["podSelector", "namespaceSelector", "ipBlock"];
    let slip = !decoder.only(at, fields, known);
    let mut select = |name| {
        let entry = present(fields, name)?;
        Some(selector::decode(decoder, &at.field(entry), entry))
    };
    let pods = select("podSelector");
    let namespaces = select("namespaceSelector");
    let block = present(fields, "ipBlock");
    let blocked = block.map(|entry| ip_block(decoder, &at.field(entry), &entry.value));
    let selects = pods.is_some() || namespaces.is_some();
    if let (Some(blocked), Some(entry)) = (blocked, block) {
        if selects {
            let finding = Finding::forbidden("may not specify both ipBlock and another peer");
            let help = "make them two peers: begin the ipBlock with `- ` of its own";
            let finding = finding.help(help).also(entry.span, "the ipBlock");
            decoder.error(at, finding);
            return None;
        }
        return blocked.map(Peer::Block);
    }
    if !selects {
        // A slip of the pen is no empty peer.
        if !slip {
            no_peer(decoder, at, fields);
        }
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

fn no_peer(decoder: &mut Decoder<'_>, at: &At<'_>, fields: &[Entry<'_>]) {
    let help = match fields.first() {
        Some(entry) => format!(
            "`{0}` has no value: write `{0}: {{}}` where all are meant",
            clip(&entry.key)
        ),
        None => "write a podSelector, a namespaceSelector or an ipBlock; to allow every peer, \
                 remove the list of peers"
            .to_owned(),
    };
    decoder.error(at, Finding::required("must specify a peer").help(help));
}

/// `ipBlock: 10.0.0.0/8`: the block where the mapping should be.
fn meant_block(node: &Node<'_>) -> Option<String> {
    match &node.value {
        Value::Scalar(text, Scalar::Text) => Some(format!("write {{cidr: {}}}", clip(text))),
        _ => None,
    }
}

/// `ValidateIPBlock`
fn ip_block(decoder: &mut Decoder<'_>, at: &At<'_>, node: &Node<'_>) -> Option<IpBlock> {
    let fields = decoder.mapping_or(at, node, meant_block)?;
    let slip = !decoder.only(at, fields, &["cidr", "except"]);
    let stated = present(fields, "cidr");
    let place = stated.map_or(at.missing("cidr"), |entry| at.field(entry));
    let text = match stated {
        // `cidr: [10.0.0.0/8, …]`
        Some(entry) if matches!(entry.value.value, Value::List(_)) => {
            let help = "each block is a peer of its own: `- ipBlock: {cidr: …}`";
            decoder.wrong_type_meant(&place, &entry.value, "a string", Some(help.to_owned()));
            return None;
        }
        Some(entry) => decoder.string(&place, &entry.value)?,
        None => "",
    };
    if text.is_empty() {
        // A `CIDR` or `cidrs` that is none is told already.
        if stated.is_some() || !slip {
            decoder.error(&place, Finding::required("").help(CIDR_HELP));
        }
        return None;
    }
    let cidr = cidr(decoder, &place, text)?;
    let mut except = Vec::new();
    if let Some(entry) = present(fields, "except") {
        let at = at.field(entry);
        for (index, item) in decoder.items(&at, entry) {
            except.extend(hole(decoder, &at.index(index, item), item, &cidr));
        }
    }
    Some(IpBlock {
        cidr: cidr.network(),
        except,
    })
}

const SUCH_AS: &str = "such as 10.9.8.0/24 or 2001:db8::/64";
const CIDR_HELP: &str = "write the block of addresses, as `cidr: 10.0.0.0/8`";

/// One of `except`: a block inside the `cidr`, and smaller.
fn hole(
    decoder: &mut Decoder<'_>,
    at: &At<'_>,
    node: &Node<'_>,
    cidr: &address::Block,
) -> Option<IpNet> {
    let text = decoder.string(at, node)?;
    let hole = self::cidr(decoder, at, text)?;
    let (inner, outer) = (hole.network(), cidr.network());
    // Whether an IPv4 block in the clothes of IPv6 holds the hole depends on the reader.
    let is_inside = outer.contains(&inner) && outer.prefix_len() < inner.prefix_len();
    if !is_inside && !cidr.is_mapped() {
        let finding = Finding::invalid(quoted(text), "must be a strict subset of `cidr`");
        let help = if outer == inner {
            "`except` takes the whole block out again: remove the peer, or make the `except` smaller"
                .to_owned()
        } else if inner.addr().is_ipv4() != outer.addr().is_ipv4() {
            format!(
                "{outer} and {inner} are of two families: make the `except` part of a block of its own family, or leave it out"
            )
        } else {
            format!("each `except` lies inside {outer}, and is smaller")
        };
        decoder.error(at, finding.help(help));
        return None;
    }
    Some(inner)
}

/// A block; what is wrong with it is reported, and `None` where it is no block at all.
fn cidr(decoder: &mut Decoder<'_>, at: &At<'_>, text: &str) -> Option<address::Block> {
    let block = match address::block(text) {
        Ok(block) => block,
        Err(breach) => {
            let help = match address::address(text) {
                Ok(address) => format!("one address is written {address}/{}", bits(address)),
                Err(_) if ["any", "all", "*"].contains(&text) => {
                    "every address is 0.0.0.0/0, and ::/0 for IPv6".to_owned()
                }
                Err(_)
                    if names::subdomain(text).is_empty() && text.contains(char::is_alphabetic) =>
                {
                    "a NetworkPolicy knows addresses alone, no names of hosts".to_owned()
                }
                Err(_) => SUCH_AS.to_owned(),
            };
            let finding = Finding::invalid(quoted(text), breach);
            decoder.error(at, finding.help(help));
            return None;
        }
    };
    let (network, address) = (block.network(), block.written.addr());
    if let Some(breach) = block.breach {
        let help = if block.is_mapped() {
            match block.as_ipv4() {
                Some(plain) => format!("write {plain}"),
                None => SUCH_AS.to_owned(),
            }
        } else if network != block.written {
            let one = bits(address);
            format!("write {network} for the block, or {address}/{one} for the one address")
        } else {
            format!("write {network}")
        };
        let finding = Finding::invalid(quoted(text), breach);
        decoder.error(at, finding.help(help));
    } else if network.to_string() != text {
        let message = format!(
            "IPv6 CIDR value {} should be in RFC 5952 canonical format ({:?})",
            quoted(text),
            network.to_string()
        );
        let finding = Finding::new(rule::NOT_CANONICAL, message);
        decoder.warning(at, finding.help(format!("write {network}")));
    }
    Some(block)
}

/// Bits of a family's addresses.
fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
