//! What is to be said about one state: the API's status, the line for systemd, and what is new
//! for the log. Pure, but for the log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use netpol_abi::limits::FIRST_LOOPBACK;
use netpol_abi::tables::{NOT_ISOLATED, endpoint_flags};
use netpol_engine::evaluate::{EndpointSpec, evaluate};
use netpol_engine::policy::{Mode, ObjectName, Protocol};
use netpol_engine::resolver;
use netpol_engine::world::Place;

use super::assemble::{self, AskedFromHost, Desired, ENDED};
use super::control::Applied;
use super::gate::GateController;
use super::observed::Observed;
use super::program::Program;
use crate::api::wire::{
    Conflict, DatapathStatus, EndpointStatus, HealthItem, InterfaceStatus, Isolated, PolicyStatus,
    Problem, Rejected, RuntimeStatus, Status, TableStatus, Unidentified, Unprotected, Unreached,
};
use crate::datapath::is_inside;
use crate::datapath::tables::Fill;
use crate::health;
use crate::printable::printable;
use crate::store::rule;

/// How policy is enforced, as `netpol status` shows it.
#[derive(Clone, Debug, Default)]
pub struct EnforcementInfo {
    /// `tcx` or `clsact`.
    pub attach: &'static str,
    /// `enforce` or `audit`.
    pub mode: &'static str,
    /// What the kernel lacks, and what that means.
    pub lacks: Vec<String>,
}

/// Files that are not in force as they stand.
pub fn rejected(observed: &Observed) -> Vec<Rejected> {
    observed
        .store
        .rejected
        .iter()
        .map(|rejected| Rejected {
            file: PathBuf::from(&rejected.path),
            previous_in_force: rejected.in_force,
            diagnostics: rejected.diagnostics.iter().map(Problem::from).collect(),
        })
        .collect()
}

/// What a status tells of.
pub struct StatusInput<'a> {
    /// What there is.
    pub observed: &'a Observed,
    /// What follows from it.
    pub desired: &'a Desired,
    /// What is in force.
    pub applied: &'a Applied,
    /// Where the programs are.
    pub programs: &'a BTreeMap<u32, Program>,
    /// Why enforcement would end with the daemon.
    pub unpinned: Option<&'a str>,
    /// Why the register can't be saved.
    pub unsaved: Option<&'a str>,
    /// How policy is enforced.
    pub info: &'a EnforcementInfo,
    /// How full the tables of connections are.
    pub connections: &'a [Fill],
    /// The gate.
    pub gate: &'a GateController,
    /// Interfaces that lead to containers, and that no policy reaches.
    pub unreached: Vec<Unreached>,
}

/// What `netpol status` shows.
pub fn status(input: &StatusInput<'_>) -> Status {
    let StatusInput {
        observed,
        desired,
        applied: in_force,
        programs,
        gate,
        ..
    } = input;
    let endpoints = endpoints(desired, in_force, programs);
    let mut selects: BTreeMap<&ObjectName, usize> = BTreeMap::new();
    for endpoint in &endpoints {
        for policy in &endpoint.policies {
            *selects.entry(policy).or_default() += 1;
        }
    }
    let policies = in_force
        .world
        .policies
        .iter()
        .map(|(name, policy)| PolicyStatus {
            name: name.clone(),
            mode: mode(in_force.world.enforces(policy)),
            file: desired
                .origins
                .policies
                .get(name)
                .and_then(|origin| origin.file.clone()),
            selects: selects.get(name).copied().unwrap_or(0),
        })
        .collect();
    let mut unprotected = unprotected(desired, programs);
    unprotected.extend(unseen_questions(desired, in_force, programs, &endpoints));
    // As endpoints are: by name, and not by IDs, which change with each container.
    unprotected.sort_by(|one, other| one.container.cmp(&other.container));
    let problems = own_problems(input);
    let warnings = problems.iter().map(in_words).collect();
    let tables = in_force
        .fill
        .iter()
        .chain(input.connections)
        .map(|fill| TableStatus {
            name: fill.table.to_owned(),
            used: u64::from(fill.entries),
            limit: u64::from(fill.limit),
        })
        .collect();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        policies,
        audited_namespaces: in_force.world.audited.iter().cloned().collect(),
        endpoints,
        rejected: rejected(observed),
        unprotected,
        unidentified: told(&desired.unidentified),
        unreached: input.unreached.clone(),
        conflicts: told(&desired.conflicts),
        runtimes: runtimes(observed),
        tables,
        datapath: DatapathStatus {
            attach: input.info.attach.to_owned(),
            generation: in_force.generation,
            mode: input.info.mode.to_owned(),
            lacks: input.info.lacks.clone(),
        },
        gate: gate.status(),
        hiding_rules: desired.hiding.clone(),
        warnings,
        problems,
    }
}

