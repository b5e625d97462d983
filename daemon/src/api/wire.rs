//! The JSON of the socket: what `curl` shows and the client reads.
//!
//! Fields are only ever added. A reader ignores those that it doesn't know, and
//! takes the default for those that an older daemon doesn't send.

use std::net::IpAddr;
use std::path::PathBuf;

use netpol_engine::diagnostic::Diagnostic;
use netpol_engine::policy::{Mode, ObjectName};
use netpol_engine::world::World;
use serde::{Deserialize, Serialize};

use crate::origin::Origins;

/// `/v1/world`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Listing {
    /// Everything that decides a verdict.
    pub world: World,
    /// Where its objects come from.
    #[serde(default)]
    pub origins: Origins,
}

/// `/v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// What is enforced.
    pub endpoints: Vec<EndpointStatus>,
    /// The policies, those that are only audited among them.
    pub policies: Vec<PolicyStatus>,
    /// Namespaces that are only audited.
    pub audited_namespaces: Vec<String>,
    /// Files that are not in force as they stand.
    pub rejected: Vec<Rejected>,
    /// Containers that no policy can reach, or that get around theirs.
    pub unprotected: Vec<Unprotected>,
    /// Interfaces whose container is not known yet.
    pub unidentified: Vec<Unidentified>,
    /// Interfaces that lead to containers, as far as can be told, and that no policy reaches: no engine has claimed them.
    pub unreached: Vec<Unreached>,
    /// Addresses that more than one endpoint claims.
    pub conflicts: Vec<Conflict>,
    /// The container runtimes.
    pub runtimes: Vec<RuntimeStatus>,
    /// How full the kernel's tables are.
    pub tables: Vec<TableStatus>,
    /// How it is enforced.
    pub datapath: DatapathStatus,
    /// What shuts interfaces that nothing is enforced at yet.
    pub gate: GateStatus,
    /// NAT rules of the host that may hide senders beyond the host from containers.
    pub hiding_rules: Vec<String>,
    /// Everything else that the operator should know, those rules included.
    pub warnings: Vec<String>,
    /// All that is wrong, the worst first, each with what to do.
    pub problems: Vec<HealthItem>,
}

impl Status {
    /// Is there something that makes `netpol status` answer 'no'? An older daemon says no problems.
    #[must_use]
    pub fn falls_short(&self) -> bool {
        let is_error = |item: &HealthItem| item.severity == Severity::Error;
        self.problems.iter().any(is_error)
            || !self.rejected.is_empty()
            || !self.unprotected.is_empty()
            || !self.unreached.is_empty()
    }
}

/// Something that is wrong, or a check of `netpol doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthItem {
    /// A stable code, for scripts.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: a file, a container, an interface, an engine.
    pub subject: String,
    /// What is wrong, and what that means.
    pub text: String,
    /// What to do.
    pub remedy: String,
}

/// How bad something is; the worst comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// What policy says is not enforced somewhere, or may not be after a restart.
    Error,
    /// It deserves a look.
    #[default]
    Warning,
    /// It is as the operator wants it, and must not be forgotten.
    Note,
    /// A check of `netpol doctor` that found nothing.
    Ok,
}

impl Severity {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
            Self::Ok => "ok",
        }
    }
}

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointStatus {
    /// Its name.
    pub name: String,
    /// Its Namespace.
    pub namespace: String,
    /// Its number.
    pub id: u32,
    /// Its slot.
    pub slot: u32,
    /// Its network namespace (`/run/netns/…`, `/proc/PID/ns/net`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// The host's ends of its veths.
    pub interfaces: Vec<InterfaceStatus>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The directions in which some policy in force selects it.
    pub isolated: Isolated,
    /// The policies that select it, those that are only audited among them.
    pub policies: Vec<ObjectName>,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterfaceStatus {
    /// Its name on the host, or inside.
    pub name: String,
    /// Its index there.
    pub ifindex: u32,
    /// `macvlan` or `ipvlan`: it has no end on the host, and its programs are inside the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inside: Option<String>,
    /// Both programs are in place.
    pub attached: bool,
}

/// Which directions are isolated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Isolated {
    /// Towards it.
    pub ingress: bool,
    /// From it.
    pub egress: bool,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Its name.
    pub name: ObjectName,
    /// The manifest it is in.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// How many endpoints it selects.
    #[serde(default)]
    pub selects: usize,
    /// Its own, or its Namespace's where that is audited.
    #[serde(default)]
    pub mode: Mode,
}

/// One file that is not in force as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rejected {
    /// The file's path.
    pub file: PathBuf,
    /// An older version of it is in force.
    pub previous_in_force: bool,
    /// What is wrong with it.
    pub diagnostics: Vec<Problem>,
}

