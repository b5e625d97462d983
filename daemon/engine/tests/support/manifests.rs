//! Random worlds as text: every shape of a document that an API server accepts, absent, null and
//! empty told apart, in one file or several. A small vocabulary, so that selectors, blocks and
//! names meet often.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::reference::Host;
use super::writing;

/// Ports at the edges of what rules name.
pub const PORTS: [u16; 7] = [53, 79, 80, 81, 90, 8080, 65535];

/// Addresses that no Pod has, at the edges of the blocks.
pub const STRANGERS: [&str; 7] = [
    "10.0.0.200",
    "10.1.0.1",
    "203.0.113.63",
    "203.0.113.64",
    "198.51.100.1",
    "fd00::4000",
    "2001:db8::1",
];

/// Blocks, each with what lies strictly inside it.
const BLOCKS: [(&str, &[&str]); 12] = [
    (
        "0.0.0.0/0",
        &["10.0.0.0/8", "203.0.113.0/24", "10.0.0.2/32"],
    ),
    ("10.0.0.0/8", &["10.0.0.0/24", "10.1.0.0/16", "10.0.0.4/30"]),
    (
        "10.0.0.0/24",
        &["10.0.0.0/29", "10.0.0.4/30", "10.0.0.1/32"],
    ),
    ("10.0.0.0/29", &["10.0.0.4/30", "10.0.0.2/31"]),
    ("10.0.0.4/30", &["10.0.0.4/32", "10.0.0.5/32"]),
    ("10.0.0.3/32", &[]),
    ("10.0.0.0/25", &["10.0.0.64/26", "10.0.0.3/32"]),
    ("203.0.113.0/24", &["203.0.113.64/26"]),
    ("::/0", &["fd00::/16", "2001:db8::/32"]),
    ("fd00::/16", &["fd00::/125", "fd00::4000/128"]),
    ("fd00::/125", &["fd00::2/127", "fd00::5/128"]),
    ("2001:DB8::/32", &[]),
];

const NAMESPACES: [&str; 4] = ["default", "east", "north", "west"];

/// Manifests, and what they can't say.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// The text of each file.
    pub files: Vec<String>,
    /// The host.
    pub host: Host,
}

/// `None`: the field is left out.
type Field = (&'static str, Option<Value>);

fn object(fields: impl IntoIterator<Item = Field>) -> Value {
    let fields = fields.into_iter();
    let present = fields.filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(present.collect::<Map<_, _>>())
}

/// Left out, null, empty, or this; `weight`: of this among ten.
fn field(
    weight: u32,
    empty: Option<Value>,
    value: impl Strategy<Value = Value> + 'static,
) -> BoxedStrategy<Option<Value>> {
    let absent = (10 - weight).max(1);
    match empty {
        Some(empty) => prop_oneof![
            2 * weight => value.prop_map(Some),
            absent => Just(None),
            absent => Just(Some(Value::Null)),
            absent => Just(Some(empty)),
        ]
        .boxed(),
        None => prop_oneof![
            2 * weight => value.prop_map(Some),
            absent => Just(None),
            absent => Just(Some(Value::Null)),
        ]
        .boxed(),
    }
}

fn list(of: impl Strategy<Value = Value>, most: usize) -> impl Strategy<Value = Value> {
    vec(of, 1..=most).prop_map(Value::Array)
}

fn one_of(values: &'static [&'static str]) -> impl Strategy<Value = Value> + Clone {
    select(values).prop_map(Value::from)
}

/// `app` and `tier`, the latter sometimes empty; null is the empty value.
fn labels() -> impl Strategy<Value = Value> {
    let tier = prop_oneof![9 => one_of(&["", "1", "2"]), 1 => Just(Value::Null)];
    (
        proptest::option::weighted(0.8, one_of(&["db", "web"])),
        proptest::option::of(tier),
    )
        .prop_map(|(app, tier)| object([("app", app), ("tier", tier)]))
}

