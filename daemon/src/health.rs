//! What is wrong with a host, as values: each problem with a code, how bad it is, what it is about, and what to do. Pure, but for the clock.
//!
//! The daemon knows some problems by itself ([`Status::problems`] as it is published); what follows from the other fields of a
//! status, and from how long something has been so, is added here when a status is asked for ([`complete`]).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use netpol_engine::policy::Mode;

use crate::api::wire::{HealthItem, Severity, Status};

/// How long an interface may be unidentified before it is a problem: a slow engine takes seconds for a start.
pub const MOST_UNIDENTIFIED: Duration = Duration::from_secs(30);

/// A code, and whether `netpol status` exits with 1 where there is such a problem.
pub struct Code {
    /// As `problems[].code` has it.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it says.
    pub meaning: &'static str,
}

macro_rules! codes {
    ($($name:ident = $severity:ident $code:literal: $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $name: Code = Code {
                code: $code,
                severity: Severity::$severity,
                meaning: $meaning,
            };
        )*
        /// All of them.
        pub const CODES: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    NO_DAEMON = Error "no-daemon": "netpold does not run, or does not answer";
    NOT_IN_FORCE = Error "not-in-force": "the newest policies could not be written to the kernel";
    PROGRAMS_MISSING = Error "programs-missing": "an interface could not get its programs";
    UNPROTECTED = Error "unprotected-container": "policy cannot reach the container, or the container can bypass it";
    UNREACHED = Error "unclaimed-interface": "no engine has claimed the interface of a container for ten seconds";
    UNIDENTIFIED = Error "unidentified-interface": "an interface has been unidentified for 30 seconds";
    REJECTED = Error "rejected-manifest": "a file is not in force as it stands";
    ENGINE_GONE = Error "engine-gone": "an engine that is followed does not answer";
    NOT_PINNED = Error "not-pinned": "enforcement would end with the daemon";
    NOT_SAVED = Error "state-not-saved": "what a restart needs cannot be saved";
    GATE = Warning "gate-not-kept": "the gate is not installed although it should be, or would not be restored";
    MANIFESTS = Warning "manifest-warning": "a manifest is in force, and something about it deserves a look";
    CONFLICT = Warning "address-conflict": "two endpoints claim one address";
    NAT = Warning "nat-hides-senders": "a NAT rule replaces the address of senders beyond this host";
    NOTE = Warning "container-warning": "something that a container or a Pod manifest says cannot be used as it stands";
    ENGINE_PARTLY = Warning "engine-answers-in-part": "an engine answers, and something of its answer cannot be used";
    AUDITED = Note "only-audited": "a policy or a Namespace is only audited";
}

impl Code {
    /// A problem with this code.
    pub fn about(
        &self,
        subject: impl Into<String>,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> HealthItem {
        HealthItem {
            code: self.code.to_owned(),
            severity: self.severity,
            subject: subject.into(),
            text: text.into(),
            remedy: remedy.into(),
        }
    }
}

/// The time now, as `since` of a status has it.
#[must_use]
pub fn seconds_since_1970() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map(|time| time.as_secs()).unwrap_or_default()
}

/// Adds the problems that follow from the other fields of a status, and sorts all of them: the worst come first. `now`: in
/// seconds since 1970.
pub fn complete(status: &mut Status, now: u64) {
    let mut all = std::mem::take(&mut status.problems);
    for rejected in &status.rejected {
        let file = rejected.file.display();
        let stands = match rejected.previous_in_force {
            true => "its last accepted version stays in force",
            false => "nothing of it is in force",
        };
        for problem in &rejected.diagnostics {
            let field = problem.field.as_ref();
            let field = field.map(|field| format!("{field}: ")).unwrap_or_default();
            all.push(REJECTED.about(
                file.to_string(),
                format!(
                    "line {}: {field}{}; {stands}",
                    problem.line, problem.message
                ),
                problem.help.clone().unwrap_or_else(|| {
                    format!("`netpol check {file}` shows the line; correct the file")
                }),
            ));
        }
        if rejected.diagnostics.is_empty() {
            all.push(REJECTED.about(
                file.to_string(),
                stands,
                format!("`netpol check {file}` says what is wrong"),
            ));
        }
    }
    all.extend(status.unprotected.iter().map(|found| {
        UNPROTECTED.about(
            &found.container,
            &found.reason,
            "docs/limits.md has what policy can reach, by kind of network",
        )
    }));
    all.extend(status.unreached.iter().map(|found| {
        let leads_to = found.leads_to.as_deref();
        let leads_to = leads_to.unwrap_or("no process that can be seen");
        let on = found.bridge.as_ref().map(|bridge| format!(" on {bridge}"));
        UNREACHED.about(
            format!("{}{}", found.interface, on.unwrap_or_default()),
            format!(
                "{}: {}; it leads to {leads_to}",
                found.traffic(),
                found.reason
            ),
            &found.help,
        )
    }));
    let is_old = |since: Option<u64>| {
        since.is_some_and(|since| now.saturating_sub(since) >= MOST_UNIDENTIFIED.as_secs())
    };
    let claimed_by_none: Vec<u32> = status.unreached.iter().map(|one| one.ifindex).collect();
    let unidentified = status.unidentified.iter();
    all.extend(
        unidentified
            .filter(|found| is_old(found.since) && !claimed_by_none.contains(&found.ifindex))
            .map(|found| {
                UNIDENTIFIED.about(
                    &found.interface,
                    format!("nothing passes: {}", found.reason),
                    "is the engine busy or stopped? if its container has ended, remove the interface (`ip link del`)",
                )
            }),
    );
    for runtime in &status.runtimes {
        let subject = match runtime.socket.as_os_str().is_empty() {
            true => runtime.name.clone(),
            false => format!("{} at {}", runtime.name, runtime.socket.display()),
        };
        match (runtime.connected, &runtime.error) {
            (true, None) => {}
            (true, Some(error)) => all.push(ENGINE_PARTLY.about(
                subject,
                error,
                "the containers that it is about stay unidentified: their traffic is blocked",
            )),
            (false, error) => all.push(ENGINE_GONE.about(
                subject,
                format!(
                    "{}; containers that run stay protected, and new ones get no network",
                    error.as_deref().unwrap_or("it has not answered yet")
                ),
                format!(
                    "`systemctl status {}`; if it is gone for good, take it out of the configuration",
                    runtime.name
                ),
            )),
        }
    }
    all.extend(status.conflicts.iter().map(|found| {
        CONFLICT.about(
            found.address.to_string(),
            format!("{} has it, so {} cannot use it", found.holder, found.other),
            "give one of the two another address",
        )
    }));
    let audited = status.audited_namespaces.iter();
    all.extend(audited.map(|name| audited_item(format!("Namespace {name}"))));
    let policies = status.policies.iter().filter(|policy| {
        policy.mode == Mode::Audit && !status.audited_namespaces.contains(&policy.name.namespace)
    });
    all.extend(policies.map(|policy| audited_item(format!("NetworkPolicy {}", policy.name))));
    // Stable: among those that are as bad, the order is that of the codes above.
    all.sort_by_key(|item| {
        let place = CODES.iter().position(|code| code.code == item.code);
        (item.severity, place)
    });
    status.problems = all;
}

fn audited_item(subject: String) -> HealthItem {
    AUDITED.about(
        subject,
        "Only audited: what it would drop passes, and is reported",
        "remove the annotation `netpold.io/mode: audit` to enforce it",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::PathBuf;

    use super::*;
    use crate::api::wire::{Rejected, RuntimeStatus, Unidentified, Unprotected};

    fn codes(status: &Status, now: u64) -> Vec<String> {
        let mut status = status.clone();
        complete(&mut status, now);
        status.problems.into_iter().map(|item| item.code).collect()
    }

    #[test]
    fn the_worst_come_first_and_a_sound_host_has_none() {
        let mut status = Status {
            runtimes: vec![RuntimeStatus {
                name: "docker".to_owned(),
                connected: true,
                ..RuntimeStatus::default()
            }],
            ..Status::default()
        };
        assert!(codes(&status, 0).is_empty());
        status.audited_namespaces.push("shop".to_owned());
        status.runtimes[0].connected = false;
        status.problems.push(NAT.about("rule", "text", "remedy"));
        status.rejected.push(Rejected {
            file: PathBuf::from("/m/a.yaml"),
            ..Rejected::default()
        });
        status.unprotected.push(Unprotected::default());
        assert_eq!(
            codes(&status, 0),
            [
                "unprotected-container",
                "rejected-manifest",
                "engine-gone",
                "nat-hides-senders",
                "only-audited"
            ]
        );
    }

    #[test]
    fn an_interface_may_be_unidentified_for_half_a_minute() {
        let status = Status {
            unidentified: vec![Unidentified {
                interface: "veth0".to_owned(),
                ifindex: 3,
                since: Some(1000),
                ..Unidentified::default()
            }],
            ..Status::default()
        };
        assert!(codes(&status, 1029).is_empty());
        assert_eq!(codes(&status, 1030), ["unidentified-interface"]);
        // The clock was set back.
        assert!(codes(&status, 10).is_empty());
    }

    #[test]
    fn every_code_stands_once() {
        let mut all: Vec<&str> = CODES.iter().map(|code| code.code).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), CODES.len());
    }
}
