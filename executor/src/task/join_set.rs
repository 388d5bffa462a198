//! A set of tasks that are awaited together.
//!
//! Invariant: whoever drops the set ends its tasks. Which of them have ended is not looked for: each handle has a waker
//! of its own, which puts it on the list of those to ask.

use std::fmt;
use std::future::Future;
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::{AbortHandle, JoinError, JoinHandle};
use crate::runtime::Handle;

/// A set of tasks, awaited in the order in which they end. Dropping the set aborts those that are in it.
///
/// ```
/// use stipend::task::JoinSet;
///
/// let runtime = stipend::runtime::Runtime::new()?;
/// let sum = runtime.block_on(async {
///     let mut tasks = JoinSet::new();
///     for n in 0..10 {
///         tasks.spawn(async move { n });
///     }
///     let mut sum = 0;
///     while let Some(result) = tasks.join_next().await {
///         sum += result.expect("no task was aborted");
///     }
///     sum
/// });
/// assert_eq!(sum, 45);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct JoinSet<T> {
    tasks: FuturesUnordered<JoinHandle<T>>,
}

impl<T> JoinSet<T> {
    /// A set without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self { tasks: FuturesUnordered::new() }
    }

    /// How many tasks are in the set: those that run, and those that have ended and were not returned yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Puts a task into the set that was spawned elsewhere: with a limit by a [`Builder`](super::Builder), say, on
    /// the blocking pool, or by [`spawn_local`](crate::spawn_local).
    ///
    /// ```
    /// use std::time::Duration;
    /// use stipend::{CpuLimit, task};
    ///
    /// let runtime = stipend::runtime::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let mut tasks = task::JoinSet::new();
    ///     let limit = CpuLimit::hard(Duration::from_millis(50));
    ///     tasks.insert(task::Builder::new().cpu_limit(limit).spawn(async { 1 }).expect("a valid limit"));
    ///     assert_eq!(tasks.join_next().await.unwrap().unwrap(), 1);
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn insert(&mut self, task: JoinHandle<T>) -> AbortHandle {
        let abort = task.abort_handle();
        self.tasks.push(task);
        abort
    }

    /// Waits for the next task to end, and takes it out of the set. `None` if there is none left.
    ///
    /// # Errors
    ///
    /// The result is that of the task: how it ended, if it did not return.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, no task was taken out.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.tasks.next().await
    }

    /// As [`join_next`](Self::join_next), for futures that are written by hand.
    ///
    /// # Errors
    ///
    /// As `join_next`.
    pub fn poll_join_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, JoinError>>> {
        self.tasks.poll_next_unpin(cx)
    }

    /// Asks every task in the set to end; see [`JoinHandle::abort`]. They stay in the set, to be awaited.
    pub fn abort_all(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }

    /// Aborts all tasks and waits until the last one has ended. What they return is dropped.
    ///
    /// This takes as long as the longest poll in progress.
    ///
    /// # Cancel safety
    ///
    /// If it is dropped before it is ready, the tasks are aborted, and those that are still to be awaited are in the
    /// set.
    ///
    /// ```
    /// use stipend::task::JoinSet;
    ///
    /// let runtime = stipend::runtime::Runtime::new()?;
    /// runtime.block_on(async {
    ///     let mut tasks = JoinSet::new();
    ///     tasks.spawn(std::future::pending::<()>());
    ///     tasks.shutdown().await;
    ///     assert!(tasks.is_empty());
    /// });
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub async fn shutdown(&mut self) {
        self.abort_all();
        while self.join_next().await.is_some() {}
    }
}

impl<T: Send + 'static> JoinSet<T> {
    /// Spawns a task on the current runtime, in this set; see [`stipend::spawn`](crate::spawn).
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    #[track_caller]
    pub fn spawn<F>(&mut self, future: F) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.insert(crate::spawn(future))
    }

    /// Spawns a task on this runtime, in this set; see [`Handle::spawn`].
    #[track_caller]
    pub fn spawn_on<F>(&mut self, handle: &Handle, future: F) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
    {
        self.insert(handle.spawn(future))
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.abort_all();
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// The set of tasks that were spawned elsewhere; see [`JoinSet::insert`].
impl<T> FromIterator<JoinHandle<T>> for JoinSet<T> {
    fn from_iter<I: IntoIterator<Item = JoinHandle<T>>>(tasks: I) -> Self {
        // A set from the first task on: should the iterator panic, those that it has spawned are aborted.
        let set = Self::new();
        tasks.into_iter().for_each(|task| set.tasks.push(task));
        set
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet").field("len", &self.len()).finish_non_exhaustive()
    }
}
