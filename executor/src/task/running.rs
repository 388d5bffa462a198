//! Which task runs on this thread, and whether it has woken itself.
//!
//! A task that wakes itself while it is polled (it yields, or its budget is over) is going to run again whatever happens, and
//! only its own thread knows so far. So nothing is written to the state word: a note in a thread-local is enough, and the cell
//! goes back into the queue as it is, with RUNNING still its own. That spares a yield three read-modify-writes.

#[cfg(loom)]
use loom::thread_local;
use std::cell::Cell;

/// Beside the task's address, which is a multiple of four: it has woken itself.
const WOKEN: usize = 1;
/// It is in the registry.
const REGISTERED: usize = 2;
/// What a header's address must be a multiple of.
pub(super) const ALIGN: usize = 4;

#[cfg(not(loom))]
thread_local! {
    /// The task, by the address of its header, and what is noted of it; zero is none.
    static NOW: Cell<usize> = const { Cell::new(0) };
}
#[cfg(loom)]
thread_local! {
    static NOW: Cell<usize> = Cell::new(0);
}

/// While it lives, the task at this address is the one that runs here.
pub(super) struct Running {
    before: usize,
}

impl Running {
    #[inline]
    pub(super) fn enter(task: *const (), registered: bool) -> Self {
        debug_assert_eq!(task.addr() % ALIGN, 0);
        let now = task.addr() | if registered { REGISTERED } else { 0 };
        Self { before: NOW.with(|word| word.replace(now)) }
    }

    /// The task has left the registry. What its end still calls (the outcome's destructor, wakers) is user code too, and is not
    /// [inside](is_inside).
    pub(super) fn retired(&self) {
        NOW.with(|now| now.set(now.get() & !REGISTERED));
    }

    /// The run is over as far as user code is concerned: has the task woken itself?
    #[inline]
    pub(super) fn has_woken_itself(&self) -> bool {
        NOW.with(Cell::get) & WOKEN != 0
    }
}

impl Drop for Running {
    #[inline]
    fn drop(&mut self) {
        NOW.with(|now| now.set(self.before));
    }
}

/// Whether a task runs on this thread that is registered until after whatever the caller does now.
#[inline]
pub(crate) fn is_inside() -> bool {
    NOW.try_with(|now| now.get() & REGISTERED != 0).unwrap_or(false)
}

/// Notes the wake if it is of the task that runs here. `false`: it is another one, and must be woken by its state word.
#[inline]
pub(super) fn note_wake(task: *const ()) -> bool {
    // The thread-local is gone when the thread ends; then no task runs here.
    NOW.try_with(|now| {
        let here = now.get() & !(WOKEN | REGISTERED) == task.addr();
        if here {
            now.set(now.get() | WOKEN);
        }
        here
    })
    .unwrap_or(false)
}
