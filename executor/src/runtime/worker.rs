//! The worker's loop: find a task, run it between the meter's brackets, or sleep.
//!
//! # Whose time it is
//!
//! A worker reads the clock once a task: the stamp that closes one run opens the next, so the time between two
//! runs, taking a task from the worker's own queue, is the later task's; it is a few nanoseconds. What is not for any
//! task, searching, the reactor and going to sleep, is billed to the runtime's account, and the stamp is fresh.
//!
//! # Turns
//!
//! A worker runs tasks of one group for a turn of [`TURN_NS`], then those of the group that has had least so far (see
//! [`lanes`](crate::scheduler::lanes)). The end of a turn is also when it looks at the reactor, the injector and, now and then, at
//! what waits for the other workers. With short polls it looks at the former two more often, each [`CHECK_EVERY`] runs.
//!
//! # How long a ready task waits
//!
//! * In the queue of its group on this worker it waits for those before it. Of those that came later at most [`NEXT_IN_A_ROW`] for
//!   each of them and for itself go first, the tasks that were woken last, and none once a turn is over: behind n others
//!   for at most 4 n + 3 polls of its group. Where more than 256 wait in it, some that the reactor wakes go first, too: up to 7
//!   for each of those before it, or 4 ms and a poll for every 32 of them (see [`cohort`]). And where polls last a turn, up to [`INJECTED_AT_ONCE`] that were
//!   injected go first for each of those before it and for itself.
//! * In the injector, for at most [`CHECK_EVERY`] polls, or a turn and a poll, of some worker for each task before it, and one poll more for
//!   every [`INJECTED_AT_ONCE`] of them.
//! * A socket or timer that is ready is seen after a turn and a poll at the most, by some worker; of the time that the system lets the worker
//!   have, as all of these.
//! * Its group waits for its turn as its weight says, and a turn is over at the first boundary after [`TURN_NS`].
//!
//! Another worker that sleeps is called when more waits than the poll in progress will come to at once; but in a poll no more than once
//! in 20 us ([`Calls`]), so what is pushed right after a call may wait for that poll to end, or for the tick.
//!
//! # Before it sleeps
//!
//! A worker that has run dry and has the reactor may ask it a few times more, for 10 us at the most, for as long as events of late have
//! come that soon often enough. Mostly that saves CPU time, and it may take two and a half times that of sleeping: see [`linger`].
//!
//! # What a stuck poll holds
//!
//! Nothing. While a task is polled its worker holds no lock and not the reactor, and everything in its queue can be
//! stolen.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use stipend_timers::{GroupId, Lease, Stamp};

use self::aside::Aside;
use self::cohort::{Cohort, RECENT_EVERY_NS};
use self::linger::Linger;
use super::context::{self, Role};
use super::root::Root;
use super::shared::{Peer, Ready, Shared};
use crate::scheduler::lanes::Lanes;
use crate::scheduler::shares::Compared;
use crate::task::Metered;

/// After so many runs a worker looks at the injector and the reactor even if its own queue is never empty. A prime, so
/// as not to beat with the tasks' own periods.
const CHECK_EVERY: u32 = 61;
/// So many tasks may go before the queue because they were woken last, until one of the queue has its turn.
const NEXT_IN_A_ROW: u32 = 3;
/// How much run time of a worker one group has before another may be next. Changing over costs a tenth of a microsecond.
const TURN_NS: u64 = 100_000;
/// The reactor is asked after this much run time at the earliest: it is a system call, as long as six yields.
const REACTOR_EVERY_NS: u64 = 25_000;
/// What waits for other workers is compared with the own after this much run time.
const COMPARE_EVERY_NS: u64 = 1_000_000;
/// A group of another worker's is helped if it is so many milliseconds of the default weight behind the own one.
const HELP_BEHIND_MS: u64 = 1;
/// In the middle of a poll another worker is called after this much wall time at the earliest: as long as it takes to come.
const CALL_EVERY: Duration = Duration::from_micros(20);
/// Once the runtime is closed a worker that is never idle looks for tasks that go on after this much run time at the earliest.
const END_EVERY_NS: u64 = 1_000_000;
/// How many tasks are taken from the injector at once when they have to be put in order, and how many are run from there at most until
/// one of the queue has its turn.
const INJECTED_AT_ONCE: usize = 32;

