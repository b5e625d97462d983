//! Labels, blocks and ports, matched bit by bit.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// "The result of matchLabels and matchExpressions are ANDed. An empty label selector matches all
/// objects."
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    for (key, value) in selector.match_labels.iter().flatten() {
        // "A single {key,value} in the matchLabels map is equivalent to an element of
        // matchExpressions, whose key field is "key", the operator is "In", and the values array
        // contains only "value"."
        if labels.get(key) != Some(value) {
            return false;
        }
    }
    for requirement in selector.match_expressions.iter().flatten() {
        let value = labels.get(&requirement.key);
        let values = requirement.values.as_deref().unwrap_or_default();
        let listed = value.is_some_and(|value| values.contains(value));
        let fulfilled = match requirement.operator.as_str() {
            "In" => listed,
            // "[tier notin (frontend, backend)] selects all resources with key equal to tier and
            // values other than frontend and backend, and all resources with no labels with the
            // tier key" (Labels and Selectors)
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => panic!("no API server accepts the operator {other}"),
        };
        if !fulfilled {
            return false;
        }
    }
    true
}

/// Is the address in the block? Bits beyond the prefix length say nothing; a block of one family
/// holds no address of the other.
pub fn inside(block: &str, address: IpAddr) -> bool {
    let (base, length) = block.split_once('/').expect("a block has a prefix length");
    let length: usize = length.parse().expect("a prefix length is a number");
    let base: IpAddr = base.parse().expect("a block has an address");
    let (base, address) = (bits(base), bits(address));
    base.len() == address.len() && base[..length] == address[..length]
}

/// The bits of an address, the first one first.
fn bits(address: IpAddr) -> Vec<bool> {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    octets
        .iter()
        .flat_map(|octet| (0..8).map(move |bit| octet & (0x80 >> bit) != 0))
        .collect()
}

/// Does the entry name this port? `named` finds what a name stands for at the destination.
pub fn port(entry: &NetworkPolicyPort, port: u16, named: impl Fn(&str) -> Option<u16>) -> bool {
    match &entry.port {
        // "If this field is not provided, this matches all port names and numbers."
        None => true,
        Some(IntOrString::String(name)) => named(name) == Some(port),
        Some(IntOrString::Int(first)) => match entry.end_port {
            None => i32::from(port) == *first,
            // "the range of ports from port to endPort if set, inclusive, should be allowed"
            Some(last) => (*first..=last).contains(&i32::from(port)),
        },
    }
}
