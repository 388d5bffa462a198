//! A meter: one tick, one service thread, and the threads that they look after.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::manual::ManualState;
use crate::clock::{AccuracyClass, Clock, ClockSource, Stamp, fast, fork, os};
use crate::error::MeterError;
use crate::gate::{self, Gate, Timer as _};
use crate::histogram::{Distribution, Histogram};
use crate::lateness::Lateness;
use crate::meter_clock::MeterClock;
use crate::panics;
use crate::service::Service;
use crate::sleeper::Sleeper;
use crate::sync::{AtomicU64, Ordering, lock};
use crate::thread::{self, Lease, ThreadSlot};
use crate::tick::TickReport;
use crate::total::OwnTotal;
use crate::units::nanos;

/// The tick period unless told otherwise: 5 ms.
///
/// It is a bargain. A limit that is reached in the middle of a poll is noticed up to a period late, and a slice lasts for one; each
/// tick wakes a thread, which on a machine with nothing to spare is taken from a worker. The default is the shortest of the
/// periods tried whose thread takes less than half a percent of a processor beside saturated workers:
///
/// | period | CPU of the tick thread |
/// | --- | --- |
/// | 1 ms | 1.4 to 1.7 % |
/// | 2 ms | 0.6 to 0.7 % |
/// | 5 ms | 0.25 to 0.32 % |
/// | 10 ms | 0.15 to 0.19 % |
///
/// Three runs of `cargo bench -p stipend-benches --bench tick -- --quick`, on a virtual machine with two processors and
/// Linux 6.18, shared with others. A shorter one would be little gain beside busy processes, where ticks come late: with that
/// bench's `busy=2`, whatever the period, one in a hundred came some milliseconds after it was due.
///
/// What is crossed in short polls is found at their ends and waits for no tick.
pub const DEFAULT_TICK_PERIOD: Duration = Duration::from_millis(5);
/// Activity is frequent if it begins anew within a period divided by this.
const OFTEN: u64 = 8;
const MIN_TICK_PERIOD: Duration = Duration::from_micros(100);
const MAX_TICK_PERIOD: Duration = Duration::from_secs(1);

static NEXT_ID: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);

/// What the tick has done; counts since the meter was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct MeterMetrics {
    /// Ticks that looked at the threads. It stands still while nothing polls.
    pub ticks: u64,
    /// Accounts whose wall time reached their expiry.
    pub suspects: u64,
    /// Suspects that their CPU clock confirmed.
    pub confirmed: u64,
    /// Notifications queued on wake queues.
    pub posted: u64,
    /// Tasks that completed in the poll in which they crossed a hard limit, and so returned their value.
    pub late_completions: u64,
    /// CPU time charged to accounts.
    pub charged: Duration,
    /// CPU time of the metered threads charged to the runtime itself: searching, polling the reactor, parking.
    pub runtime: Duration,
    /// CPU time of the metered threads by the kernel, since each leased its slot. What a poll in progress has used is in here
    /// and not yet in `charged`.
    pub threads: Duration,
    /// How often the CPU clock was read.
    pub clock_reads: u64,
    /// What was given out too early and taken back from what followed.
    pub clock_debt: Duration,
    /// How late ticks came, each against the moment at which it was due. While nothing polls there is none, and none is late.
    ///
    /// What is noticed within a poll is noticed up to a period and this late.
    pub lateness: Distribution,
    /// Periods that passed without a tick of their own, because the one before came so late. That one counts in
    /// [`lateness`](Self::lateness) once.
    pub missed_periods: u64,
    /// How long ago the latest tick came; `None` if there was none yet. It grows while nothing polls.
    pub since_tick: Option<Duration>,
    /// How long the next tick has been due for. Zero while nothing polls; a tick that is dead is overdue without end, although
    /// nobody is left to count it in [`lateness`](Self::lateness).
    pub overdue: Duration,
    /// The time a tick takes to look at one thread: that of each tick, divided by the threads it looked at. Where the tick thread
    /// is preempted meanwhile, that is in it.
    pub look: Distribution,
}

