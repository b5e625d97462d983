//! Placeholder until the modules land.
fn main() {}
