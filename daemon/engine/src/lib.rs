//! NetworkPolicy as pure functions.
//!
//! ```text
//!  file text ─▶ manifest ─▶ objects ─┐
//!                  │                 ├─▶ world ─▶ compile ─▶ tables ─▶ plan (ordered steps)
//!            diagnostics   endpoints ┘     │         │
//!                                          ▼         ▼
//!                                       evaluate   names (what a number in a report stands for)
//! ```
//!
//! No clock, no file, no kernel, no thread: every function here takes plain values
//! and returns plain values. The daemon, `netpol --manifests` and the tests call
//! the same ones, so what is explained is what is enforced.
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate self as netpol_engine;

pub mod compile;
pub mod diagnostic;
pub mod diff;
pub mod evaluate;
pub mod explain;
pub mod labels;
pub mod leave;
pub mod lint;
pub mod manifest;
pub mod matrix;
pub mod model;
pub mod names;
pub mod object;
pub mod plan;
mod pod_groups;
pub mod policy;
pub mod reach;
pub mod resolver;
pub mod spelling;
pub mod tables;
pub mod world;