fn requirement() -> impl Strategy<Value = Value> {
    let values =
        subsequence(vec!["1", "2", "", "db", "web"], 1..3).prop_map(|values| json!(values));
    let key = one_of(&["app", "tier", "kubernetes.io/metadata.name"]);
    prop_oneof![
        3 => (key.clone(), one_of(&["In", "NotIn"]), values)
            .prop_map(|(key, operator, values)| json!({"key": key, "operator": operator, "values": values})),
        1 => (key, one_of(&["Exists", "DoesNotExist"]), field(0, Some(json!([])), Just(json!([]))))
            .prop_map(|(key, operator, values)| {
                object([("key", Some(key)), ("operator", Some(operator)), ("values", values)])
            }),
    ]
}

fn selector() -> BoxedStrategy<Value> {
    let by_labels = field(6, Some(json!({})), labels());
    let by_expressions = field(4, Some(json!([])), list(requirement(), 2));
    prop_oneof![
        1 => Just(json!({})),
        4 => (by_labels, by_expressions).prop_map(|(labels, expressions)| {
            object([("matchLabels", labels), ("matchExpressions", expressions)])
        }),
        1 => one_of(&NAMESPACES)
            .prop_map(|name| json!({"matchLabels": {"kubernetes.io/metadata.name": name}})),
    ]
    .boxed()
}

fn block() -> impl Strategy<Value = Value> {
    select(&BLOCKS[..]).prop_flat_map(|(cidr, holes)| {
        let most = holes.len().min(2);
        let except = subsequence(holes.to_vec(), 0..=most).prop_map(|holes| json!(holes));
        field(7, Some(json!([])), except)
            .prop_map(move |except| object([("cidr", Some(json!(cidr))), ("except", except)]))
    })
}

fn peer() -> impl Strategy<Value = Value> {
    // What is null is left out.
    let nothing = || prop_oneof![4 => Just(None), 1 => Just(Some(Value::Null))];
    let kind = prop_oneof![
        (selector().prop_map(Some), nothing(), nothing()),
        (nothing(), selector().prop_map(Some), nothing()),
        (
            selector().prop_map(Some),
            selector().prop_map(Some),
            nothing()
        ),
        (nothing(), nothing(), block().prop_map(Some)),
    ];
    kind.prop_map(|(pods, namespaces, block)| {
        object([
            ("podSelector", pods),
            ("namespaceSelector", namespaces),
            ("ipBlock", block),
        ])
    })
}

fn port() -> impl Strategy<Value = Value> {
    let protocol = || field(7, None, one_of(&["TCP", "UDP", "SCTP"]));
    let ends = (select(&PORTS[..]), 0..20_u16)
        .prop_map(|(first, more)| (json!(first), json!(first.saturating_add(more))));
    prop_oneof![
        1 => Just((None, None)),
        3 => select(&PORTS[..]).prop_map(|port| (Some(json!(port)), None)),
        3 => one_of(&["http", "dns"]).prop_map(|name| (Some(name), None)),
        2 => ends.prop_map(|(first, last)| (Some(first), Some(last))),
        1 => Just((Some(Value::Null), Some(Value::Null))),
    ]
    .prop_flat_map(move |(port, end)| {
        protocol().prop_map(move |protocol| {
            object([
                ("protocol", protocol),
                ("port", port.clone()),
                ("endPort", end.clone()),
            ])
        })
    })
}

fn rule(peers: &'static str) -> impl Strategy<Value = Value> {
    (
        field(7, Some(json!([])), list(peer(), 2)),
        field(5, Some(json!([])), list(port(), 2)),
    )
        .prop_map(move |(from, ports)| object([(peers, from), ("ports", ports)]))
}

