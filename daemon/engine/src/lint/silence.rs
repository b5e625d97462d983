//! The annotation that silences rules on one object.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Finding, rules};
use crate::diagnostic::{Diagnostic, Severity, rule};
use crate::object::ObjectId;
use crate::spelling;

/// Codes of rules that are not to be reported for this object, separated by commas.
pub const ANNOTATION: &str = "netpold.io/lint-ignore";

/// What every object silences.
#[derive(Clone, Debug, Default)]
pub struct Silenced {
    codes: HashMap<ObjectId, BTreeSet<String>>,
}

impl Silenced {
    /// By these objects' annotations.
    #[must_use]
    pub fn by<'a>(
        objects: impl IntoIterator<Item = (ObjectId, &'a BTreeMap<String, String>)>,
    ) -> Self {
        let silencing = objects.into_iter().filter_map(|(object, annotations)| {
            let text = annotations.get(ANNOTATION)?;
            Some((object, codes(text).map(str::to_owned).collect()))
        });
        Self {
            codes: silencing.collect(),
        }
    }

    /// Is this rule silent on this object?
    #[must_use]
    pub fn holds(&self, object: &ObjectId, code: &str) -> bool {
        let codes = self.codes.get(object);
        codes.is_some_and(|codes| codes.contains(code))
    }

    /// Takes out what is silenced; errors never are.
    pub fn apply(&self, diagnostics: &mut Vec<Diagnostic>) {
        if self.codes.is_empty() {
            return;
        }
        diagnostics.retain(|found| {
            found.severity == Severity::Error
                || !found
                    .object_id()
                    .is_some_and(|object| self.holds(&object, found.rule))
        });
    }

    /// Annotations with codes of no rule: what they were to silence goes on.
    #[must_use]
    pub fn unknown(&self) -> Vec<Finding> {
        let every = rules::every().into_iter();
        let warnings = every.filter(|rule| rule.severity == Severity::Warning);
        let known: Vec<&str> = warnings.map(|rule| rule.code).collect();
        let mut found = Vec::new();
        for (object, codes) in &self.codes {
            for code in codes.iter().filter(|code| !known.contains(&code.as_str())) {
                found.push(Finding {
                    object: object.clone(),
                    field: format!("metadata.annotations[{ANNOTATION}]"),
                    code: rule::UNKNOWN_RULE,
                    message: format!("there is no rule `{code}` to silence"),
                    help: Some(match spelling::nearest(code, &known) {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => "`netpol check --rules` lists them".to_owned(),
                    }),
                });
            }
        }
        found.sort_unstable();
        found
    }
}

fn codes(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace())
        .filter(|code| !code.is_empty())
}
