//! Lints: manifests that are valid and may not mean what their author thinks.
//!
//! ```text
//!  World ─▶ Ground (policies by Namespace, groups of Pods) ─▶ a rule a file ─▶ Finding
//!                                                                              │ less the silenced
//!                                      Diagnostic ◀── its place in its file ◀──┘
//! ```
//!
//! Every rule has a stable code, an entry in [`rules::ALL`] and a page beside it
//! (`rules/CODE.md`): what it finds, why that matters, and manifests before and after. A
//! finding never changes a verdict, and its text is for the person who wrote the manifest.
//! Pure, and near linear in what there is to look at: thousands of policies are checked
//! while a user waits. Called by `netpol check` and `netpol audit`.

use std::collections::HashSet;

use crate::object::{Kind, ObjectId};
use crate::world::World;

mod check;
mod ground;
mod near;
mod report;
pub mod rules;
mod silence;
mod within;
mod words;

#[cfg(test)]
mod tests;

pub use self::check::check;
use self::ground::Ground;
pub use self::report::diagnostics;
pub use self::rules::{Rule, Scope};
pub use self::silence::{ANNOTATION, Silenced};

/// What a rule found, by field; [`diagnostics`] gives it a place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The object that it is about.
    pub object: ObjectId,
    /// The field, in the API server's notation. A label's requirement is named as if it stood
    /// in `matchLabels`.
    pub field: String,
    /// The rule's code.
    pub code: &'static str,
    /// What is wrong: a lowercase fragment.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

/// Whether the Pods of a world are all that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Census {
    /// They are: a Pod that is not among them does not exist.
    Complete,
    /// There may be others: only what looks like a slip of the pen matches nothing.
    Partial,
}

/// Everything that the rules of these scopes find in this world, sorted by object.
#[must_use]
pub fn lint(world: &World, census: Census, scopes: &[Scope]) -> Vec<Finding> {
    let ground = Ground::new(world, census);
    let asked = rules::ALL
        .iter()
        .filter(|rule| scopes.contains(&rule.scope));
    let mut findings: Vec<Finding> = asked
        .flat_map(|rule| {
            (rule.find)(&ground).into_iter().map(|found| Finding {
                object: ObjectId {
                    kind: Kind::NetworkPolicy,
                    name: found.policy.name.clone(),
                },
                field: found.field,
                code: rule.code,
                message: found.message,
                help: Some(found.help).filter(|help| !help.is_empty()),
            })
        })
        .collect();
    findings.sort_unstable();
    once(&mut findings);
    findings
}

/// A peer that matches no Pod for a dash too many or too few is told so, and not twice.
fn once(findings: &mut Vec<Finding>) {
    let dashes: HashSet<(ObjectId, String)> = findings
        .iter()
        .filter(|found| ["and-not-or", "or-not-and"].contains(&found.code))
        .map(|found| (found.object.clone(), found.field.clone()))
        .collect();
    findings.retain(|found| {
        found.code != "peer-matches-nobody"
            || !dashes.contains(&(found.object.clone(), found.field.clone()))
    });
}