/// As `warnings` and the log have it.
fn in_words(item: &HealthItem) -> String {
    let is_alone = item.code == health::MANIFESTS.code || item.code == health::NOTE.code;
    if is_alone {
        return item.text.clone();
    }
    format!("{}: {}", item.subject, item.text)
}

/// What the other fields of a status do not say.
fn own_problems(input: &StatusInput<'_>) -> Vec<HealthItem> {
    let StatusInput {
        observed,
        desired,
        applied: in_force,
        programs,
        gate,
        ..
    } = input;
    let mut all = Vec::new();
    if let Some(failure) = &in_force.failure {
        all.push(health::NOT_IN_FORCE.about(
            "not in force",
            failure,
            "what was in force before stays; `netpol status` shows how full the tables are, [datapath] sizes them",
        ));
    }
    if let Some(why) = input.unpinned {
        all.push(health::NOT_PINNED.about(
            "not pinned, so that enforcement would end with the daemon",
            why,
            "mount the BPF file system (`mount -t bpf bpf /sys/fs/bpf`), then `systemctl reload netpold`",
        ));
    }
    let saved = "make room there, and let netpold write there: a restart needs it";
    let unsaved = in_force.unkept_key.iter().map(String::as_str);
    all.extend(
        unsaved
            .chain(input.unsaved)
            .map(|why| health::NOT_SAVED.about("the state directory", why, saved)),
    );
    for (ifindex, program) in *programs {
        if let Program::Failed(why) = program {
            let subject = match desired.inside.get(ifindex) {
                Some(child) => format!("interface `{}` inside a container", child.name),
                None => match desired.interface_names.get(ifindex) {
                    Some(name) => format!("interface {name}"),
                    None => format!("interface {ifindex}"),
                },
            };
            all.push(health::PROGRAMS_MISSING.about(
                subject,
                format!("not enforced: {why}"),
                "netpold tries again; `netpol doctor` checks what it needs",
            ));
        }
    }
    all.extend(gate.warning().map(|why| {
        health::GATE.about(
            "the gate",
            why,
            "`netpol gate install`, or `[gate] enabled = false` where there is to be none",
        )
    }));
    all.extend(desired.hiding.iter().map(|rule| {
        health::NAT.about(
            format!("the NAT rule `{rule}`"),
            "may replace the address of senders beyond this host on the way to containers: policy sees the new address \
             alone (an `ipBlock` of it lets all of them in), and does not take them for the host",
            "keep the senders' addresses (no MASQUERADE or SNAT towards containers' networks), or judge them before this host",
        )
    }));
    all.extend(
        desired
            .warnings
            .iter()
            .map(|warning| health::NOTE.about("", warning, "correct the label or the manifest")),
    );
    all.extend(observed.store.warnings.iter().map(|found| {
        let help = found.help.clone().unwrap_or_default();
        let code = match found.rule == rule::NOT_SAVED {
            true => health::NOT_SAVED,
            false => health::MANIFESTS,
        };
        code.about(&found.path, found.to_string(), help)
    }));
    all
}

/// As `netpol status` shows them.
fn told<T: Clone, S: From<T>>(found: &[T]) -> Vec<S> {
    found.iter().cloned().map(S::from).collect()
}

