//! What the workers, the handles and the tasks of one runtime share.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_utils::CachePadded;
use stipend_timers::Meter;

use super::context;
use super::metrics::WorkerCounters;
use crate::blocking::Pool;
use crate::reactor::{Driver, Reactor};
use crate::scheduler::idle::{Idle, Place as SleepsIn};
use crate::scheduler::lanes::RemoteLanes;
use crate::scheduler::parker::Parker;
use crate::scheduler::queue::Injector;
use crate::scheduler::shares::Shares;
use crate::sync::lock;
use crate::task::{Key, Place, Registry, Runnable, TaskCore, TaskRef, TaskSnapshot, contain};

/// A task in a run queue.
pub(super) type Ready = Runnable<TaskCore>;

pub(crate) struct Shared {
    pub(super) injector: Injector<Ready>,
    /// One for each worker, by index.
    pub(super) peers: Box<[CachePadded<Peer>]>,
    pub(super) idle: Idle,
    shares: Arc<Shares>,
    /// All tasks run on the thread of a [`LocalRuntime`](super::LocalRuntime).
    local: bool,
    /// Held while a worker turns the reactor or sleeps in it, never while it polls a task.
    pub(super) driver: Mutex<Driver>,
    reactor: Arc<Reactor>,
    registry: Registry<TaskRef<TaskCore>>,
    pool: Pool,
    meter: Meter,
    thread_name: String,
    /// Set when the registry is closed and empty: there will never be a task again.
    stop: AtomicBool,
    /// Where foreign threads register their tasks.
    next_shard: AtomicUsize,
    /// Workers whose thread runs.
    running: Mutex<usize>,
    worker_ended: Condvar,
}

/// What others see of a worker.
pub(super) struct Peer {
    pub(super) lanes: Arc<RemoteLanes<Ready>>,
    /// The task that the worker runs next, before its queue: what was woken or spawned there last, of the group whose turn it is.
    pub(super) next: Place<TaskCore>,
    pub(super) parker: Parker,
    pub(super) counters: WorkerCounters,
}

impl Peer {
    pub(super) fn has_work(&self) -> bool {
        !self.next.is_empty() || self.lanes.has_work()
    }
}

