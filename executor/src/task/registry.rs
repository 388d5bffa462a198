//! The live tasks of a runtime: from here shutdown cancels them and `Handle::tasks` lists them.
//!
//! Sharded, so that a worker that spawns takes a lock that nobody else wants. The invariants: a task is registered
//! before anybody can run it, and leaves in the run that ends it; after `close` nothing is registered any more, so the
//! shards run dry one by one, each says so once, and the last one ends the runtime.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;
use slab::Slab;

use crate::sync::{Mutex, lock};

/// Where an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(super) shard: u16,
    pub(super) index: u32,
}

impl Key {
    /// Of a task that is not registered.
    pub(crate) const NONE: Self = Self { shard: u16::MAX, index: u32::MAX };
}

pub(crate) struct Registry<T> {
    shards: Box<[CachePadded<Mutex<Shard<T>>>]>,
    /// Shards that are closed and empty.
    dry: AtomicUsize,
}

struct Shard<T> {
    entries: Slab<T>,
    closed: bool,
}

impl<T: Clone> Registry<T> {
    pub(crate) fn new(shards: usize) -> Self {
        let shard = || CachePadded::new(Mutex::new(Shard { entries: Slab::new(), closed: false }));
        // Numbers of shards are 16 bits wide, and the last one is nobody's.
        let shards = shards.clamp(1, usize::from(Key::NONE.shard));
        Self { shards: (0..shards).map(|_| shard()).collect(), dry: AtomicUsize::new(0) }
    }

    /// Registers an entry in the shard that belongs to `hint`, if the registry is open; else hands it back.
    pub(crate) fn insert(&self, hint: usize, entry: T) -> Result<Key, T> {
        let shard_index = hint % self.shards.len();
        let mut shard = lock(&self.shards[shard_index]);
        // A shard holds at most 2^32 - 1 tasks: one more is refused, like a spawn on a closed runtime.
        match u32::try_from(shard.entries.vacant_key()) {
            Ok(index) if !shard.closed && index != u32::MAX => {
                shard.entries.insert(entry);
                Ok(Key { shard: shard_index as u16, index })
            }
            _ => Err(entry),
        }
    }

    /// Takes an entry out. The second value is true if the registry is closed and that was the last one.
    pub(crate) fn remove(&self, key: Key) -> (Option<T>, bool) {
        let Some(shard) = self.shards.get(usize::from(key.shard)) else {
            return (None, false);
        };
        let mut shard = lock(shard);
        let entry = shard.entries.try_remove(key.index as usize);
        let dry = entry.is_some() && shard.closed && shard.entries.is_empty();
        drop(shard);
        (entry, dry && self.one_more_is_dry())
    }

    /// Refuses new entries from now on. True if there is none left. Only the first call does anything.
    pub(crate) fn close(&self) -> bool {
        let mut all_dry = false;
        for shard in &self.shards {
            let mut shard = lock(shard);
            let was_closed = std::mem::replace(&mut shard.closed, true);
            let dry = !was_closed && shard.entries.is_empty();
            drop(shard);
            if dry {
                all_dry |= self.one_more_is_dry();
            }
        }
        all_dry
    }

    /// Every shard says this at most once: when it is closed empty, or when its last entry goes after that.
    fn one_more_is_dry(&self) -> bool {
        self.dry.fetch_add(1, Ordering::AcqRel) + 1 == self.shards.len()
    }

    /// The entries, shard by shard: not one moment's picture.
    pub(crate) fn list(&self) -> Vec<T> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(lock(shard).entries.iter().map(|(_, entry)| entry.clone()));
        }
        all
    }

    /// How many there are; as [`list`](Self::list).
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }
}
