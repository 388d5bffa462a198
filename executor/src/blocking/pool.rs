//! The blocking threads: started when a job finds none idle, up to a cap; retired after ten idle seconds.
//!
//! The invariant: a queued job has a thread that will come for it: an idle one that was notified, or one that is
//! starting, or one that is busy and looks at the queue when it is done. If none can be had the job is refused, never
//! left.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::runtime::{Shared, context};
use crate::sync::{lock, wait};
use crate::task::Runnable;

use super::job::{self, JobCore};

/// How long a thread waits for another job.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

pub(crate) struct Pool {
    state: Mutex<State>,
    /// A job was queued, or the pool closed.
    work: Condvar,
    /// A thread ended.
    ended: Condvar,
    cap: usize,
}

struct State {
    queue: VecDeque<Runnable<JobCore>>,
    threads: usize,
    /// Waiting threads that nobody has called yet.
    idle: usize,
    /// Calls that no waiting thread has taken yet.
    claimed: usize,
    closed: bool,
}

/// How many threads there are, and what they do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Threads {
    pub(crate) total: usize,
    pub(crate) idle: usize,
    pub(crate) queued: usize,
}

impl Pool {
    pub(crate) fn new(cap: usize) -> Self {
        Self {
            state: Mutex::new(State { queue: VecDeque::new(), threads: 0, idle: 0, claimed: 0, closed: false }),
            work: Condvar::new(),
            ended: Condvar::new(),
            cap,
        }
    }

    pub(super) fn push(&self, shared: &Arc<Shared>, runnable: Runnable<JobCore>) {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            return job::refuse(runnable);
        }
        state.queue.push_back(runnable);
        if state.idle > 0 {
            state.idle -= 1;
            state.claimed += 1;
            drop(state);
            self.work.notify_one();
            return;
        }
        if state.threads >= self.cap {
            return;
        }
        state.threads += 1;
        drop(state);
        if self.start(shared).is_err() {
            let mut state = lock(&self.state);
            state.threads -= 1;
            // With another thread alive the queue is served. Without one these jobs have nobody.
            let stranded = if state.threads == 0 { std::mem::take(&mut state.queue) } else { VecDeque::new() };
            drop(state);
            self.ended.notify_all();
            stranded.into_iter().for_each(job::refuse);
        }
    }

    fn start(&self, shared: &Arc<Shared>) -> std::io::Result<()> {
        let name = format!("{}-blocking", shared.thread_name());
        let shared = Arc::clone(shared);
        thread::Builder::new().name(name).spawn(move || {
            let pool = Arc::clone(&shared);
            let _ended = Ended(&pool);
            serve(shared);
        })?;
        Ok(())
    }

    /// The next job, or none when the thread should end.
    fn next(&self) -> Option<Runnable<JobCore>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.queue.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            let retire_at = Instant::now() + KEEP_ALIVE;
            loop {
                let left = retire_at.saturating_duration_since(Instant::now());
                state = self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
                if state.claimed > 0 {
                    // Whoever queued the job has counted us busy already. We may find that a busy thread took the job;
                    // then we are idle again.
                    state.claimed -= 1;
                    break;
                }
                if state.closed {
                    state.idle -= 1;
                    return None;
                }
                if Instant::now() >= retire_at {
                    state.idle -= 1;
                    return None;
                }
            }
        }
    }

    /// Refuses jobs from now on, and here and now those that wait.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        self.work.notify_all();
        queue.into_iter().for_each(job::refuse);
    }

    /// Waits until every thread has ended, or until the deadline. The threads left.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> usize {
        let mut state = lock(&self.state);
        while state.threads > 0 {
            state = match deadline {
                None => wait(&self.ended, state),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state.threads
    }

    pub(crate) fn threads(&self) -> Threads {
        let state = lock(&self.state);
        Threads { total: state.threads, idle: state.idle, queued: state.queue.len() }
    }
}

/// Counts a thread off, also if it unwinds.
struct Ended<'a>(&'a Arc<Shared>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let pool = self.0.pool();
        let mut state = lock(&pool.state);
        // A job may have been queued in reliance on this thread between its decision to retire and now: it then lives on
        // in another.
        if !state.queue.is_empty() && !state.closed {
            drop(state);
            if pool.start(self.0).is_ok() {
                return;
            }
            state = lock(&pool.state);
        }
        state.threads -= 1;
        let stranded = if state.threads == 0 { std::mem::take(&mut state.queue) } else { VecDeque::new() };
        drop(state);
        stranded.into_iter().for_each(job::refuse);
        pool.ended.notify_all();
    }
}

/// A thread's life.
fn serve(shared: Arc<Shared>) {
    let _context = context::enter_blocking(&shared);
    let lease = shared.meter().attach();
    lease.set_active();
    let mut at = lease.stamp();
    loop {
        // Fetching and waiting is the runtime's own time.
        lease.set_idle();
        let Some(job) = shared.pool().next() else {
            break;
        };
        lease.set_active();
        at = lease.charge_runtime(at);
        at = job::run(job, &lease, at);
    }
    lease.charge_runtime(at);
}
