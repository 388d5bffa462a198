//! A table by group number that grows and never moves: what is in it can be reached from any thread without a lock.
//!
//! # Invariant
//! An entry is made once and stays where it is for as long as the table lives.

use std::sync::OnceLock;

use stipend_timers::GroupId;

const CHUNK: usize = 256;

/// The table.
pub(crate) struct Table<T> {
    chunks: Box<[OnceLock<Chunk<T>>]>,
}

type Chunk<T> = Box<[OnceLock<T>]>;

impl<T> Table<T> {
    pub(crate) fn new() -> Self {
        Self { chunks: cells(GroupId::LIMIT.div_ceil(CHUNK)) }
    }

    #[inline]
    pub(crate) fn get(&self, id: GroupId) -> Option<&T> {
        self.chunks[id.index() / CHUNK].get()?[id.index() % CHUNK].get()
    }

    /// The entry, which is made if there is none.
    #[inline]
    pub(crate) fn get_or_make(&self, id: GroupId, make: impl FnOnce() -> T) -> &T {
        self.chunks[id.index() / CHUNK].get_or_init(|| cells(CHUNK))[id.index() % CHUNK].get_or_init(make)
    }
}

fn cells<T>(n: usize) -> Box<[OnceLock<T>]> {
    (0..n).map(|_| OnceLock::new()).collect()
}
