//! The reference: NetworkPolicy from the *text* of manifests to a verdict, as the API's own text
//! has it, one connection between two addresses at a time.
//!
//! It shares nothing with the engine: the documents are read by serde-saphyr into the types of
//! k8s-openapi, and defaults, selectors, blocks and ports are done here again, as slowly as they
//! like. So a misreading anywhere between the file and the kernel shows. `tests/reference.rs`
//! keeps the engine's crates out of this folder.
//!
//! Quotations are of the API reference (`kubectl explain networkpolicy.spec`), or, where it says
//! so, of the page "Network Policies" of Kubernetes' documentation. Where both leave the answer
//! open, the comment says what netpold promises. Ports are host order.

mod matching;
pub mod reading;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};

use reading::Document;

/// All that the manifests say, and what they can't: the host.
#[derive(Debug, Default)]
pub struct Cluster {
    policies: Vec<NetworkPolicy>,
    /// With their addresses.
    pods: Vec<(Pod, Vec<IpAddr>)>,
    namespaces: Vec<Namespace>,
    host: Host,
}

/// The host of the Pods, and `[host]` of the configuration.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// `ingress = "allow"`: it always reaches its own Pods.
    pub reaches_pods: bool,
    /// `egress = "allow"`: its own Pods always reach it.
    pub reached_by_pods: bool,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            reaches_pods: true,
            reached_by_pods: true,
        }
    }
}

/// A connection that an end tries to open.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub from: IpAddr,
    pub to: IpAddr,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    /// The destination's port.
    pub port: u16,
}

/// The Pod's own view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

/// What is known of one end of a connection before a rule is looked at.
pub enum Standing<'c> {
    /// It lets the connection through, whatever policies say.
    Free,
    /// Policies select it for the direction.
    Selected {
        /// Where there are any, only what they allow passes.
        in_force: Vec<&'c NetworkPolicy>,
        /// As many of them, or more, as if they were in force, the likelier first: what they would
        /// not let through is reported, where it passes.
        audited: [Vec<&'c NetworkPolicy>; 2],
    },
}

/// What one end makes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Passes,
    /// It passes, and is reported: what is only audited would drop it.
    Reported,
    Dropped,
}

