//! The worker's loop: find a task, run it between the meter's brackets, or sleep.
//!
//! # Whose time it is
//!
//! A worker reads the clock once a task: the stamp that closes one run opens the next, so the time between two
//! runs, taking a task from the worker's own queue, is the later task's; it is a few nanoseconds. What is not for any
//! task, searching, the reactor and going to sleep, is billed to the runtime's account, and the stamp is fresh.
//!
//! # What a stuck poll holds
//!
//! Nothing. While a task is polled its worker holds no lock and not the reactor, and everything in its queue can be
//! stolen.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, MutexGuard, TryLockError};
use std::time::Duration;

use stipend_timers::{Lease, Stamp};

use super::context::{self, Role};
use super::shared::{Peer, Ready, Shared};
use crate::reactor::Driver;
use crate::scheduler::idle::Place;
use crate::scheduler::queue::Local as Queue;
use crate::task::{Metered, contain};

/// After so many runs a worker looks at the injector and the reactor even if its own queue is never empty. A prime, so
/// as not to beat with the tasks' own periods.
const CHECK_EVERY: u32 = 61;
/// So many tasks may go before the queue because they were woken last, until one of the queue has its turn: a task in a queue of n
/// waits for at most 4 n + 3 others of this worker.
const NEXT_IN_A_ROW: u32 = 3;
/// But at the reactor only after this much run time: asking it is a system call, as long as six yields. A ready socket or timer so
/// waits for 61 polls and 25 us of them at the most, whichever is more.
const REACTOR_EVERY_NS: u64 = 25_000;

/// What the thread that is the worker reaches through its context.
pub(crate) struct Local {
    shared: Arc<Shared>,
    index: usize,
    queue: Queue<Ready>,
    /// In the reactor: what it wakes is collected, and others are called once, afterwards.
    turning: Cell<bool>,
}

impl Local {
    pub(super) fn new(shared: Arc<Shared>, index: usize, queue: Queue<Ready>) -> Self {
        Self { shared, index, queue, turning: Cell::new(false) }
    }

    pub(crate) fn belongs_to(&self, runtime: *const Shared) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.shared), runtime)
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// A task that was woken or spawned on this worker: it runs next, and what was to run next goes to the back of the queue. So
    /// two tasks that wake each other find their data in the cache. [`NEXT_IN_A_ROW`] keeps them from starving the queue.
    ///
    /// Another worker is called only if there is more than this one: this worker comes to it as soon as the poll in progress
    /// ends, mostly sooner than another could wake up, and with warm caches. If that poll goes on, the tick finds it overdue and
    /// [`Shared::relieve`] calls another after all.
    pub(crate) fn push(&self, task: Ready) {
        if self.turning.get() {
            // What the reactor wakes keeps its order, and is shared afterwards.
            self.queue.push(task);
            return;
        }
        match self.shared.peers[self.index].next.put(task) {
            Some(displaced) => {
                self.queue.push(displaced);
                self.call_for_help();
            }
            None if !self.queue.is_empty() => self.call_for_help(),
            None => {}
        }
    }

    /// A task that woke itself: behind all others.
    pub(crate) fn push_back(&self, task: Ready) {
        let others = !self.queue.is_empty() || !self.shared.peers[self.index].next.is_empty();
        self.queue.push(task);
        if others {
            self.call_for_help();
        }
    }

    fn call_for_help(&self) {
        if self.shared.idle.could_help() {
            self.shared.wake_one();
        }
    }
}

/// A worker's thread: runs until the runtime has stopped.
pub(super) fn run(local: Local) {
    let local = Rc::new(local);
    let shared = Arc::clone(&local.shared);
    let _ended = Ended(&shared);
    let _runtime = context::enter(&shared);
    let _worker = context::be_worker(&local);
    let _role = context::take_role(Role::Worker);
    let lease = shared.meter().attach();
    let relieved = Arc::downgrade(&shared);
    let index = local.index;
    lease.on_overdue(move || {
        if let Some(shared) = relieved.upgrade() {
            shared.relieve(index);
        }
    });
    lease.set_active();
    let at = lease.stamp();
    let seed = (local.index as u32).wrapping_mul(0x9e37_79b9) | 1;
    Worker {
        local: &local,
        shared: &shared,
        lease: &lease,
        at,
        turned_at: at,
        in_a_row: 0,
        searching: false,
        runs: 0,
        random: seed,
    }
    .run();
}

/// Says that the thread ends, also if it unwinds.
struct Ended<'a>(&'a Arc<Shared>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A worker's own code never panics. Should it, tasks are left that nobody ends, and they rely on this (see
            // `task::core::Home`).
            std::mem::forget(Arc::clone(self.0));
        }
        self.0.worker_ended();
    }
}

struct Worker<'a> {
    local: &'a Local,
    shared: &'a Arc<Shared>,
    lease: &'a Lease,
    /// When the last bracket closed.
    at: Stamp,
    /// When the reactor was looked at last.
    turned_at: Stamp,
    /// How many tasks were run from `Peer::next`, one after the other.
    in_a_row: u32,
    /// Counted among the searching.
    searching: bool,
    runs: u32,
    random: u32,
}

