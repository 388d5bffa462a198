//! A meter: one tick, one service thread, and the threads that they look after.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::manual::ManualState;
use crate::clock::{AccuracyClass, Clock};
use crate::error::MeterError;
use crate::gate::Gate;
use crate::service::Service;
use crate::sleeper::Sleeper;
use crate::sync::{AtomicU64, Ordering};
use crate::thread::{self, Lease, ThreadSlot};
use crate::tick::TickReport;
use crate::units::nanos;

/// The tick period unless told otherwise.
pub const DEFAULT_TICK_PERIOD: Duration = Duration::from_millis(5);
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
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    ticks: AtomicU64,
    suspects: AtomicU64,
    confirmed: AtomicU64,
    posted: AtomicU64,
}

impl Counters {
    pub(crate) fn add(&self, report: &TickReport) {
        self.ticks.fetch_add(1, Ordering::Relaxed);
        if report.suspects > 0 {
            self.suspects.fetch_add(report.suspects.into(), Ordering::Relaxed);
            self.confirmed.fetch_add(report.confirmed.into(), Ordering::Relaxed);
        }
        if report.posted > 0 {
            self.posted.fetch_add(report.posted.into(), Ordering::Relaxed);
        }
    }
}

/// What threads that have given their slot back had used.
#[derive(Debug, Default)]
struct Retired {
    charged_ns: u64,
    runtime_ns: u64,
    late_completions: u64,
}

/// The shared part of a meter.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) id: u64,
    pub(crate) clock: Clock,
    pub(crate) gate: Gate,
    pub(crate) service: Service,
    pub(crate) metrics: Counters,
    pub(crate) slice_ns: u64,
    period: Duration,
    /// `None`: ticks are made by hand.
    sleeper: Option<Sleeper>,
    stop: AtomicBool,
    retired: Mutex<Retired>,
}

impl Inner {
    /// Starts the timer of the tick. Called by whoever opened the gate.
    #[cold]
    pub(crate) fn start_ticking(&self) {
        if let Some(sleeper) = &self.sleeper {
            sleeper.start(self.period);
        }
    }

    fn own_slots(&self) -> impl Iterator<Item = &'static ThreadSlot> {
        thread::all_slots().filter(|slot| slot.inbox.meter_id.load(Ordering::Acquire) == self.id)
    }

    fn any_active(&self) -> bool {
        self.own_slots().any(|slot| slot.inbox.active.load(Ordering::Relaxed) != 0)
    }

    /// Takes over what a thread has used, as it gives its slot back.
    pub(crate) fn retire(&self, slot: &ThreadSlot) {
        let mut retired = self.retired.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        retired.charged_ns += slot.charged_ns.swap(0, Ordering::Relaxed);
        retired.runtime_ns += slot.runtime_ns.swap(0, Ordering::Relaxed);
        retired.late_completions += slot.late_completions.swap(0, Ordering::Relaxed);
        slot.inbox.meter_id.store(0, Ordering::Release);
    }

    fn run_tick(&self, sleeper: &Sleeper) {
        loop {
            sleeper.wait();
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            if !self.gate.is_open() {
                continue;
            }
            self.tick();
            if !self.any_active() {
                // Stopped before the gate closes: whoever opens it next starts the timer after this.
                sleeper.stop();
                if self.gate.close(|| self.any_active()) {
                    sleeper.start(self.period);
                }
            }
        }
    }

    fn run_service(&self) {
        self.service.is_this_thread(std::thread::current());
        while !self.stop.load(Ordering::Acquire) {
            self.serve();
            std::thread::park();
        }
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
        self.inner.stop.store(true, Ordering::Release);
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
        let inner = Inner {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            clock: Clock::Manual(clock),
            gate: Gate::new(),
            service: Service::default(),
            metrics: Counters::default(),
            slice_ns: nanos(slice),
            period: slice,
            sleeper: None,
            stop: AtomicBool::new(false),
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

    /// How exact the accounts are.
    pub fn accuracy(&self) -> AccuracyClass {
        self.0.inner.clock.accuracy()
    }

    /// What the tick has done, and how the threads' CPU time was charged.
    pub fn metrics(&self) -> MeterMetrics {
        let inner = &self.0.inner;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let retired = inner.retired.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (charged_ns, runtime_ns) =
            inner.own_slots().fold((retired.charged_ns, retired.runtime_ns), |(charged, runtime), slot| {
                (charged + count(&slot.charged_ns), runtime + count(&slot.runtime_ns))
            });
        MeterMetrics {
            ticks: count(&inner.metrics.ticks),
            suspects: count(&inner.metrics.suspects),
            confirmed: count(&inner.metrics.confirmed),
            posted: count(&inner.metrics.posted),
            late_completions: retired.late_completions
                + inner.own_slots().map(|slot| count(&slot.late_completions)).sum::<u64>(),
            charged: Duration::from_nanos(charged_ns),
            runtime: Duration::from_nanos(runtime_ns),
        }
    }
}

/// Settings of a [`Meter`].
#[derive(Clone, Debug)]
#[must_use = "a builder makes nothing until `build`"]
pub struct MeterBuilder {
    tick_period: Duration,
    thread_name: String,
}

impl Default for MeterBuilder {
    fn default() -> Self {
        Self { tick_period: DEFAULT_TICK_PERIOD, thread_name: "stipend".into() }
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

    /// Starts the meter.
    ///
    /// # Errors
    /// [`MeterError::TickPeriod`] for a period outside its bounds, [`MeterError::Io`] if the system refuses a thread or a
    /// timer.
    pub fn build(self) -> Result<Meter, MeterError> {
        if !(MIN_TICK_PERIOD..=MAX_TICK_PERIOD).contains(&self.tick_period) {
            return Err(MeterError::TickPeriod { asked: self.tick_period, min: MIN_TICK_PERIOD, max: MAX_TICK_PERIOD });
        }
        let inner = Arc::new(Inner {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            clock: Clock::System,
            gate: Gate::new(),
            service: Service::default(),
            metrics: Counters::default(),
            slice_ns: nanos(self.tick_period),
            period: self.tick_period,
            sleeper: Some(Sleeper::new()?),
            stop: AtomicBool::new(false),
            retired: Mutex::default(),
        });
        let mut owner = Owner { inner: inner.clone(), threads: Vec::new() };
        let named = |suffix: &str| std::thread::Builder::new().name(format!("{}-{suffix}", self.thread_name));
        let tick = inner.clone();
        owner.threads.push(named("tick").spawn(move || {
            if let Some(sleeper) = &tick.sleeper {
                tick.run_tick(sleeper);
            }
        })?);
        owner.threads.push(named("service").spawn(move || inner.run_service())?);
        Ok(Meter(Arc::new(owner)))
    }
}
