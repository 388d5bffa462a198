//! Which workers sleep, how many search, and whom a new task wakes.
//!
//! The shape is Tokio's: at most half of the workers search at a time; a new task wakes a sleeper only if nobody
//! searches; the last searcher that finds something wakes the next. So n tasks wake workers one by one, as long as each
//! finds work, and no herd comes for one task.
//!
//! # No wake-up is lost
//!
//! A producer does *push; fence; read the counts*; a worker that goes to sleep does *count itself asleep; fence; look
//! at every queue*. Both fences are sequentially consistent, so they are ordered, one way or the other:
//!
//! * the worker's first: the producer reads counts that include the sleeper, and wakes it unless somebody searches;
//! * the producer's first: the worker's look at the queues sees the task, and it does not sleep.
//!
//! There remains the producer that skips the wake because somebody, W, searches. W's later decrement of the searchers
//! is after the value that the producer read, and W executes a fence after it, so that fence comes after the
//! producer's: what follows it sees the task. If W goes to sleep, that is its look at the queues. If W found something
//! else and was the last searcher, it wakes another worker, which searches and sees the task; if it finds nobody
//! asleep, all others are awake, and by the first paragraph each looks at the queues before it sleeps. If W found nothing, was the
//! last and does not go to sleep yet, it looks at the queues, too, and searches again if there is anything. If W was not
//! the last, the same holds for the last one.

use crate::sync::atomic::{AtomicUsize, Ordering, fence};
use crate::sync::{Mutex, lock};

/// Both counts in one word, so that a producer reads them at once: searching below, awake above.
const AWAKE_ONE: usize = 1 << 16;
const SEARCHING_MASK: usize = AWAKE_ONE - 1;

/// More workers than this do not fit the counts.
pub(crate) const MAX_WORKERS: usize = SEARCHING_MASK >> 1;

/// What a sleeper sleeps in, that is, how it is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Parker,
    Reactor,
}

#[derive(Debug)]
pub(crate) struct Idle {
    /// Awake and searching workers. Written by everybody, but only on the way into and out of sleep and search.
    counts: AtomicUsize,
    /// Who sleeps, and in what. The one in the reactor is at the bottom: it is woken last.
    sleepers: Mutex<Vec<(usize, Place)>>,
    workers: usize,
}

impl Idle {
    /// All workers begin awake, and not searching.
    pub(crate) fn new(workers: usize) -> Self {
        debug_assert!(workers <= MAX_WORKERS);
        Self {
            counts: AtomicUsize::new(workers * AWAKE_ONE),
            sleepers: Mutex::new(Vec::with_capacity(workers)),
            workers,
        }
    }

    /// After a push: whom to wake, if anybody. Whoever is returned counts as awake and searching from now on.
    pub(crate) fn worker_to_wake(&self) -> Option<(usize, Place)> {
        // Pairs with the fence in `sleep`. After `end_search` this is the fence of the last searcher.
        fence(Ordering::SeqCst);
        if !self.wants_wake(self.counts.load(Ordering::SeqCst)) {
            return None;
        }
        let mut sleepers = lock(&self.sleepers);
        if !self.wants_wake(self.counts.load(Ordering::SeqCst)) {
            return None;
        }
        let sleeper = sleepers.pop()?;
        self.counts.fetch_add(AWAKE_ONE + 1, Ordering::SeqCst);
        Some(sleeper)
    }

    /// Whether it looks as if a worker sleeps and nobody searches: one load, and no fence.
    ///
    /// For a worker that has pushed to its own queue. It is awake and comes to the task itself, so nothing is lost if it misses
    /// a worker that goes to sleep at this moment; only that one's help is late. The pusher looks again before each poll, and
    /// the tick does for it while a poll goes on. That spares each push and each yield a full fence.
    #[inline]
    pub(crate) fn could_help(&self) -> bool {
        self.wants_wake(self.counts.load(Ordering::Relaxed))
    }

    fn wants_wake(&self, counts: usize) -> bool {
        counts & SEARCHING_MASK == 0 && counts / AWAKE_ONE < self.workers
    }

