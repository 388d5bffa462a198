//! One thread's use by group: a table of its own, so that adding to it touches no line that another thread writes.
//!
//! # Invariant
//! Each cell's use is written by the thread that holds the slot, and only grows. Others set its watch, seldom: see
//! [`horizon`](crate::sum::horizon).

#![allow(unsafe_code)]

use std::sync::atomic::AtomicPtr;
use std::{fmt, ptr};

use super::id::{CHUNK, CHUNKS, GroupId};
use crate::sum::horizon::Watch;
use crate::sync::{AtomicU64, Ordering};

/// A group's use on one thread, and up to where nobody need look at it, on one line.
#[repr(align(16))]
#[derive(Debug)]
pub(crate) struct Cell {
    used_ns: AtomicU64,
    pub(crate) watch: Watch,
}

impl Cell {
    fn new() -> Self {
        Self { used_ns: AtomicU64::new(0), watch: Watch::new() }
    }

    /// Adds to the use. Only the lease holder calls it. Returns whether it has to look: see
    /// [`Horizon::look`](crate::sum::horizon::Horizon::look).
    #[inline(always)]
    pub(crate) fn charge(&self, ns: u64) -> bool {
        self.used_ns.store(self.used_ns.load(Ordering::Relaxed) + ns, Ordering::Release);
        self.watch.is_on()
    }

    pub(crate) fn used_ns(&self) -> u64 {
        self.used_ns.load(Ordering::Acquire)
    }
}

type Chunk = AtomicPtr<[Cell; CHUNK]>;

/// One thread's use by group.
pub(crate) struct Shard {
    /// Null, or made here by the lease holder, leaked, and never changed again.
    chunks: [Chunk; CHUNKS],
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shard { .. }")
    }
}

/// The cells of a chunk, if it was made.
#[inline(always)]
fn made(chunk: &Chunk) -> Option<&'static [Cell; CHUNK]> {
    // SAFETY: null, or from `make`, which leaks it. Acquire: its cells are seen as they were made.
    unsafe { chunk.load(Ordering::Acquire).as_ref() }
}

/// For the lease holder.
#[cold]
fn make(chunk: &Chunk) -> &'static [Cell; CHUNK] {
    let cells = Box::leak(Box::new(std::array::from_fn(|_| Cell::new())));
    chunk.store(cells, Ordering::Release);
    cells
}

impl Shard {
    pub(crate) fn new() -> Self {
        Self { chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS] }
    }

    /// The cell of the group with this number. `None`: it is no group's number. For the lease holder.
    #[inline(always)]
    pub(crate) fn at(&self, number: u32) -> Option<&'static Cell> {
        let chunk = self.chunks.get(number as usize / CHUNK)?;
        Some(&made(chunk).unwrap_or_else(|| make(chunk))[number as usize % CHUNK])
    }

    /// The same.
    pub(crate) fn cell(&self, id: GroupId) -> &'static Cell {
        self.at(id.index() as u32).expect("a group's number is below the limit")
    }

    /// A cell as others see it. `None`: the group has not been charged here.
    pub(crate) fn view(&self, id: GroupId) -> Option<(u64, &'static Watch)> {
        let cell = &made(&self.chunks[id.index() / CHUNK])?[id.index() % CHUNK];
        Some((cell.used_ns(), &cell.watch))
    }

    pub(crate) fn used_ns(&self, id: GroupId) -> u64 {
        self.view(id).map_or(0, |(used_ns, _)| used_ns)
    }
}
