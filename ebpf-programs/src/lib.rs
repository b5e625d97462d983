//! Nothing to link against: this library exists so that a change of the programs
//! rebuilds whoever embeds them (see `daemon/build.rs`).
#![no_std]