impl From<assemble::Unprotected> for Unprotected {
    fn from(found: assemble::Unprotected) -> Self {
        Self {
            container: found.container,
            reason: found.reason,
        }
    }
}

impl From<assemble::Unidentified> for Unidentified {
    fn from(found: assemble::Unidentified) -> Self {
        Self {
            interface: found.interface,
            ifindex: found.ifindex,
            reason: found.reason,
            since: None,
        }
    }
}

impl From<assemble::Conflict> for Conflict {
    fn from(found: assemble::Conflict) -> Self {
        Self {
            address: found.address,
            holder: found.holder,
            other: found.other,
        }
    }
}

const fn mode(enforced: bool) -> Mode {
    if enforced { Mode::Enforce } else { Mode::Audit }
}

fn endpoints(
    desired: &Desired,
    in_force: &Applied,
    programs: &BTreeMap<u32, Program>,
) -> Vec<EndpointStatus> {
    let mut endpoints = Vec::new();
    for (name, pod) in &in_force.world.pods {
        let Place::Attached(attached) = &pod.place else {
            continue;
        };
        let entry = in_force
            .endpoints
            .get(&attached.slot)
            .copied()
            .unwrap_or_default();
        // Those that are only audited are among them.
        let policies: BTreeSet<&ObjectName> = [entry.audited_ingress, entry.audited_egress]
            .iter()
            .filter_map(|policy_set| in_force.names.policy_sets.get(policy_set))
            .flat_map(|policy_set| &policy_set.policies)
            .collect();
        let isolated =
            |policy_set| policy_set != NOT_ISOLATED && entry.flags & endpoint_flags::AUDIT == 0;
        endpoints.push(EndpointStatus {
            name: name.name.clone(),
            namespace: name.namespace.clone(),
            id: attached.id,
            slot: attached.slot,
            netns: desired.namespaces.get(name).cloned(),
            interfaces: attached
                .interfaces
                .keys()
                .map(|ifindex| InterfaceStatus {
                    name: desired
                        .interface_names
                        .get(ifindex)
                        .cloned()
                        .unwrap_or_default(),
                    ifindex: index(desired, *ifindex),
                    inside: desired
                        .inside
                        .get(ifindex)
                        .map(|child| child.kind.to_owned()),
                    attached: programs.get(ifindex) == Some(&Program::On),
                })
                .collect(),
            addresses: pod.addresses.iter().copied().collect(),
            isolated: Isolated {
                ingress: isolated(entry.ingress),
                egress: isolated(entry.egress),
            },
            policies: policies.into_iter().cloned().collect(),
        });
    }
    endpoints
}

/// Containers that no policy reaches. No gate shuts what leaves by an interface inside, so one that did not get
/// its programs is open.
fn unprotected(desired: &Desired, programs: &BTreeMap<u32, Program>) -> Vec<Unprotected> {
    let mut unprotected = told(&desired.unprotected);
    // On a loopback interface only questions are judged, which are told of by themselves.
    for (number, child) in desired.inside.range(..FIRST_LOOPBACK) {
        let Some(Program::Failed(why)) = programs.get(number) else {
            continue;
        };
        if let Some(Some(owner)) = desired.interfaces.get(number) {
            unprotected.push(Unprotected {
                container: owner.to_string(),
                reason: format!(
                    "the programs could not be put on its interface `{}`: {why}",
                    child.name
                ),
            });
        }
    }
    unprotected
}

/// Containers that may not ask the resolvers, and can do so all the same: their engine asks from the host's network
/// namespace, and no program sees, or is sure to see, what they ask it.
fn unseen_questions(
    desired: &Desired,
    in_force: &Applied,
    programs: &BTreeMap<u32, Program>,
    endpoints: &[EndpointStatus],
) -> Vec<Unprotected> {
    let isolated = endpoints.iter().filter(|one| one.isolated.egress);
    let mut found = Vec::new();
    for endpoint in isolated {
        let name = ObjectName::new(&endpoint.namespace, &endpoint.name);
        let Some(asked) = desired.asked_from_host.get(&name) else {
            continue;
        };
        let Some(why) = unseen(asked, programs).filter(|_| !may_ask(in_force, &name, asked)) else {
            continue;
        };
        found.push(Unprotected {
            container: name.to_string(),
            reason: format!(
                "it can resolve names past its egress policy, through its engine, which asks from the host's network: \
                 {why}. Or give it a resolver of its own (docker run --dns, Compose `dns:`), or allow it \
                 kube-system/kube-dns on 53/UDP"
            ),
        });
    }
    found
}

