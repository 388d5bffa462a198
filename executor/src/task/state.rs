//! The state word of a task: who may touch which field, decided by one atomic.
//!
//! Each method here is one numbered transition of the diagram below. Every transition is a read-modify-write with both acquire and
//! release ordering unless it says otherwise: the word is the only thing that orders accesses to the cell's fields.
//!
//! # The cell
//!
//! A task is one allocation: a state word, a static table of functions, the waker of the joiner, the runtime's core
//! of the task (account, registry slot, name) and the *stage*: the future, later its outcome, then nothing. Whoever
//! refers to it counts in the state word:
//!
//! * the **runnable**, in a run queue or in the hands of the worker that runs it: at most one exists;
//! * each **waker**;
//! * the **registry**, from spawn to completion; it is what keeps a task that nobody can wake from being lost, and
//!   what shutdown works through;
//! * the **join handle**.
//!
//! # The states
//!
//! ```text
//!               spawn (1)
//!                   |
//!                   v            start (2)
//!            .-> SCHEDULED -----------------> RUNNING ---------------.
//!            |      ^                          |  |  ^  |            | wake (6)
//!   wake (5) |      |                          |  |  |  |            v
//!            |      |        suspend (3)       |  |  |  |   RUNNING|SCHEDULED --.
//!           IDLE <--|--------------------------'  |  '--'        |              |
//!                   |                             |  woke itself |              |
//!                   '-- suspend, requeue (4) -----|--------------|--------------'
//!                                                 |              |
//!                                    complete (7) v              | complete (7)
//!                                              COMPLETE <--------'
//! ```
//!
//! 1. `State::scheduled`: born in a run queue.
//! 2. `start`: the holder of the runnable takes RUNNING and clears SCHEDULED, so that a wake during the poll counts.
//! 3. `suspend`: the poll returned `Pending`, nobody woke the task meanwhile; the runnable's reference goes.
//! 4. `suspend`: somebody did; the same reference goes back into a queue.
//! 5. `wake` of an idle task: whoever sets SCHEDULED makes the runnable, and nobody else does.
//! 6. `wake` of a running task leaves the bit for 4. A wake of a scheduled or complete task changes nothing. A task that
//!    wakes *itself* leaves only a note (`running`), and goes back into the queue RUNNING: whoever takes it from there
//!    goes on in its place, without 2. Other threads see a task that runs, and leave their wakes as bits.
//! 7. `complete`: the future is dropped and the outcome stored. A task to which nobody else has a reference by then skips this and is
//!    freed.
//!
//! 8 to 11 concern the joiner and are explained below. There is no transition for *abort*: aborting, limits and
//! shutdown all post on the task's account, and the worker learns it at the next boundary: before the poll, if the
//! task waits or is queued, after it, if it runs. So the future is dropped by one path only, on a worker, inside the
//! metered section. (A task that is spawned on a closed runtime is refused: it ends on the
//! spawner's thread, unpolled.)
//!
//! # Which bit grants access to which field
//!
//! * **The stage** belongs to whoever holds the runnable or RUNNING, which is one party by transitions 2 to 5:
//!   SCHEDULED is set by exactly one waker, and only when neither bit is set. Once COMPLETE is set it belongs to the
//!   join handle while JOIN_INTEREST is set; if JOIN_INTEREST went first, the completing worker sees so in the very
//!   exchange that sets COMPLETE, and keeps the stage to drop the output.
//! * **The join waker**: while JOIN_WAKER is off the field is the join handle's, to read and to write. It writes,
//!   then publishes (8). While JOIN_WAKER is on, join handle and worker may read it and nobody may write. To write
//!   again the join handle retracts the bit (9), which fails if COMPLETE came first. The worker reads the field only
//!   if COMPLETE and JOIN_WAKER are both set, clears JOIN_WAKER after waking (10), and if JOIN_INTEREST was gone by
//!   then, drops the waker. A join handle that is dropped (11) clears JOIN_WAKER in the same exchange while the task
//!   is not complete, and so knows whether the waker is its own to drop.
//! * **The core** and the table are never written.
//! * **The memory** goes with the last reference.

use crate::sync::atomic::{AtomicUsize, Ordering, fence};