impl Cluster {
    /// The objects of these texts, in order.
    pub fn read<'t>(texts: impl IntoIterator<Item = &'t str>, host: Host) -> Result<Self, String> {
        let mut cluster = Self {
            host,
            ..Self::default()
        };
        for text in texts {
            for document in reading::documents(text)? {
                match document {
                    Document::NetworkPolicy(policy) => cluster.policies.push(policy),
                    Document::Pod(pod) => {
                        let addresses = addresses(&pod);
                        cluster.pods.push((*pod, addresses));
                    }
                    Document::Namespace(namespace) => cluster.namespaces.push(namespace),
                }
            }
        }
        Ok(cluster)
    }

    /// "For a connection from a source pod to a destination pod to be allowed, both the egress
    /// policy on the source pod and the ingress policy on the destination pod need to allow the
    /// connection. If either side does not allow the connection, it will not happen." (Network
    /// Policies)
    pub fn allows(&self, connection: Connection) -> bool {
        [Direction::Egress, Direction::Ingress]
            .into_iter()
            .all(|direction| self.side(direction, connection) != Answer::Dropped)
    }

    /// What does the end whose view this is make of the connection?
    pub fn side(&self, direction: Direction, connection: Connection) -> Answer {
        // "Network policies do not conflict; they are additive. If any policy or policies apply to
        // a given pod for a given direction, the connections allowed in that direction from that
        // pod is the union of what the applicable policies allow." (Network Policies)
        self.standing(direction, connection).answer(|policies| {
            policies.iter().any(|policy| {
                (0..rules(policy, direction).len())
                    .any(|rule| self.rule_matches(policy, direction, rule, connection))
            })
        })
    }

    /// Every address that an end has.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let pods = self.pods.iter().flat_map(|(_, addresses)| addresses);
        pods.chain(&self.host.addresses).copied()
    }

    /// What one Pod can be reached at; on the host's network that is all that the host has, its
    /// own status first.
    pub fn addresses_of(&self, in_namespace: &str, name: &str) -> Vec<IpAddr> {
        let is_it = |pod: &Pod| {
            namespace(&pod.metadata) == in_namespace && pod.metadata.name.as_deref() == Some(name)
        };
        let Some((pod, own)) = self.pods.iter().find(|(pod, _)| is_it(pod)) else {
            return Vec::new();
        };
        let mut found = own.clone();
        if on_host_network(pod) {
            let mut host: Vec<IpAddr> = self.addresses().collect();
            host.retain(|address| self.is_host(*address));
            host.sort();
            found.extend(host);
        }
        found
    }

    /// Who of the two ends is asked, and which policies have a say there.
    pub fn standing(&self, direction: Direction, connection: Connection) -> Standing<'_> {
        let (own, peer, always) = match direction {
            Direction::Egress => (connection.from, connection.to, self.host.reached_by_pods),
            Direction::Ingress => (connection.to, connection.from, self.host.reaches_pods),
        };
        // Policies are for Pods; the host's own side and strangers have none. An external Pod is
        // enforced where it runs, not here.
        let Some((pod, addresses)) = self.pod_at(own).filter(|(pod, _)| !is_external(pod)) else {
            return Standing::Free;
        };
        // "exception: a pod cannot block access to itself" (Network Policies)
        if addresses.contains(&peer) {
            return Standing::Free;
        }
        // "Traffic is allowed to a pod if there are no NetworkPolicies selecting the pod […], OR if
        // the traffic source is the pod's local node"; and for both directions: "exception:
        // traffic to and from the node where a Pod is running is always allowed, regardless of the
        // IP address of the Pod or the node" (Network Policies). `[host]` can ask for more.
        if self.is_host(peer) && always {
            return Standing::Free;
        }
        let selecting: Vec<&NetworkPolicy> = self
            .policies
            .iter()
            .filter(|policy| affects(policy, direction) && selects(policy, pod))
            .collect();
        // "By default, a pod is non-isolated for ingress; all inbound connections are allowed. A
        // pod is isolated for ingress if there is any NetworkPolicy that both selects the pod and
        // has "Ingress" in its policyTypes"; egress is the same. (Network Policies)
        if selecting.is_empty() {
            return Standing::Free;
        }
        // No word of the API's: `netpold.io/mode: audit` takes a policy, or all of a Namespace's,
        // out of force, and reports what it would have dropped.
        let enforced: Vec<&NetworkPolicy> = selecting
            .iter()
            .copied()
            .filter(|policy| !is_audited(&policy.metadata))
            .collect();
        Standing::Selected {
            in_force: if self.audits(namespace(&pod.metadata)) {
                Vec::new()
            } else {
                enforced.clone()
            },
            audited: [enforced, selecting],
        }
    }

    /// Is a Namespace only audited?
    fn audits(&self, name: &str) -> bool {
        let mut manifests = self.namespaces.iter();
        manifests.any(|one| one.metadata.name.as_deref() == Some(name) && is_audited(&one.metadata))
    }

    /// "The traffic must match both ports and from" (for egress: "both ports and to").
    pub fn rule_matches(
        &self,
        policy: &NetworkPolicy,
        direction: Direction,
        rule: usize,
        connection: Connection,
    ) -> bool {
        let (peers, ports) = rules(policy, direction)[rule];
        let peer = match direction {
            Direction::Egress => connection.to,
            Direction::Ingress => connection.from,
        };
        // "Items in this list are combined using a logical OR operation. If this field is empty or
        // missing, this rule matches all sources […]. If this field is present and contains at
        // least one item, this rule allows traffic only if the traffic matches at least one item"
        let from = peers.is_empty()
            || peers
                .iter()
                .any(|entry| self.peer_matches(namespace(&policy.metadata), entry, peer));
        // The same words stand at `ports`.
        let at = ports.is_empty()
            || ports
                .iter()
                .any(|entry| self.port_matches(entry, connection));
        from && at
    }

    fn peer_matches(&self, own_namespace: &str, entry: &NetworkPolicyPeer, peer: IpAddr) -> bool {
        // "If this field is set then neither of the other fields can be." Pods have addresses
        // too: a block covers every end with an address inside it.
        if let Some(block) = &entry.ip_block {
            // "except is a slice of CIDRs that should not be included within an IPBlock"
            let except = block.except.as_deref().unwrap_or_default();
            return matching::inside(&block.cidr, peer)
                && !except.iter().any(|hole| matching::inside(hole, peer));
        }
        // Pods are recognised by their addresses; the host's are no Pod's.
        let Some((pod, _)) = self.pod_at(peer) else {
            return false;
        };
        let there = namespace(&pod.metadata);
        let in_namespace = match &entry.namespace_selector {
            // "if present but empty, it selects all namespaces"
            Some(selector) => matching::selects(selector, &self.namespace_labels(there)),
            // "Otherwise it selects the pods matching podSelector in the policy's own namespace."
            None => there == own_namespace,
        };
        let among_pods = match &entry.pod_selector {
            // "if present but empty, it selects all pods"
            Some(selector) => matching::selects(selector, labels(&pod.metadata)),
            // "Otherwise it selects all pods in the namespaces selected by namespaceSelector."
            None => true,
        };
        // "the NetworkPolicyPeer as a whole selects the pods matching podSelector in the Namespaces
        // selected by NamespaceSelector"
        in_namespace && among_pods
    }

    fn port_matches(&self, entry: &NetworkPolicyPort, connection: Connection) -> bool {
        // "protocol represents the protocol (TCP, UDP, or SCTP) which traffic must match. If not
        // specified, this field defaults to TCP."
        let protocol = entry.protocol.as_deref().unwrap_or("TCP");
        if protocol != connection.protocol {
            return false;
        }
        // "This can either be a numerical or named port on a pod": on the one that is connected
        // to. Of several of one name the first counts, as for a Service.
        let named = |name: &str| {
            let (pod, _) = self.pod_at(connection.to)?;
            named_ports(pod)
                .find_map(|(known, port, of)| (known == name && of == protocol).then_some(port))
        };
        matching::port(entry, connection.port, named)
    }

    /// Every namespace has its name as a label ("The Kubernetes control plane sets an immutable
    /// label kubernetes.io/metadata.name on all namespaces", Network Policies), whether a manifest
    /// gives it others or not.
    fn namespace_labels(&self, name: &str) -> BTreeMap<String, String> {
        let manifest = self
            .namespaces
            .iter()
            .find(|namespace| namespace.metadata.name.as_deref() == Some(name));
        let mut labels = manifest
            .map(|namespace| labels(&namespace.metadata).clone())
            .unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        labels
    }

    /// A Pod on the host's network speaks with the host's addresses: they can't be told apart.
    fn is_host(&self, address: IpAddr) -> bool {
        self.host.addresses.contains(&address)
            || self
                .pods
                .iter()
                .any(|(pod, addresses)| on_host_network(pod) && addresses.contains(&address))
    }

    /// Whose an address is; the first that states it.
    fn pod_at(&self, address: IpAddr) -> Option<&(Pod, Vec<IpAddr>)> {
        if self.is_host(address) {
            return None;
        }
        self.pods
            .iter()
            .find(|(pod, addresses)| !on_host_network(pod) && addresses.contains(&address))
    }
}

