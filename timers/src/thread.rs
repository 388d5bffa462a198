//! The slot of a polling thread, the lease on it, and how a thread finds its own.
//!
//! A thread that polls leases a slot for its [`Meter`](crate::Meter): a worker for as long as it lives, any other thread at its
//! first metered poll, until it ends. Slots are never freed; a slot given back is the next one leased, so thread births leave
//! their number flat.

use std::cell::{Cell, OnceCell, RefCell};
use std::marker::PhantomData;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock};

use crate::account::Account;
use crate::boundary::Run;
use crate::clock::detector::{Detector, Keep};
use crate::clock::thread_clock::ThreadClock;
use crate::clock::{Clock, Stamp, os};
use crate::group::{Shard, Spare};
use crate::meter::{Inner, Meter};
use crate::offload::{Offload, OffloadRun};
use crate::slot::{FRAMES, Slot};
use crate::sync::{AtomicI32, AtomicU32, AtomicU64, Ordering, lock};

/// What to do about a poll that goes on too long, from outside.
#[derive(Clone)]
pub(crate) struct Overdue(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Overdue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Overdue(..)")
    }
}

/// All that is kept of one polling thread.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct ThreadSlot {
    /// The seqlock that the tick reads.
    pub(crate) shown: Slot,
    /// The thread's clock. Read and written by the lease holder.
    pub(crate) clock: ThreadClock,
    /// CPU billed to outermost accounts, in nanoseconds. Written by the lease holder.
    pub(crate) charged_ns: AtomicU64,
    /// CPU billed to the runtime itself, in nanoseconds. Written by the lease holder.
    pub(crate) runtime_ns: AtomicU64,
    /// The thread's CPU clock when it leased the slot.
    pub(crate) leased_at_ns: AtomicU64,
    /// Runs that completed although they were over a limit. Written by the lease holder.
    pub(crate) late_completions: AtomicU64,
    /// The innermost scope whose run is too deep inside to be shown, by its record's index plus one. The lease holder's own.
    pub(crate) hidden_scope: AtomicU32,
    /// Use by group. Written by the lease holder; never reset.
    pub(crate) groups: Shard,
    /// The lease holder's own.
    pub(crate) spare_group: Spare,
    pub(crate) inbox: Inbox,
}

/// What other threads write to or read from a slot apart from the seqlock, on lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Inbox {
    /// A hint for `has_budget`: something may be pending for a poll on this thread. The wake queue words are the truth.
    pub(crate) attention: AtomicU32,
    /// For the service thread, by depth: a packed `Request`; zero is none.
    pub(crate) requests: [AtomicU64; FRAMES],
    /// The number of the blocking job that the tick confirmed to be over a hard limit. Jobs are numbered from 1.
    pub(crate) job_over_limit: AtomicU32,
    /// The number of the latest job on this thread. Written by the lease holder.
    pub(crate) jobs: AtomicU32,
    /// Whether the thread polls, as opposed to being parked. Written by the lease holder.
    pub(crate) active: AtomicU32,
    /// Which meter's thread this is now; zero is none.
    pub(crate) meter_id: AtomicU64,
    /// The number of that meter's clock; zero is none. Written by the lease holder.
    pub(crate) total: AtomicU32,
    /// Set by the tick while a poll is past its slice; taken by the service thread.
    pub(crate) overdue: AtomicU32,
    /// What the service thread does about it. Never locked by the tick.
    pub(crate) on_overdue: Mutex<Option<Overdue>>,
    /// Which clock the thread's stamps come from, for readers other than the meter's own.
    clock: Mutex<Clock>,
    clock_id: AtomicI32,
    manual_cpu_ns: AtomicU64,
}

impl ThreadSlot {
    pub(crate) fn new() -> Self {
        Self {
            shown: Slot::new(),
            clock: ThreadClock::new(),
            charged_ns: AtomicU64::new(0),
            runtime_ns: AtomicU64::new(0),
            leased_at_ns: AtomicU64::new(0),
            late_completions: AtomicU64::new(0),
            hidden_scope: AtomicU32::new(0),
            groups: Shard::new(),
            spare_group: Spare::new(),
            inbox: Inbox {
                attention: AtomicU32::new(0),
                requests: std::array::from_fn(|_| AtomicU64::new(0)),
                job_over_limit: AtomicU32::new(0),
                jobs: AtomicU32::new(0),
                active: AtomicU32::new(0),
                meter_id: AtomicU64::new(0),
                total: AtomicU32::new(0),
                overdue: AtomicU32::new(0),
                on_overdue: Mutex::new(None),
                clock: Mutex::new(Clock::System(Detector::EveryStamp)),
                clock_id: AtomicI32::new(os::NO_CLOCK),
                manual_cpu_ns: AtomicU64::new(0),
            },
        }
    }