/// Why a container's questions may get to its engine without a verdict; `None`: they don't, or soon won't.
pub fn unseen(asked: &AskedFromHost, programs: &BTreeMap<u32, Program>) -> Option<String> {
    match asked.loopback.map(|number| programs.get(&number)) {
        None => Some("no path leads to its network namespace, where a program would see them".to_owned()),
        Some(Some(Program::Failed(why))) => {
            Some(format!("the program could not be put on its interface `lo`: {why}"))
        }
        Some(_) if asked.net_admin => Some(
            "it has NET_ADMIN in its own network namespace, and can get around the program on its interface `lo`: drop it \
             (`--cap-drop NET_ADMIN`)"
                .to_owned(),
        ),
        Some(_) => None,
    }
}

/// May it ask by its policies? Then names are no secret to it.
fn may_ask(in_force: &Applied, name: &ObjectName, asked: &AskedFromHost) -> bool {
    let addresses = asked.resolvers.iter().copied().map(EndpointSpec::Address);
    let mut resolvers = std::iter::once(EndpointSpec::Pod(resolver::name())).chain(addresses);
    let from = EndpointSpec::Pod(name.clone());
    resolvers.any(|resolver| {
        evaluate(&in_force.world, &from, &resolver, Protocol::Udp, 53)
            .is_ok_and(|verdict| verdict.egress.allowed)
    })
}

/// The index of an interface in the namespace that it is in; 0: it is inside one, and not found yet.
fn index(desired: &Desired, number: u32) -> u32 {
    match desired.inside.get(&number) {
        Some(child) => child.within.location.ifindex,
        None if is_inside(number) => 0,
        None => number,
    }
}

fn runtimes(observed: &Observed) -> Vec<RuntimeStatus> {
    observed
        .engines()
        // Where none is expected and none is there, there is nothing to say.
        .filter(|engine| engine.may_have_containers())
        .map(|engine| RuntimeStatus {
            name: engine.runtime.name().to_owned(),
            socket: engine.path.clone(),
            connected: engine.snapshot.connected,
            error: engine.snapshot.error.clone(),
        })
        .collect()
}

/// One line for `systemctl status`.
pub fn line(status: &Status) -> String {
    let of_mode = |mode| {
        let policies = status.policies.iter();
        policies.filter(|policy| policy.mode == mode).count()
    };
    let mut parts = vec![
        format!("{} policies in force", of_mode(Mode::Enforce)),
        format!("{} endpoints", status.endpoints.len()),
    ];
    for (number, what) in [
        (of_mode(Mode::Audit), "policies only audited"),
        (status.rejected.len(), "files rejected"),
        (status.unprotected.len(), "containers unprotected"),
        (status.unidentified.len(), "interfaces unidentified"),
        (status.unreached.len(), "interfaces out of policy's reach"),
        (status.warnings.len(), "warnings"),
    ] {
        if number > 0 {
            parts.push(format!("{number} {what}"));
        }
    }
    parts.join(", ")
}

