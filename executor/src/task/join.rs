//! Awaiting, aborting and watching a task from outside.

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll};

use stipend_timers::CpuClock;

use super::core::join_result;
use super::{Id, JoinError, Joint, TaskCore, TaskRef};
use crate::blocking::JobCore;

/// Waits for a task, and may abort it.
///
/// Dropping the handle detaches the task: it runs on, and its output is dropped on its own account.
///
/// # Cancel safety
/// Awaiting `&mut handle` is cancel safe: a result that was not returned stays with the task.
///
/// # Panics
/// When it is polled again after it returned the result.
///
/// ```
/// let runtime = stipend::runtime::Runtime::new()?;
/// let sum = runtime.block_on(async {
///     let task = stipend::spawn(async { 1 + 1 });
///     task.await
/// });
/// assert_eq!(sum.unwrap(), 2);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct JoinHandle<T> {
    joining: Joining<T>,
}

/// A task's joining end, or a blocking job's.
pub(crate) enum Joining<T> {
    Task(Joint<T, TaskCore>),
    Job(Joint<T, JobCore>),
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(joining: Joining<T>) -> Self {
        Self { joining }
    }

    /// Asks the task to end: it is not polled again, and its future is dropped on a worker, on its own account.
    ///
    /// The handle then resolves to [`JoinError::Cancelled`], unless the task completes in the poll in progress or
    /// has completed before. A blocking job is cancelled only if it has not begun.
    ///
    /// ```
    /// # let runtime = stipend::runtime::Runtime::new()?;
    /// let result = runtime.block_on(async {
    ///     let task = stipend::spawn(std::future::pending::<()>());
    ///     task.abort();
    ///     task.await
    /// });
    /// assert!(result.unwrap_err().is_cancelled());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn abort(&self) {
        match &self.joining {
            Joining::Task(joint) => joint.task().cancel(),
            Joining::Job(joint) => joint.core().cancel(),
        }
    }

    /// Something to abort the task with while somebody else awaits it.
    #[must_use]
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle {
            target: match &self.joining {
                Joining::Task(joint) => Target::Task(joint.task()),
                Joining::Job(joint) => Target::Job(joint.task()),
            },
        }
    }

    /// Is there a result, so that awaiting returns at once?
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.joining {
            Joining::Task(joint) => joint.is_complete(),
            Joining::Job(joint) => joint.is_complete(),
        }
    }

    /// The task's number.
    #[must_use]
    pub fn id(&self) -> Id {
        match &self.joining {
            Joining::Task(joint) => joint.core().id(),
            Joining::Job(joint) => joint.core().id(),
        }
    }

    /// The clock that tells how much CPU time the task has used; it can be read from anywhere, at any time.
    ///
    /// A blocking job has no clock of its own, for its time is charged to the task that spawned it: its handle gives
    /// that task's clock. For a job that no task spawned it is a clock that stands at zero.
    #[must_use]
    pub fn cpu_clock(&self) -> CpuClock {
        match &self.joining {
            Joining::Task(joint) => joint.task().cpu_clock(),
            Joining::Job(joint) => joint.core().clock(),
        }
    }
}

impl TaskRef<TaskCore> {
    /// Has the task end at its next boundary, which is now if it waits.
    pub(crate) fn cancel(&self) {
        // A task that has ended needs no cancelling.
        if self.core().account().cancel() == Ok(true) {
            self.wake();
        }
    }

    fn cpu_clock(&self) -> CpuClock {
        let account = self.core().account();
        let clock = account.clock();
        // What is armed through it must be able to wake the task.
        if account.wants_waker() {
            account.set_waker(self.waker());
        }
        clock
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.joining {
            Joining::Task(joint) => joint.poll(cx).map(join_result),
            Joining::Job(joint) => joint.poll(cx).map(join_result),
        }
    }
}

// What a panic could leave half done is behind the cell's state word, which decides who may look at it.
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("id", &self.id())
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// Aborts a task; see [`JoinHandle::abort_handle`].
#[derive(Clone)]
pub struct AbortHandle {
    target: Target,
}

#[derive(Clone)]
enum Target {
    Task(TaskRef<TaskCore>),
    Job(TaskRef<JobCore>),
}

impl AbortHandle {
    /// As [`JoinHandle::abort`].
    pub fn abort(&self) {
        match &self.target {
            Target::Task(task) => task.cancel(),
            Target::Job(job) => job.core().cancel(),
        }
    }

    /// As [`JoinHandle::is_finished`].
    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.target {
            Target::Task(task) => task.is_complete(),
            Target::Job(job) => job.is_complete(),
        }
    }

    /// The task's number.
    #[must_use]
    pub fn id(&self) -> Id {
        match &self.target {
            Target::Task(task) => task.core().id(),
            Target::Job(job) => job.core().id(),
        }
    }
}

impl UnwindSafe for AbortHandle {}
impl RefUnwindSafe for AbortHandle {}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AbortHandle").field("id", &self.id()).finish_non_exhaustive()
    }
}
