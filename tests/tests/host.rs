//! The host and the machines that it forwards for: each of the host's addresses is the host, to it and from
//! it; a stranger that it forwards for is a stranger, also where it gives the stranger its own
//! address. Needs root and iptables.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use netpold::netns;
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
/// Two far machines.
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
        let site = Self { lab, outside };
        // Neighbours find one another before anything is timed: a lost question costs a second.
        for [far, _] in FAR {
            ensure!(site.in_from_far(far, true)?.is_none(), "no way from {far}");
        }
        Ok(site)
    }

    /// What is wrong where a datagram from the host at this address should reach the Pod, and its
    /// answer the host, or should not.
    fn in_from_host(&self, address: &str, should: bool) -> Result<Option<String>> {
        self.pair(&self.lab.host().path(), address, true, should)
    }

    /// The same, opened by the Pod.
    fn out_to_host(&self, address: &str, should: bool) -> Result<Option<String>> {
        self.pair(&self.lab.host().path(), address, false, should)
    }

    fn in_from_far(&self, address: &str, should: bool) -> Result<Option<String>> {
        self.pair(&self.outside.path(), address, true, should)
    }

    fn out_to_far(&self, address: &str, should: bool) -> Result<Option<String>> {
        self.pair(&self.outside.path(), address, false, should)
    }

    fn pair(
        &self,
        other: &Path,
        address: &str,
        towards_the_pod: bool,
        should: bool,
    ) -> Result<Option<String>> {
        let remote: IpAddr = address.parse()?;
        let family = match remote {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        };
        let store = self.lab.pod("db/store")?;
        let path = store.namespace.path();
        let (pod, other) = ((&*path, store.address(family)?), (other, remote));
        let speaks = if towards_the_pod {
            speak(other, pod, should)
        } else {
            speak(pod, other, should)
        }?;
        let way = if towards_the_pod { "from" } else { "to" };
        Ok((speaks != should).then(|| format!("{way} {address}: {speaks}")))
    }

    /// Every sender that the host forwards to its Pods, or for them, goes under its name.
    fn masquerade(&self) -> Result<()> {
        for tables in ["iptables", "ip6tables"] {
            for way in ["br0", "uplink"] {
                let mut command = Command::new(tables);
                command.args(["-t", "nat", "-A", "POSTROUTING"]);
                command.args(["-o", way, "-j", "MASQUERADE"]);
                let output = netns::inside(&self.lab.host().path(), move || command.output())?
                    .with_context(|| format!("can't run {tables}(8): is it installed?"))?;
                ensure!(output.status.success(), "{output:?}");
            }
        }
        Ok(())
    }
}

/// Does a datagram get there, and its answer back? What should gets time to.
fn speak(from: (&Path, IpAddr), to: (&Path, IpAddr), should: bool) -> Result<bool> {
    let timeout = if should { sockets::scaled() } else { SOON };
    let server = sockets::udp(to.0, to.1, PORT)?;
    let client = sockets::udp(from.0, from.1, 0)?;
    client.connect(server.local_addr()?)?;
    client.send(b"?")?;
    let Some((_, asker)) = sockets::heard(&server, timeout)? else {
        return Ok(false);
    };
    server.send_to(b"!", asker)?;
    sockets::heard(&client, sockets::scaled())?.context("the answer is lost")?;
    Ok(true)
}

fn none(wrong: &[String], what: &str, daemon: &Daemon) -> Result<()> {
    ensure!(wrong.is_empty(), "{what}: {wrong:?}\n{}", daemon.log());
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
        let mut wrong = Vec::new();
        for address in HOST.as_flattened() {
            wrong.extend(site.in_from_host(address, ingress)?);
            wrong.extend(site.out_to_host(address, egress)?);
        }
        // No other sender is the host, whatever the settings say.
        for [far, _] in FAR {
            wrong.extend(site.in_from_far(far, false)?);
            wrong.extend(site.out_to_far(far, false)?);
        }
        // One that it comes by later is the host's, too.
        let host = site.lab.host();
        host.ip(&["addr", "add", "192.0.2.54/32", "dev", "lo"])?;
        daemon.wait()?;
        wrong.extend(site.in_from_host("192.0.2.54", ingress)?);
        host.ip(&["addr", "del", "192.0.2.54/32", "dev", "lo"])?;
        none(&wrong, settings, &daemon)?;
    }
    let name = site.lab.name.clone();
    drop(site);
    residue::check(&name)
}