/// In a run queue, or to be put there by whoever clears `RUNNING`.
const SCHEDULED: usize = 1 << 0;
/// A worker polls the future or ends the task. That worker owns the stage.
const RUNNING: usize = 1 << 1;
/// The future is gone. The output, if anybody wants it, belongs to the join handle.
const COMPLETE: usize = 1 << 2;
/// The join handle lives.
const JOIN_INTEREST: usize = 1 << 3;
/// The join waker is set, and may be read by the worker that completes the task.
const JOIN_WAKER: usize = 1 << 4;
/// One reference: runnable, waker, join handle, registry.
const REF_ONE: usize = 1 << 5;

/// Above this many references the process aborts: somebody forgets clones in a loop, and the next one could
/// overflow into a premature free.
const MAX_REFS: usize = isize::MAX as usize;

/// The state word.
#[derive(Debug)]
pub(super) struct State(AtomicUsize);

/// A value of the state word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Snapshot(usize);

impl Snapshot {
    pub(super) fn is_scheduled(self) -> bool {
        self.0 & SCHEDULED != 0
    }

    pub(super) fn is_running(self) -> bool {
        self.0 & RUNNING != 0
    }

    pub(super) fn is_complete(self) -> bool {
        self.0 & COMPLETE != 0
    }

    pub(super) fn has_join_interest(self) -> bool {
        self.0 & JOIN_INTEREST != 0
    }

    pub(super) fn has_join_waker(self) -> bool {
        self.0 & JOIN_WAKER != 0
    }

    fn refs(self) -> usize {
        self.0 / REF_ONE
    }
}

/// What a worker must do with a task whose poll returned `Pending`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Suspended {
    /// The task sleeps; the worker's reference is gone.
    Idle,
    /// The task sleeps and that was the last reference: nobody can ever wake it, free it.
    Forgotten,
    /// It was woken while it ran: the worker's reference becomes the new runnable's.
    Requeue,
}

/// What a dropped join handle has to clean up.
#[derive(Debug)]
pub(super) struct JoinDropped {
    pub(super) drop_output: bool,
    pub(super) drop_waker: bool,
    /// The handle's reference has gone too.
    pub(super) released: bool,
}

/// The task completed before the transition could be made.
#[derive(Debug)]
pub(super) struct Completed;

impl State {
    /// Transition 1: a task is born scheduled, with a runnable, a join handle and `others` more references.
    pub(super) fn scheduled(others: usize) -> Self {
        Self(AtomicUsize::new(SCHEDULED | JOIN_INTEREST | ((2 + others) * REF_ONE)))
    }

    /// The word as it is now. Acquire: what the task did before it set the bits that are seen is visible.
    pub(super) fn load(&self) -> Snapshot {
        Snapshot(self.0.load(Ordering::Acquire))
    }

    /// Transition 2: the holder of the runnable starts to run it.
    ///
    /// One exclusive-or does it: while SCHEDULED is set and RUNNING is not, nobody else may change either bit. A task that
    /// woke itself is RUNNING already; the queue has ordered its runs.
    pub(super) fn start(&self) {
        if self.load().is_running() {
            return;
        }
        let before = Snapshot(self.0.fetch_xor(SCHEDULED | RUNNING, Ordering::AcqRel));
        debug_assert!(before.is_scheduled() && !before.is_running() && !before.is_complete());
    }

    /// Transitions 3 and 4: the poll returned `Pending`. SeqCst: what is looked at behind it
    /// ([`Schedule::behind_suspend`](super::Schedule::behind_suspend)) must not be looked at before.
    pub(super) fn suspend(&self) -> Suspended {
        let mut current = self.load();
        loop {
            debug_assert!(current.is_running() && !current.is_complete());
            let (next, outcome) = if current.is_scheduled() {
                (current.0 & !RUNNING, Suspended::Requeue)
            } else if current.refs() == 1 {
                ((current.0 & !RUNNING) - REF_ONE, Suspended::Forgotten)
            } else {
                ((current.0 & !RUNNING) - REF_ONE, Suspended::Idle)
            };
            match self.0.compare_exchange_weak(current.0, next, Ordering::SeqCst, Ordering::Acquire) {
                Ok(_) => return outcome,
                Err(seen) => current = Snapshot(seen),
            }
        }
    }

