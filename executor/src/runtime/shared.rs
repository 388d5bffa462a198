//! What the workers, the handles and the tasks of one runtime share.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use crossbeam_utils::CachePadded;
use stipend_timers::{GroupId, Meter};

use super::context;
use super::metrics::WorkerCounters;
use crate::blocking::Pool;
use crate::reactor::{Driver, Reactor};
use crate::scheduler::idle::{Idle, Place as SleepsIn};
use crate::scheduler::lanes::RemoteLanes;
use crate::scheduler::parker::Parker;
use crate::scheduler::queue::Injector;
use crate::scheduler::shares::Shares;
use crate::sync::{fence_after_rmw, lock};
use crate::task::{Place, Runnable, TaskCore, TaskRef, TaskSnapshot, all_slots, contain, is_inside};

/// A task in a run queue.
pub(super) type Ready = Runnable<TaskCore>;

pub(crate) struct Shared {
    pub(super) injector: Injector<Ready>,
    /// One for each worker, by index.
    pub(super) peers: Box<[CachePadded<Peer>]>,
    // What is written often has lines of its own: the rest is read at every spawn and every wake.
    pub(super) idle: CachePadded<Idle>,
    shares: Arc<Shares>,
    /// All tasks run on the thread of a [`LocalRuntime`](super::LocalRuntime).
    local: bool,
    /// Held while a worker turns the reactor or sleeps in it, never while it polls a task.
    pub(super) driver: CachePadded<Mutex<Driver>>,
    reactor: Arc<Reactor>,
    pool: Pool,
    meter: Meter,
    thread_name: String,
    /// Nothing is spawned any more.
    closed: AtomicBool,
    /// Set when it is closed and no task lives: there will never be one again.
    stop: AtomicBool,
    /// Tasks that were spawned outside of the runtime's tasks, and those of them that were refused after all.
    spawned_outside: CachePadded<AtomicU64>,
    refused_outside: AtomicU64,
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
            idle: CachePadded::new(Idle::new(workers)),
            shares: parts.shares,
            local: parts.local,
            driver: CachePadded::new(Mutex::new(parts.driver)),
            reactor: parts.reactor,
            pool: parts.pool,
            meter: parts.meter,
            thread_name: parts.thread_name,
            closed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            spawned_outside: CachePadded::new(AtomicU64::new(0)),
            refused_outside: AtomicU64::new(0),
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