/// What a runtime is made of; see [`Shared::new`].
pub(super) struct Parts {
    pub(super) lanes: Vec<Arc<RemoteLanes<Ready>>>,
    pub(super) shares: Arc<Shares>,
    pub(super) local: bool,
    pub(super) driver: Driver,
    pub(super) reactor: Arc<Reactor>,
    pub(super) pool: Pool,
    pub(super) meter: Meter,
    pub(super) thread_name: String,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let workers = parts.lanes.len();
        let peer = |lanes| {
            CachePadded::new(Peer {
                lanes,
                next: Place::new(),
                parker: Parker::new(),
                counters: WorkerCounters::default(),
            })
        };
        Self {
            injector: Injector::new(),
            peers: parts.lanes.into_iter().map(peer).collect(),
            idle: Idle::new(workers),
            shares: parts.shares,
            local: parts.local,
            driver: Mutex::new(parts.driver),
            reactor: parts.reactor,
            // A few more than workers, for the threads that are none.
            registry: Registry::new(workers + 4),
            pool: parts.pool,
            meter: parts.meter,
            thread_name: parts.thread_name,
            stop: AtomicBool::new(false),
            next_shard: AtomicUsize::new(0),
            running: Mutex::new(workers),
            worker_ended: Condvar::new(),
        }
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    pub(crate) fn reactor(&self) -> &Arc<Reactor> {
        &self.reactor
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn is_local(&self) -> bool {
        self.local
    }

    pub(crate) fn thread_name(&self) -> &str {
        &self.thread_name
    }

    // --- scheduling ---

    /// How much each group has had.
    pub(crate) fn shares(&self) -> &Shares {
        &self.shares
    }

    /// A task was woken or spawned by a thread that is no worker of ours.
    pub(crate) fn inject(&self, task: Ready) {
        self.injector.push(task);
        self.wake_one();
    }

    /// There is something in a queue: wakes a worker, if that is of use.
    pub(super) fn wake_one(&self) {
        if let Some((worker, place)) = self.idle.worker_to_wake() {
            match place {
                SleepsIn::Parker => self.peers[worker].parker.notify(),
                SleepsIn::Reactor => self.reactor.wake(),
            }
        }
    }

    /// A worker's poll is overdue (the tick has found so, and does again each period): whatever relies on that worker's coming
    /// back is given to another. Here a later change may start a spare worker.
    pub(super) fn relieve(&self, worker: usize) {
        if !self.peers[worker].has_work() && self.injector.is_empty() {
            if let Some(sleeper) = self.idle.worker_for_reactor() {
                self.peers[sleeper].parker.notify();
            }
        } else {
            self.wake_one();
        }
    }

    /// Is there anything to run, in any queue?
    pub(super) fn has_work(&self) -> bool {
        !self.injector.is_empty() || self.peers.iter().any(|peer| peer.has_work())
    }

    // --- the registry ---

    /// Registers a task, if the runtime is open; else hands it back.
    pub(crate) fn register(self: &Arc<Self>, task: TaskRef<TaskCore>) -> Result<Key, TaskRef<TaskCore>> {
        let hint = context::with_worker(Arc::as_ptr(self), (), |local, ()| local.index())
            // Relaxed: it only spreads.
            .unwrap_or_else(|()| self.next_shard.fetch_add(1, Ordering::Relaxed));
        self.registry.insert(hint, task)
    }

    /// Takes a task out; its reference is the caller's.
    pub(crate) fn unregister(&self, key: Key) -> Option<TaskRef<TaskCore>> {
        let (task, last) = self.registry.remove(key);
        if last {
            self.stop_workers();
        }
        task
    }

    pub(crate) fn tasks(&self) -> Vec<TaskSnapshot> {
        self.registry.list().iter().map(TaskSnapshot::of).collect()
    }

    pub(crate) fn task_count(&self) -> usize {
        self.registry.len()
    }

    // --- the end ---

    /// Begins to shut down: no task and no job is accepted any more, and those that live are cancelled.
    pub(crate) fn close(&self) {
        let empty = self.registry.close();
        self.pool.close();
        for task in self.registry.list() {
            task.cancel();
        }
        if empty {
            self.stop_workers();
        }
    }

    pub(super) fn should_stop(&self) -> bool {
        // SeqCst, with the store below and the fences of `Idle`: a worker that counts itself asleep and then reads
        // `false` here is notified by what follows the store.
        self.stop.load(Ordering::SeqCst)
    }

    fn stop_workers(&self) {
        self.stop.store(true, Ordering::SeqCst);
        for peer in &self.peers {
            peer.parker.notify();
        }
        self.reactor.wake();
    }

    /// A worker's thread is about to end.
    pub(super) fn worker_ended(&self) {
        let mut running = lock(&self.running);
        *running -= 1;
        let last = *running == 0;
        drop(running);
        if last {
            // What still waits for I/O or time from outside the runtime's tasks learns that nothing will come. It calls
            // wakers, which are user code.
            contain(|| self.reactor.shutdown());
        }
        self.worker_ended.notify_all();
    }

    /// Waits until every worker has ended, or until the deadline. Have they?
    pub(super) fn wait_for_workers(&self, deadline: Instant) -> bool {
        let mut running = lock(&self.running);
        while *running > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            running = self.worker_ended.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

// User code runs outside of its locks, so a panic finds nothing half done.
impl UnwindSafe for Shared {}
impl RefUnwindSafe for Shared {}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.thread_name)
            .field("workers", &self.peers.len())
            .finish_non_exhaustive()
    }
}
