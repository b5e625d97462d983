//! A container's network as an engine makes it, and a process in it sends from the first instant: a
//! veth into a network namespace, named as Docker names them, on one of the host's bridges.
//!
//! What arrives is counted by the kernels' own counters (`Udp` of `/proc/net/snmp`), not by
//! a look at them: what came before the look is in them.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use netpold::netns;

use crate::frames::{self, Mac};
use crate::lab::{Lab, Namespace};
use crate::snmp;
use crate::wire::Wire;

/// Where every sender sends to: no server listens there, and each datagram is counted.
const PORT: u16 = 7777;

/// One.
#[derive(Debug)]
pub struct StartingContainer {
    /// Its network namespace.
    pub namespace: Namespace,
    /// The host's end.
    pub interface: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its address.
    pub address: Ipv4Addr,
}

impl StartingContainer {
    /// A network namespace without an interface yet. `interface`: what the host's end will be called.
    ///
    /// # Errors
    /// What ip(8) says.
    pub fn prepare(lab: &Lab, interface: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let [.., high, low] = number.to_be_bytes();
        Ok(Self {
            namespace: lab.namespace(&format!("n{number}"))?,
            interface: interface.to_owned(),
            mac: [2, 0, 0, 1, high, low],
            address: Ipv4Addr::new(10, 99, high, low),
        })
    }

    /// Gives it its veth, as an engine does: born inside, then the host's end on its bridge.
    ///
    /// # Errors
    /// What ip(8) says.
    pub fn connect(&self, lab: &Lab, bridge: &str) -> Result<()> {
        let mac: Vec<String> = self.mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let mac = mac.join(":");
        lab.host().ip(&[
            "link",
            "add",
            &self.interface,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "address",
            &mac,
            "netns",
            self.namespace.name(),
        ])?;
        let address = format!("{}/16", self.address);
        self.namespace
            .ip(&["addr", "add", &address, "dev", "eth0"])?;
        self.namespace.ip(&["link", "set", "eth0", "up"])?;
        lab.host()
            .ip(&["link", "set", &self.interface, "master", bridge, "up"])?;
        Ok(())
    }

    /// Datagrams that its network namespace has received, for no socket.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn received(&self) -> Result<u64> {
        let text = netns::inside(&self.namespace.path(), || {
            fs::read_to_string("/proc/thread-self/net/snmp")
        })??;
        snmp::number(&text, "Udp", "NoPorts")
    }

    /// Sends to another one without a pause, from the instant in which there is an `eth0`, until this
    /// is dropped.
    #[must_use]
    pub fn flood(&self, to: &Self) -> Flood {
        Flood::start(&self.namespace.path(), datagram(self, to), Duration::ZERO)
    }
}

fn datagram(from: &StartingContainer, to: &StartingContainer) -> Vec<u8> {
    let ends = (from.address.into(), to.address.into());
    let udp = frames::real_udp(ends, (PORT, PORT), b"first");
    let (source, destination) = (from.address.octets(), to.address.octets());
    let packet = frames::sealed_ipv4(frames::ipv4(source, destination, 17, &udp));
    frames::ethernet(from.mac, to.mac, 0x0800, &packet)
}

/// A process that sends without a pause.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Sends this frame by a namespace's `eth0`, as soon as there is one, with this pause after each.
    #[must_use]
    pub fn start(namespace: &Path, frame: Vec<u8>, pause: Duration) -> Self {
        let path = namespace.to_owned();
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let (ending, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = thread::spawn(move || {
            let goes_on = || !ending.load(Ordering::Relaxed);
            while goes_on() {
                let Ok(wire) = Wire::open_at(&path, "eth0") else {
                    thread::yield_now();
                    continue;
                };
                while goes_on() {
                    // Down, or without room: again.
                    if wire.send(&frame).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    if pause.is_zero() {
                        thread::yield_now();
                    } else {
                        thread::sleep(pause);
                    }
                }
            }
        });
        Self {
            stop,
            sent,
            thread: Some(thread),
        }
    }

    /// Frames that went out so far.
    #[must_use]
    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there shows as nothing sent.
            let _ = thread.join();
        }
    }
}

/// `netpol gate VERB` on the lab's host; what it prints.
///
/// # Errors
/// It says no.
pub fn gate(lab: &Lab, config: &Path, verb: &str) -> Result<String> {
    let netpol = crate::daemon::binary("netpol")?;
    let output = netns::inside(&lab.host().path(), || {
        std::process::Command::new(netpol)
            .args(["gate", verb, "--config"])
            .arg(config)
            .output()
    })??;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(
        output.status.success(),
        "netpol gate {verb}: {printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(printed)
}