    pub(crate) fn clock_source(&self) -> Clock {
        *lock(&self.inbox.clock)
    }

    pub(crate) fn clock_id(&self) -> os::ClockId {
        self.inbox.clock_id.load(Ordering::Relaxed)
    }

    pub(crate) fn manual_cpu_ns(&self) -> u64 {
        self.inbox.manual_cpu_ns.load(Ordering::SeqCst)
    }

    pub(crate) fn advance_manual_cpu(&self, ns: u64) {
        self.inbox.manual_cpu_ns.fetch_add(ns, Ordering::SeqCst);
    }
}

/// Most threads that can hold a slot at once.
const MAX_SLOTS: usize = 65_536;
static TABLE: [OnceLock<&'static ThreadSlot>; MAX_SLOTS] = [const { OnceLock::new() }; MAX_SLOTS];
static MADE: AtomicUsize = AtomicUsize::new(0);
static FREE: Mutex<Vec<&'static ThreadSlot>> = Mutex::new(Vec::new());

/// Every slot there ever was. Takes no lock: the tick calls it.
pub(crate) fn all_slots() -> impl Iterator<Item = &'static ThreadSlot> {
    let made = MADE.load(Ordering::Acquire);
    TABLE[..made].iter().filter_map(|slot| slot.get().copied())
}

fn take_slot() -> &'static ThreadSlot {
    let mut free = lock(&FREE);
    free.pop().unwrap_or_else(|| {
        // Under the lock, so each index is made once.
        let index = MADE.load(Ordering::Relaxed);
        assert!(index < MAX_SLOTS, "more than {MAX_SLOTS} metered threads at once");
        let slot = *TABLE[index].get_or_init(|| Box::leak(Box::new(ThreadSlot::new())));
        MADE.store(index + 1, Ordering::Release);
        slot
    })
}

fn give_back_slot(slot: &'static ThreadSlot) {
    lock(&FREE).push(slot);
}

/// What a thread knows of its own metering.
#[derive(Clone, Copy)]
pub(crate) struct Current {
    pub(crate) slot: &'static ThreadSlot,
    pub(crate) clock: Clock,
}

thread_local! {
    /// The youngest of the thread's leases.
    static CURRENT: Cell<Option<Current>> = const { Cell::new(None) };
    /// All of them, the oldest first.
    static LEASES: RefCell<Vec<Current>> = const { RefCell::new(Vec::new()) };
    /// The lease of a thread that belongs to no runtime, taken at its first metered poll and kept until it ends.
    static FOREIGN: OnceCell<Lease> = const { OnceCell::new() };
}

/// The calling thread's slot, if it has one.
#[inline]
pub(crate) fn current() -> Option<Current> {
    CURRENT.try_with(Cell::get).ok().flatten()
}

/// Runs `f` with the calling thread's slot, which is leased from the process-wide meter if the thread has none. `None`: the
/// thread is ending, or the process-wide meter could not be started.
pub(crate) fn with_current<R>(f: impl FnOnce(Current, Option<&Lease>) -> R) -> Option<R> {
    if let Some(current) = current() {
        // A foreign thread's lease has to be told when polling starts and ends.
        return FOREIGN
            .try_with(|foreign| match foreign.get() {
                Some(lease) if std::ptr::eq(lease.slot, current.slot) => f(current, Some(lease)),
                _ => f(current, None),
            })
            .ok();
    }
    let meter = Meter::global().ok()?;
    FOREIGN
        .try_with(|foreign| {
            let lease = foreign.get_or_init(|| meter.attach());
            f(Current { slot: lease.slot, clock: lease.clock }, Some(lease))
        })
        .ok()
}

/// The calling thread's slot, for as long as the guard lives: made by [`Meter::attach`](crate::Meter::attach).
///
/// The youngest guard of a thread is the one that counts; dropping it leaves the thread with the one before, if there is one.
#[derive(Debug)]
#[must_use = "the thread is metered only while the lease lives"]
pub struct Lease {
    meter: Arc<Inner>,
    slot: &'static ThreadSlot,
    clock: Clock,
    /// What the slot's clock looks at; goes after the clock was detached, in `drop`.
    keep: Keep,
    _this_thread: PhantomData<*const ()>,
}

