//! The runtime of one thread: everything runs where it was made, while that thread is in `block_on`.
#![allow(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{Location, RefUnwindSafe, UnwindSafe};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use stipend_timers::{AccuracyClass, MeterClock};

use super::root::Root;
use super::shared::Shared;
use super::worker::{self, AsWorker, Local, Worker};
use super::{Builder, EnterGuard, Handle, Runtime, ShutdownError, context, deadline, root};
use crate::task::{self, JoinHandle};

/// A runtime without threads of its own: its tasks, its sockets and its timers get on while the thread that made it is in
/// [`block_on`](Self::block_on).
///
/// Tasks are what they are in a [`Runtime`]: metered, limited, in groups, and cancelled when the runtime is dropped. Beyond that a
/// task may be `!Send`: see [`spawn_local`](crate::spawn_local). Other threads spawn onto it by its [`Handle`], and wake
/// its tasks. `spawn_blocking` has its threads here too.
///
/// It cannot be sent to another thread. Dropping it cancels what still lives and waits for that and for its blocking jobs.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use stipend::runtime::LocalRuntime;
///
/// let runtime = LocalRuntime::new()?;
/// let sum = Rc::new(Cell::new(0));
/// runtime.block_on(async {
///     let tasks = (1..=10).map(|n| {
///         let sum = Rc::clone(&sum);
///         stipend::spawn_local(async move { sum.set(sum.get() + n) })
///     });
///     for task in tasks.collect::<Vec<_>>() {
///         task.await.unwrap();
///     }
/// });
/// assert_eq!(sum.get(), 55);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// ```compile_fail
/// let runtime = stipend::runtime::LocalRuntime::new().unwrap();
/// std::thread::spawn(move || drop(runtime));
/// ```
pub struct LocalRuntime {
    handle: Handle,
    /// What makes a thread the worker of this runtime. It is not `Send`, so only this thread ever runs the tasks: what is spawned
    /// here relies on that.
    local: Option<Rc<Local>>,
}

impl LocalRuntime {
    /// A runtime as [`Builder::build_local`] makes it.
    ///
    /// # Errors
    /// If the system refuses the threads of the meter, or the files that the reactor needs.
    pub fn new() -> io::Result<Self> {
        Ok(Runtime::builder().build_local()?)
    }

    /// Configures one; end with [`Builder::build_local`].
    pub fn builder() -> Builder {
        Runtime::builder()
    }

    pub(super) fn new_on_this_thread(local: Local) -> Self {
        let handle = Handle::new(Arc::clone(local.shared()));
        Self { handle, local: Some(Rc::new(local)) }
    }

    /// A handle to it, which other threads may have too. Its `block_on` runs a future on the thread that calls it, and none of
    /// this runtime's tasks.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// How exact its tasks' CPU clocks are, and what that rests on.
    #[must_use]
    pub fn accuracy(&self) -> AccuracyClass {
        self.handle.meter().accuracy()
    }

    /// The clock of all CPU time that is used for its tasks and their blocking jobs, and for the runtime itself; see
    /// [`Runtime::cpu_clock`].
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

    /// Spawns a task that stays on this thread; see [`stipend::spawn_local`](crate::spawn_local). It first runs in the next
    /// [`block_on`](Self::block_on).
    #[track_caller]
    pub fn spawn_local<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        // SAFETY: `self` is not on another thread than the one it was made on, and only there are this runtime's tasks run.
        unsafe { task::spawn_local_plain(self.handle.shared(), future, Location::caller()) }
    }

    /// Runs a future on this thread until it is ready, and meanwhile the tasks too. What is left of them rests until the next call.
    ///
    /// The future is metered on an account of its own, like a task. It need not be `Send` nor `'static`. It and the tasks take
    /// turns: it waits behind one of them at most, and they behind one poll of it each.
    ///
    /// # Panics
    /// On a worker of any runtime, and inside another `block_on`. If the future panics, so does this, and the tasks live on; also
    /// if one of its expiry handlers panics or answers [`Action::Cancel`](crate::Action::Cancel), and if a hard limit ends it.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        root::check_role();
        match &self.local {
            Some(local) => run_with_root(local, future),
            None => unreachable!("the runtime is taken apart only by what consumes it"),
        }
    }

    /// Cancels the tasks and waits for them, and for blocking jobs in progress no longer than `timeout`.
    ///
    /// # Errors
    /// [`ShutdownError`]: blocking jobs still run. They go on in the background.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Result<(), ShutdownError> {
        let deadline = deadline(timeout);
        self.end_tasks();
        let shared = self.handle.shared();
        match shared.pool().wait(Some(deadline)) {
            0 => Ok(()),
            blocking_threads => Err(ShutdownError { tasks: shared.tasks(), blocking_threads }),
        }
    }

    /// Cancels the tasks and runs them to their ends. True if that was not done before.
    fn end_tasks(&mut self) -> bool {
        let Some(local) = self.local.take() else { return false };
        self.handle.shared().close();
        if context::is_available() {
            worker::run_to_end(&local);
        } else {
            // The thread is ending, and a task could not be run as one any more. It must not be dropped elsewhere, nor lose what
            // it refers to: all is left as it is.
            std::mem::forget(local);
        }
        true
    }
}

impl Drop for LocalRuntime {
    fn drop(&mut self) {
        if self.end_tasks() && context::is_available() {
            self.handle.shared().pool().wait(None);
        }
    }
}

// As for `Runtime`.
impl UnwindSafe for LocalRuntime {}
impl RefUnwindSafe for LocalRuntime {}

impl fmt::Debug for LocalRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalRuntime").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// Runs tasks on this thread, and a root future as one of them, until that is ready.
fn run_with_root<F: Future>(local: &Rc<Local>, future: F) -> F::Output {
    let _thread = AsWorker::begin(local);
    let woken = Arc::new(RootWaker { woken: AtomicBool::new(true), shared: Arc::clone(local.shared()) });
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    let future = pin!(Some(future));
    let mut root = Root::new(future, waker.clone());

    let lease = local.shared().meter().attach();
    let mut worker = Worker::new(local, &lease);
    loop {
        // At every other poll at most, so that tasks and root wait for each other alike.
        if woken.take()
            && let Poll::Ready(output) = worker.run_root(&mut root, &mut cx)
        {
            worker.stop();
            return output;
        }
        match worker.find() {
            Some(task) => worker.run_task(task),
            None => worker.sleep(|| woken.is_set()),
        }
    }
}

/// Wakes a root future that runs among the tasks.
struct RootWaker {
    woken: AtomicBool,
    shared: Arc<Shared>,
}

impl RootWaker {
    fn take(&self) -> bool {
        // A load first: mostly it is not set.
        self.is_set() && self.woken.swap(false, Ordering::SeqCst)
    }

    fn is_set(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }
}

impl Wake for RootWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // To the one worker this is what a task in a queue is: set first, look for a sleeper second.
        if !self.woken.swap(true, Ordering::SeqCst) {
            self.shared.wake_one();
        }
    }
}
