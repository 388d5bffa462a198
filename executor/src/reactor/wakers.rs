//! The wakers that one step of the driver has to wake.
//!
//! A waker is user code: it may take locks, drop a whole task, or panic. So wakers are moved out of the reactor's
//! structures while a lock is held, and are cloned, woken and dropped only while none is. One that panics does
//! not keep the others from being woken.

use std::task::Waker;

use crate::task::contain;

#[derive(Debug, Default)]
pub(super) struct Wakers(Vec<Waker>);

impl Wakers {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, waker: Waker) {
        self.0.push(waker);
    }

    pub(super) fn extend(&mut self, wakers: impl IntoIterator<Item = Waker>) {
        self.0.extend(wakers);
    }

    /// Wakes them all. No lock of the reactor may be held.
    pub(super) fn wake_all(&mut self) {
        for waker in self.0.drain(..) {
            contain(|| waker.wake());
        }
    }
}