/// A diagnostic, as `netpol check -o json` gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// Its column, from 1.
    pub column: usize,
    /// `error` or `warning`.
    pub severity: String,
    /// A stable code.
    pub rule: String,
    /// Kind of the object.
    pub kind: Option<String>,
    /// Namespace of the object.
    pub namespace: Option<String>,
    /// Name of the object.
    pub name: Option<String>,
    /// Path of the field.
    pub field: Option<String>,
    /// The problem, as `netpol check` prints it.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl From<&Diagnostic> for Problem {
    fn from(diagnostic: &Diagnostic) -> Self {
        Self {
            file: diagnostic.path.clone(),
            line: diagnostic.line,
            column: diagnostic.column,
            severity: diagnostic.severity.to_string(),
            rule: diagnostic.rule.to_owned(),
            kind: diagnostic.kind.clone(),
            namespace: diagnostic.namespace.clone(),
            name: diagnostic.name.clone(),
            field: diagnostic.field.clone(),
            message: diagnostic.message.clone(),
            help: diagnostic.help.clone(),
        }
    }
}

/// A container that can't be protected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unprotected {
    /// Its name.
    pub container: String,
    /// Why no policy reaches the container.
    pub reason: String,
}

/// An interface that no engine has claimed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unidentified {
    /// Its name on the host.
    pub interface: String,
    /// Its number.
    pub ifindex: u32,
    /// What is known about it.
    pub reason: String,
    /// Since when, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
}

/// An interface that no engine has claimed for longer than a container's start takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unreached {
    /// Its name on the host, or inside.
    pub interface: String,
    /// Its index there.
    pub ifindex: u32,
    /// The bridge that it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// The container in the network namespace that it leads to, as far as can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leads_to: Option<String>,
    /// Does all pass there, without a policy? Else nothing does.
    pub passes: bool,
    /// Why no engine has claimed it.
    pub reason: String,
    /// What to do.
    pub help: String,
}

impl Unreached {
    /// What becomes of packets there, in words.
    #[must_use]
    pub const fn traffic(&self) -> &'static str {
        if self.passes {
            "everything passes"
        } else {
            "nothing passes"
        }
    }
}

/// An address that two endpoints claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// The endpoint that has the address.
    pub holder: ObjectName,
    /// The endpoint that can't use the address.
    pub other: ObjectName,
}

/// One runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeStatus {
    /// What it speaks: `docker`, `containerd`.
    pub name: String,
    /// Its socket.
    pub socket: PathBuf,
    /// Does it answer?
    pub connected: bool,
    /// Why the engine does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One table of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableStatus {
    /// Its name.
    pub name: String,
    /// Entries in use.
    pub used: u64,
    /// Entries that fit.
    pub limit: u64,
}

/// How it is enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatapathStatus {
    /// `tcx` or `clsact`.
    pub attach: String,
    /// Counts the changes of policy.
    pub generation: u64,
    /// `enforce` or `audit`.
    pub mode: String,
    /// What the kernel lacks, and what is done instead.
    pub lacks: Vec<String>,
}

/// The gate: the rule set that shuts containers' interfaces until netpold's programs are on them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GateStatus {
    /// Is it there?
    pub installed: bool,
    /// Why there is no gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// How it tells containers' interfaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Interfaces that pass.
    pub ready: usize,
    /// Bridges that netpold has added to those that it knows by name.
    pub bridges: Vec<String>,
    /// Frames that it has dropped since it was installed.
    pub dropped: GateDrops,
}

/// Frames that the gate has dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GateDrops {
    /// From interfaces that were not ready.
    pub from: u64,
    /// To them.
    pub to: u64,
}

/// The reconcile loop's answer to a sync request: all that was there is in force,
/// but for what is rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Synced {
    /// The generation that is in force.
    pub generation: u64,
    /// Files that are not in force as they stand.
    pub rejected: Vec<Rejected>,
    /// What kept the rest from coming in force (tables full, no right); empty: nothing.
    pub failures: Vec<String>,
    /// What is in force and may not mean what it says, where no waiting client was told before.
    pub findings: Vec<Problem>,
}

/// `/v1/wait`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", content = "synced")]
pub enum Waited {
    /// Done; see what was rejected.
    Synced(Synced),
    /// Not within the time that was given.
    TimedOut,
}

/// `/v1/ready`: may what is in this network namespace start?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Readiness {
    /// All of it that policy can reach is in force.
    pub ready: bool,
    /// Whose it is, or why nothing is to be waited for, or what is missing.
    pub reason: String,
}

/// The body of every answer that is not 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error, in words.
    pub error: String,
}
