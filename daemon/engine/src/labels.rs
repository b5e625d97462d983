//! Labels, and the selectors that match them.
//!
//! Semantics: `k8s.io/apimachinery/pkg/apis/meta/v1` `LabelSelector`: all
//! requirements must hold (AND); an empty selector matches everything; `NotIn`
//! and `DoesNotExist` hold for an absent key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

/// The labels of a Pod or a Namespace.
pub type Labels = BTreeMap<String, String>;

/// One condition of a selector.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Requirement {
    /// The label key it looks at.
    pub key: String,
    /// What must hold for it.
    pub operator: Operator,
}

/// What a requirement asks of the key's value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// The key is there and its value is one of these (`matchLabels` is this with one value).
    In(BTreeSet<String>),
    /// The key is absent or its value is none of these.
    NotIn(BTreeSet<String>),
    /// The key is there, whatever its value.
    Exists,
    /// The key is absent.
    DoesNotExist,
}

/// A label selector in canonical form: sorted, without repeats, so that two
/// selectors that say the same in another order are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Selector {
    requirements: BTreeSet<Requirement>,
}

impl Selector {
    /// The selector that matches everything.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// A selector of these requirements.
    #[must_use]
    pub fn new(requirements: impl IntoIterator<Item = Requirement>) -> Self {
        Self {
            requirements: requirements.into_iter().collect(),
        }
    }

    /// The key of which it asks what no labels can have: two different values, a value and none, a value that it forbids.
    #[must_use]
    pub fn contradiction(&self) -> Option<&str> {
        let mut keys: Vec<&str> = self.requirements.iter().map(|one| &*one.key).collect();
        keys.dedup();
        keys.into_iter().find(|key| {
            let of_key = || {
                let all = self.requirements.iter().filter(move |one| one.key == *key);
                all.map(|one| &one.operator)
            };
            let is_absent = of_key().any(|operator| *operator == Operator::DoesNotExist);
            let is_present =
                of_key().any(|operator| matches!(operator, Operator::In(_) | Operator::Exists));
            // Any value is allowed where no list says which.
            let mut lists = of_key().filter_map(|operator| match operator {
                Operator::In(values) => Some(values),
                _ => None,
            });
            let is_free = |value: &String| {
                of_key().all(|operator| match operator {
                    Operator::In(values) => values.contains(value),
                    Operator::NotIn(values) => !values.contains(value),
                    Operator::Exists | Operator::DoesNotExist => true,
                })
            };
            let has_none = lists.next().is_some_and(|first| !first.iter().any(is_free));
            (is_absent && is_present) || has_none
        })
    }

    /// Its requirements, sorted by key.
    pub fn requirements(&self) -> impl Iterator<Item = &Requirement> {
        self.requirements.iter()
    }

    /// Does it match everything?
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Do all requirements hold for these labels?
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.unmet(labels).next().is_none()
    }

    /// The requirements that do not hold for these labels.
    pub fn unmet<'s>(&'s self, labels: &Labels) -> impl Iterator<Item = &'s Requirement> {
        let requirements = self.requirements.iter();
        requirements.filter(|requirement| !requirement.matches(labels))
    }
}

impl Requirement {
    /// `key = value`.
    #[must_use]
    pub fn equals(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            operator: Operator::In(BTreeSet::from([value.into()])),
        }
    }

    /// Does it hold for these labels?
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// As `kubectl get -l` writes it; `<none>` for the selector that matches everything.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_everything() {
            return f.write_str("<none>");
        }
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &BTreeSet<String>| {
            values
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(",")
        };
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{}={}", self.key, list(values)),
            Operator::In(values) => write!(f, "{} in ({})", self.key, list(values)),
            Operator::NotIn(values) => write!(f, "{} notin ({})", self.key, list(values)),
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
        }
    }
}
