//! .

use std::collections::BTreeMap;

use serde::Serialize;

use crate::policy::{Direction, ObjectName};
use crate::tables::Tables;

/// What a world compiles to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// What the kernel is to hold.
    pub tables: Tables,
    /// What the numbers in it stand for.
    pub names: Names,
}

/// What the numbers in reports stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    /// By subject.
    pub subjects: BTreeMap<u64, SubjectNames>,
}

/// What a subject stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SubjectNames {
    /// The direction that it is asked for.
    pub direction: Direction,
    /// The policies that isolate the endpoint in this direction, sorted.
    pub policies: Vec<ObjectName>,
    /// Rule number N in a verdict of this subject is element N - 1.
    pub rules: Vec<RuleName>,
}

/// One rule of one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleName {
    /// Whose.
    pub policy: ObjectName,
    /// Of its `ingress` or its `egress`.
    pub direction: Direction,
    /// Index in that list, from 0.
    pub rule: usize,
}

impl Names {
    /// The rule with this number in verdicts of this subject; `None` for 0, for
    /// [`netpol_abi::tables::RULE_DEFAULT`] and for what another world's numbers name.
    #[must_use]
    pub fn rule(&self, subject: u64, number: u32) -> Option<&RuleName> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        self.subjects.get(&subject)?.rules.get(index)
    }
}