impl MeterMetrics {
    /// What the kernel counted and nobody was charged, in nanoseconds; negative if more was charged than used.
    pub fn unattributed_nanos(&self) -> i128 {
        let nanos = |duration: Duration| duration.as_nanos() as i128;
        nanos(self.threads) - nanos(self.charged) - nanos(self.runtime)
    }
}

#[derive(Debug)]
pub(crate) struct Counters {
    ticks: AtomicU64,
    suspects: AtomicU64,
    confirmed: AtomicU64,
    posted: AtomicU64,
    look: Histogram,
}

impl Counters {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { ticks: zero(), suspects: zero(), confirmed: zero(), posted: zero(), look: Histogram::new() }
    }

    /// Takes over what one tick found, in so many nanoseconds.
    pub(crate) fn add(&self, report: &TickReport, took_ns: u64) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        if report.threads > 0 {
            self.look.add(took_ns / u64::from(report.threads));
        }
        if report.suspects > 0 {
            self.suspects.fetch_add(report.suspects.into(), Ordering::Relaxed);
            self.confirmed.fetch_add(report.confirmed.into(), Ordering::Relaxed);
        }
        if report.posted > 0 {
            self.posted.fetch_add(report.posted.into(), Ordering::Relaxed);
        }
    }
}

/// What threads have used.
#[derive(Clone, Copy, Debug, Default)]
struct Books {
    charged_ns: u64,
    runtime_ns: u64,
    threads_ns: u64,
    late_completions: u64,
    clock_reads: u64,
    clock_debt_ns: u64,
}

impl Books {
    /// Adds a slot's, whose thread's CPU clock reads `now_ns`.
    fn add(&mut self, slot: &ThreadSlot, now_ns: u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        self.charged_ns += count(&slot.charged_ns);
        self.runtime_ns += count(&slot.runtime_ns);
        self.threads_ns += now_ns.saturating_sub(count(&slot.leased_at_ns));
        self.late_completions += count(&slot.late_completions);
        self.clock_reads += slot.clock.reads();
        self.clock_debt_ns += slot.clock.debt_ns();
    }
}

/// The shared part of a meter.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) id: u64,
    pub(crate) clock: Clock,
    pub(crate) gate: Gate,
    pub(crate) service: Service,
    pub(crate) metrics: Counters,
    lateness: Lateness,
    pub(crate) slice_ns: u64,
    period: Duration,
    /// `None`: ticks are made by hand.
    sleeper: Option<Sleeper>,
    stop: AtomicBool,
    /// When the timer was last started.
    started_ns: AtomicU64,
    /// Whether that was so soon after the time before that stopping it in between does not pay.
    often: AtomicBool,
    /// Of threads that have given their slot back.
    retired: Mutex<Books>,
    /// For the clock of them all.
    pub(crate) total: OwnTotal,
}

impl Inner {
    /// Starts the timer of the tick. Called by whoever opened the gate.
    #[cold]
    pub(crate) fn start_ticking(&self) {
        // A forked child shares the timer's descriptor with its parent, whose tick it is.
        if let Some(sleeper) = &self.sleeper
            && !fork::is_child()
        {
            Timer { meter: self, sleeper }.start();
        }
    }

    /// A thread has just become idle. If it was the last one, and activity is rare, the timer is stopped here and now: a tick that
    /// comes only to find nobody costs more than that.
    #[inline]
    pub(crate) fn rest(&self) {
        if !self.often.load(Ordering::Relaxed) && self.gate.is_open() {
            self.rest_now();
        }
    }

    /// Whether a timer on the clock of all threads is armed: then the tick looks once more behind their last charge.
    fn watches_total(&self) -> bool {
        self.total.id().sum().horizon.next_ns() != crate::record::NEVER
    }

    #[cold]
    fn rest_now(&self) {
        if let Some(sleeper) = &self.sleeper
            && !self.any_active()
            && !self.watches_total()
            && !fork::is_child()
        {
            let timer = Timer { meter: self, sleeper };
            self.gate.switch_off(&timer, || self.any_active() || self.watches_total());
        }
    }

