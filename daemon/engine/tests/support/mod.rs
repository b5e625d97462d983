//! What the engine's suites share: the reference, and the worlds to try the engine on.
#![allow(dead_code, reason = "each suite uses its part")]
#![allow(clippy::unwrap_used)]

pub mod alike;
pub mod manifests;
pub mod readings;
pub mod reference;
pub mod tiers;
pub mod worlds;
pub mod writing;
pub mod written;