/// `hostNetwork: true` with any address in `status.podIPs`: what is far away stays a stranger, and
/// a container that runs keeps its address.
#[test]
fn a_manifests_word_makes_no_address_the_hosts() -> Result<()> {
    let site = Site::new()?;
    let store = site.lab.pod("db/store")?;
    let claims = FAR.as_flattened().iter().map(|far| (*far).to_owned());
    let own = store.addresses.iter().map(ToString::to_string);
    let mut word = String::new();
    for (number, address) in claims.chain(own).enumerate() {
        word.push_str(&format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: node-{number}, namespace: far}}\n\
             spec: {{hostNetwork: true, containers: [{{name: c, image: i}}]}}\n\
             status: {{podIPs: [{{ip: '{address}'}}]}}\n"
        ));
    }
    let files = [("store.yaml", SHUT), ("word.yaml", &*word)];
    let daemon = Daemon::enforcing(&site.lab, &files, "")?;
    let mut wrong = Vec::new();
    for [far, _] in FAR {
        wrong.extend(site.in_from_far(far, false)?);
        wrong.extend(site.out_to_far(far, false)?);
    }
    none(&wrong, "strangers are let in", &daemon)?;
    // Its addresses are still its own: the host reaches it at them, and policy opens it.
    daemon.put("store.yaml", &open_for(&[FAR[0][0], FAR[1][0]]))?;
    daemon.wait()?;
    for [far, _] in FAR {
        wrong.extend(site.in_from_far(far, true)?);
        wrong.extend(site.out_to_far(far, true)?);
    }
    for [_, uplink, _] in HOST {
        wrong.extend(site.in_from_host(uplink, true)?);
    }
    none(&wrong, "the container is cut off", &daemon)?;
    let told = daemon.netpol(&["status", "-o", "json"])?.stdout;
    let told: netpold::api::wire::Status = serde_json::from_slice(&told)?;
    let is_about = |one: &String| one.contains("taken for a host elsewhere");
    ensure!(told.warnings.iter().any(is_about), "{:?}", told.warnings);
    ensure!(
        told.conflicts.len() == store.addresses.len(),
        "{:?}",
        told.conflicts
    );
    Ok(())
}

#[test]
fn policy_names_the_hosts_addresses_one_by_one() -> Result<()> {
    let site = Site::new()?;
    let settings = "[host]\ningress = \"policy\"\negress = \"policy\"\n";
    let named = [HOST[0][1], HOST[1][1]];
    let policy = open_for(&named);
    let daemon = Daemon::enforcing(&site.lab, &[("store.yaml", &policy)], settings)?;
    let mut wrong = Vec::new();
    for address in HOST.as_flattened() {
        let is_named = named.contains(address);
        wrong.extend(site.in_from_host(address, is_named)?);
        wrong.extend(site.out_to_host(address, is_named)?);
    }
    none(&wrong, "two are named", &daemon)
}

#[test]
fn a_forwarded_sender_is_judged_by_its_own_address() -> Result<()> {
    let site = Site::new()?;
    for settings in ["", INGRESS, EGRESS] {
        let [[shut4, open4], [shut6, open6]] = FAR;
        let policy = open_for(&[open4, open6]);
        let daemon = Daemon::enforcing(&site.lab, &[("store.yaml", &policy)], settings)?;
        let mut wrong = Vec::new();
        for (address, open) in [(shut4, false), (open4, true), (shut6, false), (open6, true)] {
            wrong.extend(site.in_from_far(address, open)?);
            wrong.extend(site.out_to_far(address, open)?);
        }
        none(&wrong, settings, &daemon)?;
    }
    Ok(())
}

/// The host forwards them, so it did not send what they say: its address stands for nothing but an address.
#[test]
fn masqueraded_strangers_are_judged_by_the_address_that_they_are_given() -> Result<()> {
    let site = Site::new()?;
    site.masquerade()?;
    let bridge = [HOST[0][0], HOST[1][0]];
    for settings in ["", INGRESS] {
        let [[shut4, open4], [shut6, open6]] = FAR;
        for (named, passes) in [([open4, open6], false), (bridge, true)] {
            let policy = open_for(&named);
            let daemon = Daemon::enforcing(&site.lab, &[("store.yaml", &policy)], settings)?;
            let mut wrong = Vec::new();
            for address in [shut4, open4, shut6, open6] {
                wrong.extend(site.in_from_far(address, passes)?);
                // What the Pod sends is judged before the host gives it its own address.
                wrong.extend(site.out_to_far(address, named.contains(&address))?);
            }
            none(
                &wrong,
                &format!("{settings:?}, open for {named:?}"),
                &daemon,
            )?;
        }
    }
    Ok(())
}