    /// Whether its threads are stopped, so that its clock's timers do not fire any more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn own_slots(&self) -> impl Iterator<Item = &'static ThreadSlot> {
        thread::all_slots().filter(|slot| slot.inbox.meter_id.load(Ordering::Acquire) == self.id)
    }

    fn any_active(&self) -> bool {
        self.own_slots().any(|slot| slot.inbox.active.load(Ordering::Acquire) != 0)
    }

    /// Takes over what a thread has used, as it gives its slot back.
    pub(crate) fn retire(&self, slot: &ThreadSlot, now: Stamp) {
        let mut retired = lock(&self.retired);
        retired.add(slot, now.cpu_ns);
        let used_ns = slot.charged_ns.load(Ordering::Relaxed) + slot.runtime_ns.load(Ordering::Relaxed);
        slot.inbox.meter_id.store(0, Ordering::Release);
        self.total.id().retire(used_ns);
        for counter in [&slot.charged_ns, &slot.runtime_ns, &slot.late_completions] {
            counter.store(0, Ordering::Relaxed);
        }
        slot.inbox.total.store(0, Ordering::Relaxed);
    }

    fn run_tick(&self, sleeper: &Sleeper) {
        let timer = Timer { meter: self, sleeper };
        // SeqCst, with the store in `Owner::drop` and what the sleeper does: see `Timer::stop`.
        let stopped = || self.stop.load(Ordering::SeqCst);
        while !stopped() {
            sleeper.wait();
            if stopped() {
                return;
            }
            if !self.gate.came(&timer, || self.any_active()) {
                continue;
            }
            self.lateness.came(fast::monotonic_ns(), nanos(self.period));
            // Asked before: what a thread charged before it became idle is looked at once more.
            let active = self.any_active();
            self.tick();
            if !active {
                self.gate.switch_off(&timer, || self.any_active());
            }
        }
    }

    fn run_service(&self) {
        self.service.is_this_thread();
        let stop = || self.stop.load(Ordering::Acquire);
        while !stop() {
            self.serve();
            self.service.wait(stop);
        }
    }
}

/// The timer of the tick, with what is noted of it.
struct Timer<'a> {
    meter: &'a Inner,
    sleeper: &'a Sleeper,
}

impl gate::Timer for Timer<'_> {
    fn start(&self) {
        let meter = self.meter;
        let (now_ns, period_ns) = (fast::monotonic_ns(), nanos(meter.period));
        let before_ns = meter.started_ns.swap(now_ns, Ordering::Relaxed);
        meter.often.store(now_ns.saturating_sub(before_ns) < period_ns / OFTEN, Ordering::Relaxed);
        // Before the timer runs: a thread that is preempted in between has delayed the tick, and it counts as late.
        meter.lateness.starting(now_ns, period_ns);
        self.sleeper.start(meter.period);
    }

    fn stop(&self) -> bool {
        self.sleeper.stop();
        self.meter.lateness.stopped();
        let goes_on = !self.meter.stop.load(Ordering::SeqCst);
        if !goes_on {
            // That may have taken an interruption back.
            self.sleeper.interrupt();
        }
        goes_on
    }
}

/// The threads of a meter; stops them when the last handle goes.
#[derive(Debug)]
struct Owner {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        if fork::is_child() {
            // The threads are the parent's.
            self.threads.drain(..).for_each(std::mem::forget);
            return;
        }
        self.inner.stop.store(true, Ordering::SeqCst);
        if let Some(sleeper) = &self.inner.sleeper {
            sleeper.interrupt();
        }
        let this = std::thread::current().id();
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // The last handle may go in a waker that the service thread calls.
            if thread.thread().id() != this {
                let _ = thread.join();
            }
        }
        let (waiters, timers) = self.inner.total.id().sum().end_clock();
        for waiter in waiters {
            panics::contain(|| waiter.wake());
        }
        panics::contain(|| drop(timers));
    }
}

