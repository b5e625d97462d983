//! `netpol diff`: what opens and what closes.
//!
//! Against what is in force, NEW takes the place of the manifests directory: containers stay
//! as they run, and every object that came from a manifest gives way to NEW's.

use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use netpol_engine::diff::{self, Objects, Row, Turn};
use netpol_engine::manifest::{PodManifest, Value};
use netpol_engine::policy::{Mode, ObjectName};
use netpol_engine::reach::Members;
use netpol_engine::world::{Place, Pod, World};

use super::Exit;
use super::endpoints::PodSetFormatter;
use super::output::{Columns, Form, Output, fold, paint, width};
use super::source::{Manifests, NoWorld, Source};
use crate::api::wire::Listing;
use crate::origin::{Origin, Reported};
use crate::printable::printable;
use crate::runtime::identity::Identity;
use crate::runtime::named::{self, Named};

/// Objects of a kind that are named.
const NAMED: usize = 10;
/// Words for the ends of a row.
const WORDS: usize = 6;
/// Columns of the terminal that are not for ends and ports.
const FIRST: usize = "- closes".len() + 3 * 3;

/// What opens and what closes
///
/// With one path: what would change if it took the place of the manifests that are
/// in force. The containers that run now stay as they are. With two: what changes
/// from the one to the other, by the Pods in them.
///
/// Compared are pairs of Pods that both sides know, by name, and each of them with
/// the host and with addresses outside. What only one side has is listed. Pods that
/// have IPv4 and IPv6 are compared over each; where the two differ, ports say which.
#[derive(Debug, clap::Args)]
#[command(
    allow_missing_positional = true,
    after_help = "\
Exit code 0 where nothing opens or closes, 1 where something does, 2 where it could
not be compared.

Examples:
  netpol diff ./manifests                  what is in force, and ./manifests
  netpol diff ./before ./after             two directories, offline
  netpol diff before.yaml after.yaml -o wide
  git worktree add /tmp/main main && netpol diff /tmp/main/manifests ./manifests"
)]
pub struct Diff {
    /// A directory or file of manifests; left out: what is in force
    #[arg(value_name = "OLD")]
    old: Option<PathBuf>,
    /// A directory or file of manifests
    #[arg(value_name = "NEW")]
    new: PathBuf,
    #[command(flatten)]
    form: Form,
}

impl Diff {
    pub(super) fn run(&self, source: &Source, out: &mut dyn Write) -> anyhow::Result<Exit> {
        let (old, new) = match self.worlds(source) {
            Ok(worlds) => worlds,
            Err(none) => return none.exit(),
        };
        let diff = diff::Diff::between(&old, &new)?;
        if !self.form.output.value(out, &diff)? {
            self.write(&diff, width(), out)?;
            summarize(&diff);
        }
        if diff.compared_pods() == 0 {
            // Neither 0 nor 1: that nothing opens is not known.
            bail!(
                "there was nothing to compare: no Pod is on both sides\n  \
                 `netpol diff NEW` compares by the containers that run here; offline, manifests of Pods or of workloads \
                 (Deployment and its like) on both sides stand for them"
            );
        }
        Ok(Exit::answer(diff.is_empty()))
    }

    fn worlds(&self, source: &Source) -> Result<(World, World), NoWorld> {
        if self.old.is_some() && matches!(source, Source::Directory(_)) {
            return Err(NoWorld::Failed(anyhow::anyhow!(
                "`--manifests` is the old side: it has no meaning with two paths\n  \
                 say `netpol diff OLD NEW`, or `netpol diff --manifests OLD NEW`"
            )));
        }
        let read = |path: &PathBuf| Ok::<_, NoWorld>(Manifests::read(path)?.listing().world);
        match (&self.old, source) {
            (Some(old), _) => Ok((read(old)?, read(&self.new)?)),
            (None, Source::Directory(old)) => Ok((read(old)?, read(&self.new)?)),
            (None, Source::Daemon(_)) => {
                let in_force = source.listing()?;
                let new = in_place_of_manifests(&in_force, &Manifests::read(&self.new)?);
                Ok((in_force.world, new))
            }
        }
    }

