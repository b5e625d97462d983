//! The kinds of Pods in one world beside those in the world before: which of them are the same,
//! so that what is known by kind is carried over, and which have to be asked about.

use std::collections::HashMap;
use std::sync::Arc;

use crate::kinds::Kinds;
use crate::labels::{Labels, Selector};
use crate::policy::PodPeer;
use crate::world::Place;

/// All that is to be known of a kind to tell it from others.
pub(super) type Known = Arc<Content>;

/// What selectors see of a kind, and whether any of its Pods is an endpoint.
#[derive(Debug)]
pub(super) struct Content {
    namespace: String,
    of_namespace: Labels,
    labels: Labels,
    attached: bool,
}

/// The same, borrowed.
type Borrowed<'k> = (&'k str, &'k Labels, &'k Labels, bool);

impl Content {
    fn of((namespace, of_namespace, labels, attached): Borrowed) -> Self {
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

/// The kinds of a world.
pub(super) struct Seen<'k, 'w> {
    pub kinds: &'k Kinds<'w>,
    /// By kind.
    pub known: Vec<Known>,
    /// The kinds that were not there before.
    pub fresh: Vec<usize>,
    /// By kind of the world before: which one it is here.
    kept: Vec<Option<usize>>,
    /// Are they the same, in the same order?
    same: bool,
    /// The fresh ones alone.
    few: Kinds<'w>,
}

impl<'k, 'w> Seen<'k, 'w> {
    pub(super) fn of(kinds: &'k Kinds<'w>, before: &[Known]) -> Self {
        let borrowed: Vec<Borrowed> = (0..kinds.all.len())
            .map(|kind| {
                let mut places = kinds.all[kind].pods.iter().map(|(_, pod)| &pod.place);
                let attached = places.any(|place| matches!(place, Place::Attached(_)));
                let (namespace, of_namespace, labels) = kinds.seen(kind);
                (namespace, of_namespace, labels, attached)
            })
            .collect();
        let same = |(one, other): (&Borrowed, &Known)| *one == other.borrowed();
        if borrowed.len() == before.len() && borrowed.iter().zip(before).all(same) {
            return Self {
                kinds,
                kept: (0..before.len()).map(Some).collect(),
                known: before.to_vec(),
                fresh: Vec::new(),
                same: true,
                few: kinds.only(&[]),
            };
        }
        let mut numbers: HashMap<Borrowed, usize> = borrowed.iter().copied().zip(0..).collect();
        let kept: Vec<Option<usize>> = before
            .iter()
            .map(|kind| numbers.remove(&kind.borrowed()))
            .collect();
        let mut fresh: Vec<usize> = numbers.into_values().collect();
        fresh.sort_unstable();
        let mut known: Vec<Option<Known>> = vec![None; borrowed.len()];
        for (kind, before) in kept.iter().zip(before) {
            if let Some(kind) = kind {
                known[*kind] = Some(Arc::clone(before));
            }
        }
        let known = known
            .into_iter()
            .zip(borrowed)
            .map(|(known, kind)| known.unwrap_or_else(|| Arc::new(Content::of(kind))))
            .collect();
        Self {
            kinds,
            known,
            kept,
            same: false,
            few: kinds.only(&fresh),
            fresh,
        }
    }

    /// What was known of kinds, for those that are still there; the rest is as nothing is known.
    pub(super) fn carry<T: Default>(&self, before: Vec<T>) -> Vec<T> {
        if self.same {
            return before;
        }
        let mut now: Vec<T> = self.known.iter().map(|_| T::default()).collect();
        for (kind, what) in self.kept.iter().zip(before) {
            if let Some(kind) = kind {
                now[*kind] = what;
            }
        }
        now
    }

    /// The endpoints' kinds that a policy's selector matches, ascending.
    pub(super) fn select(&self, namespace: &str, policy_set: &Selector) -> Vec<usize> {
        let mut selected = self.kinds.select_in(namespace, policy_set);
        selected.retain(|kind| self.known[*kind].attached);
        selected
    }

    /// Brings up to date what [`Seen::select`] gave in the world before.
    pub(super) fn select_again(
        &self,
        selected: &mut Vec<usize>,
        namespace: &str,
        policy_set: &Selector,
    ) {
        if self.same {
            return;
        }
        selected.retain_mut(|kind| match self.kept[*kind] {
            Some(now) => {
                *kind = now;
                true
            }
            None => false,
        });
        let fresh = self.few.select_in(namespace, policy_set).into_iter();
        let fresh = fresh.map(|few| self.fresh[few]);
        selected.extend(fresh.filter(|kind| self.known[*kind].attached));
        selected.sort_unstable();
    }

    /// The fresh kinds that a peer matches.
    pub(super) fn select_fresh(&self, peer: &PodPeer) -> impl Iterator<Item = usize> {
        let found = self.few.select(peer).into_iter();
        found.map(|few| self.fresh[few])
    }
}
