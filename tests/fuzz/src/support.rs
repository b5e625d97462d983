//! The part of the engine's test support that the targets need.

#[path = "../../../daemon/engine/tests/support/alike.rs"]
pub mod alike;
#[path = "../../../daemon/engine/tests/support/reference/mod.rs"]
#[allow(dead_code, reason = "only its readings are compared here")]
pub mod reference;
