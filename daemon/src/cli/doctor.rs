//! `netpol doctor`: does this host have what netpold needs, and what else stands on the way of its packets?
//!
//! Each check looks at one thing and gives one or more items, with what to do. It needs no daemon: what the daemon knows by
//! itself is asked of it, where it answers. Nothing is changed.

mod engines;
mod host;

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;

use super::Exit;
use super::output::Form;
use super::status::write_item;
use crate::api::Client;
use crate::api::wire::{HealthItem, Severity};
use crate::config;
use crate::health;

/// Check this host: kernel, engines, and what else may drop packets
///
/// Each check says what it found and what to do. Without root, the kernel, its rules and its
/// programs can't be looked at, and that is said.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 1 where a check is an error.

Examples:
  sudo netpol doctor
  sudo netpol doctor -o json | jq -r '.checks[] | select(.severity != \"ok\") | .code'")]
pub struct Doctor {
    /// The daemon's configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    form: Form,
}

/// A check: its code, and what it looks at.
pub struct Check {
    /// As `checks[].code` has it.
    pub code: &'static str,
    /// What it looks at.
    pub what: &'static str,
}

/// All checks, in the order in which they are shown.
pub const CHECKS: &[Check] = &[
    CONFIGURATION,
    KERNEL,
    BPF_FILE_SYSTEM,
    NFT,
    GATE,
    ENGINES,
    NETWORKS,
    DAEMON,
    NAT,
    BRIDGE_FILTER,
    IPTABLES,
    PROXY,
    RESOLVERS,
    PROGRAMS,
    MAC_POLICY,
];

const CONFIGURATION: Check = check("configuration", "the configuration can be read");
const KERNEL: Check = check(
    "kernel",
    "the kernel has the features that the programs need",
);
const BPF_FILE_SYSTEM: Check = check(
    "bpf-file-system",
    "a BPF file system is mounted where programs and tables are pinned",
);
const NFT: Check = check("nft", "nft(8) is there, which installs the gate");
const GATE: Check = check(
    "gate",
    "the gate is installed, and the kernel can tell it bridges",
);
const ENGINES: Check = check("engines", "the engines that are followed answer");
const NETWORKS: Check = check(
    "engine-isolation",
    "engines' networks that keep their containers apart by themselves (ICC, internal)",
);
const DAEMON: Check = check("daemon", "netpold runs, and its status has no errors");
const NAT: Check = check(
    health::NAT.code,
    "NAT rules that replace the addresses of senders beyond this host",
);
const BRIDGE_FILTER: Check = check(
    "bridge-netfilter",
    "whether frames on bridges pass the host's own packet filter too (br_netfilter)",
);
const IPTABLES: Check = check("iptables", "which iptables the host has");
const PROXY: Check = check(
    "docker-proxy",
    "whether docker-proxy answers at published ports",
);
const RESOLVERS: Check = check("resolvers", "the resolvers that containers are given");
const PROGRAMS: Check = check(
    "other-programs",
    "other BPF programs on containers' interfaces, which may drop or redirect before netpold sees a packet",
);
const MAC_POLICY: Check = check(
    "mac-policy",
    "whether udev gives new interfaces another MAC address (MACAddressPolicy=persistent)",
);

const fn check(code: &'static str, what: &'static str) -> Check {
    Check { code, what }
}

impl Check {
    fn item(&self, severity: Severity, subject: &str, text: &str, remedy: &str) -> HealthItem {
        HealthItem {
            code: self.code.to_owned(),
            severity,
            subject: subject.to_owned(),
            text: text.to_owned(),
            remedy: remedy.to_owned(),
        }
    }

    fn ok(&self, subject: &str, text: &str) -> HealthItem {
        self.item(Severity::Ok, subject, text, "")
    }

    fn note(&self, subject: &str, text: &str, remedy: &str) -> HealthItem {
        self.item(Severity::Note, subject, text, remedy)
    }

    fn warning(&self, subject: &str, text: &str, remedy: &str) -> HealthItem {
        self.item(Severity::Warning, subject, text, remedy)
    }

    fn error(&self, subject: &str, text: &str, remedy: &str) -> HealthItem {
        self.item(Severity::Error, subject, text, remedy)
    }
}

#[derive(Serialize)]
struct Report {
    checks: Vec<HealthItem>,
}

impl Doctor {
    pub(super) fn run(&self, client: &Client, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let mut checks = Vec::new();
        let config = match config::load(self.config.as_deref()) {
            Ok(config) => {
                checks.push(CONFIGURATION.ok("", "it is valid"));
                config
            }
            Err(error) => {
                let remedy = "correct it: `netpold --check` shows each mistake; the checks below take the defaults";
                checks.push(CONFIGURATION.error("", &error.to_string(), remedy));
                config::Config::default()
            }
        };
        checks.extend(host::kernel());
        checks.extend(host::bpf_file_system(&config));
        checks.extend(host::nft(&config));
        checks.extend(host::gate(&config));
        checks.extend(super::wait_for(async {
            Ok::<_, std::convert::Infallible>(engines::all(&config).await)
        })?);
        checks.extend(daemon(client));
        checks.extend(host::bridge_filter());
        checks.extend(host::iptables());
        checks.extend(host::proxy());
        checks.extend(host::resolvers());
        checks.extend(host::programs());
        checks.extend(host::mac_policy());
        // The worst first, as in `netpol status`; else in the order of the list.
        checks.sort_by_key(|item| item.severity);
        let is_sound = checks.iter().all(|item| item.severity != Severity::Error);
        let report = Report { checks };
        if !self.form.output.value(out, &report)? {
            for item in &report.checks {
                write_item(out, item)?;
            }
        }
        Ok(Exit::answer(is_sound))
    }
}

/// What the daemon says of itself.
fn daemon(client: &Client) -> Vec<HealthItem> {
    let status = match super::wait_for(client.status()) {
        Ok(status) => status,
        Err(error) => {
            let text = error.to_string();
            let text = text.lines().next().unwrap_or_default();
            let remedy = "`systemctl start netpold`; `netpol status` says what is still enforced";
            return vec![DAEMON.error("", text, remedy)];
        }
    };
    let errors = status.problems.iter();
    let errors = errors
        .filter(|item| item.severity == Severity::Error)
        .count();
    let daemon = match errors {
        0 => DAEMON.ok("", "it runs, and its status has no errors"),
        count => DAEMON.error(
            "",
            &format!("it runs, and its status has {count} errors"),
            "`netpol status` shows each with what to do",
        ),
    };
    let mut all = vec![daemon];
    let is_of_nat = |item: &HealthItem| item.code == NAT.code;
    if status.problems.iter().any(is_of_nat) {
        all.extend(status.problems.into_iter().filter(is_of_nat));
    } else {
        all.push(NAT.ok("", "no rule hides senders"));
    }
    all
}
