//! A hash whose elements programs read by reference, and that changes seldom.
//!
//! The kernel gives the memory of an element that was replaced or removed to the next element of the map at once (since
//! 6.1, kernel/bpf/memalloc.c). A program that still reads the old one would read what another key says. So before a put,
//! this waits for a grace period after the last removal.
//!
//! Other maps need no such wait: the programs look elements of `ADDRESSES4`, `ADDRESSES6` and `PUBLISHED` up once more
//! after reading them; `VERDICTS` and `PORT_BLOCKS` lose only what has been out of reach since an earlier grace period;
//! tries wait themselves (`bpf_mem_cache_free_rcu`, kernel/bpf/lpm_trie.c).

use aya::Pod;
use aya::maps::MapError;

use super::grace_period;
use super::maps::{Hash, MapsError, Opener};
use super::wire::Wire;
use super::write::{StepError, delete, put};

/// Such a hash.
pub(super) struct ByReference<K, V>
where
    Wire<K>: Pod,
    Wire<V>: Pod,
{
    name: &'static str,
    map: Hash<K, V>,
    /// Entries that it can hold.
    room: u32,
    /// Did an element lose its memory since the last wait?
    freed: bool,
}

impl<K, V> ByReference<K, V>
where
    Wire<K>: Pod,
    Wire<V>: Pod,
{
    pub(super) fn open(opener: &Opener<'_>, name: &'static str) -> Result<Self, MapsError> {
        Ok(Self {
            name,
            map: opener.hash(name)?,
            room: opener.room(name)?,
            // An earlier process may have removed elements just before.
            freed: true,
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Result<(K, V), MapError>> {
        self.map
            .iter()
            .map(|entry| entry.map(|(key, value)| (key.0, value.0)))
    }

    /// Puts an element in, or replaces it. Takes 5 to 30 ms where another one was removed since the last put.
    pub(super) fn put(&mut self, key: K, value: V) -> Result<(), StepError> {
        let key = Wire(key);
        if self.freed {
            grace_period::wait()?;
        }
        self.freed = self.map.get(&key, 0).is_ok();
        put(self.name, self.room, self.map.insert(&key, &Wire(value), 0))
    }

    /// A grace period has passed since the last removal.
    pub(super) const fn waited(&mut self) {
        self.freed = false;
    }

    pub(super) fn remove(&mut self, key: K) -> Result<(), StepError> {
        let removed = self.map.remove(&Wire(key));
        self.freed |= removed.is_ok();
        delete(self.name, removed)
    }
}
