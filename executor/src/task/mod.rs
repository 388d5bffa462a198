//! Tasks: how they are spawned, awaited, aborted and looked at.
//!
//! [`spawn`](crate::spawn) and [`Builder`] make tasks, [`JoinHandle`] awaits them, [`TaskSnapshot`] shows them,
//! [`JoinSet`] keeps many together, [`LocalKey`] gives them values of their own.
//! A task spawned on a closed runtime is refused: it ends at once, unpolled.
//!
//! # What a task takes of memory
//!
//! The cell, one allocation: a fixed part of 80 bytes, and the larger of the future and the outcome; the outcome is at least 24 bytes.
//! The account's record: 192 bytes, three cache lines, which the next task uses when this one has ended, and which never go back to
//! the allocator. The registry: 8. The allocator adds 8 bytes to the cell and rounds it up to a multiple of 16 (glibc). A cell of up to
//! 504 bytes is kept for the next task of its size, up to 2 MiB of each size.
//!
//! Among a million tasks on Linux each was 317 bytes of resident memory if it waited for nothing, 412 in `sleep(1 h)`, timer included,
//! and 420 at a oneshot channel, channel included; tokio's 315, 439 and 323. By `cargo bench -p stipend-benches --bench memory`.
//!
//! # What a panic cannot do
//!
//! The poll, the future's destructor, the output's destructor, the join waker's `wake` and `drop`, and the payload of
//! each of these panics are user code; each is called with the cell in a consistent state, and caught. A panic of the
//! poll or of the future's destructor is the task's outcome. The others have nobody to be told.

use std::task::Waker;

#[cfg(not(loom))]
mod builder;
mod cell;
mod error;
mod id;
mod memory;
mod panic;
mod place;
mod refs;
mod running;
mod state;
mod waker;

#[cfg(not(loom))]
mod core;
#[cfg(not(loom))]
mod join;
#[cfg(not(loom))]
mod join_set;
#[cfg(not(loom))]
mod local;
#[cfg(all(test, loom))]
mod models;
mod registry;
#[cfg(not(loom))]
mod snapshot;

#[cfg(not(loom))]
pub use self::builder::{Builder, SpawnError};
pub use self::error::JoinError;
pub use self::id::Id;
#[cfg(not(loom))]
pub use self::join::{AbortHandle, JoinHandle};
#[cfg(not(loom))]
pub use self::join_set::JoinSet;
#[cfg(not(loom))]
pub use self::local::{LocalError, LocalKey, TaskLocalFuture};
pub use self::panic::Panic;
#[cfg(not(loom))]
pub use self::snapshot::{TaskSnapshot, TaskState};

pub(crate) use self::panic::contain;
pub(crate) use self::place::Place;
pub(crate) use self::refs::{
    Joint, Parts, Runnable, TaskRef, spawn as allocate, spawn_unchecked as allocate_unchecked,
};
#[cfg(not(loom))]
pub(crate) use self::{
    builder::{no_local_runtime, spawn_here, spawn_local_here, spawn_local_plain, spawn_plain},
    core::{Metered, Reason, TaskCore},
    join::Joining,
    registry::all as all_slots,
    running::is_inside,
};

/// How a task ended.
pub(crate) enum End<T, R> {
    Returned(T),
    Panicked(Box<dyn std::any::Any + Send>),
    Cancelled(R),
}

/// What brackets a run of a task, and decides whether it goes on.
///
/// The runtime's is the meter. First comes `before_poll`. If that cancels, there is no poll, but destructors and wakes, then
/// `end_now`. The poll is pending: `after_pending`, and `end`. It is ready: the future's destructor, and then either `complete`, if
/// nobody has to be told, or `after_ready`, wakes, and `end_now`. Behind one of the ends there is only the drop.
pub(crate) trait Run<R> {
    /// When the bracket closed; what the next one opens with.
    type Stamp;

    fn before_poll(&mut self) -> Verdict<R>;
    fn after_pending(&mut self) -> Verdict<R>;
    /// It is too late to cancel.
    fn after_ready(&mut self);
    /// The task has left the registry.
    fn count_end(&self) {}
    /// Closes the bracket as of `after_pending`.
    fn end(&mut self) -> Self::Stamp;
    /// Closes the bracket as of now.
    fn end_now(&mut self) -> Self::Stamp;
    /// `after_ready` and `end_now` in one, of a task of which nothing is left.
    fn complete(&mut self) -> Self::Stamp;
}

/// What a bracket says about the task.
pub(crate) enum Verdict<R> {
    Proceed,
    Cancel(R),
}

/// What the cell must know of whoever executes it.
pub(crate) trait Schedule: Sized + Send + Sync + 'static {
    /// Why a task may be cancelled.
    type Reason: Send + 'static;
    type Stamp;
    type Run<'a>: Run<Self::Reason, Stamp = Self::Stamp>;
    /// Whether tasks are in the registry from before they are scheduled until `retire`.
    const REGISTERED: bool = true;

    /// The task was woken: sees to it that the runnable is run.
    fn schedule(runnable: Runnable<Self>);
    /// The task woke itself while it ran: the same, but others go first.
    fn requeue(runnable: Runnable<Self>) {
        Self::schedule(runnable);
    }
    /// What is to be done behind `suspend`, when the task may be run elsewhere already, or be gone: the meter's look at what
    /// was armed just as the poll ended.
    fn behind_suspend(&self) -> impl FnOnce() + use<Self> {
        || ()
    }
    /// Does somebody depend on the task's being woken from outside, who has no waker yet? Asked behind a poll.
    fn wants_waker(&self) -> bool {
        false
    }
    /// Here it is.
    fn set_waker(&self, _waker: Waker) {}
    /// The future is dropped. Takes the task out of the registry, and gives up what it returns. Called once, inside the bracket.
    fn retire(&self) -> Option<TaskRef<Self>>;
    /// Whether nobody would notice that the task ends, who has no reference to it. Asked behind `retire`.
    fn is_unobserved(&self) -> bool {
        false
    }
    /// The outcome will be published next. Called once, behind `retire`; not of a task that was unobserved when the run was alone
    /// with it.
    fn end(&self) {}
}