    /// Transitions 5 and 6: a wake. Returns whether the caller has to put the task into a run queue.
    ///
    /// A wake that finds SCHEDULED is a read-modify-write all the same: its release pairs with the acquire of
    /// `start`, so that the poll that follows sees what was written before the wake.
    pub(super) fn wake(&self) -> bool {
        if self.load().is_complete() {
            return false;
        }
        let before = Snapshot(self.0.fetch_or(SCHEDULED, Ordering::AcqRel));
        !(before.is_scheduled() || before.is_running() || before.is_complete())
    }

    /// Transition 7: the future is dropped and its outcome stored; hand the stage to the join handle.
    pub(super) fn complete(&self) -> Snapshot {
        let before = Snapshot(self.0.fetch_xor(RUNNING | COMPLETE, Ordering::AcqRel));
        debug_assert!(before.is_running() && !before.is_complete());
        Snapshot(before.0 ^ (RUNNING | COMPLETE))
    }

    /// Transition 8: the join handle has written the waker and publishes it.
    pub(super) fn publish_join_waker(&self) -> Result<(), Completed> {
        self.update_unless_complete(|word| {
            debug_assert!(word & JOIN_INTEREST != 0 && word & JOIN_WAKER == 0);
            word | JOIN_WAKER
        })
    }

    /// Transition 9: the join handle takes the waker back, to replace it.
    pub(super) fn retract_join_waker(&self) -> Result<(), Completed> {
        self.update_unless_complete(|word| {
            debug_assert!(word & JOIN_INTEREST != 0 && word & JOIN_WAKER != 0);
            word & !JOIN_WAKER
        })
    }

    /// Transition 10: the worker that completed the task is done with the join waker. What is returned says
    /// whether the join handle still lives and inherits the field.
    pub(super) fn release_join_waker(&self) -> Snapshot {
        let before = Snapshot(self.0.fetch_and(!JOIN_WAKER, Ordering::AcqRel));
        debug_assert!(before.is_complete() && before.has_join_waker());
        Snapshot(before.0 & !JOIN_WAKER)
    }

    /// Transition 11: the join handle goes away, with its interest but not yet with its reference.
    pub(super) fn drop_join_interest(&self) -> JoinDropped {
        let mut current = self.load();
        loop {
            debug_assert!(current.has_join_interest());
            let mut next = current.0 & !JOIN_INTEREST;
            let mut released = false;
            if !current.is_complete() {
                if !current.has_join_waker() && current.refs() > 1 {
                    // The usual case, a handle that is dropped at once: there is nothing to clean up, so the reference goes
                    // in the same step. The waker field was never written, or is empty again.
                    next -= REF_ONE;
                    released = true;
                }
                // Nobody but us may touch the waker once the bit is off, so it is ours to drop.
                next &= !JOIN_WAKER;
            }
            match self.0.compare_exchange_weak(current.0, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    return JoinDropped {
                        drop_output: current.is_complete(),
                        // Still set means: complete, and the worker is reading it. It will see that the interest
                        // is gone (transition 10) and drop the waker itself.
                        drop_waker: !released && !Snapshot(next).has_join_waker(),
                        released,
                    };
                }
                Err(seen) => current = Snapshot(seen),
            }
        }
    }

    /// One more reference. Relaxed: whoever clones a reference has one, and hands the new one on by other means.
    pub(super) fn ref_inc(&self) {
        let before = self.0.fetch_add(REF_ONE, Ordering::Relaxed);
        if before > MAX_REFS {
            std::process::abort();
        }
    }

    /// Whether these `n` references, the caller's, are all there are: then there is no join handle and no waker, and nobody to make
    /// another. Acquire: all accesses of those that were happen before what follows.
    pub(super) fn is_last(&self, n: usize) -> bool {
        self.load().refs() == n
    }

    /// `n` references less; true if they were the last.
    ///
    /// Release on the way down, acquire by the one that frees: all accesses of the others happen before the free.
    pub(super) fn ref_dec(&self, n: usize) -> bool {
        let before = Snapshot(self.0.fetch_sub(n * REF_ONE, Ordering::Release));
        debug_assert!(before.refs() >= n);
        if before.refs() != n {
            return false;
        }
        fence(Ordering::Acquire);
        true
    }

    fn update_unless_complete(&self, f: impl Fn(usize) -> usize) -> Result<(), Completed> {
        let mut current = self.load();
        loop {
            if current.is_complete() {
                return Err(Completed);
            }
            match self.0.compare_exchange_weak(current.0, f(current.0), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(()),
                Err(seen) => current = Snapshot(seen),
            }
        }
    }
}