/// What the thread that is the worker reaches through its context.
pub(crate) struct Local {
    shared: Arc<Shared>,
    index: usize,
    lanes: Lanes<Ready>,
    /// In the reactor: what it wakes is collected, and another is called once, afterwards, by [`Worker::run_task`].
    turning: Cell<bool>,
    /// The same, and there is a crowd.
    crowded: Cell<bool>,
    /// When another worker was called in the middle of a poll.
    called: Calls,
    /// Whether to let others have the processor before a sleep.
    aside: Cell<Aside>,
}

impl Local {
    pub(super) fn new(shared: Arc<Shared>, index: usize, lanes: Lanes<Ready>) -> Self {
        Self {
            shared,
            index,
            lanes,
            turning: Cell::new(false),
            crowded: Cell::new(false),
            called: Calls::default(),
            aside: Cell::default(),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn belongs_to(&self, runtime: *const Shared) -> bool {
        std::ptr::eq(Arc::as_ptr(&self.shared), runtime)
    }

    /// What others see of it.
    fn peer(&self) -> &Peer {
        &self.shared.peers[self.index]
    }

    /// One of its tasks has spawned another.
    #[inline]
    pub(crate) fn count_spawned(&self) {
        self.peer().counters.spawned.add_one();
    }

    /// A new task that one of this worker's has spawned.
    #[inline]
    pub(crate) fn start(&self, task: Ready) {
        let group = task.core().group();
        // That of the task which runs here was admitted before it, and lives.
        if group != self.lanes.current() {
            self.shared.admit(group);
        }
        self.push(task);
    }

    /// A task that was woken or spawned on this worker: it runs next, and what was to run next goes to the back of the queue. So
    /// two tasks that wake each other find their data in the cache. [`NEXT_IN_A_ROW`] keeps them from starving the queue.
    ///
    /// Another worker is called only if there is more than this one, and not too often (see [`Calls`]): this worker comes to it as soon as
    /// the poll in progress ends, mostly sooner than another could wake up, and with warm caches. If that poll goes on, the tick finds
    /// it overdue and [`Shared::relieve`] calls another after all.
    pub(crate) fn push(&self, task: Ready) {
        let group = task.core().group();
        if self.turning.get() {
            // What the reactor wakes keeps its order. Another worker is called before the first of it is polled.
            if self.crowded.get() {
                self.lanes.push_recent(group, task);
            } else {
                self.lanes.push(group, task);
            }
        } else if group != self.lanes.current() {
            // It waits for its group's turn.
            self.lanes.push(group, task);
            self.call_for_help();
        } else {
            match self.peer().next.put(task) {
                Some(displaced) => {
                    self.lanes.push(group, displaced);
                    self.call_for_help();
                }
                None if !self.lanes.is_empty() => self.call_for_help(),
                None => {}
            }
        }
    }

    /// As [`Peer::has_work`], and from this side it takes no fence.
    #[inline]
    fn has_work(&self) -> bool {
        !self.peer().next.is_empty() || !self.lanes.is_empty()
    }

    /// A task that woke itself: behind all others.
    pub(crate) fn push_back(&self, task: Ready) {
        // Mostly nobody could, which spares the second look.
        let helps_others = self.shared.idle.could_help() && self.has_work();
        self.lanes.push(task.core().group(), task);
        if helps_others {
            self.call_for_help();
        }
    }

    fn call_for_help(&self) {
        if self.shared.idle.could_help() && self.called.may_call(Instant::now()) {
            self.shared.wake_one();
        }
    }
}

/// Limits how often another worker is called in the middle of a poll: to call costs some microseconds, and one that comes, takes the only
/// task there is, sleeps again and has to be called for the next one, costs more than it helps. (A task that spawns a thousand short
/// ones was seen to take three times as long by that.) What waits for want of a call is not forgotten: the worker calls before its next
/// poll, and the tick if this one goes on.
#[derive(Debug, Default)]
struct Calls {
    latest: Cell<Option<Instant>>,
}

impl Calls {
    fn may_call(&self, now: Instant) -> bool {
        let may = self.latest.get().is_none_or(|latest| now.saturating_duration_since(latest) >= CALL_EVERY);
        if may {
            self.latest.set(Some(now));
        }
        may
    }
}

/// A worker's thread: runs until the runtime has stopped.
pub(super) fn run(local: Local) {
    run_to_end(&Rc::new(local));
}

/// Runs tasks on this thread until the runtime has stopped.
pub(super) fn run_to_end(local: &Rc<Local>) {
    let _ended = Ended { shared: &local.shared, unwinding: std::thread::panicking() };
    let _thread = AsWorker::begin(local);
    let lease = local.shared.meter().attach();
    let (relieved, index) = (Arc::downgrade(&local.shared), local.index);
    lease.on_overdue(move || {
        if let Some(shared) = relieved.upgrade() {
            shared.relieve(index);
        }
    });
    let mut worker = Worker::new(local, &lease);
    loop {
        match worker.find() {
            Some(task) => worker.run_task(task),
            None if worker.shared.should_stop() => break,
            None => worker.sleep(|| false),
        }
    }
    worker.stop();
}

/// Until it is dropped this thread is a worker, in its runtime.
pub(super) struct AsWorker {
    _role: context::InRole,
    _worker: context::AsWorker,
    _runtime: context::Entered,
}

impl AsWorker {
    pub(super) fn begin(local: &Rc<Local>) -> Self {
        let _runtime = context::enter(&local.shared);
        let _worker = context::be_worker(local);
        Self { _role: context::take_role(Role::Worker), _worker, _runtime }
    }
}

/// Says that the thread ends, also if it unwinds.
struct Ended<'a> {
    shared: &'a Arc<Shared>,
    /// The thread unwinds for a reason of its own.
    unwinding: bool,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.unwinding {
            // A worker's own code never panics. Should it, tasks are left that nobody ends, and they rely on this (see
            // `task::core::Home`).
            std::mem::forget(Arc::clone(self.shared));
        }
        self.shared.worker_ended();
    }
}

