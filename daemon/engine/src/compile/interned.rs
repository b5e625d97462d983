//! Values under small numbers, each known by the digest of its content: a number means the same
//! from one world to the next one, for as long as the value is in use.

use std::collections::HashMap;
use std::ops::Index;

/// The values. A number that is given back is given out again, so that the numbers stay
/// small and can index lists.
#[derive(Debug)]
pub(super) struct Interned<T> {
    known: HashMap<u128, usize>,
    slots: Vec<Option<(u128, T)>>,
    free: Vec<usize>,
}

impl<T> Interned<T> {
    /// The number of the content with this digest.
    pub(super) fn find(&self, digest: u128) -> Option<usize> {
        self.known.get(&digest).copied()
    }

    /// A number for content that has none.
    pub(super) fn add(&mut self, digest: u128, value: T) -> usize {
        let number = self.free.pop().unwrap_or(self.slots.len());
        if number == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[number] = Some((digest, value));
        self.known.insert(digest, number);
        number
    }

    pub(super) fn digest(&self, number: usize) -> u128 {
        self.slot(number).0
    }

    pub(super) fn value_mut(&mut self, number: usize) -> &mut T {
        let slot = self.slots[number].as_mut();
        &mut slot.expect("the number is in use").1
    }

    /// All of them, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(number, slot)| Some((number, &slot.as_ref()?.1)))
    }

    /// One past the highest number.
    pub(super) fn bound(&self) -> usize {
        self.slots.len()
    }

    /// Takes out what is not in use any more.
    pub(super) fn remove(&mut self, number: usize) -> (u128, T) {
        let (digest, value) = self.slots[number].take().expect("the number is in use");
        self.known.remove(&digest);
        self.free.push(number);
        (digest, value)
    }

    fn slot(&self, number: usize) -> &(u128, T) {
        self.slots[number].as_ref().expect("the number is in use")
    }
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self {
            known: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Index<usize> for Interned<T> {
    type Output = T;

    fn index(&self, number: usize) -> &T {
        &self.slot(number).1
    }
}
