//! The rules of manifests in one table: code, severity, summary.
//!
//! What is found with them is said elsewhere. Lints have a list of their own; each caller that
//! prints rules joins both.

use std::fmt;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file it stands in is not accepted.
    Error,
    /// It is accepted, and may not mean what its author thinks.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A rule that a manifest can break: what `netpol check` finds, in general.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Its code. Stable: scripts filter by it.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// A line on what it finds.
    pub summary: &'static str,
}

/// A constant for each code, and [`ALL`] of them.
macro_rules! rules {
    ($($name:ident = $severity:ident $code:literal: $summary:literal;)+) => {
        $(
            #[doc = $summary]
            pub const $name: &str = $code;
        )+

        /// The rules of manifests.
        pub const ALL: &[Rule] = &[
            $(Rule { code: $code, severity: Severity::$severity, summary: $summary }),+
        ];
    };
}

rules! {
    SYNTAX = Error "syntax": "It is not YAML or JSON.";
    LIMIT = Error "limit": "It is too large, too deep, or has aliases that multiply.";
    DUPLICATE_KEY = Error "duplicate-key": "A key stands twice in one mapping.";
    UNKNOWN_FIELD = Error "unknown-field": "The API has no such field here.";
    WRONG_TYPE = Error "wrong-type": "A text stands where a list should be, a number where a text should be, and so on.";
    REQUIRED = Error "required": "The API server's `Required value`.";
    INVALID = Error "invalid": "The API server's `Invalid value`.";
    UNSUPPORTED = Error "unsupported": "The API server's `Unsupported value`.";
    FORBIDDEN = Error "forbidden": "The API server's `Forbidden`.";
    DUPLICATE_VALUE = Error "duplicate-value": "The API server's `Duplicate value`, inside one object.";
    DUPLICATE_OBJECT = Error "duplicate-object": "Two objects have one kind, namespace and name.";
    UNKNOWN_VERSION = Error "unknown-version": "The kind does not exist, or not in this API version.";
    IGNORED_KIND = Warning "ignored-kind": "The kind means nothing to netpold.";
    NULL_FIELD = Warning "null-field": "No value is given where leaving the field out and `{}` differ.";
    EMPTY_LIST = Warning "empty-list": "A list without an item stands where an empty list is everything.";
    DIRECTION_LEFT_OUT = Warning "direction-left-out": "Rules are of a direction that `policyTypes` does not name.";
    NOT_CANONICAL = Warning "not-canonical": "An IPv6 block is not written as RFC 5952 has it.";
    YAML_READING = Warning "yaml-reading": "YAML reads the text as something else than it looks like.";
    IGNORED_FIELD = Warning "ignored-field": "The field has no effect where it stands.";
    UNKNOWN_RULE = Warning "unknown-rule": "A silencing annotation names a rule that there is not.";
    ADDRESS_CONFLICT = Warning "address-conflict": "Two Pods state one address.";
}
