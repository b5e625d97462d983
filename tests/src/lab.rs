//! Network namespaces, a bridge, and veths between them, made with ip(8).
//!
//! ```text
//!  npd-PID-N-host: br0 10.77.0.1/16 fd77::1/64
//!     ├─ veth ── npd-PID-N-p0: eth0
//!     └─ veth ── npd-PID-N-p1: eth0
//! ```

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use ipnet::IpNet;
use netpold::netns;

/// What every name that a suite gives begins with.
pub const PREFIX: &str = "npd-";

/// The host's addresses on its bridge.
pub const HOST: [&str; 2] = ["10.77.0.1/16", "fd77::1/64"];

/// A host with Pods.
#[derive(Debug)]
pub struct Lab {
    /// Begins the names of all that is made here.
    pub name: String,
    host: Namespace,
    pods: Vec<Pod>,
}

/// One Pod of a lab.
#[derive(Debug)]
pub struct Pod {
    /// `namespace/name`, as its manifest says.
    pub reference: String,
    /// Its network namespace.
    pub namespace: Namespace,
    /// The host's end of its veth; empty: it has none.
    pub host_interface: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The host's own address on the bridge.
    #[must_use]
    pub const fn host(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)),
            Self::V6 => IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1)),
        }
    }
}

/// A network namespace that is removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub(crate) fn new(name: String) -> Result<Self> {
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name for ip(8).
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Sets `/proc/sys/net/KEY` inside it.
    ///
    /// # Errors
    /// What the system says.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys/net").join(key);
        netns::inside(&self.path(), || fs::write(&path, value))?
            .with_context(|| path.display().to_string())
    }

    /// Forwards packets of both families from now on.
    ///
    /// # Errors
    /// What the system says.
    pub fn route_packets(&self) -> Result<()> {
        self.set("ipv4/ip_forward", "1")?;
        self.set("ipv6/conf/all/forwarding", "1")
    }

    /// ip(8) inside it.
    ///
    /// # Errors
    /// What ip(8) says.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments);
        ip(&all)
    }
}

