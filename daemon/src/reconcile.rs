//! The one loop: from files, runtimes and links to the kernel, again and again.
//!
//! ```text
//!  sources (hints ─▶ listings) ─▶ Facts ─▶ assemble (pure) ─▶ World ─▶ installer ─▶ tables
//!                                             │  ▲                       (own thread)
//!                                             │  └─ register (numbers, kept on disk)
//!                                             ├──▶ attacher ─▶ programs on interfaces (own thread)
//!                                             ├──▶ gate: who is ready, once the programs are on
//!                                             └──▶ report ─▶ API, log, systemd
//!                     traffic: reports ─▶ flows;  sweeps of connections (own thread)
//! ```
//!
//! One task owns the world. Hints say only that something may have changed; what is
//! enforced always follows from whole listings, so a start, an event and a full sync are the same
//! code. Blocking work of the kernel is on threads that take orders and answer.
//!
//! # Order
//! An interface that may be a container's gets its programs at once: without an entry in
//! the tables it is on hold. Its entry follows when its labels are known. What is
//! no longer a container's loses its programs last.
//!
//! # A restart
//! The last accepted manifests, and the endpoints with their numbers and labels, are on disk. Until
//! the container engine has listed its containers, endpoints that it reported before stay
//! as they were, with the policies of now, as long as their interfaces are there. The listing then
//! confirms them, by container and network namespace, or takes them off.

pub mod agreement;
mod announcer;
mod assemble;
mod attacher;
mod behind;
mod builds;
mod gate;
mod installer;
mod lints;
mod metrics;
mod number_key;
mod observed;
mod pins;
mod processes;
mod program;
mod progress;
mod readiness;
mod register;
mod report;
mod run;
mod sources;
mod traffic;
mod unreached;
mod worker;

pub use run::{End, StartError, run};
