//! The live tasks: from here shutdown cancels them and `Handle::tasks` lists them.
//!
//! Each live task stands in a *slot*, a pointer in a table of the process that is never freed: that of its account's index. To
//! register is one store, to leave one exchange; no lock, and nothing that threads which spawn share.
//!
//! # Invariants
//! * A slot belongs to the task whose account has its index; only that task is put in, and it has left before the account is dropped.
//! * While a task is in its slot, the slot holds one of its references. So whoever wants a look must keep it there: it *pins* the
//!   pointer by its lowest bit, counts a reference of its own, and unpins. A task that leaves meanwhile waits for these few
//!   instructions.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use super::cell::Header;
use super::{Schedule, TaskRef};
use crate::sync::atomic::{AtomicPtr, Ordering};
use crate::sync::pause;

const PINNED: usize = 1;

/// A place in the registry.
pub(crate) struct Slot<S: Schedule>(AtomicPtr<Header<S>>);

impl<S: Schedule> Slot<S> {
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Puts a task in. For the owner of the slot, which is empty.
    pub(crate) fn put(&self, task: TaskRef<S>) {
        let task = ManuallyDrop::new(task);
        debug_assert!(self.0.load(Ordering::Relaxed).is_null(), "a slot holds one task at a time");
        // Release: what the task was made of is seen by whoever finds it here. The slot now has the reference.
        self.0.store(task.as_ptr().as_ptr(), Ordering::Release);
    }

    /// Takes the task out.
    pub(crate) fn remove(&self) -> Option<TaskRef<S>> {
        let mut tries = 0;
        loop {
            let task = self.0.load(Ordering::Relaxed);
            if task.addr() & PINNED == 0
                && self.0.compare_exchange(task, ptr::null_mut(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                // SAFETY: the reference was the slot's, and the exchange made it ours alone.
                return NonNull::new(task).map(|task| unsafe { TaskRef::from_raw(task) });
            }
            pause(&mut tries);
        }
    }

    /// A reference to the task that is there, if it is one that is wanted.
    pub(crate) fn find(&self, wanted: impl FnOnce(&S) -> bool) -> Option<TaskRef<S>> {
        let mut tries = 0;
        loop {
            let task = self.0.load(Ordering::Relaxed);
            if task.is_null() {
                // Acquire: what the task did before it left is seen by whoever found it gone.
                crate::sync::atomic::fence(Ordering::Acquire);
                return None;
            }
            let pinned = task.map_addr(|addr| addr | PINNED);
            if task.addr() & PINNED == 0
                && self.0.compare_exchange(task, pinned, Ordering::Acquire, Ordering::Relaxed).is_ok()
            {
                // SAFETY: pinned, so the task stays and the slot keeps its reference; ours is not given up.
                let found = NonNull::new(task).map(|task| ManuallyDrop::new(unsafe { TaskRef::from_raw(task) }));
                let found = found.and_then(|task| wanted(task.core()).then(|| TaskRef::clone(&task)));
                // Nobody else changes it while it is pinned.
                self.0.store(task, Ordering::Release);
                return found;
            }
            pause(&mut tries);
        }
    }
}

/// The slots of the process.
#[cfg(not(loom))]
pub(crate) use self::table::{all, slot, slot_or_make};

#[cfg(not(loom))]
mod table {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use stipend_timers::Account;

    use super::Slot;
    use crate::task::TaskCore;

    const CHUNK: usize = 1024;

    static TABLE: [OnceLock<Box<[Slot<TaskCore>]>>; Account::LIMIT / CHUNK] =
        [const { OnceLock::new() }; Account::LIMIT / CHUNK];
    /// No chunk from here on has a task.
    static MADE: AtomicUsize = AtomicUsize::new(0);

    /// The slot of an account that has or had a task.
    #[inline]
    pub(crate) fn slot(index: u32) -> &'static Slot<TaskCore> {
        match TABLE[index as usize / CHUNK].get() {
            Some(chunk) => &chunk[index as usize % CHUNK],
            None => unreachable!("a task is put into its slot before it runs"),
        }
    }

    /// The slot of an account.
    #[inline]
    pub(crate) fn slot_or_make(index: u32) -> &'static Slot<TaskCore> {
        let chunk = TABLE[index as usize / CHUNK].get_or_init(|| make(index));
        &chunk[index as usize % CHUNK]
    }

    #[cold]
    fn make(index: u32) -> Box<[Slot<TaskCore>]> {
        // Before anybody can get hold of the chunk: whoever sees a task's spawn counted sees this too.
        MADE.fetch_max(index as usize / CHUNK + 1, Ordering::AcqRel);
        (0..CHUNK).map(|_| Slot::new()).collect()
    }

    /// Every slot there ever was.
    pub(crate) fn all() -> impl Iterator<Item = &'static Slot<TaskCore>> {
        let made = MADE.load(Ordering::Acquire);
        TABLE[..made].iter().filter_map(OnceLock::get).flatten()
    }
}
