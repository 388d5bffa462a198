//! How a worker (or a thread in `block_on`) sleeps when it does not hold the reactor.
//!
//! Not `thread::park`: its token belongs to the thread, so user code on a worker could eat it. Here a notification
//! stays until this parker takes it, so one that comes before the sleep ends the sleep.

use crate::sync::{Condvar, Mutex, lock, wait};

#[derive(Debug)]
pub(crate) struct Parker {
    notified: Mutex<bool>,
    changed: Condvar,
}

impl Parker {
    pub(crate) fn new() -> Self {
        Self { notified: Mutex::new(false), changed: Condvar::new() }
    }

    /// Sleeps until notified, or returns at once if that has happened since the last time.
    pub(crate) fn park(&self) {
        let mut notified = lock(&self.notified);
        while !*notified {
            notified = wait(&self.changed, notified);
        }
        *notified = false;
    }

    /// Ends the sleep in progress, or the next.
    pub(crate) fn notify(&self) {
        let before = std::mem::replace(&mut *lock(&self.notified), true);
        if !before {
            self.changed.notify_one();
        }
    }
}
