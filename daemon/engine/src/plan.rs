//! .

pub mod spread;
mod step;

pub use step::Step;