fn spec() -> impl Strategy<Value = Option<Value>> {
    let types = select(vec![
        json!(["Ingress"]),
        json!(["Egress"]),
        json!(["Egress", "Ingress"]),
        json!(["Ingress", "Ingress"]),
    ]);
    let spec = (
        field(7, Some(json!({})), selector()),
        field(6, Some(json!([])), list(rule("from"), 2)),
        field(5, Some(json!([])), list(rule("to"), 2)),
        field(5, Some(json!([])), types),
    )
        .prop_map(|(pods, ingress, egress, types)| {
            object([
                ("podSelector", pods),
                ("ingress", ingress),
                ("egress", egress),
                ("policyTypes", types),
            ])
        });
    prop_oneof![
        30 => spec.prop_map(Some),
        1 => Just(None),
    ]
}

/// The default one is left out, null, empty or said.
fn namespace() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        6 => one_of(&NAMESPACES).prop_map(Some),
        1 => Just(None),
        1 => Just(Some(Value::Null)),
        1 => Just(Some(json!(""))),
    ]
}

/// Those of a policy or a Namespace that is enforced, or audited one time in `rare`.
fn mode(rare: u32) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        rare - 2 => field(0, Some(json!({})), Just(json!({"example.com/note": "audit"}))),
        1 => Just(Some(json!({"netpold.io/mode": "enforce"}))),
        1 => Just(Some(json!({"netpold.io/mode": "audit", "example.com/note": "a b"}))),
    ]
}

fn policy() -> impl Strategy<Value = Value> {
    let labels = field(1, Some(json!({})), labels());
    (namespace(), spec(), labels, mode(5)).prop_map(|(namespace, spec, labels, annotations)| {
        let metadata = object([
            ("namespace", namespace),
            ("labels", labels),
            ("annotations", annotations),
        ]);
        object([
            ("apiVersion", Some(json!("networking.k8s.io/v1"))),
            ("kind", Some(json!("NetworkPolicy"))),
            ("metadata", Some(metadata)),
            ("spec", spec),
        ])
    })
}

/// A container's ports: each name once; without a name they are nothing to a policy.
fn container_ports() -> impl Strategy<Value = Value> {
    let port = |name: &'static str| {
        (
            select(&[53_u16, 80, 90, 8080][..]),
            field(4, Some(json!("")), one_of(&["TCP", "UDP"])),
        )
            .prop_map(move |(port, protocol)| {
                let name = (!name.is_empty()).then(|| json!(name));
                object([
                    ("name", name),
                    ("containerPort", Some(json!(port))),
                    ("protocol", protocol),
                ])
            })
    };
    (
        subsequence(vec!["http", "dns", ""], 0..=3),
        port("http"),
        port("dns"),
        port(""),
    )
        .prop_map(|(names, http, dns, other)| {
            let named = |name| match name {
                "http" => http.clone(),
                "dns" => dns.clone(),
                _ => other.clone(),
            };
            names.into_iter().map(named).collect()
        })
}

fn pod() -> impl Strategy<Value = (Value, u8)> {
    let containers = vec(field(9, Some(json!([])), container_ports()), 1..=2);
    let host_network = prop_oneof![
        8 => Just(None),
        1 => Just(Some(Value::Null)),
        2 => Just(Some(json!(false))),
        1 => Just(Some(json!(true))),
    ];
    let external = prop_oneof![
        6 => field(0, Some(json!({})), Just(json!({}))),
        1 => Just(Some(json!({"netpold.io/external": "true", "example.com/note": "a b"}))),
    ];
    (
        namespace(),
        field(8, Some(json!({})), labels()),
        containers,
        host_network,
        external,
        0..6_u8,
    )
        .prop_map(
            |(namespace, labels, containers, host_network, annotations, addresses)| {
                let containers: Value = containers
                    .into_iter()
                    .zip(["main", "side"])
                    .map(|(ports, name)| {
                        let image = Some(json!("registry.example/image:1"));
                        object([
                            ("name", Some(json!(name))),
                            ("image", image),
                            ("ports", ports),
                        ])
                    })
                    .collect();
                let spec = object([
                    ("containers", Some(containers)),
                    ("hostNetwork", host_network),
                ]);
                let metadata = object([
                    ("namespace", namespace),
                    ("labels", labels),
                    ("annotations", annotations),
                ]);
                let pod =
                    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
                (pod, addresses)
            },
        )
}

