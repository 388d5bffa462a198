//! References to one group that a thread has in reserve, so that making and ending its members is no read-modify-write each.
//!
//! A thread that makes a member takes many references at once, and the members that end there leave theirs. It gives all of them back
//! when it is going to wait, when it charges time to its runtime, and when it makes members of another group: so a group outlives its
//! last member by no more than that.
//!
//! # Invariant
//! `left` references are held for the group `of`, which lives while there are any. Only the lease holder is here.

use super::GroupId;
use crate::sync::{AtomicU32, Ordering};

/// So many are taken at once, and so many are left when there are too many.
const BATCH: u32 = 64;

/// The reserve of one thread.
#[derive(Debug)]
pub(crate) struct Spare {
    of: AtomicU32,
    left: AtomicU32,
}

impl Spare {
    pub(crate) fn new() -> Self {
        Self { of: AtomicU32::new(0), left: AtomicU32::new(0) }
    }

    fn left_of(&self, id: GroupId) -> u32 {
        if self.of.load(Ordering::Relaxed) == id.index() as u32 { self.left.load(Ordering::Relaxed) } else { 0 }
    }

    /// Takes a reference out, if there is one.
    #[inline]
    pub(crate) fn take(&self, id: GroupId) -> bool {
        let left = self.left_of(id);
        if left > 0 {
            self.left.store(left - 1, Ordering::Relaxed);
        }
        left > 0
    }

    /// Puts a reference in, if there are others of the group.
    #[inline]
    pub(crate) fn put(&self, id: GroupId) -> bool {
        let left = self.left_of(id);
        if left == 0 {
            return false;
        }
        self.left.store(left + 1, Ordering::Relaxed);
        if left >= 2 * BATCH {
            self.left.store(left + 1 - BATCH, Ordering::Relaxed);
            id.release_many(BATCH.into());
        }
        true
    }

    /// Fills it with references to a group that the caller has one to.
    pub(crate) fn fill(&self, id: GroupId) {
        self.empty();
        id.retain_many(BATCH.into());
        self.of.store(id.index() as u32, Ordering::Relaxed);
        self.left.store(BATCH, Ordering::Relaxed);
    }

    /// Gives all back.
    #[inline]
    pub(crate) fn empty(&self) {
        if self.of.load(Ordering::Relaxed) != 0 {
            self.give_back();
        }
    }

    #[cold]
    fn give_back(&self) {
        let id = GroupId::from_index(self.of.swap(0, Ordering::Relaxed));
        let left = self.left.swap(0, Ordering::Relaxed);
        id.release_many(left.into());
    }
}
