//! What the kernel programs and the daemon share.
//!
//! ```text
//!  frame bytes ──▶ packet ──▶ judge ◀── tables (the maps, or ordered maps)
//!  (skb | slice)                │
//!                               ├──▶ connection (state after this packet)
//!                               └──▶ report (counter, budget) ──▶ event, reason
//! ```
//!
//! Everything here is `no_std`, holds no state and makes no system call. The same
//! code runs inside the TC programs, in unit tests, in fuzzers and in the
//! daemon's model of the datapath: there is one parser and one verdict.
//!
//! Addresses and ports are kept as they are on the wire only where a name ends in
//! `_be`; every other integer is in host order.
#![no_std]
#![forbid(unsafe_code)]

mod bytes;
pub mod connection;
pub mod event;
pub mod judge;
pub mod limits;
pub mod link;
pub mod packet;
pub mod reason;
pub mod report;
pub mod tables;

pub use reason::Reason;