/// How much of this worker's time the current group has had in a row.
struct Turn {
    began: Stamp,
    used_ns: u64,
}

impl Turn {
    fn begin(at: Stamp) -> Self {
        Self { began: at, used_ns: 0 }
    }

    fn used_ns(&self, at: Stamp) -> u64 {
        self.used_ns + at.nanos_since(self.began)
    }

    /// What lies between the two was not the group's.
    fn leave_out(&mut self, from: Stamp, to: Stamp) {
        *self = Self { began: to, used_ns: self.used_ns(from) };
    }
}

pub(super) struct Worker<'a> {
    local: &'a Local,
    shared: &'a Arc<Shared>,
    /// What others see of this worker.
    peer: &'a Peer,
    lease: &'a Lease,
    /// When the last bracket closed.
    at: Stamp,
    /// The current group's.
    turn: Turn,
    /// When the reactor was looked at last.
    turned_at: Stamp,
    /// When what waits for other workers was looked at last.
    compared_at: Stamp,
    /// A lane of another worker's, the same as the own one, and after how many turns of that worker it was seen to wait.
    unserved: Option<(usize, GroupId, u64)>,
    /// How many tasks were run from `Peer::next`, one after the other.
    in_a_row: u32,
    /// How many were run from the injector since the queue had its turn.
    injected_in_a_row: usize,
    /// Who goes first in a crowd, of the group whose turn it is.
    cohort: Cohort,
    /// Whether to look on before a sleep. In a box, so that what each poll looks at lies together.
    linger: Box<Linger>,
    /// Counted among the searching.
    searching: bool,
    /// When it last cancelled what goes on although the runtime is closed, and how long that took.
    end_seen: Option<(Stamp, u64)>,
    runs: u32,
    random: u32,
}

