//! A table by group number that grows and never moves: what is in it can be reached from any thread without a lock.
//!
//! # Invariant
//! An entry is made once and stays where it is for as long as the table lives.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

use stipend_timers::GroupId;

const CHUNK: usize = 256;
const CHUNKS: usize = GroupId::LIMIT / CHUNK;
// A number's index is 16 bits, so no look at a table needs a check of bounds.
const _: () = assert!(CHUNK * CHUNKS == 1 << 16);

/// The table.
pub(crate) struct Table<T> {
    chunks: Box<[OnceLock<Chunk<T>>; CHUNKS]>,
}

type Chunk<T> = Box<[OnceLock<T>; CHUNK]>;

impl<T> Table<T> {
    pub(crate) fn new() -> Self {
        Self { chunks: cells() }
    }

    #[inline]
    pub(crate) fn get(&self, id: GroupId) -> Option<&T> {
        self.chunks[id.index() / CHUNK].get()?[id.index() % CHUNK].get()
    }

    /// The entry, which is made if there is none.
    #[inline]
    pub(crate) fn get_or_make(&self, id: GroupId, make: impl FnOnce() -> T) -> &T {
        self.chunks[id.index() / CHUNK].get_or_init(cells)[id.index() % CHUNK].get_or_init(make)
    }
}

/// A table of which one entry is current: to get at that one is a load.
pub(crate) struct CurrentOf<T> {
    table: Table<T>,
    /// An entry of `table`. Atomic only because such a pointer may go to another thread with the table.
    current: AtomicPtr<T>,
}

impl<T> CurrentOf<T> {
    /// A table with one entry, which is current.
    pub(crate) fn new(id: GroupId, entry: T) -> Self {
        let table = Table::new();
        let current = AtomicPtr::new(std::ptr::from_ref(table.get_or_make(id, || entry)).cast_mut());
        Self { table, current }
    }

    pub(crate) fn table(&self) -> &Table<T> {
        &self.table
    }

    #[inline]
    pub(crate) fn current(&self) -> &T {
        // SAFETY: `new` and `turn_to`, which alone store it, store the address of an entry of this table, taken from a shared reference;
        // by the table's invariant it is still there, behind boxes of its own and not in this struct, which may have moved. The table
        // lives for as long as the reference that is returned, and nobody has a mutable one to an entry: the table gives none.
        // Relaxed: to reach another thread with the table, something must have put what went before in order.
        unsafe { &*self.current.load(Ordering::Relaxed) }
    }

    /// Makes another entry current, if there is one.
    pub(crate) fn turn_to(&self, id: GroupId) {
        if let Some(entry) = self.table.get(id) {
            self.current.store(std::ptr::from_ref(entry).cast_mut(), Ordering::Relaxed);
        }
    }
}

fn cells<T, const N: usize>() -> Box<[OnceLock<T>; N]> {
    let cells: Box<[OnceLock<T>]> = (0..N).map(|_| OnceLock::new()).collect();
    cells.try_into().unwrap_or_else(|_| unreachable!("as many as were made"))
}
