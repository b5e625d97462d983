//! All rules: their codes, and a file and a page for each.
//!
//! A code is for ever: people silence it in manifests and filter by it in scripts. What is
//! told while a manifest is read has its code in [`crate::diagnostic::rule`], and its page here.

use super::ground::Ground;
use crate::diagnostic::{self, Severity, rule};
use crate::policy::Policy;

mod and_not_or;
mod block_covers_pods;
mod block_matches_nothing;
mod changes_nothing;
mod dns_missing;
mod label_spelling;
mod matches_nothing;
mod one_direction;
mod one_sided;
mod opens_everything;
mod or_not_and;
mod port_left_out;
mod port_names;
mod selector_contradicts;
mod split_rule;

/// One rule.
#[derive(Debug)]
pub struct Rule {
    /// What scripts, silencing annotations and `netpol check --explain` know it by.
    pub code: &'static str,
    /// One line.
    pub summary: &'static str,
    /// What it needs to know.
    pub scope: Scope,
    /// What it finds means nothing (any more): `netpol audit` asks it.
    pub is_dead: bool,
    pub(super) page: &'static str,
    pub(super) find: Find,
}

/// What a rule needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// What policies say.
    Policies,
    /// The Pods and Namespaces that there are, too.
    World,
}

/// Looks at everything and reports what is wrong.
type Find = for<'g, 'w> fn(&'g Ground<'w>) -> Vec<Found<'w>>;

/// One thing found.
pub(super) struct Found<'w> {
    pub policy: &'w Policy,
    pub field: String,
    pub message: String,
    pub help: String,
}

macro_rules! rules {
    ($($code:literal, $scope:ident, $dead:literal, $find:expr, $summary:literal;)*) => {
        &[$(Rule {
            code: $code,
            summary: $summary,
            scope: Scope::$scope,
            is_dead: $dead,
            page: include_str!(concat!("rules/", $code, ".md")),
            find: $find,
        }),*]
    };
}

/// All of them, by code.
pub const ALL: &[Rule] = rules! {
    "and-not-or", World, true, and_not_or::find,
        "No Pod meets both selectors of a peer, and some meet each.";
    "block-covers-pods", World, false, block_covers_pods::find,
        "An ipBlock covers addresses of Pods.";
    "block-matches-nothing", Policies, true, block_matches_nothing::find,
        "An ipBlock holds no address.";
    "changes-nothing", Policies, true, changes_nothing::find,
        "Other rules allow all that a rule or policy allows.";
    "dns-missing", Policies, false, dns_missing::find,
        "Egress is isolated, and no rule allows DNS on 53/UDP and 53/TCP.";
    "label-spelling", World, true, label_spelling::find,
        "A selector's label key differs only by its spelling from one in use.";
    "namespace-matches-nobody", World, true, matches_nothing::namespaces,
        "A namespaceSelector matches no Namespace.";
    "one-direction", Policies, false, one_direction::find,
        "A default deny names only one direction.";
    "one-sided", World, true, one_sided::find,
        "One side allows traffic that the other side denies.";
    "opens-everything", Policies, false, opens_everything::find,
        "An empty item, list or rule opens everything.";
    "or-not-and", Policies, false, or_not_and::find,
        "Two peers were probably meant as one.";
    "peer-matches-nobody", World, true, matches_nothing::peers,
        "A peer matches no Pod.";
    "port-left-out", Policies, false, port_left_out::find,
        "An item of ports without a port opens every port of its protocol.";
    "port-name-protocol", World, true, port_names::protocol,
        "A named port has another protocol at the Pods in question.";
    "port-name-unknown", World, true, port_names::unknown,
        "No Pod in question has a port of this name.";
    "selector-contradicts", Policies, true, selector_contradicts::find,
        "A selector asks two different things of one label.";
    "selects-nobody", World, true, matches_nothing::subjects,
        "A policy's podSelector matches no Pod.";
    "split-rule", Policies, false, split_rule::find,
        "Two rules, one of peers and one of ports, were probably meant as one.";
};

macro_rules! pages {
    ($($code:literal)*) => {
        &[$(($code, include_str!(concat!("rules/", $code, ".md")))),*]
    };
}

/// Pages of the warnings that are given while a manifest is read, where what they are about
/// still stands: a `null`, a digit that YAML reads otherwise.
pub(super) const READING: &[(&str, &str)] = pages! {
    "address-conflict" "direction-left-out" "empty-list" "ignored-field" "ignored-kind" "not-canonical" "null-field" "unknown-rule"
    "yaml-reading"
};

/// The page of a rule: what it finds and why, with manifests before and after, in Markdown.
#[must_use]
pub fn page(code: &str) -> Option<&'static str> {
    let lint = ALL.iter().map(|rule| (rule.code, rule.page));
    let mut pages = READING.iter().copied().chain(lint);
    pages.find_map(|(of, page)| (of == code).then_some(page))
}

/// Every rule that a finding can name, errors included, by code.
#[must_use]
pub fn every() -> Vec<diagnostic::Rule> {
    let lints = ALL.iter().map(|rule| diagnostic::Rule {
        code: rule.code,
        severity: Severity::Warning,
        summary: rule.summary,
    });
    let mut every: Vec<_> = rule::ALL.iter().copied().chain(lints).collect();
    every.sort_unstable();
    every
}
