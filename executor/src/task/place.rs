//! A place for one runnable, which any thread may put there or take from there.
//!
//! It is what the scheduler keeps the task in that a worker should run next: unlike a cell of the worker's own it can be stolen
//! from, so nothing is stranded behind a poll that does not end.
//!
//! # Invariant
//! The pointer is null, or stands for exactly one runnable with its reference and its right to run. One thread, the place's
//! owner, puts; anybody takes. So where the owner finds null it stays null, and a plain store will do; all else goes by exchange,
//! so each runnable that is put in comes out once. Release and acquire: what was written before a runnable was put in is seen
//! by whoever takes it.
#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use super::cell::Header;
use super::{Runnable, Schedule};
use crate::sync::atomic::{AtomicPtr, Ordering};

/// The place.
pub(crate) struct Place<S: Schedule>(AtomicPtr<Header<S>>);

impl<S: Schedule> Place<S> {
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Puts a runnable in, and takes out the one that was there. For the owner: if two threads did this, one could be lost.
    #[inline]
    pub(crate) fn put(&self, runnable: Runnable<S>) -> Option<Runnable<S>> {
        let new = ManuallyDrop::new(runnable).as_ptr();
        if self.is_empty() {
            self.0.store(new.as_ptr(), Ordering::Release);
            return None;
        }
        Self::from_ptr(self.0.swap(new.as_ptr(), Ordering::AcqRel))
    }

    /// Takes out what is there.
    #[inline]
    pub(crate) fn take(&self) -> Option<Runnable<S>> {
        // One load while it is empty.
        if self.is_empty() {
            return None;
        }
        Self::from_ptr(self.0.swap(ptr::null_mut(), Ordering::AcqRel))
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.load(Ordering::Relaxed).is_null()
    }

    fn from_ptr(old: *mut Header<S>) -> Option<Runnable<S>> {
        // SAFETY: what is in the place came from a runnable that was not dropped, and the exchange made it ours alone.
        NonNull::new(old).map(|ptr| unsafe { Runnable::from_raw(ptr) })
    }
}

impl<S: Schedule> Drop for Place<S> {
    fn drop(&mut self) {
        drop(self.take());
    }
}
