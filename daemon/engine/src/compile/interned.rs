//! Values under small numbers, found by their content: a number means the same from one world to
//! the next one, for as long as the value is in use.
//!
//! A digest only says which values are worth comparing. Two values with equal digests have
//! two numbers.

use std::collections::HashMap;
use std::ops::Index;

/// The values. A number that is given back is given out again, so that the numbers stay
/// small and can index lists.
#[derive(Debug)]
pub(super) struct Interned<T> {
    /// By digest: the numbers of all values that have it.
    known: HashMap<u128, Vec<usize>>,
    slots: Vec<Option<(u128, T)>>,
    free: Vec<usize>,
}

impl<T> Interned<T> {
    /// The number of the value with this digest that has the `same` content.
    pub(super) fn find(&self, digest: u128, same: impl Fn(&T) -> bool) -> Option<usize> {
        let candidates = self.known.get(&digest)?;
        candidates
            .iter()
            .copied()
            .find(|number| same(&self[*number]))
    }

    /// A number for content that has none.
    pub(super) fn add(&mut self, digest: u128, value: T) -> usize {
        let number = self.free.pop().unwrap_or(self.slots.len());
        if number == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[number] = Some((digest, value));
        self.known.entry(digest).or_default().push(number);
        number
    }

    pub(super) fn digest(&self, number: usize) -> u128 {
        self.slot(number).0
    }

    /// The value, where the number is in use.
    pub(super) fn get(&self, number: usize) -> Option<&T> {
        Some(&self.slots.get(number)?.as_ref()?.1)
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
    pub(super) fn remove(&mut self, number: usize) -> T {
        let (digest, value) = self.slots[number].take().expect("the number is in use");
        if let Some(numbers) = self.known.get_mut(&digest) {
            numbers.retain(|other| *other != number);
            if numbers.is_empty() {
                self.known.remove(&digest);
            }
        }
        self.free.push(number);
        value
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
