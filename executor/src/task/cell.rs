//! The task cell: one allocation that holds a future, later its outcome, and the header that everybody shares.
//!
//! Why our own: the outcome must be stored, the account ended and the joiner woken *inside* the metered section; a
//! panic in any piece of user code must end one task and no more; and cancelling must not race the poll. The
//! invariant of this file: **the stage is touched only by whom the state word names its owner** (see
//! [`state`](super::state)).
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker};

use super::memory;
use super::panic::{contain, discard};
use super::refs::Runnable;
use super::running::{self, Running};
use super::state::{Snapshot, State, Suspended};
use super::waker;
use super::{End, Run, Schedule, Verdict};
use crate::sync::UnsafeCell;

/// What is known of a task without knowing its future.
///
/// It is the first field of the `repr(C)` cell, so a pointer to the one is a pointer to the other.
pub(super) struct Header<S: Schedule> {
    pub(super) state: State,
    vtable: &'static VTable<S>,
    /// The waker of whoever awaits the join handle; access by `JOIN_WAKER` and `COMPLETE`.
    pub(super) join_waker: UnsafeCell<Option<Waker>>,
    pub(super) core: S,
}

/// The operations that need to know the future's type.
struct VTable<S: Schedule> {
    run: for<'a> unsafe fn(NonNull<Header<S>>, S::Run<'a>) -> S::Stamp,
    refuse: unsafe fn(NonNull<Header<S>>, S::Reason),
    take_output: unsafe fn(NonNull<Header<S>>, *mut ()),
    drop_output: unsafe fn(NonNull<Header<S>>),
    dealloc: unsafe fn(NonNull<Header<S>>),
}

#[repr(C)]
struct Cell<F: Future, S: Schedule> {
    header: Header<S>,
    stage: UnsafeCell<Stage<F, S::Reason>>,
}

/// A task's future, then its outcome, then nothing.
enum Stage<F: Future, R> {
    Pending(F),
    Ended(End<F::Output, R>),
    Taken,
}

/// Allocates a task that is scheduled: its runnable, its join handle and `others` more references exist.
///
/// Here nothing is said of threads: [`refs`](super::refs), whose types go from thread to thread, demands what they need.
pub(super) fn allocate<F, S>(core: impl FnOnce() -> S, future: F, others: usize) -> NonNull<Header<S>>
where
    F: Future + 'static,
    S: Schedule,
{
    Cell::<F, S>::make(core, State::scheduled(others), future)
}

impl<F, S> Cell<F, S>
where
    F: Future + 'static,
    S: Schedule,
{
    const VTABLE: VTable<S> = VTable {
        run: run::<F, S>,
        refuse: refuse_typed::<F, S>,
        take_output: take_output::<F, S>,
        drop_output: drop_output::<F, S>,
        dealloc: dealloc::<F, S>,
    };

    fn make(core: impl FnOnce() -> S, state: State, future: F) -> NonNull<Header<S>> {
        let ptr = memory::allocate(Layout::new::<Self>()).cast::<Self>();
        // Only now, so that it is made where it will lie: to copy what was just written takes longer than to write it. (Should it panic,
        // which takes four thousand million handles, the block is leaked.)
        let core = core();
        // SAFETY: the memory is fresh, and has this layout.
        unsafe {
            ptr.write(Self {
                header: Header { state, vtable: &Self::VTABLE, join_waker: UnsafeCell::new(None), core },
                stage: UnsafeCell::new(Stage::Pending(future)),
            });
        }
        // It keeps the provenance of the whole cell, as it is only ever cast.
        ptr.cast()
    }

    /// Replaces the stage and drops the old one in place; hands back the payload if that panicked.
    ///
    /// # Safety
    /// The caller owns the stage by the state word.
    unsafe fn replace(&self, stage: Stage<F, S::Reason>) -> Result<(), Box<dyn std::any::Any + Send>> {
        self.stage.with_mut(|slot| {
            // SAFETY: the caller owns the stage, so this is the only reference. A pinned future is dropped where
            // it lies, as the pin contract asks; and should its destructor unwind, the assignment still stores the
            // new stage, so nothing is dropped twice.
            catch_unwind(AssertUnwindSafe(|| unsafe { *slot = stage }))
        })
    }
}

