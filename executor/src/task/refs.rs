//! The owned references to a task: the runnable, the registry's reference, the joining end.
//!
//! Each is a pointer that counts, with the right that its name says. All `unsafe` that handles whole references is
//! here, in [`cell`](super::cell) and in [`waker`](super::waker); the rest of the crate sees safe types.
#![allow(unsafe_code)]

use std::future::Future;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker};

use super::cell::{self, Header};
use super::state::Snapshot;
use super::{End, Schedule, waker};

/// A new task's first references.
pub(crate) type Parts<T, S> = (Runnable<S>, TaskRef<S>, Joint<T, S>);

/// Makes a task and its first references. `schedule` the runnable to start it.
pub(crate) fn spawn<F, S>(core: impl FnOnce() -> S, future: F) -> Parts<F::Output, S>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
    S: Schedule,
{
    // SAFETY: future and output may go to any thread.
    unsafe { spawn_unchecked(core, future) }
}

/// The same for a future, or with an output, that must not leave this thread.
///
/// # Safety
/// The runnable, this one and those that waking makes of it, is run (or refused) on this thread only; and somebody keeps a
/// reference until it has run to its end, so that no other reference is ever the last one of a task whose future is still there.
///
/// What may then happen on other threads is harmless: they count references, post and wake. The output is touched by the run that
/// ends the task, on this thread, and by the [`Joint`], which does not leave this thread unless the output may.
pub(crate) unsafe fn spawn_unchecked<F, S>(core: impl FnOnce() -> S, future: F) -> Parts<F::Output, S>
where
    F: Future + 'static,
    S: Schedule,
{
    let ptr = cell::allocate(core, future, 1);
    // The three references that `allocate` counted, one each.
    (Runnable { ptr }, TaskRef { ptr }, Joint { ptr, output: PhantomData })
}

/// The right and the duty to run a task once. Exactly one exists while SCHEDULED is set and RUNNING is not.
pub(crate) struct Runnable<S: Schedule> {
    ptr: NonNull<Header<S>>,
}

// SAFETY: the future and its output are `Send` (demanded by `spawn`) and run on one thread at a time, by the state word; or they
// are run on their own thread only (the contract of `spawn_unchecked`). The core is `Send + Sync` by `Schedule`'s bound.
unsafe impl<S: Schedule> Send for Runnable<S> {}

impl<S: Schedule> Runnable<S> {
    /// # Safety
    /// The caller gives up one reference, and has just been named the one to schedule the task.
    pub(super) unsafe fn from_raw(ptr: NonNull<Header<S>>) -> Self {
        Self { ptr }
    }

    /// For [`Place`](super::Place), which keeps it.
    pub(super) fn as_ptr(&self) -> NonNull<Header<S>> {
        self.ptr
    }

    pub(crate) fn core(&self) -> &S {
        // SAFETY: our reference keeps the cell alive; `core` is never written.
        unsafe { &self.ptr.as_ref().core }
    }

    /// Ends a task that never ran, on this thread and outside of brackets: its future is dropped, and the joiner told why.
    pub(crate) fn refuse(self, reason: S::Reason) {
        let this = ManuallyDrop::new(self);
        // SAFETY: we hold the runnable, and `ManuallyDrop` keeps its reference from being given up twice.
        unsafe { cell::refuse(this.ptr, reason) }
    }

    /// Polls the task, or ends it, between the brackets that `begin` opens on its core.
    ///
    /// `begin` must keep the borrow nowhere but in the bracket. (Its lifetime cannot be quantified over, which would have
    /// the compiler see to that, because brackets also borrow the worker's lease.)
    pub(crate) fn run<'m>(self, begin: impl FnOnce(&'m S) -> S::Run<'m>) -> S::Stamp
    where
        S: 'm,
    {
        let this = ManuallyDrop::new(self);
        // SAFETY: the borrow is handed to the brackets alone, and `run_once` closes and forgets them before it
        // gives up the reference that keeps the core alive. `begin` is the crate's own and stores the borrow nowhere
        // else.
        let core: &'m S = unsafe { &(*this.ptr.as_ptr()).core };
        let bracket = begin(core);
        // SAFETY: we hold the runnable, and `ManuallyDrop` keeps its reference from being given up twice.
        unsafe { cell::run_once(this.ptr, bracket) }
    }
}

impl<S: Schedule> Drop for Runnable<S> {
    /// A runnable that is dropped and not run strands its task, which stays SCHEDULED for ever: queues are drained by
    /// running what is in them. Only the reference is given up here.
    fn drop(&mut self) {
        // SAFETY: our reference is given up, and the cell freed only if it was the last.
        unsafe { release(self.ptr) }
    }
}

/// A plain reference to a task: it can be looked at and woken.
pub(crate) struct TaskRef<S: Schedule> {
    ptr: NonNull<Header<S>>,
}

// SAFETY: what can be reached is the state word, which is atomic, and the core, which is `Send + Sync`. The future
// may be dropped by the last reference: it is `Send`, or gone by then (the contract of `spawn_unchecked`).
unsafe impl<S: Schedule> Send for TaskRef<S> {}
// SAFETY: as above.
unsafe impl<S: Schedule> Sync for TaskRef<S> {}

impl<S: Schedule> TaskRef<S> {
    /// # Safety
    /// The caller gives up one reference, or has this one forgotten while its own lives.
    pub(super) unsafe fn from_raw(ptr: NonNull<Header<S>>) -> Self {
        Self { ptr }
    }

