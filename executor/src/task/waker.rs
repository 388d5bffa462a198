//! The task's waker: a counted reference to the cell, behind the standard library's vtable.
//!
//! A waker may outlive the task, its join handle and the runtime: it keeps the cell's memory, never the future.
#![allow(unsafe_code)]

use std::ptr::NonNull;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::Schedule;
use super::cell::{Header, free};
use super::refs::Runnable;
use super::running;

/// A waker that takes over one reference.
///
/// # Safety
/// `ptr` is live. Either the caller gives one reference up to the waker, or it wraps the waker in `ManuallyDrop` and
/// keeps its reference for as long as the waker is used.
pub(super) unsafe fn from_borrowed<S: Schedule>(ptr: NonNull<Header<S>>) -> Waker {
    // SAFETY: the vtable's functions keep `RawWaker`'s contract: they are thread-safe (the header is `Sync`, the state
    // word is atomic), `clone` counts, `wake` and `drop` give the reference up, `wake_by_ref` keeps it.
    unsafe { Waker::from_raw(raw(ptr.as_ptr())) }
}

fn raw<S: Schedule>(ptr: *const Header<S>) -> RawWaker {
    RawWaker::new(ptr.cast(), &Table::<S>::VTABLE)
}

struct Table<S>(std::marker::PhantomData<S>);

impl<S: Schedule> Table<S> {
    const VTABLE: RawWakerVTable = RawWakerVTable::new(clone::<S>, wake::<S>, wake_by_ref::<S>, drop_waker::<S>);
}

/// The header behind a waker's data pointer.
///
/// # Safety
/// `data` is that of a waker made by [`raw`] with the same `S`, which holds (or borrows) a reference.
unsafe fn header<S: Schedule>(data: *const ()) -> NonNull<Header<S>> {
    // SAFETY: `raw` was given a non-null pointer.
    unsafe { NonNull::new_unchecked(data.cast_mut().cast()) }
}

unsafe fn clone<S: Schedule>(data: *const ()) -> RawWaker {
    // SAFETY: the waker's reference keeps the cell alive during the call.
    unsafe { header::<S>(data).as_ref() }.state.ref_inc();
    raw(data.cast::<Header<S>>())
}

unsafe fn wake<S: Schedule>(data: *const ()) {
    // SAFETY: the waker's reference is now ours.
    let ptr = unsafe { header::<S>(data) };
    // SAFETY: alive by that reference.
    if !running::note_wake(data) && unsafe { ptr.as_ref() }.state.wake() {
        // SAFETY: `wake` named us the one to schedule; the waker's reference becomes the runnable's.
        S::schedule(unsafe { Runnable::from_raw(ptr) });
    } else {
        // SAFETY: the reference is given up.
        unsafe { drop_waker::<S>(data) };
    }
}

unsafe fn wake_by_ref<S: Schedule>(data: *const ()) {
    // SAFETY: the waker's reference keeps the cell alive during the call.
    unsafe { wake_ptr(header::<S>(data)) }
}

/// Wakes a task.
///
/// # Safety
/// The caller has a reference, or borrows one, for the length of the call.
pub(super) unsafe fn wake_ptr<S: Schedule>(ptr: NonNull<Header<S>>) {
    if running::note_wake(ptr.as_ptr().cast()) {
        return;
    }
    // SAFETY: alive by the caller's reference.
    let state = unsafe { &ptr.as_ref().state };
    if state.wake() {
        // Nobody else can free or run the task before the runnable is handed over below.
        state.ref_inc();
        // SAFETY: `wake` named us the one to schedule, with the reference just counted.
        S::schedule(unsafe { Runnable::from_raw(ptr) });
    }
}

unsafe fn drop_waker<S: Schedule>(data: *const ()) {
    // SAFETY: the waker's reference is ours to give up.
    let ptr = unsafe { header::<S>(data) };
    // SAFETY: alive until the reference is given up, and freed only by the one that gave up the last.
    unsafe {
        if ptr.as_ref().state.ref_dec(1) {
            free(ptr);
        }
    }
}
