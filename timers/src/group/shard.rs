//! One thread's use by group: a table of its own, so that adding to it touches no line that another thread writes.
//!
//! # Invariant
//! Each cell is written by the thread that holds the slot, and only grows.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::id::{CHUNK, CHUNKS};

/// One thread's use by group.
pub(crate) struct Shard {
    chunks: [OnceLock<Box<[AtomicU64; CHUNK]>>; CHUNKS],
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shard { .. }")
    }
}

impl Shard {
    pub(crate) fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS] }
    }

    /// Adds to a group's use on this thread. Only the lease holder calls it.
    #[inline]
    pub(crate) fn charge(&self, index: u32, ns: u64) {
        let chunk = self.chunks[index as usize / CHUNK].get_or_init(|| Box::new([const { AtomicU64::new(0) }; CHUNK]));
        let cell = &chunk[index as usize % CHUNK];
        cell.store(cell.load(Ordering::Relaxed) + ns, Ordering::Release);
    }

    pub(super) fn get(&self, index: u32) -> u64 {
        self.chunks[index as usize / CHUNK]
            .get()
            .map_or(0, |chunk| chunk[index as usize % CHUNK].load(Ordering::Acquire))
    }
}