/// Meters threads: leases them slots, and ticks while any of them polls. Clones are the same meter; the last one stops its
/// threads.
///
/// A Stipend runtime has its own. Futures that are metered elsewhere ([`Metered`](crate::Metered)) use the process-wide one.
///
/// ```
/// use std::time::Duration;
/// use stipend_timers::Meter;
///
/// let meter = Meter::builder().tick_period(Duration::from_millis(2)).build()?;
/// assert_eq!(meter.tick_period(), Duration::from_millis(2));
/// # Ok::<(), stipend_timers::MeterError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Meter(Arc<Owner>);

impl Meter {
    /// For a meter with other than the default settings.
    pub fn builder() -> MeterBuilder {
        MeterBuilder::default()
    }

    /// The process-wide meter, started at the first call. It lives as long as the process.
    ///
    /// # Errors
    /// [`MeterError::Io`] if the system refuses a thread or a timer. A later call tries again.
    pub fn global() -> Result<&'static Meter, MeterError> {
        static GLOBAL: OnceLock<Meter> = OnceLock::new();
        if let Some(meter) = GLOBAL.get() {
            return Ok(meter);
        }
        let meter = Meter::builder().build()?;
        // If another thread was faster, its meter serves and this one stops.
        Ok(GLOBAL.get_or_init(|| meter))
    }

    pub(crate) fn manual(clock: &'static ManualState, slice: Duration) -> Meter {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let inner = Inner {
            id,
            total: OwnTotal::new(id),
            clock: Clock::Manual(clock),
            gate: Gate::new(),
            service: Service::default(),
            metrics: Counters::new(),
            lateness: Lateness::new(),
            slice_ns: nanos(slice),
            period: slice,
            sleeper: None,
            stop: AtomicBool::new(false),
            started_ns: AtomicU64::new(0),
            often: AtomicBool::new(false),
            retired: Mutex::default(),
        };
        Meter(Arc::new(Owner { inner: Arc::new(inner), threads: Vec::new() }))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0.inner
    }

    /// Leases the calling thread a slot, in place of the one it may have, until the lease is dropped.
    ///
    /// # Panics
    /// If 65,536 threads hold a slot already.
    pub fn attach(&self) -> Lease {
        Lease::new(self.0.inner.clone(), self.0.inner.clock)
    }

    /// The time between two ticks while anything polls.
    pub fn tick_period(&self) -> Duration {
        self.0.inner.period
    }

    /// The clock of all its threads together.
    pub fn cpu_clock(&self) -> MeterClock {
        MeterClock::of(self.0.inner.clone())
    }

    /// How exact the accounts are.
    pub fn accuracy(&self) -> AccuracyClass {
        self.0.inner.clock.accuracy()
    }

    /// Counts lateness, missed periods and looks from now on: what benches measure is a stretch, and quantiles cannot be subtracted.
    #[doc(hidden)]
    pub fn clear_tick_distributions(&self) {
        self.0.inner.lateness.clear();
        self.0.inner.metrics.look.clear();
    }

    /// What the tick has done, and how the threads' CPU time was charged.
    pub fn metrics(&self) -> MeterMetrics {
        let inner = &self.0.inner;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Under the lock no thread leaves, so none is counted twice.
        let retired = lock(&inner.retired);
        let mut books = *retired;
        for slot in inner.own_slots() {
            let now_ns = inner.clock.remote_cpu_ns(slot).unwrap_or_else(|| count(&slot.leased_at_ns));
            books.add(slot, now_ns);
        }
        drop(retired);
        let now_ns = fast::monotonic_ns();
        MeterMetrics {
            ticks: count(&inner.metrics.ticks),
            suspects: count(&inner.metrics.suspects),
            confirmed: count(&inner.metrics.confirmed),
            posted: count(&inner.metrics.posted),
            late_completions: books.late_completions,
            charged: Duration::from_nanos(books.charged_ns),
            runtime: Duration::from_nanos(books.runtime_ns),
            threads: Duration::from_nanos(books.threads_ns),
            clock_reads: books.clock_reads,
            clock_debt: Duration::from_nanos(books.clock_debt_ns),
            lateness: inner.lateness.late(),
            missed_periods: inner.lateness.missed(),
            since_tick: inner.lateness.since_last(now_ns),
            overdue: inner.lateness.overdue(now_ns),
            look: inner.metrics.look.distribution(),
        }
    }
}

