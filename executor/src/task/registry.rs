//! The live tasks: from here shutdown cancels them and `Handle::tasks` lists them.
//!
//! Each live task stands in a *slot*, a pointer in a table of the process that is never freed. To register is one store, to leave
//! one exchange; no lock, and nothing that threads which spawn share. Slots without a task are dealt to threads in batches, and
//! whoever ends a task keeps its slot for the next that it spawns.
//!
//! # Invariants
//! * A slot belongs to whoever took it until it is given back; only that one puts a task in, and only if there is none.
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
pub(crate) use self::arena::{SlotId, all, slot, take};

#[cfg(not(loom))]
mod arena {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, OnceLock};

    use super::Slot;
    use crate::sync::lock;
    use crate::task::TaskCore;

    const CHUNK: usize = 1024;
    const CHUNKS: usize = 65_536;
    /// How many go between a thread and the list at a time; a thread holds twice as many at most.
    const BATCH: usize = 32;

    static TABLE: [OnceLock<Box<[Slot<TaskCore>]>>; CHUNKS] = [const { OnceLock::new() }; CHUNKS];
    static MADE: AtomicUsize = AtomicUsize::new(0);
    /// Slots that nobody has at hand.
    static FREE: Mutex<Vec<u32>> = Mutex::new(Vec::new());

    /// A slot that was taken. It is given back when this is dropped; then it must be empty.
    #[derive(Debug)]
    pub(crate) struct SlotId(u32);

    struct Hand(Vec<u32>);

    impl Drop for Hand {
        fn drop(&mut self) {
            lock(&FREE).append(&mut self.0);
        }
    }

    thread_local! {
        static HAND: RefCell<Hand> = const { RefCell::new(Hand(Vec::new())) };
    }

    fn deal(hand: &mut Vec<u32>) {
        let mut free = lock(&FREE);
        if free.is_empty() {
            let chunk = MADE.load(Ordering::Relaxed);
            assert!(chunk < CHUNKS, "more than {} tasks at once", CHUNK * CHUNKS);
            TABLE[chunk].get_or_init(|| (0..CHUNK).map(|_| Slot::new()).collect());
            // Under the lock, so each chunk is made once.
            MADE.store(chunk + 1, Ordering::Release);
            let first = (chunk * CHUNK) as u32;
            free.extend((first..first + CHUNK as u32).rev());
        }
        let keep = free.len().saturating_sub(BATCH);
        hand.extend(free.drain(keep..));
    }

    /// A slot for a new task.
    pub(crate) fn take() -> SlotId {
        let at_hand = HAND.try_with(|hand| {
            let hand = &mut hand.borrow_mut().0;
            if hand.is_empty() {
                deal(hand);
            }
            hand.pop()
        });
        SlotId(at_hand.ok().flatten().unwrap_or_else(|| {
            // A thread that is ending has no hand any more.
            let mut batch = Vec::new();
            deal(&mut batch);
            let slot = batch.pop().expect("a batch is never empty");
            lock(&FREE).append(&mut batch);
            slot
        }))
    }

    impl Drop for SlotId {
        fn drop(&mut self) {
            let kept = HAND.try_with(|hand| {
                let hand = &mut hand.borrow_mut().0;
                if hand.len() == 2 * BATCH {
                    lock(&FREE).extend(hand.drain(BATCH..));
                }
                hand.push(self.0);
            });
            if kept.is_err() {
                lock(&FREE).push(self.0);
            }
        }
    }

    /// A slot that was taken.
    pub(crate) fn slot(id: &SlotId) -> &'static Slot<TaskCore> {
        match TABLE[id.0 as usize / CHUNK].get() {
            Some(chunk) => &chunk[id.0 as usize % CHUNK],
            None => unreachable!("slots are dealt from chunks that were made"),
        }
    }

    /// Every slot there ever was.
    pub(crate) fn all() -> impl Iterator<Item = &'static Slot<TaskCore>> {
        let made = MADE.load(Ordering::Acquire);
        TABLE[..made].iter().filter_map(|chunk| chunk.get()).flatten()
    }
}
