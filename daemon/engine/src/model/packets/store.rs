//! Entries that are handed out while others are added, as the kernel's maps do it: each has a
//! place of its own and never moves. Without locks and without `unsafe`, so for one thread.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;

/// Chunks of places, each twice as large as the one before.
const CHUNKS: usize = 24;

/// A table.
pub struct Store<K, V> {
    places: [OnceCell<Box<[Cell<V>]>>; CHUNKS],
    index: RefCell<Index<K>>,
    /// Entries that there is room for.
    pub limit: usize,
}

struct Index<K> {
    by_key: BTreeMap<K, usize>,
    /// Places of removed entries.
    free: Vec<usize>,
    /// Places that were used, ever.
    used: usize,
}

impl<K, V> Default for Store<K, V> {
    fn default() -> Self {
        Self {
            places: [const { OnceCell::new() }; CHUNKS],
            index: RefCell::new(Index {
                by_key: BTreeMap::new(),
                free: Vec::new(),
                used: 0,
            }),
            limit: (1 << CHUNKS) - 1,
        }
    }
}

impl<K: Ord + Copy, V: Copy + Default> Store<K, V> {
    pub fn get(&self, key: &K) -> Option<&Cell<V>> {
        let place = *self.index.borrow().by_key.get(key)?;
        Some(self.at(place))
    }

    /// Adds an entry; false where there is no room, or an entry already.
    pub fn enter(&self, key: &K, value: &V) -> bool {
        let mut index = self.index.borrow_mut();
        if index.by_key.len() >= self.limit || index.by_key.contains_key(key) {
            return false;
        }
        let place = index.free.pop().unwrap_or(index.used);
        index.used = index.used.max(place + 1);
        index.by_key.insert(*key, place);
        self.at(place).set(*value);
        true
    }

    /// No other reference to the entry exists meanwhile.
    pub fn remove(&mut self, key: &K) {
        let index = self.index.get_mut();
        if let Some(place) = index.by_key.remove(key) {
            index.free.push(place);
        }
    }

    /// All of them, by key.
    pub fn entries(&self) -> Vec<(K, V)> {
        let index = self.index.borrow();
        let entries = index.by_key.iter();
        entries
            .map(|(key, place)| (*key, self.at(*place).get()))
            .collect()
    }

    fn at(&self, place: usize) -> &Cell<V> {
        let chunk = (place + 1).ilog2();
        let first = (1 << chunk) - 1;
        let make = || vec![Cell::new(V::default()); 1 << chunk].into();
        &self.places[chunk as usize].get_or_init(make)[place - first]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_stays_where_it_is_while_others_come_and_go() {
        let mut store = Store::<u32, u32>::default();
        for key in 0..100 {
            assert!(store.enter(&key, &(key * 2)));
        }
        let seventh = store.get(&7).expect("entered");
        for key in 100..1000 {
            assert!(store.enter(&key, &key));
        }
        seventh.set(70);
        assert!(!store.enter(&7, &1), "it is there already");
        assert_eq!(store.get(&7).map(Cell::get), Some(70));
        store.remove(&8);
        assert!(store.get(&8).is_none());
        assert!(store.enter(&1000, &5) && store.enter(&8, &9));
        assert_eq!(store.entries().len(), 1001);
        assert_eq!(store.entries()[7..10], [(7, 70), (8, 9), (9, 18)]);
    }

    #[test]
    fn a_full_table_takes_nothing() {
        let mut store = Store::<u8, u8> {
            limit: 1,
            ..Store::default()
        };
        assert!(store.enter(&1, &1) && !store.enter(&2, &2));
        store.remove(&1);
        assert!(store.enter(&2, &2));
    }
}
