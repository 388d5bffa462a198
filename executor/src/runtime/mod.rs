//! The runtime: workers, reactor, blocking threads and a meter, as one thing that is built, used and shut down.
//!
//! Two flavours, one kind of task: [`Runtime`] has worker threads; [`LocalRuntime`] runs everything on the thread that it was made
//! on, and so also futures that are not `Send`.
//!
//! # Shutting down
//!
//! There is one way, whoever begins it: the runtime is closed, so that nothing is spawned any more; every live task
//! is cancelled, by the same post on its account that `abort` makes; the workers go on until the last task has dropped
//! its future, on its own account; then they end. So every future is dropped exactly once, on a worker, and none is
//! polled after the shutdown has reached it. What differs is how long the caller waits:
//!
//! * dropping the [`Runtime`] waits until all is done: for polls and blocking jobs in progress, however long;
//! * [`Runtime::shutdown_timeout`] waits so long and says what is left;
//! * [`Runtime::shutdown_background`] does not wait, nor does a drop on one of the runtime's own threads, which could
//!   only wait for itself.

mod builder;
pub(crate) mod context;
mod handle;
mod local;
mod metrics;
mod root;
mod shared;
mod worker;

pub use self::builder::{BuildError, Builder};
pub use self::handle::{EnterGuard, Handle};
pub use self::local::LocalRuntime;
pub(crate) use self::metrics::Counter;
pub use self::metrics::Metrics;
pub(crate) use self::shared::Shared;

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::thread::JoinHandle as ThreadHandle;
use std::time::{Duration, Instant};

use stipend_timers::{AccuracyClass, MeterClock};

use crate::task::{JoinHandle, TaskSnapshot};

/// Owns the workers, and shuts them down when it is dropped; see the [module](self).
///
/// ```
/// use stipend::runtime::Runtime;
///
/// let runtime = Runtime::new()?;
/// let answer = runtime.block_on(async { stipend::spawn(async { 42 }).await });
/// assert_eq!(answer.unwrap(), 42);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Runtime {
    handle: Handle,
    workers: Vec<ThreadHandle<()>>,
}

impl Runtime {
    /// A runtime as [`Builder::new`] makes it.
    ///
    /// # Errors
    /// If the system refuses threads, or the files that the reactor needs.
    pub fn new() -> io::Result<Self> {
        Ok(Self::builder().build()?)
    }

    /// Configures a runtime.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// A handle to it.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// How exact its tasks' CPU clocks are, and what that rests on.
    #[must_use]
    pub fn accuracy(&self) -> AccuracyClass {
        self.handle.meter().accuracy()
    }

    /// The clock of all CPU time that its threads use: for tasks and their blocking jobs, and for the runtime itself.
    ///
    /// ```
    /// use std::time::Duration;
    /// use stipend::runtime::Runtime;
    ///
    /// let runtime = Runtime::new()?;
    /// let clock = runtime.cpu_clock();
    /// let before = clock.now();
    /// runtime.block_on(async { (0..100_000).map(std::hint::black_box).sum::<u64>() });
    /// assert!(clock.now() > before);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[must_use]
    pub fn cpu_clock(&self) -> MeterClock {
        self.handle.cpu_clock()
    }

    /// Makes this the thread's runtime until the guard is dropped; see [`Handle::enter`].
    pub fn enter(&self) -> EnterGuard {
        self.handle.enter()
    }

    /// Spawns a task; see [`stipend::spawn`](crate::spawn).
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future)
    }

    /// Runs a future on this thread until it is ready; its tasks run on the workers.
    ///
    /// The future is metered on an account of its own, like a task. It need not be `Send` nor `'static`.
    ///
    /// # Panics
    /// On a worker of any runtime, and inside another `block_on`. If the future panics, so does this; also if one of
    /// its expiry handlers panics or answers [`Action::Cancel`](crate::Action::Cancel), and if a hard limit ends it.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// Shuts down, and waits no longer than `timeout` for the polls and blocking jobs in progress.
    ///
    /// # Errors
    /// [`ShutdownError`] says what still ran when the time was over. It goes on in the background, and ends if it
    /// ever returns.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Result<(), ShutdownError> {
        let deadline = deadline(timeout);
        let workers = std::mem::take(&mut self.workers);
        let shared = self.handle.shared();
        shared.close();
        let workers_ended = shared.wait_for_workers(deadline);
        let blocking_threads = shared.pool().wait(Some(deadline));
        if workers_ended && blocking_threads == 0 {
            workers.into_iter().for_each(join);
            return Ok(());
        }
        Err(ShutdownError { tasks: shared.tasks(), blocking_threads })
    }

    /// Begins to shut down and does not wait for it.
    pub fn shutdown_background(mut self) {
        self.workers.clear();
        self.handle.shared().close();
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let shared = self.handle.shared();
        shared.close();
        // Empty after one of the explicit shutdowns, which have waited as long as they should.
        let workers = std::mem::take(&mut self.workers);
        if workers.is_empty() || context::is_thread_of(shared) {
            return;
        }
        workers.into_iter().for_each(join);
        shared.pool().wait(None);
    }
}

// `Shared` says why; and through the threads' handles nothing is seen but that they ended.
impl UnwindSafe for Runtime {}
impl RefUnwindSafe for Runtime {}

/// A timeout that goes beyond the end of time is a year.
fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now + Duration::from_secs(365 * 24 * 3600))
}

fn join(worker: ThreadHandle<()>) {
    // A worker catches what its tasks throw. Should it panic by itself, its message has been printed, and here is
    // nobody to be told.
    let _ = worker.join();
}

/// What still ran when the time for the shutdown was over.
#[derive(Debug)]
#[non_exhaustive]
pub struct ShutdownError {
    /// The tasks that have not ended. One that is [`Running`](crate::task::TaskState::Running) is stuck in a poll,
    /// a handler or a destructor; the others wait for a worker.
    pub tasks: Vec<TaskSnapshot>,
    /// Threads of the blocking pool that have not ended.
    pub blocking_threads: usize,
}

impl fmt::Display for ShutdownError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tasks, threads) = (self.tasks.len(), self.blocking_threads);
        write!(f, "the runtime did not shut down in time: {tasks} tasks and {threads} blocking threads are left")?;
        for task in &self.tasks {
            write!(f, "\n  {task}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ShutdownError {}
