//! Thousands of changes of policy under traffic that every state allows and traffic that no
//! state does: as files, through the daemon, as fast as it takes them. That nothing was lost is
//! said by both ends and, to the packet, by the drops that the daemon counts. Needs root.

use std::fmt::Write as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpold_tests::daemon::WITH_METRICS;
use netpold_tests::load::{Load, under_load};
use netpold_tests::sockets::Rng;
use netpold_tests::{Daemon, Lab, residue};

/// Hosts side by side: a change mostly waits for running programs to end, and may do so while
/// another does.
const HOSTS: u64 = 8;
/// Changes on each.
const CHANGES: u64 = 300;

/// What the processors bear beside as many daemons.
const LIGHT: Load = Load {
    pace: Duration::from_millis(2),
    rest: Duration::from_millis(50),
};

/// Policies that allow the front alone on the port; all else about them is noise.
fn policies(noise: &mut Rng) -> String {
    let mut text = String::new();
    let front = "{namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}";
    policy(&mut text, noise, "db", "store", "ingress", front);
    // No policy or its own policy isolates the front's way out, and the store's own.
    if noise.word().is_multiple_of(2) {
        let store = "{namespaceSelector: {}, podSelector: {matchLabels: {app: store}}}";
        policy(&mut text, noise, "web", "front", "egress", store);
    }
    if noise.word().is_multiple_of(2) {
        text += "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
            metadata: {name: mute, namespace: db}\n\
            spec: {podSelector: {matchLabels: {app: store}}, policyTypes: [Egress]}\n";
    }
    text
}

fn policy(
    text: &mut String,
    noise: &mut Rng,
    namespace: &str,
    app: &str,
    direction: &str,
    peer: &str,
) {
    let (who, kind) = match direction {
        "ingress" => ("from", "Ingress"),
        _ => ("to", "Egress"),
    };
    let mut rules = Vec::new();
    for _ in 0..noise.word() % 4 {
        let port = 1 + noise.word() % 5000;
        let net = noise.word() % 256;
        rules.push(format!(
            "- {who}: [{{ipBlock: {{cidr: 198.51.{net}.0/24}}}}]\n    ports: [{{port: {port}}}]\n"
        ));
    }
    let ports = match noise.word() % 3 {
        0 => "{port: 5432}, {protocol: UDP, port: 5432}".to_owned(),
        1 => {
            let (first, last) = (5000 + noise.word() % 432, 5432 + noise.word() % 500);
            let range = format!("port: {first}, endPort: {last}");
            format!("{{{range}}}, {{protocol: UDP, {range}}}")
        }
        _ => {
            // More than fit beside the verdict: found in a block of their own.
            let many: Vec<String> = (0..8)
                .map(|_| format!("{{port: {}}}", 6000 + noise.word() % 500))
                .collect();
            format!(
                "{}, {{port: 5432}}, {{protocol: UDP, port: 5432}}",
                many.join(", ")
            )
        }
    };
    let place = noise.word() as usize % (rules.len() + 1);
    rules.insert(place, format!("- {who}: [{peer}]\n    ports: [{ports}]\n"));
    let _ = write!(
        text,
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {{name: {app}-{direction}, namespace: {namespace}}}\nspec:\n  \
         podSelector: {{matchLabels: {{app: {app}}}}}\n  policyTypes: [{kind}]\n  {direction}:\n  {}",
        rules.join("  ")
    );
}

/// Dropped packets by reason, as the daemon counts them.
fn dropped(daemon: &Daemon) -> Result<Vec<(String, u64)>> {
    let metrics = daemon.metrics()?.into_iter();
    Ok(metrics
        .filter(|(name, _)| {
            name.starts_with("netpold_packets_total") && name.contains("\"dropped\"")
        })
        .filter(|(_, packets)| *packets > 0)
        .collect())
}

fn commit(host: u64) -> Result<()> {
    let lab = Lab::with_pods(&["web/front", "db/store", "db/other"])?;
    let mut noise = Rng(host + 1);
    let first = policies(&mut noise);
    let daemon = Daemon::enforcing(&lab, &[("changed.yaml", &first)], WITH_METRICS)?;
    let mut generation = daemon.settle()?;
    let mut changes = 0;
    let before = dropped(&daemon)?;
    let said = under_load(&lab, LIGHT, || {
        while changes < CHANGES {
            daemon.put("changed.yaml", &policies(&mut noise))?;
            // Now and then chance writes the same once more.
            let next = daemon.settle()?;
            changes += u64::from(next != generation);
            generation = next;
        }
        Ok(())
    })
    .with_context(|| daemon.log())?;
    ensure!(before.is_empty(), "dropped before: {before:?}");
    let after = dropped(&daemon)?;
    let denied =
        "netpold_packets_total{reason=\"policy-denied\",direction=\"ingress\",verdict=\"dropped\"}";
    ensure!(
        after == [(denied.to_owned(), said.knocks)],
        "{} knocks, and dropped were {after:?}",
        said.knocks
    );
    println!("{changes} changes: {said:?}");
    let name = lab.name.clone();
    drop((daemon, lab));
    residue::check(&name)
}

#[test]
fn thousands_of_changes_lose_nothing_and_let_nothing_through() -> Result<()> {
    thread::scope(|scope| {
        let hosts: Vec<_> = (0..HOSTS)
            .map(|host| scope.spawn(move || commit(host)))
            .collect();
        for host in hosts {
            host.join().expect("a thread of the test panicked")?;
        }
        Ok(())
    })
}
