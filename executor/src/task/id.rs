//! Names for tasks that are never used twice.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// A task's number, unique in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(u64);

/// Each thread takes numbers by the block, so that spawning shares no line with other threads.
const BLOCK: u64 = 1024;

impl Id {
    pub(crate) fn next() -> Self {
        use std::cell::Cell;

        static NEXT_BLOCK: AtomicU64 = AtomicU64::new(1);
        thread_local! {
            static RANGE: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
        }
        // `Cell<(u64, u64)>` has no destructor, so the thread-local can be used until the thread's very end.
        Self(RANGE.with(|range| {
            let (mut next, mut end) = range.get();
            if next == end {
                next = NEXT_BLOCK.fetch_add(BLOCK, Ordering::Relaxed);
                end = next + BLOCK;
            }
            range.set((next + 1, end));
            next
        }))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
