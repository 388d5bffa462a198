//! The child of a fork: it has one thread, no tick, and none of the perf pages.
//!
//! A handler that runs in the child before `fork` returns there makes every clock stand still, so that nothing touches a page
//! that is not mapped. Metering is off in the child from then on, and says so:
//! [`AccuracyClass::Disabled`](crate::AccuracyClass::Disabled). Nor does the child start or stop the tick's timer, whose
//! descriptor it shares with its parent.
//!
//! A poll in which the fork lies is billed what its clock had been read to before, in the child too.
//!
//! A child made by a bare `clone` system call, without libc's knowledge, is not seen.

#![allow(unsafe_code)]

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Whether this process was forked from one that metered.
#[inline]
pub(crate) fn is_child() -> bool {
    IS_CHILD.load(Ordering::Relaxed)
}

extern "C" fn in_the_child() {
    // Only atomics: the handler may interrupt anything, also a lock of ours.
    IS_CHILD.store(true, Ordering::Relaxed);
    for slot in crate::thread::all_slots() {
        slot.clock.stop();
    }
}

/// Sets the handler up, once.
pub(crate) fn watch() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        // SAFETY: the handler is a function of this process and touches atomics only. Should the library be unloaded, glibc
        // removes the handlers that it registered (`__register_atfork` takes the caller's DSO).
        unsafe { pthread_atfork(None, None, Some(in_the_child)) };
    });
}

type Handler = Option<extern "C" fn()>;

unsafe extern "C" {
    // Not in the libc crate.
    fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> i32;
}
