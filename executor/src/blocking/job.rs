//! A blocking job: a closure in a task cell of its own.
//!
//! It is a task whose one poll calls the closure, so the join handle, abort before the start and the catching of
//! panics are the cell's. It has no account: what it uses is charged to the accounts that ran on the spawning thread,
//! and to none but the runtime's if there were none.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use stipend_timers::{Account, CancelReason, CpuClock, Lease, Offload, OffloadRun, Stamp};

use crate::runtime::Shared;
use crate::task::{Id, Joint, Reason, Run, Runnable, Schedule, TaskRef, Verdict, allocate};

/// What the pool keeps for a job in the cell's header.
pub(crate) struct JobCore {
    offload: Offload,
    /// Of the innermost account that the job is charged to.
    clock: Option<CpuClock>,
    shared: Arc<Shared>,
    id: Id,
    cancelled: AtomicBool,
}

impl JobCore {
    pub(crate) fn id(&self) -> Id {
        self.id
    }

    /// The clock of the task that spawned the job; without one, a clock that stands at zero.
    pub(crate) fn clock(&self) -> CpuClock {
        self.clock.clone().unwrap_or_else(|| {
            let account = Account::new();
            account.end();
            account.clock()
        })
    }

    /// The job is dropped instead of called, if it has not been called yet. It stays in its place in the queue.
    pub(crate) fn cancel(&self) {
        // Relaxed: nothing but the flag itself is communicated.
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

impl Schedule for JobCore {
    type Reason = Reason;
    /// None if nothing metered the run.
    type Stamp = Option<Stamp>;
    type Run<'a> = JobRun<'a>;
    const REGISTERED: bool = false;

    fn schedule(runnable: Runnable<Self>) {
        let shared = Arc::clone(&runnable.core().shared);
        shared.pool().push(&shared, runnable);
    }

    fn retire(&self) -> Option<TaskRef<Self>> {
        None
    }
}

/// A run of a job: metered on a thread of the pool, or refused where there is none.
pub(crate) struct JobRun<'a> {
    core: &'a JobCore,
    /// Where to open a bracket, and the one that is open.
    metered: Option<(&'a Lease, OffloadRun<'a>)>,
}

impl Run<Reason> for JobRun<'_> {
    type Stamp = Option<Stamp>;

    fn before_poll(&mut self) -> Verdict<Reason> {
        if self.metered.is_none() || self.core.cancelled.load(Ordering::Relaxed) {
            Verdict::Cancel(Box::new(CancelReason::Requested))
        } else {
            Verdict::Proceed
        }
    }

    fn after_pending(&mut self) -> Verdict<Reason> {
        unreachable!("a job is ready at its first poll")
    }

    /// Charges the call before its outcome can be seen, so that who awaits the job finds its time on the clock.
    fn after_ready(&mut self) {
        if let Some((lease, run)) = self.metered.take() {
            let at = run.end();
            self.metered = Some((lease, lease.offload(&self.core.offload, at)));
        }
    }

    fn end(&mut self) -> Option<Stamp> {
        self.end_now()
    }

    fn end_now(&mut self) -> Option<Stamp> {
        self.metered.take().map(|(_, run)| run.end())
    }

    fn complete(&mut self) -> Option<Stamp> {
        self.end_now()
    }
}

/// Runs a job on a thread of the pool; its time since `at` is charged to those who spawned it.
pub(super) fn run(job: Runnable<JobCore>, lease: &Lease, at: Stamp) -> Stamp {
    let metered = |core| JobRun::metered(core, lease, at);
    job.run(metered).unwrap_or(at)
}

/// Ends a job that nobody will run.
pub(super) fn refuse(job: Runnable<JobCore>) {
    job.run(|core| JobRun { core, metered: None });
}

impl<'a> JobRun<'a> {
    fn metered(core: &'a JobCore, lease: &'a Lease, at: Stamp) -> Self {
        let run = lease.offload(&core.offload, at);
        Self { core, metered: Some((lease, run)) }
    }
}

pub(super) fn spawn<R, F>(shared: &Arc<Shared>, f: F) -> Joint<R, JobCore>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let core = || JobCore {
        offload: Offload::capture(),
        clock: stipend_timers::current_clock(),
        shared: Arc::clone(shared),
        id: Id::next(),
        cancelled: AtomicBool::new(false),
    };
    let (runnable, _task, joint) = allocate(core, Call(Some(f)));
    JobCore::schedule(runnable);
    joint
}

/// A closure as a future that is ready at its first poll.
struct Call<F>(Option<F>);

// The closure is moved out before it is called; nothing is ever pinned.
impl<F> Unpin for Call<F> {}

impl<R, F: FnOnce() -> R> Future for Call<F> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<R> {
        match self.0.take() {
            Some(f) => Poll::Ready(f()),
            None => unreachable!("a job is ready at its first poll, and run once"),
        }
    }
}
