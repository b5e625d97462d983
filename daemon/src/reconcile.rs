//! The one loop: from files, runtimes and links to the kernel, again and again.
//!
//! ```text
//!  events ──────────▶ run ────────▶ control (pure) ───── effects ────▶ run carries them out:
//!  (hints, answers,    │  ▲           rollout                           installer ─▶ tables       (own thread)
//!   requests, clocks)  │  │           attachments                       attacher ──▶ programs     (own thread)
//!                      ▼  │           admission                         gate, announcer, records
//!  sources ─▶ Observed ─▶ assemble (pure) ─▶ Desired                    publication ─▶ API, log, systemd
//!                            ▲
//!                            └─ register (numbers, kept on disk)
//!                     traffic: reports ─▶ flows;  sweeps of connections (own thread)
//! ```
//!
//! One task owns the desired state. A hint says only that something may have changed; what is enforced always follows from
//! whole listings, so a start, an event and a full sync take the same way. Work that blocks in the kernel is on threads
//! that take orders and answer.
//!
//! # Order
//! An interface that may be a container's gets its programs at once: without an entry in the tables it is unidentified, and
//! shut. Its entry follows when its labels are known. An interface that is no longer a container's loses its programs
//! last.

mod announcer;
mod assemble;
mod attacher;
mod clients;
mod control;
mod events;
mod gate;
mod installer;
mod lints;
mod metrics;
mod number_key;
mod observed;
mod outcome;
mod pins;
mod program;
mod progress;
mod publication;
mod readiness;
mod records;
mod register;
mod report;
mod run;
mod sources;
mod start;
mod traffic;
mod unreached;
mod worker;

pub use outcome::{End, StartError};
pub use start::run;
