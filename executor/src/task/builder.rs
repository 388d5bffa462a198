//! Spawning with more than a future: name, group, limits.
#![allow(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use stipend_timers::{Account, Action, CancelReason, CpuLimit, Expiry, Group, GroupId, LimitError, PollLimit};

use super::core::{Extras, Home};
use super::{JoinHandle, Joining, Joint, Parts, Runnable, TaskCore, allocate, allocate_unchecked};
use crate::runtime::{Handle, Shared, context};

type SoftHandler = Box<dyn FnMut(Expiry) -> Action + Send>;

/// Spawns a task with a name, a group, an allowance.
///
/// ```
/// use std::time::Duration;
/// use stipend::{CpuLimit, runtime::Runtime, task};
///
/// let runtime = Runtime::new()?;
/// let answer = runtime.block_on(async {
///     task::Builder::new()
///         .name("answer")
///         .cpu_limit(CpuLimit::hard(Duration::from_millis(50)))
///         .spawn(async { 42 })
///         .expect("50 ms is a valid limit")
///         .await
/// });
/// assert_eq!(answer.unwrap(), 42);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Default)]
#[must_use = "a builder does nothing until `spawn`"]
pub struct Builder {
    name: Option<Arc<str>>,
    group: Option<Group>,
    cpu_limit: Option<CpuLimit>,
    poll_limit: Option<PollLimit>,
    on_soft_limit: Option<SoftHandler>,
}

impl Builder {
    /// A task without a name, in its parent's group, without limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// A name, for snapshots and reports. It need not be unique.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The group whose clock the task counts into and whose share of the workers it uses, instead of its parent's.
    pub fn group(mut self, group: &Group) -> Self {
        self.group = Some(group.clone());
        self
    }

    /// How much CPU time the task may use.
    pub fn cpu_limit(mut self, limit: CpuLimit) -> Self {
        self.cpu_limit = Some(limit);
        self
    }

    /// What is called at the task's poll boundary when its soft limit is reached, on its own account. Without a
    /// handler, or without a soft limit, nothing is called.
    pub fn on_soft_limit(mut self, handler: impl FnMut(Expiry) -> Action + Send + 'static) -> Self {
        self.on_soft_limit = Some(Box::new(handler));
        self
    }

    /// How much CPU time each of its polls may use.
    pub fn poll_limit(mut self, limit: PollLimit) -> Self {
        self.poll_limit = Some(limit);
        self
    }

    /// Spawns the task on the current runtime.
    ///
    /// # Errors
    /// [`SpawnError`]: a limit is not valid, or the runtime is shut down. The future is dropped.
    ///
    /// # Panics
    /// Outside a runtime.
    #[track_caller]
    pub fn spawn<F>(self, future: F) -> Result<JoinHandle<F::Output>, SpawnError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let site = Location::caller();
        self.spawn_at(Handle::current().shared(), future, site)
    }

    /// Spawns the task on the runtime of `handle`.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn spawn_on<F>(self, handle: &Handle, future: F) -> Result<JoinHandle<F::Output>, SpawnError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn_at(handle.shared(), future, Location::caller())
    }

    /// Spawns a task that stays on this thread: its future and its output need not be `Send`.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    ///
    /// # Panics
    /// Outside [`LocalRuntime::block_on`](crate::runtime::LocalRuntime::block_on).
    #[track_caller]
    pub fn spawn_local<F>(self, future: F) -> Result<JoinHandle<F::Output>, SpawnError>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let site = Location::caller();
        let Some(home) = context::local_runtime() else { no_local_runtime() };
        let (account, group, extras) = self.prepare()?;
        // SAFETY: `local_runtime` found that this thread is the one that runs all tasks of that runtime, and a registered task
        // keeps a reference in the registry until it has ended.
        let parts =
            unsafe { allocate_unchecked(|| TaskCore::new(account, Home::of(&home), group, site, extras), future) };
        register(&home, parts).map_err(Refused::into_error)
    }

    fn spawn_at<F>(
        self,
        shared: &Arc<Shared>,
        future: F,
        site: &'static Location<'static>,
    ) -> Result<JoinHandle<F::Output>, SpawnError>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (account, group, extras) = self.prepare()?;
        let parts = allocate(|| TaskCore::new(account, Home::of(shared), group, site, extras), future);
        register(shared, parts).map_err(Refused::into_error)
    }

    /// The account with its group and limits, and what else is kept.
    fn prepare(self) -> Result<(Account, GroupId, Option<Box<Extras>>), SpawnError> {
        let (account, inherited) = Account::inherit();
        let group = match &self.group {
            // Another group, but no way out of a scope.
            Some(group) => {
                account.set_group(group);
                group.id()
            }
            None => inherited,
        };
        if let Some(handler) = self.on_soft_limit {
            // The account is new: it has not ended.
            let _ = account.on_soft_limit(handler);
        }
        if let Some(limit) = self.cpu_limit {
            account.set_cpu_limit(limit)?;
        }
        if let Some(limit) = self.poll_limit {
            account.set_poll_limit(limit)?;
        }
        let extras = self.name.map(|name| Box::new(Extras { name }));
        Ok((account, group, extras))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A task could not be spawned. Its future has been dropped.
#[derive(Debug)]
#[non_exhaustive]
pub enum SpawnError {
    /// A limit that cannot be kept was asked for; the inner error says which and what is allowed.
    Limit(LimitError),
    /// The runtime is shut down, or shutting down.
    ShutDown,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit(error) => write!(f, "the task's limit is not valid: {error}"),
            Self::ShutDown => f.write_str("the runtime is shut down; spawn on one that lives"),
        }
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Limit(error) => Some(error),
            Self::ShutDown => None,
        }
    }
}

