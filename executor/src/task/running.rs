//! Which task runs on this thread, and whether it has woken itself.
//!
//! A task that wakes itself while it is polled (it yields, or its budget is over) is going to run again whatever happens, and
//! only its own thread knows so far. So nothing is written to the state word: a note in a thread-local is enough, and the cell
//! goes back into the queue as it is, with RUNNING still its own. That spares a yield three read-modify-writes.

#[cfg(loom)]
use loom::thread_local;
use std::cell::Cell;

/// The task, by the address of its header, the note, and whether it is in the registry.
type Now = (*const (), bool, bool);

#[cfg(not(loom))]
thread_local! {
    static NOW: Cell<Now> = const { Cell::new((std::ptr::null(), false, false)) };
}
#[cfg(loom)]
thread_local! {
    static NOW: Cell<Now> = Cell::new((std::ptr::null(), false, false));
}

/// While it lives, the task at this address is the one that runs here.
pub(super) struct Running {
    before: Now,
}

impl Running {
    pub(super) fn enter(task: *const (), registered: bool) -> Self {
        Self { before: NOW.with(|now| now.replace((task, false, registered))) }
    }

    /// The task has left the registry. What its end still calls (the outcome's destructor, wakers) is user code too, and is not
    /// [inside](is_inside).
    pub(super) fn retired(&self) {
        NOW.with(|now| now.set((now.get().0, now.get().1, false)));
    }

    /// The run is over as far as user code is concerned: has the task woken itself?
    pub(super) fn has_woken_itself(&self) -> bool {
        NOW.with(Cell::get).1
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        NOW.with(|now| now.set(self.before));
    }
}

/// Whether a task runs on this thread that is registered until after whatever the caller does now.
#[inline]
pub(crate) fn is_inside() -> bool {
    NOW.try_with(|now| now.get().2).unwrap_or(false)
}

/// Notes the wake if it is of the task that runs here. `false`: it is another one, and must be woken by its state word.
pub(super) fn note_wake(task: *const ()) -> bool {
    // The thread-local is gone when the thread ends; then no task runs here.
    NOW.try_with(|now| {
        let here = now.get().0 == task;
        if here {
            now.set((task, true, now.get().2));
        }
        here
    })
    .unwrap_or(false)
}
