//! The whole daemon beside a containerd of its own, with CNI's networks. Needs root, containerd,
//! the CNI plugins and busybox.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpol_engine::policy::Protocol;
use netpold::probe::{Outcome, Probe};
use netpold_tests::docker::Running;
use netpold_tests::{Containerd, Daemon, Lab, residue};
use serde_json::json;

const IDLE: [&str; 2] = ["sleep", "1000"];

/// A policy for `app: db` of the Namespace `shop`: only its `web` may, on 5432.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: shop}\n\
    spec:\n  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n  ingress:\n  \
    - from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: 5432}]\n";

/// A network of a bridge, and one of routed pairs.
fn plugins(kind: &str) -> serde_json::Value {
    let ipam = json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd88::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    });
    match kind {
        "bridge" => json!([{"type": kind, "bridge": "lab0", "isGateway": true, "ipam": ipam}]),
        _ => json!([{"type": kind, "ipam": ipam}]),
    }
}

fn labelled<'a>(labels: &'a [String], options: &[&'a str]) -> Vec<&'a str> {
    let labels = labels.iter().flat_map(|label| ["--label", label]);
    labels.chain(options.iter().copied()).collect()
}

/// A container of the Namespace `shop`, `app: NAME`.
fn service(containerd: &Containerd, name: &str, options: &[&str]) -> Result<Running> {
    let labels = [
        "netpold.io/namespace=shop".to_owned(),
        format!("app={name}"),
    ];
    let options = labelled(&labels, options);
    containerd.run("default", name, &options, &IDLE)
}

fn expect(
    daemon: &Daemon,
    (from, to): (&Running, &Running),
    port: u16,
    allowed: bool,
) -> Result<()> {
    for to_address in &to.addresses {
        let same_family = |own: &&std::net::IpAddr| own.is_ipv4() == to_address.is_ipv4();
        let source = from.addresses.iter().find(same_family);
        let probe = Probe {
            from: from.netns(),
            source: *source.context("no address of that family")?,
            to: Some(to.netns()),
            destination: SocketAddr::new(*to_address, port),
            protocol: Protocol::Tcp,
            timeout: Duration::from_millis(800),
        };
        let outcome = probe.run()?;
        ensure!(
            (outcome == Outcome::Reached) == allowed,
            "{} to {} {to_address} {port}: {outcome:?}, expected allowed: {allowed}\n{}\n{}",
            from.name,
            to.name,
            String::from_utf8_lossy(&daemon.netpol(&["status", "-o", "json"])?.stdout),
            daemon.log()
        );
    }
    ensure!(!to.addresses.is_empty(), "{} has no address", to.name);
    Ok(())
}

fn status(daemon: &Daemon) -> Result<serde_json::Value> {
    Ok(serde_json::from_slice(
        &daemon.netpol(&["status", "-o", "json"])?.stdout,
    )?)
}

fn names(daemon: &Daemon) -> Result<Vec<String>> {
    let status = status(daemon)?;
    let endpoints = status["endpoints"].as_array().context("no endpoints")?;
    let name = |one: &serde_json::Value| {
        Some(format!(
            "{}/{}",
            one["namespace"].as_str()?,
            one["name"].as_str()?
        ))
    };
    Ok(endpoints.iter().filter_map(name).collect())
}

fn follow(lab: &Lab, containerd: &Containerd) -> Result<Daemon> {
    let daemon = Daemon::prepare_following(lab, None, Some(&containerd.socket()), "")?;
    daemon.put("policy.yaml", POLICY)?;
    Ok(daemon)
}

fn labels_decide(kind: &str) -> Result<()> {
    let lab = Lab::new()?;
    let mut containerd = Containerd::start(&lab)?;
    containerd.network("lab", &plugins(kind))?;
    let db = service(&containerd, "db", &["--cni"])?;
    let mut daemon = follow(&lab, &containerd)?;
    daemon.launch()?;
    daemon.wait()?;
    let web = service(&containerd, "web", &["--cni"])?;
    let other = service(&containerd, "other", &["--cni"])?;
    daemon.wait()?;
    let enforced = |daemon: &Daemon| -> Result<()> {
        expect(daemon, (&web, &db), 5432, true)?;
        expect(daemon, (&web, &db), 5433, false)?;
        expect(daemon, (&other, &db), 5432, false)?;
        expect(daemon, (&db, &other), 5432, true)
    };
    enforced(&daemon)?;
    ensure!(
        names(&daemon)? == ["shop/db", "shop/other", "shop/web"],
        "{:?}",
        names(&daemon)?
    );

    containerd.kill()?;
    enforced(&daemon).context("containerd has ended")?;
    daemon.kill()?;
    daemon.launch()?;
    daemon.wait()?;
    enforced(&daemon).context("containerd and the daemon have ended")?;
    containerd.launch()?;
    daemon.wait()?;
    enforced(&daemon).context("containerd is back")?;
    let late = service(&containerd, "late", &["--cni"])?;
    daemon.wait()?;
    expect(&daemon, (&late, &db), 5432, false).context("made after containerd was back")?;
    expect(&daemon, (&db, &late), 5432, true)?;

    containerd.remove("default", "other")?;
    daemon.wait()?;
    ensure!(
        names(&daemon)? == ["shop/db", "shop/late", "shop/web"],
        "{:?}",
        names(&daemon)?
    );
    let name = lab.name.clone();
    drop((daemon, containerd, lab));
    residue::check(&name)
}

#[test]
fn labels_decide_on_a_bridge() -> Result<()> {
    labels_decide("bridge")
}

#[test]
fn labels_decide_between_routed_pairs() -> Result<()> {
    labels_decide("ptp")
}