impl From<LimitError> for SpawnError {
    fn from(error: LimitError) -> Self {
        Self::Limit(error)
    }
}

/// Plain spawning on the runtime that the thread is in. `None`: it is in none.
pub(crate) fn spawn_here<F>(future: F, site: &'static Location<'static>) -> Option<JoinHandle<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let made = context::with_current(|shared| make_plain(shared, future, site))?;
    // What a refused future's destructor does is outside.
    Some(made.unwrap_or_else(Refused::refuse))
}

/// Plain spawning of what stays on this thread, on the local runtime that runs on it. `None`: none does.
pub(crate) fn spawn_local_here<F>(future: F, site: &'static Location<'static>) -> Option<JoinHandle<F::Output>>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let shared = context::local_runtime()?;
    // SAFETY: it was found that all tasks of this runtime run on this thread.
    Some(unsafe { spawn_local_plain(&shared, future, site) })
}

/// Plain spawning: a task that is refused resolves to `Cancelled`.
pub(crate) fn spawn_plain<F>(shared: &Arc<Shared>, future: F, site: &'static Location<'static>) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    make_plain(shared, future, site).unwrap_or_else(Refused::refuse)
}

fn make_plain<F>(
    shared: &Arc<Shared>,
    future: F,
    site: &'static Location<'static>,
) -> Result<JoinHandle<F::Output>, Refused<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let (account, group) = Account::inherit();
    register(shared, allocate(|| TaskCore::new(account, Home::of(shared), group, site, None), future))
}

/// Plain spawning of what stays on this thread.
///
/// # Safety
/// All tasks of this runtime run on this thread.
pub(crate) unsafe fn spawn_local_plain<F>(
    shared: &Arc<Shared>,
    future: F,
    site: &'static Location<'static>,
) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    let (account, group) = Account::inherit();
    // SAFETY: the task runs on this thread by contract, and a registered task keeps a reference in the registry until it has ended.
    let parts = unsafe { allocate_unchecked(|| TaskCore::new(account, Home::of(shared), group, site, None), future) };
    register(shared, parts).unwrap_or_else(Refused::refuse)
}

#[track_caller]
pub(crate) fn no_local_runtime() -> ! {
    panic!(
        "spawn_local needs a LocalRuntime that runs on this thread: call it inside LocalRuntime::block_on, or call \
         LocalRuntime::spawn_local"
    )
}

/// A task that a closed registry handed back.
struct Refused<T> {
    runnable: Runnable<TaskCore>,
    joint: Joint<T, TaskCore>,
}

impl<T> Refused<T> {
    /// Ends it here and now.
    fn refuse(self) -> JoinHandle<T> {
        self.runnable.core().account().end();
        self.runnable.refuse(Box::new(CancelReason::Requested));
        JoinHandle::new(Joining::Task(self.joint))
    }

    fn into_error(self) -> SpawnError {
        drop(self.refuse());
        SpawnError::ShutDown
    }
}

fn register<T>(shared: &Arc<Shared>, (runnable, task, joint): Parts<T, TaskCore>) -> Result<JoinHandle<T>, Refused<T>> {
    match shared.start(task, runnable) {
        Ok(()) => Ok(JoinHandle::new(Joining::Task(joint))),
        Err(runnable) => Err(Refused { runnable, joint }),
    }
}
