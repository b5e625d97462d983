//! Nothing to link against: this library exists so that a change of the programs
//! rebuilds the crates that embed them (see `daemon/build.rs`).
#![no_std]