/// Runs a task once: its poll, or its end. Consumes the runnable's reference.
///
/// # Safety
/// `ptr` is a live cell of exactly these types; the caller holds the runnable and gives its reference up.
unsafe fn run<F, S>(ptr: NonNull<Header<S>>, mut run: S::Run<'_>) -> S::Stamp
where
    F: Future + 'static,
    S: Schedule,
{
    const { assert!(align_of::<Header<S>>().is_multiple_of(running::ALIGN)) }
    // SAFETY: the types are the allocation's (this function is reached through its own vtable), and the runnable's
    // reference keeps it alive until `suspend`, or `ref_dec` at the very end, gives it up.
    let cell = unsafe { ptr.cast::<Cell<F, S>>().as_ref() };
    let state = &cell.header.state;
    state.start();
    let running = Running::enter(ptr.as_ptr().cast(), S::REGISTERED);

    let (end, completed) = match run.before_poll() {
        Verdict::Cancel(reason) => (End::Cancelled(reason), false),
        Verdict::Proceed => {
            // SAFETY: the waker borrows the runnable's reference: it is never dropped itself, and it does not live
            // longer than this block, in which we hold that reference. Clones count themselves.
            let waker = ManuallyDrop::new(unsafe { waker::from_borrowed(ptr) });
            let mut cx = Context::from_waker(&waker);
            let polled = cell.stage.with_mut(|stage| {
                catch_unwind(AssertUnwindSafe(|| {
                    // SAFETY: RUNNING is ours, so the stage is ours alone until we clear it.
                    match unsafe { &mut *stage } {
                        Stage::Pending(future) => {
                            // SAFETY: a cell is never moved, and the future is dropped
                            // in place only, by `replace` or `dealloc`.
                            unsafe { Pin::new_unchecked(future) }.poll(&mut cx)
                        }
                        Stage::Ended(_) | Stage::Taken => {
                            unreachable!("a task that has ended was run")
                        }
                    }
                }))
            });
            if matches!(polled, Ok(Poll::Pending)) && cell.header.core.wants_waker() {
                // Before the boundary, which may have to wake the task.
                cell.header.core.set_waker(Waker::clone(&waker));
            }
            match polled {
                Ok(Poll::Pending) => match run.after_pending() {
                    Verdict::Proceed => {
                        // The account is unpublished *before* another worker can get hold of the task.
                        let at = run.end();
                        // Nothing is left for its drop, which would have to find that out.
                        std::mem::forget(run);
                        if running.has_woken_itself() {
                            drop(running);
                            // SAFETY: our reference, and RUNNING with it, become the new runnable's. We were the one to
                            // run the task, and nobody else was named.
                            S::requeue(unsafe { Runnable::from_raw(ptr) });
                            return at;
                        }
                        drop(running);
                        let behind_suspend = cell.header.core.behind_suspend();
                        match state.suspend() {
                            Suspended::Idle => {}
                            Suspended::Requeue => {
                                // SAFETY: `suspend` left us the reference, for exactly one new runnable.
                                let runnable = unsafe { Runnable::from_raw(ptr) };
                                S::schedule(runnable);
                            }
                            // SAFETY: that was the last reference.
                            Suspended::Forgotten => unsafe { free(ptr) },
                        }
                        behind_suspend();
                        return at;
                    }
                    Verdict::Cancel(reason) => (End::Cancelled(reason), false),
                },
                Ok(Poll::Ready(output)) => (End::Returned(output), true),
                Err(payload) => (End::Panicked(payload), true),
            }
        }
    };

    // SAFETY: RUNNING is still ours. The future goes first, alone, so that its destructor cannot take the outcome
    // with it.
    let end = match unsafe { cell.replace(Stage::Taken) } {
        Ok(()) => end,
        Err(payload) => {
            contain(|| end);
            End::Panicked(payload)
        }
    };
    // Its reference goes with our own, below.
    let registered = cell.header.core.retire().map(std::mem::forget).is_some();
    running.retired();
    run.count_end();
    let ours = 1 + usize::from(registered);
    if state.is_last(ours) && cell.header.core.is_unobserved() {
        // Nobody is left to hear of it, and nobody can come.
        contain(|| drop(end));
        let at = if completed { run.complete() } else { run.end_now() };
        std::mem::forget(run);
        drop(running);
        // SAFETY: the last references are ours.
        unsafe { free(ptr) };
        return at;
    }
    if completed {
        // It returned in time to return: whatever was decided against it comes too late.
        contain(|| run.after_ready());
    }
    cell.header.core.end();
    // SAFETY: RUNNING is still ours. What is replaced is `Taken`, which has nothing to drop.
    if let Err(payload) = unsafe { cell.replace(Stage::Ended(end)) } {
        discard(payload);
    }

    let after = state.complete();
    // SAFETY: we have just completed it, as the one that ran it.
    unsafe { publish(cell, after) };

    let at = run.end_now();
    // Before the cell goes, to which it refers.
    std::mem::forget(run);
    drop(running);
    if state.ref_dec(ours) {
        // SAFETY: the last references were ours.
        unsafe { free(ptr) };
    }
    at
}

/// Tells the joiner of a task that is complete, or drops the outcome that nobody wants.
///
/// # Safety
/// The caller has just set COMPLETE, which made the state word read `after`.
unsafe fn publish<F, S>(cell: &Cell<F, S>, after: Snapshot)
where
    F: Future + 'static,
    S: Schedule,
{
    let state = &cell.header.state;
    if !after.has_join_interest() {
        // SAFETY: the join handle went before completion, so nobody else will look at the outcome.
        if let Err(payload) = unsafe { cell.replace(Stage::Taken) } {
            discard(payload);
        }
    } else if after.has_join_waker() {
        // From here the outcome is the join handle's. The waker stays ours to read until JOIN_WAKER is off.
        cell.header.join_waker.with(|waker| {
            // SAFETY: COMPLETE and JOIN_WAKER are both set: the join handle neither writes nor drops the field.
            contain(|| unsafe { &*waker }.as_ref().map(Waker::wake_by_ref));
        });
        if !state.release_join_waker().has_join_interest() {
            // SAFETY: the join handle went while we were reading and left the waker to us.
            unsafe { cell.header.drop_join_waker() };
        }
    }
}

/// Ends a task that never ran. Consumes the runnable's reference.
///
/// # Safety
/// As for [`run`]; the task is not registered anywhere.
unsafe fn refuse_typed<F, S>(ptr: NonNull<Header<S>>, reason: S::Reason)
where
    F: Future + 'static,
    S: Schedule,
{
    // SAFETY: as in `run`.
    let cell = unsafe { ptr.cast::<Cell<F, S>>().as_ref() };
    cell.header.state.start();
    // SAFETY: RUNNING is ours. Whether the destructor panics or not, the task was refused.
    if let Err(payload) = unsafe { cell.replace(Stage::Ended(End::Cancelled(reason))) } {
        discard(payload);
    }
    let after = cell.header.state.complete();
    // SAFETY: we have just completed it.
    unsafe { publish(cell, after) };
    if cell.header.state.ref_dec(1) {
        // SAFETY: the last reference was ours.
        unsafe { free(ptr) };
    }
}

/// # Safety
/// `ptr` is a live cell of these types that is complete; the caller is its join handle and takes the output once;
/// `into` points to an `Option<End<F::Output, S::Reason>>`.
unsafe fn take_output<F, S>(ptr: NonNull<Header<S>>, into: *mut ())
where
    F: Future + 'static,
    S: Schedule,
{
    // SAFETY: live and of these types, by contract.
    let cell = unsafe { ptr.cast::<Cell<F, S>>().as_ref() };
    // SAFETY: complete and with its join handle alive: the stage is the join handle's, who calls. An outcome is not
    // pinned and may be moved out.
    let stage = cell.stage.with_mut(|stage| unsafe { std::mem::replace(&mut *stage, Stage::Taken) });
    if let Stage::Ended(end) = stage {
        // SAFETY: `into` has this type, by contract.
        unsafe { *into.cast::<Option<End<F::Output, S::Reason>>>() = Some(end) };
    }
}

/// # Safety
/// `ptr` is a live cell of these types that is complete, and the caller was its join handle.
unsafe fn drop_output<F, S>(ptr: NonNull<Header<S>>)
where
    F: Future + 'static,
    S: Schedule,
{
    // SAFETY: live and of these types, by contract.
    let cell = unsafe { ptr.cast::<Cell<F, S>>().as_ref() };
    // SAFETY: a complete stage belongs to the join handle.
    if let Err(payload) = unsafe { cell.replace(Stage::Taken) } {
        discard(payload);
    }
}

/// # Safety
/// `ptr` is a live cell of these types to which no reference is left.
unsafe fn dealloc<F, S>(ptr: NonNull<Header<S>>)
where
    F: Future + 'static,
    S: Schedule,
{
    let cell = ptr.cast::<Cell<F, S>>();
    // A panic of a destructor (a future that everybody forgot) goes no further.
    // SAFETY: the cell is live, and nobody else has it.
    contain(|| unsafe { cell.drop_in_place() });
    // SAFETY: the memory is from `allocate`, which was asked for this type's layout, and nothing is left in it.
    unsafe { memory::free(cell.cast(), Layout::new::<Cell<F, S>>()) }
}

/// Frees a cell.
///
/// # Safety
/// No reference is left.
pub(super) unsafe fn free<S: Schedule>(ptr: NonNull<Header<S>>) {
    // SAFETY: live until the call below; the vtable is static and read before.
    let dealloc = unsafe { ptr.as_ref() }.vtable.dealloc;
    // SAFETY: the vtable is that of the cell's types; no reference is left.
    unsafe { dealloc(ptr) }
}

/// Runs a task once; see [`run`].
///
/// # Safety
/// The caller holds the runnable and gives its reference up.
pub(super) unsafe fn run_once<S: Schedule>(ptr: NonNull<Header<S>>, bracket: S::Run<'_>) -> S::Stamp {
    // SAFETY: live by the caller's reference; the vtable is that of the cell's types.
    unsafe { (ptr.as_ref().vtable.run)(ptr, bracket) }
}

/// Ends a task that never ran; see [`refuse_typed`].
///
/// # Safety
/// The caller holds the runnable and gives its reference up; the task is not registered anywhere.
pub(super) unsafe fn refuse<S: Schedule>(ptr: NonNull<Header<S>>, reason: S::Reason) {
    // SAFETY: live by the caller's reference; the vtable is that of the cell's types.
    unsafe { (ptr.as_ref().vtable.refuse)(ptr, reason) }
}

/// The join handle's side: takes the outcome of a complete task, if it is still there.
///
/// # Safety
/// The caller is the join handle, has seen COMPLETE, and `T` is the output of the cell's future.
pub(super) unsafe fn take_end<T, S: Schedule>(ptr: NonNull<Header<S>>) -> Option<End<T, S::Reason>> {
    let mut end: Option<End<T, S::Reason>> = None;
    // SAFETY: passed on; `end` has the type that the vtable's function writes.
    unsafe { (ptr.as_ref().vtable.take_output)(ptr, (&raw mut end).cast()) };
    end
}

/// The join handle's side: drops the outcome of a complete task, if it is still there. Catches panics.
///
/// # Safety
/// The caller is the join handle that dropped its interest and saw COMPLETE as it did.
pub(super) unsafe fn drop_end<S: Schedule>(ptr: NonNull<Header<S>>) {
    // SAFETY: passed on.
    unsafe { (ptr.as_ref().vtable.drop_output)(ptr) }
}

impl<S: Schedule> Header<S> {
    /// Takes the join waker out and drops it, whatever its destructor does.
    ///
    /// # Safety
    /// The caller owns the field by the state word.
    pub(super) unsafe fn drop_join_waker(&self) {
        // SAFETY: the caller owns the field.
        let waker = self.join_waker.with_mut(|waker| unsafe { (*waker).take() });
        contain(|| drop(waker));
    }
}
