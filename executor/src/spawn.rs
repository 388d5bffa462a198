//! Spawning on the current runtime.

use std::future::Future;
use std::panic::Location;

use crate::runtime::Handle;
use crate::task::{self, JoinHandle};

/// Spawns a task on the current runtime. It begins at once, and runs whether or not its handle is awaited.
///
/// The task inherits its parent's group and the [`Scope`](crate::Scope) around, and neither limits nor timers. On a runtime that is shut down the future is
/// dropped, and the handle resolves to [`JoinError::Cancelled`](crate::task::JoinError::Cancelled). For names, groups
/// and limits see [`task::Builder`](crate::task::Builder).
///
/// # Panics
/// Outside a runtime.
///
/// ```
/// let runtime = stipend::runtime::Runtime::new()?;
/// let n = runtime.block_on(async {
///     let tasks: Vec<_> = (0..10).map(|n| stipend::spawn(async move { n })).collect();
///     let mut sum = 0;
///     for task in tasks {
///         sum += task.await.unwrap();
///     }
///     sum
/// });
/// assert_eq!(n, 45);
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match task::spawn_here(future, Location::caller()) {
        Some(handle) => handle,
        None => Handle::missing(),
    }
}

/// Spawns a task that stays on this thread, so that its future and its output need not be `Send`. Otherwise as [`spawn`].
///
/// For names, groups and limits see [`task::Builder::spawn_local`](crate::task::Builder::spawn_local).
///
/// # Panics
/// Outside [`LocalRuntime::block_on`](crate::runtime::LocalRuntime::block_on). Before it there is
/// [`LocalRuntime::spawn_local`](crate::runtime::LocalRuntime::spawn_local).
///
/// ```
/// use std::rc::Rc;
///
/// let runtime = stipend::runtime::LocalRuntime::new()?;
/// let n = runtime.block_on(async {
///     let not_send = Rc::new(41);
///     stipend::spawn_local(async move { *not_send + 1 }).await
/// });
/// assert_eq!(n.unwrap(), 42);
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    match task::spawn_local_here(future, Location::caller()) {
        Some(handle) => handle,
        None => task::no_local_runtime(),
    }
}

/// Runs `f` on a thread of its own kind, where it may block or compute for long.
///
/// Its CPU time is charged to the task that calls this, beside the task's own polls; outside any task, to the
/// runtime. If all blocking threads are busy the job waits. Aborting works until it has begun. On a runtime that is
/// shut down the job is dropped, and the handle resolves to
/// [`JoinError::Cancelled`](crate::task::JoinError::Cancelled).
///
/// # Panics
/// Outside a runtime.
///
/// ```
/// let runtime = stipend::runtime::Runtime::new()?;
/// let bytes = runtime.block_on(async { stipend::spawn_blocking(|| std::fs::read("Cargo.toml")).await });
/// assert!(bytes.unwrap().is_ok());
/// # Ok::<(), std::io::Error>(())
/// ```
#[track_caller]
pub fn spawn_blocking<R, F>(f: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    Handle::current().spawn_blocking(f)
}
