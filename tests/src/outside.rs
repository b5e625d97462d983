//! The world beyond a lab's host: addresses that are no Pods', behind a router.
//!
//! ```text
//!  Pods ── br0 ── host ── uplink (macvlan) ═╗ lan0 ╔═ uplink (macvlan) ── outside: its addresses on lo
//! ```
//!
//! The uplink is a pair of macvlans and no veth: whatever leads into another namespace by a veth
//! is a container's to the daemon, and on hold until it is known.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Result;

use crate::lab::{HOST, Lab, Namespace};

/// The uplink's addresses, of the host and of the outside.
const UPLINK: [[&str; 2]; 2] = [["172.31.255.1", "172.31.255.2"], ["fd99::1", "fd99::2"]];

/// A namespace that has every address beyond the host.
#[derive(Debug)]
pub struct Outside {
    namespace: Namespace,
}

impl Outside {
    /// Makes it, with these addresses, and lets the lab's host route.
    ///
    /// # Errors
    /// What ip(8) says.
    pub fn new(lab: &Lab, addresses: &BTreeSet<IpAddr>) -> Result<Self> {
        let namespace = Namespace::new(format!("{}-out", lab.name))?;
        let host = lab.host();
        host.ip(&["link", "add", "lan0", "type", "bridge"])?;
        host.ip(&["link", "set", "lan0", "up"])?;
        // The far end first: Linux 5.10 makes a link in this namespace first, where no other one may have its name.
        for (number, end) in [host, &namespace].into_iter().enumerate().rev() {
            let wire = ["link", "add", "uplink", "link", "lan0", "netns", end.name()];
            host.ip(&[&wire[..], &["type", "macvlan", "mode", "bridge"]].concat())?;
            let [v4, v6] = UPLINK.map(|ends| ends[number]);
            end.ip(&["addr", "add", &format!("{v4}/30"), "dev", "uplink"])?;
            end.ip(&["addr", "add", &format!("{v6}/64"), "dev", "uplink", "nodad"])?;
            end.ip(&["link", "set", "uplink", "up"])?;
        }
        for [here, there] in UPLINK {
            host.ip(&["route", "add", "default", "via", there])?;
            namespace.ip(&["route", "add", "default", "via", here])?;
        }
        for address in addresses {
            let own = host_prefix(*address);
            namespace.ip(&["addr", "add", &own, "dev", "lo"])?;
            let [v4, v6] = UPLINK.map(|[_, there]| there);
            let via = if address.is_ipv4() { v4 } else { v6 };
            host.ip(&["route", "add", &own, "via", via])?;
            // Where the address lies in the Pods' own network, they must not ask for it there.
            let [v4, v6] = HOST.map(|own| own.split('/').next().unwrap_or(own));
            let gateway = if address.is_ipv4() { v4 } else { v6 };
            for pod in lab.pods() {
                if pod
                    .addresses
                    .iter()
                    .any(|own| own.is_ipv4() == address.is_ipv4())
                {
                    pod.namespace.ip(&["route", "add", &own, "via", gateway])?;
                }
            }
        }
        host.route_packets()?;
        Ok(Self { namespace })
    }

    /// Its namespace.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.namespace.path()
    }
}

/// The address alone, as ip(8) takes it.
#[must_use]
pub fn host_prefix(address: IpAddr) -> String {
    let length = if address.is_ipv4() { 32 } else { 128 };
    format!("{address}/{length}")
}