impl Lease {
    pub(crate) fn new(meter: Arc<Inner>, clock: Clock) -> Self {
        let slot = take_slot();
        slot.shown.clear();
        slot.inbox.attention.store(0, Ordering::Relaxed);
        for request in &slot.inbox.requests {
            request.store(0, Ordering::Relaxed);
        }
        slot.inbox.job_over_limit.store(0, Ordering::Relaxed);
        slot.hidden_scope.store(0, Ordering::Relaxed);
        *lock(&slot.inbox.clock) = clock;
        slot.inbox.clock_id.store(os::own_clock_id(), Ordering::Relaxed);
        slot.inbox.active.store(0, Ordering::Relaxed);
        let keep = clock.attach(slot);
        slot.leased_at_ns.store(clock.stamp(slot).cpu_ns, Ordering::Relaxed);
        meter.total.id().join(slot);
        // Release: a tick that sees its meter's number here sees the slot made ready.
        slot.inbox.meter_id.store(meter.id, Ordering::Release);
        let current = Current { slot, clock };
        // Both may be gone when the thread ends; then nobody asks for them any more.
        let _ = LEASES.try_with(|leases| leases.borrow_mut().push(current));
        let _ = CURRENT.try_with(|youngest| youngest.set(Some(current)));
        Self { meter, slot, clock, keep, _this_thread: PhantomData }
    }

    /// Reads the thread's clocks now.
    #[inline]
    pub fn stamp(&self) -> Stamp {
        self.clock.stamp(self.slot)
    }

    /// The thread leaves idleness: it is going to poll. Starts the tick if it is off.
    #[inline]
    pub fn set_active(&self) {
        self.slot.spare_group.open();
        self.slot.inbox.active.store(1, Ordering::Relaxed);
        // The fence inside `open` orders the store against the look at the gate.
        if self.meter.gate.open() {
            self.meter.start_ticking();
        }
    }

    /// The thread is about to wait: it polls nothing until [`set_active`](Self::set_active).
    #[inline]
    pub fn set_idle(&self) {
        self.slot.spare_group.close();
        self.slot.inbox.active.store(0, Ordering::Release);
        self.meter.rest();
    }

    /// Sets what is done when a poll on this thread outlasts its slice: called by the service thread, at once and then once a tick
    /// as long as the poll goes on. An executor gives to other threads what waits for this one.
    pub fn on_overdue(&self, relieve: impl Fn() + Send + Sync + 'static) {
        self.set_overdue(Some(Overdue(Arc::new(relieve))));
    }

    fn set_overdue(&self, relieve: Option<Overdue>) {
        let before = {
            let mut hook = lock(&self.slot.inbox.on_overdue);
            std::mem::replace(&mut *hook, relieve)
        };
        crate::panics::contain(|| drop(before));
    }

    /// Bills the time since `since` to the runtime itself (searching, polling the reactor, parking) and returns the time now.
    pub fn charge_runtime(&self, since: Stamp) -> Stamp {
        let now = self.stamp();
        let ns = now.cpu_ns.saturating_sub(since.cpu_ns);
        let runtime = &self.slot.runtime_ns;
        runtime.store(runtime.load(Ordering::Relaxed) + ns, Ordering::Relaxed);
        self.slot.spare_group.empty();
        now
    }

    /// Starts a run of `account` on this thread, billed from `at` on, and shows it to the tick.
    #[inline]
    pub fn begin<'a>(&'a self, account: &'a Account, at: Stamp) -> Run<'a> {
        Run::begin(self.slot, &self.clock, account, at)
    }

    /// Starts a blocking job, billed from `at` on to the accounts that `offload` captured.
    pub fn offload<'a>(&'a self, offload: &'a Offload, at: Stamp) -> OffloadRun<'a> {
        OffloadRun::begin(self.slot, self.clock, offload, at)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The slot will be another thread's: nobody here may think that it is this one's.
        let left = LEASES.try_with(|leases| {
            let mut leases = leases.borrow_mut();
            leases.retain(|lease| !std::ptr::eq(lease.slot, self.slot));
            leases.last().copied()
        });
        let _ = CURRENT.try_with(|youngest| youngest.set(left.ok().flatten()));
        self.set_overdue(None);
        self.slot.shown.clear();
        self.set_idle();
        self.meter.retire(self.slot, self.stamp());
        self.slot.clock.detach();
        drop(std::mem::take(&mut self.keep));
        self.slot.inbox.clock_id.store(os::NO_CLOCK, Ordering::Relaxed);
        give_back_slot(self.slot);
    }
}
