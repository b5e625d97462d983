//! Sub-interfaces, without an end on the host: macvlan and ipvlan in each of their modes, enforced inside.
//!
//! ```text
//!  outside: wire0 10.78.0.1/16 ══ lan0 10.78.0.2/16 (host) ┬─ eth0 10.78.1.1 shop/web
//!           fd78::1/64             fd78::2/64              ├─ eth0 10.78.1.2 shop/db
//!                                                          └─ eth0 10.78.1.3 shop/other
//! ```
//!
//! Needs root, and fails without it. A kernel without ipvlan shows those cases as ignored.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use netpol_engine::policy::Protocol;
use netpold::datapath::requirements;
use netpold::probe::{Outcome, Probe};
use netpold_tests::lab::Namespace;
use netpold_tests::{Daemon, Family, Lab, residue, scaled};

fn main() {
    let arguments = Arguments::from_args();
    let has_ipvlan = has_ipvlan();
    let lacks_tool =
        requirements::has_tcx() && Command::new("bpftool").arg("version").output().is_err();
    let mut trials = Vec::new();
    for kind in [
        "macvlan mode bridge",
        "macvlan mode private",
        "macvlan mode vepa",
        "macvlan mode passthru",
        "ipvlan mode l2",
        "ipvlan mode l3",
        "ipvlan mode l3s",
    ] {
        let name = kind.replace(' ', "_");
        let trial = Trial::test(name, move || {
            policies_hold(kind).map_err(|error| format!("{error:#}").into())
        });
        trials.push(match kind.starts_with("ipvlan") {
            true => trial
                .with_kind("needs ipvlan")
                .with_ignored_flag(!has_ipvlan),
            false => trial,
        });
    }
    let case = |name: &'static str, run: fn() -> Result<()>| {
        Trial::test(name, move || {
            run().map_err(|error| format!("{error:#}").into())
        })
    };
    trials.extend([
        case("a_restart_keeps_it_and_its_connections", a_restart_keeps_it),
        case(
            "what_is_taken_off_is_put_back",
            what_is_taken_off_is_put_back,
        )
        .with_ignored_flag(lacks_tool),
        case("a_veth_beside_it", a_veth_beside_it),
        case("nothing_is_left", nothing_is_left),
    ]);
    libtest_mimic::run(&arguments, trials).exit();
}

fn has_ipvlan() -> bool {
    let Ok(lab) = Lab::new() else { return true };
    let host = lab.host();
    host.ip(&["link", "add", "x", "link", "br0", "type", "ipvlan"])
        .is_ok()
}

/// `db` takes 5432 from `web`, and 80 from every sender; `web` sends to `db`, and to the outside on 80.
const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: shop}\n\
    spec:\n  podSelector: {matchLabels: {app: db}}\n  policyTypes: [Ingress]\n  ingress:\n  \
    - from: [{podSelector: {matchLabels: {app: web}}}]\n    ports: [{port: 5432}, {port: 5432, protocol: UDP}]\n  \
    - ports: [{port: 80}]\n\
    ---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web, namespace: shop}\n\
    spec:\n  podSelector: {matchLabels: {app: web}}\n  policyTypes: [Egress]\n  egress:\n  \
    - to: [{podSelector: {matchLabels: {app: db}}}]\n  \
    - to: [{ipBlock: {cidr: 10.78.0.1/32}}, {ipBlock: {cidr: 'fd78::1/128'}}]\n    ports: [{port: 80}]\n";

const OUTSIDE: [&str; 2] = ["10.78.0.1", "fd78::1"];

struct Site {
    daemon: Daemon,
    outside: Namespace,
    lab: Lab,
}

impl Site {
    fn new(kind: &str, names: &[&str]) -> Result<Self> {
        let mut lab = Lab::new()?;
        let outside = lab.namespace("out")?;
        let host = lab.host();
        host.ip(&[
            "link",
            "add",
            "lan0",
            "type",
            "veth",
            "peer",
            "name",
            "wire0",
            "netns",
            outside.name(),
        ])?;
        for (end, name, number) in [(&outside, "wire0", 1), (host, "lan0", 2)] {
            end.ip(&["addr", "add", &format!("10.78.0.{number}/16"), "dev", name])?;
            end.ip(&[
                "addr",
                "add",
                &format!("fd78::{number}/64"),
                "dev",
                name,
                "nodad",
            ])?;
            end.ip(&["link", "set", name, "up"])?;
        }
        for (number, name) in (1..).zip(names) {
            let addresses = [
                format!("10.78.1.{number}/16").parse()?,
                format!("fd78::1{number}/64").parse()?,
            ];
            lab.add_child(&format!("shop/{name}"), "lan0", kind, &addresses)?;
            if kind.contains("l3") {
                // It answers no ARP: machines outside have to know that it is behind the parent.
                for (address, via) in [
                    (format!("10.78.1.{number}"), "10.78.0.2"),
                    (format!("fd78::1{number}"), "fd78::2"),
                ] {
                    outside.ip(&["route", "add", &address, "via", via])?;
                }
            }
        }
        let daemon = Daemon::enforcing(&lab, &[("policy.yaml", POLICY)], "")?;
        Ok(Self {
            daemon,
            outside,
            lab,
        })
    }

