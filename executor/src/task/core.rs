//! What the runtime keeps for each task, in the cell's header, and how the meter brackets its runs.

use std::panic::Location;
use std::sync::Arc;
use std::task::Waker;

use stipend_timers::{Account, CancelReason, Control, Stamp};

use super::registry::Key;
use super::{End, Id, JoinError, Run, Runnable, Schedule, TaskRef, Verdict};
use crate::runtime::{Shared, context};

/// The runtime's part of a task.
///
/// With the state word, the table and the join waker it makes the fixed part of a task: 80 bytes on 64-bit machines
/// beside the future. A test holds it to that.
pub(crate) struct TaskCore {
    account: Account,
    shared: Arc<Shared>,
    key: Key,
    id: Id,
    spawned_at: &'static Location<'static>,
    extras: Option<Box<Extras>>,
}

/// What only tasks made with a [`Builder`](super::Builder) may have.
pub(crate) struct Extras {
    pub(super) name: Option<Arc<str>>,
}

impl TaskCore {
    pub(super) fn new(
        account: Account,
        shared: Arc<Shared>,
        key: Key,
        spawned_at: &'static Location<'static>,
        extras: Option<Box<Extras>>,
    ) -> Self {
        Self { account, shared, key, id: Id::next(), spawned_at, extras }
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    pub(crate) fn name(&self) -> Option<&Arc<str>> {
        self.extras.as_ref()?.name.as_ref()
    }

    pub(crate) fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at
    }
}

impl Schedule for TaskCore {
    type Reason = CancelReason;
    type Stamp = Stamp;
    type Run<'a> = Metered<'a>;

    fn schedule(runnable: Runnable<Self>) {
        match context::worker_of(&runnable.core().shared) {
            Some(local) => local.push(runnable),
            None => {
                // The runnable may be run, and the task freed, as soon as it is in a queue: hence the clone.
                let shared = Arc::clone(&runnable.core().shared);
                shared.inject(runnable);
            }
        }
    }

    fn requeue(runnable: Runnable<Self>) {
        match context::worker_of(&runnable.core().shared) {
            Some(local) => local.push_back(runnable),
            None => Self::schedule(runnable),
        }
    }

    fn behind_suspend(&self) -> impl FnOnce() + use<> {
        let watch = self.account.watch();
        move || watch.recheck()
    }

    fn wants_waker(&self) -> bool {
        self.account.wants_waker()
    }

    fn set_waker(&self, waker: Waker) {
        self.account.set_waker(waker);
    }

    fn retire(&self) -> Option<TaskRef<Self>> {
        self.account.end();
        self.shared.unregister(self.key)
    }
}

/// A run of a task, bracketed by the meter.
pub(crate) struct Metered<'a>(pub(crate) stipend_timers::Run<'a>);

impl Run<CancelReason> for Metered<'_> {
    type Stamp = Stamp;

    fn before_poll(&mut self) -> Verdict<CancelReason> {
        self.0.before_poll().into()
    }

    fn after_poll(&mut self, completed: bool) -> Verdict<CancelReason> {
        self.0.after_poll(completed).into()
    }

    fn end(self) -> Stamp {
        self.0.end()
    }

    fn end_now(self) -> Stamp {
        self.0.end_now()
    }
}

impl From<Control> for Verdict<CancelReason> {
    fn from(control: Control) -> Self {
        match control {
            Control::Proceed => Self::Proceed,
            Control::Cancel(reason) => Self::Cancel(reason),
        }
    }
}

/// What the joiner is told.
pub(super) fn join_result<T>(end: End<T, CancelReason>) -> Result<T, JoinError> {
    match end {
        End::Returned(value) => Ok(value),
        End::Panicked(payload) => Err(JoinError::panicked(payload)),
        End::Cancelled(CancelReason::CpuLimit(exceeded)) => Err(JoinError::CpuLimitExceeded(exceeded)),
        End::Cancelled(CancelReason::HandlerPanicked(payload)) => Err(JoinError::panicked(payload)),
        // `Requested`, and what may be added to the reasons later.
        End::Cancelled(_) => Err(JoinError::Cancelled),
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use super::super::cell::Header;
    use super::TaskCore;

    #[test]
    fn the_fixed_part_of_a_task_is_80_bytes() {
        assert_eq!(size_of::<Header<TaskCore>>(), 80);
    }
}
