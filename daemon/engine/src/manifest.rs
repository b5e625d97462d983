//! Manifests: file text to objects and diagnostics.
//!
//! ```text
//!  text ─▶ tree (YAML, spans, limits) ─▶ object (kinds, Lists) ─▶ metadata, network_policy, pod
//!                                              │                        │
//!                                              └───▶ decode (types, unknown fields, field paths)
//!  Files ─▶ assemble (each object once) ─▶ World::from_objects
//! ```
//!
//! Reads as strictly as `kubectl apply --validate=strict` and validates as the API
//! server does, in its words. Pure: text in, values out, never a file, never a
//! panic, whatever the text. Called by the daemon's store, by `netpol check` and by
//! everything that works offline.

mod address;
mod assemble;
mod bookkeeping;
mod decode;
mod document;
mod finding;
mod input;
mod locate;
mod merge;
mod metadata;
mod network_policy;
mod node;
mod object;
mod peer;
mod pod;
mod port;
mod report;
mod scalar;
mod selector;
mod syntax;
mod tree;
mod workload;

pub use assemble::{Assembled, assemble};
pub use document::{
    ANNOTATION_CONTAINER, ANNOTATION_EXTERNAL, ANNOTATION_MODE, ANNOTATION_NETNS, File, Object,
    PodManifest, Position, Value, Workload,
};
pub use locate::{Mark, locate};
pub use workload::is_workload;

/// Reads a file's text. `path` only names it in diagnostics. Never panics, and takes time
/// and memory in proportion to the text.
///
/// # Examples
/// ```
/// use netpol_engine::manifest::parse;
///
/// let file = parse(
///     "db.yaml",
///     "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db}\nspec: {podSelectr: {}}\n",
/// );
/// assert!(!file.is_accepted());
/// let first = &file.diagnostics[0];
/// assert_eq!((first.line, first.rule), (4, "unknown-field"));
/// ```
#[must_use]
pub fn parse(path: &str, text: &str) -> File {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Some(diagnostic) = input::too_large(path, text.as_bytes()) {
        return input::refused(path, diagnostic);
    }
    let mut reader = object::Reader::new(path);
    for (begin, part) in input::streams(text) {
        tree::documents(part, begin, |document| match document {
            Ok(document) => reader.document(&document),
            Err(problem) => reader.broken(&problem, text),
        });
    }
    reader.report.extend(input::control_character(path, text));
    reader.report.extend(input::separators(path, text));
    File {
        path: path.to_owned(),
        documents: reader.objects,
        workloads: reader.workloads,
        diagnostics: reader.report.finish(),
    }
}

/// As [`parse`], for bytes that may not be text.
#[must_use]
pub fn parse_bytes(path: &str, bytes: &[u8]) -> File {
    // Before anything else: a text cut off in the middle of a letter is no text.
    if let Some(diagnostic) = input::too_large(path, bytes) {
        return input::refused(path, diagnostic);
    }
    match input::text(path, bytes) {
        Ok(text) => parse(path, text),
        Err(diagnostic) => input::refused(path, *diagnostic),
    }
}

#[cfg(test)]
mod tests;