impl<'a> Worker<'a> {
    pub(super) fn new(local: &'a Local, lease: &'a Lease) -> Self {
        lease.set_active();
        let at = lease.stamp();
        local.lanes.resume();
        Self {
            local,
            shared: &local.shared,
            peer: local.peer(),
            lease,
            at,
            turn: Turn::begin(at),
            turned_at: at,
            compared_at: at,
            unserved: None,
            in_a_row: 0,
            injected_in_a_row: 0,
            cohort: Cohort::begin(at),
            linger: Box::default(),
            searching: false,
            end_seen: None,
            runs: 0,
            random: (local.index as u32).wrapping_mul(0x9e37_79b9) | 1,
        }
    }

    /// The thread stops being this worker.
    pub(super) fn stop(&mut self) {
        self.end_turn();
        self.keep_next_in_order();
        self.local.lanes.suspend();
        self.stop_searching();
        self.lease.charge_runtime(self.at);
    }

    /// Polls a root future between the tasks. It has no group, and its time is not that of the group whose turn it is.
    pub(super) fn run_root<F: Future>(&mut self, root: &mut Root<'_, F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.stop_searching();
        let before = self.at;
        let (polled, at) = root.poll(self.lease, before, cx);
        self.at = at;
        self.turn.leave_out(before, at);
        // It counts as a run, and with long polls as many: else one that always wakes itself would keep the reactor from being
        // looked at, as then the worker never sleeps.
        self.runs = if at.nanos_since(self.turned_at) >= TURN_NS { CHECK_EVERY } else { self.runs + 1 };
        polled
    }

    /// The next task: from this worker's own queues, else from elsewhere.
    #[inline]
    pub(super) fn find(&mut self) -> Option<Ready> {
        if (self.runs >= CHECK_EVERY || self.turn_is_over())
            && let Some(task) = self.look_around()
        {
            return Some(task);
        }
        self.next().or_else(|| self.find_elsewhere())
    }

    /// Mostly it is of the group whose turn it is, which goes on then.
    fn find_elsewhere(&mut self) -> Option<Ready> {
        let found = self.search();
        if found.is_some() {
            // Calling another worker is the runtime's time, not the task's.
            self.stop_searching();
        }
        let before = self.at;
        self.at = self.lease.charge_runtime(before);
        self.turn.leave_out(before, self.at);
        found
    }

    /// This worker's next task: the one that was woken last, but not too many of those in a row, or the queue's first; of the
    /// group whose turn it is, while it has any.
    #[inline]
    fn next(&mut self) -> Option<Ready> {
        let next = &self.peer.next;
        if self.in_a_row < NEXT_IN_A_ROW
            && let Some(task) = next.take()
        {
            self.in_a_row += 1;
            if self.cohort.has_turned() {
                self.count_recent();
            }
            return Some(task);
        }
        self.in_a_row = 0;
        if self.cohort.has_turned()
            && let Some(task) = self.next_recent()
        {
            return Some(task);
        }
        // The queue has its turn, also if it is empty.
        self.injected_in_a_row = 0;
        if let Some(task) = self.local.lanes.pop_current() {
            self.cohort.count_queued();
            return Some(task);
        }
        if let Some(task) = self.peer.next.take() {
            return Some(task);
        }
        if self.local.lanes.has_recent() {
            // Thieves have left nothing else.
            self.end_cohort();
            return self.local.lanes.pop_current();
        }
        if self.local.lanes.is_empty() || !self.next_turn() {
            return None;
        }
        self.local.lanes.pop_current()
    }

