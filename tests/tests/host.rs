//! The host and whom it forwards for: each of the host's addresses is the host, to it and from
//! it; whoever it passes on under his own address is a stranger, and whoever it gives its own
//! address is the host. Needs root and iptables.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpold::probe::namespace;
use netpold_tests::outside::host_prefix;
use netpold_tests::{Daemon, Family, Lab, Outside, residue, sockets};

const PORT: u16 = 5432;
/// What gets there takes milliseconds.
const SOON: Duration = Duration::from_millis(300);
/// The host's addresses by family: on the Pods' bridge, on its uplink, on its loopback interface.
const HOST: [[&str; 3]; 2] = [
    ["10.77.0.1", "172.31.255.1", "192.0.2.53"],
    ["fd77::1", "fd99::1", "fd96::53"],
];
/// Two who are far away.
const FAR: [[&str; 2]; 2] = [["203.0.113.8", "203.0.113.9"], ["fd97::8", "fd97::9"]];

const SHUT: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: store, namespace: db}\n\
    spec: {podSelector: {}, policyTypes: [Ingress, Egress]}\n";

/// Open for these blocks, both ways.
fn open_for(blocks: &[&str]) -> String {
    let blocks: Vec<String> = blocks
        .iter()
        .map(|address| {
            let prefix = if address.contains(':') { 128 } else { 32 };
            format!("{{ipBlock: {{cidr: '{address}/{prefix}'}}}}")
        })
        .collect();
    let blocks = blocks.join(", ");
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: store, namespace: db}}\n\
         spec:\n  podSelector: {{}}\n  policyTypes: [Ingress, Egress]\n  \
         ingress: [{{from: [{blocks}]}}]\n  egress: [{{to: [{blocks}]}}]\n"
    )
}

/// A Pod, its host with all addresses, and the two outside.
struct Site {
    lab: Lab,
    outside: Outside,
}

impl Site {
    fn new() -> Result<Self> {
        let lab = Lab::with_pods(&["db/store"])?;
        let mut far = BTreeSet::new();
        for address in FAR.as_flattened() {
            far.insert(address.parse()?);
        }
        let outside = Outside::new(&lab, &far)?;
        for [_, _, own] in HOST {
            let own = host_prefix(own.parse()?);
            lab.host().ip(&["addr", "add", &own, "dev", "lo"])?;
        }
        Ok(Self { lab, outside })
    }

    /// Does a datagram from the host at this address reach the Pod, and its answer the host?
    fn in_from_host(&self, host: &str) -> Result<bool> {
        let host: IpAddr = host.parse()?;
        speak(
            (&self.lab.host().path(), host),
            (&self.pod()?, self.own(host)?),
        )
    }

    /// The same, opened by the Pod.
    fn out_to_host(&self, host: &str) -> Result<bool> {
        let host: IpAddr = host.parse()?;
        speak(
            (&self.pod()?, self.own(host)?),
            (&self.lab.host().path(), host),
        )
    }

    fn in_from_far(&self, far: &str) -> Result<bool> {
        let far: IpAddr = far.parse()?;
        speak((&self.outside.path(), far), (&self.pod()?, self.own(far)?))
    }

    fn out_to_far(&self, far: &str) -> Result<bool> {
        let far: IpAddr = far.parse()?;
        speak((&self.pod()?, self.own(far)?), (&self.outside.path(), far))
    }

    fn pod(&self) -> Result<std::path::PathBuf> {
        Ok(self.lab.pod("db/store")?.namespace.path())
    }

    /// The Pod's address of the family of this one.
    fn own(&self, other: IpAddr) -> Result<IpAddr> {
        let family = if other.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        };
        self.lab.pod("db/store")?.address(family)
    }

    /// Everybody whom the host forwards to its Pods, or for them, goes under its name.
    fn masquerade(&self) -> Result<()> {
        for tables in ["iptables", "ip6tables"] {
            for way in ["br0", "uplink"] {
                let mut command = Command::new(tables);
                command.args([
                    "-t",
                    "nat",
                    "-A",
                    "POSTROUTING",
                    "-o",
                    way,
                    "-j",
                    "MASQUERADE",
                ]);
                let output = namespace::inside(&self.lab.host().path(), move || command.output())?
                    .with_context(|| format!("can't run {tables}(8): is it installed?"))?;
                ensure!(output.status.success(), "{output:?}");
            }
        }
        Ok(())
    }
}

fn speak(from: (&Path, IpAddr), to: (&Path, IpAddr)) -> Result<bool> {
    let server = sockets::udp(to.0, to.1, PORT)?;
    let client = sockets::udp(from.0, from.1, 0)?;
    client.connect(server.local_addr()?)?;
    client.send(b"?")?;
    let Some((_, asker)) = sockets::heard(&server, SOON)? else {
        return Ok(false);
    };
    server.send_to(b"!", asker)?;
    sockets::heard(&client, SOON)?.context("the answer is lost")?;
    Ok(true)
}

