//! Everything that there is to say of files: what is wrong with each, with all of them together,
//! and what the lints find in the objects that they hold.

use super::{Census, Scope, Silenced, diagnostics, lint};
use crate::diagnostic::{Diagnostic, rule};
use crate::manifest::{File, assemble, is_workload};
use crate::resolver;
use crate::world::Pod;

/// Sorted by file and place. `text` gives a file's text by its path.
///
/// # Examples
/// The second dash opens every port of TCP:
///
/// ```
/// use netpol_engine::{lint, manifest};
///
/// let text = "
/// apiVersion: networking.k8s.io/v1
/// kind: NetworkPolicy
/// metadata: {name: db}
/// spec:
///   podSelector: {}
///   ingress:
///   - from: [{podSelector: {}}]
///     ports:
///     - port: 5432
///     - protocol: TCP
/// ";
/// let found = lint::check(&[manifest::parse("db.yaml", text)], |_| Some(text));
/// assert!(found.iter().any(|found| found.rule == "port-left-out"));
/// ```
#[must_use]
pub fn check<'t>(files: &[File], text: impl Fn(&str) -> Option<&'t str>) -> Vec<Diagnostic> {
    let assembled = assemble(files);
    let mut world = assembled.offline_world();
    let has_pods = assembled.world().pods.values().any(Pod::is_enforced);
    let has_workloads = !assembled.workloads.is_empty();
    // What an error took out of the world may be just what is missing in it.
    let census = if has_pods && files.iter().all(File::is_accepted) {
        Census::Complete
    } else {
        Census::Partial
    };
    // A policy by itself need not name those it is for.
    let scopes: &[Scope] = if has_pods || has_workloads {
        &[Scope::Policies, Scope::World]
    } else {
        &[Scope::Policies]
    };
    resolver::add_to(&mut world);
    let annotated = assembled
        .objects()
        .map(|object| (object.id(), &object.annotations));
    let silenced = Silenced::by(annotated);
    let mut findings = lint(&world, census, scopes);
    findings.extend(silenced.unknown());
    let mut all = diagnostics(findings, &assembled, text);
    all.extend(assembled.diagnostics);
    all.extend(
        files
            .iter()
            .flat_map(|file| file.diagnostics.iter().cloned()),
    );
    // What is read of a workload here is its Pods.
    let is_read = |found: &Diagnostic| {
        found.rule == rule::IGNORED_KIND && found.kind.as_deref().is_some_and(is_workload)
    };
    all.retain(|found| !is_read(found));
    silenced.apply(&mut all);
    all.sort_by(|a, b| {
        (&a.path, a.line, a.column, a.severity).cmp(&(&b.path, b.line, b.column, b.severity))
    });
    all
}