    /// The first of what the reactor has woken, while that goes before the rest of the queue.
    #[cold]
    fn next_recent(&mut self) -> Option<Ready> {
        while self.cohort.goes_on(self.at) {
            if let Some(task) = self.local.lanes.pop_recent() {
                self.count_recent();
                return Some(task);
            }
            if self.at.nanos_since(self.turned_at) < RECENT_EVERY_NS {
                break;
            }
            self.look_at_reactor();
            if !self.local.lanes.has_recent() {
                break;
            }
        }
        self.end_cohort();
        None
    }

    /// One more was polled before the rest of the queue: one that the reactor has woken, or that such a one has.
    fn count_recent(&mut self) {
        self.cohort.count_recent();
        if !self.cohort.has_turned() {
            self.end_cohort();
        }
    }

    fn end_cohort(&mut self) {
        self.local.lanes.put_recent_behind();
        self.cohort = Cohort::begin(self.at);
    }

    #[inline]
    fn turn_is_over(&self) -> bool {
        self.turn.used_ns(self.at) >= TURN_NS
    }

    /// Charges the turn to its group.
    fn end_turn(&mut self) {
        self.local.lanes.charge(self.turn.used_ns(self.at));
        self.turn = Turn::begin(self.at);
    }

    /// Ends the turn and begins the next one. False: there is nothing to run.
    fn next_turn(&mut self) -> bool {
        self.keep_next_in_order();
        self.end_turn();
        let before = self.local.lanes.current();
        let found = self.local.lanes.next_turn();
        if self.local.lanes.current() != before {
            self.end_cohort();
        }
        found
    }

    /// What was to run next belongs to the group whose turn it was. If others wait it goes into the queue.
    fn keep_next_in_order(&self) {
        if !self.local.lanes.is_empty() {
            self.put_next_in_its_lane();
        }
    }

    fn put_next_in_its_lane(&self) {
        if let Some(task) = self.peer.next.take() {
            self.local.lanes.push(task.core().group(), task);
        }
    }

    fn counters(&self) -> &super::metrics::WorkerCounters {
        &self.peer.counters
    }

    pub(super) fn run_task(&mut self, task: Ready) {
        let group = task.core().group();
        if group != self.local.lanes.current() {
            self.switch_to(group);
        }
        // Before the poll: the poll may not end, and what else there is must find somebody.
        self.stop_searching();
        if self.shared.idle.could_help() && self.local.has_work() {
            self.shared.wake_one();
        }
        self.runs += 1;
        self.counters().runs.add_one();
        let (lease, at) = (self.lease, self.at);
        let ended = &self.peer.counters.ended;
        self.at = task.run(|core| Metered { run: lease.begin(core.account(), at), ended });
    }

    /// The task is of another group than the one whose turn it is: it was found elsewhere.
    #[cold]
    fn switch_to(&mut self, group: GroupId) {
        // Also if nothing else waits: left there it would be displaced into the other group's lane.
        self.put_next_in_its_lane();
        self.end_turn();
        self.local.lanes.switch_to(group);
        self.end_cohort();
    }

    /// Under load: what comes from outside must not wait for the own queue to run empty, nor one group for another.
    fn look_around(&mut self) -> Option<Ready> {
        self.runs = 0;
        if self.shared.is_closed() {
            self.see_the_end();
        }
        let over = self.turn_is_over();
        if self.at.nanos_since(self.turned_at) >= REACTOR_EVERY_NS {
            self.look_at_reactor();
        }
        if self.local.lanes.has_recent() {
            self.cohort.may_turn(self.at);
        }
        if over {
            // The queue's first before the one that was woken last, which may have run for long.
            self.in_a_row = NEXT_IN_A_ROW;
        }
        if !self.local.lanes.shares().are_used() {
            if over {
                self.turn = Turn::begin(self.at);
            }
            return self.next_injected();
        }
        self.take_injected();
        if over {
            self.next_turn();
            if self.at.nanos_since(self.compared_at) >= COMPARE_EVERY_NS {
                self.compared_at = self.at;
                return self.help_who_lags();
            }
        }
        None
    }