impl<'c> Standing<'c> {
    /// By what sets of policies, none of them empty, allow.
    pub fn answer(&self, allow: impl Fn(&[&'c NetworkPolicy]) -> bool) -> Answer {
        let Self::Selected { in_force, audited } = self else {
            return Answer::Passes;
        };
        let denies = |policies: &Vec<_>| !policies.is_empty() && !allow(policies);
        if denies(in_force) {
            Answer::Dropped
        } else if audited.iter().any(denies) {
            Answer::Reported
        } else {
            Answer::Passes
        }
    }
}

type Meta = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// "default" where none is stated, as kubectl has it.
pub fn namespace(metadata: &Meta) -> &str {
    match metadata.namespace.as_deref() {
        None | Some("") => "default",
        Some(name) => name,
    }
}

fn labels(metadata: &Meta) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    metadata.labels.as_ref().unwrap_or(&NONE)
}

/// "Policies that contain an egress section are assumed to affect egress, and all policies
/// (whether or not they contain an ingress section) are assumed to affect ingress", where
/// `policyTypes` is not specified; an empty list is no section (the API server's defaulting
/// counts the rules).
pub fn affects(policy: &NetworkPolicy, direction: Direction) -> bool {
    let spec = policy.spec.as_ref();
    let types = spec.and_then(|spec| spec.policy_types.as_deref());
    let types = types.unwrap_or_default();
    if types.is_empty() {
        return direction == Direction::Ingress || !rules(policy, direction).is_empty();
    }
    let name = match direction {
        Direction::Ingress => "Ingress",
        Direction::Egress => "Egress",
    };
    types.iter().any(|one| one == name)
}

/// "podSelector selects the pods to which this NetworkPolicy object applies. […] An empty
/// podSelector matches all pods in this namespace." It is no pointer in the API: left out, it is
/// empty.
fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    let spec = policy.spec.as_ref();
    let selector = spec.and_then(|spec| spec.pod_selector.as_ref());
    namespace(&policy.metadata) == namespace(&pod.metadata)
        && selector.is_none_or(|selector| matching::selects(selector, labels(&pod.metadata)))
}