impl Namespace {
    /// nft(8) there.
    ///
    /// # Errors
    /// What nft(8) says.
    pub fn nft(&self, arguments: &[&str]) -> Result<()> {
        let status = netns::inside(&self.path(), || {
            Command::new("nft").args(arguments).status()
        })??;
        ensure!(status.success(), "nft {arguments:?}");
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The residue check tells of a failure.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

impl Lab {
    /// A host without Pods.
    ///
    /// # Errors
    /// Without root, or what ip(8) says.
    pub fn new() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        ensure!(nix::unistd::geteuid().is_root(), "a lab needs root");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let host = Namespace::new(format!("{name}-host"))?;
        host.ip(&["link", "add", "br0", "type", "bridge", "forward_delay", "0"])?;
        for address in HOST {
            host.ip(&["addr", "add", address, "dev", "br0", "nodad"])
                .or_else(|_| host.ip(&["addr", "add", address, "dev", "br0"]))?;
        }
        host.ip(&["link", "set", "br0", "up"])?;
        Ok(Self {
            name,
            host,
            pods: Vec::new(),
        })
    }

    /// A host with these Pods, each with an address of both families, in this order from
    /// `10.77.1.1` and `fd77::11` on.
    ///
    /// # Errors
    /// Without root, or what ip(8) says.
    pub fn with_pods(references: &[&str]) -> Result<Self> {
        let mut lab = Self::new()?;
        for (number, reference) in (1..).zip(references) {
            let (v4, v6) = (
                format!("10.77.1.{number}/16"),
                format!("fd77::1{number}/64"),
            );
            lab.add_pod(reference, &[v4.parse()?, v6.parse()?])?;
        }
        Ok(lab)
    }

    /// What tc(8) says on the host.
    ///
    /// # Errors
    /// What it complains of.
    pub fn tc(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new("tc")
            .args(["-n", self.host.name()])
            .args(arguments)
            .output()
            .context("can't run tc(8): is iproute2 installed?")?;
        ensure!(
            output.status.success(),
            "tc {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Where Docker runs, bridges ask netfilter, which drops what has no valid checksum: from now
    /// on this one does not, and netpold alone decides about frames.
    ///
    /// # Errors
    /// What the system says.
    pub fn plain_bridge(&self) -> Result<()> {
        for key in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
            let path = Path::new("/proc/sys/net/bridge").join(key);
            match netns::inside(&self.host.path(), || fs::write(&path, "0"))? {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                written => written?,
            }
        }
        Ok(())
    }

    /// A further network namespace, which is no Pod's, named after the lab.
    ///
    /// # Errors
    /// What ip(8) says.
    pub fn namespace(&self, suffix: &str) -> Result<Namespace> {
        Namespace::new(format!("{}-{suffix}", self.name))
    }

    /// The host's namespace.
    #[must_use]
    pub const fn host(&self) -> &Namespace {
        &self.host
    }

    /// All Pods, in the order of their making.
    #[must_use]
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// The Pod of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn pod(&self, reference: &str) -> Result<&Pod> {
        self.pods
            .iter()
            .find(|pod| pod.reference == reference)
            .with_context(|| format!("the lab has no Pod `{reference}`"))
    }

    /// One more Pod, on the bridge, with these addresses, its default routes by the host.
    ///
    /// # Errors
    /// What ip(8) says.
    pub fn add_pod(&mut self, reference: &str, addresses: &[IpNet]) -> Result<&Pod> {
        let number = self.pods.len();
        let namespace = Namespace::new(format!("{}-p{number}", self.name))?;
        let host_interface = format!("veth{number}");
        self.host.ip(&[
            "link",
            "add",
            &host_interface,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            namespace.name(),
        ])?;
        self.host
            .ip(&["link", "set", &host_interface, "master", "br0", "up"])?;
        let families = give(&namespace, addresses)?;
        for (wanted, host) in families.into_iter().zip(HOST) {
            let gateway = host.split('/').next().unwrap_or(host);
            if wanted {
                namespace.ip(&["route", "add", "default", "via", gateway])?;
            }
        }
        self.keep(reference, namespace, host_interface, addresses)
    }

    /// One more Pod, whose interface stands on one of the host's and has no end there: `kind` is what
    /// ip(8) calls it (`macvlan mode bridge`).
    ///
    /// # Errors
    /// What ip(8) says.
    pub fn add_child(
        &mut self,
        reference: &str,
        parent: &str,
        kind: &str,
        addresses: &[IpNet],
    ) -> Result<&Pod> {
        let namespace = Namespace::new(format!("{}-p{}", self.name, self.pods.len()))?;
        let mut link = vec!["link", "add", "eth0", "link", parent];
        link.extend(["netns", namespace.name(), "type"]);
        link.extend(kind.split(' '));
        self.host.ip(&link)?;
        give(&namespace, addresses)?;
        self.keep(reference, namespace, String::new(), addresses)
    }

    fn keep(
        &mut self,
        reference: &str,
        namespace: Namespace,
        host_interface: String,
        addresses: &[IpNet],
    ) -> Result<&Pod> {
        self.pods.push(Pod {
            reference: reference.to_owned(),
            namespace,
            host_interface,
            addresses: addresses.iter().map(IpNet::addr).collect(),
        });
        self.pod(reference)
    }
}

/// Gives a Pod's interface its addresses, and sets it up. Which families they are of.
fn give(namespace: &Namespace, addresses: &[IpNet]) -> Result<[bool; 2]> {
    let mut families = [false; 2];
    for address in addresses {
        let text = address.to_string();
        let mut arguments = vec!["addr", "add", &text, "dev", "eth0"];
        if address.addr().is_ipv6() {
            // There is no other host here: an address is of use at once.
            arguments.push("nodad");
        }
        namespace.ip(&arguments)?;
        families[usize::from(address.addr().is_ipv6())] = true;
    }
    namespace.ip(&["link", "set", "eth0", "up"])?;
    Ok(families)
}

impl Pod {
    /// Its first address of a family.
    ///
    /// # Errors
    /// When it has none.
    pub fn address(&self, family: Family) -> Result<IpAddr> {
        let mut own = self.addresses.iter().copied();
        own.find(|address| address.is_ipv6() == (family == Family::V6))
            .with_context(|| format!("`{}` has no address of {family:?}", self.reference))
    }

    /// Its manifest, as a declared Pod.
    ///
    /// # Errors
    /// When its name is not `namespace/name`.
    pub fn manifest(&self, labels: &[(&str, &str)]) -> Result<String> {
        let Some((namespace, name)) = self.reference.split_once('/') else {
            bail!("`{}` is not `namespace/name`", self.reference);
        };
        let labels: serde_json::Map<String, serde_json::Value> = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).into()))
            .collect();
        Ok(serde_json::json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": labels,
                "annotations": {"netpold.io/netns": self.namespace.path()},
            },
            "spec": {"containers": [{"name": "main", "image": "none"}]},
        })
        .to_string())
    }
}

/// ip(8) outside.
///
/// # Errors
/// ip(8) failed, with its message.
pub fn ip(arguments: &[&str]) -> Result<String> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("can't run ip(8): is iproute2 installed?")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
