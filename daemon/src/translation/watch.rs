//! Reads the rules, and again when nftables tells of a change.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Rule, iptables, nft};
use crate::netlink::Message;
use crate::nftables::Events;

/// Subsystem of nfnetlink, in the upper byte of a message's type.
const NFTABLES: u16 = 10;
/// `NFT_MSG_NEWTABLE` to `NFT_MSG_DELRULE`: tables, chains and rules.
const LAST_OF_RULES: u16 = 8;
/// `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const FAMILIES: [u8; 3] = [1, 2, 10];

/// Changes come in bursts: an engine writes several rules for a container.
const SETTLES: Duration = Duration::from_secs(2);
/// A program that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of a text that is longer the rest is not read.
const LONGEST: usize = 16 << 20;

/// What there is, as it was read last.
pub struct Follower {
    rules: watch::Receiver<Vec<Rule>>,
}

/// Begins to follow the rules of the calling thread's network namespace. To be called inside a tokio runtime.
///
/// # Errors
/// The kernel gives no socket.
pub fn follow() -> io::Result<Follower> {
    let events = Events::open()?;
    let (publish, rules) = watch::channel(Vec::new());
    tokio::spawn(run(events, publish));
    Ok(Follower { rules })
}

impl Follower {
    /// Returns when other rules were read than before. Never, if nothing follows any more.
    pub async fn changed(&mut self) {
        if self.rules.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// The rules.
    pub fn rules(&mut self) -> Vec<Rule> {
        self.rules.borrow_and_update().clone()
    }
}

async fn run(mut events: Events, publish: watch::Sender<Vec<Rule>>) {
    loop {
        let rules = read().await;
        publish.send_if_modified(|before| {
            let is_other = *before != rules;
            if is_other {
                *before = rules;
            }
            is_other
        });
        if let Err(error) = events.until(concerns).await {
            tracing::warn!(%error, "changes of NAT rules can't be heard of: those that hide senders from containers are not reported from now on");
            return;
        }
        sleep(SETTLES).await;
        if publish.is_closed() {
            return;
        }
    }
}

/// All rules, sorted. What is not installed has none.
async fn read() -> Vec<Rule> {
    let mut rules = Vec::new();
    for program in ["iptables", "ip6tables"] {
        let save = format!("{program}-save");
        rules.extend(iptables::parse(
            program,
            &output(&save, &["-t", "nat"]).await,
        ));
    }
    // The legacy programs make the table where there is none.
    for (family, program) in [("ip", "iptables-legacy"), ("ip6", "ip6tables-legacy")] {
        let names = std::fs::read_to_string(format!("/proc/net/{family}_tables_names"));
        if names.is_ok_and(|names| names.lines().any(|name| name == "nat")) {
            let save = format!("{program}-save");
            rules.extend(iptables::parse(
                program,
                &output(&save, &["-t", "nat"]).await,
            ));
        }
    }
    match nft::parse(&output("nft", &["-j", "list", "ruleset"]).await) {
        Ok(found) => rules.extend(found),
        Err(error) => tracing::debug!(%error, "nft lists no ruleset"),
    }
    rules.sort();
    rules.dedup();
    rules
}

/// What a program writes; empty where it fails.
async fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    match timeout(PATIENCE, command.output()).await {
        Ok(Ok(output)) if output.status.success() && output.stdout.len() <= LONGEST => {
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        _ => String::new(),
    }
}

/// Is a table, chain or rule of IP other than before?
fn concerns(message: &Message<'_>) -> bool {
    let family = message.payload().first();
    message.message_type() >> 8 == NFTABLES
        && message.message_type() & 0xff <= LAST_OF_RULES
        && family.is_some_and(|family| FAMILIES.contains(family))
}