impl Worker<'_> {
    fn run(mut self) {
        loop {
            if self.runs >= CHECK_EVERY {
                self.runs = 0;
                if let Some(task) = self.look_around() {
                    self.run_task(task);
                    continue;
                }
            }
            if let Some(task) = self.next() {
                self.run_task(task);
                continue;
            }
            let found = self.search();
            if found.is_some() {
                // Calling another worker is the runtime's time, not the task's.
                self.stop_searching();
            }
            self.at = self.lease.charge_runtime(self.at);
            match found {
                Some(task) => self.run_task(task),
                None if self.shared.should_stop() => break,
                None => self.sleep(),
            }
        }
        self.stop_searching();
        self.lease.charge_runtime(self.at);
    }

    /// This worker's next task: the one that was woken last, but not too many of those in a row, or the queue's first.
    #[inline]
    fn next(&mut self) -> Option<Ready> {
        let next = &self.peer().next;
        if self.in_a_row < NEXT_IN_A_ROW
            && let Some(task) = next.take()
        {
            self.in_a_row += 1;
            return Some(task);
        }
        self.in_a_row = 0;
        self.local.queue.pop().or_else(|| self.peer().next.take())
    }

    fn counters(&self) -> &super::metrics::WorkerCounters {
        &self.peer().counters
    }

    fn peer(&self) -> &Peer {
        &self.shared.peers[self.local.index]
    }

    fn run_task(&mut self, task: Ready) {
        // Before the poll: the poll may not end, and what else there is must find somebody.
        self.stop_searching();
        if self.shared.idle.could_help() && self.peer().has_work() {
            self.shared.wake_one();
        }
        self.runs += 1;
        self.counters().runs.add_one();
        let (lease, at) = (self.lease, self.at);
        self.at = task.run(|core| Metered(lease.begin(core.account(), at)));
    }

    /// Under load: what comes from outside must not wait for the own queue to run empty.
    fn look_around(&mut self) -> Option<Ready> {
        if self.at.nanos_since(self.turned_at) >= REACTOR_EVERY_NS {
            self.turn_without_waiting();
            self.at = self.lease.charge_runtime(self.at);
            self.turned_at = self.at;
        }
        self.shared.injector.pop()
    }

    fn turn_without_waiting(&mut self) {
        // If another holds the driver, it is being turned.
        if let Some(mut driver) = try_driver(self.shared) {
            self.counters().reactor_checks.add_one();
            self.turn(&mut driver, Some(Duration::ZERO));
            drop(driver);
            self.share_what_was_woken();
            self.offer_reactor();
        }
    }

    /// This worker has given the reactor up.
    fn offer_reactor(&self) {
        if let Some(sleeper) = self.shared.idle.worker_for_reactor() {
            self.shared.peers[sleeper].parker.notify();
        }
    }

    fn turn(&self, driver: &mut Driver, timeout: Option<Duration>) {
        self.local.turning.set(true);
        // It wakes, and a waker may be anybody's. An error of the poll itself leaves nothing that a worker could do
        // better than to go on and come back.
        contain(|| driver.turn(timeout));
        self.local.turning.set(false);
    }

    /// What the reactor woke is in this worker's queue: if it is more than the one it runs next, another helps.
    fn share_what_was_woken(&self) {
        if self.local.queue.len() > 1 {
            self.shared.wake_one();
        }
    }

    fn search(&mut self) -> Option<Ready> {
        if let Some(task) = self.shared.injector.take_batch(&self.local.queue) {
            return Some(task);
        }
        self.searching = self.searching || self.shared.idle.try_search();
        if !self.searching {
            return None;
        }
        let peers = &self.shared.peers;
        let start = self.random() as usize % peers.len();
        for offset in 0..peers.len() {
            let victim = (start + offset) % peers.len();
            if victim == self.local.index {
                continue;
            }
            if let Some(task) = peers[victim].queue.steal_half(&self.local.queue).or_else(|| peers[victim].next.take())
            {
                self.counters().steals.add_one();
                return Some(task);
            }
        }
        self.shared.injector.take_batch(&self.local.queue)
    }

    /// xorshift: only to spread the thieves.
    fn random(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random
    }

    fn stop_searching(&mut self) {
        if std::mem::take(&mut self.searching) && self.shared.idle.end_search() {
            self.shared.wake_one();
        }
    }

    /// Sleeps, in the reactor if nobody else does, until there may be something to do.
    fn sleep(&mut self) {
        let mut driver = try_driver(self.shared);
        let mut place = if driver.is_some() { Place::Reactor } else { Place::Parker };
        let (mut woken, mut turned) = (false, false);
        self.shared.idle.sleep(self.local.index, std::mem::take(&mut self.searching), place);
        if driver.is_none() {
            // Whoever had the reactor may have given it up just now: see `Idle::worker_for_reactor`.
            driver = try_driver(self.shared);
            if driver.is_some() {
                place = Place::Reactor;
                woken = !self.shared.idle.move_to_reactor(self.local.index);
            }
        }
        // The look at every queue that `Idle` asks for. A notification that was sent meanwhile is not waited for: it
        // stays with the parker or the reactor, and makes the next sleep there a short one.
        if !woken && !self.shared.has_work() && !self.shared.should_stop() {
            self.counters().parks.add_one();
            self.lease.set_idle();
            match &mut driver {
                Some(driver) => {
                    turned = true;
                    self.turn(driver, None);
                }
                None => self.peer().parker.park(),
            }
            self.lease.set_active();
        }
        drop(driver);
        // Whoever called us has counted us among the searching.
        self.searching = !self.shared.idle.wake_up(self.local.index);
        self.at = self.lease.charge_runtime(self.at);
        if turned {
            self.share_what_was_woken();
        } else if place == Place::Reactor {
            self.offer_reactor();
        }
    }
}

/// The driver, if nobody has it.
fn try_driver(shared: &Shared) -> Option<MutexGuard<'_, Driver>> {
    match shared.driver.try_lock() {
        Ok(driver) => Some(driver),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
