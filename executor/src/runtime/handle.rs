//! The way to a runtime from anywhere.

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::sync::Arc;

use super::context::{self, Entered};
use super::{Metrics, Shared, root};
use crate::blocking;
use crate::reactor::Reactor;
use crate::task::{self, JoinHandle, TaskSnapshot};

/// A handle to a runtime. Cheap to clone; it does not keep the runtime from shutting down.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn reactor(&self) -> &Arc<Reactor> {
        self.shared.reactor()
    }

    /// The runtime that this thread is in: that of the task that runs, or the one that was entered last.
    ///
    /// # Panics
    /// Outside a runtime.
    #[must_use]
    #[track_caller]
    pub fn current() -> Self {
        match Self::try_current() {
            Some(handle) => handle,
            None => Self::missing(),
        }
    }

    /// The panic of whatever needs a runtime and is outside of one.
    #[track_caller]
    pub(crate) fn missing() -> ! {
        panic!(
            "there is no stipend runtime here: call this from a task, inside Runtime::block_on, or while a guard of \
             Handle::enter lives"
        )
    }

    /// As [`current`](Self::current); none outside a runtime.
    #[must_use]
    pub fn try_current() -> Option<Self> {
        context::current().map(Self::new)
    }

    /// Makes this the thread's runtime until the guard is dropped.
    ///
    /// Drop guards in the reverse order of their making.
    ///
    /// ```
    /// let runtime = stipend::runtime::Runtime::new()?;
    /// let _guard = runtime.handle().enter();
    /// drop(stipend::spawn(async {})); // outside `block_on`
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn enter(&self) -> EnterGuard {
        EnterGuard { _entered: context::enter(&self.shared) }
    }

    /// Spawns a task; see [`stipend::spawn`](crate::spawn).
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        task::spawn_plain(&self.shared, future, Location::caller())
    }

    /// Runs `f` on a thread where it may block; see [`stipend::spawn_blocking`](crate::spawn_blocking).
    pub fn spawn_blocking<R, F>(&self, f: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        blocking::spawn(&self.shared, f)
    }

    /// Runs a future on this thread until it is ready; see [`Runtime::block_on`](super::Runtime::block_on).
    ///
    /// If the runtime shuts down meanwhile, its tasks, timers and I/O end, and the future goes on without them.
    ///
    /// # Panics
    /// As `Runtime::block_on`.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        root::block_on(&self.shared, future)
    }

    /// The runtime's live tasks. Root futures and blocking jobs are not among them.
    ///
    /// Looks at one task after the other, so it is not a picture of one moment.
    #[must_use]
    pub fn tasks(&self) -> Vec<TaskSnapshot> {
        self.shared.tasks()
    }

    /// The runtime's counters.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics::of(&self.shared)
    }

    /// The clock of all CPU time that the runtime's threads use: for its tasks and their blocking jobs, and for itself.
    #[must_use]
    pub fn cpu_clock(&self) -> stipend_timers::MeterClock {
        self.meter().cpu_clock()
    }

    /// The runtime's meter.
    #[must_use]
    pub fn meter(&self) -> &stipend_timers::Meter {
        self.shared.meter()
    }
}

/// Keeps a thread in a runtime; see [`Handle::enter`].
#[must_use = "the thread leaves the runtime when the guard is dropped"]
pub struct EnterGuard {
    _entered: Entered,
}

impl fmt::Debug for EnterGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnterGuard").finish_non_exhaustive()
    }
}
