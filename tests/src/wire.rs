//! Frames on a Pod's own interface, as a container with NET_RAW sends them: whole, unchecked,
//! and under any name. The same socket says what arrived.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use netpold::netns;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::frames::Mac;
use crate::lab::{Namespace, Pod};
use crate::time_scale::scaled;

/// How long a frame that must arrive may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than any frame here.
const LARGEST: usize = 1 << 17;

/// A packet socket on an interface, mostly the `eth0` of a Pod.
#[derive(Debug)]
pub struct Wire {
    socket: OwnedFd,
    /// The interface's MAC address.
    pub mac: Mac,
}

impl Wire {
    /// Opens a packet socket on the Pod's interface.
    ///
    /// # Errors
    /// Without the right, or without the interface.
    pub fn open(pod: &Pod) -> Result<Self> {
        Self::open_on(&pod.namespace, "eth0")
    }

    /// Opens one on another interface.
    ///
    /// # Errors
    /// Without the right, or without the interface.
    pub fn open_on(place: &Namespace, interface: &str) -> Result<Self> {
        Self::open_at(&place.path(), interface)
    }

    /// As [`Wire::open_on`], of a network namespace by its path.
    ///
    /// # Errors
    /// Without the right, or without the interface.
    pub fn open_at(place: &Path, interface: &str) -> Result<Self> {
        Self::open_for(place, interface, SockProtocol::EthAll)
    }

    /// One that sees the IPv4 packets that arrive, and none that leave.
    ///
    /// # Errors
    /// Without the right, or without the interface.
    pub fn open_for_ipv4(place: &Path, interface: &str) -> Result<Self> {
        // A packet socket of one protocol is not shown what leaves (net/core/dev.c, `dev_queue_xmit_nit`).
        Self::open_for(place, interface, SockProtocol::EthIp)
    }

    fn open_for(place: &Path, interface: &str, protocol: SockProtocol) -> Result<Self> {
        netns::inside(place, || {
            let socket = socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                protocol,
            )?;
            let link = getifaddrs()?
                .filter(|found| found.interface_name == interface)
                .find_map(|found| found.address?.as_link_addr().copied())
                .with_context(|| format!("there is no {interface}"))?;
            bind(socket.as_raw_fd(), &link)?;
            setsockopt(&socket, sockopt::RcvBufForce, &(32 << 20))?;
            setsockopt(
                &socket,
                sockopt::ReceiveTimeout,
                &TimeVal::seconds(scaled(TIMEOUT).as_secs().try_into()?),
            )?;
            let mac = link
                .addr()
                .with_context(|| format!("{interface} has no MAC address"))?;
            Ok(Self { socket, mac })
        })?
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// What the system says.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty())?;
        if sent != frame.len() {
            bail!("only {sent} bytes of {} were sent", frame.len());
        }
        Ok(())
    }

    /// What has been seen until now.
    ///
    /// # Errors
    /// What the system says.
    pub fn seen(&self) -> Result<Vec<Vec<u8>>> {
        let mut seen = Vec::new();
        let mut buffer = vec![0; LARGEST];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => seen.push(buffer[..length].to_vec()),
                Err(Errno::EAGAIN) => return Ok(seen),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Everything seen before this frame. VLAN tags are not seen: the kernel takes them off.
    ///
    /// # Errors
    /// The frame does not come.
    pub fn until(&self, last: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.until_one_is(|frame| frame == last)
    }

    /// Everything seen before a frame of which this holds.
    ///
    /// # Errors
    /// None comes.
    pub fn until_one_is(&self, last: impl Fn(&[u8]) -> bool) -> Result<Vec<Vec<u8>>> {
        let mut seen = Vec::new();
        let mut buffer = vec![0; LARGEST];
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty())
                .context("the last frame did not arrive")?;
            let frame = &buffer[..length];
            if last(frame) {
                return Ok(seen);
            }
            seen.push(frame.to_vec());
        }
    }
}
