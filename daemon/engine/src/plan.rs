//! .

pub(crate) mod both;
pub mod spread;
mod step;

pub use step::Step;