    fn end(&self, name: &str, family: Family) -> Result<(std::path::PathBuf, IpAddr)> {
        if name == "outside" {
            let [v4, v6] = OUTSIDE;
            let address = if family == Family::V4 { v4 } else { v6 };
            return Ok((self.outside.path(), address.parse()?));
        }
        let pod = self.lab.pod(&format!("shop/{name}"))?;
        Ok((pod.namespace.path(), pod.address(family)?))
    }

    fn outcome(
        &self,
        from: &str,
        to: &str,
        port: u16,
        protocol: Protocol,
        family: Family,
    ) -> Result<Outcome> {
        let ((from, source), (to, destination)) = (self.end(from, family)?, self.end(to, family)?);
        let probe = Probe {
            from,
            source,
            to: Some(to),
            destination: SocketAddr::new(destination, port),
            protocol,
            timeout: scaled(Duration::from_millis(700)),
        };
        Ok(probe.run()?)
    }

    fn expect(&self, from: &str, to: &str, port: u16, allowed: bool) -> Result<()> {
        for family in Family::BOTH {
            let outcome = self.outcome(from, to, port, Protocol::Tcp, family)?;
            ensure!(
                (outcome == Outcome::Reached) == allowed,
                "{from} to {to} {port} ({family:?}): {outcome:?}, expected allowed: {allowed}\n{}\n{}",
                String::from_utf8_lossy(&self.daemon.netpol(&["status"])?.stdout),
                self.daemon.log()
            );
        }
        Ok(())
    }