    /// To be called before a task of a living group is scheduled for the first time.
    pub(super) fn admit(&self, group: GroupId) {
        if group != GroupId::NONE {
            self.shares.admit(group.key());
        }
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

    // --- the live tasks ---

    /// Registers a new task and schedules it, if the runtime is open; else hands it back. Registered first, scheduled second: a task
    /// that runs is always in the registry.
    pub(crate) fn start(self: &Arc<Self>, task: TaskRef<TaskCore>, runnable: Ready) -> Result<(), Ready> {
        if self.is_closed() {
            return Err(runnable);
        }
        let slot = runnable.core().slot();
        let (task, runnable) = if is_inside() {
            // By one of our tasks, which lives until after this. See `end_tasks` for why that spares a fence.
            let spawned = context::with_worker(Arc::as_ptr(self), (task, runnable), |local, (task, runnable)| {
                slot.put(task);
                local.count_spawned();
                local.start(runnable);
            });
            match spawned {
                Ok(()) => return Ok(()),
                Err(elsewhere) => elsewhere,
            }
        } else {
            (task, runnable)
        };
        slot.put(task);
        self.spawned_outside.fetch_add(1, Ordering::SeqCst);
        // Between the slot and the look: the other half is the fence of whoever closes.
        fence_after_rmw();
        if self.is_closed() {
            self.refused_outside.fetch_add(1, Ordering::SeqCst);
            drop(slot.remove());
            // Whoever closes may have found it there, and everybody may sleep until its end: somebody has to look again. As with a
            // push, a worker that goes to sleep either sees it gone or is woken here.
            self.wake_one();
            return Err(runnable);
        }
        self.admit(runnable.core().group());
        if let Err(runnable) = context::with_worker(Arc::as_ptr(self), runnable, |local, task| local.push(task)) {
            self.inject(runnable);
        }
        Ok(())
    }

    /// References to the tasks that live: slot by slot, not one moment's picture.
    fn live_tasks(&self) -> Vec<TaskRef<TaskCore>> {
        all_slots().filter_map(|slot| slot.find(|core| core.belongs_to(self))).collect()
    }

    pub(crate) fn tasks(&self) -> Vec<TaskSnapshot> {
        self.live_tasks().iter().map(TaskSnapshot::of).collect()
    }

    pub(crate) fn task_count(&self) -> usize {
        // Ends first: else one that was spawned in between could count as ended only.
        let ended: u64 = self.peers.iter().map(|peer| peer.counters.ended.get()).sum();
        let ended = ended + self.refused_outside.load(Ordering::SeqCst);
        usize::try_from(self.spawned().saturating_sub(ended)).unwrap_or(usize::MAX)
    }

    /// How many tasks were ever registered.
    fn spawned(&self) -> u64 {
        let by_tasks: u64 = self.peers.iter().map(|peer| peer.counters.spawned.get()).sum();
        by_tasks + self.spawned_outside.load(Ordering::SeqCst)
    }

    // --- the end ---

    /// Begins to shut down: no task and no job is accepted any more, and those that live are cancelled.
    pub(crate) fn close(&self) {
        self.refuse_from_now_on();
        self.end_tasks();
    }

    pub(super) fn refuse_from_now_on(&self) {
        self.closed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.pool.close();
    }

    /// Whether [`close`](Self::close) has begun.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Once it is closed: cancels what lives, and if nothing does, stops the workers. True if they are stopped.
    ///
    /// Called by who closes, then by each worker as it sees that it is closed, now and then, and whenever it has nothing to do.
    ///
    /// # Why no task goes on for ever
    /// One that was spawned from outside is in its slot before a look at `closed`: whoever closes sees it there, or it sees the other
    /// and is refused. One that a task spawns looks at `closed` first, and may come into its slot behind the look of whoever
    /// closes. But each worker looks again between its tasks, even if it never runs dry, and so does the one that such a task comes to
    /// run on, while the one that has spawned it may be stuck. And what a worker's tasks spawn once it has seen the end is refused.
    ///
    /// # Why no task is left when the workers stop
    /// They stop when two looks at the count of all spawns, before and after a look at every slot, agree, and no slot had a task
    /// of ours. Say that one, C, lives all the same. If the first look counted it, its slot had it before, and has it still: it was
    /// seen. So even the second look did not count it. If it was spawned from outside, by a read-modify-write on its count and then
    /// a look at `closed`, that look comes behind ours, finds it closed and refuses. So C was spawned by a task, X, that ran on one
    /// of our workers. If X was counted, its slot had it, and was seen empty, so X had left it before; leaving comes
    /// after C was counted, and whoever sees a slot left sees what came before: then the second look saw a number that the first
    /// did not, as C was not counted by that one. If X was not counted either, the same holds for who spawned X; and the first
    /// of that line was spawned from outside.
    pub(super) fn end_tasks(&self) -> bool {
        loop {
            let before = self.spawned();
            let tasks = self.live_tasks();
            if !tasks.is_empty() {
                tasks.iter().for_each(TaskRef::cancel);
                return false;
            }
            if self.spawned() == before {
                self.stop_workers();
                return true;
            }
        }
    }

    /// For a worker that has nothing to do. It may get something by this, so it looks at its queues afterwards.
    pub(super) fn should_stop(&self) -> bool {
        // SeqCst, with the store in `stop_workers` and the fences of `Idle`: a worker that counts itself asleep and then reads
        // `false` here is notified by what follows the store.
        self.stop.load(Ordering::SeqCst) || (self.is_closed() && self.end_tasks())
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
