//! What the live suites stand on.
//!
//! ```text
//!  lab (namespaces, bridge, veths) ◀── daemon (netpold inside the lab's host)
//!      │                                   │
//!      └──────── residue: all of it is gone afterwards
//! ```
//!
//! A lab is a host of its own: a network namespace with a bridge, and one more for
//! each Pod. The daemon runs inside it, with its own socket, pin and state
//! directories, so no suite touches the machine's network, and suites can run side
//! by side. Everything needs root; everything is removed on drop, also when a test
//! panics.

pub mod cases;
pub mod containerd;
pub mod daemon;
pub mod docker;
pub mod frames;
pub mod kernel;
pub mod kernel_fixture;
pub mod lab;
pub mod load;
pub mod outside;
pub mod packets;
pub mod residue;
mod server;
pub mod slow_engine;
pub mod snmp;
pub mod sockets;
pub mod starting_container;
pub mod time_scale;
pub mod wire;

pub use containerd::Containerd;
pub use daemon::Daemon;
pub use docker::Engine;
pub use lab::{Family, Lab};
pub use outside::Outside;
pub use slow_engine::SlowEngine;
pub use starting_container::StartingContainer;
pub use time_scale::scaled;
pub use wire::Wire;