    fn status(&self) -> Result<serde_json::Value> {
        let output = self.daemon.netpol(&["status", "-o", "json"])?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// With the outside, in both directions; whether what comes from there is judged.
fn outside_holds(site: &Site, ingress: bool) -> Result<()> {
    site.expect("outside", "db", 80, true)?;
    site.expect("outside", "db", 5432, !ingress)?;
    site.expect("web", "outside", 80, true)?;
    site.expect("web", "outside", 81, false)
}

/// Among one another.
fn neighbours_hold(site: &Site) -> Result<()> {
    site.expect("web", "db", 5432, true)?;
    site.expect("web", "db", 80, true)?;
    site.expect("web", "other", 80, false)?;
    site.expect("other", "db", 80, true)?;
    site.expect("other", "db", 5432, false)?;
    site.expect("db", "other", 81, true)?;
    let udp = |from| site.outcome(from, "db", 5432, Protocol::Udp, Family::V4);
    ensure!(udp("web")? == Outcome::Reached);
    ensure!(udp("other")? != Outcome::Reached);
    Ok(())
}

fn policies_hold(kind: &str) -> Result<()> {
    let lone = kind.ends_with("passthru");
    let names: &[&str] = if lone {
        &["db"]
    } else {
        &["web", "db", "other"]
    };
    let site = Site::new(kind, names)?;
    let ingress = !kind.ends_with("l3s");
    if lone {
        site.expect("outside", "db", 80, true)?;
        site.expect("outside", "db", 5432, false)?;
    } else {
        outside_holds(&site, ingress)?;
    }
    if kind.ends_with("bridge") || kind.starts_with("ipvlan") {
        neighbours_hold(&site)?;
    }
    let status = site.status()?;
    for endpoint in status["endpoints"].as_array().context("no endpoints")? {
        let interface = &endpoint["interfaces"][0];
        let expected = kind.split(' ').next();
        ensure!(
            interface["name"] == "eth0"
                && interface["inside"].as_str() == expected
                && interface["attached"] == true
                && interface["ifindex"].as_u64() < Some(1 << 31),
            "{endpoint}"
        );
    }
    let unprotected = status["unprotected"].as_array().context("no list")?;
    ensure!(
        unprotected.len() == if ingress { 0 } else { names.len() },
        "{status}"
    );
    let Site {
        daemon,
        outside,
        lab,
    } = site;
    let name = lab.name.clone();
    drop((daemon, outside, lab));
    residue::check(&name)
}

const BRIDGE: &str = "macvlan mode bridge";

fn a_restart_keeps_it() -> Result<()> {
    let mut site = Site::new(BRIDGE, &["web", "db", "other"])?;
    site.daemon.kill()?;
    for (from, reached) in [("other", false), ("web", true)] {
        let outcome = site.outcome(from, "db", 5432, Protocol::Tcp, Family::V4)?;
        ensure!(
            (outcome == Outcome::Reached) == reached,
            "{from}: {outcome:?}"
        );
    }
    site.daemon.launch()?;
    site.daemon.wait()?;
    neighbours_hold(&site)?;
    outside_holds(&site, true)?;
    let log = site.daemon.log();
    ensure!(!log.contains("taken off"), "{log}");
    // A policy that comes after it is in force, and those that went are not.
    site.daemon.remove("policy.yaml")?;
    site.daemon.wait()?;
    site.expect("other", "db", 5432, true)
}

/// Both programs of `db`, by another process: the daemon looks every ten seconds.
fn what_is_taken_off_is_put_back() -> Result<()> {
    let site = Site::new(BRIDGE, &["web", "db", "other"])?;
    let is_tcx = site.status()?["datapath"]["attach"] == "tcx";
    if is_tcx {
        for entry in std::fs::read_dir(site.daemon.pins().join("links"))? {
            let mut detach = Command::new("bpftool");
            detach.args(["link", "detach", "pinned"]).arg(entry?.path());
            ensure!(detach.status()?.success());
        }
    } else {
        let mut delete = Command::new("tc");
        let db = site.lab.pod("shop/db")?.namespace.name();
        delete.args(["-n", db, "qdisc", "del", "dev", "eth0", "clsact"]);
        ensure!(delete.status()?.success());
    }
    let deadline = Instant::now() + scaled(Duration::from_secs(15));
    let is_back = || -> Result<bool> {
        if is_tcx {
            return Ok(site.daemon.log().contains("taken off"));
        }
        // A filter that is missing is put back by looking for it.
        let outcome = site.outcome("other", "db", 5432, Protocol::Tcp, Family::V4)?;
        Ok(outcome != Outcome::Reached)
    };
    while !is_back()? {
        ensure!(Instant::now() < deadline, "{}", site.daemon.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    site.daemon.wait()?;
    neighbours_hold(&site)
}

/// An endpoint with two interfaces, one of each sort, is enforced on both.
fn a_veth_beside_it() -> Result<()> {
    let mut site = Site::new(BRIDGE, &["web", "db"])?;
    site.lab.add_pod(
        "shop/other",
        &["10.77.1.9/16".parse()?, "fd77::19/64".parse()?],
    )?;
    let other = site.lab.pod("shop/other")?;
    site.daemon.declare(other)?;
    let host = site.lab.host();
    let mut link = vec![
        "link",
        "add",
        "eth1",
        "link",
        "lan0",
        "netns",
        other.namespace.name(),
    ];
    link.extend(BRIDGE.split(' ').fold(vec!["type"], |mut all, word| {
        all.push(word);
        all
    }));
    host.ip(&link)?;
    for arguments in [
        &["addr", "add", "10.78.1.9/16", "dev", "eth1"][..],
        &["addr", "add", "fd78::19/64", "dev", "eth1", "nodad"],
        &["link", "set", "eth1", "up"],
    ] {
        other.namespace.ip(arguments)?;
    }
    site.daemon.wait()?;
    let status = site.status()?;
    let endpoints = status["endpoints"].as_array().context("no endpoints")?;
    let both = endpoints.iter().find(|one| one["name"] == "other");
    let both = both.context("no endpoint")?["interfaces"].clone();
    ensure!(
        both.as_array().is_some_and(|both| both.len() == 2)
            && both
                .as_array()
                .into_iter()
                .flatten()
                .all(|one| one["attached"] == true),
        "{status}"
    );
    let deny = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: other, namespace: shop}\n\
        spec:\n  podSelector: {matchLabels: {app: other}}\n  policyTypes: [Ingress]\n";
    let dial = |address: &str, from: &str, source: &str| -> Result<Outcome> {
        let probe = Probe {
            from: site.end(from, Family::V4)?.0,
            source: source.parse()?,
            to: Some(other.namespace.path()),
            destination: SocketAddr::new(address.parse()?, 7000),
            protocol: Protocol::Tcp,
            timeout: scaled(Duration::from_millis(700)),
        };
        Ok(probe.run()?)
    };
    // The host always may, by the veth; a neighbour may not, by the macvlan.
    ensure!(dial("10.78.1.9", "db", "10.78.1.2")? == Outcome::Reached);
    site.daemon.put("other.yaml", deny)?;
    site.daemon.wait()?;
    ensure!(dial("10.78.1.9", "db", "10.78.1.2")? == Outcome::TimedOut);
    Ok(())
}

/// Uninstalled, all can be reached, and nothing is left.
fn nothing_is_left() -> Result<()> {
    let mut site = Site::new(BRIDGE, &["web", "db", "other"])?;
    site.expect("other", "db", 5432, false)?;
    site.daemon.stop()?;
    let config = site.daemon.config().display().to_string();
    let host = site.lab.host().path();
    let program = netpold_tests::daemon::binary("netpol")?;
    let output = netpold::netns::inside(&host, move || {
        Command::new(program)
            .args(["uninstall", "--config", &config])
            .output()
    })??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success() && said.matches("detached eth0").count() == 6,
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(!site.daemon.pins().exists(), "{said}");
    for family in Family::BOTH {
        let outcome = site.outcome("other", "db", 5432, Protocol::Tcp, family)?;
        ensure!(outcome == Outcome::Reached, "{outcome:?}\n{said}");
    }
    Ok(())
}