/// Holds what happens against what should, with all that differs.
fn compare(what: &str, tried: &[(String, bool, bool)], daemon: &Daemon) -> Result<()> {
    let wrong: Vec<&String> = tried
        .iter()
        .filter(|(_, speaks, should)| speaks != should)
        .map(|(name, ..)| name)
        .collect();
    ensure!(
        wrong.is_empty(),
        "{what}: not so: {wrong:?}\n{}",
        daemon.log()
    );
    Ok(())
}

const INGRESS: &str = "[host]\ningress = \"policy\"\n";
const EGRESS: &str = "[host]\negress = \"policy\"\n";

#[test]
fn every_address_of_the_host_is_the_host() -> Result<()> {
    let site = Site::new()?;
    for (settings, ingress, egress) in [
        ("", true, true),
        (INGRESS, false, true),
        (EGRESS, true, false),
    ] {
        let daemon = Daemon::enforcing(&site.lab, &[("store.yaml", SHUT)], settings)?;
        let mut tried = Vec::new();
        for address in HOST.as_flattened() {
            tried.push((
                format!("in from {address}"),
                site.in_from_host(address)?,
                ingress,
            ));
            tried.push((
                format!("out to {address}"),
                site.out_to_host(address)?,
                egress,
            ));
        }
        // Nobody else is the host, whatever the settings say.
        for [far, _] in FAR {
            tried.push((format!("in from {far}"), site.in_from_far(far)?, false));
            tried.push((format!("out to {far}"), site.out_to_far(far)?, false));
        }
        // One that it comes by later is the host's, too.
        let late = ["addr", "add", "192.0.2.54/32", "dev", "lo"];
        site.lab.host().ip(&late)?;
        daemon.wait()?;
        tried.push((
            "in from a new address".to_owned(),
            site.in_from_host("192.0.2.54")?,
            ingress,
        ));
        site.lab
            .host()
            .ip(&["addr", "del", "192.0.2.54/32", "dev", "lo"])?;
        compare(settings, &tried, &daemon)?;
    }
    let name = site.lab.name.clone();
    drop(site);
    residue::check(&name)
}

#[test]
fn policy_names_the_hosts_addresses_one_by_one() -> Result<()> {
    let site = Site::new()?;
    let settings = "[host]\ningress = \"policy\"\negress = \"policy\"\n";
    let named = [HOST[0][1], HOST[1][1]];
    let policy = open_for(&named);
    let daemon = Daemon::enforcing(&site.lab, &[("store.yaml", &policy)], settings)?;
    let mut tried = Vec::new();
    for address in HOST.as_flattened() {
        let is_named = named.contains(address);
        tried.push((
            format!("in from {address}"),
            site.in_from_host(address)?,
            is_named,
        ));
        tried.push((
            format!("out to {address}"),
            site.out_to_host(address)?,
            is_named,
        ));
    }
    compare("two are named", &tried, &daemon)?;
    Ok(())
}

#[test]
fn who_is_forwarded_is_judged_by_his_own_address() -> Result<()> {
    let site = Site::new()?;
    let [[shut4, open4], [shut6, open6]] = FAR;
    let policy = open_for(&[open4, open6]);
    for settings in ["", INGRESS, EGRESS] {
        let daemon = Daemon::enforcing(&site.lab, &[("store.yaml", &policy)], settings)?;
        let mut tried = Vec::new();
        for (address, open) in [(shut4, false), (open4, true), (shut6, false), (open6, true)] {
            tried.push((
                format!("in from {address}"),
                site.in_from_far(address)?,
                open,
            ));
            tried.push((format!("out to {address}"), site.out_to_far(address)?, open));
        }
        compare(settings, &tried, &daemon)?;
    }
    Ok(())
}

#[test]
fn who_is_masqueraded_is_the_host_towards_a_pod_and_himself_from_it() -> Result<()> {
    let site = Site::new()?;
    site.masquerade()?;
    let [[shut4, open4], [shut6, open6]] = FAR;
    let policy = open_for(&[open4, open6]);
    for (settings, passes) in [("", true), (INGRESS, false)] {
        let daemon = Daemon::enforcing(&site.lab, &[("store.yaml", &policy)], settings)?;
        let mut tried = Vec::new();
        for (address, open) in [(shut4, false), (open4, true), (shut6, false), (open6, true)] {
            // The Pod sees the host's address, and so does its policy.
            tried.push((
                format!("in from {address}"),
                site.in_from_far(address)?,
                passes,
            ));
            // What the Pod sends is judged before the host gives it its own address.
            tried.push((format!("out to {address}"), site.out_to_far(address)?, open));
        }
        compare(settings, &tried, &daemon)?;
    }
    Ok(())
}