/// Settings of a [`Meter`].
#[derive(Clone, Debug)]
#[must_use = "a builder makes nothing until `build`"]
pub struct MeterBuilder {
    tick_period: Duration,
    thread_name: String,
    clock: ClockSource,
}

impl Default for MeterBuilder {
    fn default() -> Self {
        Self { tick_period: DEFAULT_TICK_PERIOD, thread_name: "stipend".into(), clock: ClockSource::Auto }
    }
}

impl MeterBuilder {
    /// The time between two ticks while anything polls: 100 us to 1 s, 5 ms by default. It is also the length of the
    /// cooperative slice.
    pub fn tick_period(mut self, period: Duration) -> Self {
        self.tick_period = period;
        self
    }

    /// The beginning of the threads' names, which go on with `-tick` and `-service`.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.thread_name = name.into();
        self
    }

    /// Where CPU time comes from. By default the best that passes a self-test, which takes a few milliseconds, once in a
    /// process.
    ///
    /// | class | what it rests on | what it misses |
    /// | --- | --- | --- |
    /// | `rseq` | the time stamp counter, and the kernel's word that the thread was switched out | what a hypervisor or an interrupt takes within 250 us |
    /// | `perf` | the same, by a perf event | the same |
    /// | `guard` | the same, without a witness | also switches shorter than 250 us in polls shorter than 40 us |
    /// | `thread-clock` | a system call at every boundary | nothing |
    /// | `wall-clock` | wall time: where the system has no CPU clocks of threads | everything |
    pub fn clock(mut self, clock: ClockSource) -> Self {
        self.clock = clock;
        self
    }

    /// Starts the meter.
    ///
    /// # Errors
    /// [`MeterError::TickPeriod`] for a period outside its bounds, [`MeterError::Clock`] for a clock that cannot be had,
    /// [`MeterError::Io`] if the system refuses a thread or a
    /// timer.
    pub fn build(self) -> Result<Meter, MeterError> {
        if !(MIN_TICK_PERIOD..=MAX_TICK_PERIOD).contains(&self.tick_period) {
            return Err(MeterError::TickPeriod { asked: self.tick_period, min: MIN_TICK_PERIOD, max: MAX_TICK_PERIOD });
        }
        let clock = Clock::system(self.clock)?;
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let inner = Arc::new(Inner {
            id,
            total: OwnTotal::new(id),
            clock,
            gate: Gate::new(),
            service: Service::default(),
            metrics: Counters::new(),
            lateness: Lateness::new(),
            slice_ns: nanos(self.tick_period),
            period: self.tick_period,
            sleeper: Some(Sleeper::new()?),
            stop: AtomicBool::new(false),
            started_ns: AtomicU64::new(0),
            often: AtomicBool::new(false),
            retired: Mutex::default(),
        });
        let mut owner = Owner { inner: inner.clone(), threads: Vec::new() };
        let named = |suffix: &str| std::thread::Builder::new().name(format!("{}-{suffix}", self.thread_name));
        let tick = inner.clone();
        owner.threads.push(named("tick").spawn(move || {
            if let Some(sleeper) = &tick.sleeper {
                os::ask_for_short_slices();
                tick.run_tick(sleeper);
            }
        })?);
        owner.threads.push(named("service").spawn(move || inner.run_service())?);
        Ok(Meter(Arc::new(owner)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_timer_that_runs_with_the_gate_closed_is_stopped_by_the_tick() {
        let meter = Meter::builder().tick_period(Duration::from_millis(1)).build().unwrap();
        let inner = meter.inner();
        let sleeper = inner.sleeper.as_ref().unwrap();
        // As by a thread that was held up behind its second look.
        Timer { meter: inner, sleeper }.start();
        let end_ns = fast::monotonic_ns() + 20_000_000_000;
        // By the end of time a timer that runs is overdue.
        while !inner.lateness.overdue(u64::MAX).is_zero() {
            assert!(fast::monotonic_ns() < end_ns, "it runs on, and nobody asked for it");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!((inner.gate.is_open(), meter.metrics().ticks), (false, 0));
    }
}