/// Peers and ports of each rule of a direction; empty and missing lists are one.
pub fn rules(
    policy: &NetworkPolicy,
    direction: Direction,
) -> Vec<(&[NetworkPolicyPeer], &[NetworkPolicyPort])> {
    let Some(spec) = &policy.spec else {
        return Vec::new();
    };
    match direction {
        Direction::Ingress => spec
            .ingress
            .iter()
            .flatten()
            .map(|rule| {
                (
                    rule.from.as_deref().unwrap_or_default(),
                    rule.ports.as_deref().unwrap_or_default(),
                )
            })
            .collect(),
        Direction::Egress => spec
            .egress
            .iter()
            .flatten()
            .map(|rule| {
                (
                    rule.to.as_deref().unwrap_or_default(),
                    rule.ports.as_deref().unwrap_or_default(),
                )
            })
            .collect(),
    }
}

/// `netpold.io/external: "true"`: a peer elsewhere.
pub fn is_external(pod: &Pod) -> bool {
    is_annotated(&pod.metadata, "netpold.io/external", "true")
}

/// `netpold.io/mode: audit`
fn is_audited(metadata: &Meta) -> bool {
    is_annotated(metadata, "netpold.io/mode", "audit")
}

fn is_annotated(metadata: &Meta, key: &str, value: &str) -> bool {
    let mut annotations = metadata.annotations.iter().flatten();
    annotations.any(|(one, text)| one == key && text == value)
}

/// "Host networking requested for this pod. Use the host's network namespace."
pub fn on_host_network(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    !is_external(pod) && spec.and_then(|spec| spec.host_network) == Some(true)
}

/// `status.podIP` and `status.podIPs`.
pub fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let status = pod.status.clone().unwrap_or_default();
    let more = status.pod_ips.unwrap_or_default();
    let mut found = Vec::new();
    for text in status
        .pod_ip
        .into_iter()
        .chain(more.into_iter().map(|one| one.ip))
    {
        let address = text.parse().ok().filter(|one| !found.contains(one));
        found.extend(address);
    }
    found
}

/// Name, number and protocol of every port that has a name. "Protocol for port. Must be UDP, TCP,
/// or SCTP. Defaults to "TCP"."
pub fn named_ports(pod: &Pod) -> impl Iterator<Item = (&str, u16, &str)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports.filter_map(|port| {
        let protocol = port.protocol.as_deref().unwrap_or_default();
        Some((
            port.name.as_deref().filter(|name| !name.is_empty())?,
            u16::try_from(port.container_port).ok()?,
            if protocol.is_empty() { "TCP" } else { protocol },
        ))
    })
}
