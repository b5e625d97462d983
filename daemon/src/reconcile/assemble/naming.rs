//! Which container is which Pod: its own labels name it, a manifest may complete it, and a name once
//! given stays.

use std::collections::{BTreeMap, BTreeSet};

use netpol_engine::manifest::PodManifest;
use netpol_engine::policy::ObjectName;
use netpol_engine::world::Pod;

use super::{Assembly, containers::joined};
use crate::origin::{Origin, Reported};
use crate::printable::printable;
use crate::reconcile::register::{Key, Register};
use crate::runtime::container::{self, Container};
use crate::runtime::identity;
use crate::runtime::named::{self, Named, NotNamed};

impl Assembly<'_> {
    pub(super) fn containers(&mut self, register: &Register) {
        let observed = self.observed;
        let mut taken: BTreeSet<ObjectName> = self.out.world.pods.keys().cloned().collect();
        taken.extend(
            self.candidates
                .iter()
                .map(|candidate| candidate.name.clone()),
        );
        let mut containers: Vec<&Container> = observed
            .all_containers()
            .filter(|container| container.joined.is_none())
            .filter(|container| {
                container.is_running() || observed.containers.contains_key(&container.id)
            })
            .collect();
        // Each runtime lists its own in the order in which it made them.
        containers.sort_by_key(|container| container.created);
        joined(&mut containers, observed, register);
        // A name once given stays, whatever container comes later.
        let known = |container: &Container| {
            let record = register.records.get(&Key::from_container(container))?;
            Some(record.name.clone())
        };
        let kept: BTreeSet<ObjectName> = containers.iter().copied().filter_map(known).collect();
        let named = self.named(&containers, register);
        taken.extend(self.naming.iter().map(|(pod, _)| pod.name.clone()));
        for container in containers {
            let mut identity =
                identity::identify(container, &self.settings.labels, &self.settings.namespaces);
            let reported = Reported {
                id: container::split(&container.id).1.to_owned(),
                name: container.name.clone(),
                pod: identity.name.clone(),
                labels: identity.labels.clone(),
                ports: identity.ports.clone(),
                leaves: identity.leaves.clone(),
            };
            let manifest = named.get(container.id.as_str());
            let name = if let Some(manifest) = manifest {
                identity = identity.completed(manifest);
                identity.name.clone()
            } else {
                match known(container).filter(|name| !taken.contains(name)) {
                    Some(name) if identity::is_made_of(&name, &identity.name, &container.id) => {
                        name
                    }
                    _ => {
                        let all: BTreeSet<ObjectName> = taken.union(&kept).cloned().collect();
                        identity::unique(&identity.name, &container.id, &all)
                    }
                }
            };
            taken.insert(name.clone());
            for note in &identity.notes {
                if note.is_meant_for_us() {
                    self.out.warnings.push(format!("container {name}: {note}"));
                }
            }
            self.out
                .origins
                .namespaces
                .entry(name.namespace.clone())
                .or_default();
            let origin = self
                .out
                .origins
                .pods
                .entry(name.clone())
                .or_insert_with(|| Origin {
                    since: jiff::Timestamp::from_second(container.created).ok(),
                    ..Origin::default()
                });
            origin.container = Some(reported);
            let pod = Pod {
                labels: identity.labels,
                ports: identity.ports,
                leaves: identity.leaves,
                ..Pod::default()
            };
            self.container(container, name, pod, register);
        }
    }

    /// The manifests that name a container, by its ID. One that shares another's namespace is that
    /// one's endpoint.
    fn named(
        &mut self,
        containers: &[&Container],
        register: &Register,
    ) -> BTreeMap<String, PodManifest> {
        let observed = self.observed;
        let namespace = |id: &str| observed.containers.get(id).map(|namespace| namespace.nsid);
        let running = observed.all_containers().filter_map(|one| {
            let owner = one.joined.as_ref().unwrap_or(&one.id);
            let is_it = |owned: &&Container| {
                owned.id == *owner
                    || namespace(&one.id)
                        .is_some_and(|nsid| nsid.is_some() && namespace(&owned.id) == Some(nsid))
            };
            Some(Named {
                // containerd's are `NAMESPACE/ID`.
                id: one.id.rsplit('/').next().unwrap_or_default(),
                name: one.name.as_str(),
                value: containers.iter().position(is_it)?,
            })
        });
        let running: Vec<Named<'_, usize>> = running.collect();
        let mut named: BTreeMap<String, PodManifest> = BTreeMap::new();
        for (manifest, why) in &mut self.naming {
            let text = manifest.container.as_deref().unwrap_or_default();
            let mut meant = named::find(text, running.iter().copied());
            // Then by age, in which they are in order.
            meant.sort_by_key(|index| {
                let record = register
                    .records
                    .get(&Key::from_container(containers[*index]));
                let was_meant = record.is_some_and(|record| record.name == manifest.name);
                (!was_meant, *index)
            });
            let Some(index) = meant.first() else {
                *why = Some(NotNamed);
                continue;
            };
            let id = &containers[*index].id;
            if meant.len() > 1 {
                self.out.warnings.push(format!(
                    "Pod {}: `{text}` means {} containers, and {} is taken: give the whole ID of one",
                    manifest.name,
                    meant.len(),
                    printable(container::split(id).1),
                ));
            }
            if let Some(first) = named.get(id) {
                self.out.warnings.push(format!(
                    "Pod {}: container `{text}` is Pod {} already: its labels and ports are not added",
                    manifest.name, first.name
                ));
            } else {
                named.insert(id.clone(), manifest.clone());
            }
        }
        named
    }
}