    /// May this worker search? At most half of them do at a time.
    pub(crate) fn try_search(&self) -> bool {
        let counts = self.counts.load(Ordering::SeqCst);
        if 2 * (counts & SEARCHING_MASK) >= self.workers {
            return false;
        }
        // Two may pass the check together: the bound is soft.
        self.counts.fetch_add(1, Ordering::SeqCst);
        true
    }

    /// A searcher found something. If it was the last, it should wake somebody to search on.
    pub(crate) fn end_search(&self) -> bool {
        let before = self.counts.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before & SEARCHING_MASK > 0);
        before & SEARCHING_MASK == 1
    }

    /// A searcher found nothing, and does not go to sleep yet. If it was the last, it must look at every queue after this, and search again
    /// if there is anything: those who put it there relied on the searcher.
    pub(crate) fn leave_search(&self) -> bool {
        let was_last = self.end_search();
        // As in `sleep`.
        fence(Ordering::SeqCst);
        was_last
    }

    /// Counts a worker asleep. It must look at every queue after this, and before it really sleeps.
    pub(crate) fn sleep(&self, worker: usize, searching: bool, place: Place) {
        let mut sleepers = lock(&self.sleepers);
        self.counts.fetch_sub(AWAKE_ONE + usize::from(searching), Ordering::SeqCst);
        match place {
            Place::Parker => sleepers.push((worker, place)),
            Place::Reactor => sleepers.insert(0, (worker, place)),
        }
        drop(sleepers);
        // Pairs with the fence in `worker_to_wake`.
        fence(Ordering::SeqCst);
    }

    /// Counts a worker awake again. False if a producer has done that already: then it counts as searching, and a
    /// notification of its parker or the reactor is on the way.
    pub(crate) fn wake_up(&self, worker: usize) -> bool {
        let mut sleepers = lock(&self.sleepers);
        let Some(position) = sleepers.iter().position(|(sleeper, _)| *sleeper == worker) else {
            return false;
        };
        sleepers.remove(position);
        self.counts.fetch_add(AWAKE_ONE, Ordering::SeqCst);
        true
    }

    /// A worker that sleeps with its parker has got hold of the reactor: from now on it sleeps there. False if it was
    /// woken meanwhile, by its parker, and so must not sleep at all.
    pub(crate) fn move_to_reactor(&self, worker: usize) -> bool {
        let mut sleepers = lock(&self.sleepers);
        let Some(position) = sleepers.iter().position(|(sleeper, _)| *sleeper == worker) else {
            return false;
        };
        sleepers.remove(position);
        sleepers.insert(0, (worker, Place::Reactor));
        true
    }

    /// After giving up the reactor: whom to wake so that somebody sleeps in it, if workers sleep and nobody does. Whoever
    /// is returned counts as awake and searching from now on, and sleeps with its parker.
    ///
    /// Without this a worker that found the reactor taken for a moment would sleep with its parker while the taker runs a
    /// long poll, and I/O and time would wait for that. The sleeper counts itself asleep and tries the reactor once more; who
    /// gives it up looks here afterwards: one of them sees the other.
    pub(crate) fn worker_for_reactor(&self) -> Option<usize> {
        // Between giving the reactor up and the counts: the other half is the fence in `sleep`.
        fence(Ordering::SeqCst);
        // A searcher either comes to the reactor itself or, if it finds work and is the last, wakes another.
        if !self.wants_wake(self.counts.load(Ordering::SeqCst)) {
            return None;
        }
        let mut sleepers = lock(&self.sleepers);
        if !self.wants_wake(self.counts.load(Ordering::SeqCst))
            || sleepers.iter().any(|(_, place)| *place == Place::Reactor)
        {
            return None;
        }
        let (sleeper, _) = sleepers.pop()?;
        self.counts.fetch_add(AWAKE_ONE + 1, Ordering::SeqCst);
        Some(sleeper)
    }

    /// How many workers sleep.
    pub(crate) fn sleeping(&self) -> usize {
        lock(&self.sleepers).len()
    }
}
