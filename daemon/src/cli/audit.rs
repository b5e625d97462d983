//! `netpol audit`: what is written and means nothing (any more).
//!
//! The lints that find dead things, asked of a directory, and all lints, asked of what is in force. A
//! finding is no error: the Pod may come yet. It is for people and for CI.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use netpol_engine::diagnostic::Diagnostic;
use netpol_engine::lint::{self, Census, Finding, Scope as Asked, Silenced, rules};
use netpol_engine::manifest::assemble;
use netpol_engine::object::{Kind, ObjectId};
use netpol_engine::policy::ObjectName;

use super::findings::{self, plural};
use super::output::Form;
use super::scope::Scope;
use super::source::{self, Source, Text};
use super::{Exit, junit};
use crate::api::wire::Listing;

/// Find what is written and means nothing (any more)
///
/// Selectors and peers that match no Pod, Namespaces that there are not, label keys
/// that are spelled otherwise, named ports that no Pod has, rules that others make
/// idle, and those that the other side denies. Asked of what runs now, with everything else
/// that `netpol check` finds, or offline of the Pods in a directory. `netpol check --explain RULE` has more on each rule.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 1 where something is found. The annotation netpold.io/lint-ignore on a
policy, with rules separated by commas, silences them there.

Examples:
  netpol audit
  netpol audit -n payments
  netpol audit --manifests ./manifests --junit audit.xml")]
pub struct Audit {
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    form: Form,
    /// Write JUnit's XML, for CI servers: to this file, or to stdout
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", conflicts_with = "output")]
    junit: Option<PathBuf>,
}

impl Audit {
    pub(super) fn run(&self, source: &Source, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let (listing, texts) = match source.listing_and_texts() {
            Ok(read) => read,
            Err(none) => return none.exit(),
        };
        let meant = self.meant(&listing);
        let (texts, findings) = placed(&listing, texts, found(source, &listing, &meant));
        match &self.junit {
            Some(path) if path == Path::new("-") => {
                junit::write(out, "netpol audit", meant.iter().copied(), &findings)?;
            }
            Some(path) => {
                let failed = || format!("can't write `{}`", path.display());
                let mut file = File::create(path).with_context(failed)?;
                junit::write(&mut file, "netpol audit", meant.iter().copied(), &findings)
                    .with_context(failed)?;
                findings::write(out, self.form.output, &texts, &findings)?;
            }
            None => {
                if !self.form.output.value(out, &findings)? {
                    findings::write(out, self.form.output, &texts, &findings)?;
                }
            }
        }
        anstream::eprintln!(
            "{} in {}",
            match findings.len() {
                0 => "nothing found".to_owned(),
                found => plural(found, "finding"),
            },
            match meant.len() {
                1 => "1 policy".to_owned(),
                policies => format!("{policies} policies"),
            }
        );
        Ok(Exit::answer(findings.is_empty()))
    }

    /// The policies that are asked about. All Namespaces, unless one is named: hygiene is not a
    /// matter of `default`.
    fn meant<'l>(&self, listing: &'l Listing) -> BTreeSet<&'l ObjectName> {
        let names = listing.world.policies.keys();
        names
            .filter(|name| {
                let origin = listing.origins.policies.get(name).cloned();
                let namespace = self.scope.named();
                namespace.is_none_or(|wanted| name.namespace == wanted)
                    && self.scope.selects(&origin.unwrap_or_default().labels)
            })
            .collect()
    }
}

/// What the rules for dead things find about these policies; of those in force, all rules: their
/// files may be where `netpol check` was never asked.
fn found(source: &Source, listing: &Listing, meant: &BTreeSet<&ObjectName>) -> Vec<Finding> {
    let is_live = matches!(source, Source::Daemon(_));
    let asked = |code| {
        is_live
            || rules::ALL
                .iter()
                .any(|rule| rule.code == code && rule.is_dead)
    };
    let silenced = Silenced::by(listing.origins.policies.iter().map(|(name, origin)| {
        let object = ObjectId {
            kind: Kind::NetworkPolicy,
            name: name.clone(),
        };
        (object, &origin.annotations)
    }));
    let mut findings = lint::lint(
        &listing.world,
        Census::Complete,
        &[Asked::Policies, Asked::World],
    );
    findings.retain(|found| {
        asked(found.code)
            && meant.contains(&found.object.name)
            && !silenced.holds(&found.object, found.code)
    });
    findings
}

/// The findings with their places, as far as the manifests can be read by the caller.
/// `read`: the texts that were read already; the daemon's are read here.
fn placed(
    listing: &Listing,
    read: Vec<Text>,
    findings: Vec<Finding>,
) -> (Vec<Text>, Vec<Diagnostic>) {
    let file = |name: &ObjectName| listing.origins.policies.get(name)?.file.clone();
    let texts = if read.is_empty() {
        let paths: BTreeSet<PathBuf> = findings
            .iter()
            .filter_map(|found| file(&found.object.name))
            .collect();
        let texts = paths.iter().filter_map(|path| source::read(path).ok());
        texts.collect()
    } else {
        read
    };
    let files: Vec<_> = texts.iter().map(Text::parse).collect();
    let text = |path: &str| texts.iter().find(|text| text.name == path)?.as_str();
    let mut diagnostics = lint::diagnostics(findings, &assemble(&files), text);
    for found in diagnostics.iter_mut().filter(|found| found.path.is_empty()) {
        let name = found.object_id().and_then(|object| file(&object.name));
        found.path = name.unwrap_or_default().display().to_string();
    }
    (texts, diagnostics)
}