    /// For the registry, which keeps it.
    pub(super) fn as_ptr(&self) -> NonNull<Header<S>> {
        self.ptr
    }

    pub(crate) fn core(&self) -> &S {
        // SAFETY: our reference keeps the cell alive; `core` is never written.
        unsafe { &self.ptr.as_ref().core }
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        // SAFETY: our reference keeps the cell alive.
        unsafe { self.ptr.as_ref() }.state.load()
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.snapshot().is_complete()
    }

    /// Wakes the task.
    pub(crate) fn wake(&self) {
        // SAFETY: our reference keeps the cell alive.
        unsafe { waker::wake_ptr(self.ptr) }
    }

    /// A waker of the task.
    pub(crate) fn waker(&self) -> Waker {
        let this = ManuallyDrop::new(self.clone());
        // SAFETY: the clone's reference becomes the waker's.
        unsafe { waker::from_borrowed(this.ptr) }
    }
}

impl<S: Schedule> Clone for TaskRef<S> {
    fn clone(&self) -> Self {
        // SAFETY: our reference keeps the cell alive.
        unsafe { self.ptr.as_ref() }.state.ref_inc();
        Self { ptr: self.ptr }
    }
}

impl<S: Schedule> Drop for TaskRef<S> {
    fn drop(&mut self) {
        // SAFETY: our reference is given up, and the cell freed only if it was the last.
        unsafe { release(self.ptr) }
    }
}

/// The joining end of a task: the one that may take the output. Unique; holds JOIN_INTEREST.
pub(crate) struct Joint<T, S: Schedule> {
    ptr: NonNull<Header<S>>,
    output: PhantomData<fn() -> T>,
}

// SAFETY: taking the output moves a `T` to this thread, hence `T: Send`; the core is `Send + Sync`.
unsafe impl<T: Send, S: Schedule> Send for Joint<T, S> {}
// SAFETY: a shared `Joint` gives access to the state word and the core only; taking needs `&mut`.
unsafe impl<T: Send, S: Schedule> Sync for Joint<T, S> {}

impl<T, S: Schedule> Joint<T, S> {
    pub(crate) fn core(&self) -> &S {
        &self.header().core
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.header().state.load().is_complete()
    }

    pub(crate) fn task(&self) -> TaskRef<S> {
        self.header().state.ref_inc();
        // The reference just counted.
        TaskRef { ptr: self.ptr }
    }

    fn header(&self) -> &Header<S> {
        // SAFETY: our reference keeps the cell alive.
        unsafe { self.ptr.as_ref() }
    }

    /// Takes the outcome if the task is complete, else leaves the waker of `cx` to be woken.
    ///
    /// # Panics
    /// If the outcome was taken before.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End<T, S::Reason>> {
        if !self.header().state.load().is_complete() && self.register(cx.waker()) {
            return Poll::Pending;
        }
        // SAFETY: we are the join handle, and COMPLETE was seen by an acquire load or a failed exchange. `T` is the
        // output of the cell's future: `spawn`, the only maker, ties them.
        match unsafe { cell::take_end(self.ptr) } {
            Some(end) => Poll::Ready(end),
            None => panic!("a JoinHandle was polled after it had returned the task's result"),
        }
    }

    /// Leaves `waker` in the cell; false if the task completed meanwhile.
    fn register(&self, waker: &Waker) -> bool {
        let header = self.header();
        if header.state.load().has_join_waker() {
            let same = header.join_waker.with(|current| {
                // SAFETY: while JOIN_WAKER is set the field is read by us and by the worker, and written by nobody:
                // only we (transition 9) or the worker after completion (10) clear the bit, and the worker does not
                // write the field while we live.
                unsafe { &*current }.as_ref().is_some_and(|current| current.will_wake(waker))
            });
            if same {
                return true;
            }
        }
        // User code (it may panic): before anything is changed.
        let new = waker.clone();
        if header.state.load().has_join_waker() && header.state.retract_join_waker().is_err() {
            return false;
        }
        // SAFETY: JOIN_WAKER is off and JOIN_INTEREST is on, so the field is ours alone.
        let old = header.join_waker.with_mut(|slot| unsafe { (*slot).replace(new) });
        let published = header.state.publish_join_waker().is_ok();
        // User code again, after everything is consistent. If the task completed, the waker that was left behind is
        // dropped with the handle: JOIN_WAKER is off, so the field stayed ours.
        drop(old);
        published
    }
}

impl<T, S: Schedule> Drop for Joint<T, S> {
    fn drop(&mut self) {
        let header = self.header();
        let left = header.state.drop_join_interest();
        if left.drop_output {
            // SAFETY: we were the join handle, and the task is complete. Panics are caught inside: the output's
            // destructor is the task's code, not that of whoever drops the handle.
            unsafe { cell::drop_end(self.ptr) };
        }
        if left.drop_waker {
            // SAFETY: JOIN_WAKER is off and will not be set again, so the field is ours.
            unsafe { header.drop_join_waker() };
        }
        if !left.released {
            // SAFETY: our reference is given up, and the cell freed only if it was the last.
            unsafe { release(self.ptr) }
        }
    }
}

/// Gives one reference up.
///
/// # Safety
/// The caller owns it and does not use it again.
unsafe fn release<S: Schedule>(ptr: NonNull<Header<S>>) {
    // SAFETY: alive until the reference is given up; freed only by the one that gave up the last.
    unsafe {
        if ptr.as_ref().state.ref_dec(1) {
            cell::free(ptr);
        }
    }
}
