//! What is known of the programs of one interface.

/// Where an interface's programs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Ordered.
    Pending,
    /// On both hooks.
    On,
    /// Not there, and why.
    Failed(String),
}