    /// The runtime is closed, and this worker has something to do, perhaps for ever, if nobody cancels it: see [`Shared::end_tasks`]. It
    /// looks at once, and then now and then, so that looking takes a small part of its time.
    #[cold]
    fn see_the_end(&mut self) {
        let before = self.at;
        if self.end_seen.is_some_and(|(at, took_ns)| before.nanos_since(at) < END_EVERY_NS + 16 * took_ns) {
            return;
        }
        self.shared.end_tasks();
        self.at = self.lease.charge_runtime(before);
        self.turn.leave_out(before, self.at);
        self.end_seen = Some((self.at, self.at.nanos_since(before)));
    }

    /// The injector's first, unless the queue has waited for too many of those.
    fn next_injected(&mut self) -> Option<Ready> {
        if self.injected_in_a_row == INJECTED_AT_ONCE {
            return None;
        }
        let task = self.shared.injector.pop()?;
        self.injected_in_a_row += 1;
        Some(task)
    }

    /// Puts what was injected where it belongs.
    fn take_injected(&self) {
        for _ in 0..INJECTED_AT_ONCE {
            let Some(task) = self.shared.injector.pop() else { return };
            self.local.lanes.push(task.core().group(), task);
        }
    }

    /// A group that has had less than those that run here may wait for another worker; or tasks of the very group that runs here
    /// may wait for one that has no turn left for them.
    fn help_who_lags(&mut self) -> Option<Ready> {
        let victim = self.random() as usize % self.shared.peers.len();
        if victim == self.local.index {
            return None;
        }
        let lanes = &self.shared.peers[victim].lanes;
        let shares = self.local.lanes.shares();
        let theirs = lanes.most_lagging(shares)?;
        let help = match shares.compare(theirs, self.local.lanes.current()) {
            Compared::Apart(theirs, own) => theirs.is_behind(own, HELP_BEHIND_MS),
            Compared::Same => {
                let seen = (victim, theirs, lanes.turns());
                lanes.current() != theirs && self.unserved.replace(seen) == Some(seen)
            }
        };
        if !help {
            return None;
        }
        let stolen = lanes.steal_half(theirs, &self.local.lanes);
        if stolen.is_some() {
            self.counters().steals.add_one();
        }
        stolen
    }

    fn search(&mut self) -> Option<Ready> {
        if let Some(task) = self.take_batch() {
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
            if let Some(task) = self.steal_from(&peers[victim]) {
                self.counters().steals.add_one();
                return Some(task);
            }
        }
        self.take_batch()
    }

    /// From the injector.
    fn take_batch(&self) -> Option<Ready> {
        let lanes = &self.local.lanes;
        if lanes.shares().are_used() {
            let first = self.shared.injector.pop()?;
            self.take_injected();
            return Some(first);
        }
        let task = self.shared.injector.take_batch(lanes.queue_to_fill(GroupId::NONE));
        lanes.filled(GroupId::NONE);
        task
    }

    /// About half of what waits longest by its share, and what the other would run next if that is all.
    fn steal_from(&self, peer: &Peer) -> Option<Ready> {
        // Another thief may be faster.
        while let Some(lane) = peer.lanes.most_lagging(self.local.lanes.shares()) {
            if let Some(task) = peer.lanes.steal_half(lane, &self.local.lanes) {
                return Some(task);
            }
        }
        peer.next.take()
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
}

mod aside;
mod cohort;
mod linger;
mod reactor;
#[cfg(test)]
mod tests;