    fn write(&self, diff: &diff::Diff, width: usize, out: &mut dyn Write) -> anyhow::Result<()> {
        let named = if self.form.output == Output::Wide {
            usize::MAX
        } else {
            NAMED
        };
        let mut objects = Vec::new();
        objects.extend(listed("policy", "policies", &diff.policies, named));
        objects.extend(listed("Namespace", "Namespaces", &diff.namespaces, named));
        objects.extend(listed("Pod", "Pods", &diff.pods, named));
        for line in &objects {
            writeln!(out, "{line}")?;
        }
        if diff.is_empty() {
            return Ok(());
        }
        if !objects.is_empty() {
            writeln!(out)?;
        }
        let mut columns = Columns::new(&["CHANGE", "FROM", "TO", "PORTS"]);
        // What becomes of the ports on each line.
        let mut turns = Vec::new();
        if self.form.output == Output::Wide {
            for turn in [Turn::Opened, Turn::Closed] {
                for (from, to, ports) in diff.pairs(turn) {
                    turns.push(turn);
                    columns.row([
                        word(turn).to_owned(),
                        from.to_string(),
                        to.to_string(),
                        ports.to_string(),
                    ]);
                }
            }
        } else {
            let pods = diff.ends().iter().filter_map(|members| match members {
                Members::Pods(pods) => Some(pods),
                Members::Host(_) | Members::Strangers(_) => None,
            });
            let formatter = PodSetFormatter::new(pods.flatten().copied());
            for row in diff.rows() {
                let height = columns.folded(cells(&formatter, &row, width));
                turns.extend(std::iter::repeat_n(row.turn, height));
            }
        }
        let mut lines = columns.lines().into_iter();
        for header in lines.by_ref().take(1) {
            writeln!(out, "{header}")?;
        }
        for (line, turn) in lines.zip(turns) {
            writeln!(out, "{}", paint(&line, turn == Turn::Opened))?;
        }
        Ok(())
    }
}

/// What would be in force with these manifests in the place of those that are.
fn in_place_of_manifests(in_force: &Listing, new: &Manifests) -> World {
    let Listing { world, origins } = in_force;
    let is_from_a_manifest = |name: &&ObjectName| {
        origins
            .pods
            .get(*name)
            .is_some_and(|origin| origin.file.is_some())
    };
    let mut after = World {
        host: world.host.clone(),
        settings: world.settings,
        ..World::default()
    };
    let mut containers = Containers::new(in_force);
    for object in new.objects() {
        match &object.value {
            Value::NetworkPolicy(policy) => {
                after.policies.insert(policy.name.clone(), policy.clone());
            }
            Value::Namespace { name, mode } => {
                after.namespaces.insert(name.clone(), object.labels.clone());
                if *mode == Mode::Audit {
                    after.audited.insert(name.clone());
                }
            }
            Value::Pod(manifest) => {
                let pod = match containers.take(manifest) {
                    Some(pod) => pod,
                    None => declared(manifest, world.pods.get(&manifest.name)),
                };
                after.pods.insert(manifest.name.clone(), pod);
            }
        }
    }
    for (name, pod) in containers.rest() {
        after.pods.entry(name).or_insert(pod);
    }
    for (name, pod) in &world.pods {
        let is_container = origins
            .pods
            .get(name)
            .is_some_and(|origin| origin.container.is_some());
        if !is_container && !is_from_a_manifest(&name) {
            // What a runtime reports, or the daemon itself, which yields to a manifest.
            after
                .pods
                .entry(name.clone())
                .or_insert_with(|| pod.clone());
        }
    }
    after
}

/// The containers that run: manifests may name them, and the rest stay what they are by themselves.
struct Containers<'a>(Vec<(&'a ObjectName, &'a Origin, &'a Reported, &'a Pod)>);

impl<'a> Containers<'a> {
    fn new(in_force: &'a Listing) -> Self {
        let all = in_force.origins.pods.iter().filter_map(|(name, origin)| {
            let reported = origin.container.as_ref()?;
            Some((name, origin, reported, in_force.world.pods.get(name)?))
        });
        Self(all.collect())
    }

    /// The one that a manifest names, completed by it.
    fn take(&mut self, manifest: &PodManifest) -> Option<Pod> {
        let all = self.0.iter().enumerate();
        let all = all.map(|(index, (_, _, reported, _))| Named {
            id: &reported.id,
            name: &reported.name,
            value: index,
        });
        let index = *named::find(manifest.container.as_ref()?, all).first()?;
        let (_, _, reported, pod) = self.0.remove(index);
        let completed = by_itself(reported).completed(manifest);
        Some(Pod {
            labels: completed.labels,
            ports: completed.ports,
            leaves: completed.leaves,
            ..pod.clone()
        })
    }

