//! Why a connection is allowed or denied, as data: which policies isolate each side, rule by
//! rule what matched and which condition did not hold, what came closest, and the smallest
//! policy that would allow it.
//!
//! The verdict is [`evaluate`](crate::evaluate)'s, and so is every condition that is said to
//! hold or not: nothing is matched here a second time. What is added are hints (spelling,
//! cost), which decide nothing. Texts that others chose (labels, names) stand here as they
//! are; the code that prints them makes them safe. Ports are host order. Called by `netpol verdict`
//! and `explain`, and by the API.

mod answer;
mod fix;
mod missed;
mod nearest;
mod suggest;
mod yaml;

#[cfg(test)]
mod tests;

use netpol_abi::Reason;
use serde::Serialize;

pub use self::answer::{PeerAnswer, PolicyAnswer, PortAnswer, Reading, RuleAnswer};
pub use self::fix::{Change, Fix};
pub use self::missed::{Label, LabelMissed, Missed, NotAPod};
pub use self::nearest::Nearest;
pub use self::suggest::Suggestion;
use crate::evaluate::{self, Connection, End, EndpointSpec, EvaluateError, Policed};
use crate::policy::{Direction, Namespaces, ObjectName, Peer, Policy, Ports, Protocol, Rule, Tier};
use crate::world::World;

/// A verdict with its reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The end that opens the connection, as the question named it.
    #[serde(serialize_with = "as_text")]
    pub from: EndpointSpec,
    /// The destination, as the question named it.
    #[serde(serialize_with = "as_text")]
    pub to: EndpointSpec,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Destination port.
    pub port: u16,
    /// Both sides allow it, over the first family that both ends have.
    pub allowed: bool,
    /// What each family gets, where both ends have both. All else is about IPv4 then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub families: Option<Families>,
    /// What the source's policies say.
    pub egress: Side,
    /// What the destination's policies say.
    pub ingress: Side,
    /// What one should know besides.
    pub hints: Vec<Hint>,
}

/// May it be opened over each family?
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Families {
    /// Over IPv4.
    #[serde(rename = "IPv4")]
    pub v4: bool,
    /// Over IPv6; serialized it is as short as the other.
    #[serde(rename = "IPv6", serialize_with = "is_allowed")]
    pub v6: evaluate::Verdict,
}

/// One side of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// What it says. Its fields stand beside these: readers of a bare verdict find them there.
    #[serde(flatten)]
    pub verdict: evaluate::Side,
    /// What this end is.
    pub end: Standing,
    /// The Pod that it is: an address may be one's, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<ObjectName>,
    /// The policies that isolate it, or would if they were not only audited, in the order in which
    /// they are asked.
    pub policies: Vec<PolicyAnswer>,
    /// Policies that have a say in this direction and all but select it. Of those in other
    /// Namespaces a few.
    pub almost: Vec<AlmostSelects>,
    /// Where denied: the rule that came closest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Nearest>,
    /// Where denied: the smallest policy that allows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<Suggestion>,
}

/// What an end is to policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// A Pod that policies are enforced for.
    Pod,
    /// A Pod elsewhere: it has labels, and nothing is enforced for it.
    ExternalPod,
    /// The host, or a Pod on its network.
    Host,
    /// An address that no Pod here has.
    Stranger,
}

/// A policy that one condition keeps from selecting a Pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AlmostSelects {
    /// The policy.
    pub policy: ObjectName,
    /// What keeps it from that.
    pub missed: NotSelected,
    /// A rule of it that would match, were the Pod selected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
}

/// The one thing that keeps a policy from selecting a Pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum NotSelected {
    /// The one requirement of its `podSelector` that does not hold.
    Label(LabelMissed),
    /// Its `podSelector` fits, but it is in another Namespace, where it selects no Pod.
    Namespace {
        /// The policy's.
        namespace: String,
        /// The Pod's.
        wants_namespace: String,
    },
}

/// What one should know besides the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hint {
    /// The ends have no address family in common: whatever policy says, they don't meet.
    NoCommonFamily,
    /// Denied on port 53: names are looked up over UDP, and over TCP where an answer is long.
    ResolversNeedBoth,
    /// The source's egress is isolated and no rule is for 53/UDP: it can't look up names.
    NoDns,
    /// Policy decides about the host because `[host] ingress` says so.
    HostIngressSetting,
    /// Policy decides about the host because `[host] egress` says so.
    HostEgressSetting,
}

/// Policies of other Namespaces that are told of.
const MOST_ELSEWHERE: usize = 3;

/// The port of DNS.
const DNS: u16 = 53;

