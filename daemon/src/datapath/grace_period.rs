//! Waits until no program that started before is still running.
//!
//! TC programs run inside an RCU read-side section, so one grace period is enough:
//! a program that looked a verdict up before the commit has finished with it afterwards.
//!
//! Closing a packet socket waits for one: `packet_release` calls `synchronize_net`
//! (net/packet/af_packet.c since Linux 2.6.12, `synchronize_net` → `synchronize_rcu`,
//! which since 4.20 waits for the softirq flavour as well), and close(2) returns only
//! after the release has run. The socket has protocol 0, so it never receives
//! anything. Other ways were weighed: membarrier(2) refuses on `nohz_full` kernels and does
//! not wait with one CPU; a map-in-map update (`maybe_wait_bpf_programs`, 4.20) needs
//! a map that no program uses.
//!
//! It takes 5 to 30 ms and must not be called on the event loop. It needs CAP_NET_RAW,
//! and that no other thread forks meanwhile (a child would hold the socket open).

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use thiserror::Error;

/// The kernel gave no packet socket.
#[derive(Debug, Error)]
#[error("waiting for running programs needs a packet socket (CAP_NET_RAW, AF_PACKET): {0}")]
pub struct GracePeriodError(#[from] Errno);

/// Waits for one RCU grace period.
///
/// # Errors
/// Where the kernel gives no packet socket: then nothing was waited for.
pub fn wait() -> Result<(), GracePeriodError> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    drop(socket);
    Ok(())
}