/// Says what is new; what the store says of files, it says itself.
pub fn log(before: &Status, after: &Status) {
    let policies = |status: &Status| -> BTreeMap<ObjectName, Mode> {
        let policies = status.policies.iter();
        policies
            .map(|policy| (policy.name.clone(), policy.mode))
            .collect()
    };
    let (old, new) = (policies(before), policies(after));
    for (name, mode) in &new {
        match mode {
            _ if old.get(name) == Some(mode) => {}
            Mode::Enforce => tracing::info!(policy = %name, "the policy is in force"),
            Mode::Audit => {
                tracing::info!(policy = %name, "the policy is only audited: it drops nothing");
            }
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(name)) {
        tracing::info!(policy = %name, "the policy is no longer in force");
    }
    let ids =
        |status: &Status| -> BTreeSet<u32> { status.endpoints.iter().map(|one| one.id).collect() };
    let (old, new) = (ids(before), ids(after));
    for endpoint in &after.endpoints {
        if !old.contains(&endpoint.id) {
            let interfaces: Vec<&str> = endpoint
                .interfaces
                .iter()
                .map(|interface| interface.name.as_str())
                .collect();
            tracing::info!(
                endpoint = %shown(endpoint),
                interfaces = %printable(&interfaces.join(", ")),
                "the endpoint is identified"
            );
        }
    }
    for endpoint in &before.endpoints {
        if !new.contains(&endpoint.id) {
            tracing::info!(endpoint = %shown(endpoint), "the endpoint is gone");
        }
    }
    for one in added(&before.unprotected, &after.unprotected) {
        tracing::warn!(
            container = %printable(&one.container),
            reason = %printable(&one.reason),
            "the container is not protected"
        );
    }
    for one in added(&before.unidentified, &after.unidentified) {
        if one.reason == ENDED {
            tracing::debug!(interface = %printable(&one.interface), reason = ENDED, "the interface is on hold");
            continue;
        }
        tracing::info!(
            interface = %printable(&one.interface),
            reason = %one.reason,
            "the interface is on hold"
        );
    }
    for one in unreached(before, after) {
        tracing::warn!(
            interface = %printable(&one.interface),
            bridge = %printable(one.bridge.as_deref().unwrap_or("none")),
            leads_to = %printable(one.leads_to.as_deref().unwrap_or("unknown")),
            traffic = one.traffic(),
            "no policy reaches the interface: {}\nhelp: {}",
            printable(&one.reason),
            printable(&one.help)
        );
    }
    for one in added(&before.conflicts, &after.conflicts) {
        tracing::warn!(
            address = %one.address,
            holder = %printable(&one.holder.to_string()),
            other = %printable(&one.other.to_string()),
            "the address belongs to its holder, and the other can't use it"
        );
    }
    for one in added(&before.warnings, &after.warnings) {
        tracing::warn!("{}", printable(one));
    }
    // Every alarm has an all-clear.
    for one in added(&after.unprotected, &before.unprotected) {
        tracing::info!(
            container = %printable(&one.container),
            reason = %printable(&one.reason),
            "no longer: the container is not protected"
        );
    }
    for one in unreached(after, before) {
        tracing::info!(
            interface = %printable(&one.interface),
            "no longer: no policy reaches the interface"
        );
    }
    for one in added(&after.conflicts, &before.conflicts) {
        tracing::info!(
            address = %one.address,
            holder = %printable(&one.holder.to_string()),
            other = %printable(&one.other.to_string()),
            "no longer: the address is claimed by two"
        );
    }
    for one in added(&after.warnings, &before.warnings) {
        tracing::info!("no longer: {}", printable(one));
    }
}

fn shown(endpoint: &EndpointStatus) -> String {
    printable(&format!("{}/{}", endpoint.namespace, endpoint.name)).into_owned()
}

/// Interfaces that no policy reaches only now. What is known of one may change meanwhile, and is not said again.
fn unreached<'a>(before: &'a Status, after: &'a Status) -> impl Iterator<Item = &'a Unreached> {
    let is = |one: &Unreached| (one.ifindex, one.interface.clone(), one.passes);
    let known: BTreeSet<_> = before.unreached.iter().map(is).collect();
    after
        .unreached
        .iter()
        .filter(move |one| !known.contains(&is(one)))
}

fn added<'a, T: PartialEq>(before: &'a [T], after: &'a [T]) -> impl Iterator<Item = &'a T> {
    after.iter().filter(|one| !before.contains(one))
}
