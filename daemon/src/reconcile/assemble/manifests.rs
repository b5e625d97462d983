//! What manifests state of the world: policies, Namespaces, declared Pods and peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use netpol_engine::labels::Labels;
use netpol_engine::manifest::{PodManifest, Value};
use netpol_engine::policy::{Mode, ObjectName};
use netpol_engine::world::{Place, Pod};

use super::Unprotected;
use super::{Assembly, Candidate};
use crate::links::Inside;
use crate::origin::Origin;
use crate::reconcile::observed::{Declared, Engine};
use crate::reconcile::register::{Key, Register};

impl Assembly<'_> {
    pub(super) fn manifests(&mut self, register: &Register) {
        let declared: BTreeMap<&ObjectName, &Declared> = self
            .observed
            .declared
            .iter()
            .map(|declared| (&declared.name, declared))
            .collect();
        let store = std::sync::Arc::clone(&self.observed.store);
        for (object, accepted, since) in store.objects() {
            let origin = |labels: &Labels| Origin {
                file: Some(PathBuf::from(&accepted.path)),
                since: jiff::Timestamp::try_from(since).ok(),
                labels: labels.clone(),
                annotations: object.annotations.clone(),
                container: None,
                asked_from_host: false,
            };
            match &object.value {
                Value::NetworkPolicy(policy) => {
                    let name = policy.name.clone();
                    self.out
                        .origins
                        .policies
                        .insert(name.clone(), origin(&object.labels));
                    self.out.world.policies.insert(name, policy.clone());
                }
                Value::Namespace { name, mode } => {
                    if *mode == Mode::Audit {
                        self.out.world.audited.insert(name.clone());
                    }
                    self.out
                        .origins
                        .namespaces
                        .insert(name.clone(), origin(&Labels::new()));
                    self.out
                        .world
                        .namespaces
                        .insert(name.clone(), object.labels.clone());
                }
                Value::Pod(pod) => {
                    self.out
                        .origins
                        .pods
                        .insert(pod.name.clone(), origin(&Labels::new()));
                    if pod.container.is_some() {
                        self.naming.push((pod.clone(), None));
                    } else if pod.netns.is_some() {
                        self.declared(pod, declared.get(&pod.name).copied(), register);
                    } else {
                        let mut external = Pod::from(pod);
                        if external.place == Place::Local {
                            external.place = Place::External;
                        }
                        self.out.world.pods.insert(pod.name.clone(), external);
                    }
                }
            }
        }
    }

    fn declared(&mut self, pod: &PodManifest, found: Option<&Declared>, register: &Register) {
        let without = Pod {
            labels: pod.labels.clone(),
            ports: pod.ports.clone(),
            leaves: pod.leaves.clone(),
            ..Pod::default()
        };
        let mut absent = |why: String| {
            self.out.warnings.push(format!("Pod {}: {why}", pod.name));
            self.out
                .world
                .pods
                .insert(pod.name.clone(), without.clone());
        };
        let Some(found) = found else {
            return absent("its network namespace was not looked at yet".to_owned());
        };
        let namespace = match &found.namespace {
            Ok(namespace) => namespace,
            Err(why) => {
                return absent(format!(
                    "its network namespace `{}` {why}: nothing is enforced for it until it is there",
                    found.path.display()
                ));
            }
        };
        let Some(nsid) = namespace.nsid else {
            self.out.unprotected.push(Unprotected {
                container: pod.name.to_string(),
                reason: format!(
                    "`{}` is the host's own network namespace",
                    found.path.display()
                ),
            });
            self.out.world.pods.insert(
                pod.name.clone(),
                Pod {
                    place: Place::HostNetwork,
                    ..without
                },
            );
            return;
        };
        if let Some(first) = self.owners.get(&nsid) {
            let first = first.clone();
            return absent(format!(
                "its network namespace `{}` is that of Pod {first} already",
                found.path.display()
            ));
        }
        self.owners.insert(nsid, pod.name.clone());
        let key = Key::Declared(pod.name.clone());
        let mut interfaces = self.interfaces(nsid, |veth, _| namespace.peer_of(veth)?.mac);
        interfaces.extend(self.subinterfaces(
            &pod.name,
            &[],
            namespace,
            register.record_in(&key, namespace),
        ));
        // An address that endpoints take turns for is no endpoint's own, wherever it is found.
        let is_own = |address: &IpAddr| !pod.leaves.contains(&IpNet::from(*address));
        let found = namespace.inside.iter().flat_map(Inside::usable);
        let claims = found.filter(is_own).collect();
        self.candidates.push(Candidate {
            key,
            name: pod.name.clone(),
            labels: pod.labels.clone(),
            ports: pod.ports.clone(),
            netns: namespace.identity,
            path: Some(namespace.path.clone()),
            claims,
            leaves: pod.leaves.clone(),
            published: BTreeSet::new(),
            interfaces,
            hidden: BTreeSet::new(),
            apart: false,
            given: BTreeMap::new(),
            asks: None,
        });
    }

    /// Pods of manifests whose container is not there.
    pub(super) fn absent(&mut self) {
        for (manifest, why) in std::mem::take(&mut self.naming) {
            if self.is_taken(&manifest.name) {
                continue;
            }
            let unlisted = |engine: &Engine| engine.may_have_containers() && !engine.listed;
            if let Some(why) = why.filter(|_| !self.observed.engines().any(unlisted)) {
                let text = manifest.container.as_deref().unwrap_or_default();
                self.out
                    .warnings
                    .push(format!("Pod {}: `{text}`: {why}", manifest.name));
            }
            let pod = Pod {
                labels: manifest.labels,
                ports: manifest.ports,
                leaves: manifest.leaves,
                ..Pod::default()
            };
            self.out.world.pods.insert(manifest.name, pod);
        }
    }
}