/// May `from` open a connection to `port` of `to`, and why?
///
/// # Examples
/// The policy of [`evaluate`](crate::evaluate::evaluate)'s example, asked about another port. What would allow the connection
/// comes with the answer:
///
/// ```
/// # use netpol_engine::manifest::{assemble, parse};
/// # let file = parse("shop.yaml", "
/// # {apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, status: {podIP: 10.0.0.1}}
/// # ---
/// # {apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}}, status: {podIP: 10.0.0.2}}
/// # ---
/// # apiVersion: networking.k8s.io/v1
/// # kind: NetworkPolicy
/// # metadata: {name: db, namespace: shop}
/// # spec:
/// #   podSelector: {matchLabels: {app: db}}
/// #   ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
/// # ");
/// # let world = assemble([&file]).world();
/// use netpol_engine::explain::explain;
/// use netpol_engine::policy::Protocol;
///
/// let [web, db] = ["shop/web".parse()?, "shop/db".parse()?];
/// let answer = explain(&world, &web, &db, Protocol::Tcp, 80)?;
/// assert!(!answer.allowed);
/// let suggestion = answer.ingress.suggestion.ok_or("a suggestion")?;
/// assert!(suggestion.yaml.contains("port: 80"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A Pod is not known.
pub fn explain(
    world: &World,
    from: &EndpointSpec,
    to: &EndpointSpec,
    protocol: Protocol,
    port: u16,
) -> Result<Explanation, EvaluateError> {
    let (source, destination) = (End::resolve(world, from)?, End::resolve(world, to)?);
    let behind = evaluate::behind(world, &source, &destination, protocol, port);
    let egress = Policed::new(world, source, Direction::Egress);
    let ingress = Policed::new(world, destination, Direction::Ingress);
    let case = Case {
        world,
        connection: Connection {
            settings: world.settings,
            from: &egress,
            to: &ingress,
            protocol,
            port,
        },
    };
    let verdict = case.connection.verdict();
    // Of a port that an engine publishes, the other side is the Pod behind it.
    let pod = behind.map(|(end, port)| (Policed::new(world, end, Direction::Ingress), port));
    let (verdict, of_ingress) = match &pod {
        Some((to, port)) => {
            let behind = Case {
                world,
                connection: Connection {
                    to,
                    port: *port,
                    ..case.connection
                },
            };
            let ingress = behind.connection.verdict().ingress;
            (
                verdict.with_ingress(ingress.clone()),
                behind.side(Direction::Ingress, ingress),
            )
        }
        None => {
            let ingress = case.side(Direction::Ingress, verdict.ingress.clone());
            (verdict, ingress)
        }
    };
    Ok(Explanation {
        from: from.clone(),
        to: to.clone(),
        protocol,
        port,
        allowed: verdict.allowed,
        families: case.connection.verdict_over_ipv6().map(|v6| Families {
            v4: verdict.allowed,
            v6,
        }),
        hints: case.hints(&verdict),
        egress: case.side(Direction::Egress, verdict.egress),
        ingress: of_ingress,
    })
}

/// A connection in its world.
struct Case<'a> {
    world: &'a World,
    connection: Connection<'a>,
}

