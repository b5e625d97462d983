//! Pods grouped by what selectors can see of them (namespace and labels), and the index by
//! which a selector finds its groups: a selector costs what it matches, not what there is.

use std::collections::{BTreeMap, HashMap};

use crate::labels::{Labels, Operator, Selector};
use crate::policy::{Namespaces, ObjectName, PodPeer};
use crate::world::{Place, Pod, World};

/// Pods that no selector tells apart.
pub(crate) struct PodGroup<'w> {
    pub namespace: &'w str,
    pub labels: &'w Labels,
    pub pods: Vec<(&'w ObjectName, &'w Pod)>,
}

/// All groups of Pods, those on the host's network excepted: they are the host.
pub(crate) struct PodGroups<'w> {
    pub all: Vec<PodGroup<'w>>,
    /// Indexes of groups by namespace, ascending.
    namespaces: BTreeMap<&'w str, (Labels, Vec<usize>)>,
    /// Indexes of groups by label key and value, ascending.
    postings: HashMap<&'w str, HashMap<&'w str, Vec<usize>>>,
}

impl<'w> PodGroups<'w> {
    pub(crate) fn group(world: &'w World) -> Self {
        let mut groups = Self {
            all: Vec::new(),
            namespaces: BTreeMap::new(),
            postings: HashMap::new(),
        };
        let mut known: HashMap<(&str, &Labels), usize> = HashMap::new();
        for (name, pod) in &world.pods {
            if pod.place == Place::HostNetwork {
                continue;
            }
            let namespace = name.namespace.as_str();
            let group = *known.entry((namespace, &pod.labels)).or_insert_with(|| {
                let of_namespace = || world.namespace_labels(namespace);
                groups.add(namespace, of_namespace, &pod.labels)
            });
            groups.all[group].pods.push((name, pod));
        }
        groups
    }

    /// Some of them, renumbered from 0 in this order, without their Pods.
    pub(crate) fn only(&self, some: &[usize]) -> Self {
        let mut only = Self {
            all: Vec::new(),
            namespaces: BTreeMap::new(),
            postings: HashMap::new(),
        };
        for group in some {
            let PodGroup {
                namespace, labels, ..
            } = self.all[*group];
            only.add(namespace, || self.namespaces[namespace].0.clone(), labels);
        }
        only
    }

    fn add(
        &mut self,
        namespace: &'w str,
        of_namespace: impl FnOnce() -> Labels,
        labels: &'w Labels,
    ) -> usize {
        let group = self.all.len();
        self.all.push(PodGroup {
            namespace,
            labels,
            pods: Vec::new(),
        });
        self.namespaces
            .entry(namespace)
            .or_insert_with(|| (of_namespace(), Vec::new()))
            .1
            .push(group);
        for (key, value) in labels {
            self.postings
                .entry(key)
                .or_default()
                .entry(value)
                .or_default()
                .push(group);
        }
        group
    }

    /// All that selectors can see of a group.
    pub(crate) fn selector_view(&self, group: usize) -> (&'w str, &Labels, &'w Labels) {
        let PodGroup {
            namespace, labels, ..
        } = self.all[group];
        (namespace, &self.namespaces[namespace].0, labels)
    }

    /// The groups of one namespace that a selector matches, ascending.
    pub(crate) fn select_in(&self, namespace: &str, selector: &Selector) -> Vec<usize> {
        let Some((_, inside)) = self.namespaces.get(namespace) else {
            return Vec::new();
        };
        let matches =
            |group: &PodGroup| group.namespace == namespace && selector.matches(group.labels);
        match self
            .shortest(selector)
            .filter(|list| list.len < inside.len())
        {
            Some(list) => self.filter(list.groups(), matches),
            None => self.filter(inside.iter().copied(), matches),
        }
    }

    /// The groups that a peer matches, ascending.
    pub(crate) fn select(&self, peer: &PodPeer) -> Vec<usize> {
        let selector = match &peer.namespaces {
            Namespaces::Own(namespace) => return self.select_in(namespace, &peer.pods),
            Namespaces::Matching(selector) => selector,
        };
        let here: BTreeMap<&str, &Vec<usize>> = self
            .namespaces
            .iter()
            .filter(|(_, (labels, _))| selector.matches(labels))
            .map(|(name, (_, inside))| (*name, inside))
            .collect();
        let len: usize = here.values().map(|inside| inside.len()).sum();
        let matches = |group: &PodGroup| peer.pods.matches(group.labels);
        match self.shortest(&peer.pods).filter(|list| list.len < len) {
            Some(list) => self.filter(list.groups(), |group| {
                here.contains_key(group.namespace) && matches(group)
            }),
            None => self.filter(
                here.values().flat_map(|inside| inside.iter().copied()),
                matches,
            ),
        }
    }

    fn filter(
        &self,
        candidates: impl Iterator<Item = usize>,
        matches: impl Fn(&PodGroup) -> bool,
    ) -> Vec<usize> {
        let mut found: Vec<usize> = candidates
            .filter(|group| matches(&self.all[*group]))
            .collect();
        found.sort_unstable();
        found
    }

    /// The requirement that leaves the fewest candidates. A requirement that an absent key
    /// fulfils leaves no list to look through.
    fn shortest<'s>(&'s self, selector: &Selector) -> Option<Candidates<'s>> {
        selector
            .requirements()
            .filter_map(|requirement| {
                let values = self.postings.get(requirement.key.as_str());
                let lists: Vec<&Vec<usize>> = match &requirement.operator {
                    Operator::In(wanted) => values
                        .into_iter()
                        .flat_map(|values| {
                            wanted.iter().filter_map(|value| values.get(value.as_str()))
                        })
                        .collect(),
                    Operator::Exists => values.into_iter().flat_map(HashMap::values).collect(),
                    Operator::NotIn(_) | Operator::DoesNotExist => return None,
                };
                let len = lists.iter().map(|list| list.len()).sum();
                Some(Candidates { lists, len })
            })
            .min_by_key(|candidates| candidates.len)
    }
}

/// Groups that fulfil one requirement; the lists have none in common, as a key has one value.
struct Candidates<'s> {
    lists: Vec<&'s Vec<usize>>,
    len: usize,
}

impl Candidates<'_> {
    fn groups(&self) -> impl Iterator<Item = usize> {
        self.lists.iter().flat_map(|list| list.iter().copied())
    }
}
