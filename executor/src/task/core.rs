//! What the runtime keeps for each task, in the cell's header, and how the meter brackets its runs.
#![allow(unsafe_code)]

use std::panic::Location;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::Waker;

use stipend_timers::{Account, CancelReason, Control, GroupId, Stamp};

use super::registry::{self, Slot};
use super::{End, Id, JoinError, Run, Runnable, Schedule, TaskRef, Verdict};
use crate::runtime::{Counter, Shared, context};

/// The runtime's part of a task.
///
/// With the state word, the table and the join waker it makes the fixed part of a task: 80 bytes on 64-bit machines
/// beside the future. A test holds it to that.
pub(crate) struct TaskCore {
    account: Account,
    home: Home,
    /// Whose turn it runs in.
    group: GroupId,
    id: Id,
    spawned_at: &'static Location<'static>,
    extras: Option<Box<Extras>>,
}

/// What only tasks made with a [`Builder`](super::Builder) may have.
pub(crate) struct Extras {
    pub(super) name: Arc<str>,
}

impl TaskCore {
    pub(super) fn new(
        account: Account,
        home: Home,
        group: GroupId,
        spawned_at: &'static Location<'static>,
        extras: Option<Box<Extras>>,
    ) -> Self {
        Self { account, home, group, id: Id::next(), spawned_at, extras }
    }

    /// Its place in the registry, for who puts it there.
    #[inline]
    pub(crate) fn slot(&self) -> &'static Slot<Self> {
        registry::slot_or_make(self.account.index())
    }

    /// Whether it is a task of this runtime. The address is not looked behind, so it may be asked of any task.
    pub(crate) fn belongs_to(&self, runtime: *const Shared) -> bool {
        std::ptr::eq(self.home.address(), runtime)
    }

    /// The group in whose turn it runs; the account's, unless that was changed by itself.
    #[inline]
    pub(crate) fn group(&self) -> GroupId {
        self.group
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    pub(crate) fn name(&self) -> Option<&Arc<str>> {
        self.extras.as_ref().map(|extras| &extras.name)
    }

    pub(crate) fn spawned_at(&self) -> &'static Location<'static> {
        self.spawned_at
    }
}

/// The runtime that a task belongs to, not counted: two read-modify-writes a task, on a line that all workers write, would cost
/// more than the rest of a spawn.
///
/// # Invariant
/// It is used only while the task is not complete, and until then the runtime lives: its workers hold it and do not stop while a
/// task is registered (a worker that unwinds leaks it; [`Shared::end_tasks`] has the argument), and a task is registered from
/// before it is first scheduled until it retires. A task that is refused is never scheduled.
pub(crate) struct Home(NonNull<Shared>);

// SAFETY: it leads to a `Shared` only, which is `Sync`, as references to it and `Arc`s of it are sent about anyway.
unsafe impl Send for Home {}
// SAFETY: as above.
unsafe impl Sync for Home {}

impl Home {
    pub(super) fn of(shared: &Arc<Shared>) -> Self {
        // `Arc::as_ptr` has the provenance of the whole allocation, which `Arc::increment_strong_count` needs.
        Self(NonNull::new(Arc::as_ptr(shared).cast_mut()).unwrap_or(NonNull::dangling()))
    }

    fn address(&self) -> *const Shared {
        self.0.as_ptr()
    }

    /// A count of its own, for a caller whose task may complete meanwhile.
    ///
    /// # Safety
    /// The task is not complete yet.
    unsafe fn to_arc(&self) -> Arc<Shared> {
        // SAFETY: by the invariant the runtime is alive, so there is a count to add to; the pointer came from its `Arc`.
        unsafe {
            Arc::increment_strong_count(self.address());
            Arc::from_raw(self.address())
        }
    }
}

/// Why a task was cancelled. In a box, as the task's cell has room for it from the beginning, and few need it.
pub(crate) type Reason = Box<CancelReason>;

impl Schedule for TaskCore {
    type Reason = Reason;
    type Stamp = Stamp;
    type Run<'a> = Metered<'a>;

    fn schedule(runnable: Runnable<Self>) {
        let home = runnable.core().home.address();
        if let Err(runnable) = context::with_worker(home, runnable, |local, runnable| local.push(runnable)) {
            // SAFETY: whoever has the runnable is the only one who can bring the task to its end.
            let shared = unsafe { runnable.core().home.to_arc() };
            // From here on it may be run, and the task and the runtime go: hence the count.
            shared.inject(runnable);
        }
    }

    fn requeue(runnable: Runnable<Self>) {
        let home = runnable.core().home.address();
        if let Err(runnable) = context::with_worker(home, runnable, |local, runnable| local.push_back(runnable)) {
            Self::schedule(runnable);
        }
    }

    #[inline]
    fn behind_suspend(&self) -> impl FnOnce() + use<> {
        let watch = self.account.watch();
        move || watch.recheck()
    }

    #[inline]
    fn wants_waker(&self) -> bool {
        self.account.wants_waker()
    }

    fn set_waker(&self, waker: Waker) {
        self.account.set_waker(waker);
    }

    #[inline]
    fn is_unobserved(&self) -> bool {
        self.account.is_unobserved()
    }

    fn end(&self) {
        self.account.end();
    }

    fn retire(&self) -> Option<TaskRef<Self>> {
        registry::slot(self.account.index()).remove()
    }
}

/// A run of a task, bracketed by the meter, on a worker that counts the ends.
pub(crate) struct Metered<'a> {
    pub(crate) run: stipend_timers::Run<'a>,
    pub(crate) ended: &'a Counter,
}

impl Run<Reason> for Metered<'_> {
    type Stamp = Stamp;

    #[inline(always)]
    fn before_poll(&mut self) -> Verdict<Reason> {
        self.run.before_poll().into()
    }

    #[inline(always)]
    fn after_pending(&mut self) -> Verdict<Reason> {
        self.run.after_poll(false).into()
    }

    fn after_ready(&mut self) {
        drop(self.run.after_poll(true));
    }

    #[inline(always)]
    fn end(&mut self) -> Stamp {
        self.run.end()
    }

    fn count_end(&self) {
        self.ended.add_one();
    }

    fn end_now(&mut self) -> Stamp {
        self.run.end_now()
    }

    #[inline(always)]
    fn complete(&mut self) -> Stamp {
        self.run.complete()
    }
}

impl From<Control> for Verdict<Reason> {
    #[inline]
    fn from(control: Control) -> Self {
        match control {
            Control::Proceed => Self::Proceed,
            Control::Cancel(reason) => Self::Cancel(reason),
        }
    }
}

/// What the joiner is told.
pub(super) fn join_result<T>(end: End<T, Reason>) -> Result<T, JoinError> {
    match end {
        End::Returned(value) => Ok(value),
        End::Panicked(payload) => Err(JoinError::panicked(payload)),
        End::Cancelled(reason) => Err(match *reason {
            CancelReason::CpuLimit(exceeded) => JoinError::CpuLimitExceeded(exceeded),
            CancelReason::HandlerPanicked(payload) => JoinError::panicked(payload),
            // `Requested`, and what may be added to the reasons later.
            _ => JoinError::Cancelled,
        }),
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
