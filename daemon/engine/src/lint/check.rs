//! Everything that there is to say of files: what is wrong with each, with all of them together,
//! and what the lints find in the objects that they hold.

use super::{Census, Scope, Silenced, diagnostics, lint};
use crate::diagnostic::Diagnostic;
use crate::manifest::{File, Workload, assemble};
use crate::resolver;
use crate::world::{Place, Pod, World};

/// Sorted by file and place. `text` gives a file's text by its path.
#[must_use]
pub fn check<'t>(files: &[File], text: impl Fn(&str) -> Option<&'t str>) -> Vec<Diagnostic> {
    let assembled = assemble(files);
    let mut world = assembled.world();
    let has_pods = world.pods.values().any(Pod::is_enforced);
    let has_workloads = files.iter().any(|file| !file.workloads.is_empty());
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
    for workload in files.iter().flat_map(|file| &file.workloads) {
        add_workload(&mut world, workload);
    }
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
    silenced.apply(&mut all);
    all.sort_by(|a, b| {
        (&a.path, a.line, a.column, a.severity).cmp(&(&b.path, b.line, b.column, b.severity))
    });
    all
}

/// One of the Pods that a workload is to have. It has no address: it never runs here.
fn add_workload(world: &mut World, workload: &Workload) {
    let pod = Pod {
        labels: workload.labels.clone(),
        ports: workload.ports.clone(),
        place: if workload.host_network {
            Place::HostNetwork
        } else {
            Place::Local
        },
        ..Pod::default()
    };
    world.pods.entry(workload.name.clone()).or_insert(pod);
}