impl Case<'_> {
    fn side(&self, direction: Direction, verdict: evaluate::Side) -> Side {
        let policed = self.connection.policed(direction);
        let question = self.connection.question(direction);
        let asked = self.connection.passes_unasked(direction).is_none();
        let policies: Vec<PolicyAnswer> = policed
            .selecting
            .iter()
            .map(|policy| PolicyAnswer::evaluate(self.world, &question, policy, asked))
            .collect();
        let almost = if is_asked(&verdict) || verdict.reason == Reason::NotIsolated {
            self.almost(direction)
        } else {
            Vec::new()
        };
        let suggestion = (!verdict.allowed)
            .then(|| Suggestion::find(self, direction, &verdict))
            .flatten();
        let nearest = (!verdict.allowed)
            .then(|| {
                let suggestion = suggestion.as_ref();
                Nearest::find(self, direction, &policies, &almost, &verdict, suggestion)
            })
            .flatten();
        Side {
            end: Standing::from_end(&policed.end),
            pod: policed.end.pod.map(|(name, _)| name.clone()),
            verdict,
            policies,
            almost,
            nearest,
            suggestion,
        }
    }

    /// The policies in force that would select the Pod, were it not for one requirement: a slip, or
    /// the only one of several that does not hold.
    fn almost(&self, direction: Direction) -> Vec<AlmostSelects> {
        let end = &self.connection.policed(direction).end;
        let question = self.connection.question(direction);
        let Some((name, pod)) = end.pod.filter(|(_, pod)| pod.is_enforced()) else {
            return Vec::new();
        };
        let policies = self.world.policies.values();
        let policies = policies.filter(|policy| self.world.enforces(policy));
        let by_label = policies
            .clone()
            .filter(|policy| policy.name.namespace == name.namespace)
            .filter_map(|policy| {
                let rules = policy.rules(direction)?;
                let mut unmet = policy.subject.unmet(&pod.labels);
                let missed = LabelMissed::compare(unmet.next()?, &pod.labels);
                let alone = unmet.next().is_none();
                let others = policy.subject.requirements().count() > 1;
                (alone && (others || missed.is_slip())).then(|| AlmostSelects {
                    policy: policy.name.clone(),
                    missed: NotSelected::Label(missed),
                    rule: rules.iter().position(|rule| question.matches(rule)),
                })
            });
        let by_namespace = policies
            .filter(|policy| {
                policy.tier == Tier::NetworkPolicy
                    && policy.name.namespace != name.namespace
                    && !policy.subject.is_everything()
                    && policy.subject.matches(&pod.labels)
            })
            .filter_map(|policy| {
                let rules = policy.rules(direction)?;
                let would_match = |rule: &Rule| question.matches(&moved(rule, &name.namespace));
                let rule = rules.iter().position(would_match)?;
                self.selects_no_pod(policy).then(|| AlmostSelects {
                    policy: policy.name.clone(),
                    missed: NotSelected::Namespace {
                        namespace: policy.name.namespace.clone(),
                        wants_namespace: name.namespace.clone(),
                    },
                    rule: Some(rule),
                })
            });
        by_label.chain(by_namespace.take(MOST_ELSEWHERE)).collect()
    }

    /// Does a policy select no Pod in its Namespace?
    fn selects_no_pod(&self, policy: &Policy) -> bool {
        let namespace = &policy.name.namespace;
        let mut pods = self
            .world
            .pods
            .range(ObjectName::new(namespace, "")..)
            .take_while(|(name, _)| name.namespace == *namespace);
        !pods.any(|(_, pod)| pod.is_enforced() && policy.subject.matches(&pod.labels))
    }

    fn hints(&self, verdict: &evaluate::Verdict) -> Vec<Hint> {
        let connection = &self.connection;
        let (from, to) = (&connection.from.end, &connection.to.end);
        let mut hints = Vec::new();
        if !from.is(to) {
            let (one, two) = evaluate::addresses(from, to);
            if let (Some(one), Some(two)) = (one, two)
                && one.is_ipv4() != two.is_ipv4()
            {
                hints.push(Hint::NoCommonFamily);
            }
        }
        let decides = |side: &evaluate::Side, peer: &End| {
            peer.host && side.isolated && side.reason != Reason::Itself && is_asked(side)
        };
        if decides(&verdict.egress, to) {
            hints.push(Hint::HostEgressSetting);
        }
        if decides(&verdict.ingress, from) {
            hints.push(Hint::HostIngressSetting);
        }
        let is_dns = connection.port == DNS && connection.protocol != Protocol::Sctp;
        if is_dns && !verdict.egress.allowed {
            hints.push(Hint::ResolversNeedBoth);
        } else if !is_dns && is_asked(&verdict.egress) && !may_ask_dns(&connection.from.policies) {
            hints.push(Hint::NoDns);
        }
        hints
    }
}

/// A rule as it would be in a policy of another Namespace: entries without a
/// `namespaceSelector` are for that one.
fn moved(rule: &Rule, namespace: &str) -> Rule {
    let mut rule = rule.clone();
    for peer in &mut rule.peers {
        if let Peer::Pods(pods) = peer
            && let Namespaces::Own(own) = &mut pods.namespaces
        {
            namespace.clone_into(own);
        }
    }
    rule
}

/// Is any rule asked, or is it decided before?
fn is_asked(side: &evaluate::Side) -> bool {
    side.isolated && !matches!(side.reason, Reason::Itself | Reason::Host)
}

/// Is some rule for 53/UDP? What a named port stands for depends on the destination: it may.
fn may_ask_dns(policies: &[&Policy]) -> bool {
    let rules = policies
        .iter()
        .flat_map(|policy| policy.rules(Direction::Egress).unwrap_or_default());
    rules.into_iter().any(|rule| {
        rule.ports.is_empty()
            || rule.ports.iter().any(|port| {
                port.protocol == Protocol::Udp
                    && match &port.ports {
                        Ports::All | Ports::Named(_) => true,
                        Ports::Range(first, last) => (*first..=*last).contains(&DNS),
                    }
            })
    })
}

impl Standing {
    fn from_end(end: &End) -> Self {
        match end.pod {
            Some((_, pod)) if pod.is_enforced() => Self::Pod,
            Some(_) => Self::ExternalPod,
            None if end.host => Self::Host,
            None => Self::Stranger,
        }
    }
}

fn is_allowed<S: serde::Serializer>(
    verdict: &evaluate::Verdict,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(verdict.allowed)
}

fn as_text<S: serde::Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
