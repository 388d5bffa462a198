//! The run queues: on each worker one for each group, and one injector. The rest of the crate knows these types, not what they are made of.
//!
//! The invariant: whatever is in a queue can be taken by any worker. A thief moves half of a victim's queue into its
//! *own queue*, where it can be stolen again, and never into anything private.

use crossbeam_deque as deque;

/// A worker's own end: it alone pushes. Popping is first in, first out, as is stealing.
pub(crate) struct Local<T>(deque::Worker<T>);

/// Everybody else's end of a worker's queue.
pub(crate) struct Remote<T>(deque::Stealer<T>);

/// The queue of what is scheduled from outside the workers.
pub(crate) struct Injector<T>(deque::Injector<T>);

impl<T> Local<T> {
    pub(crate) fn new() -> Self {
        Self(deque::Worker::new_fifo())
    }

    pub(crate) fn remote(&self) -> Remote<T> {
        Remote(self.0.stealer())
    }

    pub(crate) fn push(&self, item: T) {
        self.0.push(item);
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.0.pop()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Remote<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Moves about half of the queue into `to`, and pops one.
    pub(crate) fn steal_half(&self, to: &Local<T>) -> Option<T> {
        settle(|| self.0.steal_batch_and_pop(&to.0))
    }
}

impl<T> Injector<T> {
    pub(crate) fn new() -> Self {
        Self(deque::Injector::new())
    }

    pub(crate) fn push(&self, item: T) {
        self.0.push(item);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes one.
    pub(crate) fn pop(&self) -> Option<T> {
        settle(|| self.0.steal())
    }

    /// Moves a batch into `to`, and pops one.
    pub(crate) fn take_batch(&self, to: &Local<T>) -> Option<T> {
        settle(|| self.0.steal_batch_and_pop(&to.0))
    }
}

/// `Retry` means that another thief got ahead: somebody made progress, so trying again ends.
fn settle<T>(mut steal: impl FnMut() -> deque::Steal<T>) -> Option<T> {
    loop {
        match steal() {
            deque::Steal::Success(item) => return Some(item),
            deque::Steal::Empty => return None,
            deque::Steal::Retry => std::hint::spin_loop(),
        }
    }
}