/// Names and addresses follow from where a Pod stands.
fn placed(index: usize, (mut pod, addresses): (Value, u8)) -> Value {
    pod["metadata"]["name"] = json!(format!("pod-{index}"));
    let (v4, v6) = (format!("10.0.0.{index}"), format!("fd00::{index}"));
    pod["status"] = match addresses {
        0 => json!({"podIP": v4}),
        1 => json!({"podIPs": [{"ip": v6}]}),
        2 => json!({"podIP": v6, "podIPs": null}),
        3 => json!({"podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}]}),
        _ => json!({"podIPs": [{"ip": v4}, {"ip": v6}]}),
    };
    pod
}

fn namespaces() -> impl Strategy<Value = Vec<Value>> {
    let rest = (field(8, Some(json!({})), labels()), mode(12));
    (
        subsequence(NAMESPACES.to_vec(), 0..=NAMESPACES.len()),
        vec(rest, NAMESPACES.len()),
    )
        .prop_map(|(names, rest)| {
            names
                .into_iter()
                .zip(rest)
                .map(|(name, (labels, annotations))| {
                    let metadata = object([
                        ("name", Some(json!(name))),
                        ("labels", labels),
                        ("annotations", annotations),
                    ]);
                    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
                })
                .collect()
        })
}

/// Documents as they are, or as Lists of a kind or of all.
fn listed(documents: Vec<Value>, how: u8) -> Vec<Value> {
    match how {
        0 => vec![json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": documents})],
        1 => {
            // Items of a typed List need not say what they are.
            let (mut policies, mut rest): (Vec<_>, Vec<_>) = documents
                .into_iter()
                .partition(|document| document["kind"] == "NetworkPolicy");
            for policy in policies.iter_mut().step_by(2) {
                let fields = policy.as_object_mut().expect("documents are objects");
                fields.remove("apiVersion");
                fields.remove("kind");
            }
            rest.push(json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicyList", "items": policies,
            }));
            rest
        }
        2 => {
            // Another kind, as applications bring along.
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
            [vec![map], documents].concat()
        }
        _ => documents,
    }
}

/// Manifests that are all accepted.
pub fn manifests() -> impl Strategy<Value = Manifests> {
    let files = vec(
        (0..8_u8, prop_oneof![1 => Just(0), 3 => any::<u64>()]),
        1..4,
    );
    let host = (any::<bool>(), any::<(bool, bool)>()).prop_map(
        |(some, (reaches_pods, reached_by_pods))| {
            let addresses: &[&str] = if some {
                &["192.0.2.1", "fd00::4000"]
            } else {
                &[]
            };
            Host {
                addresses: addresses.iter().map(|text| parsed(text)).collect(),
                reaches_pods,
                reached_by_pods,
            }
        },
    );
    (
        namespaces(),
        vec(pod(), 1..6),
        vec(policy(), 0..6),
        files,
        host,
    )
        .prop_map(|(namespaces, pods, policies, files, host)| {
            let pods = (1..).zip(pods).map(|(index, pod)| placed(index, pod));
            let policies = policies.into_iter().enumerate().map(|(index, mut policy)| {
                policy["metadata"]["name"] = json!(format!("policy-{index}"));
                policy
            });
            let mut parts = vec![Vec::new(); files.len()];
            let all = namespaces.into_iter().chain(pods).chain(policies);
            for (index, document) in all.enumerate() {
                parts[index % files.len()].push(document);
            }
            let files = parts
                .into_iter()
                .zip(files)
                .map(|(documents, (how, seed))| writing::file(&listed(documents, how), seed))
                .collect();
            Manifests { files, host }
        })
}

fn parsed(text: &str) -> IpAddr {
    text.parse().expect("the vocabulary's addresses are valid")
}

/// The strangers' addresses.
pub fn strangers() -> impl Iterator<Item = IpAddr> {
    STRANGERS.into_iter().map(parsed)
}
