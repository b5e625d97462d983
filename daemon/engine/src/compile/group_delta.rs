//! The groups of Pods in one world beside those in the world before: which of them are the same,
//! so that what is known by group is carried over, and which have to be asked about.

use std::collections::HashMap;
use std::sync::Arc;

use crate::labels::{Labels, Selector};
use crate::pod_groups::PodGroups;
use crate::policy::PodPeer;
use crate::world::Place;

/// All that is to be known of a group to tell it from others.
pub(super) type GroupKey = Arc<GroupContent>;

/// What selectors see of a group, and whether any of its Pods is an endpoint.
#[derive(Debug)]
pub(super) struct GroupContent {
    namespace: String,
    of_namespace: Labels,
    labels: Labels,
    attached: bool,
}

/// The same, borrowed.
type Borrowed<'k> = (&'k str, &'k Labels, &'k Labels, bool);

impl GroupContent {
    fn from_borrowed((namespace, of_namespace, labels, attached): Borrowed) -> Self {
        Self {
            namespace: namespace.to_owned(),
            of_namespace: of_namespace.clone(),
            labels: labels.clone(),
            attached,
        }
    }

    fn borrowed(&self) -> Borrowed<'_> {
        let Self {
            namespace,
            of_namespace,
            labels,
            attached,
        } = self;
        (namespace, of_namespace, labels, *attached)
    }
}

/// The groups of a world.
pub(super) struct GroupDelta<'k, 'w> {
    pub groups: &'k PodGroups<'w>,
    /// By group.
    pub known: Vec<GroupKey>,
    /// The groups that were not there before.
    pub fresh: Vec<usize>,
    /// By group of the world before: which one it is here.
    kept: Vec<Option<usize>>,
    /// Are they the same, in the same order?
    same: bool,
    /// The fresh ones alone.
    few: PodGroups<'w>,
}

impl<'k, 'w> GroupDelta<'k, 'w> {
    pub(super) fn between(groups: &'k PodGroups<'w>, before: &[GroupKey]) -> Self {
        let borrowed: Vec<Borrowed> = (0..groups.all.len())
            .map(|group| {
                let mut places = groups.all[group].pods.iter().map(|(_, pod)| &pod.place);
                let attached = places.any(|place| matches!(place, Place::Attached(_)));
                let (namespace, of_namespace, labels) = groups.selector_view(group);
                (namespace, of_namespace, labels, attached)
            })
            .collect();
        let same = |(one, other): (&Borrowed, &GroupKey)| *one == other.borrowed();
        if borrowed.len() == before.len() && borrowed.iter().zip(before).all(same) {
            return Self {
                groups,
                kept: (0..before.len()).map(Some).collect(),
                known: before.to_vec(),
                fresh: Vec::new(),
                same: true,
                few: groups.only(&[]),
            };
        }
        let mut numbers: HashMap<Borrowed, usize> = borrowed.iter().copied().zip(0..).collect();
        let kept: Vec<Option<usize>> = before
            .iter()
            .map(|group| numbers.remove(&group.borrowed()))
            .collect();
        let mut fresh: Vec<usize> = numbers.into_values().collect();
        fresh.sort_unstable();
        let mut known: Vec<Option<GroupKey>> = vec![None; borrowed.len()];
        for (group, before) in kept.iter().zip(before) {
            if let Some(group) = group {
                known[*group] = Some(Arc::clone(before));
            }
        }
        let known = known
            .into_iter()
            .zip(borrowed)
            .map(|(known, group)| {
                known.unwrap_or_else(|| Arc::new(GroupContent::from_borrowed(group)))
            })
            .collect();
        Self {
            groups,
            known,
            kept,
            same: false,
            few: groups.only(&fresh),
            fresh,
        }
    }

    /// What was known of groups, for those that are still there; the rest is as nothing is known.
    pub(super) fn carry<T: Default>(&self, before: Vec<T>) -> Vec<T> {
        if self.same {
            return before;
        }
        let mut now: Vec<T> = self.known.iter().map(|_| T::default()).collect();
        for (group, what) in self.kept.iter().zip(before) {
            if let Some(group) = group {
                now[*group] = what;
            }
        }
        now
    }

    /// The endpoints' groups that a policy's selector matches, ascending.
    pub(super) fn select(&self, namespace: &str, selector: &Selector) -> Vec<usize> {
        let mut selected = self.groups.select_in(namespace, selector);
        selected.retain(|group| self.known[*group].attached);
        selected
    }

    /// Brings up to date what [`GroupDelta::select`] gave in the world before.
    pub(super) fn select_again(
        &self,
        selected: &mut Vec<usize>,
        namespace: &str,
        selector: &Selector,
    ) {
        if self.same {
            return;
        }
        selected.retain_mut(|group| match self.kept[*group] {
            Some(now) => {
                *group = now;
                true
            }
            None => false,
        });
        let fresh = self.few.select_in(namespace, selector).into_iter();
        let fresh = fresh.map(|few| self.fresh[few]);
        selected.extend(fresh.filter(|group| self.known[*group].attached));
        selected.sort_unstable();
    }

    /// The fresh groups that a peer matches.
    pub(super) fn select_fresh(&self, peer: &PodPeer) -> impl Iterator<Item = usize> {
        let found = self.few.select(peer).into_iter();
        found.map(|few| self.fresh[few])
    }
}
