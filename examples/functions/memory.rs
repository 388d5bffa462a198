//! How much memory the script on this thread holds.
//!
//! Rhai bounds each value, and not how many of them there are: arguments, temporaries and the parsed script have no bound of
//! their own. But a script runs within one poll, so on one thread; what that thread allocates less what it frees from the
//! script's start on is the script's. The allocator counts it in a thread-local, which costs two additions.

#![allow(unsafe_code, reason = "counting allocations takes a global allocator, whose trait is unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[derive(Clone, Copy)]
struct Held {
    /// Below zero if more was freed that others had allocated.
    now: isize,
    peak: isize,
}

thread_local! {
    // Without destructor and lazy initialisation: the allocator may use it at any moment of the thread's life.
    static HELD: Cell<Held> = const { Cell::new(Held { now: 0, peak: 0 }) };
}

/// Begins to count from zero on this thread.
pub(crate) fn start_counting() {
    HELD.set(Held { now: 0, peak: 0 });
}

/// The most bytes that this thread has held at once since it began to count.
pub(crate) fn peak() -> usize {
    HELD.get().peak.unsigned_abs()
}

fn count(bytes: isize) {
    let now = HELD.get().now.wrapping_add(bytes);
    HELD.set(Held { now, peak: HELD.get().peak.max(now) });
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// A layout's size is at most `isize::MAX`, so the casts below change nothing.
//
// SAFETY: each method passes its arguments to the system's allocator unchanged and returns its result; counting allocates
// nothing and cannot unwind.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `block` is from one of these methods, and so from `System`, with the same layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size as isize - layout.size() as isize);
        // SAFETY: as in `dealloc`; the caller keeps the contract of `realloc`, which is the same.
        unsafe { System.realloc(block, layout, new_size) }
    }
}
