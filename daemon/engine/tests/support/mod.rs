//! What the engine's suites share: the oracle and the worlds to try it on.
#![allow(dead_code, reason = "each suite uses its part")]

pub mod oracle;
pub mod worlds;
