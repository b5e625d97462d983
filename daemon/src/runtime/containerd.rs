//! containerd, where it runs containers for others than Docker: which containers there are.
//!
//! ```text
//!  events (hints) ─▶ follow ─▶ client (gRPC) ─▶ model (listings → Container) ─▶ Follower
//! ```
//!
//! Owns the talk with one containerd. Whole listings of a namespace are the truth, events
//! only say of which one to make another. containerd knows nothing of networks: addresses
//! and interfaces are read from where a task's process is, by `reconcile`. Must never take a
//! task for ended that containerd has merely not named. Started by `netpold`.

mod client;
mod follow;
mod model;
mod wire;

pub use follow::follow;

/// The namespace in which the Docker engine keeps its containers.
pub const DOCKERS: &str = "moby";

/// The name that CNI plugins give the host's end of a container's veth: `veth` and eight
/// hexadecimal digits.
#[must_use]
pub fn is_veth_name(name: &str) -> bool {
    name.strip_prefix("veth").is_some_and(|digits| {
        digits.len() == 8
            && digits
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}