    /// Those that no manifest names. One that was named until now has its own name again.
    fn rest(self) -> impl Iterator<Item = (ObjectName, Pod)> {
        self.0.into_iter().map(|(name, origin, reported, pod)| {
            if origin.file.is_none() {
                return (name.clone(), pod.clone());
            }
            let own = by_itself(reported);
            let pod = Pod {
                labels: own.labels,
                ports: own.ports,
                leaves: own.leaves,
                ..pod.clone()
            };
            (own.name, pod)
        })
    }
}

fn by_itself(reported: &Reported) -> Identity {
    Identity {
        name: reported.pod.clone(),
        labels: reported.labels.clone(),
        ports: reported.ports.clone(),
        leaves: reported.leaves.clone(),
        notes: Vec::new(),
    }
}

/// A Pod as the daemon would have it by this manifest; `here` is what it has of that name now.
fn declared(manifest: &PodManifest, here: Option<&Pod>) -> Pod {
    let mut pod = Pod::from(manifest);
    if manifest.netns.is_some() || manifest.container.is_some() {
        // Where it is and what addresses it has is found on the host.
        let there = here.filter(|pod| pod.place != Place::External);
        pod.place = there.map_or(Place::Local, |pod| pod.place.clone());
        pod.addresses = there.map_or_else(Default::default, |pod| pod.addresses.clone());
    } else if pod.place == Place::Local {
        pod.place = Place::External;
    }
    pod
}

/// `+ policy shop/db`, a line for each; of many, how many there are besides.
fn listed<N: ToString>(one: &str, many: &str, objects: &Objects<N>, named: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for (sign, names) in [
        ('+', &objects.added),
        ('-', &objects.removed),
        ('~', &objects.changed),
    ] {
        let shown = if names.len() > named {
            named - 1
        } else {
            names.len()
        };
        let mut texts: Vec<String> = names[..shown]
            .iter()
            .map(|name| format!("{sign} {one} {}", printable(&name.to_string())))
            .collect();
        if shown < names.len() {
            texts.push(format!("{sign} {} more {many}", names.len() - shown));
        }
        lines.extend(texts.into_iter().map(|text| match sign {
            '~' => text,
            _ => paint(&text, sign == '+'),
        }));
    }
    lines
}

/// The cells of a row: ends and ports share what the first column leaves of the width.
fn cells<'w>(formatter: &PodSetFormatter<'w>, row: &Row<'_, 'w>, width: usize) -> [Vec<String>; 4] {
    let ports: Vec<String> = row
        .ports
        .to_string()
        .split(", ")
        .map(str::to_owned)
        .collect();
    let share = width.saturating_sub(FIRST);
    [
        vec![word(row.turn).to_owned()],
        fold(
            &formatter.ends(&row.from, only(&row.to), WORDS),
            share * 2 / 5,
        ),
        fold(
            &formatter.ends(&row.to, only(&row.from), WORDS),
            share * 2 / 5,
        ),
        fold(&ports, share / 5),
    ]
}

/// The Pod that these ends are, where they are one.
fn only<'w>(ends: &[&Members<'w>]) -> Option<&'w ObjectName> {
    match ends {
        [Members::Pods(pods)] if pods.len() == 1 => Some(pods[0]),
        _ => None,
    }
}

const fn word(turn: Turn) -> &'static str {
    match turn {
        Turn::Opened => "+ opens",
        Turn::Closed => "- closes",
    }
}

/// What it comes to, in a sentence; data goes to stdout, this does not.
fn summarize(diff: &diff::Diff) {
    let pairs = |turn, one: &str, many: &str| match diff.count(turn) {
        0 => None,
        1 => Some(format!("1 pair {one}")),
        count => Some(format!("{count} pairs {many}")),
    };
    let parts = [
        pairs(Turn::Opened, "opens", "open"),
        pairs(Turn::Closed, "closes", "close"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() {
        anstream::eprintln!("nothing opens, nothing closes");
    } else {
        anstream::eprintln!("{}", parts.join(", "));
    }
}

#[cfg(test)]
mod tests;
